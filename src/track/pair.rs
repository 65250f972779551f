//! Association of a track and a detection: their features and their cost.

use crate::detection::{Detection, Embeddings};
use crate::time::Seconds;
use crate::track::appearance::AppearanceConfig;
use crate::track::config::TrackerConfig;
use crate::track::cost;
use crate::track::head::PairFeatures;
use crate::track::track::{ClearView, Track};

/// Parameters of one round of matching.
#[derive(Debug, Clone, Copy)]
pub struct MatchRound {
    /// Boxes are enlarged by this share of their size on each side.
    pub buffer: f32,
    /// Pairs that cost at least this are not matched.
    pub limit: f32,
}

/// The detections of a frame, with their embeddings and occlusion.
#[derive(Debug)]
pub struct FrameDetections<'a> {
    /// The detections.
    pub detections: &'a [Detection],
    embeddings: &'a Embeddings,
    /// For each detection, the largest share of it that one person in front covers.
    covered: Vec<f32>,
}

impl<'a> FrameDetections<'a> {
    /// Computes how much of each detection is covered.
    pub fn new(detections: &'a [Detection], embeddings: &'a Embeddings) -> Self {
        Self::reusing(Vec::new(), detections, embeddings)
    }

    /// As [`FrameDetections::new`], but reuses the memory of `list`, whose contents are replaced.
    pub fn reusing(
        mut list: Vec<f32>,
        detections: &'a [Detection],
        embeddings: &'a Embeddings,
    ) -> Self {
        list.clear();
        list.extend(detections.iter().map(|d| covered(d, detections)));
        FrameDetections {
            detections,
            embeddings,
            covered: list,
        }
    }

    /// The list given to [`FrameDetections::reusing`], for reuse.
    pub fn into_list(self) -> Vec<f32> {
        self.covered
    }

    /// Whether appearance may be learned from a detection: it is confident and hardly covered.
    pub fn is_clear(&self, detection: usize, config: &AppearanceConfig) -> bool {
        self.covered[detection] <= config.max_covered
            && self.detections[detection].confidence >= config.min_confidence
    }

    /// Updates a track's appearance with its detection, if the view is clear.
    pub fn learn_appearance(&self, track: &mut Track, detection: usize, config: &AppearanceConfig) {
        if !self.is_clear(detection, config) {
            return;
        }
        let clarity = self.detections[detection].confidence * (1.0 - self.covered[detection]);
        track.view = Some(ClearView { detection, clarity });
        if let Some(view) = self.embeddings.get(detection) {
            track.appearance.learn(view, config);
            track.embedded = track.seen;
            // `Views` needs a contiguous row; for another row only the average is updated.
            view.as_slice()
                .into_iter()
                .for_each(|v| track.views.learn(v, clarity, track.seen));
        }
    }

    /// Features of a track and detection `d`; `None` if the boxes, enlarged by `buffer`, do not
    /// overlap.
    pub fn features(
        &self,
        track: &Track,
        d: usize,
        buffer: f32,
        now: Seconds,
    ) -> Option<PairFeatures> {
        let (predicted, detected) = (track.bbox(), self.detections[d].bbox);
        let overlap = cost::overlap(&predicted, &detected, buffer);
        (overlap < 1.0).then(|| PairFeatures {
            overlap,
            position: cost::position(&predicted, &detected),
            horizontal: (predicted.center().0 - detected.center().0).abs() / predicted.height,
            size: cost::size(&predicted, &detected),
            absence: (now - track.seen).f32(),
            speed: track.filter.velocity().0.hypot(track.filter.velocity().1) / predicted.height,
            appearance: self
                .embeddings
                .get(d)
                .and_then(|view| track.appearance.distance(view))
                .unwrap_or(-1.0),
            covered: self.covered[d],
            confidence: self.detections[d].confidence,
        })
    }
}

/// Cost of assigning detection `d` to the track; `None` if the enlarged boxes do not overlap, or if
/// an association head gives a probability of at most `tracker.head_limit`.
pub fn cost(
    track: &Track,
    frame: &FrameDetections<'_>,
    d: usize,
    round: MatchRound,
    now: Seconds,
    config: &TrackerConfig,
) -> Option<f32> {
    let f = frame.features(track, d, round.buffer, now)?;
    if let Some(head) = &config.head {
        let p = head.probability(&f);
        return (p > config.head_limit)
            .then(|| (1.0 - p) / (1.0 - config.head_limit) * round.limit);
    }
    let config = &config.cost;
    // The term is centred at half the scale: a smaller distance reduces the cost, a larger one
    // increases it.
    let appearance = if f.appearance < 0.0 {
        0.0
    } else {
        cost::appearance(f.appearance, config.appearance_scale) - 0.5
    };
    Some(
        config.overlap * f.overlap
            + config.position * f.position
            + config.size * f.size
            + config.absence * f.absence
            + config.appearance * appearance,
    )
}

/// The largest share of a detection that another detection with a lower foot point (nearer to the
/// camera) covers.
fn covered(a: &Detection, detections: &[Detection]) -> f32 {
    let share = |b: &Detection| {
        if b.bbox.bottom() > a.bbox.bottom() {
            a.bbox.covered_by(&b.bbox)
        } else {
            0.0
        }
    };
    detections.iter().map(share).fold(0.0, f32::max)
}
