//! A track in progress ([`Track`]), its state in a frame ([`TrackState`]), and the summary of an
//! ended track ([`EndedTrack`]).

use serde::{Deserialize, Serialize};

use crate::detection::Detection;
use crate::geometry::BBox;
use crate::time::Seconds;
use crate::track::appearance::Appearance;
use crate::track::motion::{BoxFilter, MotionConfig};
use crate::track::scenery::{SceneryConfig, Stillness};
use crate::track::views::Views;

/// State of a track.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrackState {
    /// Too few detections to be confirmed.
    Tentative,
    /// Confirmed, and detected in the current frame.
    Confirmed,
    /// Confirmed, and not detected in the current frame.
    Lost,
    /// The detector did not process this frame; the track was detected in the last frame that it
    /// processed. (A lost track stays `Lost` in such a frame.)
    Predicted,
    /// Not detected in the frame; the box was interpolated between two detections.
    Interpolated,
}

/// A track in progress.
#[derive(Debug, Clone)]
pub struct Track {
    /// Id, unique within a run. Assigned when the track is confirmed; 0 before.
    pub id: u64,
    /// The state.
    pub state: TrackState,
    /// The motion filter.
    pub filter: BoxFilter,
    /// The mean embedding.
    pub appearance: Appearance,
    /// Collected views, for re-identification.
    pub views: Views,
    /// Time of the first detection, on the tracker's clock.
    pub born: Seconds,
    /// Time of the last detection, on the tracker's clock.
    pub seen: Seconds,
    /// Time of its last clear view with an embedding, on the tracker's clock.
    pub embedded: Seconds,
    /// Number of its detections.
    pub hits: u32,
    /// The first box in pixels.
    pub first: BBox,
    /// The last detection.
    pub last: Detection,
    /// Stillness, to detect scenery.
    pub stillness: Stillness,
    /// Whether the track is scenery, and so is not reported.
    pub scenery: bool,
    /// The clear view in the current frame, if any.
    pub view: Option<ClearView>,
    /// Index of the track's detection in the current frame, if any.
    pub detection: Option<usize>,
}

/// A clear view of a person in a frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClearView {
    /// Index of the detection.
    pub detection: usize,
    /// Clarity in [0, 1]: the detection's confidence times the share of the detection that is not
    /// covered.
    pub clarity: f32,
}

impl Track {
    /// Creates a tentative track from its first detection.
    pub fn new(detection: Detection, now: Seconds, motion: &MotionConfig) -> Self {
        Track {
            id: 0,
            state: TrackState::Tentative,
            filter: BoxFilter::new(detection.bbox, motion),
            appearance: Appearance::default(),
            views: Views::default(),
            born: now,
            seen: now,
            embedded: now,
            hits: 1,
            first: detection.bbox,
            last: detection,
            stillness: Stillness::new(detection.bbox, detection.confidence, now),
            scenery: false,
            view: None,
            detection: None,
        }
    }

    /// Updates the track with a detection.
    pub fn update(
        &mut self,
        detection: Detection,
        now: Seconds,
        motion: &MotionConfig,
        scenery: &SceneryConfig,
    ) {
        self.filter
            .update(detection.bbox, detection.confidence, motion);
        self.stillness
            .update(detection.bbox, detection.confidence, now, scenery);
        self.seen = now;
        self.hits += 1;
        self.last = detection;
    }

    /// Confirms the track with the id `next_id`, which is incremented.
    pub fn confirm(&mut self, next_id: &mut u64) {
        self.state = TrackState::Confirmed;
        self.id = *next_id;
        *next_id += 1;
    }

    /// Returns a copy of this track, for [`Track::resume`] of another one, and marks this one as
    /// merged.
    pub fn take_identity(&mut self) -> Track {
        let old = self.clone();
        self.id = 0;
        self.hits = 0;
        old
    }

    /// Whether another track has taken over the id.
    pub fn is_merged(&self) -> bool {
        self.hits == 0
    }

    /// Takes over the id, first detection, number of detections and views of `old`, a lost track of
    /// the same person; and its appearance, if this track's is unknown.
    pub fn resume(&mut self, old: Track) {
        self.state = TrackState::Confirmed;
        self.id = old.id;
        self.born = old.born;
        self.first = old.first;
        self.hits += old.hits;
        self.appearance.join(old.appearance);
        self.views.join(&old.views);
    }

    /// The predicted box or, after a detection, the filtered one; pixels.
    pub fn bbox(&self) -> BBox {
        self.filter.bbox()
    }
}

/// Summary of a confirmed track that has ended.
#[derive(Debug, Clone, PartialEq)]
pub struct EndedTrack {
    /// The track's id.
    pub id: u64,
    /// Times of the first and the last detection, on the tracker's clock.
    pub span: (Seconds, Seconds),
    /// Number of its detections.
    pub hits: u32,
    /// The track's mean embedding, a unit vector; empty if no clear view was embedded.
    pub embedding: Vec<f32>,
}

impl From<Track> for EndedTrack {
    fn from(t: Track) -> Self {
        EndedTrack {
            id: t.id,
            span: (t.born, t.seen),
            hits: t.hits,
            embedding: t.appearance.mean().to_vec(),
        }
    }
}
