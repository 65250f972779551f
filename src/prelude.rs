//! The types that most users need: `use twintrack::prelude::*;`.

pub use crate::detection::{Detection, Embeddings};
pub use crate::frame::{Frame, Image};
pub use crate::geometry::BBox;
pub use crate::time::Seconds;
pub use crate::track::{TrackOutput, TrackState, TrackUpdate, Tracker, TrackerConfig};
pub use crate::trajectory::{
    EndedEvent, Event, EventKind, FrameEvent, StatusEvent, TrackEvent, WithJson,
};

#[cfg(feature = "infer")]
pub use crate::detect::{Detector, DetectorConfig};
#[cfg(feature = "infer")]
pub use crate::embed::{Embedder, EmbedderConfig};
#[cfg(feature = "infer")]
pub use crate::infer::{Device, Runtime, SessionOptions};

#[cfg(feature = "pipeline")]
pub use crate::config::Config;
#[cfg(feature = "pipeline")]
pub use crate::pipeline::{DetectionSource, Input, Inputs, Pipeline, Summary};
#[cfg(feature = "pipeline")]
pub use crate::sink::{FrameResult, OutputConfig, Sink, SinkError};
#[cfg(feature = "pipeline")]
pub use crate::source::{Source, SourceOptions};
