//! Who comes back: a new track takes over the id of one lost for longer than motion can bridge, when it looks the same beyond
//! doubt and could have walked there. How much likeness that takes follows from how often strangers are alike to the network
//! in use ([`Strangers`]); of a network that does not say so nobody is known again.

use serde::{Deserialize, Serialize};

use crate::geometry::BBox;
use crate::range::{OutOfRange, within};
use crate::time::Seconds;
use crate::track::similarity::{StrangerRate, Strangers};
use crate::track::track::{Track, TrackState};

/// When a lost person is known again by looks. Needs an embedder whose file or settings say how often strangers are alike
/// (`twintrack-train calibrate`); without that nobody is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReidentifyConfig {
    /// A person lost for no longer than this may get the old id back, seconds; 0 switches it off. Higher finds people again
    /// later, holds back the event of a track's end for as long, and mistakes more look-alikes.
    pub within: f64,
    /// Newcomers who may be taken for one of those lost though they are somebody new, as a share, above 0 and at most 0.5. It
    /// is shared among all they are compared with. Higher finds more again, and mistakes more.
    pub false_merge: f32,
    /// The second nearest look-alike must be so many times likelier a stranger than the nearest, from 1, or it stays open who
    /// it is.
    pub margin: f32,
    /// How fast people can walk, heights per second: who is further away than that is somebody else.
    pub speed: f32,
    /// Detections a newcomer needs before it is compared. Until then one who may be somebody lost is not shown.
    pub after_hits: u32,
}

impl Default for ReidentifyConfig {
    fn default() -> Self {
        ReidentifyConfig {
            within: 5.0,
            false_merge: 0.01,
            margin: 3.0,
            speed: 1.5,
            after_hits: 2,
        }
    }
}

impl ReidentifyConfig {
    /// Refuses values outside their ranges.
    ///
    /// # Errors
    /// The first such value.
    pub fn validate(&self) -> Result<(), OutOfRange> {
        within("tracker.reidentify.within", self.within, 0.0, 86_400.0)?;
        within(
            "tracker.reidentify.false_merge",
            self.false_merge,
            1e-6,
            0.5,
        )?;
        within("tracker.reidentify.margin", self.margin, 1.0, 1e6)?;
        within("tracker.reidentify.speed", self.speed, 0.0, 100.0)?;
        within("tracker.reidentify.after_hits", self.after_hits, 1, 100)
    }
}

/// A median over pairs of views is at most a distance where at least half of the pairs are: with strangers no more than
/// twice as often as a single pair is (Markov's inequality).
const MEDIAN: f32 = 2.0;
/// A newcomer is worth waiting for where no more than this share of strangers is as alike to somebody lost.
const WORTH: f32 = 0.2;

/// Which of several people somebody is, by the distances to each; `None` where that is none of them or in doubt.
pub fn choose(
    distances: &[f32],
    strangers: &Strangers,
    config: &ReidentifyConfig,
) -> Option<usize> {
    let limit = strangers.limit(config.false_merge / (MEDIAN * distances.len() as f32))?;
    let best = (0..distances.len()).min_by(|&a, &b| distances[a].total_cmp(&distances[b]))?;
    let others = || {
        (0..distances.len())
            .filter(|&i| i != best)
            .map(|i| distances[i])
    };
    let second = others().fold(f32::INFINITY, f32::min);
    let clear = second.is_infinite()
        || bound(strangers.rate(second)) >= config.margin * bound(strangers.rate(distances[best]));
    (distances[best] <= limit && clear).then_some(best)
}

/// The rate, or the smallest ever measured where it is below.
fn bound(rate: StrangerRate) -> f32 {
    let (StrangerRate::About(r) | StrangerRate::Below(r)) = rate;
    r
}

/// What is known of a newcomer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Newcomer {
    /// Nobody who was lost, or in doubt.
    New,
    /// The lost person at this place of the list.
    Returned(usize),
    /// Perhaps somebody lost, and not seen often enough to be compared.
    Open,
}

/// Who a newcomer is among the lost people in `tracks`.
pub fn who(
    newcomer: &Track,
    tracks: &[Track],
    strangers: &Strangers,
    config: &ReidentifyConfig,
) -> Newcomer {
    let might_be = |lost: &Track| {
        // One body cannot be at two places: who was still seen after the newcomer appeared is somebody else.
        let away = lost.state == TrackState::Lost && !lost.is_spent() && lost.seen < newcomer.born;
        away && reachable(
            (&lost.last.bbox, lost.seen),
            (&newcomer.first, newcomer.born),
            config.speed,
        )
    };
    let candidates = tracks.iter().enumerate().filter(|(_, lost)| might_be(lost));
    let (places, distances): (Vec<usize>, Vec<f32>) = candidates
        .filter_map(|(i, lost)| Some((i, lost.views.distance(&newcomer.views)?)))
        .unzip();
    if newcomer.hits < config.after_hits {
        let near = distances.iter().any(|&d| bound(strangers.rate(d)) <= WORTH);
        return if near { Newcomer::Open } else { Newcomer::New };
    }
    choose(&distances, strangers, config).map_or(Newcomer::New, |i| Newcomer::Returned(places[i]))
}

/// Whether somebody last seen there and then can stand here now, at `speed` heights per second.
pub fn reachable(from: (&BBox, Seconds), to: (&BBox, Seconds), speed: f32) -> bool {
    let ((ax, ay), (bx, by)) = (from.0.foot(), to.0.foot());
    let height = from.0.height.max(to.0.height);
    (bx - ax).hypot(by - ay) <= height * (0.5 + speed * (to.1 - from.1).f32())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(distances: &[f32], config: &ReidentifyConfig) -> Option<usize> {
        let strangers: Strangers = "0.5@0.8,0.1@0.6,0.01@0.4,0.001@0.3"
            .parse()
            .expect("a table");
        choose(distances, &strangers, config)
    }

    #[test]
    fn the_limit_follows_from_false_merges_and_how_many_are_compared() {
        let config = ReidentifyConfig::default();
        // One candidate: half of 1 %, at a distance of 0.37; six: less than was ever measured.
        assert_eq!(chosen(&[0.36], &config), Some(0));
        assert_eq!(chosen(&[0.38], &config), None);
        assert_eq!(chosen(&[0.9, 0.9, 0.3, 0.9], &config), Some(2));
        assert_eq!(chosen(&[0.9, 0.9, 0.33, 0.9], &config), None);
        assert_eq!(chosen(&[0.9, 0.9, 0.1, 0.9, 0.9, 0.9], &config), None);
        assert_eq!(
            chosen(
                &[0.5],
                &ReidentifyConfig {
                    false_merge: 0.1,
                    ..config
                }
            ),
            Some(0)
        );
        assert_eq!(chosen(&[], &ReidentifyConfig::default()), None);
    }

    #[test]
    fn a_second_look_alike_leaves_it_open() {
        let config = ReidentifyConfig::default();
        assert_eq!(chosen(&[0.34, 0.31], &config), None);
        assert_eq!(chosen(&[0.5, 0.31], &config), Some(1));
        assert_eq!(
            chosen(
                &[0.34, 0.31],
                &ReidentifyConfig {
                    margin: 1.0,
                    ..config
                }
            ),
            Some(1)
        );
    }
}
