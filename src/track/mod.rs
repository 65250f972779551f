//! Tracking: association of detections to people over time. Pure: no OpenCV, ONNX Runtime, clock or
//! threads.
//!
//! Start with [`tracker`]: its `update` performs the steps predict, match, update, create, delete.
//! [`cost`] defines the terms of the association cost.

pub mod appearance;
pub mod assignment;
pub mod boxes;
pub mod cadence;
pub mod camera_motion;
pub mod config;
pub mod cost;
pub mod embed_policy;
pub mod flow;
pub mod head;
pub mod identity;
mod identity_config;
pub mod interpolate;
pub mod memory;
pub mod motion;
pub mod offline;
pub mod pair;
pub mod path;
pub mod reidentify;
pub mod scenery;
pub mod shared_ids;
pub mod similarity;
#[expect(
    clippy::module_inception,
    reason = "a track is this module's central concept"
)]
pub mod track;
pub mod tracker;
pub mod update;
pub mod views;

pub use camera_motion::CameraMotionConfig;
pub use config::TrackerConfig;
pub use track::{ClearView, EndedTrack, TrackState};
pub use tracker::Tracker;
pub use update::{TrackError, TrackOutput, TrackUpdate};
