//! Simulates people who walk between cameras, with labels.
//!
//! Cameras stand at random places and are joined to their nearest neighbours; some are entrances.
//! Each camera has its own preferences among its neighbours, and each pair a travel time of its own
//! (log-normal), which is negative where views overlap. People enter at random times, walk from
//! camera to camera at a speed of their own, leave at an entrance or anywhere, and some return
//! later. A camera misses some of them, its tracker breaks some tracks in two, and its clock is
//! wrong by a constant.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;

use crate::time::Seconds;

/// What is simulated.
#[derive(Debug, Clone, PartialEq)]
pub struct WalkScene {
    /// Number of cameras.
    pub cameras: usize,
    /// Number of people.
    pub people: usize,
    /// Seconds in which people enter for the first time, evenly distributed.
    pub duration: Seconds,
    /// Seed of the cameras: the same seed gives the same cameras with the same travel times.
    pub places: u64,
    /// Seed of the people.
    pub walks: u64,
}

/// A track that a camera's tracker made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WalkTrack {
    /// The camera, from 0.
    pub camera: usize,
    /// The person, from 0.
    pub person: usize,
    /// First detection, by the camera's clock.
    pub first: Seconds,
    /// Last detection, by the camera's clock.
    pub last: Seconds,
}

/// Neighbours that a camera is joined to.
const NEIGHBOURS: usize = 3;
/// Share of the cameras that are entrances, at least two.
const ENTRANCES: f64 = 0.3;
/// Share of pairs of neighbours whose views overlap.
const OVERLAPPING: f64 = 0.1;
/// Probability of leaving after a camera that is no entrance, and after one that is.
const LEAVE: [f64; 2] = [0.05, 0.35];
/// Factor by which turning back to the camera before is less frequent.
const TURN: f64 = 0.05;
/// Probability of returning after having left, and the mean absence in seconds.
const RETURN: (f64, f64) = (0.25, 900.0);
/// Share of the passages that no track is made of.
const MISSED: f64 = 0.08;
/// Share of the tracks that are broken in two.
const SPLIT: f64 = 0.1;
/// Standard deviation of the clocks, in seconds.
const CLOCKS: f64 = 1.0;
/// Passages of a person at most.
const MAX_PASSAGES: usize = 40;
/// Walking speed in metres per second, and the standard deviation of its logarithm among people.
const SPEED: (f64, f64) = (1.3, 0.15);
/// Standard deviation of the logarithm of the travel time of one person.
const HURRY: f64 = 0.12;

/// A random number of the standard normal distribution (Box and Muller 1958).
fn normal(rng: &mut Rng) -> f64 {
    (-2.0 * (1.0 - rng.f64()).ln()).sqrt() * (std::f64::consts::TAU * rng.f64()).cos()
}

struct Way {
    to: usize,
    /// Relative frequency.
    weight: f64,
    /// Seconds at the mean speed.
    time: f64,
    /// Present if the views overlap: the seconds for which both cameras see a person.
    shared: Option<f64>,
}

struct Place {
    ways: Vec<Way>,
    entrance: bool,
    clock: f64,
    /// Median of the time in view, in seconds.
    in_view: f64,
}

/// The cameras and the ways between them.
fn places(scene: &WalkScene) -> Vec<Place> {
    let mut rng = Rng::with_seed(scene.places);
    let side = 60.0 * (scene.cameras as f64).sqrt();
    let at: Vec<(f64, f64)> = (0..scene.cameras)
        .map(|_| (side * rng.f64(), side * rng.f64()))
        .collect();
    let distance = |a: usize, b: usize| (at[a].0 - at[b].0).hypot(at[a].1 - at[b].1);
    let mut ways: BTreeSet<(usize, usize)> = BTreeSet::new();
    for a in 0..scene.cameras {
        let mut near: Vec<usize> = (0..scene.cameras).filter(|&b| b != a).collect();
        near.sort_by(|&b, &c| distance(a, b).total_cmp(&distance(a, c)));
        let nearest = near.iter().take(NEIGHBOURS);
        ways.extend(nearest.flat_map(|&b| [(a, b), (b, a)]));
    }
    let mut shared: BTreeMap<(usize, usize), f64> = BTreeMap::new();
    for &(a, b) in ways.iter().filter(|(a, b)| a < b) {
        if rng.f64() < OVERLAPPING {
            let seconds = 4.0 + 4.0 * rng.f64();
            shared.extend([((a, b), seconds), ((b, a), seconds)]);
        }
    }
    let entrances = ((ENTRANCES * scene.cameras as f64).round() as usize).max(2);
    (0..scene.cameras)
        .map(|a| Place {
            ways: (0..scene.cameras)
                .filter(|&b| ways.contains(&(a, b)))
                .map(|b| Way {
                    to: b,
                    weight: -(1.0 - rng.f64()).ln(),
                    // A way is not straight, and begins and ends outside the views.
                    time: 3.0 + distance(a, b) * (1.0 + 0.5 * rng.f64()) / SPEED.0,
                    shared: shared.get(&(a, b)).copied(),
                })
                .collect(),
            entrance: a < entrances,
            clock: CLOCKS * normal(&mut rng),
            in_view: 8.0 + 20.0 * rng.f64(),
        })
        .collect()
}

/// The pairs of cameras whose fields of view overlap, the lower number first.
pub fn overlapping(scene: &WalkScene) -> Vec<(usize, usize)> {
    let mut pairs = Vec::new();
    for (a, place) in places(scene).iter().enumerate() {
        let shared = place.ways.iter().filter(|w| w.shared.is_some());
        pairs.extend(shared.map(|w| (a, w.to)).filter(|(a, b)| a < b));
    }
    pairs
}

/// The index that a random number chooses among weights.
fn choose(rng: &mut Rng, weights: impl Iterator<Item = f64> + Clone) -> usize {
    let mut left = rng.f64() * weights.clone().sum::<f64>();
    let count = weights.clone().count();
    weights
        .take_while(|w| {
            left -= w;
            left >= 0.0
        })
        .count()
        .min(count.saturating_sub(1))
}

/// The tracks of a scene, in the order in which they end. The same scene gives the same tracks.
pub fn walk(scene: &WalkScene) -> Vec<WalkTrack> {
    let places = places(scene);
    let mut rng = Rng::with_seed(scene.walks);
    let mut tracks = Vec::new();
    for person in 0..scene.people {
        let mut rng = rng.fork();
        let hurry = (SPEED.1 * normal(&mut rng)).exp();
        let mut now = scene.duration.0 * rng.f64();
        let mut passages = 0;
        loop {
            now = visit(
                &places,
                person,
                now,
                hurry,
                &mut rng,
                &mut passages,
                &mut tracks,
            );
            if passages >= MAX_PASSAGES || rng.f64() >= RETURN.0 {
                break;
            }
            now -= RETURN.1 * (1.0 - rng.f64()).ln();
        }
    }
    tracks.sort_by(|a, b| a.last.0.total_cmp(&b.last.0));
    tracks
}

/// One visit of a person, from entering at `now` until leaving; returns the time of leaving.
fn visit(
    places: &[Place],
    person: usize,
    mut now: f64,
    hurry: f64,
    rng: &mut Rng,
    passages: &mut usize,
    tracks: &mut Vec<WalkTrack>,
) -> f64 {
    let entrances = || (0..places.len()).filter(|&p| places[p].entrance);
    let entered = rng.usize(0..entrances().count());
    let mut at = entrances().nth(entered).unwrap_or_default();
    let mut before = None;
    loop {
        let place = &places[at];
        *passages += 1;
        let time = (place.in_view * hurry * (0.4 * normal(rng)).exp()).max(2.0);
        pass(place, (person, at), (now, now + time), rng, tracks);
        now += time;
        let leaves = rng.f64() < LEAVE[usize::from(place.entrance)];
        if leaves || place.ways.is_empty() || *passages >= MAX_PASSAGES {
            return now;
        }
        let weight = |w: &Way| {
            let back = Some(w.to) == before;
            if back { TURN * w.weight } else { w.weight }
        };
        let way = &place.ways[choose(rng, place.ways.iter().map(weight))];
        now += match way.shared {
            Some(seconds) => -seconds.min(0.8 * time),
            None => way.time * hurry * (HURRY * normal(rng)).exp(),
        };
        before = Some(at);
        at = way.to;
    }
}

/// A passage through a camera's view: one track, none, or two.
fn pass(
    place: &Place,
    (person, camera): (usize, usize),
    (from, to): (f64, f64),
    rng: &mut Rng,
    tracks: &mut Vec<WalkTrack>,
) {
    if rng.f64() < MISSED {
        return;
    }
    let mut add = |from: f64, to: f64| {
        tracks.push(WalkTrack {
            camera,
            person,
            first: Seconds(from + place.clock),
            last: Seconds(to + place.clock),
        });
    };
    let gap = 1.0 + 3.0 * rng.f64();
    if rng.f64() < SPLIT && to - from > gap + 4.0 {
        let broken = from + 2.0 + (to - from - gap - 4.0) * rng.f64();
        add(from, broken);
        add(broken + gap, to);
    } else {
        add(from, to);
    }
}
