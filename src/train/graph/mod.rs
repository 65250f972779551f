//! Any ONNX embedder as a trainable network: its graph is run on the training back end, its constants are the weights, and
//! it is written back as the graph it was.
//!
//! Reading order: [`plan`] (what the graph does, step by step), [`operation`] (reading one node), [`network`] (running and
//! learning), [`write`] (back to ONNX).

pub mod network;
pub mod operation;
pub mod plan;
pub mod write;
