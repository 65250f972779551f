//! What an ONNX graph does, as a list of steps over numbered values.

use std::collections::BTreeMap;
use std::path::Path;

use crate::onnx::proto::{FLOAT, GraphProto, INT32, INT64, ModelProto, NodeProto, TensorProto};
use crate::train::dataset::TrainError;
use crate::train::graph::operation::{self, Operation};
use crate::train::kernels::normalisation::After;
use crate::train::onnx;

/// A learnt constant of the file.
#[derive(Debug, Clone)]
pub struct Weight {
    /// Its name in the file.
    pub name: String,
    /// Its dimensions.
    pub dims: Vec<usize>,
    /// Its values as the file has them.
    pub values: Vec<f32>,
}

/// One operation: what it reads, what it makes.
#[derive(Debug, Clone)]
pub struct Step {
    /// What is done.
    pub operation: Operation,
    /// The node's name, for messages.
    pub name: String,
    /// The value it makes.
    pub output: usize,
    /// A rectifier that follows and is done in the same pass over the maps.
    pub after: After,
}

/// The steps of a graph, in order. Values are numbered; value 0 is the picture.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The file's graph; constants that were nodes are initializers.
    pub graph: GraphProto,
    /// The version of the operators.
    pub opset: i64,
    /// The steps.
    pub steps: Vec<Step>,
    /// The weights.
    pub weights: Vec<Weight>,
    /// How many values there are.
    pub values: usize,
    /// The value that is the embedding, or at which the graph was cut.
    pub output: usize,
    /// Its name.
    pub end: String,
}

/// What is known of a value while a plan is made.
#[derive(Debug, Clone)]
pub enum Known {
    /// Computed at run time.
    Value(usize),
    /// A learnt constant.
    Weight(usize),
    /// A constant of whole numbers.
    Integers(Vec<i64>),
    /// Not used by anything that is understood.
    Nothing,
}

/// Reads a graph, node by node.
pub struct Planner {
    known: BTreeMap<String, Known>,
    /// The weights so far.
    pub weights: Vec<Weight>,
    values: usize,
}

impl Plan {
    /// Reads the file `path`; with `cut` only as far as the value of that name.
    ///
    /// # Errors
    /// When it cannot be read, has an operation that cannot be trained (it is named), or no value is called `cut`.
    pub fn read(path: &Path, cut: Option<&str>) -> Result<Self, TrainError> {
        let misfit = |problem: String| TrainError::Data {
            name: path.display().to_string(),
            problem,
        };
        let model: ModelProto = onnx::read(path)?;
        let opset = model
            .opset_import
            .iter()
            .find(|o| o.domain.is_empty())
            .map_or(crate::onnx::proto::OPSET, |o| o.version);
        let mut graph = model
            .graph
            .ok_or_else(|| misfit("it holds no graph".into()))?;
        constants_to_initializers(&mut graph);
        let end = match cut {
            Some(name) => name.to_string(),
            None => graph
                .output
                .first()
                .map(|o| o.name.clone())
                .ok_or_else(|| misfit("its graph has no output".into()))?,
        };
        keep_needed(&mut graph, &end);
        let initial: Vec<&String> = graph.initializer.iter().map(|t| &t.name).collect();
        let input = graph
            .input
            .iter()
            .map(|i| &i.name)
            .find(|n| !initial.contains(n))
            .cloned()
            .ok_or_else(|| misfit("it has no input".into()))?;
        let mut planner = Planner {
            known: BTreeMap::from([(input, Known::Value(0))]),
            weights: Vec::new(),
            values: 1,
        };
        for tensor in &graph.initializer {
            let known = planner.constant(tensor).map_err(&misfit)?;
            planner.known.insert(tensor.name.clone(), known);
        }
        let mut steps = Vec::new();
        for node in &graph.node {
            let label = label(node);
            let read = operation::read(node, &mut planner, opset).map_err(|problem| {
                misfit(format!("node '{label}' ({}): {problem}", node.op_type))
            })?;
            let out = node.output.first().cloned().unwrap_or_default();
            match read {
                operation::Read::Known(known) => {
                    planner.known.insert(out, known);
                }
                operation::Read::Step(operation) => {
                    let output = planner.values;
                    planner.values += 1;
                    planner.known.insert(out, Known::Value(output));
                    steps.push(Step {
                        operation,
                        name: label,
                        output,
                        after: After::Linear,
                    });
                }
            }
        }
        let Some(Known::Value(output)) = planner.known.get(&end) else {
            return Err(misfit(format!(
                "no value of its graph that depends on the picture is called '{end}'"
            )));
        };
        let output = *output;
        let steps = rectified(steps);
        Ok(Plan {
            graph,
            opset,
            steps,
            weights: planner.weights,
            values: planner.values,
            output,
            end,
        })
    }
}

/// A node's name, or where it has none that of its output.
pub fn label(node: &NodeProto) -> String {
    if node.name.is_empty() {
        node.output.first().cloned().unwrap_or_default()
    } else {
        node.name.clone()
    }
}

impl Planner {
    /// What is known of an input of a node; an empty name is an optional input left out.
    pub fn input(&self, node: &NodeProto, place: usize) -> Known {
        node.input
            .get(place)
            .filter(|n| !n.is_empty())
            .and_then(|n| self.known.get(n))
            .cloned()
            .unwrap_or(Known::Nothing)
    }

    /// The value at an input.
    ///
    /// # Errors
    /// When it is a constant or missing.
    pub fn value(&self, node: &NodeProto, place: usize) -> Result<usize, String> {
        match self.input(node, place) {
            Known::Value(v) => Ok(v),
            _ => Err(format!("input {place} must depend on the picture")),
        }
    }

    /// The weight at an input, with its dimensions.
    ///
    /// # Errors
    /// When it is no float32 constant.
    pub fn weight(&self, node: &NodeProto, place: usize) -> Result<usize, String> {
        match self.input(node, place) {
            Known::Weight(w) => Ok(w),
            _ => Err(format!(
                "input {place} must be a float32 constant of the file"
            )),
        }
    }

    /// The weight at an optional input.
    ///
    /// # Errors
    /// When it is there and no float32 constant.
    pub fn optional_weight(&self, node: &NodeProto, place: usize) -> Result<Option<usize>, String> {
        match self.input(node, place) {
            Known::Nothing => Ok(None),
            _ => self.weight(node, place).map(Some),
        }
    }

    /// The constant whole numbers at an input.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn integers(&self, node: &NodeProto, place: usize) -> Result<Vec<i64>, String> {
        match self.input(node, place) {
            Known::Integers(v) => Ok(v),
            _ => Err(format!("input {place} must be constant whole numbers")),
        }
    }

    fn constant(&mut self, tensor: &TensorProto) -> Result<Known, String> {
        let dims: Vec<usize> = tensor.dims.iter().map(|d| *d as usize).collect();
        match tensor.data_type {
            FLOAT => {
                let values = if tensor.raw_data.is_empty() {
                    tensor.float_data.clone()
                } else {
                    crate::onnx::graph::floats(tensor)
                };
                if values.len() != dims.iter().product::<usize>() {
                    return Err(format!(
                        "the constant '{}' does not hold as many values as its dimensions say",
                        tensor.name
                    ));
                }
                self.weights.push(Weight {
                    name: tensor.name.clone(),
                    dims,
                    values,
                });
                Ok(Known::Weight(self.weights.len() - 1))
            }
            INT64 if tensor.raw_data.is_empty() => Ok(Known::Integers(tensor.int64_data.clone())),
            INT64 => Ok(Known::Integers(
                tensor
                    .raw_data
                    .as_chunks::<8>()
                    .0
                    .iter()
                    .map(|b| i64::from_le_bytes(*b))
                    .collect(),
            )),
            INT32 => Ok(Known::Integers(
                tensor
                    .raw_data
                    .as_chunks::<4>()
                    .0
                    .iter()
                    .map(|b| i64::from(i32::from_le_bytes(*b)))
                    .collect(),
            )),
            _ => Ok(Known::Nothing),
        }
    }
}

/// Joins rectifiers with the steps before them: where a step that ends in a factor or offset for each channel is read by a
/// rectifier alone, it makes the rectifier's value itself.
fn rectified(steps: Vec<Step>) -> Vec<Step> {
    let readers = |value: usize| {
        steps
            .iter()
            .filter(|s| s.operation.inputs().contains(&value))
            .count()
    };
    let joins: BTreeMap<usize, (usize, After)> = steps
        .iter()
        .filter_map(|s| match s.operation {
            Operation::Elementwise { x, function } => Some((x, (s.output, function.rectifier()?))),
            _ => None,
        })
        .filter(|(x, _)| {
            readers(*x) == 1
                && steps
                    .iter()
                    .any(|s| s.output == *x && s.operation.is_affine())
        })
        .collect();
    let joined: Vec<usize> = joins.values().map(|(output, _)| *output).collect();
    let join = |mut step: Step| {
        if let Some((output, after)) = joins.get(&step.output) {
            (step.output, step.after) = (*output, *after);
        }
        step
    };
    steps
        .iter()
        .filter(|s| !joined.contains(&s.output))
        .cloned()
        .map(join)
        .collect()
}

fn constants_to_initializers(graph: &mut GraphProto) {
    let (constants, nodes) = std::mem::take(&mut graph.node)
        .into_iter()
        .partition::<Vec<_>, _>(|n| n.op_type == "Constant");
    graph.node = nodes;
    for node in constants {
        let name = node.output.first().cloned().unwrap_or_default();
        for attribute in node.attribute {
            if let Some(tensor) = attribute.t {
                graph.initializer.push(TensorProto {
                    name: name.clone(),
                    ..tensor
                });
            } else if let Some(v) = attribute.f {
                graph.initializer.push(TensorProto {
                    name: name.clone(),
                    data_type: FLOAT,
                    raw_data: v.to_le_bytes().to_vec(),
                    ..TensorProto::default()
                });
            }
        }
    }
}

/// Leaves out the nodes and constants that the value `end` does not depend on.
fn keep_needed(graph: &mut GraphProto, end: &str) {
    let mut needed: std::collections::BTreeSet<String> = [end.to_string()].into();
    graph.node.reverse();
    graph.node.retain(|node| {
        let used = node.output.iter().any(|o| needed.contains(o));
        if used {
            needed.extend(node.input.iter().cloned());
        }
        used
    });
    graph.node.reverse();
    graph.initializer.retain(|t| needed.contains(&t.name));
}
