//! Which frames and events leave a camera's tracker, and when.

use super::*;
use crate::analytics::{MaskConfig, PointUnit};
use crate::geometry::BBox;
use crate::track::TrackerConfig;
use crate::trajectory::RunId;

fn tracker() -> CameraTracker {
    CameraTracker::new(
        Tracker::new(TrackerConfig::default()),
        EventBuilder::new(RunId::now_v7(), "c".into(), None),
        OutputConfig::default(),
    )
}

fn frame(number: u64) -> Frame {
    Frame {
        camera: "c".into(),
        number,
        pts: Seconds(0.1 * number as f64),
        time: None,
        width: 640,
        height: 480,
        image: None,
        restart: false,
    }
}

/// A person at `left`.
fn person(left: f32) -> Vec<Detection> {
    vec![Detection {
        bbox: BBox::new(left, 100.0, 40.0, 100.0),
        confidence: 0.9,
    }]
}

fn detect(t: &mut CameraTracker, number: u64, detections: Vec<Detection>) -> Vec<TrackedFrame> {
    let embedded = Embedded {
        frame: frame(number),
        arrived: Instant::now(),
        detections,
        embeddings: Embeddings::none(),
    };
    t.update(embedded, None).expect("valid")
}

fn skip(t: &mut CameraTracker, number: u64, live: bool) -> Vec<TrackedFrame> {
    t.predict(frame(number), Instant::now(), live)
        .expect("valid")
}

/// Number, whether the detector skipped it, and state and left edge of each track.
type Summary = (u64, bool, Vec<(TrackState, f64)>);

fn events(tracked: &[TrackedFrame]) -> Vec<Summary> {
    let frames = tracked.iter().filter_map(|t| t.frame.as_ref());
    frames
        .map(|f| {
            let tracks = f.event.tracks.iter().map(|t| (t.state, t.bbox[0]));
            (f.event.frame, f.event.skipped, tracks.collect())
        })
        .collect()
}

#[test]
fn skipped_frames_of_a_recording_wait_for_the_next_detection_and_are_interpolated() {
    let mut t = tracker();
    for n in 1..=5 {
        detect(&mut t, n, person(100.0));
    }
    assert!(skip(&mut t, 6, false).is_empty());
    assert!(skip(&mut t, 7, false).is_empty());
    let tracked = detect(&mut t, 8, person(130.0));
    let expected = [
        (6, true, vec![(TrackState::Interpolated, 110.0)]),
        (7, true, vec![(TrackState::Interpolated, 120.0)]),
        (8, false, vec![(TrackState::Confirmed, 130.0)]),
    ];
    assert_eq!(events(&tracked), expected);
    let seq = tracked.iter().filter_map(|t| t.frame.as_ref());
    assert_eq!(seq.map(|f| f.event.seq).collect::<Vec<_>>(), [6, 7, 8]);
}

#[test]
fn a_person_who_is_not_detected_again_is_shown_as_long_as_a_lost_one() {
    let mut t = tracker();
    for n in 1..=5 {
        detect(&mut t, n, person(100.0));
    }
    skip(&mut t, 6, false);
    skip(&mut t, 7, false);
    let tracked = events(&detect(&mut t, 8, Vec::new()));
    let states = |i: usize| -> Vec<TrackState> { tracked[i].2.iter().map(|t| t.0).collect() };
    assert_eq!(states(0), [TrackState::Lost], "0.1 s, as output.coast");
    assert_eq!((states(1), states(2)), (vec![], vec![]));
}

#[test]
fn skipped_frames_of_a_live_input_are_predicted_at_once() {
    let mut t = tracker();
    for n in 1..=5 {
        detect(&mut t, n, person(100.0 + 10.0 * n as f32));
    }
    let tracked = events(&skip(&mut t, 6, true));
    assert_eq!((tracked[0].0, tracked[0].1), (6, true));
    let (state, left) = tracked[0].2[0];
    assert_eq!(state, TrackState::Predicted);
    assert!((left - 160.0).abs() < 6.0, "{left}");
}

#[test]
fn frames_that_wait_are_released_before_a_restart_and_at_the_end() {
    let mut t = tracker();
    for n in 1..=5 {
        detect(&mut t, n, person(100.0));
    }
    skip(&mut t, 6, false);
    let restart = Frame {
        restart: true,
        ..frame(7)
    };
    let held = events(&t.begin(&restart, None));
    assert_eq!(held[0].0, 6);
    assert_eq!(held[0].2[0].0, TrackState::Predicted);
    let tracked = detect(&mut t, 7, person(100.0));
    assert_eq!(tracked[0].ended.len(), 1, "the track before the restart");
    detect(&mut t, 8, person(100.0));
    skip(&mut t, 9, false);
    let last = t.finish(None);
    assert_eq!(events(&last)[0].0, 9);
    assert_eq!(last.last().map(|l| l.ended.len()), Some(1));
}

#[test]
fn tracks_end_at_a_restart_mark_even_if_a_network_fails_on_its_frame() {
    let mut t = tracker();
    for n in 1..=5 {
        detect(&mut t, n, person(100.0));
    }
    let restart = Frame {
        restart: true,
        ..frame(6)
    };
    assert!(t.begin(&restart, None).is_empty());
    let tracked = detect(&mut t, 7, Vec::new());
    assert_eq!(tracked[0].ended.len(), 1);
}

/// Regression: on a GPU, where frames are embedded before the masks apply, the remaining detections
/// had the embeddings of others.
#[test]
fn detections_outside_masks_keep_their_embeddings() {
    let mask = MaskConfig::default()
        .with_points(vec![[0.0, 0.0], [200.0, 0.0], [200.0, 480.0], [0.0, 480.0]])
        .with_unit(PointUnit::Pixel);
    let scene = SceneConfig::default().with_masks([("left".to_string(), mask)].into());
    let mut t = tracker().with_scene(scene, &CountingConfig::default());
    let mut detections: Vec<Detection> =
        [300.0, 100.0, 500.0].into_iter().flat_map(person).collect();
    let vectors = ndarray::array![[1.0, 0.0], [0.0, 1.0]];
    let mut embeddings = Embeddings::of(vectors, &[0, 2], 3);
    t.remove_masked(&frame(1), &mut detections, &mut embeddings);
    assert_eq!(detections, [person(300.0), person(500.0)].concat());
    let of = |i: usize| embeddings.get(i).map(|v| v.to_vec());
    assert_eq!((of(0), of(1)), (Some(vec![1.0, 0.0]), Some(vec![0.0, 1.0])));
    assert_eq!((of(2), embeddings.len()), (None, 2));
}
