//! What the camera did between two frames, told from the boxes alone.
//!
//! When the camera pans or shakes, all people leave their predictions in the same way. The robust mean of the ways from
//! predicted to detected centres, by iteratively re-weighted least squares (Holland and Welsch 1977, with Tukey's weights),
//! is that common part. It needs no pixels. A fit of zoom and roll as well was tried and cost more identities than it
//! kept (BENCHMARKS.md): a dozen noisy boxes do not carry four numbers.

use serde::{Deserialize, Serialize};

use crate::geometry::{Affine, BBox};

/// Compensation of camera motion from the boxes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CameraMotionConfig {
    /// Estimate the camera's shift from the boxes. Keeps identities where the camera pans, shakes or drives, and changes
    /// little where it stands.
    pub from_boxes: bool,
    /// Fewer matched people than this tell nothing: no correction is made. Higher trusts only a crowd.
    pub min_people: usize,
}

impl Default for CameraMotionConfig {
    fn default() -> Self {
        CameraMotionConfig { from_boxes: true, min_people: 3 }
    }
}

/// The shift that takes the predicted boxes to the detected ones, or `None` when there are too few or they disagree.
/// `pairs` holds boxes of one person each, predicted and detected, in pixels.
pub fn from_boxes(pairs: &[(BBox, BBox)], config: &CameraMotionConfig) -> Option<Affine> {
    if pairs.len() < config.min_people {
        return None;
    }
    // For each person the way from predicted to detected centre, and the height that makes ways near and far alike.
    let ways: Vec<(f32, f32, f32)> = pairs
        .iter()
        .map(|(p, d)| {
            let ((px, py), (dx, dy)) = (p.center(), d.center());
            (dx - px, dy - py, d.height)
        })
        .collect();
    let (mut x, mut y) = (median(ways.iter().map(|w| w.0).collect()), median(ways.iter().map(|w| w.1).collect()));
    for _ in 0..5 {
        let errors: Vec<f32> = ways.iter().map(|w| (w.0 - x).hypot(w.1 - y) / w.2).collect();
        // 4.685 standard deviations, told robustly from the median: 95 % efficiency on Gaussian errors.
        let cut = (4.685 * 1.4826 * median(errors.clone())).max(0.02);
        let weights: Vec<f32> = errors.iter().map(|e| (1.0 - (e / cut).powi(2)).max(0.0).powi(2)).collect();
        let total: f32 = weights.iter().sum();
        if total < 1e-3 {
            return None;
        }
        let mean = |of: fn(&(f32, f32, f32)) -> f32| ways.iter().zip(&weights).map(|(w, k)| of(w) * k).sum::<f32>() / total;
        (x, y) = (mean(|w| w.0), mean(|w| w.1));
    }
    Some(Affine { shift: [x, y], ..Affine::IDENTITY })
}

/// The middle value; 0 of nothing.
fn median(mut values: Vec<f32>) -> f32 {
    if values.is_empty() {
        return 0.0;
    }
    let middle = values.len() / 2;
    *values.select_nth_unstable_by(middle, f32::total_cmp).1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved_by(dx: f32, dy: f32, people: usize) -> Vec<(BBox, BBox)> {
        (0..people)
            .map(|i| {
                let (x, y) = (80.0 * i as f32, 200.0 + 37.0 * ((i * 7) % 5) as f32);
                (BBox::from_center(x, y, 40.0, 100.0), BBox::from_center(x + dx, y + dy, 40.0, 100.0))
            })
            .collect()
    }

    #[test]
    fn finds_the_shift_in_spite_of_people_who_run() {
        let mut pairs = moved_by(30.0, -12.0, 12);
        pairs[3].1.left += 70.0;
        pairs[8].1.top -= 90.0;
        let found = from_boxes(&pairs, &CameraMotionConfig::default()).expect("twelve people are enough");
        assert!((found.shift[0] - 30.0).abs() < 0.5 && (found.shift[1] + 12.0).abs() < 0.5, "{found:?}");
        assert_eq!(found.linear, Affine::IDENTITY.linear);
    }

    #[test]
    fn two_people_tell_nothing() {
        assert_eq!(from_boxes(&moved_by(5.0, 5.0, 2), &CameraMotionConfig::default()), None);
    }

    #[test]
    fn a_camera_that_stands_is_left_alone() {
        let found = from_boxes(&moved_by(0.0, 0.0, 5), &CameraMotionConfig::default()).expect("five are enough");
        assert!(found.shift[0].abs() < 1e-3 && found.shift[1].abs() < 1e-3);
    }
}
