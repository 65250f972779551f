//! Gives each ended track the number of a person.
//!
//! A track is of the person who left another camera some time before, or of somebody new. The score
//! of "track t follows person p" is the natural logarithm of the ratio of two likelihoods:
//!
//! ```text
//! score = log [same(distance) / different(distance)]          appearance, by the calibration
//!       + log [density(next seen at t's camera after this time | last camera of p)]     topology
//!       - log [rate of new people at t's camera]
//! ```
//!
//! Both densities are per second, so that their ratio has no unit. Tracks wait for
//! [`MultiCameraConfig::delay`] and are then assigned together (Kuhn-Munkres), where a waiting track
//! can follow a person or another waiting track, and each is followed at most once: the linking of
//! Zhang et al. (2008) in a sliding window.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::multi_camera::camera_track::{CameraTrack, Decision, RejectedTrack};
use crate::multi_camera::config::MultiCameraConfig;
use crate::multi_camera::person::{Look, Person, Stay};
use crate::multi_camera::topology::{MAX_CAMERAS, Topology};
use crate::time::Seconds;
use crate::track::assignment::{Assignment, Candidate};
use crate::track::similarity::Calibration;

/// Largest magnitude of the logarithm of appearance's likelihood ratio: beyond it a calibration is an
/// extrapolation.
const MAX_APPEARANCE: f32 = 8.0;
/// Candidates with a score below this are ignored: their probability is below one in 3000.
const LEAST_SCORE: f32 = -8.0;
/// People who are kept as candidates of a waiting track, the best.
const MAX_CANDIDATES: usize = 48;
/// Tracks that wait at most; the one that ended first is then decided early.
const MAX_WAITING: usize = 512;
/// Seconds by which tracks of one camera may overlap in time and still be of one person.
const SAME_CAMERA_OVERLAP: f64 = 0.2;
/// Tolerance of an embedding's squared length.
const UNIT_TOLERANCE: f32 = 1e-2;

/// A track that waits for its decision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Waiting {
    key: u64,
    stay: Stay,
    look: Look,
    /// People who may be the track's, and the logarithm of appearance's likelihood ratio.
    people: Vec<(u64, f32)>,
    /// The same for other waiting tracks, by key.
    tracks: Vec<(u64, f32)>,
}

/// What a waiting track follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Previous {
    Person(u64),
    Track(u64),
}

/// A way for a track to follow something: its score, and the link of the topology that it uses.
#[derive(Debug, Clone, Copy)]
struct Follow {
    previous: Previous,
    score: f32,
    link: (u32, u32, Seconds),
}

/// What is remembered, and what is learned. It can be serialised, and continues when it is read back.
#[derive(Debug, Serialize, Deserialize)]
pub struct Matcher {
    config: MultiCameraConfig,
    /// Hash and calibration of each embedder.
    embedders: Vec<(Arc<str>, Calibration)>,
    topology: Topology,
    people: BTreeMap<u64, Person>,
    waiting: Vec<Waiting>,
    next: u64,
    /// The latest end of a track, or the latest time given.
    now: Seconds,
    #[serde(skip)]
    assignment: Assignment,
}

impl Matcher {
    /// Creates a matcher that knows nobody. `embedders`: hash and calibration of each embedder whose
    /// tracks are compared; embeddings of different embedders are not.
    pub fn new(config: MultiCameraConfig, embedders: Vec<(Arc<str>, Calibration)>) -> Self {
        Matcher {
            config,
            embedders,
            topology: Topology::default(),
            people: BTreeMap::new(),
            waiting: Vec::new(),
            next: 1,
            now: Seconds(f64::NEG_INFINITY),
            assignment: Assignment::default(),
        }
    }

    /// Uses what another matcher has learned about the cameras.
    #[must_use]
    pub fn with_topology(mut self, topology: Topology) -> Self {
        self.topology = topology;
        self
    }

    /// What was learned about the cameras.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Number of people remembered.
    pub fn people(&self) -> usize {
        self.people.len()
    }

    /// Number of tracks that wait for their decision.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Takes an ended track, and returns the decisions that are due. Tracks come in the order in
    /// which they end; one may come late by [`MultiCameraConfig::delay`].
    ///
    /// # Errors
    /// The reason why the track gets no person. The matcher is unchanged.
    pub fn push(&mut self, track: CameraTrack) -> Result<Vec<Decision>, RejectedTrack> {
        let (stay, look) = self.check(&track)?;
        self.topology
            .pass(stay.camera, stay.last, self.config.half_life);
        let mut waiting = Waiting {
            key: track.key,
            stay,
            look,
            people: Vec::new(),
            tracks: Vec::new(),
        };
        self.compare_with_people(&mut waiting);
        self.compare_with_waiting(&mut waiting);
        self.waiting.push(waiting);
        Ok(self.advance(track.last))
    }

    /// Lets time pass until `now`, and returns the decisions that are due.
    pub fn advance(&mut self, now: Seconds) -> Vec<Decision> {
        self.now = Seconds(self.now.0.max(now.0));
        let mut until = self.now.0 - self.config.delay;
        if self.waiting.len() > MAX_WAITING {
            let ends = self.waiting.iter().map(|w| w.stay.last.0);
            until = until.max(ends.fold(f64::INFINITY, f64::min));
        }
        let decisions = self.decide(until);
        self.forget();
        decisions
    }

    /// Decides all tracks that wait, for example at the end of a recording.
    pub fn finish(&mut self) -> Vec<Decision> {
        self.decide(f64::INFINITY)
    }

    fn check(&mut self, track: &CameraTrack) -> Result<(Stay, Look), RejectedTrack> {
        let embedder = self
            .embedders
            .iter()
            .position(|(hash, _)| *hash == track.embedder)
            .ok_or_else(|| RejectedTrack::Uncalibrated(track.embedder.clone()))?;
        let squares: f32 = track.embedding.iter().map(|v| v * v).sum();
        // NaN is not within the tolerance.
        if !((squares - 1.0).abs() <= UNIT_TOLERANCE) {
            return Err(RejectedTrack::Embedding(track.key));
        }
        let in_order = track.first.0.is_finite() && track.last.0.is_finite();
        if !in_order || track.last.0 < track.first.0 {
            return Err(RejectedTrack::Times(track.key));
        }
        let camera = self.topology.camera(&track.camera);
        let stay = Stay {
            camera: camera.ok_or(RejectedTrack::Cameras(MAX_CAMERAS))?,
            first: track.first,
            last: track.last,
        };
        let look = Look {
            embedder: embedder as u16,
            embedding: track.embedding.clone().into(),
        };
        Ok((stay, look))
    }

    /// Logarithm of the likelihood ratio of two embeddings' distance; the calibration is fitted with
    /// equal weight of pairs of one person and of two, so the odds of its similarity are this ratio.
    fn appearance(&self, a: &Look, b: &Look) -> Option<f32> {
        let calibration = self.embedders.get(usize::from(a.embedder))?.1;
        let log_odds = calibration.slope * (calibration.threshold - a.distance(b)?);
        Some((self.config.appearance * log_odds).clamp(-MAX_APPEARANCE, MAX_APPEARANCE))
    }

    /// The same for all embeddings of a person: their mean.
    fn appearance_of(&self, person: &Person, look: &Look) -> Option<f32> {
        let ratios = person.looks.iter().filter_map(|l| self.appearance(l, look));
        let (sum, count) = ratios.fold((0.0, 0u32), |(sum, n), r| (sum + r, n + 1));
        (count > 0).then(|| sum / count as f32)
    }

    /// The pairs of stays that one person cannot have: at one camera at the same time, or at two
    /// cameras whose views do not overlap.
    fn excludes(&self, a: &Stay, b: &Stay) -> bool {
        let overlap = a.overlap(b).0;
        if a.camera == b.camera {
            overlap > SAME_CAMERA_OVERLAP
        } else {
            let views = || self.config.topology && self.topology.overlap(a.camera, b.camera);
            overlap > self.config.clocks && !views()
        }
    }

    /// Score of time for a track among stays, and the link; `None` if the stays exclude the track.
    fn time_score(&self, stays: &[Stay], stay: &Stay) -> Option<(f32, (u32, u32, Seconds))> {
        if stays.iter().any(|s| self.excludes(s, stay)) {
            return None;
        }
        let after = stays.partition_point(|s| s.first.0 <= stay.first.0);
        // Before all stays that are kept, the track is followed instead of following.
        let (from, to) = match after.checked_sub(1) {
            Some(before) => (&stays[before], stay),
            None => (stay, stays.first()?),
        };
        let time = to.first - from.last;
        let density = if self.config.topology {
            self.topology.density(from.camera, to.camera, time)
        } else {
            self.topology.unknown_density(time)
        };
        let ratio = density / self.topology.new_people(to.camera);
        Some((ratio.ln() as f32, (from.camera, to.camera, time)))
    }

    fn compare_with_people(&mut self, waiting: &mut Waiting) {
        let mut found: Vec<(f32, u64, f32)> = Vec::new();
        let mut together = Vec::new();
        for (id, person) in &self.people {
            match self.time_score(&person.stays, &waiting.stay) {
                Some((time, _)) if time + MAX_APPEARANCE > LEAST_SCORE => {
                    if let Some(look) = self.appearance_of(person, &waiting.look)
                        && time + look > LEAST_SCORE
                    {
                        found.push((time + look, *id, look));
                    }
                }
                Some(_) => {}
                None => together.extend(self.together(&person.stays, waiting, |w| {
                    self.appearance_of(person, &w.look)
                })),
            }
        }
        found.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        found.truncate(MAX_CANDIDATES);
        waiting.people = found.into_iter().map(|(_, id, look)| (id, look)).collect();
        for (a, b, ratio) in together {
            self.topology.compare(a, b, ratio);
        }
    }

    /// The stay at the same time as a track, with the comparison of their appearances.
    fn together(
        &self,
        stays: &[Stay],
        waiting: &Waiting,
        appearance: impl FnOnce(&Waiting) -> Option<f32>,
    ) -> Option<(u32, u32, f32)> {
        let stay = &waiting.stay;
        let at = stays.iter().rev().find(|s| s.overlap(stay).0 > self.config.clocks)?;
        Some((at.camera, stay.camera, appearance(waiting)?))
    }

    fn compare_with_waiting(&mut self, waiting: &mut Waiting) {
        let mut together = Vec::new();
        let mut pairs = Vec::new();
        for (at, other) in self.waiting.iter().enumerate() {
            let Some(look) = self.appearance(&other.look, &waiting.look) else {
                continue;
            };
            if self.excludes(&other.stay, &waiting.stay) {
                together.extend(self.together(&[other.stay], waiting, |_| Some(look)));
            } else {
                pairs.push((at, look));
            }
        }
        for (at, look) in pairs {
            let other = &mut self.waiting[at];
            let earlier = (other.stay.first.0, other.key) < (waiting.stay.first.0, waiting.key);
            if earlier {
                waiting.tracks.push((other.key, look));
            } else {
                other.tracks.push((waiting.key, look));
            }
        }
        for (a, b, ratio) in together {
            self.topology.compare(a, b, ratio);
        }
    }

    /// The ways for a waiting track to follow a person or another waiting track.
    fn follows(&self, waiting: &Waiting) -> Vec<Follow> {
        let mut found = Vec::new();
        for &(id, look) in &waiting.people {
            let stays = self.people.get(&id).map(|p| p.stays.as_slice());
            let time = stays.and_then(|s| self.time_score(s, &waiting.stay));
            found.extend(time.map(|(time, link)| Follow {
                previous: Previous::Person(id),
                score: time + look,
                link,
            }));
        }
        for &(key, look) in &waiting.tracks {
            let other = self.waiting.iter().find(|w| w.key == key);
            let time = other.and_then(|o| self.time_score(&[o.stay], &waiting.stay));
            found.extend(time.map(|(time, link)| Follow {
                previous: Previous::Track(key),
                score: time + look,
                link,
            }));
        }
        found.retain(|f| f.score > LEAST_SCORE);
        found
    }

    /// Assigns all waiting tracks, and decides those that ended until `until`.
    fn decide(&mut self, until: f64) -> Vec<Decision> {
        let is_due = |w: &Waiting| w.stay.last.0 <= until;
        if !self.waiting.iter().any(is_due) {
            return Vec::new();
        }
        let follows: Vec<Vec<Follow>> = self.waiting.iter().map(|w| self.follows(w)).collect();
        let chosen = self.assign(&follows);
        let mut round = Round {
            rows: self.waiting.iter().enumerate().map(|(r, w)| (w.key, r)).collect(),
            follows,
            chosen,
            person_of: BTreeMap::new(),
            decisions: Vec::new(),
        };
        let mut due: Vec<usize> = (0..self.waiting.len())
            .filter(|&r| is_due(&self.waiting[r]))
            .collect();
        due.sort_by(|&a, &b| {
            let first = |r: usize| self.waiting[r].stay.first.0;
            first(a).total_cmp(&first(b)).then(a.cmp(&b))
        });
        for row in due {
            self.decide_row(row, &mut round);
        }
        self.leave_waiting(&round.person_of);
        round.decisions
    }

    /// The row's choice of what to follow, by index in its list.
    fn assign(&mut self, follows: &[Vec<Follow>]) -> Vec<Option<usize>> {
        let mut columns: BTreeMap<Previous, usize> = BTreeMap::new();
        let mut candidates = Vec::new();
        for (row, of_row) in follows.iter().enumerate() {
            for f in of_row {
                let next = columns.len();
                let column = *columns.entry(f.previous).or_insert(next);
                let cost = -f.score;
                candidates.push(Candidate { row, column, cost });
            }
        }
        let mut chosen = vec![None; follows.len()];
        let pairs = self
            .assignment
            .solve(follows.len(), columns.len(), &candidates, 0.0);
        for (row, column) in pairs {
            chosen[row] = follows[row]
                .iter()
                .position(|f| columns[&f.previous] == column);
        }
        chosen
    }

    /// Decides a track, after the one that it follows.
    fn decide_row(&mut self, row: usize, round: &mut Round) {
        let key = self.waiting[row].key;
        if round.person_of.contains_key(&key) {
            return;
        }
        let chosen = round.chosen[row].map(|i| round.follows[row][i].previous);
        if let Some(Previous::Track(before)) = chosen {
            // A track follows an earlier one only, so this ends.
            self.decide_row(round.rows[&before], round);
        }
        let follows = &round.follows[row];
        let odds: f32 = follows.iter().map(|f| f.score.exp()).sum();
        let person_of = |previous: Previous| match previous {
            Previous::Person(id) => Some(id),
            Previous::Track(key) => round.person_of.get(&key).copied(),
        };
        let joined = chosen.and_then(person_of).map(|id| {
            let of_person = follows.iter().filter(|f| person_of(f.previous) == Some(id));
            let share: f32 = of_person.map(|f| f.score.exp()).sum();
            (id, share / (1.0 + odds))
        });
        let joined = joined.filter(|(id, probability)| {
            let stays = self.people.get(id).map_or(&[][..], |p| p.stays.as_slice());
            let stay = &self.waiting[row].stay;
            *probability >= self.config.probability && !stays.iter().any(|s| self.excludes(s, stay))
        });
        let new = 1.0 / (1.0 + odds);
        for f in follows {
            let (from, to, time) = f.link;
            self.topology.learn(from, to, time, f.score.exp() / (1.0 + odds));
        }
        let (person, probability) = joined.unwrap_or_else(|| {
            self.next += 1;
            (self.next - 1, new)
        });
        let waiting = &self.waiting[row];
        self.topology.count(waiting.stay.camera, new);
        self.people.entry(person).or_default().learn(
            waiting.stay,
            waiting.look.clone(),
            self.config.views,
        );
        round.person_of.insert(key, person);
        round.decisions.push(Decision {
            key,
            person,
            probability,
        });
    }

    /// Removes the tracks that are decided, and compares the others with their people.
    fn leave_waiting(&mut self, person_of: &BTreeMap<u64, u64>) {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.retain(|w| !person_of.contains_key(&w.key));
        let mut changed: Vec<u64> = person_of.values().copied().collect();
        changed.sort_unstable();
        changed.dedup();
        for w in &mut waiting {
            w.tracks.retain(|(key, _)| !person_of.contains_key(key));
            w.people.retain(|(id, _)| changed.binary_search(id).is_err());
            for id in &changed {
                let person = &self.people[id];
                let time = self.time_score(&person.stays, &w.stay);
                let look = time.and_then(|_| self.appearance_of(person, &w.look));
                if let (Some((time, _)), Some(look)) = (time, look)
                    && time + look > LEAST_SCORE
                {
                    w.people.push((*id, look));
                }
            }
        }
        self.waiting = waiting;
    }

    /// Forgets people who were not seen for long, and the most distant ones if there are too many.
    fn forget(&mut self) {
        let oldest = self.now.0 - self.config.remember;
        self.people.retain(|_, p| p.last().0 >= oldest);
        while self.people.len() > self.config.people {
            let last = |p: &Person| p.last().0;
            let oldest = self.people.iter().min_by(|a, b| last(a.1).total_cmp(&last(b.1)));
            let Some(id) = oldest.map(|(id, _)| *id) else {
                return;
            };
            self.people.remove(&id);
        }
    }
}

/// The state of one assignment.
struct Round {
    /// Row of each waiting track, by key.
    rows: BTreeMap<u64, usize>,
    follows: Vec<Vec<Follow>>,
    /// Index in the row's list of what it follows; `None`: somebody new.
    chosen: Vec<Option<usize>>,
    /// The people of the tracks decided.
    person_of: BTreeMap<u64, u64>,
    decisions: Vec<Decision>,
}
