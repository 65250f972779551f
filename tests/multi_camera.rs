//! Matching across cameras, on constructed tracks and on simulated walks.
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::collections::BTreeMap;
use std::sync::Arc;

use twintrack::multi_camera::trial::{Judgement, LabelledTrack, Method, drawn_people, dress};
use twintrack::multi_camera::walks::{WalkScene, overlapping, walk};
use twintrack::multi_camera::{
    CameraTrack, Decision, Matcher, MultiCameraConfig, RejectedTrack, Topology,
};
use twintrack::time::Seconds;
use twintrack::track::similarity::Calibration;

const CALIBRATION: Calibration = Calibration {
    slope: 12.0,
    threshold: 0.5,
};
/// Spread of `drawn_people`: pairs of one person have a cosine distance of about 0.77, pairs of two
/// people about 1, each with a standard deviation of 0.13.
const SPREAD: f32 = 1.8;
/// Calibration of the distances of `drawn_people`.
const OF_DRAWN: Calibration = Calibration {
    slope: 15.0,
    threshold: 0.88,
};
const EMBEDDER: &str = "abc";

fn matcher(config: MultiCameraConfig) -> Matcher {
    Matcher::new(config, vec![(EMBEDDER.into(), CALIBRATION)])
}

/// A track of a person whose embedding points to `degrees`.
fn track(key: u64, camera: &str, times: (f64, f64), degrees: f32) -> CameraTrack {
    let (sin, cos) = degrees.to_radians().sin_cos();
    CameraTrack {
        key,
        camera: camera.into(),
        first: Seconds(times.0),
        last: Seconds(times.1),
        embedder: EMBEDDER.into(),
        embedding: vec![cos, sin],
    }
}

/// The person of each track, by key.
fn people(matcher: &mut Matcher, tracks: Vec<CameraTrack>) -> BTreeMap<u64, u64> {
    let mut decisions: Vec<Decision> = Vec::new();
    for t in tracks {
        decisions.extend(matcher.push(t).unwrap());
    }
    decisions.extend(matcher.finish());
    decisions.iter().map(|d| (d.key, d.person)).collect()
}

#[test]
fn people_keep_their_number_from_camera_to_camera() {
    let tracks = vec![
        track(1, "door", (0.0, 10.0), 0.0),
        track(2, "door", (5.0, 15.0), 90.0),
        track(3, "hall", (40.0, 50.0), 92.0),
        track(4, "hall", (42.0, 52.0), 3.0),
        track(5, "door", (300.0, 310.0), 1.0),
    ];
    let found = people(&mut matcher(MultiCameraConfig::default()), tracks);
    assert_eq!((found[&1], found[&2]), (1, 2));
    assert_eq!((found[&4], found[&3], found[&5]), (1, 2, 1));
}

#[test]
fn nobody_is_in_two_places_at_once() {
    // All of the same appearance.
    let tracks = vec![
        track(1, "door", (0.0, 10.0), 0.0),
        track(2, "door", (5.0, 15.0), 0.0),
        track(3, "hall", (6.0, 16.0), 0.0),
        track(4, "yard", (11.0, 20.0), 0.0),
    ];
    for delay in [0.0, 30.0] {
        let config = MultiCameraConfig::default()
            .with_delay(delay)
            .with_clocks(1.0);
        let found = people(&mut matcher(config), tracks.clone());
        assert!(found[&1] != found[&2], "one camera, at the same time");
        assert!(found[&3] != found[&1], "two cameras, at the same time");
        assert!(found[&3] != found[&2], "two cameras, at the same time");
        assert!(found[&4] != found[&2] && found[&4] != found[&3]);
    }
}

#[test]
fn tracks_that_arrive_out_of_order_get_the_same_people_as_in_order() {
    let (before, late, after) = (
        track(1, "door", (0.0, 10.0), 0.0),
        track(2, "hall", (20.0, 30.0), 4.0),
        track(3, "yard", (40.0, 45.0), 8.0),
    );
    let mut in_order = matcher(MultiCameraConfig::default());
    let expected = people(
        &mut in_order,
        vec![before.clone(), late.clone(), after.clone()],
    );
    let mut m = matcher(MultiCameraConfig::default());
    assert_eq!(people(&mut m, vec![before, after, late]), expected);
    assert!(expected.values().all(|person| *person == 1));
}

#[test]
fn waiting_tracks_are_assigned_together() {
    // The first track is nearer to the first person than the second is, but the second can only be
    // of the first person: the best pairs together give the first track to the second person.
    let config = MultiCameraConfig::default()
        .with_probability(0.0)
        .with_delay(20.0);
    let tracks = vec![
        track(1, "door", (0.0, 10.0), 0.0),
        track(2, "door", (2.0, 12.0), 30.0),
        track(3, "hall", (40.0, 50.0), 14.0),
        track(4, "hall", (41.0, 51.0), -16.0),
    ];
    let found = people(&mut matcher(config.clone()), tracks.clone());
    assert_eq!((found[&4], found[&3]), (1, 2));
    // Without a delay the first track takes the first person.
    let found = people(&mut matcher(config.with_delay(0.0)), tracks);
    assert_eq!(found[&3], 1);
}

#[test]
fn decisions_come_after_the_delay_and_never_change() {
    let mut m = matcher(MultiCameraConfig::default().with_delay(30.0));
    assert_eq!(m.push(track(1, "door", (0.0, 10.0), 0.0)).unwrap(), []);
    assert_eq!(m.push(track(2, "hall", (20.0, 39.0), 0.0)).unwrap(), []);
    assert_eq!(m.advance(Seconds(39.9)), []);
    let first = m.advance(Seconds(43.1));
    assert_eq!(first.len(), 1);
    assert_eq!((first[0].key, first[0].person, m.waiting()), (1, 1, 1));
    assert!((0.0..=1.0).contains(&first[0].probability));
    let second = m.advance(Seconds(72.1));
    assert_eq!((second[0].key, second[0].person), (2, 1));
    assert_eq!(m.advance(Seconds(1000.0)), []);
}

#[test]
fn a_person_who_was_forgotten_comes_back_under_a_new_number() {
    let config = MultiCameraConfig::default().with_remember(600.0);
    let tracks = |absence: f64| {
        vec![
            track(1, "door", (0.0, 10.0), 0.0),
            track(2, "door", (10.0 + absence, 20.0 + absence), 0.0),
        ]
    };
    let mut m = matcher(config.clone());
    let found = people(&mut m, tracks(500.0));
    assert_eq!((found[&1], found[&2]), (1, 1));
    let mut m = matcher(config);
    let found = people(&mut m, tracks(700.0));
    assert_eq!((found[&1], found[&2]), (1, 2));
    assert_eq!(m.people(), 1);
}

#[test]
fn embeddings_of_different_embedders_are_not_compared() {
    let other: Arc<str> = "other".into();
    let embedders = vec![(EMBEDDER.into(), CALIBRATION), (other.clone(), CALIBRATION)];
    let mut m = Matcher::new(MultiCameraConfig::default(), embedders);
    let mut second = track(2, "hall", (20.0, 30.0), 0.0);
    second.embedder = other;
    let found = people(&mut m, vec![track(1, "door", (0.0, 10.0), 0.0), second]);
    assert_ne!(found[&1], found[&2]);
}

#[test]
fn new_settings_apply_to_people_known_before() {
    let other: Arc<str> = "other".into();
    let mut m = matcher(MultiCameraConfig::default().with_delay(0.0));
    let first = m.push(track(1, "door", (0.0, 10.0), 0.0)).unwrap();
    assert_eq!(first[0].person, 1);
    // By the new calibration, embeddings at an angle of 60 degrees are of one person.
    let generous = Calibration {
        slope: 20.0,
        threshold: 1.5,
    };
    let embedders = vec![(EMBEDDER.into(), generous), (other.clone(), CALIBRATION)];
    let mut m = m.with_settings(MultiCameraConfig::default().with_delay(0.0), embedders);
    let second = m.push(track(2, "hall", (30.0, 40.0), 60.0)).unwrap();
    assert_eq!(second[0].person, 1);
    let mut third = track(3, "hall", (31.0, 41.0), 0.0);
    third.embedder = other;
    assert_eq!(m.push(third).unwrap()[0].person, 2);
}

#[test]
fn unusable_tracks_are_rejected_with_a_reason() {
    let mut m = matcher(MultiCameraConfig::default());
    let good = track(7, "door", (0.0, 10.0), 0.0);
    let mut rejected = |change: &dyn Fn(&mut CameraTrack)| {
        let mut t = good.clone();
        change(&mut t);
        m.push(t).unwrap_err()
    };
    assert_eq!(
        rejected(&|t| t.embedder = "unknown".into()),
        RejectedTrack::Uncalibrated("unknown".into())
    );
    for embedding in [vec![], vec![f32::NAN, 0.0], vec![0.3, 0.3]] {
        let reason = rejected(&|t| t.embedding = embedding.clone());
        assert_eq!(reason, RejectedTrack::Embedding(7));
    }
    assert_eq!(
        rejected(&|t| t.last = Seconds(-1.0)),
        RejectedTrack::Times(7)
    );
    assert_eq!(
        rejected(&|t| t.first = Seconds(f64::NAN)),
        RejectedTrack::Times(7)
    );
    assert_eq!(m.waiting(), 0);
    assert_eq!(m.push(good.clone()), Ok(Vec::new()));
    assert_eq!(m.push(good), Err(RejectedTrack::Repeated(7)));
    assert_eq!(m.finish().len(), 1);
}

fn scene(cameras: usize, people: usize, seed: u64) -> Vec<LabelledTrack> {
    let walks = WalkScene {
        cameras,
        people,
        duration: Seconds(3600.0),
        places: seed,
        walks: seed + 1,
    };
    dress(
        &walk(&walks),
        &drawn_people(people, 24, SPREAD, seed + 2),
        seed + 3,
    )
}

/// IDF1 by tracks over three scenes.
fn idf1(method: &Method) -> f64 {
    let judged = |seed| {
        let tracks = scene(8, 120, seed);
        let (found, _) = method.find(&tracks, &MultiCameraConfig::default(), OF_DRAWN);
        Judgement::of(&tracks, &found).by_track.idf1
    };
    [100, 200, 300].map(judged).iter().sum::<f64>() / 3.0
}

#[test]
fn a_learned_topology_finds_more_than_appearance_time_or_the_nearest_neighbour() {
    let learning = idf1(&Method::Learning);
    let alone = idf1(&Method::AppearanceAlone);
    let time = idf1(&Method::TimeAlone);
    let limits = [0.4, 0.5, 0.6, 0.7, 0.8];
    let nearest = limits.map(|limit| idf1(&Method::NearestNeighbour(limit)));
    let nearest = nearest.into_iter().fold(0.0, f64::max);
    let all = format!("learning {learning}, alone {alone}, time {time}, nearest {nearest}");
    assert!(learning > alone + 0.08, "{all}");
    assert!(learning > nearest + 0.08, "{all}");
    assert!(learning > time + 0.2, "{all}");
}

#[test]
fn a_topology_known_from_before_helps_from_the_first_track() {
    let before = scene(8, 120, 100);
    let (_, topology) = Method::Learning.find(&before, &MultiCameraConfig::default(), OF_DRAWN);
    let walks = WalkScene {
        cameras: 8,
        people: 120,
        duration: Seconds(3600.0),
        places: 100,
        walks: 999,
    };
    let tracks = dress(&walk(&walks), &drawn_people(120, 24, SPREAD, 998), 997);
    let judged = |method: Method| {
        let (found, _) = method.find(&tracks, &MultiCameraConfig::default(), OF_DRAWN);
        Judgement::of(&tracks, &found).by_track.idf1
    };
    let (known, learning) = (judged(Method::Known(topology)), judged(Method::Learning));
    assert!(
        known > learning + 0.01,
        "known {known}, learning {learning}"
    );
}

#[test]
fn a_restart_from_the_saved_state_gives_the_same_people() {
    let tracks = scene(5, 60, 50);
    let mut all = matcher_of_scene();
    let mut uninterrupted = Vec::new();
    for t in &tracks {
        uninterrupted.extend(all.push(t.track.clone()).unwrap());
    }
    uninterrupted.extend(all.finish());
    let mut m = matcher_of_scene();
    let mut restarted = Vec::new();
    for (k, t) in tracks.iter().enumerate() {
        restarted.extend(m.push(t.track.clone()).unwrap());
        if k % 40 == 39 {
            let state = serde_json::to_string(&m).unwrap();
            m = serde_json::from_str(&state).unwrap();
        }
    }
    restarted.extend(m.finish());
    let people = |decisions: &[Decision]| -> Vec<(u64, u64)> {
        decisions.iter().map(|d| (d.key, d.person)).collect()
    };
    assert!(tracks.len() > 200 && uninterrupted.len() == tracks.len());
    assert_eq!(people(&restarted), people(&uninterrupted));
}

fn matcher_of_scene() -> Matcher {
    Matcher::new(
        MultiCameraConfig::default(),
        vec![("simulated".into(), OF_DRAWN)],
    )
}

#[test]
fn memory_is_bounded() {
    let config = MultiCameraConfig::default()
        .with_people(50)
        .with_remember(1e6)
        .with_delay(3600.0);
    let mut m = matcher(config);
    let mut largest = 0;
    for key in 0..1500 {
        // Everybody is a stranger, and nothing is due: the number of waiting tracks is the limit.
        let at = key as f64 * 0.5;
        let degrees = key as f32 * 137.5;
        let camera = format!("{}", key % 40);
        m.push(track(key, &camera, (at, at + 5.0), degrees))
            .unwrap();
        assert!(m.people() <= 50 && m.waiting() <= 256);
        if key >= 700 && key % 20 == 0 {
            let size = serde_json::to_string(&m).unwrap().len();
            if key < 1000 {
                largest = largest.max(size);
            } else {
                assert!(size < largest + largest / 2, "{size} after {largest}");
            }
        }
    }
    assert!(m.waiting() > 100 && largest > 0);
}

#[test]
fn a_topology_survives_being_saved() {
    let tracks = scene(5, 60, 50);
    let (_, topology) = Method::Learning.find(&tracks, &MultiCameraConfig::default(), OF_DRAWN);
    let saved = serde_json::to_string(&topology).unwrap();
    let read: Topology = serde_json::from_str(&saved).unwrap();
    assert_eq!(read.cameras(), 5);
    assert_eq!(read.links(0.05), topology.links(0.05));
    assert!(topology.links(0.05).len() > 5);
}

#[test]
fn overlapping_fields_of_view_are_found_and_no_others() {
    let mut found = 0;
    for seed in [10, 20, 30] {
        let walks = WalkScene {
            cameras: 10,
            people: 300,
            duration: Seconds(3600.0),
            places: seed,
            walks: seed + 1,
        };
        let people = drawn_people(300, 24, SPREAD, seed + 2);
        let tracks = dress(&walk(&walks), &people, seed + 3);
        let config = MultiCameraConfig::default();
        let (_, topology) = Method::Learning.find(&tracks, &config, OF_DRAWN);
        let mut truth: Vec<[String; 2]> = overlapping(&walks)
            .iter()
            .map(|(a, b)| [format!("camera-{a}"), format!("camera-{b}")])
            .collect();
        truth.iter_mut().for_each(|pair| pair.sort());
        for (a, b) in topology.overlapping() {
            let mut pair = [a.to_string(), b.to_string()];
            pair.sort();
            assert!(truth.contains(&pair), "{pair:?} do not overlap");
            found += 1;
            truth.retain(|t| *t != pair);
        }
    }
    assert!(found >= 3, "{found} of 9 found");
}
