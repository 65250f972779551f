//! A simulator of walking people and an imperfect detector: what a tracker sees, and who is who in it.
//!
//! People walk on level ground before a camera of their own kind (height, tilt and zoom drawn), alone or in pairs, towards
//! goals, sometimes standing. The detector misses people, the more the more of them is covered, moves their boxes, and sees
//! some who are not there. Their looks are embeddings of drawn people, mixed with whoever covers them.

use fastrand::Rng;
use ndarray::Array2;

use crate::detection::{Detection, Embeddings};
use crate::geometry::BBox;
use crate::time::Seconds;
use crate::track::appearance::normalise;
use crate::train::association::{Labelled, Who};
use crate::train::synthetic::between;

const WIDTH: f32 = 1280.0;
const HEIGHT: f32 = 720.0;
/// From this covered share on a person is hardly ever detected.
const HIDDEN: f32 = 0.75;

/// For each person embeddings of several views, unit vectors of one length.
pub type Looks = Vec<Vec<Vec<f32>>>;

struct Walker {
    who: u64,
    /// Place on the ground: across (heights), depth (heights from the camera).
    at: (f32, f32),
    goal: (f32, f32),
    /// Heights a second.
    speed: f32,
    waits: f32,
    tall: f32,
    wide: f32,
    /// Whom it walks beside, an index.
    beside: Option<usize>,
    looks: usize,
    view: usize,
}

#[derive(Clone, Copy)]
struct Camera {
    /// Pixels by which the picture is moved at this moment.
    pan: f32,
    /// Pixels of one body height at depth 1.
    zoom: f32,
    /// Row of the horizon, and how far below it feet stand at depth 1, in body heights.
    horizon: f32,
    eye: f32,
}

impl Camera {
    fn see(&self, w: &Walker) -> BBox {
        let scale = self.zoom / w.at.1;
        let foot = self.horizon + self.eye * scale;
        let (height, x) = (w.tall * scale, WIDTH / 2.0 + w.at.0 * scale + self.pan);
        BBox::new(
            x - w.wide * height / 2.0,
            foot - height,
            w.wide * height,
            height,
        )
    }
}

/// How good the detector of a scene is.
struct Eyes {
    miss: f32,
    noise: f32,
    ghosts: f32,
    /// It says 1 of everybody, as some do.
    flat: bool,
}

fn place(rng: &mut Rng) -> (f32, f32) {
    let depth = between(rng, 3.0, 14.0);
    (between(rng, -0.5, 0.5) * depth * 1.3, depth)
}

impl Walker {
    fn new(who: u64, looks: &Looks, rng: &mut Rng) -> Self {
        let person = if looks.is_empty() {
            0
        } else {
            rng.usize(..looks.len())
        };
        Walker {
            who,
            at: place(rng),
            goal: place(rng),
            speed: between(rng, 0.3, 1.1),
            waits: 0.0,
            tall: between(rng, 0.88, 1.1),
            wide: between(rng, 0.32, 0.45),
            beside: None,
            looks: person,
            view: 0,
        }
    }

    fn walk(&mut self, dt: f32, rng: &mut Rng) {
        if self.waits > 0.0 {
            self.waits -= dt;
            return;
        }
        let (dx, dy) = (self.goal.0 - self.at.0, self.goal.1 - self.at.1);
        let (distance, step) = (dx.hypot(dy), self.speed * dt);
        if distance <= step {
            self.goal = place(rng);
            self.waits = if rng.f32() < 0.3 {
                between(rng, 0.5, 6.0)
            } else {
                0.0
            };
        } else {
            self.at = (
                self.at.0 + dx / distance * step,
                self.at.1 + dy / distance * step,
            );
        }
    }
}

/// One scene of `seconds`: its frames, with who each detection is (`None` for a ghost). Without `looks` nobody has an
/// embedding, as when tracking by motion only.
pub fn scene(seconds: f32, looks: &Looks, seed: u64) -> Vec<Labelled> {
    let mut rng = Rng::with_seed(seed);
    let rng = &mut rng;
    let rate = [5.0, 7.5, 10.0, 15.0, 25.0, 30.0][rng.usize(..6)];
    let camera = Camera {
        pan: 0.0,
        zoom: between(rng, 500.0, 1100.0),
        horizon: between(rng, -50.0, 250.0),
        eye: between(rng, 1.1, 3.5),
    };
    let eyes = Eyes {
        miss: between(rng, 0.01, 0.15),
        noise: between(rng, 0.015, 0.06),
        ghosts: between(rng, 0.0, 0.6),
        flat: rng.f32() < 0.3,
    };
    // A hand-held or moving camera shakes the whole picture, pixels a frame.
    let shake = if rng.f32() < 0.35 {
        between(rng, 1.0, 7.0)
    } else {
        0.0
    };
    let mut pan = 0.0;
    let mut people: Vec<Walker> = (0..rng.usize(4..28))
        .map(|i| Walker::new(i as u64 + 1, looks, rng))
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
                        people[i].at = (people[other].at.0 + 0.35, people[other].at.1 + 0.1)
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
            look(
                &people,
                &camera,
                &eyes,
                looks,
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

/// What the detector makes of the people.
fn look(
    people: &[Walker],
    camera: &Camera,
    eyes: &Eyes,
    looks: &Looks,
    elapsed: Seconds,
    rng: &mut Rng,
) -> Labelled {
    let boxes: Vec<BBox> = people.iter().map(|w| camera.see(w)).collect();
    let (mut detections, mut who, mut views) = (Vec::new(), Vec::new(), Vec::new());
    for (i, w) in people.iter().enumerate() {
        let b = &boxes[i];
        if b.clipped(WIDTH, HEIGHT)
            .is_none_or(|seen| seen.area() < 0.6 * b.area())
        {
            continue;
        }
        let front = (0..people.len()).filter(|&o| o != i && people[o].at.1 < w.at.1);
        let (covered, by) = front
            .map(|o| (b.covered_by(&boxes[o]), o))
            .fold((0.0, i), |a, b| if b.0 > a.0 { b } else { a });
        let missed = if covered > HIDDEN {
            0.97
        } else {
            eyes.miss + 0.5 * (covered / HIDDEN).powi(3)
        };
        if rng.f32() < missed {
            continue;
        }
        let noise = eyes.noise * (1.0 + 2.0 * covered);
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
        let confidence = if eyes.flat {
            1.0
        } else {
            (0.9 - 0.55 * covered + 2.0 * jitter(1.0)).clamp(0.26, 0.99)
        };
        detections.push(Detection { bbox, confidence });
        who.push(Some(w.who));
        views.extend(view(w, &people[by], covered, looks, rng));
    }
    if rng.f32() < eyes.ghosts {
        let height = between(rng, 40.0, 250.0);
        let bbox = BBox::new(
            between(rng, 0.0, WIDTH - 100.0),
            between(rng, 0.0, HEIGHT - height),
            0.4 * height,
            height,
        );
        detections.push(Detection {
            bbox,
            confidence: if eyes.flat {
                1.0
            } else {
                between(rng, 0.26, 0.7)
            },
        });
        who.push(None);
        views.extend(
            looks
                .get(rng.usize(..looks.len().max(1)))
                .map(|l| l[0].clone()),
        );
    }
    let embeddings = match views.first().map(Vec::len) {
        Some(d) => Embeddings::all(
            Array2::from_shape_vec((views.len(), d), views.concat()).expect("a view a detection"),
        ),
        None => Embeddings::none(),
    };
    Labelled {
        elapsed,
        detections,
        embeddings,
        who: who
            .into_iter()
            .map(|w| w.map_or(Who::Nobody, Who::Person))
            .collect(),
    }
}

/// The embedding of a crop: a view of the person, a little of another, and of whoever covers it.
fn view(
    w: &Walker,
    front: &Walker,
    covered: f32,
    looks: &Looks,
    rng: &mut Rng,
) -> Option<Vec<f32>> {
    let (own, other) = (looks.get(w.looks)?, looks.get(front.looks)?);
    let (a, b, c) = (
        &own[w.view % own.len()],
        &own[rng.usize(..own.len())],
        &other[front.view % other.len()],
    );
    let share = between(rng, 0.0, 0.35);
    let mut mixed: Vec<f32> = (0..a.len())
        .map(|k| a[k] + share * b[k] + 1.2 * covered * c[k])
        .collect();
    normalise(&mut mixed);
    Some(mixed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bank() -> Looks {
        let axis = |i: usize| {
            (0..8)
                .map(|k| if k == i { 1.0 } else { 0.0 })
                .collect::<Vec<f32>>()
        };
        (0..4).map(|i| vec![axis(2 * i), axis(2 * i + 1)]).collect()
    }

    #[test]
    fn a_seed_is_one_scene_and_its_detections_are_valid() {
        let (a, b, c) = (
            scene(4.0, &bank(), 3),
            scene(4.0, &bank(), 3),
            scene(4.0, &bank(), 4),
        );
        let boxes = |s: &[Labelled]| {
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
                (f.who.len(), f.who.len())
            );
        }
    }

    /// People stay the same person from frame to frame, and one person is found at most once a frame.
    #[test]
    fn nobody_is_found_twice_and_nobody_jumps() {
        let frames = scene(6.0, &Looks::new(), 11);
        let mut last: std::collections::BTreeMap<u64, (usize, BBox)> = Default::default();
        for (n, f) in frames.iter().enumerate() {
            let ids: Vec<u64> = f
                .who
                .iter()
                .filter_map(|w| {
                    if let Who::Person(id) = w {
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
            for (d, w) in f.detections.iter().zip(&f.who) {
                let Who::Person(id) = w else { continue };
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
