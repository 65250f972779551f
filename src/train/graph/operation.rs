//! One node of an ONNX graph as an operation that can be trained.

use crate::onnx::proto::{AttributeProto, NodeProto};
use crate::train::graph::plan::{Known, Planner};
use crate::train::kernels::normalisation::After;

/// What stands on a side of an arithmetic operation.
#[derive(Debug, Clone, Copy)]
pub enum Operand {
    /// A value.
    Value(usize),
    /// A weight, broadcast.
    Weight(usize),
}

/// Arithmetic of two operands.
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

/// A function of each number by itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Elementwise {
    /// max(x, 0)
    Relu,
    /// Limited to a range.
    Clip(f32, f32),
    /// max(x, slope x)
    LeakyRelu(f32),
    /// 1 / (1 + exp(-x))
    Sigmoid,
    /// max(0, min(1, alpha x + beta))
    HardSigmoid(f32, f32),
    /// x times the hard sigmoid of x / 6 + 1/2
    HardSwish,
}

/// A convolution's shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Height and width of the kernel.
    pub kernel: [usize; 2],
    /// Down and across.
    pub stride: [usize; 2],
    /// Rows and columns of zeros on each side.
    pub padding: [usize; 2],
}

/// An operation over values, by their numbers, and weights, by theirs.
#[derive(Debug, Clone)]
#[allow(missing_docs)] // The fields are numbers of values and weights, named as the operation's arguments are.
pub enum Operation {
    /// Convolution with an optional bias.
    Conv {
        x: usize,
        weight: usize,
        bias: Option<usize>,
        window: Window,
        groups: usize,
    },
    /// Batch normalisation by the file's own moments: they stay, scale and offset learn.
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
    /// A function of each number by itself.
    Elementwise { x: usize, function: Elementwise },
    /// max(x, 0) + slope min(x, 0) with a learnt slope.
    PRelu { x: usize, slope: usize },
    /// Arithmetic.
    Arithmetic {
        a: Operand,
        b: Operand,
        kind: Arithmetic,
    },
    /// The greatest number in each window.
    MaxPool { x: usize, window: Window },
    /// The mean of each window, its padding not counted.
    AveragePool { x: usize, window: Window },
    /// The mean of each plane: [n, c, 1, 1].
    PlaneMean { x: usize },
    /// Other dimensions; 0 keeps one, -1 is what remains.
    Reshape { x: usize, dims: Vec<i64> },
    /// Dimensions from `axis` on become one.
    Flatten { x: usize },
    /// Channels one after another.
    Concat { xs: Vec<usize> },
    /// Some of the channels.
    Channels { x: usize, which: Vec<i64> },
    /// A linear map of rows: x w + b, or x w^T + b.
    Linear {
        x: usize,
        weight: usize,
        bias: Option<usize>,
        transposed: bool,
    },
    /// Rows of unit length.
    UnitRows { x: usize },
}

impl Elementwise {
    /// The rectifier that the kernels know, if it is one.
    pub fn rectifier(self) -> Option<After> {
        match self {
            Elementwise::Relu => Some(After::Relu),
            Elementwise::Clip(0.0, 6.0) => Some(After::Relu6),
            _ => None,
        }
    }
}

impl Operation {
    /// Whether it ends in a factor or an offset for each channel.
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

    /// The values it reads.
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

/// What a node turns out to be.
pub enum Read {
    /// A step.
    Step(Operation),
    /// Known before any picture is.
    Known(Known),
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

/// Reads a node.
///
/// # Errors
/// What about it cannot be trained.
pub fn read(node: &NodeProto, planner: &mut Planner, opset: i64) -> Result<Read, String> {
    let step = |operation| Ok(Read::Step(operation));
    let elementwise = |planner: &Planner, function| {
        Ok::<_, String>(Read::Step(Operation::Elementwise {
            x: planner.value(node, 0)?,
            function,
        }))
    };
    match node.op_type.as_str() {
        "Conv" => {
            let weight = planner.weight(node, 1)?;
            let dims = planner.weights[weight].dims.clone();
            let [_, _, h, w] = dims[..] else { return Err("only convolutions over height and width are known".into()) };
            let window = window(node, Some([h, w]))?;
            let groups = integer(node, "group", 1) as usize;
            step(Operation::Conv { x: planner.value(node, 0)?, weight, bias: planner.optional_weight(node, 2)?, window, groups })
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
        "HardSigmoid" => elementwise(planner, Elementwise::HardSigmoid(number(node, "alpha", 0.2), number(node, "beta", 0.5))),
        "HardSwish" => elementwise(planner, Elementwise::HardSwish),
        "Clip" => {
            let limit = |place: usize, name: &str, default: f32| match planner.input(node, place) {
                Known::Weight(w) => planner.weights[w].values.first().copied().unwrap_or(default),
                _ => number(node, name, default),
            };
            let function = Elementwise::Clip(limit(1, "min", f32::NEG_INFINITY), limit(2, "max", f32::INFINITY));
            elementwise(planner, function)
        }
        "PRelu" => step(Operation::PRelu { x: planner.value(node, 0)?, slope: planner.weight(node, 1)? }),
        "Add" => arithmetic(node, planner, Arithmetic::Add),
        "Sub" => arithmetic(node, planner, Arithmetic::Sub),
        "Mul" => arithmetic(node, planner, Arithmetic::Mul),
        "Div" => arithmetic(node, planner, Arithmetic::Div),
        "MaxPool" => step(Operation::MaxPool { x: planner.value(node, 0)?, window: window(node, None)? }),
        "AveragePool" => {
            let window = window(node, None)?;
            if window.padding != [0, 0] && integer(node, "count_include_pad", 0) != 0 {
                return Err("a mean that counts its padding is not known".into());
            }
            step(Operation::AveragePool { x: planner.value(node, 0)?, window })
        }
        "GlobalAveragePool" => step(Operation::PlaneMean { x: planner.value(node, 0)? }),
        "ReduceMean" => {
            let axes = if opset >= 18 && node.input.len() > 1 { planner.integers(node, 1)? } else { integers(node, "axes") };
            let over_planes = matches!(axes[..], [2, 3] | [-2, -1]);
            if !over_planes || integer(node, "keepdims", 1) != 1 {
                return Err("only means over height and width that keep their dimensions are known".into());
            }
            step(Operation::PlaneMean { x: planner.value(node, 0)? })
        }
        "Reshape" => step(Operation::Reshape { x: planner.value(node, 0)?, dims: planner.integers(node, 1)? }),
        "Flatten" if integer(node, "axis", 1) == 1 => step(Operation::Flatten { x: planner.value(node, 0)? }),
        "Squeeze" => {
            let axes = if node.input.len() > 1 { planner.integers(node, 1)? } else { integers(node, "axes") };
            if axes.iter().any(|a| !matches!(a, 2 | 3 | -1 | -2)) {
                return Err("only height and width can be squeezed away".into());
            }
            step(Operation::Flatten { x: planner.value(node, 0)? })
        }
        "Concat" => concat(node, planner),
        "Gather" if integer(node, "axis", 0) == 1 => step(Operation::Channels { x: planner.value(node, 0)?, which: planner.integers(node, 1)? }),
        "MatMul" => step(Operation::Linear { x: planner.value(node, 0)?, weight: planner.weight(node, 1)?, bias: None, transposed: false }),
        "Gemm" => {
            if number(node, "alpha", 1.0) != 1.0 || number(node, "beta", 1.0) != 1.0 || integer(node, "transA", 0) != 0 {
                return Err("only x w + b is known".into());
            }
            let (weight, bias) = (planner.weight(node, 1)?, planner.optional_weight(node, 2)?);
            step(Operation::Linear { x: planner.value(node, 0)?, weight, bias, transposed: integer(node, "transB", 0) != 0 })
        }
        "LpNormalization" if integer(node, "p", 2) == 2 && matches!(integer(node, "axis", -1), 1 | -1) => {
            step(Operation::UnitRows { x: planner.value(node, 0)? })
        }
        // What only training does is left out.
        "Identity" | "Dropout" => Ok(Read::Known(planner.input(node, 0))),
        _ => Err("this operation, or this form of it, cannot be trained here; docs/training.md lists those that can".into()),
    }
}

fn arithmetic(node: &NodeProto, planner: &Planner, kind: Arithmetic) -> Result<Read, String> {
    let operand = |place| match planner.input(node, place) {
        Known::Value(v) => Ok(Operand::Value(v)),
        Known::Weight(w) => Ok(Operand::Weight(w)),
        _ => Err(format!(
            "input {place} is neither a value nor a float32 constant"
        )),
    };
    match (operand(0)?, operand(1)?) {
        (Operand::Weight(_), Operand::Weight(_)) => {
            Err("arithmetic of two constants is not known".into())
        }
        (a, b) => Ok(Read::Step(Operation::Arithmetic { a, b, kind })),
    }
}

fn concat(node: &NodeProto, planner: &Planner) -> Result<Read, String> {
    let inputs: Vec<Known> = (0..node.input.len())
        .map(|i| planner.input(node, i))
        .collect();
    let whole: Option<Vec<i64>> = inputs
        .iter()
        .map(|k| {
            if let Known::Integers(v) = k {
                Some(v.clone())
            } else {
                None
            }
        })
        .collect::<Option<Vec<_>>>()
        .map(|v| v.concat());
    if let Some(integers) = whole {
        return Ok(Read::Known(Known::Integers(integers)));
    }
    let xs: Option<Vec<usize>> = inputs
        .iter()
        .map(|k| {
            if let Known::Value(v) = k {
                Some(*v)
            } else {
                None
            }
        })
        .collect();
    match xs {
        Some(xs) if integer(node, "axis", 1) == 1 => Ok(Read::Step(Operation::Concat { xs })),
        _ => Err("only channels of values can be put one after another".into()),
    }
}

/// The window of a convolution or pooling.
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
        return Err("padding that is left to the runtime (auto_pad) is not known".into());
    }
    if integers(node, "dilations").iter().any(|d| *d != 1) || integer(node, "ceil_mode", 0) != 0 {
        return Err("dilations and rounding up are not known".into());
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
