//! Parses a node of an ONNX graph into an operation that can be trained.

use crate::onnx::proto::{AttributeProto, NodeProto};
use crate::train::graph::planner::{KnownValue, Planner};
use crate::train::kernels::normalisation::Activation;

/// An operand of an arithmetic operation.
#[derive(Debug, Clone, Copy)]
pub enum Operand {
    /// A value.
    Value(usize),
    /// A weight, broadcast.
    Weight(usize),
}

/// An arithmetic operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arithmetic {
    /// a + b
    Add,
    /// a - b
    Sub,
    /// a * b
    Mul,
    /// a / b
    Div,
}

/// A function applied to each number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Elementwise {
    /// max(x, 0)
    Relu,
    /// Clamped to a range.
    Clip(f32, f32),
    /// max(x, slope x)
    LeakyRelu(f32),
    /// 1 / (1 + exp(-x))
    Sigmoid,
    /// max(0, min(1, alpha x + beta))
    HardSigmoid(f32, f32),
    /// x max(0, min(1, x / 6 + 1/2))
    HardSwish,
}

/// Kernel of a convolution or pooling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Height and width of the kernel.
    pub kernel: [usize; 2],
    /// Vertical and horizontal stride.
    pub stride: [usize; 2],
    /// Rows and columns of zeros on each side.
    pub padding: [usize; 2],
}

/// An operation on values and weights, which are referred to by their numbers.
#[derive(Debug, Clone)]
#[allow(missing_docs)] // The fields are named after the operation's arguments.
pub enum Operation {
    /// Convolution with an optional bias.
    Conv {
        x: usize,
        weight: usize,
        bias: Option<usize>,
        window: Window,
        groups: usize,
    },
    /// Batch normalisation with the file's moments, of which only scale and offset are trained.
    BatchNorm {
        x: usize,
        scale: usize,
        offset: usize,
        mean: usize,
        variance: usize,
        epsilon: f32,
    },
    /// Normalisation of each channel of each picture.
    InstanceNorm {
        x: usize,
        scale: usize,
        offset: usize,
        epsilon: f32,
    },
    /// A function applied to each number.
    Elementwise { x: usize, function: Elementwise },
    /// max(x, 0) + slope min(x, 0) with a trained slope.
    PRelu { x: usize, slope: usize },
    /// Arithmetic.
    Arithmetic {
        a: Operand,
        b: Operand,
        kind: Arithmetic,
    },
    /// The maximum of each window.
    MaxPool { x: usize, window: Window },
    /// The mean of each window, excluding padding.
    AveragePool { x: usize, window: Window },
    /// The mean of each plane: [n, c, 1, 1].
    PlaneMean { x: usize },
    /// Changes the dimensions; 0 keeps a dimension, -1 infers one.
    Reshape { x: usize, dims: Vec<i64> },
    /// Merges all dimensions after the first.
    Flatten { x: usize },
    /// Concatenates channels.
    Concat { xs: Vec<usize> },
    /// Selects channels.
    Channels { x: usize, which: Vec<i64> },
    /// Linear map of rows: x w + b, or x w^T + b.
    Linear {
        x: usize,
        weight: usize,
        bias: Option<usize>,
        transposed: bool,
    },
    /// Normalises rows to unit length.
    UnitRows { x: usize },
}

impl Elementwise {
    /// The activation, if the kernels can fuse this function.
    pub fn fusible(self) -> Option<Activation> {
        match self {
            Elementwise::Relu => Some(Activation::Relu),
            Elementwise::Clip(0.0, 6.0) => Some(Activation::Relu6),
            _ => None,
        }
    }
}

impl Operation {
    /// Whether the operation ends with a factor or an offset per channel, with which an activation
    /// can be fused.
    pub fn is_affine(&self) -> bool {
        match self {
            Operation::Conv { bias, .. } => bias.is_some(),
            Operation::BatchNorm { .. } => true,
            Operation::Arithmetic { a, b, kind } => {
                matches!(kind, Arithmetic::Add | Arithmetic::Mul)
                    && matches!(
                        (a, b),
                        (Operand::Value(_), Operand::Weight(_))
                            | (Operand::Weight(_), Operand::Value(_))
                    )
            }
            _ => false,
        }
    }

    /// The values that the operation reads.
    pub fn inputs(&self) -> Vec<usize> {
        match self {
            Operation::Concat { xs } => xs.clone(),
            Operation::Arithmetic { a, b, .. } => [a, b]
                .into_iter()
                .filter_map(|o| {
                    if let Operand::Value(v) = o {
                        Some(*v)
                    } else {
                        None
                    }
                })
                .collect(),
            Operation::Conv { x, .. }
            | Operation::BatchNorm { x, .. }
            | Operation::InstanceNorm { x, .. }
            | Operation::Elementwise { x, .. }
            | Operation::PRelu { x, .. }
            | Operation::MaxPool { x, .. }
            | Operation::AveragePool { x, .. }
            | Operation::PlaneMean { x }
            | Operation::Reshape { x, .. }
            | Operation::Flatten { x }
            | Operation::Channels { x, .. }
            | Operation::Linear { x, .. }
            | Operation::UnitRows { x } => vec![*x],
        }
    }
}

/// Result of parsing a node.
pub enum ParsedNode {
    /// A step to execute.
    PlanStep(Operation),
    /// A value known before execution.
    KnownValue(KnownValue),
}

fn attribute<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute.iter().find(|a| a.name == name)
}

fn integer(node: &NodeProto, name: &str, default: i64) -> i64 {
    attribute(node, name).and_then(|a| a.i).unwrap_or(default)
}

fn number(node: &NodeProto, name: &str, default: f32) -> f32 {
    attribute(node, name).and_then(|a| a.f).unwrap_or(default)
}

fn integers(node: &NodeProto, name: &str) -> Vec<i64> {
    attribute(node, name)
        .map(|a| a.ints.clone())
        .unwrap_or_default()
}

/// Parses a node.
///
/// # Errors
/// The message says what cannot be trained.
pub fn read(node: &NodeProto, planner: &mut Planner, opset: i64) -> Result<ParsedNode, String> {
    let step = |operation| Ok(ParsedNode::PlanStep(operation));
    let elementwise = |planner: &Planner, function| {
        Ok::<_, String>(ParsedNode::PlanStep(Operation::Elementwise {
            x: planner.value(node, 0)?,
            function,
        }))
    };
    match node.op_type.as_str() {
        "Conv" => {
            let weight = planner.weight(node, 1)?;
            let dims = planner.weights[weight].dims.clone();
            let [_, _, h, w] = dims[..] else {
                return Err("only convolutions over height and width are supported".into());
            };
            let window = window(node, Some([h, w]))?;
            let groups = integer(node, "group", 1) as usize;
            step(Operation::Conv {
                x: planner.value(node, 0)?,
                weight,
                bias: planner.optional_weight(node, 2)?,
                window,
                groups,
            })
        }
        "BatchNormalization" => step(Operation::BatchNorm {
            x: planner.value(node, 0)?,
            scale: planner.weight(node, 1)?,
            offset: planner.weight(node, 2)?,
            mean: planner.weight(node, 3)?,
            variance: planner.weight(node, 4)?,
            epsilon: number(node, "epsilon", 1e-5),
        }),
        "InstanceNormalization" => step(Operation::InstanceNorm {
            x: planner.value(node, 0)?,
            scale: planner.weight(node, 1)?,
            offset: planner.weight(node, 2)?,
            epsilon: number(node, "epsilon", 1e-5),
        }),
        "Relu" => elementwise(planner, Elementwise::Relu),
        "LeakyRelu" => elementwise(planner, Elementwise::LeakyRelu(number(node, "alpha", 0.01))),
        "Sigmoid" => elementwise(planner, Elementwise::Sigmoid),
        "HardSigmoid" => elementwise(
            planner,
            Elementwise::HardSigmoid(number(node, "alpha", 0.2), number(node, "beta", 0.5)),
        ),
        "HardSwish" => elementwise(planner, Elementwise::HardSwish),
        "Clip" => {
            let limit = |place: usize, name: &str, default: f32| match planner.input(node, place) {
                KnownValue::Weight(w) => planner.weights[w]
                    .values
                    .first()
                    .copied()
                    .unwrap_or(default),
                _ => number(node, name, default),
            };
            let function = Elementwise::Clip(
                limit(1, "min", f32::NEG_INFINITY),
                limit(2, "max", f32::INFINITY),
            );
            elementwise(planner, function)
        }
        "PRelu" => step(Operation::PRelu {
            x: planner.value(node, 0)?,
            slope: planner.weight(node, 1)?,
        }),
        "Add" => arithmetic(node, planner, Arithmetic::Add),
        "Sub" => arithmetic(node, planner, Arithmetic::Sub),
        "Mul" => arithmetic(node, planner, Arithmetic::Mul),
        "Div" => arithmetic(node, planner, Arithmetic::Div),
        "MaxPool" => step(Operation::MaxPool {
            x: planner.value(node, 0)?,
            window: window(node, None)?,
        }),
        "AveragePool" => {
            let window = window(node, None)?;
            if window.padding != [0, 0] && integer(node, "count_include_pad", 0) != 0 {
                return Err("a mean that includes its padding is not supported".into());
            }
            step(Operation::AveragePool {
                x: planner.value(node, 0)?,
                window,
            })
        }
        "GlobalAveragePool" => step(Operation::PlaneMean {
            x: planner.value(node, 0)?,
        }),
        "ReduceMean" => {
            let axes = if opset >= 18 && node.input.len() > 1 {
                planner.integers(node, 1)?
            } else {
                integers(node, "axes")
            };
            let over_planes = matches!(axes[..], [2, 3] | [-2, -1]);
            if !over_planes || integer(node, "keepdims", 1) != 1 {
                return Err("only means over height and width with keepdims are supported".into());
            }
            step(Operation::PlaneMean {
                x: planner.value(node, 0)?,
            })
        }
        "Reshape" => step(Operation::Reshape {
            x: planner.value(node, 0)?,
            dims: planner.integers(node, 1)?,
        }),
        "Flatten" if integer(node, "axis", 1) == 1 => step(Operation::Flatten {
            x: planner.value(node, 0)?,
        }),
        "Squeeze" => {
            let axes = if node.input.len() > 1 {
                planner.integers(node, 1)?
            } else {
                integers(node, "axes")
            };
            if axes.iter().any(|a| !matches!(a, 2 | 3 | -1 | -2)) {
                return Err("only height and width can be squeezed".into());
            }
            step(Operation::Flatten {
                x: planner.value(node, 0)?,
            })
        }
        "Concat" => concat(node, planner),
        "Gather" if integer(node, "axis", 0) == 1 => step(Operation::Channels {
            x: planner.value(node, 0)?,
            which: planner.integers(node, 1)?,
        }),
        "MatMul" => step(Operation::Linear {
            x: planner.value(node, 0)?,
            weight: planner.weight(node, 1)?,
            bias: None,
            transposed: false,
        }),
        "Gemm" => {
            if number(node, "alpha", 1.0) != 1.0
                || number(node, "beta", 1.0) != 1.0
                || integer(node, "transA", 0) != 0
            {
                return Err("only x w + b is supported".into());
            }
            let (weight, bias) = (planner.weight(node, 1)?, planner.optional_weight(node, 2)?);
            step(Operation::Linear {
                x: planner.value(node, 0)?,
                weight,
                bias,
                transposed: integer(node, "transB", 0) != 0,
            })
        }
        "LpNormalization"
            if integer(node, "p", 2) == 2 && matches!(integer(node, "axis", -1), 1 | -1) =>
        {
            step(Operation::UnitRows {
                x: planner.value(node, 0)?,
            })
        }
        // Identity at inference.
        "Identity" | "Dropout" => Ok(ParsedNode::KnownValue(planner.input(node, 0))),
        _ => Err(
            "this operation, or this form of it, cannot be trained; docs/guide/train.md lists \
                  the supported ones"
                .into(),
        ),
    }
}

fn arithmetic(node: &NodeProto, planner: &Planner, kind: Arithmetic) -> Result<ParsedNode, String> {
    let operand = |place| match planner.input(node, place) {
        KnownValue::Computed(v) => Ok(Operand::Value(v)),
        KnownValue::Weight(w) => Ok(Operand::Weight(w)),
        _ => Err(format!(
            "input {place} is neither a value nor a float32 constant"
        )),
    };
    match (operand(0)?, operand(1)?) {
        (Operand::Weight(_), Operand::Weight(_)) => {
            Err("arithmetic of two constants is not supported".into())
        }
        (a, b) => Ok(ParsedNode::PlanStep(Operation::Arithmetic { a, b, kind })),
    }
}

fn concat(node: &NodeProto, planner: &Planner) -> Result<ParsedNode, String> {
    let inputs: Vec<KnownValue> = (0..node.input.len())
        .map(|i| planner.input(node, i))
        .collect();
    let whole: Option<Vec<i64>> = inputs
        .iter()
        .map(|k| {
            if let KnownValue::Integers(v) = k {
                Some(v.clone())
            } else {
                None
            }
        })
        .collect::<Option<Vec<_>>>()
        .map(|v| v.concat());
    if let Some(integers) = whole {
        return Ok(ParsedNode::KnownValue(KnownValue::Integers(integers)));
    }
    let xs: Option<Vec<usize>> = inputs
        .iter()
        .map(|k| {
            if let KnownValue::Computed(v) = k {
                Some(*v)
            } else {
                None
            }
        })
        .collect();
    match xs {
        Some(xs) if integer(node, "axis", 1) == 1 => {
            Ok(ParsedNode::PlanStep(Operation::Concat { xs }))
        }
        _ => Err("only channels of values can be concatenated".into()),
    }
}

/// Parses the window of a convolution or pooling.
fn window(node: &NodeProto, kernel: Option<[usize; 2]>) -> Result<Window, String> {
    let pair = |name: &str, default: [usize; 2]| -> Result<[usize; 2], String> {
        match integers(node, name)[..] {
            [] => Ok(default),
            [a, b] => Ok([a as usize, b as usize]),
            _ => Err(format!("its {name} are not two numbers")),
        }
    };
    let auto = attribute(node, "auto_pad")
        .and_then(|a| a.s.clone())
        .unwrap_or_default();
    if !matches!(&auto[..], b"" | b"NOTSET") {
        return Err("auto_pad is not supported".into());
    }
    if integers(node, "dilations").iter().any(|d| *d != 1) || integer(node, "ceil_mode", 0) != 0 {
        return Err("dilations and ceil_mode are not supported".into());
    }
    let padding = match integers(node, "pads")[..] {
        [] => [0, 0],
        [top, left, bottom, right] if top == bottom && left == right => {
            [top as usize, left as usize]
        }
        _ => return Err("padding must be the same on both sides".into()),
    };
    let kernel = pair("kernel_shape", kernel.unwrap_or([0, 0]))?;
    if kernel.contains(&0) {
        return Err("its kernel_shape is missing".into());
    }
    Ok(Window {
        kernel,
        stride: pair("strides", [1, 1])?,
        padding,
    })
}
