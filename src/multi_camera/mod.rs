//! Multi-target multi-camera tracking: which tracks of different cameras are of the same person.
//! Pure: no I/O, no clock, no threads.
//!
//! Start with [`matcher`]: it takes ended tracks and gives each the number of a person.
//! [`topology`] is what it learns about the cameras: at which camera people are seen next, after
//! how long. [`walks`] simulates people who walk between cameras; the matcher is judged on it.

pub mod baseline;
pub mod camera_track;
pub mod config;
pub mod matcher;
mod person;
mod score;
pub mod topology;
mod travel_time;
pub mod trial;
mod waiting;
pub mod walks;

pub use camera_track::{CameraTrack, Decision, RejectedTrack};
pub use config::MultiCameraConfig;
pub use matcher::Matcher;
pub use topology::Topology;
