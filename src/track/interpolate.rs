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
    /// Longest gap to fill, seconds; 0 disables filling.
    pub max_gap: f64,
    /// Standard deviation of the Gaussian that smooths boxes over time, seconds; 0 disables
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
/// camera's displacement since the first frame, pixels.
pub fn fill(
    detections: &[DetectedBox],
    times: &[Seconds],
    camera: &[[f32; 2]],
    config: &InterpolateConfig,
) -> Vec<TrajectoryBox> {
    let mut boxes: Vec<TrajectoryBox> = Vec::with_capacity(detections.len());
    for s in detections {
        if let Some(last) = boxes
            .last()
            .copied()
            .filter(|l| (times[s.frame] - times[l.frame]).0 <= config.max_gap)
        {
            boxes.extend(
                (last.frame + 1..s.frame).map(|frame| between(&last, s, frame, times, camera)),
            );
        }
        boxes.push(TrajectoryBox {
            frame: s.frame,
            bbox: s.bbox,
            confidence: s.confidence,
            seen: true,
        });
    }
    if config.smoothing > 0.0 {
        smooth(&boxes, times, camera, config.smoothing)
    } else {
        boxes
    }
}

/// The linearly interpolated box in a frame, corrected for the camera's displacement at that frame.
fn between(
    a: &TrajectoryBox,
    b: &DetectedBox,
    frame: usize,
    times: &[Seconds],
    camera: &[[f32; 2]],
) -> TrajectoryBox {
    let share = ((times[frame] - times[a.frame]).0 / (times[b.frame] - times[a.frame]).0) as f32;
    let mix = |from: f32, to: f32| from + share * (to - from);
    let moved =
        |axis: usize| camera[frame][axis] - mix(camera[a.frame][axis], camera[b.frame][axis]);
    let (p, q) = (a.bbox, b.bbox);
    let bbox = BBox::new(
        mix(p.left, q.left) + moved(0),
        mix(p.top, q.top) + moved(1),
        mix(p.width, q.width),
        mix(p.height, q.height),
    );
    TrajectoryBox {
        frame,
        bbox,
        confidence: a.confidence.min(b.confidence),
        seen: false,
    }
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
