//! Counting: its properties for any path, and the changes that a scene reports.

use proptest::prelude::*;

use crate::analytics::boundary::{Boundary, Sample};
use crate::analytics::passage::{Crossing, Passage};
use crate::analytics::*;

/// Seconds between two corners of a path, which a camera with 5 frames/s sees.
const STEP: f64 = 0.2;

/// The samples of a path with a corner every [`STEP`], at `per_step` frames between two corners.
fn samples(path: &[(f64, f64, f64)], per_step: usize) -> Vec<Sample> {
    let corner = |i: usize| {
        let (x, y, height) = path[i];
        Sample {
            at: i as f64 * STEP,
            foot: [x, y],
            margin: 0.05 * height,
        }
    };
    let between = |i: usize| {
        let (a, b) = (corner(i), corner(i + 1));
        (0..per_step).map(move |k| {
            let share = k as f64 / per_step as f64;
            let mix = |a: f64, b: f64| a + share * (b - a);
            Sample {
                at: mix(a.at, b.at),
                foot: [mix(a.foot[0], b.foot[0]), mix(a.foot[1], b.foot[1])],
                margin: mix(a.margin, b.margin),
            }
        })
    };
    let last = path.len() - 1;
    (0..last).flat_map(between).chain([corner(last)]).collect()
}

/// The crossings of a line by a path.
fn line_crossings(line: &Boundary, samples: &[Sample], hold: f64) -> Vec<Crossing> {
    let mut found = Vec::new();
    let mut passage = Passage::begin(line, &samples[0]);
    for pair in samples.windows(2) {
        passage.step(line, &pair[0], &pair[1], hold, |c| found.push(c));
    }
    passage.finish(None, hold, |c| found.push(c));
    found
}

/// The entries and exits of a zone by a path, the stays at its begin and end included.
fn zone_crossings(zone: &Boundary, samples: &[Sample], hold: f64) -> Vec<Crossing> {
    let mut found = Vec::new();
    let last = samples[samples.len() - 1];
    let mut passage = if zone.contains(samples[0].foot) {
        Passage::begin_inside(zone, &samples[0])
    } else {
        Passage::begin(zone, &samples[0])
    };
    for pair in samples.windows(2) {
        passage.step(zone, &pair[0], &pair[1], hold, |c| found.push(c));
    }
    let inside = zone.contains(last.foot).then_some(last.at);
    passage.finish(inside, hold, |c| found.push(c));
    found
}

fn reversed(path: &[(f64, f64, f64)]) -> Vec<(f64, f64, f64)> {
    path.iter().rev().copied().collect()
}

fn nets(crossings: &[Crossing]) -> Vec<i32> {
    crossings.iter().map(|c| c.net).collect()
}

/// Paths of a person between 40 and 60 pixels tall in a picture of 100 by 100 pixels.
fn paths() -> impl Strategy<Value = Vec<(f64, f64, f64)>> {
    proptest::collection::vec((0.0..100.0, 0.0..100.0, 40.0..60.0), 2..30)
}

/// Paths that stay near a line at y = 50, as of a person who waits at it.
fn paths_along() -> impl Strategy<Value = Vec<(f64, f64, f64)>> {
    proptest::collection::vec((0.0..100.0, 44.0..56.0, 40.0..60.0), 2..30)
}

/// A line that no path of [`paths`] can go around.
fn long_line() -> Boundary {
    Boundary::line(vec![[-1000.0, 50.0], [1000.0, 50.0]])
}

fn short_line() -> Boundary {
    Boundary::line(vec![[30.0, 40.0], [50.0, 55.0], [70.0, 50.0]])
}

/// A zone with a corner that points inwards.
fn zone() -> Boundary {
    Boundary::polygon(vec![
        [20.0, 20.0],
        [80.0, 25.0],
        [50.0, 50.0],
        [75.0, 85.0],
        [25.0, 80.0],
    ])
}

fn same(a: &[Crossing], b: &[Crossing]) -> bool {
    a.len() == b.len()
        && a.iter()
            .zip(b)
            .all(|(a, b)| a.net == b.net && (a.at - b.at).abs() < 1e-6)
}

proptest! {
    #[test]
    fn crossings_add_up_to_the_sides_on_which_a_path_begins_and_ends(
        path in prop_oneof![paths(), paths_along()], hold in 0.0..1.0,
    ) {
        let found = line_crossings(&long_line(), &samples(&path, 1), hold);
        let is_below = |p: &(f64, f64, f64)| i32::from(p.1 >= 50.0);
        let (begin, end) = (is_below(&path[0]), is_below(&path[path.len() - 1]));
        prop_assert_eq!(nets(&found).iter().sum::<i32>(), end - begin);
        // On a line without ends, directions alternate.
        prop_assert!(nets(&found).windows(2).all(|p| p[0] == -p[1]), "{:?}", found);
    }

    #[test]
    fn a_reversed_path_has_in_and_out_swapped(
        path in prop_oneof![paths(), paths_along()], hold in 0.0..1.0,
    ) {
        for line in [long_line(), short_line()] {
            let there = line_crossings(&line, &samples(&path, 1), hold);
            let back = line_crossings(&line, &samples(&reversed(&path), 1), hold);
            let (there, mut back) = (nets(&there), nets(&back));
            back.reverse();
            let swapped: Vec<i32> = back.iter().map(|n| -n).collect();
            prop_assert_eq!(there, swapped);
        }
    }

    #[test]
    fn crossings_do_not_depend_on_the_frame_rate(
        path in prop_oneof![paths(), paths_along()], hold in 0.0..1.0,
    ) {
        for per_step in [2, 3, 6] {
            for line in [long_line(), short_line()] {
                let slow = line_crossings(&line, &samples(&path, 1), hold);
                let fast = line_crossings(&line, &samples(&path, per_step), hold);
                prop_assert!(same(&slow, &fast), "{:?} {:?}", slow, fast);
            }
            let slow = zone_crossings(&zone(), &samples(&path, 1), hold);
            let fast = zone_crossings(&zone(), &samples(&path, per_step), hold);
            prop_assert!(same(&slow, &fast), "{:?} {:?}", slow, fast);
        }
    }

    #[test]
    fn entries_and_exits_of_a_zone_alternate_and_are_equal_in_number(
        path in prop_oneof![paths(), paths_along()], hold in 0.0..1.0,
    ) {
        let found = nets(&zone_crossings(&zone(), &samples(&path, 1), hold));
        prop_assert!(found.iter().enumerate().all(|(i, n)| *n == [1, -1][i % 2]), "{:?}", found);
        prop_assert_eq!(found.len() % 2, 0);
    }

    #[test]
    fn without_hold_and_margin_every_change_of_side_counts(path in paths()) {
        let thin: Vec<_> = path.iter().map(|p| (p.0, p.1, 1e-6)).collect();
        let found = line_crossings(&long_line(), &samples(&thin, 1), 0.0);
        let changes = path.windows(2).filter(|p| (p[0].1 >= 50.0) != (p[1].1 >= 50.0)).count();
        prop_assert_eq!(found.len(), changes);
    }
}

#[test]
fn somebody_on_the_border_does_not_flicker() {
    let path: Vec<(f64, f64, f64)> = (0..100)
        .map(|i| {
            (
                30.0 + 0.2 * f64::from(i),
                50.0 + [2.0, -2.0][i as usize % 2],
                50.0,
            )
        })
        .collect();
    let waiting = samples(&path, 1);
    assert!(line_crossings(&long_line(), &waiting, 0.0).len() <= 1);
    let mut through = path.clone();
    through[0].1 = 20.0;
    through.push((50.0, 80.0, 50.0));
    assert_eq!(
        nets(&line_crossings(&long_line(), &samples(&through, 1), 0.5)),
        [1]
    );
}

#[test]
fn a_box_that_jumps_for_some_frames_counts_nothing() {
    let mut path = vec![(50.0, 30.0, 50.0); 20];
    path[10].1 = 80.0;
    assert!(line_crossings(&long_line(), &samples(&path, 1), 0.5).is_empty());
    let without_hold = line_crossings(&long_line(), &samples(&path, 1), 0.1);
    assert_eq!(nets(&without_hold), [1, -1]);
}

#[test]
fn a_way_around_the_end_of_a_line_is_no_crossing() {
    let around = [
        (50.0, 20.0, 40.0),
        (90.0, 20.0, 40.0),
        (90.0, 80.0, 40.0),
        (50.0, 80.0, 40.0),
    ];
    assert!(line_crossings(&short_line(), &samples(&around, 1), 0.0).is_empty());
}

// ---- scenes ----

const SIZE: (u32, u32) = (200, 100);

fn scene(config: SceneConfig) -> Scene {
    Scene::new(config, CountingConfig::default()).expect("valid")
}

/// The right half of the picture.
fn half() -> ZoneConfig {
    ZoneConfig::default().with_points(vec![[0.5, 0.0], [1.0, 0.0], [1.0, 1.0], [0.5, 1.0]])
}

fn with_zone(zone: ZoneConfig) -> Scene {
    scene(SceneConfig::default().with_zones([("half".to_string(), zone)].into()))
}

fn person(track: u64, x: f64) -> Person {
    Person {
        track,
        foot: [x, 50.0],
        height: 50.0,
    }
}

/// The changes of a person who is at `x(t)` at 10 frames/s for `seconds`.
fn walk(scene: &mut Scene, seconds: f64, x: impl Fn(f64) -> f64) -> Vec<Change> {
    let frames = (seconds * 10.0) as usize;
    let at = |i: usize| i as f64 / 10.0;
    (0..=frames)
        .flat_map(|i| scene.frame(at(i), SIZE, [person(1, x(at(i)))]))
        .collect()
}

fn kinds(changes: &[Change]) -> Vec<ZoneKind> {
    let zone = |c: &Change| match c {
        Change::Zone(z) => Some(z.kind),
        Change::Line(_) => None,
    };
    changes.iter().filter_map(zone).collect()
}

#[test]
fn a_stay_has_its_times_and_its_length() {
    let mut scene = with_zone(half().with_dwell(Some(2.0)));
    // Enters at x = 100 after 2 s, turns at 150, leaves 10 s later.
    let changes = walk(&mut scene, 16.0, |t| {
        if t < 7.0 {
            60.0 + 20.0 * t
        } else {
            340.0 - 20.0 * t
        }
    });
    assert_eq!(
        kinds(&changes),
        [ZoneKind::Enter, ZoneKind::Dwell, ZoneKind::Leave]
    );
    let Change::Zone(leave) = &changes[2] else {
        panic!("a zone")
    };
    assert!((leave.at - 12.0).abs() < 1e-9 && (leave.stay.unwrap() - 10.0).abs() < 1e-9);
    let Change::Zone(dwell) = &changes[1] else {
        panic!("a zone")
    };
    assert!((dwell.at - 4.0).abs() < 1e-9 && dwell.occupancy == 1);
}

#[test]
fn a_track_that_begins_and_ends_in_a_zone_enters_and_leaves_it() {
    let mut scene = with_zone(half());
    let mut changes = walk(&mut scene, 3.0, |_| 150.0);
    assert_eq!(scene.zones_of(1).count(), 1);
    changes.extend(scene.end(1));
    assert_eq!(kinds(&changes), [ZoneKind::Enter, ZoneKind::Leave]);
    for change in &changes {
        assert!(matches!(change, Change::Zone(z) if z.point.is_none()));
    }
    assert_eq!(scene.view().zones[0].occupancy, 0);
}

#[test]
fn a_lost_and_found_track_crosses_a_line_once() {
    let line = LineConfig::default().with_points(vec![[100.0, 0.0], [100.0, 100.0]]);
    let mut scene = scene(SceneConfig::default().with_lines([("door".to_string(), line)].into()));
    let mut changes = Vec::new();
    for i in 0..100_u32 {
        let t = f64::from(i) / 10.0;
        // Hidden from x = 90 to x = 130.
        let x = 60.0 + 10.0 * t;
        let seen = !(90.0..130.0).contains(&x);
        changes.extend(scene.frame(t, SIZE, seen.then(|| person(1, x))));
    }
    let [Change::Line(crossing)] = &changes[..] else {
        panic!("{changes:?}")
    };
    assert_eq!(
        (crossing.direction, crossing.inwards, crossing.outwards),
        (Direction::Out, 0, 1)
    );
    assert_eq!(crossing.point, Some([100.0, 50.0]));
}

#[test]
fn the_wrong_direction_is_marked() {
    let line = LineConfig::default()
        .with_points(vec![[0.5, 0.0], [0.5, 1.0]])
        .with_wrong(Some(Direction::Out));
    let mut scene = scene(SceneConfig::default().with_lines([("door".to_string(), line)].into()));
    let changes = walk(&mut scene, 20.0, |t| {
        if t < 10.0 {
            50.0 + 10.0 * t
        } else {
            250.0 - 10.0 * t
        }
    });
    let wrong: Vec<bool> = changes
        .iter()
        .map(|c| matches!(c, Change::Line(l) if l.wrong))
        .collect();
    assert_eq!(wrong, [true, false]);
}

#[test]
fn too_many_people_are_told_once_and_again_when_they_are_fewer() {
    let mut scene = with_zone(half().with_limit(Some(1)));
    let mut changes = Vec::new();
    for i in 0..100 {
        let t = f64::from(i) / 10.0;
        let second = (20..60).contains(&i).then(|| person(2, 150.0));
        changes.extend(scene.frame(
            t,
            SIZE,
            [Some(person(1, 120.0)), second].into_iter().flatten(),
        ));
        if i == 60 {
            changes.extend(scene.end(2));
        }
    }
    let expected = [
        ZoneKind::Enter,
        ZoneKind::Enter,
        ZoneKind::OverLimit,
        ZoneKind::Leave,
        ZoneKind::WithinLimit,
    ];
    assert_eq!(kinds(&changes), expected);
}

#[test]
fn masks_hide_detections_or_positions() {
    let mask = |ignore| {
        let points = vec![[0.0, 0.0], [0.5, 0.0], [0.5, 1.0], [0.0, 1.0]];
        MaskConfig::default()
            .with_points(points)
            .with_ignore(ignore)
    };
    let masked = |ignore| {
        let whole = vec![[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]];
        let zone = ZoneConfig::default().with_points(whole);
        let config = SceneConfig::default()
            .with_zones([("all".to_string(), zone)].into())
            .with_masks([("left".to_string(), mask(ignore))].into());
        scene(config)
    };
    let mut detections = masked(Ignore::Detections);
    assert!(detections.ignores_detection([50.0, 50.0], SIZE));
    assert!(!detections.ignores_detection([150.0, 50.0], SIZE));
    // Frames of another size, also while people are in the picture.
    walk(&mut detections, 1.0, |_| 150.0);
    let twice = (2 * SIZE.0, 2 * SIZE.1);
    assert!(detections.ignores_detection([150.0, 50.0], twice));
    assert!(!detections.ignores_detection([250.0, 50.0], twice));
    let mut counting = masked(Ignore::Counting);
    assert!(!counting.ignores_detection([50.0, 50.0], SIZE));
    assert!(walk(&mut counting, 3.0, |_| 50.0).is_empty(), "not counted");
    assert_eq!(
        kinds(&walk(&mut counting, 3.0, |_| 150.0)),
        [ZoneKind::Enter]
    );
}

#[test]
fn a_change_of_the_frames_size_moves_the_shapes() {
    let mut scene = with_zone(half());
    assert_eq!(kinds(&walk(&mut scene, 3.0, |_| 150.0)), [ZoneKind::Enter]);
    let changes = scene.frame(4.0, (400, 200), [person(2, 150.0)]);
    assert_eq!(
        kinds(&changes),
        [ZoneKind::Leave],
        "tracks do not outlive their frame size"
    );
    assert!(
        scene.frame(6.0, (400, 200), [person(2, 150.0)]).is_empty(),
        "the left half now"
    );
}

#[test]
fn new_settings_keep_the_counts_of_zones_that_remain() {
    let mut scene = with_zone(half());
    walk(&mut scene, 3.0, |_| 150.0);
    let new = with_zone(half().with_limit(Some(3)));
    assert_eq!(kinds(&scene.replace(new, 3.0)), [ZoneKind::Leave]);
    let view = scene.view();
    assert_eq!((view.zones[0].entered, view.zones[0].left), (1, 1));
}

#[test]
fn shapes_in_metres_lie_on_the_ground() {
    // 10 pixels a metre, origin at the top left corner.
    let pairs = vec![
        [0.0, 0.0, 0.0, 0.0],
        [100.0, 0.0, 10.0, 0.0],
        [100.0, 50.0, 10.0, 5.0],
        [0.0, 50.0, 0.0, 5.0],
    ];
    let zone = ZoneConfig::default()
        .with_points(vec![[10.0, 0.0], [20.0, 0.0], [20.0, 10.0], [10.0, 10.0]])
        .with_unit(PointUnit::Metre);
    let config = SceneConfig::default()
        .with_zones([("far".to_string(), zone)].into())
        .with_ground(Some(GroundConfig::default().with_pairs(pairs)));
    let mut scene = scene(config);
    scene.frame(0.0, SIZE, []);
    let corner = scene.view().zones[0].points[0];
    assert!(
        (corner[0] - 100.0).abs() < 1e-6 && corner[1].abs() < 1e-6,
        "{corner:?}"
    );
}

#[test]
fn unusable_shapes_are_rejected_with_their_key() {
    let zone = |points: &[[f64; 2]]| {
        let zone = ZoneConfig::default().with_points(points.to_vec());
        let config = SceneConfig::default().with_zones([("z".to_string(), zone)].into());
        config
            .validate("cameras.gate.")
            .expect_err("unusable")
            .to_string()
    };
    let two = zone(&[[0.0, 0.0], [1.0, 1.0]]);
    assert!(
        two.contains("cameras.gate.zones.z") && two.contains("2 points"),
        "{two}"
    );
    let bow = zone(&[[0.0, 0.0], [1.0, 1.0], [1.0, 0.0], [0.0, 1.0]]);
    assert!(bow.contains("edges 1 and 3 cross"), "{bow}");
    let flat = zone(&[[0.0, 0.0], [1.0, 0.0], [0.5, 0.0]]);
    assert!(flat.contains("no area") || flat.contains("cross"), "{flat}");
    assert!(zone(&[[0.0, 0.0], [0.0, 0.0], [1.0, 1.0], [1.0, 0.0]]).contains("1 and 2 are equal"));
    assert!(zone(&[[0.0, f64::NAN], [1.0, 0.0], [1.0, 1.0]]).contains("NaN"));
    let spike = zone(&[[0.0, 0.0], [10.0, 0.0], [5.0, 0.0], [5.0, 5.0]]);
    assert!(spike.contains("cross"), "{spike}");
    let named = SceneConfig::default()
        .with_zones([("a/b".to_string(), half())].into())
        .validate("")
        .expect_err("a name for topics");
    assert!(named.to_string().contains("letters, digits"));
    let metres = half().with_unit(PointUnit::Metre);
    let config = SceneConfig::default().with_zones([("z".to_string(), metres)].into());
    assert!(
        config
            .validate("")
            .expect_err("no ground")
            .to_string()
            .contains("ground")
    );
}

/// Regression: a zone that was removed and added again counted from 0.
#[test]
fn a_zone_that_comes_back_counts_on() {
    let mut scene = with_zone(half());
    walk(&mut scene, 3.0, |_| 150.0);
    scene.replace(Scene::default(), 3.0);
    scene.replace(with_zone(half()), 3.0);
    let view = scene.view();
    assert_eq!((view.zones[0].entered, view.zones[0].left), (1, 1));
}
