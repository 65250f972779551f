//! The tracker through its public interface: ids over time.
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::collections::BTreeSet;

use ndarray::Array2;
use proptest::prelude::*;
use twintrack::detection::{Detection, Embeddings};
use twintrack::geometry::BBox;
use twintrack::time::Seconds;
use twintrack::track::scenery::SceneryConfig;
use twintrack::track::{
    CameraMotionConfig, TrackError, TrackState, TrackUpdate, Tracker, TrackerConfig,
};

const FRAME: Seconds = Seconds(0.1);

fn person(x: f32, y: f32, confidence: f32) -> Detection {
    Detection {
        bbox: BBox::from_center(x, y, 40.0, 100.0),
        confidence,
    }
}

/// Updates the tracker by a frame without embeddings.
fn step(t: &mut Tracker, people: &[Detection]) -> TrackUpdate {
    t.update(people, &Embeddings::none(), FRAME).unwrap()
}

fn tracker() -> Tracker {
    Tracker::new(TrackerConfig::default())
}

fn confirmed(u: &TrackUpdate) -> Vec<u64> {
    u.tracks
        .iter()
        .filter(|t| t.state == TrackState::Confirmed)
        .map(|t| t.id)
        .collect()
}

#[test]
fn a_track_is_confirmed_at_the_second_detection_and_keeps_its_id() {
    let mut t = tracker();
    assert!(step(&mut t, &[person(100.0, 200.0, 0.9)]).tracks.is_empty());
    for i in 1..30 {
        let u = step(&mut t, &[person(100.0 + 6.0 * i as f32, 200.0, 0.9)]);
        assert_eq!(confirmed(&u), [1]);
        assert_eq!(u.tracks[0].hits, i + 1);
    }
}

#[test]
fn a_track_without_detections_is_lost_and_confirmed_again_when_detected() {
    let mut t = tracker();
    (0..10).for_each(|i| drop(step(&mut t, &[person(100.0 + 3.0 * i as f32, 200.0, 0.9)])));
    for _ in 0..8 {
        let u = step(&mut t, &[]);
        assert_eq!((u.tracks.len(), u.tracks[0].state), (1, TrackState::Lost));
    }
    assert_eq!(confirmed(&step(&mut t, &[person(140.0, 200.0, 0.9)])), [1]);
}

#[test]
fn a_track_lost_for_too_long_ends_and_its_id_is_not_reused() {
    let mut t = tracker();
    (0..5).for_each(|_| drop(step(&mut t, &[person(100.0, 200.0, 0.9)])));
    let ended: Vec<_> = (0..40).flat_map(|_| step(&mut t, &[]).ended).collect();
    assert_eq!(
        ended.iter().map(|e| (e.id, e.hits)).collect::<Vec<_>>(),
        [(1, 5)]
    );
    assert!((ended[0].span.1.0 - 0.4).abs() < 1e-6);
    step(&mut t, &[person(100.0, 200.0, 0.9)]);
    assert_eq!(confirmed(&step(&mut t, &[person(100.0, 200.0, 0.9)])), [2]);
}

/// A person with the embedding [1, 0] is at x = 100 for ten frames; then there are no detections
/// for `absence` seconds; then a person with `embedding` is at `x` for two frames. Returns the id
/// of the second person. `strangers`: the embedder's false-accept rates.
fn id_after_absence(strangers: Option<&str>, absence: f64, x: f32, embedding: [f32; 2]) -> u64 {
    let mut t = tracker().with_strangers(strangers.map(|s| s.parse().unwrap()));
    let step = |t: &mut Tracker, x: f32, embedding: [f32; 2]| {
        let vectors = Array2::from_shape_vec((1, 2), embedding.to_vec()).unwrap();
        t.update(&[person(x, 200.0, 0.9)], &Embeddings::all(vectors), FRAME)
            .unwrap()
    };
    (0..10).for_each(|_| drop(step(&mut t, 100.0, [1.0, 0.0])));
    (0..(absence * 10.0) as usize)
        .for_each(|_| drop(t.update(&[], &Embeddings::none(), FRAME).unwrap()));
    step(&mut t, x, embedding);
    confirmed(&step(&mut t, x, embedding))[0]
}

#[test]
fn a_lost_person_is_reidentified_by_appearance_within_walking_distance() {
    let strangers = Some("0.5@0.8,0.01@0.4,0.001@0.3");
    let id = |absence, x, embedding| id_after_absence(strangers, absence, x, embedding);
    assert_eq!(
        id(4.0, 300.0, [1.0, 0.0]),
        1,
        "two heights away after four seconds"
    );
    assert_eq!(id(4.0, 300.0, [0.0, 1.0]), 2, "another person");
    assert_eq!(id(4.0, 2000.0, [1.0, 0.0]), 2, "too far to walk");
    assert_eq!(id(8.0, 300.0, [1.0, 0.0]), 2, "too long ago");
    assert_eq!(
        id_after_absence(None, 4.0, 300.0, [1.0, 0.0]),
        2,
        "how often strangers are alike is unknown"
    );
    assert_eq!(
        id_after_absence(Some("0.1@0.01"), 4.0, 300.0, [1.0, 0.0]),
        2,
        "strangers are often as similar"
    );
}

/// Six people appear one after another. Their embeddings are as similar as the most similar
/// strangers of the false-accept rates.
#[test]
fn similar_strangers_one_after_another_get_ids_of_their_own() {
    let mut t = tracker().with_strangers(Some(
        "0.5@0.3,0.1@0.15,0.02@0.08,0.01@0.06".parse().unwrap(),
    ));
    let mut ids = BTreeSet::new();
    for i in 0..6 {
        let angle = f32::from(i as u8) * 0.45;
        for f in 0..12 {
            let embeddings = Embeddings::all(
                Array2::from_shape_vec((1, 2), vec![angle.cos(), angle.sin()]).unwrap(),
            );
            let people = [person(100.0 + 5.0 * f as f32, 200.0, 0.9)];
            ids.extend(confirmed(&t.update(&people, &embeddings, FRAME).unwrap()));
        }
        (0..35).for_each(|_| drop(t.update(&[], &Embeddings::none(), FRAME).unwrap()));
    }
    assert_eq!(ids.len(), 6);
}

#[test]
fn ids_survive_a_pan_that_is_reported_to_the_tracker() {
    let two = |shift: f32| {
        [
            person(200.0 + shift, 200.0, 0.9),
            person(260.0 + shift, 200.0, 0.9),
        ]
    };
    let ids_after = |reported: bool| {
        let config = TrackerConfig::default()
            .with_camera_motion(CameraMotionConfig::default().with_from_boxes(false));
        let mut t = Tracker::new(config);
        (0..10).for_each(|_| drop(step(&mut t, &two(0.0))));
        // The camera pans by exactly the distance between the two.
        if reported {
            t.apply_camera_motion(&twintrack::geometry::Affine {
                shift: [60.0, 0.0],
                ..twintrack::geometry::Affine::IDENTITY
            });
        }
        let u = step(&mut t, &two(60.0));
        let of = |x: f32| {
            u.tracks
                .iter()
                .find(|t| (t.bbox.center().0 - x).abs() < 1.0)
                .map(|t| t.id)
        };
        (of(260.0), of(320.0))
    };
    assert_eq!(ids_after(true), (Some(1), Some(2)));
    assert_ne!(
        ids_after(false),
        (Some(1), Some(2)),
        "without the report the ids are swapped"
    );
}

#[test]
fn a_static_object_of_low_confidence_becomes_scenery_but_a_standing_person_does_not() {
    let mut t = tracker();
    let sign = person(100.0, 100.0, 0.65);
    let config =
        TrackerConfig::default().with_scenery(SceneryConfig::default().with_confidence(0.7));
    let mut with_sign = Tracker::new(config);
    let shown = (0..100)
        .filter(|_| !step(&mut with_sign, &[sign]).tracks.is_empty())
        .count();
    assert!((30..50).contains(&shown), "shown for {shown} of 100 frames");
    // After an occlusion the sign is still scenery.
    (0..40).for_each(|_| drop(step(&mut with_sign, &[])));
    assert!((0..20).all(|_| step(&mut with_sign, &[sign]).tracks.is_empty()));
    let standing = person(100.0, 100.0, 0.9);
    assert_eq!(
        (0..100)
            .filter(|_| !step(&mut t, &[standing]).tracks.is_empty())
            .count(),
        99,
        "a person may stand still"
    );
}

#[test]
fn an_association_head_replaces_the_cost_weights() {
    let head = |leaf: f32| {
        let text =
            format!(r#"{{"schema":"twintrack.head/1","base":0.0,"trees":[[{{"leaf":{leaf}}}]]}}"#);
        std::sync::Arc::new(
            twintrack::track::head::AssociationHead::new(&serde_json::from_str(&text).unwrap())
                .unwrap(),
        )
    };
    let ids = |leaf: f32| {
        let mut t = Tracker::new(
            TrackerConfig::default()
                .with_head(Some(head(leaf)))
                .with_confirm_hits(1),
        );
        (0..10)
            .flat_map(|_| confirmed(&step(&mut t, &[person(100.0, 200.0, 0.9)])))
            .collect::<BTreeSet<u64>>()
            .len()
    };
    assert_eq!(ids(3.0), 1, "always the same person");
    assert_eq!(ids(-9.0), 10, "never the same person");
}

#[test]
fn a_detection_of_low_confidence_continues_a_track_but_starts_none() {
    let mut t = tracker();
    (0..5).for_each(|_| drop(step(&mut t, &[person(100.0, 200.0, 0.9)])));
    for _ in 0..5 {
        assert_eq!(
            confirmed(&step(
                &mut t,
                &[person(100.0, 200.0, 0.3), person(400.0, 200.0, 0.3)]
            )),
            [1]
        );
    }
}

#[test]
fn appearance_keeps_ids_where_motion_is_ambiguous() {
    // Two people meet, stop side by side, and walk back. By motion alone the tracker would exchange
    // their ids.
    let embedding = |i: usize| {
        if i == 0 {
            [1.0f32, 0.0, 0.0]
        } else {
            [0.0, 1.0, 0.0]
        }
    };
    let mut t = tracker();
    let mut ids = Vec::new();
    for i in 0..40 {
        let x = if i < 20 {
            10.0 * (i as f32 - 20.0) - 10.0
        } else {
            10.0 * (20.0 - i as f32) - 10.0
        };
        let mut people = [
            (person(300.0 + x, 200.0, 0.9), embedding(0)),
            (person(300.0 - x, 200.0, 0.9), embedding(1)),
        ];
        if i % 2 == 1 {
            people.reverse();
        }
        let vectors =
            Array2::from_shape_vec((2, 3), people.iter().flat_map(|p| p.1).collect()).unwrap();
        let detections: Vec<Detection> = people.iter().map(|p| p.0).collect();
        let u = t
            .update(&detections, &Embeddings::all(vectors), FRAME)
            .unwrap();
        if u.tracks.len() == 2 {
            let left = u
                .tracks
                .iter()
                .min_by(|a, b| a.bbox.left.total_cmp(&b.bbox.left))
                .unwrap();
            ids.push(left.id);
        }
    }
    assert_eq!(
        ids.iter().collect::<BTreeSet<_>>().len(),
        1,
        "the person on the left is {ids:?}"
    );
}

#[test]
fn ids_do_not_depend_on_the_frame_rate() {
    for every in [1u32, 2, 3] {
        let mut t = tracker();
        let mut seen = BTreeSet::new();
        for i in (0..90).filter(|i| i % every == 0) {
            let s = i as f32 / 30.0;
            let people = [
                person(100.0 + 80.0 * s, 200.0, 0.9),
                person(600.0 - 80.0 * s, 330.0, 0.9),
            ];
            let u = t
                .update(
                    &people,
                    &Embeddings::none(),
                    Seconds(f64::from(every) / 30.0),
                )
                .unwrap();
            seen.extend(confirmed(&u));
        }
        assert_eq!(seen, BTreeSet::from([1, 2]), "every {every}. frame");
    }
}

#[test]
fn an_invalid_detection_or_time_is_rejected_and_changes_nothing() {
    let mut t = tracker();
    (0..3).for_each(|_| drop(step(&mut t, &[person(100.0, 200.0, 0.9)])));
    let bad = [
        Detection {
            bbox: BBox::new(f32::NAN, 0.0, 10.0, 20.0),
            confidence: 0.9,
        },
        Detection {
            bbox: BBox::new(0.0, 0.0, -10.0, 20.0),
            confidence: 0.9,
        },
        Detection {
            bbox: BBox::new(0.0, f32::INFINITY, 10.0, 20.0),
            confidence: 0.9,
        },
        Detection {
            bbox: BBox::new(0.0, 0.0, 10.0, 20.0),
            confidence: 1.5,
        },
        Detection {
            bbox: BBox::new(0.0, 0.0, 10.0, 20.0),
            confidence: f32::NAN,
        },
    ];
    for d in bad {
        let e = t
            .update(&[person(100.0, 200.0, 0.9), d], &Embeddings::none(), FRAME)
            .unwrap_err();
        assert!(
            matches!(e, TrackError::InvalidDetection { index: 1, .. })
                && e.to_string().contains("detection 1"),
            "{e}"
        );
    }
    for elapsed in [0.0, -0.1, f64::NAN, f64::INFINITY] {
        assert!(
            matches!(
                t.update(&[], &Embeddings::none(), Seconds(elapsed)),
                Err(TrackError::InvalidElapsed(_))
            ),
            "{elapsed}"
        );
    }
    assert_eq!(confirmed(&step(&mut t, &[person(100.0, 200.0, 0.9)])), [1]);
}

fn frames() -> impl Strategy<Value = Vec<Vec<Detection>>> {
    let detection =
        (0u32..600, 0u32..400, 20u32..60, 50u32..150, 0u8..=100).prop_map(|(x, y, w, h, c)| {
            Detection {
                bbox: BBox::new(x as f32, y as f32, w as f32, h as f32),
                confidence: f32::from(c) / 100.0,
            }
        });
    prop::collection::vec(prop::collection::vec(detection, 0..8), 1..25)
}

proptest! {
    #[test]
    fn the_order_of_the_detections_has_no_effect(frames in frames(), seed in any::<u64>()) {
        let (mut a, mut b) = (tracker(), tracker());
        for people in &frames {
            let mut shuffled = people.clone();
            let n = shuffled.len().max(1);
            shuffled.rotate_left(seed as usize % n);
            if seed % 3 == 0 { shuffled.reverse(); }
            // Indices of detections in views and tracks are replaced by the detections.
            let resolved = |mut u: TrackUpdate, list: &[Detection]| {
                let detections: Vec<[Option<Detection>; 2]> = u
                    .tracks
                    .iter_mut()
                    .map(|t| {
                        let view = t.view.take().map(|v| v.detection);
                        [view, t.detection.take()].map(|i| i.map(|i| list[i]))
                    })
                    .collect();
                (u, detections)
            };
            prop_assert_eq!(
                resolved(step(&mut a, people), people),
                resolved(step(&mut b, &shuffled), &shuffled)
            );
        }
    }

    #[test]
    fn ids_are_unique_and_never_reused_and_confirmed_tracks_have_a_detection(
        frames in frames(),
        with_embeddings in any::<bool>(),
        elapsed in prop_oneof![Just(0.1), Just(1.7)],
    ) {
        let mut t = tracker();
        let (mut ended, mut greatest) = (BTreeSet::new(), 0);
        for people in &frames {
            // With embeddings (four different ones, by position) and long time steps, people are
            // lost for a long time and re-identified.
            let angle = |p: &Detection| (p.bbox.left / 100.0).floor().rem_euclid(4.0);
            let vectors: Vec<f32> = people
                .iter()
                .flat_map(|p| [angle(p).cos(), angle(p).sin()])
                .collect();
            let embeddings = if with_embeddings {
                Embeddings::all(Array2::from_shape_vec((people.len(), 2), vectors).unwrap())
            } else {
                Embeddings::none()
            };
            let u = t.update(people, &embeddings, Seconds(elapsed)).unwrap();
            let ids: Vec<u64> = u.tracks.iter().map(|t| t.id).collect();
            prop_assert!(ids.windows(2).all(|w| w[0] < w[1]), "not unique or sorted: {:?}", ids);
            prop_assert!(ids.iter().all(|i| !ended.contains(i)), "an id was used after its end");
            for id in ids.iter().filter(|i| **i > greatest) {
                prop_assert!(*id >= 1);
            }
            greatest = greatest.max(ids.last().copied().unwrap_or(0));
            for c in u.tracks.iter().filter(|t| t.state == TrackState::Confirmed) {
                let detected = people
                    .iter()
                    .any(|p| p.bbox == c.bbox && p.confidence == c.confidence);
                prop_assert!(detected, "{:?} has no detection", c);
            }
            ended.extend(u.ended.iter().map(|e| e.id));
        }
        let last: Vec<u64> = t.finish().into_iter().map(|e| e.id).collect();
        prop_assert!(last.iter().all(|i| !ended.contains(i)));
        prop_assert_eq!(
            ended.len() + last.len(),
            t.confirmed() as usize,
            "every track ends exactly once"
        );
    }
}
