//! Errors of training, evaluation and export.

use std::path::PathBuf;

use thiserror::Error;

use crate::infer::InferError;
use crate::mot_format::MotError;
use crate::source::SourceError;

/// Errors of training, evaluation and export.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A folder or file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The folder or file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}: {reason}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// A data set or a network file is unsuitable.
    #[error("cannot use {name}: {problem}")]
    Data {
        /// The data set or file.
        name: String,
        /// The unsuitable property, and the remedy.
        problem: String,
    },
    /// A picture or video cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A MOTChallenge file is malformed.
    #[error(transparent)]
    Mot(#[from] MotError),
    /// ONNX Runtime failed.
    #[error(transparent)]
    Infer(#[from] InferError),
    /// A setting is invalid or does not suit the network or the data.
    #[error("{0}")]
    Setting(String),
    /// The loss is not finite.
    #[error(
        "the loss became {value} at step {step}; the last good checkpoint is kept in {}. A \
         learning rate that is too high (now {rate:.1e}) is the usual cause: lower it and \
         continue with --resume",
        checkpoint.display()
    )]
    Diverged {
        /// The loss.
        value: f32,
        /// The step.
        step: usize,
        /// The learning rate at that step.
        rate: f64,
        /// Location of the last good checkpoint.
        checkpoint: PathBuf,
    },
    /// A checkpoint is unusable.
    #[error("cannot resume from {}: {problem}", path.display())]
    Checkpoint {
        /// The checkpoint.
        path: PathBuf,
        /// The reason.
        problem: String,
    },
    /// The exported file and the trained network give different results.
    #[error(
        "the exported network differs from the trained one by {0:.1e} (allowed 1e-4); nothing \
         was written. This is a bug, please report it"
    )]
    Export(f32),
}

impl TrainError {
    /// An invalid setting of a training configuration.
    pub(super) fn configuration(problem: &str) -> Self {
        TrainError::Setting(format!("invalid training configuration: {problem}"))
    }
}
