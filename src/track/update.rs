//! Results of an update of the tracker.

use thiserror::Error;

use crate::detection::Detection;
use crate::geometry::BBox;
use crate::time::Seconds;
use crate::track::identity::Identity;
use crate::track::track::{ClearView, EndedTrack, TrackState};

/// Why an update was rejected. The tracker is unchanged then.
#[derive(Debug, Error, PartialEq)]
#[non_exhaustive]
pub enum TrackError {
    /// A detection's box is not finite or has no area, or its confidence is not in [0, 1].
    #[error(
        "detection {index} is not a box with a confidence in [0, 1]: left {left}, top {top}, \
         width {width}, height {height}, confidence {confidence}",
        left = .detection.bbox.left,
        top = .detection.bbox.top,
        width = .detection.bbox.width,
        height = .detection.bbox.height,
        confidence = .detection.confidence
    )]
    InvalidDetection {
        /// Index of the detection.
        index: usize,
        /// The detection.
        detection: Detection,
    },
    /// The elapsed time is not finite, or not above zero.
    #[error("elapsed time must be finite and above zero after the first frame, not {0}")]
    InvalidElapsed(Seconds),
}

/// A confirmed track after a frame.
#[derive(Debug, Clone, PartialEq)]
pub struct TrackOutput {
    /// Id, unique within the run.
    pub id: u64,
    /// Confirmed (detected in this frame) or lost; in a frame that the detector skipped, also
    /// predicted or interpolated.
    pub state: TrackState,
    /// The box in pixels: detected if `detection` is present, else predicted or interpolated.
    pub bbox: BBox,
    /// Confidence of the last detection, in [0, 1].
    pub confidence: f32,
    /// Time since the first detection.
    pub age: Seconds,
    /// Time since the last detection; zero if detected in this frame.
    pub unseen: Seconds,
    /// Number of its detections.
    pub hits: u32,
    /// Velocity of the centre in pixels per second.
    pub velocity: (f32, f32),
    /// Index of the matched detection in this frame's list of detections; absent if the track was
    /// not detected.
    pub detection: Option<usize>,
    /// The clear view in this frame, if any.
    pub view: Option<ClearView>,
    /// The person's identity, once [`crate::track::identity`] has determined it.
    pub identity: Option<Identity>,
}

/// Result of an update.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TrackUpdate {
    /// Confirmed tracks, and lost tracks detected at most `tracker.keep_lost` ago, sorted by id;
    /// without scenery.
    pub tracks: Vec<TrackOutput>,
    /// Tracks that had been confirmed and ended with this frame, sorted by id.
    pub ended: Vec<EndedTrack>,
}
