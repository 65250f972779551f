//! Who is who from frame to frame. Pure: no OpenCV, no ONNX Runtime, no clock, no thread.
//!
//! Read [`tracker`] first: its `update` is the whole method in five steps (predict, match, update, create, delete).
//! [`cost`] holds what "looks like the same person" means, a function a term.

pub mod appearance;
pub mod assignment;
pub mod camera_motion;
pub mod config;
pub mod cost;
pub mod flow;
pub mod head;
pub mod identity;
pub mod interpolate;
pub mod memory;
pub mod motion;
pub mod offline;
pub mod pair;
pub mod path;
pub mod reidentify;
pub mod returns;
pub mod scenery;
pub mod similarity;
#[expect(
    clippy::module_inception,
    reason = "a track is this module's central thing"
)]
pub mod track;
pub mod tracker;
pub mod views;

pub use camera_motion::CameraMotionConfig;
pub use config::TrackerConfig;
pub use track::{EndedTrack, TrackState, View};
pub use tracker::{TrackError, TrackOutput, TrackUpdate, Tracker};
