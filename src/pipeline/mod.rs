//! The flow of frames: each stage has a thread of its own, and bounded channels connect the stages.
//! [`run`] starts the threads and creates the channels.

mod batch;
pub mod batcher;
mod cadences;
mod camera_motion;
mod camera_tracker;
pub mod cameras;
pub mod detection_source;
mod embed;
pub mod error;
mod fair_queue;
pub mod inputs;
pub mod metrics;
pub mod motion_gate;
pub mod observer;
mod people_in_view;
mod quarantine;
pub mod reader;
pub mod roster;
pub mod run;
mod scale;
pub mod stage;
mod tracking;
mod write;

pub use cadences::CadencePolicy;
pub use cameras::{Cameras, Member};
pub use detection_source::DetectionSource;
pub use error::PipelineError;
pub use inputs::{Input, Inputs};
pub use metrics::{StageTimes, Summary};
pub use observer::{NoObserver, Observer};
pub use reader::{FailurePolicy, Opener};
pub use roster::CameraConfigs;
pub use run::{BatchConfig, Pipeline};
