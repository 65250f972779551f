//! Camera motion between two frames, estimated from boxes or from tracked image points.
//!
//! When the camera pans or shakes, all people deviate from their predictions in the same way. The
//! shift of the camera is estimated as the robust mean of the displacements from predicted to
//! detected centres, by iteratively re-weighted least squares (Holland and Welsch 1977, with
//! Tukey's weights). This needs no pixels. Estimating zoom and roll from the boxes as well caused
//! more identity switches than it prevented (BENCHMARKS.md), because a dozen noisy boxes do not
//! determine four parameters.

use derive_setters::Setters;
use serde::{Deserialize, Serialize};

use crate::geometry::{Affine, BBox};

/// Compensation of camera motion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Setters)]
#[cfg_attr(feature = "serve", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct CameraMotionConfig {
    /// Estimate the camera's shift from the boxes. Keeps ids when the camera pans, shakes or moves,
    /// and has little effect when it stands still.
    pub from_boxes: bool,
    /// Estimate shift, rotation and zoom from the pixels by optical flow, where pixels are
    /// available; paused while the camera stands still.
    pub from_pixels: bool,
    /// Minimum number of matched people, 2 to 1000, from whose boxes the shift is estimated. Higher
    /// corrects in crowds only.
    pub min_people: usize,
}

impl Default for CameraMotionConfig {
    fn default() -> Self {
        CameraMotionConfig {
            from_boxes: true,
            from_pixels: true,
            min_people: 3,
        }
    }
}

/// The lists of [`from_boxes`], kept so that their memory is allocated once.
#[derive(Debug, Default)]
pub struct ShiftLists {
    /// Per person: displacement of the centre (x, y) and the height, both in pixels.
    displacements: Vec<(f32, f32, f32)>,
    errors: Vec<f32>,
    weights: Vec<f32>,
}

/// The shift from the predicted to the detected boxes, or `None` if there are too few pairs or
/// their displacements differ too much. Each pair holds one person's predicted and detected box, in
/// pixels. The contents of `lists` are replaced.
pub fn from_boxes(
    pairs: &[(BBox, BBox)],
    config: &CameraMotionConfig,
    lists: &mut ShiftLists,
) -> Option<Affine> {
    if pairs.len() < config.min_people {
        return None;
    }
    let ShiftLists {
        displacements,
        errors,
        weights,
    } = lists;
    // Errors are divided by the person's height, so that near and far people have equal weight.
    displacements.clear();
    displacements.extend(pairs.iter().map(|(p, d)| {
        let ((px, py), (dx, dy)) = (p.center(), d.center());
        (dx - px, dy - py, d.height)
    }));
    let mut median_of = |axis: fn(&(f32, f32, f32)) -> f32| {
        errors.clear();
        errors.extend(displacements.iter().map(axis));
        median_in_place(errors)
    };
    let (mut x, mut y) = (median_of(|w| w.0), median_of(|w| w.1));
    for _ in 0..5 {
        let error = |w: &(f32, f32, f32)| (w.0 - x).hypot(w.1 - y) / w.2;
        errors.clear();
        errors.extend(displacements.iter().map(error));
        // 4.685 standard deviations, estimated from the median: 95 % efficiency on Gaussian errors.
        let cut = (4.685 * 1.4826 * median_in_place(errors)).max(0.02);
        weights.clear();
        weights.extend(
            displacements
                .iter()
                .map(|w| (1.0 - (error(w) / cut).powi(2)).max(0.0).powi(2)),
        );
        let total: f32 = weights.iter().sum();
        if total < 1e-3 {
            return None;
        }
        let mean = |of: fn(&(f32, f32, f32)) -> f32| {
            displacements
                .iter()
                .zip(weights.iter())
                .map(|(w, k)| of(w) * k)
                .sum::<f32>()
                / total
        };
        (x, y) = (mean(|w| w.0), mean(|w| w.1));
    }
    Some(Affine {
        shift: [x, y],
        ..Affine::IDENTITY
    })
}

/// An image point (x, y) before and after, in pixels.
pub type PointPair = ([f32; 2], [f32; 2]);

/// Fits a similarity transform (shift, rotation, zoom) from the first to the second points by least
/// squares with Tukey's weights, as [`from_boxes`] does. `None` if there are too few points, if too
/// few of them fit one transform, or if the zoom is outside [0.7, 1.4).
pub fn fit_similarity(pairs: &[PointPair]) -> Option<Affine> {
    if pairs.len() < 8 {
        return None;
    }
    let median_displacement =
        |axis: usize| median(pairs.iter().map(|(a, b)| b[axis] - a[axis]).collect());
    let mut map = Affine {
        shift: [median_displacement(0), median_displacement(1)],
        ..Affine::IDENTITY
    };
    let mut agreed = 0.0;
    for _ in 0..10 {
        let errors: Vec<f32> = pairs
            .iter()
            .map(|(a, b)| distance(map.apply(a[0], a[1]), *b))
            .collect();
        let cut = (4.685 * 1.4826 * median(errors.clone())).max(0.5);
        let weights: Vec<f32> = errors
            .iter()
            .map(|e| (1.0 - (e / cut).powi(2)).max(0.0).powi(2))
            .collect();
        agreed = weights.iter().sum();
        if agreed < 4.0 {
            return None;
        }
        let mean = |of: &dyn Fn(&PointPair) -> f32| {
            pairs
                .iter()
                .zip(&weights)
                .map(|(p, w)| of(p) * w)
                .sum::<f32>()
                / agreed
        };
        let (ax, ay, bx, by) = (
            mean(&|p| p.0[0]),
            mean(&|p| p.0[1]),
            mean(&|p| p.1[0]),
            mean(&|p| p.1[1]),
        );
        let spread = mean(&|(a, _)| (a[0] - ax).powi(2) + (a[1] - ay).powi(2)).max(1e-6);
        let cos = mean(&|(a, b)| (a[0] - ax) * (b[0] - bx) + (a[1] - ay) * (b[1] - by)) / spread;
        let sin = mean(&|(a, b)| (a[0] - ax) * (b[1] - by) - (a[1] - ay) * (b[0] - bx)) / spread;
        map = Affine {
            linear: [cos, -sin, sin, cos],
            shift: [bx - cos * ax + sin * ay, by - sin * ax - cos * ay],
        };
    }
    // If fewer points fit the transform, most points are probably on people, not on the background.
    (agreed >= 0.35 * pairs.len() as f32 && (0.7..1.4).contains(&map.scale())).then_some(map)
}

fn distance(a: (f32, f32), b: [f32; 2]) -> f32 {
    (a.0 - b[0]).hypot(a.1 - b[1])
}

/// The median; 0 for an empty list.
fn median(mut values: Vec<f32>) -> f32 {
    median_in_place(&mut values)
}

/// The median. Reorders the values; allocates nothing.
fn median_in_place(values: &mut [f32]) -> f32 {
    if values.is_empty() {
        return 0.0;
    }
    let at = values.len() / 2;
    *values.select_nth_unstable_by(at, f32::total_cmp).1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similarity_is_found_despite_walking_people() {
        let map = |x: f32, y: f32| [1.02 * x - 0.03 * y + 5.0, 0.03 * x + 1.02 * y - 3.0];
        let still = (0..30)
            .map(|i| ((37 * i % 320) as f32, (53 * i % 240) as f32))
            .map(|(x, y)| ([x, y], map(x, y)));
        let walking = (0..10).map(|i| ([10.0 * i as f32, 100.0], [10.0 * i as f32 + 25.0, 110.0]));
        let pairs: Vec<_> = still.chain(walking).collect();
        let found = fit_similarity(&pairs).expect("most agree");
        let ((x, y), [ex, ey]) = (found.apply(200.0, 100.0), map(200.0, 100.0));
        assert!((x - ex).abs() < 0.05 && (y - ey).abs() < 0.05, "{found:?}");
        assert_eq!(fit_similarity(&pairs[..5]), None);
    }

    fn moved_by(dx: f32, dy: f32, people: usize) -> Vec<(BBox, BBox)> {
        (0..people)
            .map(|i| {
                let (x, y) = (80.0 * i as f32, 200.0 + 37.0 * ((i * 7) % 5) as f32);
                (
                    BBox::from_center(x, y, 40.0, 100.0),
                    BBox::from_center(x + dx, y + dy, 40.0, 100.0),
                )
            })
            .collect()
    }

    #[test]
    fn shift_is_found_despite_running_people() {
        let mut pairs = moved_by(30.0, -12.0, 12);
        pairs[3].1.left += 70.0;
        pairs[8].1.top -= 90.0;
        let found = from_boxes(
            &pairs,
            &CameraMotionConfig::default(),
            &mut ShiftLists::default(),
        )
        .expect("twelve people are enough");
        assert!(
            (found.shift[0] - 30.0).abs() < 0.5 && (found.shift[1] + 12.0).abs() < 0.5,
            "{found:?}"
        );
        assert_eq!(found.linear, Affine::IDENTITY.linear);
    }

    #[test]
    fn two_people_give_no_estimate() {
        assert_eq!(
            from_boxes(
                &moved_by(5.0, 5.0, 2),
                &CameraMotionConfig::default(),
                &mut ShiftLists::default()
            ),
            None
        );
    }

    #[test]
    fn a_still_camera_gives_no_shift() {
        let found = from_boxes(
            &moved_by(0.0, 0.0, 5),
            &CameraMotionConfig::default(),
            &mut ShiftLists::default(),
        )
        .expect("five are enough");
        assert!(found.shift[0].abs() < 1e-3 && found.shift[1].abs() < 1e-3);
    }
}
