//! Training the Siamese network (`twintrack-train`, feature `train`).
//!
//! Reading order: [`network`] (the tower, with [`colour`] and [`body`] over [`kernels`]), [`loss`],
//! [`run`] (the training loop) over `trainer` (a step) with [`learner`], [`optimiser`] and
//! [`validation`], [`speed`], [`batch`] (its input),
//! [`dataset`] with [`readers`], [`synthetic`] and [`from_video`] (sources of pictures), [`distil`]
//! with [`probe`] (training by a teacher's outputs), [`retrieval`] (evaluation), [`calibrate`],
//! [`mirror`], [`export`] over [`onnx`].

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
pub mod embed;
pub mod error;
pub mod export;
pub mod from_video;
pub mod graph;
pub mod kernels;
pub mod learner;
pub mod loss;
pub mod mirror;
pub mod network;
pub mod onnx;
pub mod optimiser;
pub mod prefetch;
pub mod probe;
pub mod readers;
pub mod retrieval;
#[cfg(test)]
mod rng_lock;
pub mod run;
pub mod scenes;
pub mod simulate;
pub mod speed;
pub mod synthetic;
pub mod tensors;
mod trainer;
pub mod validation;
mod visibility;
