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
//! [`MultiCameraConfig::delay`] and are then assigned together (Kuhn-Munkres), where a waiting
//! track can follow a person or another waiting track, and each is followed at most once: the
//! linking of Zhang et al. (2008) in a sliding window.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::multi_camera::camera_track::{CameraTrack, Decision, RejectedTrack};
use crate::multi_camera::config::MultiCameraConfig;
use crate::multi_camera::person::{Person, PersonEmbedding, Sighting};
use crate::multi_camera::score::{MAX_APPEARANCE, Scores};
use crate::multi_camera::topology::{MAX_CAMERAS, Topology};
use crate::multi_camera::waiting::{Follow, Previous, Round, Waiting};
use crate::time::Seconds;
use crate::track::assignment::{Assignment, Candidate};
use crate::track::similarity::Calibration;

mod remembered;

/// Candidates with a score below this are ignored: their probability is below one in 3000.
const LEAST_SCORE: f32 = -8.0;
/// Number of people to which the candidates of a waiting track are reduced, those with the best
/// scores.
const MAX_CANDIDATES: usize = 48;
/// Maximum number of waiting tracks. Beyond it, the quarter of them that ended first is decided
/// early.
const MAX_WAITING: usize = 256;
/// Tracks are decided together once the first of them has been due for this share of the delay, so
/// that not every new track causes an assignment of all waiting tracks.
const DECIDE_EVERY: f64 = 0.1;
/// People are forgotten at intervals of this share of [`MultiCameraConfig::remember`]. If there are
/// too many, the number is reduced by this share below [`MultiCameraConfig::people`].
const FORGET_SHARE: f64 = 0.02;
/// Tolerance of an embedding's squared length.
const UNIT_TOLERANCE: f32 = 1e-2;

/// What is remembered, and what is learned. It can be serialised, and continues when it is read
/// back.
#[derive(Debug, Serialize, Deserialize)]
pub struct Matcher {
    config: MultiCameraConfig,
    /// Hash and calibration of each embedder.
    embedders: Vec<(Arc<str>, Calibration)>,
    topology: Topology,
    people: BTreeMap<u64, Person>,
    waiting: Vec<Waiting>,
    next: u64,
    /// The latest of all ends of tracks and all times given to [`Matcher::advance`].
    now: Seconds,
    /// When people were last forgotten.
    forgotten: Seconds,
    #[serde(skip)]
    assignment: Assignment,
}

impl Matcher {
    /// Creates a matcher that knows nobody. `embedders`: hash and calibration of each embedder
    /// whose tracks are compared; embeddings of different embedders are not compared with each
    /// other.
    pub fn new(config: MultiCameraConfig, embedders: Vec<(Arc<str>, Calibration)>) -> Self {
        Matcher {
            config,
            embedders,
            topology: Topology::default(),
            people: BTreeMap::new(),
            waiting: Vec::new(),
            next: 1,
            now: Seconds(f64::MIN),
            forgotten: Seconds(f64::MIN),
            assignment: Assignment::default(),
        }
    }

    /// Uses what another matcher has learned about the cameras.
    #[must_use]
    pub fn with_topology(mut self, topology: Topology) -> Self {
        self.topology = topology;
        self
    }

    /// Continues with other settings, for example those of a new start. Known embedders get the new
    /// calibration, others are added.
    #[must_use]
    pub fn with_settings(
        mut self,
        config: MultiCameraConfig,
        embedders: Vec<(Arc<str>, Calibration)>,
    ) -> Self {
        self.config = config;
        for (hash, calibration) in embedders {
            match self.embedders.iter_mut().find(|e| e.0 == hash) {
                Some(known) => known.1 = calibration,
                None => self.embedders.push((hash, calibration)),
            }
        }
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
        let (sighting, embedding) = self.check(&track)?;
        self.topology
            .pass(sighting.camera, sighting.last, self.config.half_life);
        let mut waiting = Waiting {
            key: track.key,
            sighting,
            embedding,
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
        let mut ends: Vec<f64> = self.waiting.iter().map(|w| w.sighting.last.0).collect();
        ends.sort_by(f64::total_cmp);
        if ends.len() > MAX_WAITING {
            until = until.max(ends[MAX_WAITING / 4]);
        } else if ends
            .first()
            .is_none_or(|end| *end > until - DECIDE_EVERY * self.config.delay)
        {
            return Vec::new();
        }
        let decisions = self.decide(until);
        self.forget();
        decisions
    }

    /// Decides all tracks that wait, for example at the end of a recording.
    pub fn finish(&mut self) -> Vec<Decision> {
        self.decide(f64::INFINITY)
    }

    fn check(&mut self, track: &CameraTrack) -> Result<(Sighting, PersonEmbedding), RejectedTrack> {
        let embedder = self
            .embedders
            .iter()
            .position(|(hash, _)| *hash == track.embedder)
            .ok_or_else(|| RejectedTrack::Uncalibrated(track.embedder.clone()))?;
        let squares: f32 = track.embedding.iter().map(|v| v * v).sum();
        let unit = (squares - 1.0).abs() <= UNIT_TOLERANCE;
        if !unit {
            return Err(RejectedTrack::Embedding(track.key));
        }
        let in_order = track.first.0.is_finite() && track.last.0.is_finite();
        if !in_order || track.last.0 < track.first.0 {
            return Err(RejectedTrack::Times(track.key));
        }
        if self.waiting.iter().any(|w| w.key == track.key) {
            return Err(RejectedTrack::Repeated(track.key));
        }
        let camera = self.topology.camera(&track.camera);
        let sighting = Sighting {
            camera: camera.ok_or(RejectedTrack::Cameras(MAX_CAMERAS))?,
            first: track.first,
            last: track.last,
        };
        let embedding = PersonEmbedding {
            embedder: embedder as u16,
            vector: track.embedding.clone().into(),
        };
        Ok((sighting, embedding))
    }

    fn scores(&self) -> Scores<'_> {
        Scores {
            config: &self.config,
            embedders: &self.embedders,
            topology: &self.topology,
        }
    }

    fn compare_with_people(&mut self, waiting: &mut Waiting) {
        let mut found: Vec<(u64, f32)> = Vec::new();
        let mut together = Vec::new();
        for (id, person) in &self.people {
            match self.scores().time(&person.sightings, &waiting.sighting) {
                Some((time, _)) if time + MAX_APPEARANCE > LEAST_SCORE => {
                    if let Some(appearance) =
                        self.scores().appearance_of(person, &waiting.embedding)
                        && time + appearance > LEAST_SCORE
                    {
                        found.push((*id, appearance));
                    }
                }
                Some(_) => {}
                None => together.extend(self.together(&person.sightings, waiting, |w| {
                    self.scores().appearance_of(person, &w.embedding)
                })),
            }
        }
        waiting.people = found;
        self.keep_best(waiting);
        for (a, b, ratio) in together {
            self.topology.compare(a, b, ratio);
        }
    }

    /// Keeps the candidates with the best scores.
    fn keep_best(&self, waiting: &mut Waiting) {
        let scores = self.scores();
        let score = |(id, appearance): (u64, f32)| {
            let time = scores
                .time(&self.people.get(&id)?.sightings, &waiting.sighting)?
                .0;
            Some((time + appearance, (id, appearance)))
        };
        let mut scored: Vec<_> = waiting.people.iter().copied().filter_map(score).collect();
        scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.0.cmp(&b.1.0)));
        scored.truncate(MAX_CANDIDATES);
        waiting.people = scored.into_iter().map(|(_, candidate)| candidate).collect();
    }

    /// The latest sighting at the same time as a waiting track: the sighting's camera, the track's
    /// camera, and the logarithm of appearance's likelihood ratio. `None` if there is none.
    fn together(
        &self,
        sightings: &[Sighting],
        waiting: &Waiting,
        appearance: impl FnOnce(&Waiting) -> Option<f32>,
    ) -> Option<(u32, u32, f32)> {
        let sighting = &waiting.sighting;
        let at = sightings
            .iter()
            .rev()
            .find(|s| s.overlap(sighting).0 > self.config.clocks)?;
        Some((at.camera, sighting.camera, appearance(waiting)?))
    }

    fn compare_with_waiting(&mut self, waiting: &mut Waiting) {
        let mut together = Vec::new();
        let mut pairs = Vec::new();
        for (at, other) in self.waiting.iter().enumerate() {
            let Some(appearance) = self
                .scores()
                .appearance(&other.embedding, &waiting.embedding)
            else {
                continue;
            };
            if self.scores().excludes(&other.sighting, &waiting.sighting) {
                together.extend(self.together(&[other.sighting], waiting, |_| Some(appearance)));
            } else {
                pairs.push((at, appearance));
            }
        }
        for (at, appearance) in pairs {
            let other = &mut self.waiting[at];
            let earlier =
                (other.sighting.first.0, other.key) < (waiting.sighting.first.0, waiting.key);
            if earlier {
                waiting.tracks.push((other.key, appearance));
            } else {
                other.tracks.push((waiting.key, appearance));
            }
        }
        for (a, b, ratio) in together {
            self.topology.compare(a, b, ratio);
        }
    }

    /// The ways for a waiting track to follow a person or another waiting track.
    fn follows(&self, waiting: &Waiting, rows: &BTreeMap<u64, usize>) -> Vec<Follow> {
        let mut found = Vec::new();
        for &(id, appearance) in &waiting.people {
            let sightings = self.people.get(&id).map(|p| p.sightings.as_slice());
            let time = sightings.and_then(|s| self.scores().time(s, &waiting.sighting));
            found.extend(time.map(|(time, link)| Follow {
                previous: Previous::Person(id),
                score: time + appearance,
                link,
            }));
        }
        for &(key, appearance) in &waiting.tracks {
            let other = rows.get(&key).map(|row| &self.waiting[*row]);
            let time = other.and_then(|o| self.scores().time(&[o.sighting], &waiting.sighting));
            found.extend(time.map(|(time, link)| Follow {
                previous: Previous::Track(key),
                score: time + appearance,
                link,
            }));
        }
        found.retain(|f| f.score > LEAST_SCORE);
        found
    }

    /// Assigns all waiting tracks, and decides those that ended at `until` or before, with the
    /// tracks that these follow.
    fn decide(&mut self, until: f64) -> Vec<Decision> {
        let is_due = |w: &Waiting| w.sighting.last.0 <= until;
        if !self.waiting.iter().any(is_due) {
            return Vec::new();
        }
        let keys = self.waiting.iter().enumerate();
        let rows: BTreeMap<u64, usize> = keys.map(|(row, w)| (w.key, row)).collect();
        let follows: Vec<Vec<Follow>> = self
            .waiting
            .iter()
            .map(|w| self.follows(w, &rows))
            .collect();
        let chosen = self.assign(&follows);
        let mut round = Round {
            rows,
            follows,
            chosen,
            person_of: BTreeMap::new(),
            decisions: Vec::new(),
        };
        let mut due: Vec<usize> = (0..self.waiting.len())
            .filter(|&r| is_due(&self.waiting[r]))
            .collect();
        due.sort_by(|&a, &b| {
            let first = |r: usize| self.waiting[r].sighting.first.0;
            first(a).total_cmp(&first(b)).then(a.cmp(&b))
        });
        for row in due {
            self.decide_row(row, &mut round);
        }
        self.leave_waiting(&round.person_of);
        round.decisions
    }

    /// For each row, the index in its list of what it follows; `None`: nothing.
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
            let sightings = self
                .people
                .get(id)
                .map_or(&[][..], |p| p.sightings.as_slice());
            let sighting = &self.waiting[row].sighting;
            *probability >= self.config.probability
                && !sightings
                    .iter()
                    .any(|s| self.scores().excludes(s, sighting))
        });
        let new = 1.0 / (1.0 + odds);
        for f in follows {
            let (from, to, time) = f.link;
            self.topology
                .learn(from, to, time, f.score.exp() / (1.0 + odds));
        }
        let (person, probability) = joined.unwrap_or_else(|| {
            self.next += 1;
            (self.next - 1, new)
        });
        let waiting = &self.waiting[row];
        self.topology.count(waiting.sighting.camera, new);
        self.people.entry(person).or_default().learn(
            waiting.sighting,
            waiting.embedding.clone(),
            self.config.views,
        );
        round.person_of.insert(key, person);
        round.decisions.push(Decision {
            key,
            person,
            probability,
        });
    }

    /// Removes the decided tracks, and compares the tracks that still wait with the people of the
    /// decided ones.
    fn leave_waiting(&mut self, person_of: &BTreeMap<u64, u64>) {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.retain(|w| !person_of.contains_key(&w.key));
        let mut changed: Vec<u64> = person_of.values().copied().collect();
        changed.sort_unstable();
        changed.dedup();
        for w in &mut waiting {
            w.tracks.retain(|(key, _)| !person_of.contains_key(key));
            w.people
                .retain(|(id, _)| changed.binary_search(id).is_err());
            for id in &changed {
                let person = &self.people[id];
                let time = self.scores().time(&person.sightings, &w.sighting);
                let appearance =
                    time.and_then(|_| self.scores().appearance_of(person, &w.embedding));
                if let (Some((time, _)), Some(appearance)) = (time, appearance)
                    && time + appearance > LEAST_SCORE
                {
                    w.people.push((*id, appearance));
                }
            }
            if w.people.len() > 2 * MAX_CANDIDATES {
                self.keep_best(w);
            }
        }
        self.waiting = waiting;
    }

    /// Forgets people who were not seen for [`MultiCameraConfig::remember`] and, if there are too
    /// many, those who were not seen for longest.
    fn forget(&mut self) {
        let most = self.config.people;
        let interval = FORGET_SHARE * self.config.remember;
        if self.people.len() <= most && (self.now - self.forgotten).0 < interval {
            return;
        }
        self.forgotten = self.now;
        let oldest = self.now.0 - self.config.remember;
        self.people.retain(|_, p| p.last().0 >= oldest);
        if self.people.len() > most {
            let mut ages: Vec<(f64, u64)> = self
                .people
                .iter()
                .map(|(id, p)| (p.last().0, *id))
                .collect();
            ages.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            // Some more than necessary, so that not every track sorts all people.
            let kept = most - (FORGET_SHARE * most as f64) as usize;
            for (_, id) in &ages[..ages.len() - kept] {
                self.people.remove(id);
            }
        }
    }
}
