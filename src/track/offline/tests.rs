use super::*;

const RATE: f64 = 10.0;

fn times(n: usize) -> Vec<Seconds> {
    (0..n).map(|f| Seconds(f as f64 / RATE)).collect()
}

/// A person walking at 60 pixels per second, detected in the given frames.
fn walker(id: u64, x: f32, y: f32, frames: std::ops::Range<usize>) -> Tracklet {
    let at = |frame: usize| BBox::from_center(x + 6.0 * frame as f32, y, 40.0, 100.0);
    Tracklet {
        id,
        detections: frames
            .map(|frame| DetectedBox {
                frame,
                bbox: at(frame),
                confidence: 0.9,
            })
            .collect(),
        embedding: Vec::new(),
    }
}

fn linked(tracklets: &[Tracklet], frames: usize, config: &OfflineConfig) -> Vec<LinkedTrajectory> {
    link(tracklets, &times(frames), config, &TrackerConfig::default())
}

#[test]
fn two_tracklets_of_one_walk_are_linked_and_the_gap_is_filled() {
    let trajectories = linked(
        &[walker(1, 0.0, 200.0, 0..20), walker(2, 0.0, 200.0, 23..50)],
        50,
        &OfflineConfig::default(),
    );
    assert_eq!(trajectories.len(), 1);
    assert_eq!(trajectories[0].parts, [0, 1]);
    assert_eq!(
        trajectories[0]
            .boxes
            .iter()
            .map(|s| s.frame)
            .collect::<Vec<_>>(),
        (0..50).collect::<Vec<_>>()
    );
    let hidden = trajectories[0].boxes[21];
    assert!(
        !hidden.seen && (hidden.bbox.center().0 - 126.0).abs() < 1.0,
        "{hidden:?}"
    );
}

#[test]
fn tracklets_too_far_apart_in_space_or_time_are_not_linked() {
    let config = OfflineConfig::default();
    assert_eq!(
        linked(
            &[
                walker(1, 0.0, 200.0, 0..20),
                walker(2, 300.0, 200.0, 26..50)
            ],
            50,
            &config
        )
        .len(),
        2
    );
    assert_eq!(
        linked(
            &[walker(1, 0.0, 200.0, 0..20), walker(2, 0.0, 200.0, 60..90)],
            90,
            &config
        )
        .len(),
        2
    );
}

#[test]
fn the_total_cost_of_all_links_decides() {
    // Two people walk side by side behind a pillar. Each must be linked to their own second
    // tracklet, in any order of the input.
    let (a, b) = (walker(1, 0.0, 200.0, 0..20), walker(2, 0.0, 225.0, 0..20));
    let (c, d) = (walker(3, 0.0, 201.0, 25..50), walker(4, 0.0, 226.0, 25..50));
    let trajectories = linked(
        &[d.clone(), a.clone(), c.clone(), b.clone()],
        50,
        &OfflineConfig::default(),
    );
    assert_eq!(
        trajectories
            .iter()
            .map(|w| w.parts.clone())
            .collect::<Vec<_>>(),
        [vec![1, 2], vec![3, 0]]
    );
}

#[test]
fn appearance_can_prevent_or_enable_a_link() {
    let config = OfflineConfig {
        appearance_scale: 0.3,
        ..OfflineConfig::default()
    };
    let with = |mut t: Tracklet, appearance: [f32; 2]| {
        t.embedding = appearance.to_vec();
        t
    };
    let first = with(walker(1, 0.0, 200.0, 0..20), [1.0, 0.0]);
    assert_eq!(
        linked(
            &[
                first.clone(),
                with(walker(2, 0.0, 200.0, 26..50), [0.0, 1.0])
            ],
            50,
            &config
        )
        .len(),
        2
    );
    // The second tracklet is half a height from the predicted position: too far to link by motion
    // alone, but near enough if the appearance matches.
    assert_eq!(
        linked(
            &[walker(1, 0.0, 200.0, 0..20), walker(2, 60.0, 200.0, 26..50)],
            50,
            &config
        )
        .len(),
        2
    );
    assert_eq!(
        linked(
            &[first, with(walker(2, 60.0, 200.0, 26..50), [1.0, 0.0])],
            50,
            &config
        )
        .len(),
        1
    );
}

#[test]
fn a_rarely_detected_trajectory_is_dropped() {
    let mut sparse = walker(1, 0.0, 200.0, 0..40);
    sparse.detections.retain(|s| s.frame % 4 == 0);
    assert!(linked(&[sparse.clone()], 40, &OfflineConfig::default()).is_empty());
    assert_eq!(
        linked(
            &[sparse],
            40,
            &OfflineConfig {
                min_share: 0.2,
                ..OfflineConfig::default()
            }
        )
        .len(),
        1
    );
}

#[test]
fn gaps_are_filled_relative_to_the_moving_camera() {
    // The camera jerks by 80 pixels and back while person 1 is hidden; four others show the
    // movement.
    let jerk = |frame: usize| if (22..24).contains(&frame) { 80.0 } else { 0.0 };
    let shaken = |mut t: Tracklet| {
        t.detections
            .iter_mut()
            .for_each(|s| s.bbox.left += jerk(s.frame));
        t
    };
    let mut hidden = walker(1, 0.0, 200.0, 0..50);
    hidden.detections.retain(|s| !(20..26).contains(&s.frame));
    let others = (2..6).map(|i| walker(i, 150.0 * i as f32, 240.0, 0..50));
    let all: Vec<Tracklet> = std::iter::once(hidden).chain(others).map(shaken).collect();
    let trajectory = &linked(&all, 50, &OfflineConfig::default())[0];
    let x = trajectory.boxes[23].bbox.center().0;
    assert!((x - (138.0 + 80.0)).abs() < 15.0, "filled in at {x}");
}
