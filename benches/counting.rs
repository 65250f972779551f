//! Time that zones and lines take per frame, for 50 people who walk through the picture:
//!
//!     cargo bench --bench counting
//!
//! Twenty zones, or twenty zones and twenty lines, spread over the picture; a cycle of 1,000 frames
//! at 10 frames/s, in which people walk or run. Criterion reports the time of a frame.

use criterion::{Criterion, criterion_group, criterion_main};
use twintrack::analytics::{CountingConfig, LineConfig, Person, Scene, SceneConfig, ZoneConfig};

const SIZE: (u32, u32) = (1920, 1080);
const PEOPLE: u64 = 50;
const FRAMES: u64 = 1000;

/// `zones` zones of six corners in a grid, each about a quarter of a cell wide, and `lines` lines.
fn scene(zones: usize, lines: usize) -> Scene {
    let centre = |i: usize| [0.1 + 0.2 * (i % 5) as f64, 0.125 + 0.25 * (i / 5) as f64];
    let zone = |i: usize| {
        let [x, y] = centre(i);
        let corner = |k: usize| {
            let angle = std::f64::consts::TAU * k as f64 / 6.0;
            [x + 0.08 * angle.cos(), y + 0.1 * angle.sin()]
        };
        let zone = ZoneConfig::default().with_points((0..6).map(corner).collect::<Vec<_>>());
        (format!("zone-{i}"), zone)
    };
    let line = |i: usize| {
        let [x, y] = centre(i);
        let points = vec![[x - 0.08, y - 0.05], [x + 0.08, y + 0.05]];
        (
            format!("line-{i}"),
            LineConfig::default().with_points(points),
        )
    };
    let config = SceneConfig::default()
        .with_zones(
            (0..zones)
                .map(zone)
                .collect::<std::collections::BTreeMap<_, _>>(),
        )
        .with_lines(
            (0..lines)
                .map(line)
                .collect::<std::collections::BTreeMap<_, _>>(),
        );
    Scene::new(config, CountingConfig::default()).expect("the shapes are valid")
}

/// The people in a frame, who are 100 pixels tall: they move at `speed` pixels per second, turn at
/// the borders of the picture, and their boxes tremble by a pixel.
fn people(frame: u64, speed: f64) -> impl Iterator<Item = Person> {
    (0..PEOPLE).map(move |track| {
        let (seed, t) = (track as f64, frame as f64 / 10.0);
        let fold = |v: f64, size: f64| {
            let at = v.rem_euclid(2.0 * size);
            if at < size { at } else { 2.0 * size - at }
        };
        let angle = seed * 2.4;
        let tremble = ((frame * 7 + track * 13) % 5) as f64 / 2.0 - 1.0;
        let x = fold(37.0 * seed + speed * angle.cos() * t, f64::from(SIZE.0));
        let y = fold(91.0 * seed + speed * angle.sin() * t, f64::from(SIZE.1));
        Person {
            track,
            foot: [x + tremble, y + tremble],
            height: 100.0 + tremble,
        }
    })
}

fn bench(c: &mut Criterion) {
    // 1.4 m/s, of people 1.7 m tall, are 82 pixels per second.
    for (name, zones, lines, speed) in [
        ("20 zones, walking", 20, 0, 82.0),
        ("20 zones, running", 20, 0, 140.0),
        ("20 zones, 20 lines, walking", 20, 20, 82.0),
    ] {
        let frames = (0..FRAMES).map(|f| people(f, speed).collect());
        let frames: Vec<Vec<Person>> = frames.collect();
        let mut scene = scene(zones, lines);
        let (mut now, mut changes) = (0_u64, 0);
        c.bench_function(&format!("50 people, {name}"), |b| {
            b.iter(|| {
                let frame = &frames[(now % FRAMES) as usize];
                changes += scene
                    .frame(now as f64 / 10.0, SIZE, frame.iter().copied())
                    .len();
                now += 1;
            });
        });
        eprintln!("{:.2} changes per frame", changes as f64 / now as f64);
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
