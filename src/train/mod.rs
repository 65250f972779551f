//! Training the Siamese network (`twintrack-train`, feature `train`).
//!
//! Reading order: [`network`] (the tower, with [`colour`] and [`body`] over [`kernels`]), [`loss`], [`learner`] (the loop), [`batch`] (what it sees), [`dataset`] with
//! [`readers`], [`synthetic`] and [`from_video`] (where that comes from), [`distil`] with [`probe`] (a teacher in place of labels), [`retrieval`] (how good it is), [`calibrate`],
//! [`export`] over [`onnx`].

pub mod ahead;
pub mod association;
pub mod batch;
pub mod body;
pub mod calibrate;
pub mod checkpoint;
pub mod colour;
pub mod config;
pub mod convert;
pub mod curves;
pub mod dataset;
pub mod distil;
#[cfg(test)]
mod drawing;
pub mod export;
pub mod from_video;
pub mod graph;
pub mod kernels;
pub mod learner;
pub mod loss;
pub mod network;
pub mod onnx;
pub mod probe;
pub mod readers;
pub mod retrieval;
pub mod scenes;
pub mod simulate;
pub mod synthetic;
