//! How unlike a track and a detection are: one function a term, then their weighted sum.
//!
//! The features are those of Leal-Taixé et al. 2016, section 4: appearance distance (the Siamese network's) beside
//! contextual ones, the relative position and size. Here hand-set weights combine them.

use serde::{Deserialize, Serialize};

use crate::geometry::BBox;
use crate::range::{OutOfRange, within};

/// Weights and gates of the association cost. Every term is 0 for a perfect match and about 1 for a poor one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CostConfig {
    /// Weight of the overlap term (1 - buffered IoU). Higher holds on to the predicted place.
    pub overlap: f32,
    /// Weight of the position term (difference of where the feet stand in the picture, over the height). On level ground
    /// that is the distance from the camera, which changes slowly. Higher keeps people at different distances apart.
    pub position: f32,
    /// Weight of the size term (difference of the logarithms of the heights). Higher keeps near and far people apart, but
    /// loses those whose box is cut by an occlusion.
    pub size: f32,
    /// Weight of the appearance term. Higher trusts the network more than the place; used only where an embedding is known.
    pub appearance: f32,
    /// The cosine distance at which the appearance term reaches 1: about that between two different people.
    pub appearance_scale: f32,
    /// Cost of every second that a track has not been seen. Higher gives a detection rather to a track seen a moment ago,
    /// and makes long-lost ones harder to find again.
    pub absence: f32,
    /// Boxes are grown by this share of their size on each side before their overlap is measured, so that people who
    /// move more than their width between frames still meet their track. Higher finds more, and confuses more in crowds.
    pub buffer: f32,
    /// The same in the second look, for tracks and detections the first left over.
    pub second_buffer: f32,
    /// A pair that costs more is never made. Higher keeps identities through bigger surprises, lower starts new tracks.
    pub limit: f32,
    /// The same for unsure detections, which may only continue a track.
    pub unsure_limit: f32,
}

impl Default for CostConfig {
    fn default() -> Self {
        CostConfig {
            overlap: 1.0,
            position: 0.11,
            size: 0.98,
            appearance: 1.6,
            appearance_scale: 0.9,
            absence: 0.058,
            buffer: 0.3,
            second_buffer: 0.55,
            limit: 0.69,
            unsure_limit: 0.93,
        }
    }
}

impl CostConfig {
    /// Refuses values outside their ranges.
    ///
    /// # Errors
    /// The first such value.
    pub fn validate(&self) -> Result<(), OutOfRange> {
        let weights = [
            ("overlap", self.overlap),
            ("position", self.position),
            ("size", self.size),
            ("appearance", self.appearance),
            ("absence", self.absence),
        ];
        weights
            .iter()
            .try_for_each(|(name, v)| within(&format!("tracker.cost.{name}"), *v, 0.0, 100.0))?;
        within(
            "tracker.cost.appearance_scale",
            self.appearance_scale,
            0.01,
            2.0,
        )?;
        within("tracker.cost.buffer", self.buffer, 0.0, 5.0)?;
        within(
            "tracker.cost.second_buffer",
            self.second_buffer,
            self.buffer,
            5.0,
        )?;
        within("tracker.cost.limit", self.limit, 0.0, 100.0)?;
        within("tracker.cost.unsure_limit", self.unsure_limit, 0.0, 100.0)
    }
}

/// Overlap term: 1 - IoU of the two boxes, each grown by `buffer`; in [0, 1], 1 where they do not touch.
pub fn overlap(predicted: &BBox, detected: &BBox, buffer: f32) -> f32 {
    1.0 - predicted.buffered(buffer).iou(&detected.buffered(buffer))
}

/// Position term: the vertical distance between where the feet stand, over the predicted height.
pub fn position(predicted: &BBox, detected: &BBox) -> f32 {
    (predicted.bottom() - detected.bottom()).abs() / predicted.height
}

/// Size term: the absolute logarithm of the ratio of the heights; 0.69 for twice as tall.
pub fn size(predicted: &BBox, detected: &BBox) -> f32 {
    (predicted.height / detected.height).ln().abs()
}

/// Appearance term: cosine distance over the distance typical of two different people, at most 2.
pub fn appearance(cosine_distance: f32, scale: f32) -> f32 {
    (cosine_distance / scale).min(2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERSON: BBox = BBox::new(100.0, 100.0, 40.0, 100.0);

    #[test]
    fn every_term_is_zero_for_a_perfect_match() {
        assert!(overlap(&PERSON, &PERSON, 0.3).abs() < 1e-6);
        assert_eq!(position(&PERSON, &PERSON), 0.0);
        assert_eq!(size(&PERSON, &PERSON), 0.0);
        assert_eq!(appearance(0.0, 0.35), 0.0);
    }

    #[test]
    fn every_term_grows_with_the_difference() {
        let near = BBox::new(110.0, 100.0, 40.0, 90.0);
        let far = BBox::new(130.0, 100.0, 40.0, 60.0);
        assert!(overlap(&PERSON, &near, 0.3) < overlap(&PERSON, &far, 0.3));
        assert!(position(&PERSON, &near) < position(&PERSON, &far));
        assert!(size(&PERSON, &near) < size(&PERSON, &far));
        assert!(appearance(0.1, 0.35) < appearance(0.3, 0.35));
    }

    #[test]
    fn half_the_height_costs_the_same_as_twice_the_height() {
        let (half, twice) = (
            BBox::new(0.0, 0.0, 1.0, 50.0),
            BBox::new(0.0, 0.0, 1.0, 200.0),
        );
        assert!((size(&PERSON, &half) - size(&PERSON, &twice)).abs() < 1e-6);
    }
}
