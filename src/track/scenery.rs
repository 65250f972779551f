//! What looks like a person and never moves: a sign, a poster, a mannequin. The detector finds it with little confidence,
//! always at the same place; people who stand still sway.

use serde::{Deserialize, Serialize};

use crate::geometry::BBox;
use crate::range::{OutOfRange, share, within};
use crate::time::Seconds;

/// When a track is taken for scenery and no longer shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SceneryConfig {
    /// A track that has kept still for this long is scenery, seconds; 0 never takes one for it.
    pub after: f64,
    /// It kept still when its boxes strayed from their mean by no more than this share of the height (standard deviation),
    /// where heights below 60 pixels count as 60.
    pub sway: f32,
    /// Only tracks whose detections are less confident than this on average: higher hides more signs, and people who sit.
    pub confidence: f32,
    /// A place once known for scenery is remembered for this long after it was last seen, seconds.
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
    /// Refuses values outside their ranges.
    ///
    /// # Errors
    /// The first such value.
    pub fn validate(&self) -> Result<(), OutOfRange> {
        within("tracker.scenery.after", self.after, 0.0, 3600.0)?;
        share("tracker.scenery.sway", self.sway)?;
        share("tracker.scenery.confidence", self.confidence)?;
        within("tracker.scenery.remember", self.remember, 0.0, 1e6)
    }
}

/// Below this height, pixels, a detector's rounding is more than a person's sway.
const SMALL: f32 = 60.0;

/// How still a track has been, over the last few seconds: exponential means with a memory of half the time it takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stillness {
    mean: [f32; 4],
    variance: f32,
    confidence: f32,
    since: Seconds,
    last: Seconds,
}

impl Stillness {
    /// Begins with a first box.
    pub fn new(bbox: BBox, confidence: f32, now: Seconds) -> Self {
        Stillness {
            mean: bbox.into(),
            variance: 0.0,
            confidence,
            since: now,
            last: now,
        }
    }

    /// Takes the next box.
    pub fn see(&mut self, bbox: BBox, confidence: f32, now: Seconds, config: &SceneryConfig) {
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
        // One step far off is a move, whatever the average says.
        if squared > (4.0 * config.sway).powi(2) {
            self.since = now;
        }
    }

    /// Whether this is scenery by now.
    pub fn is_scenery(&self, now: Seconds, config: &SceneryConfig) -> bool {
        config.after > 0.0
            && (now - self.since).0 >= config.after
            && self.variance.sqrt() <= config.sway
            && self.confidence < config.confidence
    }
}

/// Places known for scenery.
#[derive(Debug, Clone, Default)]
pub struct Scenery {
    places: Vec<(BBox, Seconds)>,
}

impl Scenery {
    /// Remembers a place, or that it was seen again.
    pub fn remember(&mut self, bbox: BBox, now: Seconds) {
        match self.places.iter_mut().find(|(b, _)| same(b, &bbox)) {
            Some(place) => *place = (bbox, now),
            None => self.places.push((bbox, now)),
        }
    }

    /// Whether a new box stands at such a place.
    pub fn knows(&self, bbox: &BBox) -> bool {
        self.places.iter().any(|(b, _)| same(b, bbox))
    }

    /// Forgets what has not been seen for long.
    pub fn forget(&mut self, now: Seconds, config: &SceneryConfig) {
        self.places
            .retain(|(_, seen)| (now - *seen).0 <= config.remember);
    }
}

fn same(a: &BBox, b: &BBox) -> bool {
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
        (1..=steps).for_each(|i| s.see(at(i), confidence, Seconds(f64::from(i) * 0.1), &config));
        s.is_scenery(Seconds(f64::from(steps) * 0.1), &config)
    }

    #[test]
    fn a_sign_is_scenery_after_a_while_and_a_person_who_waits_is_not() {
        assert!(watched(0.005, 0.5, 5.0), "a sign");
        assert!(!watched(0.005, 0.5, 2.0), "too early to tell");
        assert!(!watched(0.005, 0.8, 5.0), "a confident detection");
        assert!(!watched(0.03, 0.5, 5.0), "someone who sways");
    }

    #[test]
    fn who_walks_away_is_no_scenery_any_more() {
        let config = SceneryConfig::default();
        let mut s = Stillness::new(BBox::new(0.0, 0.0, 40.0, 100.0), 0.5, Seconds::ZERO);
        (1..=50).for_each(|i| {
            s.see(
                BBox::new(0.0, 0.0, 40.0, 100.0),
                0.5,
                Seconds(f64::from(i) * 0.1),
                &config,
            )
        });
        assert!(s.is_scenery(Seconds(5.0), &config));
        s.see(
            BBox::new(10.0, 0.0, 40.0, 100.0),
            0.5,
            Seconds(5.1),
            &config,
        );
        assert!(!s.is_scenery(Seconds(5.1), &config));
    }

    #[test]
    fn places_are_remembered_for_a_time() {
        let (mut s, config) = (Scenery::default(), SceneryConfig::default());
        let place = BBox::new(0.0, 0.0, 40.0, 100.0);
        s.remember(place, Seconds(10.0));
        assert!(
            s.knows(&BBox::new(1.0, 1.0, 40.0, 100.0))
                && !s.knows(&BBox::new(50.0, 0.0, 40.0, 100.0))
        );
        s.forget(Seconds(10.0 + config.remember + 1.0), &config);
        assert!(!s.knows(&place));
    }
}
