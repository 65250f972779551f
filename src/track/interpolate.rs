//! Fills the gaps of a trajectory by linear interpolation, then smooths it with a Gaussian kernel.
//! This is a simple form of the Gaussian process in StrongSORT (Du et al. 2023).

use derive_setters::Setters;
use serde::{Deserialize, Serialize};

use crate::geometry::BBox;
use crate::range::{OutOfRange, within};
use crate::time::Seconds;
use crate::track::boxes::{DetectedBox, TrajectoryBox};

/// Filling of gaps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Setters)]
#[cfg_attr(feature = "serve", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct InterpolateConfig {
    /// Longest gap in seconds that is filled; 0 disables filling.
    pub max_gap: f64,
    /// Standard deviation in seconds of the Gaussian that smooths boxes over time; 0 disables
    /// smoothing.
    pub smoothing: f64,
}

impl Default for InterpolateConfig {
    fn default() -> Self {
        InterpolateConfig {
            max_gap: 6.0,
            smoothing: 0.12,
        }
    }
}

impl InterpolateConfig {
    /// Checks that every value is in its range.
    ///
    /// # Errors
    /// The first value outside its range.
    pub fn validate(&self) -> Result<(), OutOfRange> {
        within("offline.fill.max_gap", self.max_gap, 0.0, 3600.0)?;
        within("offline.fill.smoothing", self.smoothing, 0.0, 10.0)
    }
}

/// Returns the boxes, with interpolated boxes in the gaps. `camera` holds for each frame the
/// camera's displacement in pixels since the first frame.
pub fn fill(
    detections: &[DetectedBox],
    times: &[Seconds],
    camera: &[[f32; 2]],
    config: &InterpolateConfig,
) -> Vec<TrajectoryBox> {
    let mut boxes: Vec<TrajectoryBox> = Vec::with_capacity(detections.len());
    for d in detections {
        let seen = TrajectoryBox {
            frame: d.frame,
            bbox: d.bbox,
            confidence: d.confidence,
            seen: true,
        };
        if let Some(last) = boxes
            .last()
            .copied()
            .filter(|l| (times[seen.frame] - times[l.frame]).0 <= config.max_gap)
        {
            let displacement = |frame: usize| Some(camera[frame]);
            boxes.extend(between(&last, &seen, times, displacement));
        }
        boxes.push(seen);
    }
    if config.smoothing > 0.0 {
        smooth(&boxes, times, camera, config.smoothing)
    } else {
        boxes
    }
}

/// Converts boxes of the processed frames to boxes of all frames: where a trajectory has boxes in
/// two neighbouring processed frames, boxes are interpolated in the skipped frames between.
/// `processed` holds the indices into `times` of the processed frames, ascending. The `frame` of
/// each given box is an index into `processed`, that of each returned box an index into `times`.
pub fn spread(
    boxes: &[TrajectoryBox],
    processed: &[usize],
    times: &[Seconds],
) -> Vec<TrajectoryBox> {
    let mut all: Vec<TrajectoryBox> = Vec::with_capacity(boxes.len());
    for b in boxes {
        let here = TrajectoryBox {
            frame: processed[b.frame],
            ..*b
        };
        let neighbour = |last: &TrajectoryBox| b.frame > 0 && processed[b.frame - 1] == last.frame;
        if let Some(last) = all.last().copied().filter(neighbour) {
            all.extend(between(&last, &here, times, |_| None));
        }
        all.push(here);
    }
    all
}

/// The linearly interpolated boxes of the frames between `a` and `b`, corrected for the camera's
/// displacement at each frame, in pixels, where it is known.
fn between(
    a: &TrajectoryBox,
    b: &TrajectoryBox,
    times: &[Seconds],
    displacement: impl Fn(usize) -> Option<[f32; 2]>,
) -> impl Iterator<Item = TrajectoryBox> {
    (a.frame + 1..b.frame).map(move |frame| {
        let span = times[b.frame] - times[a.frame];
        let share = ((times[frame] - times[a.frame]).0 / span.0) as f32;
        let mut bbox = a.bbox.mix(&b.bbox, share);
        if let (Some(from), Some(now), Some(to)) = (
            displacement(a.frame),
            displacement(frame),
            displacement(b.frame),
        ) {
            let moved = |axis: usize| now[axis] - (from[axis] + share * (to[axis] - from[axis]));
            bbox.left += moved(0);
            bbox.top += moved(1);
        }
        TrajectoryBox {
            frame,
            bbox,
            confidence: a.confidence.min(b.confidence),
            seen: false,
        }
    })
}

/// Replaces each box by the weighted mean of its neighbours in time. The window extends equally far
/// in both directions; otherwise the first and last boxes would be moved towards the middle of the
/// trajectory.
fn smooth(
    boxes: &[TrajectoryBox],
    times: &[Seconds],
    camera: &[[f32; 2]],
    width: f64,
) -> Vec<TrajectoryBox> {
    let (mut from, mut to) = (0, 0);
    let at = |s: &TrajectoryBox| times[s.frame].0;
    let mut out = Vec::with_capacity(boxes.len());
    for s in boxes {
        while at(s) - at(&boxes[from]) > 3.0 * width {
            from += 1;
        }
        while to < boxes.len() && at(&boxes[to]) - at(s) <= 3.0 * width {
            to += 1;
        }
        let window = &boxes[from..to];
        let half = (at(s) - at(&window[0])).min(at(&window[window.len() - 1]) - at(s)) + 1e-6;
        let (mut sum, mut total) = ([0.0; 4], 0.0);
        for o in window.iter().filter(|o| (at(o) - at(s)).abs() <= half) {
            let weight = (-0.5 * ((at(o) - at(s)) / width).powi(2)).exp();
            let moved = [0, 1].map(|axis| camera[s.frame][axis] - camera[o.frame][axis]);
            let edges = [
                o.bbox.left + moved[0],
                o.bbox.top + moved[1],
                o.bbox.width,
                o.bbox.height,
            ];
            sum.iter_mut()
                .zip(edges)
                .for_each(|(sum, v)| *sum += weight * f64::from(v));
            total += weight;
        }
        let [left, top, w, h] = sum.map(|v| (v / total) as f32);
        out.push(TrajectoryBox {
            bbox: BBox::new(left, top, w, h),
            ..*s
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(n: usize) -> Vec<Seconds> {
        (0..n).map(|f| Seconds(f as f64 * 0.1)).collect()
    }

    fn seen(frame: usize, left: f32) -> DetectedBox {
        DetectedBox {
            frame,
            bbox: BBox::new(left, 50.0, 20.0, 60.0),
            confidence: 0.8,
        }
    }

    fn filled(detections: &[DetectedBox], config: &InterpolateConfig) -> Vec<(usize, f32, bool)> {
        fill(detections, &times(40), &[[0.0; 2]; 40], config)
            .iter()
            .map(|s| (s.frame, s.bbox.left, s.seen))
            .collect()
    }

    #[test]
    fn boxes_of_neighbouring_processed_frames_are_joined_over_the_skipped_ones() {
        let at = |frame, left, seen| TrajectoryBox {
            frame,
            bbox: BBox::new(left, 50.0, 20.0, 60.0),
            confidence: 0.8,
            seen,
        };
        // Of nine frames these were processed; the trajectory has no box in the one with index 2.
        let processed = [0, 2, 5, 6, 8];
        let boxes = [
            at(0, 0.0, true),
            at(1, 20.0, false),
            at(3, 60.0, true),
            at(4, 80.0, true),
        ];
        let all: Vec<(usize, f32, bool)> = spread(&boxes, &processed, &times(9))
            .iter()
            .map(|b| (b.frame, b.bbox.left, b.seen))
            .collect();
        let expected = [
            (0, 0.0, true),
            (1, 10.0, false),
            (2, 20.0, false),
            (6, 60.0, true),
            (7, 70.0, false),
            (8, 80.0, true),
        ];
        assert_eq!(all, expected);
    }

    #[test]
    fn a_short_gap_is_interpolated_and_a_long_one_is_not() {
        let config = InterpolateConfig {
            max_gap: 0.5,
            smoothing: 0.0,
        };
        assert_eq!(
            filled(&[seen(0, 0.0), seen(4, 40.0)], &config),
            [
                (0, 0.0, true),
                (1, 10.0, false),
                (2, 20.0, false),
                (3, 30.0, false),
                (4, 40.0, true)
            ]
        );
        assert_eq!(filled(&[seen(0, 0.0), seen(6, 60.0)], &config).len(), 2);
        assert_eq!(
            filled(
                &[seen(0, 0.0), seen(2, 60.0)],
                &InterpolateConfig {
                    max_gap: 0.0,
                    smoothing: 0.0
                }
            )
            .len(),
            2
        );
    }

    #[test]
    fn smoothing_keeps_a_steady_walk_and_reduces_jitter() {
        let config = InterpolateConfig {
            max_gap: 1.0,
            smoothing: 0.2,
        };
        let steady: Vec<DetectedBox> = (0..30).map(|f| seen(f, 5.0 * f as f32)).collect();
        assert!(
            filled(&steady, &config)
                .iter()
                .all(|&(f, x, _)| (x - 5.0 * f as f32).abs() < 0.01)
        );
        let jittery: Vec<DetectedBox> = (0..30)
            .map(|f| seen(f, 5.0 * f as f32 + if f % 2 == 0 { 4.0 } else { -4.0 }))
            .collect();
        let worst = filled(&jittery, &config)[3..27]
            .iter()
            .map(|&(f, x, _)| (x - 5.0 * f as f32).abs())
            .fold(0.0, f32::max);
        assert!(worst < 1.0, "{worst} pixels off");
    }
}
