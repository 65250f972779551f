//! One person's track and its life: tentative, confirmed, lost, gone.

use serde::{Deserialize, Serialize};

use crate::detection::Detection;
use crate::geometry::BBox;
use crate::time::Seconds;
use crate::track::appearance::Appearance;
use crate::track::motion::{BoxFilter, MotionConfig};
use crate::track::scenery::{SceneryConfig, Stillness};
use crate::track::views::Views;

/// Where a track stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrackState {
    /// Seen too few times to be believed.
    Tentative,
    /// Believed, and seen in the current frame.
    Confirmed,
    /// Believed, and not seen in the current frame.
    Lost,
    /// Not seen, but filled in afterwards between two frames in which it was (offline only).
    Interpolated,
}

/// A track under way.
#[derive(Debug, Clone)]
pub struct Track {
    /// Never used again within a run. Given when the track is confirmed; 0 before.
    pub id: u64,
    /// Where it stands in its life.
    pub state: TrackState,
    /// The motion filter.
    pub filter: BoxFilter,
    /// The averaged embedding.
    pub appearance: Appearance,
    /// Some of its views, by which it is known again.
    pub views: Views,
    /// When its first detection came, on the tracker's clock.
    pub born: Seconds,
    /// When its last detection came, on the tracker's clock.
    pub seen: Seconds,
    /// How many detections it has had.
    pub hits: u32,
    /// Its first box.
    pub first: BBox,
    /// Its last detection.
    pub last: Detection,
    /// How still it has been.
    pub still: Stillness,
    /// Taken for scenery: not shown.
    pub scenery: bool,
    /// Its clear view in the current frame.
    pub view: Option<View>,
}

/// A clear view of a person in a frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct View {
    /// Place of the detection in the list given.
    pub detection: usize,
    /// How clear: the detection's confidence times the share of it that nobody covers, in [0, 1].
    pub clear: f32,
}

impl Track {
    /// A tentative track from its first detection.
    pub fn new(detection: Detection, now: Seconds, motion: &MotionConfig) -> Self {
        Track {
            id: 0,
            state: TrackState::Tentative,
            filter: BoxFilter::new(detection.bbox, motion),
            appearance: Appearance::default(),
            views: Views::default(),
            born: now,
            seen: now,
            hits: 1,
            first: detection.bbox,
            last: detection,
            still: Stillness::new(detection.bbox, detection.confidence, now),
            scenery: false,
            view: None,
        }
    }

    /// Takes a detection as this person's.
    pub fn see(
        &mut self,
        detection: Detection,
        now: Seconds,
        motion: &MotionConfig,
        scenery: &SceneryConfig,
    ) {
        self.filter
            .update(detection.bbox, detection.confidence, motion);
        self.still
            .see(detection.bbox, detection.confidence, now, scenery);
        self.seen = now;
        self.hits += 1;
        self.last = detection;
    }

    /// Believes the track, and gives it the next id, which is counted on.
    pub fn confirm(&mut self, next_id: &mut u64) {
        self.state = TrackState::Confirmed;
        self.id = *next_id;
        *next_id += 1;
    }

    /// Gives up identity and memory to another track; it is spent then.
    pub fn take_identity(&mut self) -> Track {
        let old = self.clone();
        self.id = 0;
        self.hits = 0;
        old
    }

    /// True once the identity was given away.
    pub fn is_spent(&self) -> bool {
        self.hits == 0
    }

    /// Goes on as the person of `old`, who had been lost.
    pub fn resume(&mut self, old: Track) {
        self.state = TrackState::Confirmed;
        self.id = old.id;
        self.born = old.born;
        self.first = old.first;
        self.hits += old.hits;
        self.appearance.join(old.appearance);
        self.views.join(&old.views);
    }

    /// The predicted or, after a detection, the filtered box; pixels.
    pub fn bbox(&self) -> BBox {
        self.filter.bbox()
    }
}

/// What remains of a confirmed track when it is deleted.
#[derive(Debug, Clone, PartialEq)]
pub struct EndedTrack {
    /// The track's id.
    pub id: u64,
    /// Its first and last detection, on the tracker's clock.
    pub span: (Seconds, Seconds),
    /// How many detections it had.
    pub hits: u32,
    /// Its averaged embedding, a unit vector; empty without an embedder.
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
