//! What goes into the matcher and what comes out.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::time::Seconds;

/// An ended track of one camera.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CameraTrack {
    /// The caller's number of the track, unique over all cameras. If a track is given again after
    /// it was decided, the matcher treats it as a different track.
    pub key: u64,
    /// Name of the camera.
    pub camera: Arc<str>,
    /// Wall-clock time of the first detection, in seconds since 1970.
    pub first: Seconds,
    /// Wall-clock time of the last detection.
    pub last: Seconds,
    /// Hash of the embedder that made the embedding.
    pub embedder: Arc<str>,
    /// The track's embedding, unit length.
    pub embedding: Vec<f32>,
}

/// The person of a track.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Decision {
    /// [`CameraTrack::key`].
    pub key: u64,
    /// Number of the person. It is never used for another person, and never changed.
    pub person: u64,
    /// Probability, by the matcher's model, that the track is of this person; for a new person,
    /// that the track is of nobody known.
    pub probability: f32,
}

/// Why a track gets no person.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RejectedTrack {
    /// The embedder is not calibrated, so its distances say nothing.
    #[error("the embedder {0} is not calibrated; calibrate it with `twintrack-train calibrate`")]
    Uncalibrated(Arc<str>),
    /// The embedding is empty, not finite, or not of unit length.
    #[error("the embedding of track {0} is not a vector of unit length")]
    Embedding(u64),
    /// The times are not finite, or the last is before the first.
    #[error("the times of track {0} are not finite and in order")]
    Times(u64),
    /// A track with this key waits for its decision already.
    #[error("the track {0} was given before")]
    Repeated(u64),
    /// There are more cameras than the matcher may know.
    #[error("there are more than {0} cameras")]
    Cameras(usize),
}
