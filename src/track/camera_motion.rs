//! What the camera did between two frames, told from the boxes alone.
//!
//! When the camera pans, all people leave their predictions in the same way. A robust similarity map (shift, zoom, roll)
//! from predicted to detected centres, fitted by iteratively re-weighted least squares (Holland and Welsch 1977, with
//! Tukey's weights), is that common part. It needs no pixels; where people are few, only the shift is fitted.

use serde::{Deserialize, Serialize};

use crate::geometry::{Affine, BBox};

/// Compensation of camera motion from the boxes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CameraMotionConfig {
    /// Estimate the camera's motion from the boxes. Helps where the camera pans or shakes as a whole and many people are in
    /// view; off by default, as it costs some identities where it does not.
    pub from_boxes: bool,
    /// Fewer matched people than this tell nothing: no correction is made.
    pub min_people: usize,
    /// From this many matched people on, zoom and roll are fitted as well as the shift.
    pub min_people_zoom: usize,
}

impl Default for CameraMotionConfig {
    fn default() -> Self {
        CameraMotionConfig { from_boxes: false, min_people: 3, min_people_zoom: 6 }
    }
}

/// The map that takes the predicted boxes to the detected ones, or `None` when there are too few or they disagree.
/// `pairs` holds boxes of one person each, predicted and detected, in pixels.
pub fn from_boxes(pairs: &[(BBox, BBox)], config: &CameraMotionConfig) -> Option<Affine> {
    if pairs.len() < config.min_people {
        return None;
    }
    let heights: Vec<f32> = pairs.iter().map(|(_, d)| d.height).collect();
    let points: Vec<[f32; 4]> = pairs
        .iter()
        .map(|(p, d)| {
            let ((px, py), (dx, dy)) = (p.center(), d.center());
            [px, py, dx, dy]
        })
        .collect();
    let mut shift = [median(points.iter().map(|p| p[2] - p[0]).collect()), median(points.iter().map(|p| p[3] - p[1]).collect())];
    let mut map = Affine { linear: Affine::IDENTITY.linear, shift };
    let zoom = pairs.len() >= config.min_people_zoom;
    for _ in 0..5 {
        let residual = |p: &[f32; 4], h: f32| {
            let (x, y) = map.apply(p[0], p[1]);
            (x - p[2]).hypot(y - p[3]) / h
        };
        let errors: Vec<f32> = points.iter().zip(&heights).map(|(p, &h)| residual(p, h)).collect();
        let cut = (4.685 * 1.4826 * median(errors.clone())).max(0.02);
        let weights: Vec<f32> = errors.iter().map(|e| (1.0 - (e / cut).powi(2)).max(0.0).powi(2)).collect();
        let total: f32 = weights.iter().sum();
        if total < 1e-3 {
            return None;
        }
        let mean = |i: usize| points.iter().zip(&weights).map(|(p, w)| p[i] * w).sum::<f32>() / total;
        let m = [mean(0), mean(1), mean(2), mean(3)];
        // Least-squares similarity about the means: (a, b) solves q = a p + b Jp.
        let (mut a, mut b) = (1.0, 0.0);
        if zoom {
            let (mut pp, mut pq, mut pxq) = (0.0, 0.0, 0.0);
            for (p, w) in points.iter().zip(&weights) {
                let (px, py, qx, qy) = (p[0] - m[0], p[1] - m[1], p[2] - m[2], p[3] - m[3]);
                pp += w * (px * px + py * py);
                pq += w * (px * qx + py * qy);
                pxq += w * (px * qy - py * qx);
            }
            if pp > 1.0 {
                (a, b) = (pq / pp, pxq / pp);
            }
        }
        shift = [m[2] - (a * m[0] - b * m[1]), m[3] - (b * m[0] + a * m[1])];
        map = Affine { linear: [a, -b, b, a], shift };
    }
    ((0.8..1.25).contains(&map.scale())).then_some(map)
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

    fn crowd() -> Vec<BBox> {
        (0..12).map(|i| BBox::from_center(80.0 * i as f32, 200.0 + 37.0 * ((i * 7) % 5) as f32, 40.0, 100.0)).collect()
    }

    fn moved_by(map: &Affine) -> Vec<(BBox, BBox)> {
        let to = |b: &BBox| {
            let (x, y) = b.center();
            let (x, y) = map.apply(x, y);
            BBox::from_center(x, y, b.width * map.scale(), b.height * map.scale())
        };
        crowd().iter().map(|b| (*b, to(b))).collect()
    }

    #[test]
    fn finds_shift_zoom_and_roll_in_spite_of_people_who_run() {
        let truth = Affine { linear: [1.05, -0.02, 0.02, 1.05], shift: [30.0, -12.0] };
        let mut pairs = moved_by(&truth);
        pairs[3].1.left += 70.0;
        pairs[8].1.top -= 90.0;
        let found = from_boxes(&pairs, &CameraMotionConfig::default()).expect("twelve people are enough");
        let ((fx, fy), (tx, ty)) = (found.apply(400.0, 300.0), truth.apply(400.0, 300.0));
        assert!((fx - tx).abs() < 1.0 && (fy - ty).abs() < 1.0, "{found:?}");
    }

    #[test]
    fn two_people_tell_nothing() {
        assert_eq!(from_boxes(&moved_by(&Affine::IDENTITY)[..2], &CameraMotionConfig::default()), None);
    }

    #[test]
    fn a_few_people_tell_the_shift_only() {
        let pairs = moved_by(&Affine { linear: [1.0, 0.0, 0.0, 1.0], shift: [20.0, 5.0] });
        let found = from_boxes(&pairs[..4], &CameraMotionConfig::default()).expect("four are enough for a shift");
        assert_eq!(found.linear, Affine::IDENTITY.linear);
        assert!((found.shift[0] - 20.0).abs() < 0.1 && (found.shift[1] - 5.0).abs() < 0.1);
    }
}
