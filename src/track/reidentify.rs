//! Who comes back: a new track takes over the id of one lost for longer than motion can bridge, when it looks the same and
//! could have walked there.

use serde::{Deserialize, Serialize};

use crate::range::{OutOfRange, within};
use crate::time::Seconds;
use crate::track::track::{Track, TrackState};

/// When a lost person is known again by looks. Needs an embedder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReidentifyConfig {
    /// A person lost for no longer than this may get the old id back, seconds; at most `tracker.keep_lost` switches it off.
    /// Higher finds people again later, holds back the event of a track's end for as long, and mistakes more look-alikes.
    pub within: f64,
    /// Cosine distance of looks up to which it is the same person, in [0, 2]. Higher finds more again, and mistakes more.
    pub limit: f32,
    /// The nearest look-alike must be nearer than the second by this much, or it stays open who it is.
    pub margin: f32,
    /// How fast people can walk, heights per second: who is further away than that is somebody else.
    pub speed: f32,
}

impl Default for ReidentifyConfig {
    fn default() -> Self {
        ReidentifyConfig { within: 5.0, limit: 0.4, margin: 0.1, speed: 1.5 }
    }
}

impl ReidentifyConfig {
    /// Refuses values outside their ranges.
    ///
    /// # Errors
    /// The first such value.
    pub fn validate(&self) -> Result<(), OutOfRange> {
        within("tracker.reidentify.within", self.within, 0.0, 86_400.0)?;
        within("tracker.reidentify.limit", self.limit, 0.0, 2.0)?;
        within("tracker.reidentify.margin", self.margin, 0.0, 2.0)?;
        within("tracker.reidentify.speed", self.speed, 0.0, 100.0)
    }
}

/// The place in `tracks` of the lost person that `newcomer` is, if one is it beyond doubt.
pub fn who(newcomer: &Track, tracks: &[Track], config: &ReidentifyConfig) -> Option<usize> {
    let mut best: Option<(f32, usize)> = None;
    let mut second = f32::INFINITY;
    for (i, lost) in tracks.iter().enumerate() {
        // One body cannot be at two places: who was still seen after the newcomer appeared is somebody else.
        if lost.state != TrackState::Lost || lost.is_spent() || lost.seen >= newcomer.born || !reachable(lost, newcomer, config) {
            continue;
        }
        let Some(distance) = lost.appearance.between(&newcomer.appearance) else { continue };
        match best {
            Some((least, _)) if distance >= least => second = second.min(distance),
            _ => {
                second = best.map_or(second, |(d, _)| d);
                best = Some((distance, i));
            }
        }
    }
    best.filter(|(d, _)| *d <= config.limit && second - d >= config.margin).map(|(_, i)| i)
}

/// Whether somebody lost there and then can stand here now.
fn reachable(lost: &Track, newcomer: &Track, config: &ReidentifyConfig) -> bool {
    let (a, b) = (lost.last.bbox, newcomer.first);
    let ((ax, ay), (bx, by)) = (a.foot(), b.foot());
    let height = a.height.max(b.height);
    let time: Seconds = newcomer.born - lost.seen;
    (bx - ax).hypot(by - ay) <= height * (0.5 + config.speed * time.f32())
}
