//! The ONNX file format: the messages of `onnx.proto` and a graph builder. Does not run networks.

pub mod graph;
pub mod metadata;
pub mod proto;
pub mod weights;

pub use graph::{Attribute, Graph};
