//! Errors of the pipeline.

use std::sync::Arc;

use thiserror::Error;

use crate::infer::InferError;
use crate::sink::SinkError;
use crate::source::SourceError;
use crate::track::TrackError;

/// Errors of the pipeline. With [`FailurePolicy::EndRun`] they end the run, but a network's failure
/// only if it occurs at [`MAX_FAILURES`] frames in a row; with [`FailurePolicy::Isolate`] the
/// frames concerned are dropped and the other cameras continue.
///
/// [`FailurePolicy::EndRun`]: crate::pipeline::FailurePolicy::EndRun
/// [`FailurePolicy::Isolate`]: crate::pipeline::FailurePolicy::Isolate
/// [`MAX_FAILURES`]: crate::pipeline::stage::MAX_FAILURES
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PipelineError {
    /// The input cannot be opened or read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A network cannot be opened or run.
    #[error(transparent)]
    Infer(#[from] InferError),
    /// A frame's detections or elapsed time are invalid for the tracker.
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
    /// After a stop, the stages or the sinks did not finish within the timeout: usually because a
    /// sink blocks.
    #[error(
        "shutdown timed out after {seconds} s: the stages or sinks did not finish; events not yet \
         written are lost. Usual causes: the output disk does not respond, or nobody reads the \
         pipe that receives standard output"
    )]
    ShutdownTimeout {
        /// The timeout in seconds.
        seconds: u64,
    },
    /// A stage panicked: a bug.
    #[error(
        "the stage '{stage}' crashed ({message}); this is a bug in twintrack, please report it"
    )]
    Panic {
        /// The stage.
        stage: &'static str,
        /// The panic's message.
        message: String,
    },
    /// A network returned fewer results than frames: a bug.
    #[error(
        "the stage '{stage}' returned no result for a frame; this is a bug in twintrack, please \
         report it"
    )]
    NoResult {
        /// The stage.
        stage: &'static str,
    },
    /// A thread could not be started.
    #[error(
        "cannot start a thread of the pipeline; raise the limit on processes and threads \
         (`ulimit -u`, or the container's pids limit)"
    )]
    Thread,
}
