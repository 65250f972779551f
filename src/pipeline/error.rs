//! What ends a run.

use std::sync::Arc;

use thiserror::Error;

use crate::infer::InferError;
use crate::sink::SinkError;
use crate::source::SourceError;
use crate::track::TrackError;

/// What ends a run before its input's end.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PipelineError {
    /// The input failed.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A network failed.
    #[error(transparent)]
    Infer(#[from] InferError),
    /// The tracker refused a frame.
    #[error("frame {frame} of {camera}: {source}")]
    Track {
        /// The camera's short name.
        camera: Arc<str>,
        /// The frame's number.
        frame: u64,
        /// The cause.
        source: TrackError,
    },
    /// A sink failed.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// A frame without pixels reached a stage that needs them.
    #[error(
        "frame {frame} of {camera} has no pixels; use --detections and --no-embed to track without \
         pictures"
    )]
    NoPixels {
        /// The camera's short name.
        camera: Arc<str>,
        /// The frame's number.
        frame: u64,
    },
    /// A shutdown timed out because a stage waits for a sink that accepts nothing.
    #[error(
        "shutdown timed out after {seconds} s: a sink blocks, such as a disk that does not respond \
         or a pipe that is not read; events in progress are lost"
    )]
    Hung {
        /// The timeout.
        seconds: u64,
    },
    /// A stage panicked: a bug.
    #[error(
        "the stage '{stage}' crashed ({message}); this is a bug of twintrack, please report it"
    )]
    Panic {
        /// The stage.
        stage: &'static str,
        /// The panic's message.
        message: String,
    },
    /// A network returned no result for a frame: a bug.
    #[error(
        "the stage '{stage}' returned no result for a frame; this is a bug of twintrack, please \
         report it"
    )]
    NoResult {
        /// The stage.
        stage: &'static str,
    },
    /// A thread could not be started.
    #[error("cannot start a thread; is the limit of processes reached?")]
    Thread,
}
