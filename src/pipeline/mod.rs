//! The flow of frames: stages on threads of their own, joined by bounded channels.

#[cfg(feature = "serve")]
pub mod batcher;
mod camera_tracker;
#[cfg(feature = "serve")]
mod camera_trackers;
mod camera_watch;
#[cfg(feature = "serve")]
pub mod cameras;
#[cfg(feature = "serve")]
pub mod fleet;
#[cfg(feature = "serve")]
pub mod fleet_metrics;
pub mod metrics;
#[cfg(feature = "serve")]
pub mod motion_gate;
#[expect(
    clippy::module_inception,
    reason = "the wiring is this module's central thing"
)]
pub mod pipeline;
#[cfg(feature = "serve")]
mod quarantine;
#[cfg(feature = "serve")]
pub mod reader;
#[cfg(feature = "serve")]
pub mod roster;
pub mod stage;

pub use metrics::{Progress, Summary};
pub use pipeline::{DetectionSource, Pipeline, PipelineError};
