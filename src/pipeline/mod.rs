//! The flow of frames: stages on threads of their own, joined by bounded channels.

mod camera_watch;
pub mod metrics;
#[expect(clippy::module_inception, reason = "the wiring is this module's central thing")]
pub mod pipeline;
pub mod stage;

pub use metrics::{Progress, Summary};
pub use pipeline::{People, Pipeline, PipelineError};
