//! Scenery: fixed objects that the detector takes for people, such as signs, posters and
//! mannequins. Their detections have a low confidence and the same position in all frames, while
//! standing people sway.

use derive_setters::Setters;
use serde::{Deserialize, Serialize};

use crate::geometry::BBox;
use crate::range::{OutOfRange, share, within};
use crate::time::Seconds;

/// Conditions under which a track is taken for scenery and no longer reported.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Setters)]
#[cfg_attr(feature = "serve", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct SceneryConfig {
    /// A track that has kept still for this many seconds is scenery; 0 disables the detection of
    /// scenery.
    pub after: f64,
    /// Largest standard deviation of a still track's boxes from their mean, as a share of the
    /// height; heights below 60 pixels count as 60.
    pub sway: f32,
    /// Only tracks with a mean confidence below this (a value in [0, 1]) can be scenery. Higher
    /// hides more signs, and people who sit.
    pub confidence: f32,
    /// Seconds for which the place of a scenery object is remembered after its last detection.
    pub remember: f64,
}

impl Default for SceneryConfig {
    fn default() -> Self {
        SceneryConfig {
            after: 4.0,
            sway: 0.015,
            confidence: 0.6,
            remember: 600.0,
        }
    }
}

impl SceneryConfig {
    /// Checks that every value is in its range.
    ///
    /// # Errors
    /// The first value outside its range.
    pub fn validate(&self) -> Result<(), OutOfRange> {
        within("tracker.scenery.after", self.after, 0.0, 3600.0)?;
        share("tracker.scenery.sway", self.sway)?;
        share("tracker.scenery.confidence", self.confidence)?;
        within("tracker.scenery.remember", self.remember, 0.0, 1e6)
    }
}

/// Below this height in pixels the detector's rounding errors exceed a person's sway.
const SMALL: f32 = 60.0;

/// Stillness of a track: exponential means over half of `tracker.scenery.after`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stillness {
    mean: [f32; 4],
    variance: f32,
    confidence: f32,
    since: Seconds,
    last: Seconds,
}

impl Stillness {
    /// Starts with the first box.
    pub fn new(bbox: BBox, confidence: f32, now: Seconds) -> Self {
        Stillness {
            mean: bbox.into(),
            variance: 0.0,
            confidence,
            since: now,
            last: now,
        }
    }

    /// Updates the means with the next box.
    pub fn update(&mut self, bbox: BBox, confidence: f32, now: Seconds, config: &SceneryConfig) {
        let share = (1.0 - (-(now - self.last).0 / (0.5 * config.after).max(1e-3)).exp()) as f32;
        self.last = now;
        let mut squared = 0.0f32;
        for (mean, v) in self.mean.iter_mut().zip(<[f32; 4]>::from(bbox)) {
            let off = v - *mean;
            squared = squared.max((off / bbox.height.max(SMALL)).powi(2));
            *mean += share * off;
        }
        self.variance += share * (squared - self.variance);
        self.confidence += share * (confidence - self.confidence);
        // After one large displacement the track is not still, even if the means are low.
        if squared > (4.0 * config.sway).powi(2) {
            self.since = now;
        }
    }

    /// Whether the track is scenery by now.
    pub fn is_scenery(&self, now: Seconds, config: &SceneryConfig) -> bool {
        config.after > 0.0
            && (now - self.since).0 >= config.after
            && self.variance.sqrt() <= config.sway
            && self.confidence < config.confidence
    }
}

/// Remembered places of scenery.
#[derive(Debug, Clone, Default)]
pub struct Scenery {
    places: Vec<(BBox, Seconds)>,
}

impl Scenery {
    /// Adds a place, or updates its time.
    pub fn remember(&mut self, bbox: BBox, now: Seconds) {
        match self.places.iter_mut().find(|(b, _)| same_place(b, &bbox)) {
            Some(place) => *place = (bbox, now),
            None => self.places.push((bbox, now)),
        }
    }

    /// Whether a box is at a remembered place.
    pub fn contains(&self, bbox: &BBox) -> bool {
        self.places.iter().any(|(b, _)| same_place(b, bbox))
    }

    /// Removes places that have not been detected for `remember` seconds.
    pub fn remove_expired(&mut self, now: Seconds, config: &SceneryConfig) {
        self.places
            .retain(|(_, seen)| (now - *seen).0 <= config.remember);
    }
}

fn same_place(a: &BBox, b: &BBox) -> bool {
    a.iou(b) > 0.7
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(sway: f32, confidence: f32, seconds: f64) -> bool {
        let config = SceneryConfig::default();
        let at = |i: i32| {
            BBox::new(
                100.0 + sway * 100.0 * if i % 3 == 0 { 1.0 } else { -0.5 },
                50.0,
                40.0,
                100.0,
            )
        };
        let mut s = Stillness::new(at(0), confidence, Seconds::ZERO);
        let steps = (seconds * 10.0) as i32;
        (1..=steps).for_each(|i| s.update(at(i), confidence, Seconds(f64::from(i) * 0.1), &config));
        s.is_scenery(Seconds(f64::from(steps) * 0.1), &config)
    }

    #[test]
    fn a_sign_becomes_scenery_and_a_waiting_person_does_not() {
        assert!(watched(0.005, 0.5, 5.0), "a sign");
        assert!(!watched(0.005, 0.5, 2.0), "too early to decide");
        assert!(!watched(0.005, 0.8, 5.0), "a confident detection");
        assert!(!watched(0.03, 0.5, 5.0), "a person who sways");
    }

    #[test]
    fn movement_ends_scenery() {
        let config = SceneryConfig::default();
        let mut s = Stillness::new(BBox::new(0.0, 0.0, 40.0, 100.0), 0.5, Seconds::ZERO);
        (1..=50).for_each(|i| {
            s.update(
                BBox::new(0.0, 0.0, 40.0, 100.0),
                0.5,
                Seconds(f64::from(i) * 0.1),
                &config,
            )
        });
        assert!(s.is_scenery(Seconds(5.0), &config));
        s.update(
            BBox::new(10.0, 0.0, 40.0, 100.0),
            0.5,
            Seconds(5.1),
            &config,
        );
        assert!(!s.is_scenery(Seconds(5.1), &config));
    }

    #[test]
    fn places_are_forgotten_after_the_configured_time() {
        let (mut s, config) = (Scenery::default(), SceneryConfig::default());
        let place = BBox::new(0.0, 0.0, 40.0, 100.0);
        s.remember(place, Seconds(10.0));
        assert!(
            s.contains(&BBox::new(1.0, 1.0, 40.0, 100.0))
                && !s.contains(&BBox::new(50.0, 0.0, 40.0, 100.0))
        );
        s.remove_expired(Seconds(10.0 + config.remember + 1.0), &config);
        assert!(!s.contains(&place));
    }
}
