//! Identity of a person beyond one track: a name from a gallery (one-shot identification, Koch et
//! al. 2015), or a number given to a person who is remembered after the track has ended
//! ([`memory`](crate::track::memory)).
//!
//! All cameras share one registry. An identity belongs to one track at a time, or with overlapping
//! views to one track per camera.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::geometry::BBox;
use crate::time::Seconds;
use crate::track::appearance::{cosine_distance, mean_direction};
use crate::track::assignment::{Assignment, Candidate};
use crate::track::memory::{MemoryConfig, MemoryObservation, PersonMemory, TrackKey};
use crate::track::reidentify::ReidentifyConfig;
use crate::track::similarity::{Calibration, StrangerTable};
use crate::track::views::Views;

pub use crate::track::identity_config::IdentityConfig;

/// Identity of a track.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "serve", derive(schemars::JsonSchema))]
pub struct Identity {
    /// The person's name.
    pub name: String,
    /// Calibrated similarity in [0, 1]; 1 for a person seen for the first time.
    pub similarity: f64,
}

/// A person of the gallery.
#[derive(Debug, Clone, PartialEq)]
pub struct GalleryPerson {
    /// The name.
    pub name: String,
    /// The person's embedding, a unit vector.
    pub embedding: Vec<f32>,
}

/// A track detected in a frame, as input of the identification.
#[derive(Debug, Clone, Copy)]
pub struct TrackObservation<'a> {
    /// The track's id.
    pub track: u64,
    /// Number of the track's detections.
    pub hits: u32,
    /// The track's box in pixels of the frame.
    pub bbox: BBox,
    /// The track's collected views; `None` while its appearance is unknown.
    pub views: Option<&'a Views>,
    /// The embedding of this frame's crop and the crop's clarity in [0, 1]; `None` when the view is
    /// not clear.
    pub view: Option<(&'a [f32], f32)>,
}

/// The track to which a name of the gallery was last assigned.
#[derive(Debug)]
struct NameHolder {
    track: TrackKey,
    similarity: f32,
    seen: Seconds,
}

/// Time after a track last got a gallery name, during which a track of another camera gets the name
/// only at a higher similarity.
const HOLD_TIME: Seconds = Seconds(2.0);

impl NameHolder {
    /// Whether the name cannot be assigned on `camera`, because a track of another camera got it at
    /// most [`HOLD_TIME`] ago with at least this similarity.
    fn keeps_name(&self, camera: &Arc<str>, similarity: f32, now: Seconds) -> bool {
        self.track.0 != *camera
            && self.similarity >= similarity
            && (now - self.seen).0 <= HOLD_TIME.0
    }
}

/// Identities of all tracks of all cameras.
#[derive(Debug)]
pub struct IdentityRegistry {
    config: IdentityConfig,
    calibration: Calibration,
    gallery: Vec<GalleryPerson>,
    /// The holder of each gallery name, by index in the gallery.
    holders: BTreeMap<usize, NameHolder>,
    /// The clearest crops of each track: clarity and embedding, in descending order of clarity.
    clearest_crops: BTreeMap<TrackKey, Vec<(f32, Vec<f32>)>>,
    /// Memory of people without a gallery name, if enabled.
    memory: Option<PersonMemory>,
    assignment: Assignment,
}

impl IdentityRegistry {
    /// Creates a registry with the people of the gallery.
    pub fn new(
        config: IdentityConfig,
        calibration: Calibration,
        gallery: Vec<GalleryPerson>,
    ) -> Self {
        let (holders, clearest_crops) = Default::default();
        IdentityRegistry {
            config,
            calibration,
            gallery,
            holders,
            clearest_crops,
            memory: None,
            assignment: Assignment::default(),
        }
    }

    /// Remembers people who are not in the gallery, if `remember` is set. They are recognised by
    /// the rules of `reidentify` and the embedder's false-accept rates `strangers`; without these
    /// rates every track is a new person.
    pub fn with_memory(
        mut self,
        strangers: Option<StrangerTable>,
        reidentify: &ReidentifyConfig,
    ) -> Self {
        let c = &self.config;
        let config = MemoryConfig::default()
            .with_remember(c.remember)
            .with_after_hits(c.after_hits)
            .with_overlap(c.overlap)
            .with_reidentify(reidentify.clone());
        self.memory = (c.remember > 0.0).then(|| PersonMemory::new(config, strangers));
        self
    }

    /// The people of the gallery.
    pub fn gallery(&self) -> &[GalleryPerson] {
        &self.gallery
    }

    /// Replaces the gallery; remembered people stay.
    pub fn replace_gallery(&mut self, gallery: Vec<GalleryPerson>) {
        self.holders.clear();
        self.gallery = gallery;
    }

    /// Identities of a frame's tracks, in the order of `observations`; `None` where unknown. `now`
    /// is the time of a monotonic clock that all cameras share.
    pub fn identify(
        &mut self,
        camera: &Arc<str>,
        observations: &[TrackObservation<'_>],
        now: Seconds,
    ) -> Vec<Option<Identity>> {
        let mut identities = self.match_gallery(camera, observations, now);
        let Some(memory) = &mut self.memory else {
            return identities;
        };
        for (s, identity) in observations
            .iter()
            .zip(&mut identities)
            .filter(|(_, i)| i.is_none())
        {
            let Some(views) = s.views.filter(|v| !v.is_empty()) else {
                continue;
            };
            let found = memory.identify(
                &(camera.clone(), s.track),
                &MemoryObservation {
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

    /// Assigns people of the gallery to the frame's tracks: each person to at most one track, and
    /// only if their similarity is at least the configured one.
    fn match_gallery(
        &mut self,
        camera: &Arc<str>,
        observations: &[TrackObservation<'_>],
        now: Seconds,
    ) -> Vec<Option<Identity>> {
        let mut identities = vec![None; observations.len()];
        if self.gallery.is_empty() {
            return identities;
        }
        let mut candidates = Vec::new();
        for (row, s) in observations.iter().enumerate() {
            let crops_of_track = self
                .clearest_crops
                .entry((camera.clone(), s.track))
                .or_default();
            if let Some((view, clarity)) = s.view {
                let place = crops_of_track.partition_point(|(other, _)| *other >= clarity);
                crops_of_track.insert(place, (clarity, view.to_vec()));
                crops_of_track.truncate(self.config.crops);
            }
            if s.hits < self.config.after_hits {
                continue;
            }
            let embedding = mean_direction(
                crops_of_track
                    .iter()
                    .map(|(_, view)| (view.as_slice(), 1.0)),
            );
            for (column, known) in self.gallery.iter().enumerate() {
                let Some(distance) = cosine_distance(&known.embedding, &embedding) else {
                    continue;
                };
                let similarity = self.calibration.similarity(distance);
                let elsewhere = self
                    .holders
                    .get(&column)
                    .is_some_and(|h| !self.config.overlap && h.keeps_name(camera, similarity, now));
                if similarity >= self.config.similarity && !elsewhere {
                    candidates.push(Candidate {
                        row,
                        column,
                        cost: 1.0 - similarity,
                    });
                }
            }
        }
        // The cost of an unassigned row exceeds any candidate's cost, so that naming a track is
        // cheaper than leaving it without a name.
        for (row, column) in
            self.assignment
                .solve(observations.len(), self.gallery.len(), &candidates, 1.01)
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
                NameHolder {
                    track: (camera.clone(), observations[row].track),
                    similarity: 1.0 - cost,
                    seen: now,
                },
            );
        }
        identities
    }

    /// Call this at the end of a track: its identity can then be assigned to another track.
    pub fn ended(&mut self, camera: &Arc<str>, track: u64) {
        let key = (camera.clone(), track);
        self.clearest_crops.remove(&key);
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

    fn sight(track: u64, embedding: &[f32]) -> TrackObservation<'_> {
        TrackObservation {
            track,
            hits: 10,
            bbox: BBox::new(0.0, 0.0, 40.0, 100.0),
            views: None,
            view: Some((embedding, 0.9)),
        }
    }

    #[test]
    fn a_returning_person_keeps_the_identity_under_a_new_track_id() {
        let config = IdentityConfig {
            remember: 60.0,
            ..IdentityConfig::default()
        };
        let strangers: StrangerTable = "0.1@0.4,0.001@0.2".parse().expect("a table");
        let mut p = IdentityRegistry::new(config, CALIBRATION, Vec::new())
            .with_memory(Some(strangers), &ReidentifyConfig::default());
        let views = Views::of(&RED);
        let mut see = |track, at| {
            p.identify(
                &door(),
                &[TrackObservation {
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
            "the first track has not ended"
        );
        p.ended(&door(), 1);
        let again = p.identify(
            &door(),
            &[TrackObservation {
                views: None,
                ..sight(3, &RED)
            }],
            Seconds(20.0),
        );
        assert_eq!(again, [None], "its appearance is unknown");
        p.ended(&door(), 2);
        let unsettled = p.identify(
            &door(),
            &[TrackObservation {
                hits: 2,
                views: Some(&views),
                ..sight(4, &RED)
            }],
            Seconds(20.0),
        );
        assert_eq!(unsettled, [None]);
    }

    fn gallery() -> IdentityRegistry {
        let known = [("ada", RED), ("ben", BLUE)].map(|(name, embedding)| GalleryPerson {
            name: name.into(),
            embedding: embedding.into(),
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
    fn a_gallery_name_goes_to_the_most_similar_track_only() {
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
    fn the_clearest_crops_determine_the_identity() {
        let mut p = gallery();
        let mut see = |embedding: &[f32], clarity: f32| {
            p.identify(
                &door(),
                &[TrackObservation {
                    view: Some((embedding, clarity)),
                    ..sight(1, embedding)
                }],
                Seconds(0.0),
            )
            .remove(0)
        };
        assert_eq!(see(&RED, 0.9).expect("ada").name, "ada");
        assert_eq!(see(&RED, 0.8).expect("ada").name, "ada");
        // Views of another appearance replace the stored views only if they are clearer.
        assert_eq!(see(&BLUE, 0.5).expect("still ada").name, "ada");
        see(&BLUE, 0.95);
        assert_eq!(see(&BLUE, 0.95).expect("ben").name, "ben");
    }

    #[test]
    fn a_track_without_a_clear_crop_gets_no_name() {
        let mut p = gallery();
        assert_eq!(
            p.identify(
                &door(),
                &[TrackObservation {
                    view: None,
                    ..sight(1, &RED)
                }],
                Seconds(0.0)
            ),
            [None]
        );
    }

    fn seen_by(
        p: &mut IdentityRegistry,
        camera: &str,
        embedding: &[f32],
        at: f64,
    ) -> Option<String> {
        p.identify(&camera.into(), &[sight(1, embedding)], Seconds(at))
            .remove(0)
            .map(|i| i.name)
    }

    #[test]
    fn a_gallery_name_stays_with_the_most_similar_camera_until_it_loses_the_track() {
        let (far, near) = (unit(12.0), unit(4.0));
        let mut p = gallery();
        assert_eq!(seen_by(&mut p, "door", &far, 0.0).as_deref(), Some("ada"));
        assert_eq!(seen_by(&mut p, "yard", &near, 0.1).as_deref(), Some("ada"));
        assert_eq!(seen_by(&mut p, "door", &far, 0.2), None);
        // The camera "yard" has not detected her for some time; later her track there ends.
        assert_eq!(seen_by(&mut p, "door", &far, 3.0).as_deref(), Some("ada"));
        assert_eq!(seen_by(&mut p, "yard", &near, 3.1).as_deref(), Some("ada"));
        p.ended(&"yard".into(), 1);
        assert_eq!(seen_by(&mut p, "door", &far, 3.2).as_deref(), Some("ada"));
        p.replace_gallery(vec![GalleryPerson {
            name: "eve".into(),
            embedding: RED.into(),
        }]);
        assert_eq!(seen_by(&mut p, "door", &far, 3.3).as_deref(), Some("eve"));
    }
}
