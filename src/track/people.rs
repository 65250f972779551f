//! Who a track is beyond the track: a person known from one picture (one-shot identification, Koch et al. 2015), or
//! whoever comes back after the track has ended, who gets a new track id but the name it had.
//!
//! The registry belongs to no camera; one may serve several. A person has one track at a time.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::range::{OutOfRange, share, within};
use crate::time::Seconds;
use crate::track::appearance::{cosine_distance, mean_direction};
use crate::track::assignment::{Assignment, Candidate};
use crate::track::similarity::Calibration;

/// Identities beyond the life of a track. Needs an embedder that is calibrated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IdentityConfig {
    /// A person is remembered for this long after the last sight, seconds; 0 remembers nobody.
    pub remember: f64,
    /// Similarity of looks from which it is the same person, in [0, 1]; at 0.5 false accepts and false rejects are equally
    /// many. Lower knows more people again, and mistakes more.
    pub similarity: f32,
    /// Detections a track needs before it is named: its look must have settled.
    pub after_hits: u32,
    /// So many of a track's clearest crops, averaged, are compared with the gallery.
    pub crops: usize,
}

impl Default for IdentityConfig {
    fn default() -> Self {
        IdentityConfig { remember: 0.0, similarity: 0.7, after_hits: 5, crops: 5 }
    }
}

impl IdentityConfig {
    /// Refuses values outside their ranges.
    ///
    /// # Errors
    /// The first such value.
    pub fn validate(&self) -> Result<(), OutOfRange> {
        within("identity.remember", self.remember, 0.0, 1e7)?;
        share("identity.similarity", self.similarity)?;
        within("identity.after_hits", self.after_hits, 1, 100_000)?;
        within("identity.crops", self.crops, 1, 100)
    }
}

/// Who a track is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// The person's name.
    pub name: String,
    /// How alike, calibrated, in [0, 1]; 1 for somebody new.
    pub similarity: f64,
}

/// A person of the gallery.
#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    /// The name.
    pub name: String,
    /// The look: a unit embedding.
    pub look: Vec<f32>,
}

/// A track seen in a frame, as far as it matters to who it is.
#[derive(Debug, Clone, Copy)]
pub struct Sighting<'a> {
    /// The track's id.
    pub track: u64,
    /// How many detections it has had.
    pub hits: u32,
    /// Its averaged embedding; empty when unknown.
    pub look: &'a [f32],
    /// The embedding of this frame's crop and how clear the crop is, in [0, 1]; none when it is not clear.
    pub view: Option<(&'a [f32], f32)>,
}

#[derive(Debug)]
struct Person {
    look: Vec<f32>,
    seen: Seconds,
    /// The track that is this person now.
    track: Option<u64>,
}

/// Everybody known.
#[derive(Debug)]
pub struct People {
    config: IdentityConfig,
    calibration: Calibration,
    gallery: Vec<Known>,
    /// The clearest crops of each track: how clear, and the embedding.
    portraits: BTreeMap<u64, Vec<(f32, Vec<f32>)>>,
    people: BTreeMap<u64, Person>,
    /// The person a track is, and how sure that is.
    named: BTreeMap<u64, (u64, f64)>,
    next: u64,
    assignment: Assignment,
}

impl People {
    /// Knows the gallery, and will remember others for as long as the configuration says.
    pub fn new(config: IdentityConfig, calibration: Calibration, gallery: Vec<Known>) -> Self {
        let (portraits, people, named) = Default::default();
        People { config, calibration, gallery, portraits, people, named, next: 1, assignment: Assignment::default() }
    }

    /// Who the tracks of a frame are, in their order; `None` while that is not known. `now` is any clock that goes on.
    pub fn identify(&mut self, sightings: &[Sighting<'_>], now: Seconds) -> Vec<Option<Identity>> {
        let mut identities = self.recognise(sightings);
        if self.config.remember > 0.0 {
            for (s, identity) in sightings.iter().zip(&mut identities).filter(|(s, i)| i.is_none() && !s.look.is_empty()) {
                *identity = self.recall(s, now);
            }
        }
        identities
    }

    /// The tracks have their person of the gallery where they look alike enough, each person at most one of them.
    fn recognise(&mut self, sightings: &[Sighting<'_>]) -> Vec<Option<Identity>> {
        let mut identities = vec![None; sightings.len()];
        if self.gallery.is_empty() {
            return identities;
        }
        let mut candidates = Vec::new();
        for (row, s) in sightings.iter().enumerate() {
            let portrait = self.portraits.entry(s.track).or_default();
            if let Some((view, clear)) = s.view {
                let place = portrait.partition_point(|(other, _)| *other >= clear);
                portrait.insert(place, (clear, view.to_vec()));
                portrait.truncate(self.config.crops);
            }
            if s.hits < self.config.after_hits {
                continue;
            }
            let look = mean_direction(portrait.iter().map(|(_, view)| (view.as_slice(), 1.0)));
            for (column, known) in self.gallery.iter().enumerate() {
                let Some(distance) = cosine_distance(&known.look, &look) else { continue };
                let similarity = self.calibration.similarity(distance);
                if similarity >= self.config.similarity {
                    candidates.push(Candidate { row, column, cost: 1.0 - similarity });
                }
            }
        }
        // An unmade pair costs more than any candidate, so that as many as can are named.
        for (row, column) in self.assignment.solve(sightings.len(), self.gallery.len(), &candidates, 1.01) {
            let cost = candidates.iter().find(|c| (c.row, c.column) == (row, column)).map_or(1.0, |c| c.cost);
            identities[row] = Some(Identity { name: self.gallery[column].name.clone(), similarity: f64::from(1.0 - cost) });
        }
        identities
    }

    /// The person a track is among those seen before; somebody new when it is none of them.
    fn recall(&mut self, s: &Sighting<'_>, now: Seconds) -> Option<Identity> {
        if !self.named.contains_key(&s.track) && s.hits >= self.config.after_hits {
            self.forget(now);
            let found = self.nearest(s.look);
            let (person, similarity) = found.unwrap_or_else(|| {
                self.next += 1;
                (self.next - 1, 1.0)
            });
            self.named.insert(s.track, (person, similarity));
        }
        let &(person, similarity) = self.named.get(&s.track)?;
        let known = self.people.entry(person).or_insert_with(|| Person { look: Vec::new(), seen: now, track: None });
        known.look.clear();
        known.look.extend_from_slice(s.look);
        (known.seen, known.track) = (now, Some(s.track));
        Some(Identity { name: format!("person-{person}"), similarity })
    }

    /// The track has ended: its person is free to come back.
    pub fn ended(&mut self, track: u64) {
        self.portraits.remove(&track);
        if let Some(p) = self.named.remove(&track).and_then(|(person, _)| self.people.get_mut(&person)) {
            p.track = None;
        }
    }

    /// The person nearest in looks who is not there at the moment.
    fn nearest(&self, look: &[f32]) -> Option<(u64, f64)> {
        let free = self.people.iter().filter(|(_, p)| p.track.is_none());
        let away = free.filter_map(|(&id, p)| Some((cosine_distance(&p.look, look)?, id)));
        let (distance, id) = away.min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)))?;
        let similarity = self.calibration.similarity(distance);
        (similarity >= self.config.similarity).then(|| (id, f64::from(similarity)))
    }

    fn forget(&mut self, now: Seconds) {
        let remember = self.config.remember;
        self.people.retain(|_, p| p.track.is_some() || (now - p.seen).0 <= remember);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RED: [f32; 2] = [1.0, 0.0];
    const BLUE: [f32; 2] = [0.0, 1.0];
    const CALIBRATION: Calibration = Calibration { slope: 20.0, threshold: 0.3 };

    fn people() -> People {
        People::new(IdentityConfig { remember: 60.0, ..IdentityConfig::default() }, CALIBRATION, Vec::new())
    }

    fn sight(track: u64, look: &[f32]) -> Sighting<'_> {
        Sighting { track, hits: 10, look, view: Some((look, 0.9)) }
    }

    fn name(p: &mut People, track: u64, look: &[f32], at: f64) -> Option<String> {
        p.identify(&[sight(track, look)], Seconds(at)).remove(0).map(|i| i.name)
    }

    #[test]
    fn who_comes_back_keeps_the_name_under_a_new_track_id() {
        let mut p = people();
        assert_eq!(name(&mut p, 1, &RED, 0.0).as_deref(), Some("person-1"));
        assert_eq!(name(&mut p, 2, &BLUE, 0.0).as_deref(), Some("person-2"));
        p.ended(1);
        assert_eq!(name(&mut p, 3, &RED, 20.0).as_deref(), Some("person-1"));
    }

    #[test]
    fn nobody_is_at_two_places() {
        let mut p = people();
        assert_eq!(name(&mut p, 1, &RED, 0.0).as_deref(), Some("person-1"));
        assert_eq!(name(&mut p, 2, &RED, 0.0).as_deref(), Some("person-2"));
    }

    #[test]
    fn the_forgotten_are_new_and_the_unsettled_have_no_name() {
        let mut p = people();
        assert_eq!(p.identify(&[Sighting { hits: 2, ..sight(1, &RED) }], Seconds(0.0)), [None]);
        name(&mut p, 1, &RED, 0.0);
        p.ended(1);
        assert_eq!(name(&mut p, 2, &RED, 100.0).as_deref(), Some("person-2"));
    }

    fn gallery() -> People {
        let known = [("ada", RED), ("ben", BLUE)].map(|(name, look)| Known { name: name.into(), look: look.into() });
        People::new(IdentityConfig { crops: 2, ..IdentityConfig::default() }, CALIBRATION, known.into())
    }

    fn unit(degrees: f32) -> [f32; 2] {
        [degrees.to_radians().cos(), degrees.to_radians().sin()]
    }

    #[test]
    fn a_person_of_the_gallery_is_the_most_alike_track_and_no_second() {
        let mut p = gallery();
        let (near, nearer, stranger) = (unit(20.0), unit(5.0), unit(45.0));
        let who = p.identify(&[sight(1, &near), sight(2, &nearer), sight(3, &BLUE), sight(4, &stranger)], Seconds(0.0));
        let names: Vec<Option<&str>> = who.iter().map(|i| i.as_ref().map(|i| i.name.as_str())).collect();
        assert_eq!(names, [None, Some("ada"), Some("ben"), None]);
        let similarity = f64::from(CALIBRATION.similarity(1.0 - 5f32.to_radians().cos()));
        assert!((who[1].as_ref().expect("ada").similarity - similarity).abs() < 1e-3);
    }

    #[test]
    fn the_clearest_crops_say_who_it_is() {
        let mut p = gallery();
        let mut see = |look: &[f32], clear: f32| p.identify(&[Sighting { view: Some((look, clear)), ..sight(1, look) }], Seconds(0.0)).remove(0);
        assert_eq!(see(&RED, 0.9).expect("ada").name, "ada");
        assert_eq!(see(&RED, 0.8).expect("ada").name, "ada");
        // Blurred views of another colour do not displace the clear ones; clearer ones do.
        assert_eq!(see(&BLUE, 0.5).expect("still ada").name, "ada");
        see(&BLUE, 0.95);
        assert_eq!(see(&BLUE, 0.95).expect("ben").name, "ben");
    }

    #[test]
    fn without_a_clear_crop_the_gallery_is_not_asked() {
        let mut p = gallery();
        assert_eq!(p.identify(&[Sighting { view: None, ..sight(1, &RED) }], Seconds(0.0)), [None]);
    }
}
