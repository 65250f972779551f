//! Judges the matcher and its baselines on simulated walks, with pictures of people.

use std::sync::Arc;

use fastrand::Rng;

use crate::eval::multi_camera::{JudgedTrack, TrackIdentity};
use crate::multi_camera::baseline::nearest_neighbour;
use crate::multi_camera::camera_track::{CameraTrack, Decision};
use crate::multi_camera::config::MultiCameraConfig;
use crate::multi_camera::matcher::Matcher;
use crate::multi_camera::topology::Topology;
use crate::multi_camera::walks::WalkTrack;
use crate::track::similarity::Calibration;

/// An embedding of a person's picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    /// The camera that took it.
    pub camera: u32,
    /// Unit length.
    pub embedding: Vec<f32>,
}

/// A track with its person.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelledTrack {
    /// What the matcher gets.
    pub track: CameraTrack,
    /// The true person.
    pub person: u64,
}

/// A way to find the people of tracks.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Method {
    /// The matcher, which knows nothing about the cameras at first.
    Learning,
    /// The matcher with a topology that it learned before.
    Known(Topology),
    /// The matcher without topology.
    AppearanceAlone,
    /// The matcher without appearance.
    TimeAlone,
    /// The nearest earlier track, up to this cosine distance.
    NearestNeighbour(f32),
}

/// Embedder hash of simulated tracks.
const EMBEDDER: &str = "simulated";

/// Gives each track the embedding of a picture. Each simulated person gets the pictures of one of
/// `people`, in random order. A simulated camera prefers the pictures of one real camera, always
/// the same. No picture is used twice: a track is left out if its person has no picture left.
pub fn dress(tracks: &[WalkTrack], people: &[Vec<Picture>], seed: u64) -> Vec<LabelledTrack> {
    let mut rng = Rng::with_seed(seed);
    let mut cameras: Vec<u32> = people.iter().flatten().map(|p| p.camera).collect();
    cameras.sort_unstable();
    cameras.dedup();
    let mut left: Vec<Vec<&Picture>> = people.iter().map(|p| p.iter().collect()).collect();
    rng.shuffle(&mut left);
    left.iter_mut().for_each(|p| rng.shuffle(p));
    let dressed = tracks.iter().enumerate().filter_map(|(key, t)| {
        let pictures = left.get_mut(t.person)?;
        let camera = cameras[t.camera % cameras.len()];
        let preferred = pictures.iter().position(|p| p.camera == camera);
        let last = pictures.len().checked_sub(1)?;
        let picture = pictures.swap_remove(preferred.unwrap_or(last));
        let track = CameraTrack {
            key: key as u64,
            camera: format!("camera-{}", t.camera).into(),
            first: t.first,
            last: t.last,
            embedder: EMBEDDER.into(),
            embedding: picture.embedding.clone(),
        };
        let person = t.person as u64;
        Some(LabelledTrack { track, person })
    });
    dressed.collect()
}

impl Method {
    /// The people that the method finds, in the order of the tracks, and what the matcher learned.
    pub fn find(
        &self,
        tracks: &[LabelledTrack],
        config: &MultiCameraConfig,
        calibration: Calibration,
    ) -> (Vec<Option<u64>>, Topology) {
        let config = match self {
            Method::NearestNeighbour(distance) => {
                let tracks: Vec<CameraTrack> = tracks.iter().map(|t| t.track.clone()).collect();
                let found = nearest_neighbour(&tracks, *distance, config.remember);
                return (found.into_iter().map(Some).collect(), Topology::default());
            }
            Method::AppearanceAlone => config.clone().with_topology(false),
            Method::TimeAlone => config.clone().with_appearance(0.0),
            Method::Learning | Method::Known(_) => config.clone(),
        };
        let embedder: Arc<str> = EMBEDDER.into();
        let mut matcher = Matcher::new(config, vec![(embedder, calibration)]);
        if let Method::Known(topology) = self {
            matcher = matcher.with_topology(topology.clone());
        }
        let mut decisions: Vec<Decision> = Vec::with_capacity(tracks.len());
        for t in tracks {
            decisions.extend(matcher.push(t.track.clone()).into_iter().flatten());
        }
        decisions.extend(matcher.finish());
        decisions.sort_by_key(|d| d.key);
        let person = |key: u64| {
            let at = decisions.binary_search_by_key(&key, |d| d.key).ok()?;
            Some(decisions[at].person)
        };
        let found = tracks.iter().map(|t| person(t.track.key)).collect();
        (found, matcher.topology().clone())
    }
}

/// Judgements of a method.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Judgement {
    /// Every track counts 1.
    pub by_track: TrackIdentity,
    /// Every track counts its duration.
    pub by_time: TrackIdentity,
    /// Share of the pairs of tracks with the same found person that are of two people, in [0, 1].
    pub merged: f64,
}

impl Judgement {
    /// Judges the people found.
    pub fn of(tracks: &[LabelledTrack], found: &[Option<u64>]) -> Self {
        let judged = |weight: fn(&CameraTrack) -> f64| {
            let pairs = tracks.iter().zip(found);
            let judged: Vec<JudgedTrack> = pairs
                .map(|(t, result)| JudgedTrack {
                    truth: t.person,
                    result: *result,
                    weight: weight(&t.track),
                })
                .collect();
            judged
        };
        let by_track = judged(|_| 1.0);
        Judgement {
            by_track: TrackIdentity::of(&by_track),
            by_time: TrackIdentity::of(&judged(|t| (t.last - t.first).0)),
            merged: merged_pairs(&by_track),
        }
    }
}

/// See [`Judgement::merged`].
fn merged_pairs(tracks: &[JudgedTrack]) -> f64 {
    let pairs = |by: &dyn Fn(&JudgedTrack) -> Option<(u64, u64)>| {
        let mut keys: Vec<(u64, u64)> = tracks.iter().filter_map(by).collect();
        keys.sort_unstable();
        let sizes = keys.chunk_by(|a, b| a == b).map(|c| c.len() as f64);
        sizes.map(|n| n * (n - 1.0) / 2.0).sum::<f64>()
    };
    let all = pairs(&|t| Some((t.result?, 0)));
    let right = pairs(&|t| Some((t.result?, t.truth)));
    if all > 0.0 { 1.0 - right / all } else { 0.0 }
}

/// Draws people for tests, without pictures: a person is a random direction, and a picture deviates
/// from it by `spread` times a random vector of the same length. Pictures are of two cameras, whose
/// colours shift all people alike.
pub fn drawn_people(people: usize, pictures: usize, spread: f32, seed: u64) -> Vec<Vec<Picture>> {
    const DIMENSION: usize = 64;
    let mut rng = Rng::with_seed(seed);
    let direction = |rng: &mut Rng| -> Vec<f32> {
        // The sum of four uniform numbers is about normal.
        let number = |rng: &mut Rng| (0..4).map(|_| rng.f32() - 0.5).sum::<f32>();
        unit((0..DIMENSION).map(|_| number(rng)).collect())
    };
    let casts = [direction(&mut rng), direction(&mut rng)];
    let person = |_| {
        let center = direction(&mut rng);
        let picture = |k: usize| {
            let (camera, noise) = (k % casts.len(), direction(&mut rng));
            let cast = &casts[camera];
            let mixed = (0..DIMENSION).map(|i| center[i] + spread * (noise[i] + 0.3 * cast[i]));
            Picture {
                camera: camera as u32,
                embedding: unit(mixed.collect()),
            }
        };
        (0..pictures).map(picture).collect()
    };
    (0..people).map(person).collect()
}

fn unit(mut vector: Vec<f32>) -> Vec<f32> {
    let length = vector.iter().map(|v| v * v).sum::<f32>().sqrt();
    vector.iter_mut().for_each(|v| *v /= length);
    vector
}
