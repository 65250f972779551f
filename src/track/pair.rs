//! A track and a detection: what is known of the two together, and what taking the one for the other costs.

use crate::detection::{Detection, Embeddings};
use crate::time::Seconds;
use crate::track::appearance::AppearanceConfig;
use crate::track::config::TrackerConfig;
use crate::track::cost;
use crate::track::head::Features;
use crate::track::track::{Track, View};

/// How one round of matching looks: how far boxes are grown, and what a pair may cost.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// Boxes are grown by this share of their size on each side.
    pub buffer: f32,
    /// A pair that costs more is not made.
    pub limit: f32,
}

/// A frame's detections with what is known of each.
#[derive(Debug)]
pub struct Observed<'a> {
    /// The detections.
    pub detections: &'a [Detection],
    embeddings: &'a Embeddings,
    /// For each detection the greatest share of it that a person in front covers.
    covered: Vec<f32>,
}

impl<'a> Observed<'a> {
    /// Finds out who stands in front of whom.
    pub fn new(detections: &'a [Detection], embeddings: &'a Embeddings) -> Self {
        Observed {
            detections,
            embeddings,
            covered: covered(detections),
        }
    }

    /// Lets a track learn the appearance of its detection, where the view is clear.
    pub fn teach(&self, track: &mut Track, detection: usize, config: &AppearanceConfig) {
        let (covered, confidence) = (
            self.covered[detection],
            self.detections[detection].confidence,
        );
        if covered > config.max_covered || confidence < config.min_confidence {
            return;
        }
        let clear = confidence * (1.0 - covered);
        track.view = Some(View { detection, clear });
        if let Some(view) = self.embeddings.get(detection) {
            track.appearance.learn(view, config);
            // Rows of a matrix lie together; of one that does not only the average is learnt.
            view.as_slice()
                .into_iter()
                .for_each(|v| track.views.learn(v, clear, track.seen));
        }
    }

    /// What is known of a track and detection `d` together; `None` where the boxes, grown by `buffer`, do not touch.
    pub fn features(&self, track: &Track, d: usize, buffer: f32, now: Seconds) -> Option<Features> {
        let (predicted, detected) = (track.bbox(), self.detections[d].bbox);
        let overlap = cost::overlap(&predicted, &detected, buffer);
        (overlap < 1.0).then(|| Features {
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

/// The cost of taking detection `d` for the track's person; `None` where the boxes, grown, do not touch, or a learned head
/// says that it is hardly the same person.
pub fn cost(
    track: &Track,
    frame: &Observed<'_>,
    d: usize,
    look: Look,
    now: Seconds,
    config: &TrackerConfig,
) -> Option<f32> {
    let f = frame.features(track, d, look.buffer, now)?;
    if let Some(head) = &config.head {
        let p = head.probability(&f);
        return (p > config.head_limit).then(|| (1.0 - p) / (1.0 - config.head_limit) * look.limit);
    }
    let config = &config.cost;
    // Centred on the boundary between same and different: a likeness pulls the pair together, a difference apart.
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

/// For each detection the greatest share of it that another, standing nearer to the camera (lower foot), covers.
fn covered(detections: &[Detection]) -> Vec<f32> {
    let share = |a: &Detection, b: &Detection| {
        if b.bbox.bottom() > a.bbox.bottom() {
            a.bbox.covered_by(&b.bbox)
        } else {
            0.0
        }
    };
    detections
        .iter()
        .map(|a| detections.iter().map(|b| share(a, b)).fold(0.0, f32::max))
        .collect()
}
