//! Re-identification: a new track takes over the id of a lost track if their appearances match
//! unambiguously and the person could have walked from the lost track's last box to the new track.
//! The distance limit is derived from the embedder's false-accept rates ([`StrangerTable`]);
//! without them nobody is re-identified.

use derive_setters::Setters;
use serde::{Deserialize, Serialize};

use crate::geometry::BBox;
use crate::range::{OutOfRange, within};
use crate::time::Seconds;
use crate::track::similarity::{FalseAcceptRate, StrangerTable};
use crate::track::track::{Track, TrackState};

/// Re-identification of lost people by appearance. Needs an embedder whose file or settings give
/// the false-accept rates (`twintrack-train calibrate`); without them nobody is re-identified.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Setters)]
#[cfg_attr(feature = "serve", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct ReidentifyConfig {
    /// A person lost for at most this many seconds can get the old id back; 0 disables
    /// re-identification. Higher re-identifies people after longer absences, delays the
    /// `track_ended` event of tracks by as long, and confuses more people of similar appearance.
    pub within: f64,
    /// Accepted share, above 0 and at most 0.5, of new people who are taken for a lost one. The
    /// share is divided among all candidates. Higher re-identifies more, with more mistakes.
    pub false_merge: f32,
    /// Minimum ratio, at least 1, of two false-accept rates: at the distance of the second nearest
    /// candidate, and at that of the nearest. If the ratio is lower, the case is ambiguous and
    /// nobody is re-identified.
    pub margin: f32,
    /// Maximum walking speed, in heights of the person per second: candidates who would have had to
    /// walk faster are excluded.
    pub speed: f32,
    /// Number of detections, 1 to 100, that a new track needs before it is compared. Until then a
    /// track that may be a lost person is not reported.
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
    /// Checks that every value is in its range.
    ///
    /// # Errors
    /// The first value outside its range.
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

/// The median distance of pairs of views is at most a limit if at least half of the pairs are. For
/// strangers this happens at most twice as often as for a single pair (Markov's inequality).
const MEDIAN_FACTOR: f32 = 2.0;
/// A new track is not yet reported if its distance to a lost person has a false-accept rate of at
/// most this, because it may be that person.
const CANDIDATE_RATE: f32 = 0.2;

/// Index in `distances` of the candidate who matches; `None` if nobody matches or the match is
/// ambiguous. `distances` holds the new track's distance to each candidate.
pub fn unambiguous_match(
    distances: &[f32],
    strangers: &StrangerTable,
    config: &ReidentifyConfig,
) -> Option<usize> {
    let limit = strangers.limit(config.false_merge / (MEDIAN_FACTOR * distances.len() as f32))?;
    let best = (0..distances.len()).min_by(|&a, &b| distances[a].total_cmp(&distances[b]))?;
    let others = || {
        (0..distances.len())
            .filter(|&i| i != best)
            .map(|i| distances[i])
    };
    let second = others().fold(f32::INFINITY, f32::min);
    let unambiguous = second.is_infinite()
        || upper_bound(strangers.rate(second))
            >= config.margin * upper_bound(strangers.rate(distances[best]));
    (distances[best] <= limit && unambiguous).then_some(best)
}

/// The rate, or the smallest measured rate if the rate is below it.
fn upper_bound(rate: FalseAcceptRate) -> f32 {
    let (FalseAcceptRate::About(r) | FalseAcceptRate::Below(r)) = rate;
    r
}

/// Result of comparing a new track with lost people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReidentifyResult {
    /// No lost person matches, or the match is ambiguous.
    NewPerson,
    /// The lost person with this index in the list.
    LostPerson(usize),
    /// Possibly a lost person; more detections are needed.
    Undecided,
}

/// Compares a new track with the lost people in `tracks`.
pub fn compare_with_lost(
    newcomer: &Track,
    tracks: &[Track],
    strangers: &StrangerTable,
    config: &ReidentifyConfig,
) -> ReidentifyResult {
    let might_be = |lost: &Track| {
        // A lost person who was detected after the new track appeared is another person, and is
        // excluded.
        let away = lost.state == TrackState::Lost && !lost.is_merged() && lost.seen < newcomer.born;
        away && reachable(
            (&lost.last.bbox, lost.seen),
            (&newcomer.first, newcomer.born),
            config.speed,
        )
    };
    let candidates = tracks.iter().enumerate().filter(|(_, lost)| might_be(lost));
    let (indices, distances): (Vec<usize>, Vec<f32>) = candidates
        .filter_map(|(i, lost)| Some((i, lost.views.distance(&newcomer.views)?)))
        .unzip();
    if newcomer.hits < config.after_hits {
        let near = distances
            .iter()
            .any(|&d| upper_bound(strangers.rate(d)) <= CANDIDATE_RATE);
        return if near {
            ReidentifyResult::Undecided
        } else {
            ReidentifyResult::NewPerson
        };
    }
    unambiguous_match(&distances, strangers, config).map_or(ReidentifyResult::NewPerson, |i| {
        ReidentifyResult::LostPerson(indices[i])
    })
}

/// Whether a person can walk from one position and time to the other at `speed` heights per second.
/// Half a height is added to the distance that the person can walk.
pub fn reachable(from: (&BBox, Seconds), to: (&BBox, Seconds), speed: f32) -> bool {
    let ((ax, ay), (bx, by)) = (from.0.foot(), to.0.foot());
    let height = from.0.height.max(to.0.height);
    (bx - ax).hypot(by - ay) <= height * (0.5 + speed * (to.1 - from.1).f32())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(distances: &[f32], config: &ReidentifyConfig) -> Option<usize> {
        let strangers: StrangerTable = "0.5@0.8,0.1@0.6,0.01@0.4,0.001@0.3"
            .parse()
            .expect("a table");
        unambiguous_match(distances, &strangers, config)
    }

    #[test]
    fn the_limit_depends_on_the_merge_rate_and_the_number_of_candidates() {
        let config = ReidentifyConfig::default();
        // With one candidate the rate is half of 1 %, which is at a distance of 0.37; with six it
        // is below the smallest measured rate.
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
    fn a_second_near_candidate_makes_it_ambiguous() {
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
