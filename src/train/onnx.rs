//! ONNX files that training starts from or converts. Messages and builder are [`crate::onnx`]'s.

use std::path::Path;

use prost::Message;

use crate::infer::ModelMetadata;
pub use crate::onnx::graph::{Attribute, Graph, floats, node_of, untyped};
pub use crate::onnx::proto::{
    FLOAT, FLOAT16, GraphProto, INT8, INT32, ModelProto, NodeProto, StringStringEntryProto,
    TensorProto, UINT8,
};
use crate::train::dataset::TrainError;

/// Reads a file.
///
/// # Errors
/// When it cannot be read or is no ONNX file.
pub(super) fn read(path: &Path) -> Result<ModelProto, TrainError> {
    let bytes = std::fs::read(path).map_err(|source| TrainError::Read {
        path: path.into(),
        source,
    })?;
    ModelProto::decode(bytes.as_slice()).map_err(|e| TrainError::Data {
        name: path.display().to_string(),
        problem: format!("it is no ONNX file ({e})"),
    })
}

/// What a file says of itself.
///
/// # Errors
/// When it cannot be read or is no ONNX file.
pub fn metadata(path: &Path) -> Result<ModelMetadata, TrainError> {
    let model = read(path)?;
    Ok(ModelMetadata::from_pairs(
        model
            .metadata_props
            .iter()
            .map(|p| (p.key.as_str(), p.value.clone())),
    ))
}
