//! Who a track is beyond the track: a person known from one picture (one-shot identification, Koch et al. 2015), or
//! whoever comes back after the track has ended ([`memory`](crate::track::memory)).
//!
//! The registry belongs to no camera; one serves all. A person has one track at a time, or where views overlap one a camera.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::geometry::BBox;
use crate::range::{OutOfRange, share, within};
use crate::time::Seconds;
use crate::track::appearance::{cosine_distance, mean_direction};
use crate::track::assignment::{Assignment, Candidate};
use crate::track::memory::{Key, Memory, MemoryConfig, Seen};
use crate::track::reidentify::ReidentifyConfig;
use crate::track::similarity::{Calibration, Strangers};
use crate::track::views::Views;

/// Identities beyond the life of a track. Needs an embedder that is calibrated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IdentityConfig {
    /// A person is remembered for this long after the last sight, seconds; 0 remembers nobody. Who is known again follows the
    /// rules of `tracker.reidentify`.
    pub remember: f64,
    /// Similarity of looks from which a track is a person of the gallery, in [0, 1]; at 0.5 false accepts and false rejects are
    /// equally many. Lower names more people, and mistakes more.
    pub similarity: f32,
    /// Detections a track needs before it is named: its look must have settled.
    pub after_hits: u32,
    /// So many of a track's clearest crops, averaged, are compared with the gallery.
    pub crops: usize,
    /// Views of cameras overlap (`serve`): a person may be seen by several at once. Otherwise one camera at a time has the person.
    pub overlap: bool,
}

impl Default for IdentityConfig {
    fn default() -> Self {
        IdentityConfig {
            remember: 0.0,
            similarity: 0.7,
            after_hits: 5,
            crops: 5,
            overlap: false,
        }
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
    /// Where it is, pixels.
    pub bbox: BBox,
    /// Some of its views; none when nothing is known of its looks.
    pub views: Option<&'a Views>,
    /// The embedding of this frame's crop and how clear the crop is, in [0, 1]; none when it is not clear.
    pub view: Option<(&'a [f32], f32)>,
}

/// The track that was last taken for a person of the gallery.
#[derive(Debug)]
struct Holder {
    track: Key,
    similarity: f32,
    seen: Seconds,
}

/// A track that is called by a name of the gallery keeps it from other cameras for so long after it was last seen.
const HOLDS: Seconds = Seconds(2.0);

impl Holder {
    /// Another camera's track holds the name, and is no less alike.
    fn keeps(&self, camera: &Arc<str>, similarity: f32, now: Seconds) -> bool {
        self.track.0 != *camera && self.similarity >= similarity && (now - self.seen).0 <= HOLDS.0
    }
}

/// Everybody known.
#[derive(Debug)]
pub struct IdentityRegistry {
    config: IdentityConfig,
    calibration: Calibration,
    gallery: Vec<Known>,
    /// Who holds each of the gallery's names.
    holders: BTreeMap<usize, Holder>,
    /// The clearest crops of each track: how clear, and the embedding.
    portraits: BTreeMap<Key, Vec<(f32, Vec<f32>)>>,
    /// Whoever was seen, where that is asked for.
    memory: Option<Memory>,
    assignment: Assignment,
}

impl IdentityRegistry {
    /// Knows the gallery.
    pub fn new(config: IdentityConfig, calibration: Calibration, gallery: Vec<Known>) -> Self {
        let (holders, portraits) = Default::default();
        IdentityRegistry {
            config,
            calibration,
            gallery,
            holders,
            portraits,
            memory: None,
            assignment: Assignment::default(),
        }
    }

    /// Remembers everybody else for as long as the configuration says, and knows them again by the rules of `reidentify`, given
    /// how often strangers are alike to the embedder; without that everybody is somebody new.
    pub fn remembering(
        mut self,
        strangers: Option<Strangers>,
        reidentify: &ReidentifyConfig,
    ) -> Self {
        let IdentityConfig {
            remember,
            after_hits,
            overlap,
            ..
        } = self.config;
        let config = MemoryConfig {
            remember,
            after_hits,
            overlap,
            reidentify: reidentify.clone(),
        };
        self.memory = (remember > 0.0).then(|| Memory::new(config, strangers));
        self
    }

    /// Another gallery from now on; who is remembered without one stays.
    pub fn replace_gallery(&mut self, gallery: Vec<Known>) {
        self.holders.clear();
        self.gallery = gallery;
    }

    /// Who the tracks of a frame of a camera are, in their order; `None` while that is not known. `now` is any clock that goes on,
    /// one for all cameras.
    pub fn identify(
        &mut self,
        camera: &Arc<str>,
        sightings: &[Sighting<'_>],
        now: Seconds,
    ) -> Vec<Option<Identity>> {
        let mut identities = self.recognise(camera, sightings, now);
        let Some(memory) = &mut self.memory else {
            return identities;
        };
        for (s, identity) in sightings
            .iter()
            .zip(&mut identities)
            .filter(|(_, i)| i.is_none())
        {
            let Some(views) = s.views.filter(|v| !v.is_empty()) else {
                continue;
            };
            let found = memory.recall(
                &(camera.clone(), s.track),
                &Seen {
                    hits: s.hits,
                    views,
                    bbox: s.bbox,
                },
                now,
            );
            *identity = found.map(|(person, distance)| {
                let similarity =
                    distance.map_or(1.0, |d| f64::from(self.calibration.similarity(d)));
                Identity {
                    name: format!("person-{person}"),
                    similarity,
                }
            });
        }
        identities
    }

    /// The tracks have their person of the gallery where they look alike enough, each person at most one of them.
    fn recognise(
        &mut self,
        camera: &Arc<str>,
        sightings: &[Sighting<'_>],
        now: Seconds,
    ) -> Vec<Option<Identity>> {
        let mut identities = vec![None; sightings.len()];
        if self.gallery.is_empty() {
            return identities;
        }
        let mut candidates = Vec::new();
        for (row, s) in sightings.iter().enumerate() {
            let portrait = self.portraits.entry((camera.clone(), s.track)).or_default();
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
                let Some(distance) = cosine_distance(&known.look, &look) else {
                    continue;
                };
                let similarity = self.calibration.similarity(distance);
                let elsewhere = self
                    .holders
                    .get(&column)
                    .is_some_and(|h| !self.config.overlap && h.keeps(camera, similarity, now));
                if similarity >= self.config.similarity && !elsewhere {
                    candidates.push(Candidate {
                        row,
                        column,
                        cost: 1.0 - similarity,
                    });
                }
            }
        }
        // An unmade pair costs more than any candidate, so that as many as can are named.
        for (row, column) in
            self.assignment
                .solve(sightings.len(), self.gallery.len(), &candidates, 1.01)
        {
            let cost = candidates
                .iter()
                .find(|c| (c.row, c.column) == (row, column))
                .map_or(1.0, |c| c.cost);
            identities[row] = Some(Identity {
                name: self.gallery[column].name.clone(),
                similarity: f64::from(1.0 - cost),
            });
            self.holders.insert(
                column,
                Holder {
                    track: (camera.clone(), sightings[row].track),
                    similarity: 1.0 - cost,
                    seen: now,
                },
            );
        }
        identities
    }

    /// The track has ended: its person is free to come back.
    pub fn ended(&mut self, camera: &Arc<str>, track: u64) {
        let key = (camera.clone(), track);
        self.portraits.remove(&key);
        self.holders.retain(|_, h| h.track != key);
        if let Some(memory) = &mut self.memory {
            memory.ended(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RED: [f32; 2] = [1.0, 0.0];
    const BLUE: [f32; 2] = [0.0, 1.0];
    const CALIBRATION: Calibration = Calibration {
        slope: 20.0,
        threshold: 0.3,
    };

    fn door() -> Arc<str> {
        "door".into()
    }

    fn sight(track: u64, look: &[f32]) -> Sighting<'_> {
        Sighting {
            track,
            hits: 10,
            bbox: BBox::new(0.0, 0.0, 40.0, 100.0),
            views: None,
            view: Some((look, 0.9)),
        }
    }

    #[test]
    fn who_comes_back_keeps_the_name_under_a_new_track_id() {
        let config = IdentityConfig {
            remember: 60.0,
            ..IdentityConfig::default()
        };
        let strangers: Strangers = "0.1@0.4,0.001@0.2".parse().expect("a table");
        let mut p = IdentityRegistry::new(config, CALIBRATION, Vec::new())
            .remembering(Some(strangers), &ReidentifyConfig::default());
        let views = Views::of(&RED);
        let mut see = |track, at| {
            p.identify(
                &door(),
                &[Sighting {
                    views: Some(&views),
                    ..sight(track, &RED)
                }],
                Seconds(at),
            )
            .remove(0)
        };
        let first = see(1, 0.0).expect("named");
        assert_eq!((first.name.as_str(), first.similarity), ("person-1", 1.0));
        assert_eq!(
            see(2, 0.1).expect("named").name,
            "person-2",
            "the first is still there"
        );
        p.ended(&door(), 1);
        let again = p.identify(
            &door(),
            &[Sighting {
                views: None,
                ..sight(3, &RED)
            }],
            Seconds(20.0),
        );
        assert_eq!(again, [None], "nothing is known of its looks");
        p.ended(&door(), 2);
        let unsettled = p.identify(
            &door(),
            &[Sighting {
                hits: 2,
                views: Some(&views),
                ..sight(4, &RED)
            }],
            Seconds(20.0),
        );
        assert_eq!(unsettled, [None]);
    }

    fn gallery() -> IdentityRegistry {
        let known = [("ada", RED), ("ben", BLUE)].map(|(name, look)| Known {
            name: name.into(),
            look: look.into(),
        });
        IdentityRegistry::new(
            IdentityConfig {
                crops: 2,
                ..IdentityConfig::default()
            },
            CALIBRATION,
            known.into(),
        )
    }

    fn unit(degrees: f32) -> [f32; 2] {
        [degrees.to_radians().cos(), degrees.to_radians().sin()]
    }

    #[test]
    fn a_person_of_the_gallery_is_the_most_alike_track_and_no_second() {
        let mut p = gallery();
        let (near, nearer, stranger) = (unit(20.0), unit(5.0), unit(45.0));
        let who = p.identify(
            &door(),
            &[
                sight(1, &near),
                sight(2, &nearer),
                sight(3, &BLUE),
                sight(4, &stranger),
            ],
            Seconds(0.0),
        );
        let names: Vec<Option<&str>> = who
            .iter()
            .map(|i| i.as_ref().map(|i| i.name.as_str()))
            .collect();
        assert_eq!(names, [None, Some("ada"), Some("ben"), None]);
        let similarity = f64::from(CALIBRATION.similarity(1.0 - 5f32.to_radians().cos()));
        assert!((who[1].as_ref().expect("ada").similarity - similarity).abs() < 1e-3);
    }

    #[test]
    fn the_clearest_crops_say_who_it_is() {
        let mut p = gallery();
        let mut see = |look: &[f32], clear: f32| {
            p.identify(
                &door(),
                &[Sighting {
                    view: Some((look, clear)),
                    ..sight(1, look)
                }],
                Seconds(0.0),
            )
            .remove(0)
        };
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
        assert_eq!(
            p.identify(
                &door(),
                &[Sighting {
                    view: None,
                    ..sight(1, &RED)
                }],
                Seconds(0.0)
            ),
            [None]
        );
    }

    fn seen_by(p: &mut IdentityRegistry, camera: &str, look: &[f32], at: f64) -> Option<String> {
        p.identify(&camera.into(), &[sight(1, look)], Seconds(at))
            .remove(0)
            .map(|i| i.name)
    }

    #[test]
    fn a_name_of_the_gallery_is_with_the_camera_that_sees_it_best_until_it_is_gone() {
        let (far, near) = (unit(12.0), unit(4.0));
        let mut p = gallery();
        assert_eq!(seen_by(&mut p, "door", &far, 0.0).as_deref(), Some("ada"));
        assert_eq!(seen_by(&mut p, "yard", &near, 0.1).as_deref(), Some("ada"));
        assert_eq!(seen_by(&mut p, "door", &far, 0.2), None);
        // The yard loses sight of her; or her track ends.
        assert_eq!(seen_by(&mut p, "door", &far, 3.0).as_deref(), Some("ada"));
        assert_eq!(seen_by(&mut p, "yard", &near, 3.1).as_deref(), Some("ada"));
        p.ended(&"yard".into(), 1);
        assert_eq!(seen_by(&mut p, "door", &far, 3.2).as_deref(), Some("ada"));
        p.replace_gallery(vec![Known {
            name: "eve".into(),
            look: RED.into(),
        }]);
        assert_eq!(seen_by(&mut p, "door", &far, 3.3).as_deref(), Some("eve"));
    }
}
