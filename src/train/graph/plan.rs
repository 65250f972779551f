//! An ONNX graph as a list of steps over numbered values.

use std::collections::BTreeMap;
use std::path::Path;

use crate::onnx::proto::{FLOAT, GraphProto, ModelProto, NodeProto, TensorProto};
use crate::train::error::TrainError;
use crate::train::graph::operation::{self, Operation};
use crate::train::graph::planner::{KnownValue, Planner, Weight};
use crate::train::kernels::normalisation::Activation;
use crate::train::onnx;

/// One operation with its output.
#[derive(Debug, Clone)]
pub struct PlanStep {
    /// The operation.
    pub operation: Operation,
    /// The node's name, for messages.
    pub name: String,
    /// Number of the value that the operation computes.
    pub output: usize,
    /// An activation that is fused with the operation.
    pub activation: Activation,
}

/// The steps of a graph, in order. Values are numbered; value 0 is the picture.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The file's graph, with constant nodes converted to initializers.
    pub graph: GraphProto,
    /// Operator set version.
    pub opset: i64,
    /// The steps.
    pub steps: Vec<PlanStep>,
    /// The weights.
    pub weights: Vec<Weight>,
    /// Number of values.
    pub values: usize,
    /// The value of the embedding, or the value at which the graph was cut.
    pub output: usize,
    /// Name of that value.
    pub end: String,
}

impl Plan {
    /// Reads the file `path`, up to the value `cut` if given.
    ///
    /// # Errors
    /// Fails when the file cannot be read, an operation cannot be trained (the message names it),
    /// or there is no value `cut`.
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
            .ok_or_else(|| misfit("it has no graph".into()))?;
        constants_to_initializers(&mut graph);
        let end = match cut {
            Some(name) => name.to_string(),
            None => graph
                .output
                .first()
                .map(|o| o.name.clone())
                .ok_or_else(|| misfit("its graph has no output".into()))?,
        };
        remove_unused(&mut graph, &end);
        let initial: Vec<&String> = graph.initializer.iter().map(|t| &t.name).collect();
        let input = graph
            .input
            .iter()
            .map(|i| &i.name)
            .find(|n| !initial.contains(n))
            .cloned()
            .ok_or_else(|| misfit("it has no input".into()))?;
        let mut planner = Planner {
            known: BTreeMap::from([(input, KnownValue::Computed(0))]),
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
                operation::ParsedNode::KnownValue(known) => {
                    planner.known.insert(out, known);
                }
                operation::ParsedNode::PlanStep(operation) => {
                    let output = planner.values;
                    planner.values += 1;
                    planner.known.insert(out, KnownValue::Computed(output));
                    steps.push(PlanStep {
                        operation,
                        name: label,
                        output,
                        activation: Activation::Linear,
                    });
                }
            }
        }
        let Some(KnownValue::Computed(output)) = planner.known.get(&end) else {
            return Err(misfit(format!(
                "its graph has no value '{end}' that depends on the picture"
            )));
        };
        let output = *output;
        let steps = fuse_activations(steps);
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

/// A node's name, or its output's name if it has none.
pub fn label(node: &NodeProto) -> String {
    if node.name.is_empty() {
        node.output.first().cloned().unwrap_or_default()
    } else {
        node.name.clone()
    }
}

/// Fuses activations: if only an activation reads the output of a step that ends with a factor or
/// offset per channel, that step computes the activation too.
fn fuse_activations(steps: Vec<PlanStep>) -> Vec<PlanStep> {
    let readers = |value: usize| {
        steps
            .iter()
            .filter(|s| s.operation.inputs().contains(&value))
            .count()
    };
    let joins: BTreeMap<usize, (usize, Activation)> = steps
        .iter()
        .filter_map(|s| match s.operation {
            Operation::Elementwise { x, function } => Some((x, (s.output, function.fusible()?))),
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
    let join = |mut step: PlanStep| {
        if let Some((output, activation)) = joins.get(&step.output) {
            (step.output, step.activation) = (*output, *activation);
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

/// Removes the nodes and constants on which the value `end` does not depend.
fn remove_unused(graph: &mut GraphProto, end: &str) {
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
