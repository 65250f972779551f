//! ONNX files that training starts from or converts. Messages and builder are [`crate::onnx`]'s.

use std::path::Path;

use prost::Message;

pub use crate::onnx::graph::{Attribute, Graph, floats, node_of, untyped};
pub use crate::onnx::proto::{FLOAT, FLOAT16, GraphProto, INT8, INT32, ModelProto, NodeProto, StringStringEntryProto, TensorProto, UINT8};
use crate::train::dataset::TrainError;

/// Reads a file.
///
/// # Errors
/// When it cannot be read or is no ONNX file.
pub(super) fn read(path: &Path) -> Result<ModelProto, TrainError> {
    let bytes = std::fs::read(path).map_err(|source| TrainError::Read { path: path.into(), source })?;
    ModelProto::decode(bytes.as_slice()).map_err(|e| TrainError::Data { name: path.display().to_string(), problem: format!("it is no ONNX file ({e})") })
}

/// A convolution of a file: its weight and bias.
#[derive(Debug, Clone, PartialEq)]
pub struct Convolution {
    /// Out, in by group, height, width.
    pub shape: [usize; 4],
    /// Row-major weights.
    pub weight: Vec<f32>,
    /// A bias for each channel out.
    pub bias: Vec<f32>,
}

/// The float32 convolutions of a file, in the order of its nodes; those without a bias have zeros.
///
/// # Errors
/// When it cannot be read or is no ONNX file.
pub fn convolutions(path: &Path) -> Result<Vec<Convolution>, TrainError> {
    let misfit = |problem: String| TrainError::Data { name: path.display().to_string(), problem };
    let graph = read(path)?.graph.unwrap_or_default();
    let floats = |name: &String| {
        let t = graph.initializer.iter().find(|t| t.name == *name && t.data_type == FLOAT)?;
        Some((t.dims.iter().map(|&d| d as usize).collect::<Vec<_>>(), floats(t)))
    };
    let convolution = |node: &NodeProto| {
        let (dims, weight) = node.input.get(1).and_then(floats)?;
        let shape: [usize; 4] = dims.try_into().ok().filter(|s: &[usize; 4]| s.iter().product::<usize>() == weight.len())?;
        let bias = node.input.get(2).map_or_else(|| Some(vec![0.0; shape[0]]), |b| floats(b).map(|(_, v)| v))?;
        (bias.len() == shape[0]).then_some(Convolution { shape, weight, bias })
    };
    let nodes = graph.node.iter().filter(|n| n.op_type == "Conv");
    nodes.map(|n| convolution(n).ok_or_else(|| misfit(format!("the convolution {} has no float32 weights of its own", n.name)))).collect()
}
