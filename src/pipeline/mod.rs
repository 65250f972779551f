//! The flow of frames: stages on threads of their own, joined by bounded channels.

pub mod batcher;
mod camera_watch;
#[cfg(feature = "video")]
pub mod fleet;
mod follower;
pub mod metrics;
pub mod motion_gate;
#[expect(clippy::module_inception, reason = "the wiring is this module's central thing")]
pub mod pipeline;
#[cfg(feature = "video")]
pub mod reader;
pub mod stage;

pub use metrics::{Progress, Summary};
pub use pipeline::{People, Pipeline, PipelineError};
