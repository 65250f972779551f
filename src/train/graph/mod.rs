//! Trains any ONNX embedder: runs the file's graph on the training backend with its constants as
//! weights, and writes the same graph with the trained weights.
//!
//! Reading order: [`plan`] and [`planner`] (the graph as a list of steps), [`operation`] (parsing a
//! node), [`network`] (running and training the steps), [`mod@write`] (writing the ONNX graph).

pub mod network;
pub mod operation;
pub mod plan;
pub mod planner;
pub mod write;
