//! The tracker as its users see it: identities over time.
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::collections::BTreeSet;

use ndarray::Array2;
use proptest::prelude::*;
use twintrack::detection::{Detection, Embeddings};
use twintrack::geometry::BBox;
use twintrack::time::Seconds;
use twintrack::track::{TrackError, TrackState, TrackUpdate, Tracker, TrackerConfig};

const FRAME: Seconds = Seconds(0.1);

fn person(x: f32, y: f32, confidence: f32) -> Detection {
    Detection {
        bbox: BBox::from_center(x, y, 40.0, 100.0),
        confidence,
    }
}

fn see(t: &mut Tracker, people: &[Detection]) -> TrackUpdate {
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
fn a_person_is_believed_at_the_second_detection_and_keeps_the_id() {
    let mut t = tracker();
    assert!(see(&mut t, &[person(100.0, 200.0, 0.9)]).tracks.is_empty());
    for i in 1..30 {
        let u = see(&mut t, &[person(100.0 + 6.0 * i as f32, 200.0, 0.9)]);
        assert_eq!(confirmed(&u), [1]);
        assert_eq!(u.tracks[0].hits, i + 1);
    }
}

#[test]
fn a_hidden_person_is_lost_then_found_again() {
    let mut t = tracker();
    (0..10).for_each(|i| drop(see(&mut t, &[person(100.0 + 3.0 * i as f32, 200.0, 0.9)])));
    for _ in 0..8 {
        let u = see(&mut t, &[]);
        assert_eq!((u.tracks.len(), u.tracks[0].state), (1, TrackState::Lost));
    }
    assert_eq!(confirmed(&see(&mut t, &[person(140.0, 200.0, 0.9)])), [1]);
}

#[test]
fn a_person_gone_too_long_ends_and_the_next_gets_a_new_id() {
    let mut t = tracker();
    (0..5).for_each(|_| drop(see(&mut t, &[person(100.0, 200.0, 0.9)])));
    let ended: Vec<_> = (0..40).flat_map(|_| see(&mut t, &[]).ended).collect();
    assert_eq!(
        ended.iter().map(|e| (e.id, e.hits)).collect::<Vec<_>>(),
        [(1, 5)]
    );
    assert!((ended[0].span.1.0 - 0.4).abs() < 1e-6);
    see(&mut t, &[person(100.0, 200.0, 0.9)]);
    assert_eq!(confirmed(&see(&mut t, &[person(100.0, 200.0, 0.9)])), [2]);
}

/// A walk of ten frames, then nobody for `away` seconds, then somebody at `x` who looks like this for two frames: the id. The
/// network says how often strangers are alike, or does not.
fn comes_back_to(strangers: Option<&str>, away: f64, x: f32, look: [f32; 2]) -> u64 {
    let mut t = tracker().with_strangers(strangers.map(|s| s.parse().unwrap()));
    let see = |t: &mut Tracker, x: f32, look: [f32; 2]| {
        let looks = Embeddings::all(Array2::from_shape_vec((1, 2), look.to_vec()).unwrap());
        t.update(&[person(x, 200.0, 0.9)], &looks, FRAME).unwrap()
    };
    (0..10).for_each(|_| drop(see(&mut t, 100.0, [1.0, 0.0])));
    (0..(away * 10.0) as usize)
        .for_each(|_| drop(t.update(&[], &Embeddings::none(), FRAME).unwrap()));
    see(&mut t, x, look);
    confirmed(&see(&mut t, x, look))[0]
}

fn comes_back(away: f64, x: f32, look: [f32; 2]) -> u64 {
    comes_back_to(Some("0.5@0.8,0.01@0.4,0.001@0.3"), away, x, look)
}

#[test]
fn a_lost_person_is_known_again_by_looks_if_he_could_have_walked_there() {
    assert_eq!(
        comes_back(4.0, 300.0, [1.0, 0.0]),
        1,
        "two heights away after four seconds"
    );
    assert_eq!(comes_back(4.0, 300.0, [0.0, 1.0]), 2, "somebody else");
    assert_eq!(
        comes_back(4.0, 2000.0, [1.0, 0.0]),
        2,
        "nobody walks that far"
    );
    assert_eq!(comes_back(8.0, 300.0, [1.0, 0.0]), 2, "too long ago");
    assert_eq!(
        comes_back_to(None, 4.0, 300.0, [1.0, 0.0]),
        2,
        "the network does not say how often strangers are alike"
    );
    assert_eq!(
        comes_back_to(Some("0.1@0.01"), 4.0, 300.0, [1.0, 0.0]),
        2,
        "strangers are often as alike as that"
    );
}

/// Six people come one after another, all in black to the network: unlike one another as the measured strangers are at best.
#[test]
fn people_who_come_one_after_another_have_an_id_each() {
    let mut t = tracker().with_strangers(Some(
        "0.5@0.3,0.1@0.15,0.02@0.08,0.01@0.06".parse().unwrap(),
    ));
    let mut ids = BTreeSet::new();
    for i in 0..6 {
        let angle = f32::from(i as u8) * 0.45;
        for f in 0..12 {
            let looks = Embeddings::all(
                Array2::from_shape_vec((1, 2), vec![angle.cos(), angle.sin()]).unwrap(),
            );
            ids.extend(confirmed(
                &t.update(&[person(100.0 + 5.0 * f as f32, 200.0, 0.9)], &looks, FRAME)
                    .unwrap(),
            ));
        }
        (0..35).for_each(|_| drop(t.update(&[], &Embeddings::none(), FRAME).unwrap()));
    }
    assert_eq!(ids.len(), 6);
}

#[test]
fn a_pan_told_from_the_pixels_keeps_everybody() {
    let two = |shift: f32| {
        [
            person(200.0 + shift, 200.0, 0.9),
            person(260.0 + shift, 200.0, 0.9),
        ]
    };
    let ids_after = |told: bool| {
        let config = TrackerConfig {
            camera_motion: twintrack::track::CameraMotionConfig {
                from_boxes: false,
                ..Default::default()
            },
            ..Default::default()
        };
        let mut t = Tracker::new(config);
        (0..10).for_each(|_| drop(see(&mut t, &two(0.0))));
        // The camera swings by exactly the distance between the two.
        if told {
            t.apply_camera_motion(&twintrack::geometry::Affine {
                shift: [60.0, 0.0],
                ..twintrack::geometry::Affine::IDENTITY
            });
        }
        let u = see(&mut t, &two(60.0));
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
        "without being told it cannot know"
    );
}

#[test]
fn a_sign_is_shown_no_longer_than_it_takes_to_know_it_and_a_person_there_is() {
    let mut t = tracker();
    let sign = person(100.0, 100.0, 0.65);
    let config = TrackerConfig {
        scenery: twintrack::track::scenery::SceneryConfig {
            confidence: 0.7,
            ..Default::default()
        },
        ..Default::default()
    };
    let mut with_sign = Tracker::new(config);
    let shown = (0..100)
        .filter(|_| !see(&mut with_sign, &[sign]).tracks.is_empty())
        .count();
    assert!((30..50).contains(&shown), "shown for {shown} of 100 frames");
    // It is known again after it was hidden for a while.
    (0..40).for_each(|_| drop(see(&mut with_sign, &[])));
    assert!((0..20).all(|_| see(&mut with_sign, &[sign]).tracks.is_empty()));
    let standing = person(100.0, 100.0, 0.9);
    assert_eq!(
        (0..100)
            .filter(|_| !see(&mut t, &[standing]).tracks.is_empty())
            .count(),
        99,
        "a person may stand still"
    );
}

#[test]
fn a_learned_head_decides_in_place_of_the_weights() {
    let head = |leaf: f32| {
        let text =
            format!(r#"{{"schema":"twintrack.head/1","base":0.0,"trees":[[{{"leaf":{leaf}}}]]}}"#);
        std::sync::Arc::new(
            twintrack::track::head::AssociationHead::new(&serde_json::from_str(&text).unwrap())
                .unwrap(),
        )
    };
    let ids = |leaf: f32| {
        let mut t = Tracker::new(TrackerConfig {
            head: Some(head(leaf)),
            confirm_hits: 1,
            ..TrackerConfig::default()
        });
        (0..10)
            .flat_map(|_| confirmed(&see(&mut t, &[person(100.0, 200.0, 0.9)])))
            .collect::<BTreeSet<u64>>()
            .len()
    };
    assert_eq!(ids(3.0), 1, "always the same person");
    assert_eq!(ids(-9.0), 10, "never the same person");
}

#[test]
fn an_output_names_the_detection_it_was_matched_to() {
    let mut t = tracker();
    let (a, b) = (person(100.0, 50.0, 0.9), person(500.0, 50.0, 0.9));
    for _ in 0..5 {
        see(&mut t, &[a, b]);
    }
    let index_of = |update: &TrackUpdate, x: f32| {
        let near = update
            .tracks
            .iter()
            .find(|o| (o.bbox.left - x).abs() < 100.0);
        near.expect("a track there").detection
    };
    let swapped = see(&mut t, &[b, a]);
    assert_eq!(
        (
            index_of(&swapped, a.bbox.left),
            index_of(&swapped, b.bbox.left)
        ),
        (Some(1), Some(0))
    );
    let one = see(&mut t, &[b]);
    assert_eq!(
        (index_of(&one, a.bbox.left), index_of(&one, b.bbox.left)),
        (None, Some(0))
    );
}

#[test]
fn an_unsure_detection_continues_a_track_but_starts_none() {
    let mut t = tracker();
    (0..5).for_each(|_| drop(see(&mut t, &[person(100.0, 200.0, 0.9)])));
    for _ in 0..5 {
        assert_eq!(
            confirmed(&see(
                &mut t,
                &[person(100.0, 200.0, 0.3), person(400.0, 200.0, 0.3)]
            )),
            [1]
        );
    }
}

#[test]
fn appearance_decides_where_places_do_not() {
    // Two people meet, stop side by side, and part the way they came: motion alone would let them pass through each other.
    let look = |i: usize| {
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
            (person(300.0 + x, 200.0, 0.9), look(0)),
            (person(300.0 - x, 200.0, 0.9), look(1)),
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
fn dropped_frames_do_not_matter_as_time_counts() {
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
fn a_senseless_box_or_time_is_refused_and_changes_nothing() {
    let mut t = tracker();
    (0..3).for_each(|_| drop(see(&mut t, &[person(100.0, 200.0, 0.9)])));
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
    assert_eq!(confirmed(&see(&mut t, &[person(100.0, 200.0, 0.9)])), [1]);
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
    fn the_order_of_the_detections_has_no_say(frames in frames(), seed in any::<u64>()) {
        let (mut a, mut b) = (tracker(), tracker());
        for people in &frames {
            let mut shuffled = people.clone();
            let n = shuffled.len().max(1);
            shuffled.rotate_left(seed as usize % n);
            if seed % 3 == 0 { shuffled.reverse(); }
            // A view names its detection by its place in the list; what lies there must be the same.
            let place = |mut u: TrackUpdate, list: &[Detection]| {
                let views: Vec<Option<Detection>> = u.tracks.iter_mut().map(|t| t.view.take().map(|v| list[v.detection])).collect();
                (u, views)
            };
            prop_assert_eq!(place(see(&mut a, people), people), place(see(&mut b, &shuffled), &shuffled));
        }
    }

    #[test]
    fn ids_are_unique_never_used_again_and_explained_by_detections(frames in frames(), looks in any::<bool>(), step in prop_oneof![Just(0.1), Just(1.7)]) {
        let mut t = tracker();
        let (mut ended, mut greatest) = (BTreeSet::new(), 0);
        for people in &frames {
            // With looks (one of four, by place) and long steps people are lost for long and known again.
            let look = |p: &Detection| (p.bbox.left / 100.0).floor().rem_euclid(4.0);
            let vectors: Vec<f32> = people.iter().flat_map(|p| [look(p).cos(), look(p).sin()]).collect();
            let embeddings = if looks { Embeddings::all(Array2::from_shape_vec((people.len(), 2), vectors).unwrap()) } else { Embeddings::none() };
            let u = t.update(people, &embeddings, Seconds(step)).unwrap();
            let ids: Vec<u64> = u.tracks.iter().map(|t| t.id).collect();
            prop_assert!(ids.windows(2).all(|w| w[0] < w[1]), "sorted and unique: {:?}", ids);
            prop_assert!(ids.iter().all(|i| !ended.contains(i)), "an ended id came back");
            for id in ids.iter().filter(|i| **i > greatest) {
                prop_assert!(*id >= 1);
            }
            greatest = greatest.max(ids.last().copied().unwrap_or(0));
            for c in u.tracks.iter().filter(|t| t.state == TrackState::Confirmed) {
                prop_assert!(people.iter().any(|p| p.bbox == c.bbox && p.confidence == c.confidence), "{:?} is no detection", c);
            }
            ended.extend(u.ended.iter().map(|e| e.id));
        }
        let last: Vec<u64> = t.finish().into_iter().map(|e| e.id).collect();
        prop_assert!(last.iter().all(|i| !ended.contains(i)));
        prop_assert_eq!(ended.len() + last.len(), t.confirmed() as usize, "every track ends exactly once");
    }
}
