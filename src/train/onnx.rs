//! Reads ONNX files, from which training starts or which it converts. [`crate::onnx`] defines the
//! format.

use std::path::Path;

use prost::Message;

use crate::infer::ModelMetadata;
pub use crate::onnx::graph::{Attribute, Graph, floats, integers_of, node_of, untyped};
pub use crate::onnx::proto::{
    FLOAT, FLOAT16, GraphProto, INT8, INT32, ModelProto, NodeProto, StringStringEntryProto,
    TensorProto, UINT8,
};
use crate::train::error::TrainError;

/// Reads and decodes a file.
///
/// # Errors
/// Fails when the file cannot be read or is not an ONNX file.
pub(super) fn read(path: &Path) -> Result<ModelProto, TrainError> {
    let bytes = std::fs::read(path).map_err(|source| TrainError::Read {
        path: path.into(),
        source,
    })?;
    ModelProto::decode(bytes.as_slice()).map_err(|e| TrainError::Data {
        name: path.display().to_string(),
        problem: format!("not an ONNX file ({e})"),
    })
}

/// Reads a file's metadata.
///
/// # Errors
/// Fails when the file cannot be read or is not an ONNX file.
pub fn metadata(path: &Path) -> Result<ModelMetadata, TrainError> {
    let model = read(path)?;
    Ok(ModelMetadata::from_pairs(
        model
            .metadata_props
            .iter()
            .map(|p| (p.key.as_str(), p.value.clone())),
    ))
}
