//! Where a person was while unseen: on the straight way between, and smoothly (Gaussian-smoothed interpolation; Du et al.
//! 2023, StrongSORT, has the idea with a Gaussian process, of which a kernel is the plain form).

use serde::{Deserialize, Serialize};

use crate::geometry::BBox;
use crate::range::{OutOfRange, within};
use crate::time::Seconds;
use crate::track::offline::Sighting;

/// Filling of gaps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InterpolateConfig {
    /// Longest gap that is filled, seconds; 0 fills none.
    pub max_gap: f64,
    /// Width (standard deviation) of the Gaussian that smooths the way, seconds; 0 leaves the boxes as they were detected,
    /// with straight lines between.
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
    /// Refuses values outside their ranges.
    ///
    /// # Errors
    /// The first such value.
    pub fn validate(&self) -> Result<(), OutOfRange> {
        within("offline.fill.max_gap", self.max_gap, 0.0, 3600.0)?;
        within("offline.fill.smoothing", self.smoothing, 0.0, 10.0)
    }
}

/// A person's place in a frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// Place of the frame in the list of all frames.
    pub frame: usize,
    /// The box, pixels.
    pub bbox: BBox,
    /// Confidence: of the detection, or the lower one of the two around a gap.
    pub confidence: f32,
    /// False where the box was filled in.
    pub seen: bool,
}

/// The sightings with the frames between them filled in. `camera` is how far the camera has moved at each frame, pixels.
pub fn fill(
    sightings: &[Sighting],
    times: &[Seconds],
    camera: &[[f32; 2]],
    config: &InterpolateConfig,
) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::with_capacity(sightings.len());
    for s in sightings {
        if let Some(last) = steps
            .last()
            .copied()
            .filter(|l| (times[s.frame] - times[l.frame]).0 <= config.max_gap)
        {
            steps.extend(
                (last.frame + 1..s.frame).map(|frame| between(&last, s, frame, times, camera)),
            );
        }
        steps.push(Step {
            frame: s.frame,
            bbox: s.bbox,
            confidence: s.confidence,
            seen: true,
        });
    }
    if config.smoothing > 0.0 {
        smooth(&steps, times, camera, config.smoothing)
    } else {
        steps
    }
}

/// The box on the straight way from one to the other, as seen by the camera of that frame.
fn between(a: &Step, b: &Sighting, frame: usize, times: &[Seconds], camera: &[[f32; 2]]) -> Step {
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
    Step {
        frame,
        bbox,
        confidence: a.confidence.min(b.confidence),
        seen: false,
    }
}

/// Each box becomes the weighted mean of those around it. The window is as long behind as before, or the ends would be
/// drawn inwards.
fn smooth(steps: &[Step], times: &[Seconds], camera: &[[f32; 2]], width: f64) -> Vec<Step> {
    let (mut from, mut to) = (0, 0);
    let at = |s: &Step| times[s.frame].0;
    let mut out = Vec::with_capacity(steps.len());
    for s in steps {
        while at(s) - at(&steps[from]) > 3.0 * width {
            from += 1;
        }
        while to < steps.len() && at(&steps[to]) - at(s) <= 3.0 * width {
            to += 1;
        }
        let window = &steps[from..to];
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
        out.push(Step {
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

    fn seen(frame: usize, left: f32) -> Sighting {
        Sighting {
            frame,
            bbox: BBox::new(left, 50.0, 20.0, 60.0),
            confidence: 0.8,
        }
    }

    fn filled(sightings: &[Sighting], config: &InterpolateConfig) -> Vec<(usize, f32, bool)> {
        fill(sightings, &times(40), &[[0.0; 2]; 40], config)
            .iter()
            .map(|s| (s.frame, s.bbox.left, s.seen))
            .collect()
    }

    #[test]
    fn a_short_gap_is_filled_on_the_straight_way_and_a_long_one_is_not() {
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
    fn smoothing_keeps_a_steady_walk_and_calms_a_jittery_one() {
        let config = InterpolateConfig {
            max_gap: 1.0,
            smoothing: 0.2,
        };
        let steady: Vec<Sighting> = (0..30).map(|f| seen(f, 5.0 * f as f32)).collect();
        assert!(
            filled(&steady, &config)
                .iter()
                .all(|&(f, x, _)| (x - 5.0 * f as f32).abs() < 0.01)
        );
        let jittery: Vec<Sighting> = (0..30)
            .map(|f| seen(f, 5.0 * f as f32 + if f % 2 == 0 { 4.0 } else { -4.0 }))
            .collect();
        let worst = filled(&jittery, &config)[3..27]
            .iter()
            .map(|&(f, x, _)| (x - 5.0 * f as f32).abs())
            .fold(0.0, f32::max);
        assert!(worst < 1.0, "still {worst} pixels off");
    }
}
