//! Simulates walking people and a detector with errors, with labels.
//!
//! People walk on level ground in front of a random camera (height, tilt and zoom), alone or in
//! pairs, towards goals, with pauses. The detector misses people (more often the more they are
//! covered), displaces boxes and adds false detections. Embeddings are taken from drawn people; the
//! embedding of a covered person is mixed with that of the person in front.

use fastrand::Rng;
use ndarray::Array2;

use crate::detection::{Detection, Embeddings};
use crate::geometry::BBox;
use crate::time::Seconds;
use crate::track::appearance::normalise;
use crate::train::association::{DetectionLabel, LabelledFrame};
use crate::train::synthetic::uniform;

const WIDTH: f32 = 1280.0;
const HEIGHT: f32 = 720.0;
/// Covered share of a person above which the person is rarely detected.
const HIDDEN: f32 = 0.75;

/// Embeddings of several views per person, unit vectors of the same dimension.
pub type EmbeddingBank = Vec<Vec<Vec<f32>>>;

struct Walker {
    person: u64,
    /// Position on the ground: sideways, and distance from the camera, in body heights.
    position: (f32, f32),
    goal: (f32, f32),
    /// Heights per second.
    speed: f32,
    pause: f32,
    height_factor: f32,
    width_factor: f32,
    /// Index of the person beside whom this person walks.
    beside: Option<usize>,
    bank_index: usize,
    view: usize,
}

#[derive(Clone, Copy)]
struct Camera {
    /// Displacement in pixels of the picture in this frame.
    pan: f32,
    /// Pixels per body height at depth 1.
    zoom: f32,
    /// Row of the horizon.
    horizon: f32,
    /// The camera's height above the ground in body heights.
    eye: f32,
}

impl Camera {
    fn project(&self, w: &Walker) -> BBox {
        let scale = self.zoom / w.position.1;
        let foot = self.horizon + self.eye * scale;
        let (height, x) = (
            w.height_factor * scale,
            WIDTH / 2.0 + w.position.0 * scale + self.pan,
        );
        BBox::new(
            x - w.width_factor * height / 2.0,
            foot - height,
            w.width_factor * height,
            height,
        )
    }
}

/// Quality of a scene's detector.
struct DetectorQuality {
    miss: f32,
    noise: f32,
    ghosts: f32,
    /// Whether all confidences are 1, as with some detectors.
    flat: bool,
}

fn random_position(rng: &mut Rng) -> (f32, f32) {
    let depth = uniform(rng, 3.0, 14.0);
    (uniform(rng, -0.5, 0.5) * depth * 1.3, depth)
}

impl Walker {
    fn new(person: u64, bank: &EmbeddingBank, rng: &mut Rng) -> Self {
        let bank_index = if bank.is_empty() {
            0
        } else {
            rng.usize(..bank.len())
        };
        Walker {
            person,
            position: random_position(rng),
            goal: random_position(rng),
            speed: uniform(rng, 0.3, 1.1),
            pause: 0.0,
            height_factor: uniform(rng, 0.88, 1.1),
            width_factor: uniform(rng, 0.32, 0.45),
            beside: None,
            bank_index,
            view: 0,
        }
    }

    fn walk(&mut self, dt: f32, rng: &mut Rng) {
        if self.pause > 0.0 {
            self.pause -= dt;
            return;
        }
        let (dx, dy) = (self.goal.0 - self.position.0, self.goal.1 - self.position.1);
        let (distance, step) = (dx.hypot(dy), self.speed * dt);
        if distance <= step {
            self.goal = random_position(rng);
            self.pause = if rng.f32() < 0.3 {
                uniform(rng, 0.5, 6.0)
            } else {
                0.0
            };
        } else {
            self.position = (
                self.position.0 + dx / distance * step,
                self.position.1 + dy / distance * step,
            );
        }
    }
}

/// Simulates a scene of `seconds` and returns its labelled frames. With an empty `bank` there are
/// no embeddings, as with tracking by motion only.
pub fn scene(seconds: f32, bank: &EmbeddingBank, seed: u64) -> Vec<LabelledFrame> {
    let mut rng = Rng::with_seed(seed);
    let rng = &mut rng;
    let rate = [5.0, 7.5, 10.0, 15.0, 25.0, 30.0][rng.usize(..6)];
    let camera = Camera {
        pan: 0.0,
        zoom: uniform(rng, 500.0, 1100.0),
        horizon: uniform(rng, -50.0, 250.0),
        eye: uniform(rng, 1.1, 3.5),
    };
    let detector = DetectorQuality {
        miss: uniform(rng, 0.01, 0.15),
        noise: uniform(rng, 0.015, 0.06),
        ghosts: uniform(rng, 0.0, 0.6),
        flat: rng.f32() < 0.3,
    };
    // Shake of a hand-held or moving camera, pixels per frame.
    let shake = if rng.f32() < 0.35 {
        uniform(rng, 1.0, 7.0)
    } else {
        0.0
    };
    let mut pan = 0.0;
    let mut people: Vec<Walker> = (0..rng.usize(4..28))
        .map(|i| Walker::new(i as u64 + 1, bank, rng))
        .collect();
    for i in 1..people.len() {
        if rng.f32() < 0.25 && people[i - 1].beside.is_none() {
            people[i].beside = Some(i - 1);
        }
    }
    let dt = 1.0 / rate;
    let frames = (seconds * rate) as usize;
    (0..frames)
        .map(|frame| {
            for i in 0..people.len() {
                match people[i].beside {
                    Some(other) => {
                        people[i].position = (
                            people[other].position.0 + 0.35,
                            people[other].position.1 + 0.1,
                        )
                    }
                    None => people[i].walk(dt, rng),
                }
                if rng.f32() < 0.7 * dt {
                    people[i].view = rng.usize(..1000);
                }
            }
            pan += shake * (rng.f32() + rng.f32() - 1.0);
            pan *= 0.97;
            let camera = Camera { pan, ..camera };
            detect(
                &people,
                &camera,
                &detector,
                bank,
                if frame == 0 {
                    Seconds::ZERO
                } else {
                    Seconds(f64::from(dt))
                },
                rng,
            )
        })
        .collect()
}

/// Simulates the detector.
fn detect(
    people: &[Walker],
    camera: &Camera,
    detector: &DetectorQuality,
    bank: &EmbeddingBank,
    elapsed: Seconds,
    rng: &mut Rng,
) -> LabelledFrame {
    let boxes: Vec<BBox> = people.iter().map(|w| camera.project(w)).collect();
    let (mut detections, mut labels, mut views) = (Vec::new(), Vec::new(), Vec::new());
    for (i, w) in people.iter().enumerate() {
        let b = &boxes[i];
        if b.clipped(WIDTH, HEIGHT)
            .is_none_or(|seen| seen.area() < 0.6 * b.area())
        {
            continue;
        }
        let front = (0..people.len()).filter(|&o| o != i && people[o].position.1 < w.position.1);
        let (covered, by) = front
            .map(|o| (b.covered_by(&boxes[o]), o))
            .fold((0.0, i), |a, b| if b.0 > a.0 { b } else { a });
        let missed = if covered > HIDDEN {
            0.97
        } else {
            detector.miss + 0.5 * (covered / HIDDEN).powi(3)
        };
        if rng.f32() < missed {
            continue;
        }
        let noise = detector.noise * (1.0 + 2.0 * covered);
        let mut jitter = |scale: f32| {
            noise * scale * (rng.f32() + rng.f32() + rng.f32() + rng.f32() - 2.0) * 1.7
        };
        let (cx, cy) = b.center();
        let (cx, cy) = (cx + jitter(0.5 * b.height), cy + jitter(0.5 * b.height));
        let bbox = BBox::from_center(
            cx,
            cy,
            b.width * (1.0 + jitter(1.5)).max(0.3),
            b.height * (1.0 + jitter(1.0)).max(0.3),
        );
        let confidence = if detector.flat {
            1.0
        } else {
            (0.9 - 0.55 * covered + 2.0 * jitter(1.0)).clamp(0.26, 0.99)
        };
        detections.push(Detection { bbox, confidence });
        labels.push(Some(w.person));
        views.extend(view(w, &people[by], covered, bank, rng));
    }
    if rng.f32() < detector.ghosts {
        let height = uniform(rng, 40.0, 250.0);
        let bbox = BBox::new(
            uniform(rng, 0.0, WIDTH - 100.0),
            uniform(rng, 0.0, HEIGHT - height),
            0.4 * height,
            height,
        );
        detections.push(Detection {
            bbox,
            confidence: if detector.flat {
                1.0
            } else {
                uniform(rng, 0.26, 0.7)
            },
        });
        labels.push(None);
        views.extend(
            bank.get(rng.usize(..bank.len().max(1)))
                .map(|l| l[0].clone()),
        );
    }
    let embeddings = match views.first().map(Vec::len) {
        Some(d) => Embeddings::all(
            Array2::from_shape_vec((views.len(), d), views.concat())
                .expect("one view per detection"),
        ),
        None => Embeddings::none(),
    };
    LabelledFrame {
        elapsed,
        detections,
        embeddings,
        labels: labels
            .into_iter()
            .map(|w| w.map_or(DetectionLabel::NoPerson, DetectionLabel::Person))
            .collect(),
    }
}

/// The embedding of a crop: a view of the person, mixed with another view and with the person in
/// front.
fn view(
    w: &Walker,
    front: &Walker,
    covered: f32,
    bank: &EmbeddingBank,
    rng: &mut Rng,
) -> Option<Vec<f32>> {
    let (own, other) = (bank.get(w.bank_index)?, bank.get(front.bank_index)?);
    let (a, b, c) = (
        &own[w.view % own.len()],
        &own[rng.usize(..own.len())],
        &other[front.view % other.len()],
    );
    let share = uniform(rng, 0.0, 0.35);
    let mut mixed: Vec<f32> = (0..a.len())
        .map(|k| a[k] + share * b[k] + 1.2 * covered * c[k])
        .collect();
    normalise(&mut mixed);
    Some(mixed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bank() -> EmbeddingBank {
        let axis = |i: usize| {
            (0..8)
                .map(|k| if k == i { 1.0 } else { 0.0 })
                .collect::<Vec<f32>>()
        };
        (0..4).map(|i| vec![axis(2 * i), axis(2 * i + 1)]).collect()
    }

    #[test]
    fn a_seed_determines_the_scene_and_detections_are_valid() {
        let (a, b, c) = (
            scene(4.0, &bank(), 3),
            scene(4.0, &bank(), 3),
            scene(4.0, &bank(), 4),
        );
        let boxes = |s: &[LabelledFrame]| {
            s.iter()
                .flat_map(|f| f.detections.iter().map(|d| d.bbox))
                .collect::<Vec<_>>()
        };
        assert_eq!(boxes(&a), boxes(&b));
        assert_ne!(boxes(&a), boxes(&c));
        for f in &a {
            assert!(
                f.detections
                    .iter()
                    .all(|d| d.bbox.is_valid() && (0.0..=1.0).contains(&d.confidence))
            );
            assert_eq!(
                (f.detections.len(), f.embeddings.len()),
                (f.labels.len(), f.labels.len())
            );
        }
    }

    /// People move continuously, and each is detected at most once per frame.
    #[test]
    fn people_are_detected_at_most_once_and_move_continuously() {
        let frames = scene(6.0, &EmbeddingBank::new(), 11);
        let mut last: std::collections::BTreeMap<u64, (usize, BBox)> = Default::default();
        for (n, f) in frames.iter().enumerate() {
            let ids: Vec<u64> = f
                .labels
                .iter()
                .filter_map(|w| {
                    if let DetectionLabel::Person(id) = w {
                        Some(*id)
                    } else {
                        None
                    }
                })
                .collect();
            assert_eq!(
                ids.iter().collect::<std::collections::BTreeSet<_>>().len(),
                ids.len()
            );
            for (d, w) in f.detections.iter().zip(&f.labels) {
                let DetectionLabel::Person(id) = w else {
                    continue;
                };
                if let Some((before, b)) = last.insert(*id, (n, d.bbox)) {
                    let moved = (b.center().0 - d.bbox.center().0).abs() / b.height;
                    assert!(
                        n - before > 1 || moved < 1.0,
                        "person {id} moved {moved} of its height in a frame"
                    );
                }
            }
        }
        assert!(last.len() >= 3);
    }
}
