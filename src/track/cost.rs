//! The association cost of a track and a detection: one function per term;
//! [`pair`](crate::track::pair) adds them up.
//!
//! The features are those of Leal-Taixé et al. 2016, section 4: the appearance distance of the
//! Siamese network, and the relative position and size as contextual features. The weights are
//! tuned by hand.

use derive_setters::Setters;
use serde::{Deserialize, Serialize};

use crate::geometry::BBox;
use crate::range::{OutOfRange, within};

/// Weights and gates of the association cost. Each term is 0 for a perfect match and about 1 for a
/// poor one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Setters)]
#[cfg_attr(feature = "serve", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct CostConfig {
    /// Weight of the overlap term (1 - buffered IoU). Higher relies more on the predicted position.
    pub overlap: f32,
    /// Weight of the position term (vertical distance of the foot points, divided by the box
    /// height). On level ground the vertical position of the foot point depends on the distance
    /// from the camera, which changes slowly. Higher separates people at different distances.
    pub position: f32,
    /// Weight of the size term (difference of the logarithms of the heights). Higher separates near
    /// and far people, but loses people whose box is cut by an occlusion.
    pub size: f32,
    /// Weight of the appearance term, used where an embedding is known. Higher relies more on the
    /// network than on the position.
    pub appearance: f32,
    /// Cosine distance at which the appearance term reaches 1; about the distance between two
    /// different people.
    pub appearance_scale: f32,
    /// Cost per second since the track's last detection. Higher prefers recently detected tracks
    /// and makes lost tracks harder to recover.
    pub absence: f32,
    /// Boxes are enlarged by this share of their size on each side before their overlap is
    /// measured, so that people who move more than their width between frames still overlap their
    /// track. Higher matches more, and causes more identity switches in crowds.
    pub buffer: f32,
    /// As `buffer`, and at least as large: for the second round, which matches the tracks and
    /// detections that the first round left unmatched.
    pub second_buffer: f32,
    /// Pairs of track and detection that cost at least this are not matched. Higher keeps ids
    /// through larger deviations, lower starts new tracks.
    pub limit: f32,
    /// As `limit`, for detections below `tracker.sure`, which can only continue a track.
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
    /// Checks that every value is in its range.
    ///
    /// # Errors
    /// The first value outside its range.
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

/// Overlap term: 1 - IoU of the boxes, each enlarged by `buffer`; in [0, 1], 1 if they do not
/// overlap.
pub fn overlap(predicted: &BBox, detected: &BBox, buffer: f32) -> f32 {
    1.0 - predicted.buffered(buffer).iou(&detected.buffered(buffer))
}

/// Position term: vertical distance of the foot points divided by the predicted height.
pub fn position(predicted: &BBox, detected: &BBox) -> f32 {
    (predicted.bottom() - detected.bottom()).abs() / predicted.height
}

/// Size term: absolute logarithm of the ratio of heights; 0.69 for a factor of two.
pub fn size(predicted: &BBox, detected: &BBox) -> f32 {
    (predicted.height / detected.height).ln().abs()
}

/// Appearance term: cosine distance divided by `scale`, the typical distance of two people; at most
/// 2.
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
