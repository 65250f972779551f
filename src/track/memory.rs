//! The long memory: whoever comes back after the track has ended gets a new track id but the person it was. The rules are
//! those of [`reidentify`], over minutes and all cameras.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::geometry::BBox;
use crate::time::Seconds;
use crate::track::reidentify::{self, ReidentifyConfig, reachable};
use crate::track::similarity::Strangers;
use crate::track::views::Views;

/// A camera's name and the id of a track of it.
pub type Key = (Arc<str>, u64);

/// How people are remembered.
#[derive(Debug, Clone, PartialEq)]
pub struct MemoryConfig {
    /// For this long after the last sight, seconds.
    pub remember: f64,
    /// Detections a track needs before it is named.
    pub after_hits: u32,
    /// Views of cameras overlap: a person may be seen by several at once.
    pub overlap: bool,
    /// How much likeness it takes.
    pub reidentify: ReidentifyConfig,
}

/// A track seen in a frame.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// How many detections it has had.
    pub hits: u32,
    /// What it looks like.
    pub views: &'a Views,
    /// Where it is, pixels.
    pub bbox: BBox,
}

#[derive(Debug, Default)]
struct Person {
    /// Before the present track.
    past: Views,
    /// Of the present track.
    views: Views,
    /// When and where each camera last saw the person.
    places: BTreeMap<Arc<str>, (BBox, Seconds)>,
    seen: Seconds,
    /// The tracks that are this person now.
    tracks: BTreeSet<Key>,
}

/// Everybody who was seen.
#[derive(Debug)]
pub struct Memory {
    config: MemoryConfig,
    /// How often strangers are alike; `None`: nobody is known again.
    strangers: Option<Strangers>,
    people: BTreeMap<u64, Person>,
    /// The person a track is, and the distance by which it was known again, none for somebody new.
    named: BTreeMap<Key, (u64, Option<f32>)>,
    /// Where and when the tracks not yet named appeared.
    appeared: BTreeMap<Key, (BBox, Seconds)>,
    next: u64,
}

impl Memory {
    /// Remembers nobody yet.
    pub fn new(config: MemoryConfig, strangers: Option<Strangers>) -> Self {
        Memory {
            config,
            strangers,
            people: BTreeMap::new(),
            named: BTreeMap::new(),
            appeared: BTreeMap::new(),
            next: 1,
        }
    }

    /// The person a track is among those seen before, with the distance of looks by which it was known again; somebody new,
    /// with none, when it is none of them. `None` while the track has not been seen often enough. `now` is one clock for all
    /// cameras.
    pub fn recall(
        &mut self,
        key: &Key,
        seen: &Seen<'_>,
        now: Seconds,
    ) -> Option<(u64, Option<f32>)> {
        if !self.named.contains_key(key) {
            let appeared = *self.appeared.entry(key.clone()).or_insert((seen.bbox, now));
            if seen.hits < self.config.after_hits {
                return None;
            }
            self.forget(now);
            let found = self
                .nearest(&key.0, seen.views, appeared)
                .map(|(who, distance)| (who, Some(distance)))
                .unwrap_or_else(|| {
                    self.next += 1;
                    (self.next - 1, None)
                });
            self.appeared.remove(key);
            self.named.insert(key.clone(), found);
            let person = self.people.entry(found.0).or_default();
            let before = std::mem::take(&mut person.views);
            person.past.join(&before);
        }
        let found = *self.named.get(key)?;
        let person = self.people.entry(found.0).or_default();
        person.views.clone_from(seen.views);
        person.seen = now;
        person.places.insert(key.0.clone(), (seen.bbox, now));
        person.tracks.insert(key.clone());
        Some(found)
    }

    /// The track has ended: its person is free to come back.
    pub fn ended(&mut self, key: &Key) {
        self.appeared.remove(key);
        if let Some(p) = self
            .named
            .remove(key)
            .and_then(|(person, _)| self.people.get_mut(&person))
        {
            p.tracks.remove(key);
        }
    }

    /// The person who looks like this beyond doubt among those who are not there at the moment and can be it.
    fn nearest(
        &self,
        camera: &Arc<str>,
        views: &Views,
        appeared: (BBox, Seconds),
    ) -> Option<(u64, f32)> {
        let strangers = self.strangers.as_ref()?;
        let there = |p: &Person| {
            p.tracks
                .iter()
                .any(|(other, _)| !self.config.overlap || other == camera)
        };
        // This camera saw the person after the track had appeared, elsewhere in its view, or too far away to walk here.
        let elsewhere = |p: &Person| {
            let reaches = |(bbox, at): &(BBox, Seconds)| {
                at.0 < appeared.1.0
                    && reachable(
                        (bbox, *at),
                        (&appeared.0, appeared.1),
                        self.config.reidentify.speed,
                    )
            };
            p.places.get(camera).is_some_and(|last| !reaches(last))
        };
        let distance = |p: &Person| {
            let mut all = p.views.clone();
            all.join(&p.past);
            all.distance(views)
        };
        let away = self
            .people
            .iter()
            .filter(|(_, p)| !there(p) && !elsewhere(p));
        let (who, distances): (Vec<u64>, Vec<f32>) =
            away.filter_map(|(&id, p)| Some((id, distance(p)?))).unzip();
        reidentify::choose(&distances, strangers, &self.config.reidentify)
            .map(|i| (who[i], distances[i]))
    }

    fn forget(&mut self, now: Seconds) {
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

    fn memory(overlap: bool) -> Memory {
        let config = MemoryConfig {
            remember: 60.0,
            after_hits: 5,
            overlap,
            reidentify: ReidentifyConfig::default(),
        };
        Memory::new(
            config,
            Some("0.5@0.8,0.01@0.4,0.0001@0.2".parse().expect("a table")),
        )
    }

    fn key(camera: &str, track: u64) -> Key {
        (camera.into(), track)
    }

    fn at(x: f32) -> BBox {
        BBox::from_center(x, 200.0, 40.0, 100.0)
    }

    /// Who a track is that is seen for the tenth time.
    fn see(m: &mut Memory, track: (&str, u64), look: &[f32], x: f32, now: f64) -> u64 {
        m.recall(
            &key(track.0, track.1),
            &Seen {
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
    fn who_comes_back_is_known_under_a_new_track_id_and_the_forgotten_are_new() {
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
    fn nobody_is_at_two_places_even_when_the_other_track_has_ended() {
        let mut m = memory(false);
        assert_eq!(
            (
                see(&mut m, ("door", 1), &RED, 0.0, 0.0),
                see(&mut m, ("door", 2), &BLUE, 300.0, 0.0)
            ),
            (1, 2)
        );
        // A third appears while the first is seen, and is named only when the first has gone.
        let third = |m: &mut Memory, hits, now| {
            m.recall(
                &key("door", 3),
                &Seen {
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
        assert_eq!(third(&mut m, 5, 4.0).map(|(who, _)| who), Some(3));
    }

    #[test]
    fn who_is_too_far_away_is_somebody_else() {
        let mut m = memory(false);
        assert_eq!(see(&mut m, ("door", 1), &RED, 0.0, 0.0), 1);
        m.ended(&key("door", 1));
        assert_eq!(
            see(&mut m, ("door", 2), &RED, 900.0, 3.0),
            2,
            "nine heights in three seconds"
        );
        m.ended(&key("door", 2));
        // Now two look alike, and who of them it is stays open.
        assert_eq!(see(&mut m, ("door", 3), &RED, 500.0, 30.0), 3);
    }

    #[test]
    fn who_leaves_one_camera_is_known_at_the_next() {
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
            "the door still sees the first"
        );
        let mut m = memory(false);
        see(&mut m, ("door", 1), &RED, 0.0, 0.0);
        m.ended(&key("door", 1));
        assert_eq!(see(&mut m, ("lift", 1), &RED, 900.0, 1.0), 1);
    }

    #[test]
    fn where_views_overlap_two_cameras_see_one_person() {
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
            "the yard still has the first"
        );
    }

    #[test]
    fn without_a_table_of_strangers_nobody_is_known_again() {
        let mut m = Memory {
            strangers: None,
            ..memory(false)
        };
        assert_eq!(see(&mut m, ("door", 1), &RED, 0.0, 0.0), 1);
        m.ended(&key("door", 1));
        assert_eq!(see(&mut m, ("door", 2), &RED, 0.0, 5.0), 2);
    }
}
