//! ONNX files as bytes: the messages of `onnx.proto`, and a builder of graphs. Nothing here runs a network.

pub mod graph;
pub mod metadata;
pub mod proto;
pub mod weights;

pub use graph::{Attribute, Graph};
