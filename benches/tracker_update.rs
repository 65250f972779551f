//! Time of one `Tracker::update` without pixels, by number of people: `cargo bench --bench
//! tracker_update`
#![allow(
    missing_docs,
    reason = "criterion's macros make undocumented functions"
)]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ndarray::Array2;
use twintrack::detection::{Detection, Embeddings};
use twintrack::geometry::BBox;
use twintrack::time::Seconds;
use twintrack::track::{Tracker, TrackerConfig};

/// A deterministic stream of numbers in [0, 1) (xorshift).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as f32 / (1u64 << 24) as f32
    }
}

/// Frames with `people` who walk straight, in a scene whose area is proportional to their number.
/// In each frame a share `missed` of them is not detected; embeddings have dimension `d`.
fn walk(people: usize, frames: usize, d: usize, missed: f32) -> Vec<(Vec<Detection>, Embeddings)> {
    let mut n = Numbers(0x2545_F491_4F6C_DD1D);
    let side = 400.0 * (people as f32).sqrt();
    let mut crowd: Vec<[f32; 4]> = (0..people)
        .map(|_| {
            [
                n.next() * side,
                n.next() * side,
                (n.next() - 0.5) * 6.0,
                (n.next() - 0.5) * 3.0,
            ]
        })
        .collect();
    let looks: Vec<Vec<f32>> = (0..people)
        .map(|_| unit((0..d).map(|_| n.next() - 0.5).collect()))
        .collect();
    let frame = |_| {
        let (mut detections, mut vectors) = (Vec::new(), Vec::new());
        for (p, look) in crowd.iter_mut().zip(&looks) {
            (p[0], p[1]) = (p[0] + p[2], p[1] + p[3]);
            if n.next() >= missed {
                detections.push(Detection {
                    bbox: BBox::new(p[0] + n.next() * 3.0, p[1] + n.next() * 3.0, 40.0, 100.0),
                    confidence: 0.6 + 0.4 * n.next(),
                });
                vectors.extend(unit(
                    look.iter().map(|v| v + 0.02 * (n.next() - 0.5)).collect(),
                ));
            }
        }
        let embeddings = if d == 0 {
            Embeddings::none()
        } else {
            Embeddings::all(
                Array2::from_shape_vec((detections.len(), d), vectors).expect("d numbers each"),
            )
        };
        (detections, embeddings)
    };
    (0..frames).map(frame).collect()
}

fn unit(v: Vec<f32>) -> Vec<f32> {
    let norm = v.iter().map(|x| x * x).sum::<f32>().sqrt();
    v.into_iter().map(|x| x / norm).collect()
}

fn update(c: &mut Criterion) {
    let mut group = c.benchmark_group("update");
    // With 300 people, of whom a third is not detected in each frame, there are 200 detections for
    // 300 confirmed and lost tracks.
    for (people, d, missed) in [
        (13, 0, 0.1),
        (13, 128, 0.1),
        (10, 128, 0.1),
        (30, 128, 0.1),
        (100, 128, 0.1),
        (300, 128, 0.33),
        (1000, 128, 0.1),
    ] {
        const FRAMES: usize = 60;
        let frames = walk(people, FRAMES, d, missed);
        group
            .throughput(Throughput::Elements(FRAMES as u64))
            .sample_size(10);
        group.bench_function(
            BenchmarkId::new(
                format!("{d}-d"),
                format!("{people} people, {:.0} % missed", 100.0 * missed),
            ),
            |b| {
                b.iter(|| {
                    let mut tracker = Tracker::new(TrackerConfig::default());
                    frames
                        .iter()
                        .map(|(det, emb)| {
                            tracker
                                .update(det, emb, Seconds(0.1))
                                .expect("valid detections")
                                .tracks
                                .len()
                        })
                        .sum::<usize>()
                });
            },
        );
    }
    group.finish();
}

/// Time of an update on the MOTChallenge detection file named by TWINTRACK_DETECTIONS;
/// `scripts/bench_update.py` compares it with another tracker.
fn recorded(c: &mut Criterion) {
    let Some(path) = std::env::var_os("TWINTRACK_DETECTIONS") else {
        return;
    };
    let rows =
        twintrack::mot_files::read_rows(std::path::Path::new(&path)).expect("a detection file");
    let mut frames = vec![Vec::new(); rows.iter().map(|r| r.frame as usize).max().unwrap_or(0)];
    for r in &rows {
        frames[r.frame as usize - 1].push(Detection {
            bbox: r.ltwh.map(|v| v as f32).into(),
            confidence: r.confidence.clamp(0.0, 1.0) as f32,
        });
    }
    c.benchmark_group("recorded")
        .sample_size(20)
        .throughput(Throughput::Elements(frames.len() as u64))
        .bench_function("update", |b| {
            b.iter(|| {
                let mut tracker = Tracker::new(TrackerConfig::default());
                frames
                    .iter()
                    .map(|d| {
                        tracker
                            .update(d, &Embeddings::none(), Seconds(1.0 / 30.0))
                            .expect("valid detections")
                            .tracks
                            .len()
                    })
                    .sum::<usize>()
            });
        });
}

criterion_group!(benches, update, recorded);
criterion_main!(benches);
