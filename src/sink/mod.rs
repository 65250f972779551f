//! Where trajectories go: JSON lines, MOTChallenge text, an annotated video.

pub mod jsonl;
pub mod mot;
#[cfg(feature = "video")]
pub mod overlay;
pub mod recorder;
#[expect(clippy::module_inception, reason = "the trait is this module's central thing")]
pub mod sink;

pub use sink::{Finished, OutputConfig, Sink, SinkError};
