//! Memory of people whose tracks have ended: a person who comes back gets a new track id and the
//! same identity. It applies the rules of [`reidentify`] over minutes and over all cameras.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use derive_setters::Setters;

use crate::geometry::BBox;
use crate::time::Seconds;
use crate::track::reidentify::{self, ReidentifyConfig, reachable};
use crate::track::similarity::StrangerTable;
use crate::track::views::Views;

/// A camera's name and a track id of that camera.
pub type TrackKey = (Arc<str>, u64);

/// Settings of the memory.
#[derive(Debug, Clone, PartialEq, Setters)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct MemoryConfig {
    /// Seconds for which a person is remembered after the last detection.
    pub remember: f64,
    /// Number of detections that a track needs before it is identified.
    pub after_hits: u32,
    /// The cameras' fields of view overlap, so that several cameras can see a person at once.
    pub overlap: bool,
    /// Rules by which a person is recognised.
    pub reidentify: ReidentifyConfig,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        MemoryConfig {
            remember: 60.0,
            after_hits: 5,
            overlap: false,
            reidentify: ReidentifyConfig::default(),
        }
    }
}

/// A track detected in a frame.
#[derive(Debug, Clone, Copy)]
pub struct MemoryObservation<'a> {
    /// Number of the track's detections.
    pub hits: u32,
    /// The track's collected views.
    pub views: &'a Views,
    /// The track's box in pixels of the frame.
    pub bbox: BBox,
}

#[derive(Debug, Default)]
struct RememberedPerson {
    /// Views from before the present track.
    past: Views,
    /// Views from the present track.
    views: Views,
    /// Box and time of the last detection in each camera.
    last_seen: BTreeMap<Arc<str>, (BBox, Seconds)>,
    seen: Seconds,
    /// The tracks that are identified as this person at present.
    tracks: BTreeSet<TrackKey>,
}

/// All remembered people.
#[derive(Debug)]
pub struct PersonMemory {
    config: MemoryConfig,
    /// The embedder's false-accept rates; `None` disables recognition.
    strangers: Option<StrangerTable>,
    people: BTreeMap<u64, RememberedPerson>,
    /// The person of each identified track, and the distance by which it was recognised; `None` for
    /// a new person.
    identified: BTreeMap<TrackKey, (u64, Option<f32>)>,
    /// Box and time of the first detection of each track that is not identified yet.
    appeared: BTreeMap<TrackKey, (BBox, Seconds)>,
    next: u64,
}

impl PersonMemory {
    /// Creates an empty memory.
    pub fn new(config: MemoryConfig, strangers: Option<StrangerTable>) -> Self {
        PersonMemory {
            config,
            strangers,
            people: BTreeMap::new(),
            identified: BTreeMap::new(),
            appeared: BTreeMap::new(),
            next: 1,
        }
    }

    /// Identifies a track: returns its person with the distance by which it was recognised, or a
    /// new person without a distance. Returns `None` while the track has too few detections. `now`
    /// is the time of a clock that all cameras share.
    pub fn identify(
        &mut self,
        key: &TrackKey,
        observation: &MemoryObservation<'_>,
        now: Seconds,
    ) -> Option<(u64, Option<f32>)> {
        if !self.identified.contains_key(key) {
            let appeared = *self
                .appeared
                .entry(key.clone())
                .or_insert((observation.bbox, now));
            if observation.hits < self.config.after_hits {
                return None;
            }
            self.remove_expired(now);
            let found = self
                .nearest(&key.0, observation.views, appeared)
                .map(|(person, distance)| (person, Some(distance)))
                .unwrap_or_else(|| {
                    self.next += 1;
                    (self.next - 1, None)
                });
            self.appeared.remove(key);
            self.identified.insert(key.clone(), found);
            let person = self.people.entry(found.0).or_default();
            let before = std::mem::take(&mut person.views);
            person.past.join(&before);
        }
        let found = *self.identified.get(key)?;
        let person = self.people.entry(found.0).or_default();
        person.views.clone_from(observation.views);
        person.seen = now;
        person
            .last_seen
            .insert(key.0.clone(), (observation.bbox, now));
        person.tracks.insert(key.clone());
        Some(found)
    }

    /// Call this at the end of a track: its person can then be recognised in another track.
    pub fn ended(&mut self, key: &TrackKey) {
        self.appeared.remove(key);
        if let Some(p) = self
            .identified
            .remove(key)
            .and_then(|(person, _)| self.people.get_mut(&person))
        {
            p.tracks.remove(key);
        }
    }

    /// The person whose appearance matches unambiguously, among those who have no other track at
    /// present (with overlapping fields of view: none at this camera) and could have walked to this
    /// track's first box.
    fn nearest(
        &self,
        camera: &Arc<str>,
        views: &Views,
        appeared: (BBox, Seconds),
    ) -> Option<(u64, f32)> {
        let strangers = self.strangers.as_ref()?;
        let is_tracked = |p: &RememberedPerson| {
            p.tracks
                .iter()
                .any(|(other, _)| !self.config.overlap || other == camera)
        };
        // This camera detected the person after the new track had appeared, or too far away from
        // the new track.
        let is_unreachable = |p: &RememberedPerson| {
            let reaches = |(bbox, at): &(BBox, Seconds)| {
                at.0 < appeared.1.0
                    && reachable(
                        (bbox, *at),
                        (&appeared.0, appeared.1),
                        self.config.reidentify.speed,
                    )
            };
            p.last_seen.get(camera).is_some_and(|last| !reaches(last))
        };
        let distance = |p: &RememberedPerson| {
            let mut all = p.views.clone();
            all.join(&p.past);
            all.distance(views)
        };
        let candidates = self
            .people
            .iter()
            .filter(|(_, p)| !is_tracked(p) && !is_unreachable(p));
        let (people, distances): (Vec<u64>, Vec<f32>) = candidates
            .filter_map(|(&id, p)| Some((id, distance(p)?)))
            .unzip();
        reidentify::unambiguous_match(&distances, strangers, &self.config.reidentify)
            .map(|i| (people[i], distances[i]))
    }

    fn remove_expired(&mut self, now: Seconds) {
        let remember = self.config.remember;
        self.people
            .retain(|_, p| !p.tracks.is_empty() || (now - p.seen).0 <= remember);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RED: [f32; 2] = [1.0, 0.0];
    const BLUE: [f32; 2] = [0.0, 1.0];

    fn memory(overlap: bool) -> PersonMemory {
        PersonMemory::new(
            MemoryConfig::default().with_overlap(overlap),
            Some("0.5@0.8,0.01@0.4,0.0001@0.2".parse().expect("a table")),
        )
    }

    fn key(camera: &str, track: u64) -> TrackKey {
        (camera.into(), track)
    }

    fn at(x: f32) -> BBox {
        BBox::from_center(x, 200.0, 40.0, 100.0)
    }

    /// Identifies a track with ten detections.
    fn see(m: &mut PersonMemory, track: (&str, u64), look: &[f32], x: f32, now: f64) -> u64 {
        m.identify(
            &key(track.0, track.1),
            &MemoryObservation {
                hits: 10,
                views: &Views::of(look),
                bbox: at(x),
            },
            Seconds(now),
        )
        .expect("seen often enough")
        .0
    }

    #[test]
    fn a_returning_person_is_recognised_until_forgotten() {
        let mut m = memory(false);
        assert_eq!(
            (
                see(&mut m, ("door", 1), &RED, 0.0, 0.0),
                see(&mut m, ("door", 2), &BLUE, 300.0, 0.0)
            ),
            (1, 2)
        );
        m.ended(&key("door", 1));
        assert_eq!(see(&mut m, ("door", 3), &RED, 0.0, 20.0), 1);
        m.ended(&key("door", 3));
        assert_eq!(see(&mut m, ("door", 4), &RED, 0.0, 100.0), 3);
    }

    #[test]
    fn a_person_cannot_be_at_two_places_even_if_the_other_track_has_ended() {
        let mut m = memory(false);
        assert_eq!(
            (
                see(&mut m, ("door", 1), &RED, 0.0, 0.0),
                see(&mut m, ("door", 2), &BLUE, 300.0, 0.0)
            ),
            (1, 2)
        );
        // A third track appears while the first is detected, and is identified only after the first
        // has ended.
        let third = |m: &mut PersonMemory, hits, now| {
            m.identify(
                &key("door", 3),
                &MemoryObservation {
                    hits,
                    views: &Views::of(&RED),
                    bbox: at(600.0),
                },
                Seconds(now),
            )
        };
        assert_eq!(third(&mut m, 1, 1.0), None);
        see(&mut m, ("door", 1), &RED, 0.0, 1.0);
        m.ended(&key("door", 1));
        assert_eq!(third(&mut m, 5, 4.0).map(|(person, _)| person), Some(3));
    }

    #[test]
    fn a_person_too_far_away_is_not_recognised() {
        let mut m = memory(false);
        assert_eq!(see(&mut m, ("door", 1), &RED, 0.0, 0.0), 1);
        m.ended(&key("door", 1));
        assert_eq!(
            see(&mut m, ("door", 2), &RED, 900.0, 3.0),
            2,
            "a distance of nine heights in three seconds"
        );
        m.ended(&key("door", 2));
        // Two remembered people have similar appearances now, so the match is ambiguous.
        assert_eq!(see(&mut m, ("door", 3), &RED, 500.0, 30.0), 3);
    }

    #[test]
    fn a_person_who_leaves_one_camera_is_recognised_at_the_next() {
        let mut m = memory(false);
        assert_eq!(
            (
                see(&mut m, ("door", 1), &RED, 0.0, 0.0),
                see(&mut m, ("yard", 1), &BLUE, 0.0, 1.0)
            ),
            (1, 2)
        );
        assert_eq!(
            see(&mut m, ("hall", 1), &RED, 0.0, 1.0),
            3,
            "the camera 'door' still tracks the first person"
        );
        let mut m = memory(false);
        see(&mut m, ("door", 1), &RED, 0.0, 0.0);
        m.ended(&key("door", 1));
        assert_eq!(see(&mut m, ("lift", 1), &RED, 900.0, 1.0), 1);
    }

    #[test]
    fn with_overlapping_views_two_cameras_share_a_person() {
        let mut m = memory(true);
        assert_eq!(
            (
                see(&mut m, ("door", 1), &RED, 0.0, 0.0),
                see(&mut m, ("yard", 1), &RED, 0.0, 0.1)
            ),
            (1, 1)
        );
        m.ended(&key("door", 1));
        assert_eq!(
            see(&mut m, ("yard", 2), &RED, 300.0, 1.0),
            2,
            "the camera 'yard' still tracks the first person"
        );
    }

    #[test]
    fn without_a_table_of_strangers_nobody_is_recognised() {
        let mut m = PersonMemory {
            strangers: None,
            ..memory(false)
        };
        assert_eq!(see(&mut m, ("door", 1), &RED, 0.0, 0.0), 1);
        m.ended(&key("door", 1));
        assert_eq!(see(&mut m, ("door", 2), &RED, 0.0, 5.0), 2);
    }
}
