//! Drawn people, generated from a seed. The identity of a person determines clothes, hair, bag and
//! build. The view determines pose, side, light, colour cast, blur, noise, distance, background and
//! occlusion.
//!
//! Drawn people do not resemble real people, but teach a network which properties may differ
//! between two views of a person and which may not.

use fastrand::Rng;

use crate::frame::Image;
use crate::geometry::BBox;
use crate::train::dataset::{Crop, Dataset, Protocol};
use crate::train::error::TrainError;

const WIDTH: usize = 84;
const HEIGHT: usize = 168;
/// The person's box in pixels of the picture.
const PERSON: BBox = BBox::new(10.0, 20.0, 64.0, 128.0);
const CAMERAS: u32 = 4;

type Rgb = [f32; 3];

/// Appearance of a person.
#[derive(Debug, Clone)]
struct Person {
    skin: Rgb,
    hair: Rgb,
    long_hair: bool,
    top: Rgb,
    /// Pattern of the top: 0 none, 1 stripes, 2 a print.
    pattern: u8,
    /// Colour of the pattern.
    second: Rgb,
    sleeves: f32,
    legs: Rgb,
    /// Share of the legs that clothes cover.
    leg_length: f32,
    /// Whether the clothes of the legs are a skirt.
    skirt: bool,
    /// Length of a coat as a share of the legs.
    coat: f32,
    shoes: Rgb,
    bag: Option<(Rgb, u8)>,
    build: f32,
}

/// A random number from `low` to `high`.
pub(crate) fn uniform(rng: &mut Rng, low: f32, high: f32) -> f32 {
    low + (high - low) * rng.f32()
}

/// A random cloth colour: mostly dark, grey or pale, sometimes saturated.
fn cloth(rng: &mut Rng) -> Rgb {
    let (hue, kind) = (rng.f32() * 6.0, rng.f32());
    let (saturation, value) = match kind {
        k if k < 0.3 => (uniform(rng, 0.0, 0.25), uniform(rng, 0.04, 0.25)),
        k if k < 0.5 => (uniform(rng, 0.0, 0.12), uniform(rng, 0.25, 0.95)),
        k if k < 0.75 => (uniform(rng, 0.2, 0.5), uniform(rng, 0.2, 0.8)),
        _ => (uniform(rng, 0.5, 0.95), uniform(rng, 0.25, 0.9)),
    };
    [5.0f32, 3.0, 1.0].map(|n| {
        let k = (n + hue) % 6.0;
        value - value * saturation * k.min(4.0 - k).clamp(0.0, 1.0)
    })
}

impl Person {
    fn new(rng: &mut Rng) -> Self {
        let tan = uniform(rng, 0.25, 0.9);
        let hair = uniform(rng, 0.05, 0.55);
        let skirt = rng.f32() < 0.12;
        Person {
            skin: [tan, tan * 0.78, tan * 0.65],
            hair: [
                hair,
                hair * uniform(rng, 0.6, 0.9),
                hair * uniform(rng, 0.3, 0.8),
            ],
            long_hair: rng.f32() < 0.35,
            top: cloth(rng),
            pattern: if rng.f32() < 0.3 { rng.u8(1..3) } else { 0 },
            second: cloth(rng),
            sleeves: if rng.f32() < 0.7 { 1.0 } else { 0.35 },
            legs: cloth(rng),
            leg_length: if skirt {
                uniform(rng, 0.3, 0.7)
            } else if rng.f32() < 0.8 {
                1.0
            } else {
                0.45
            },
            skirt,
            coat: if rng.f32() < 0.25 {
                uniform(rng, 0.2, 0.6)
            } else {
                0.0
            },
            shoes: cloth(rng),
            bag: (rng.f32() < 0.4).then(|| (cloth(rng), rng.u8(0..3))),
            build: uniform(rng, 0.85, 1.2),
        }
    }
}

/// A canvas in linear light.
struct Canvas {
    pixels: Vec<Rgb>,
}

impl Canvas {
    /// Paints the pixels at which `inside` is above zero: completely if it is at least 1, partly if
    /// it is below (a soft edge of one pixel).
    fn paint(&mut self, color: impl Fn(f32, f32) -> Rgb, inside: impl Fn(f32, f32) -> f32) {
        for (i, p) in self.pixels.iter_mut().enumerate() {
            let (x, y) = ((i % WIDTH) as f32 + 0.5, (i / WIDTH) as f32 + 0.5);
            let share = inside(x, y).clamp(0.0, 1.0);
            if share > 0.0 {
                let c = color(x, y);
                (0..3).for_each(|k| p[k] += share * (c[k] - p[k]));
            }
        }
    }

    fn ellipse(&mut self, color: Rgb, center: (f32, f32), radius: (f32, f32)) {
        self.paint(
            |_, _| color,
            |x, y| {
                (1.0 - (((x - center.0) / radius.0).powi(2) + ((y - center.1) / radius.1).powi(2))
                    .sqrt())
                    * radius.0.min(radius.1)
                    + 0.5
            },
        );
    }

    /// A limb: a line that may taper.
    fn limb(&mut self, color: Rgb, from: (f32, f32), to: (f32, f32), width: (f32, f32)) {
        let (dx, dy) = (to.0 - from.0, to.1 - from.1);
        let length = dx.hypot(dy).max(1e-3);
        self.paint(
            |_, _| color,
            |x, y| {
                let along =
                    (((x - from.0) * dx + (y - from.1) * dy) / length / length).clamp(0.0, 1.0);
                let off = (x - from.0 - along * dx).hypot(y - from.1 - along * dy);
                (width.0 + along * (width.1 - width.0)) / 2.0 - off + 0.5
            },
        );
    }
}

fn mix(a: (f32, f32), b: (f32, f32), share: f32) -> (f32, f32) {
    (a.0 + share * (b.0 - a.0), a.1 + share * (b.1 - a.1))
}

/// Draws one view of a person by a camera.
fn draw(person: &Person, camera: u32, seed: u64, rng: &mut Rng) -> Image {
    let mut canvas = background(camera, seed, rng);
    if rng.f32() < 0.15 {
        let other = Person::new(rng);
        figure(
            &mut canvas,
            &other,
            (uniform(rng, -0.7, 0.7) * 64.0, uniform(rng, -14.0, -4.0)),
            rng,
        );
    }
    let at = (uniform(rng, -4.0, 4.0), uniform(rng, -4.0, 4.0));
    figure(&mut canvas, person, at, rng);
    if rng.f32() < 0.2 {
        occlude(&mut canvas, rng);
    }
    develop(&canvas, camera, seed, rng)
}

/// Ground, wall and a few objects. Colours depend on the camera, positions on the view.
fn background(camera: u32, seed: u64, rng: &mut Rng) -> Canvas {
    let mut tone = Rng::with_seed(seed ^ (u64::from(camera) + 1) << 40);
    let (ground, wall) = (cloth(&mut tone), cloth(&mut tone));
    let line = uniform(rng, 20.0, 120.0);
    let mut canvas = Canvas {
        pixels: vec![ground; WIDTH * HEIGHT],
    };
    canvas.paint(|_, _| wall, |_, y| line - y);
    for _ in 0..rng.usize(0..4) {
        let (color, from) = (
            cloth(rng),
            (rng.f32() * WIDTH as f32, rng.f32() * HEIGHT as f32),
        );
        let to = (
            from.0 + uniform(rng, -40.0, 40.0),
            from.1 + uniform(rng, -60.0, 60.0),
        );
        canvas.limb(
            color,
            from,
            to,
            (uniform(rng, 1.0, 14.0), uniform(rng, 1.0, 14.0)),
        );
    }
    canvas
}

fn figure(canvas: &mut Canvas, p: &Person, shift: (f32, f32), rng: &mut Rng) {
    let x = 42.0 + shift.0;
    let (head, shoulder, hip, foot) = (
        31.0 + shift.1,
        44.0 + shift.1,
        84.0 + shift.1,
        143.0 + shift.1,
    );
    let (side, phase) = (rng.f32(), uniform(rng, -1.0, 1.0));
    // Seen from the side, people are narrower and their steps look longer.
    let wide = p.build * (1.0 - 0.4 * side);
    let stride = phase * (3.0 + 13.0 * side);
    let facing = if rng.bool() { 1.0 } else { -1.0 };
    for s in [-1.0, 1.0] {
        let (from, to) = (
            (x + s * 5.0 * wide, hip),
            (
                x + s * (5.0 * wide + stride),
                foot - 4.0 * (s * phase).max(0.0),
            ),
        );
        canvas.limb(p.skin, from, to, (9.0, 6.0));
        if !p.skirt {
            canvas.limb(
                p.legs,
                from,
                mix(from, to, p.leg_length),
                (13.0 * p.build, 9.0),
            );
        }
        canvas.ellipse(
            p.shoes,
            (to.0 + facing * 3.0 * side, to.1 + 2.0),
            (6.5, 3.5),
        );
    }
    if p.skirt {
        let end = hip + p.leg_length * (foot - hip);
        canvas.limb(
            p.legs,
            (x, hip - 4.0),
            (x, end - 8.0),
            (20.0 * wide, 30.0 * wide),
        );
    }
    if let Some((color, 0)) = p.bag {
        canvas.ellipse(
            color,
            (x - facing * 11.0 * side, 62.0 + shift.1),
            (12.0 * wide, 15.0),
        );
    }
    let arm = |canvas: &mut Canvas, s: f32| {
        let from = (x + s * 13.0 * wide, shoulder + 4.0);
        let to = (from.0 + s * 3.0 - s * phase * 12.0 * side, hip + 4.0);
        canvas.limb(p.skin, from, to, (6.0, 5.0));
        canvas.limb(p.top, from, mix(from, to, p.sleeves), (9.0, 7.0));
    };
    arm(canvas, -facing);
    canvas.limb(p.skin, (x, head), (x, shoulder + 3.0), (7.0, 7.0));
    let (top, second, pattern) = (p.top, p.second, p.pattern);
    let hem = hip + p.coat * (foot - hip);
    let cloth = move |px: f32, py: f32| match pattern {
        1 if ((py - shoulder) / 5.0).rem_euclid(2.0) < 1.0 => second,
        2 if (px - x).abs() < 6.0 * wide && (py - shoulder - 16.0).abs() < 8.0 => second,
        _ => top,
    };
    let half = move |y: f32| {
        wide * (14.5 - 3.0 * ((y - shoulder) / (hip - shoulder)).clamp(0.0, 1.0)
            + if p.coat > 0.0 { 2.0 } else { 0.0 })
    };
    canvas.paint(cloth, |px, py| {
        (half(py) - (px - x).abs() + 0.5)
            .min(py - shoulder + 0.5 - 0.25 * (px - x).abs())
            .min(hem - py + 0.5)
    });
    arm(canvas, facing);
    match p.bag {
        Some((color, 1)) => {
            canvas.limb(
                color,
                (x - facing * 8.0 * wide, shoulder),
                (x + facing * 12.0 * wide, hip),
                (2.5, 2.5),
            );
            canvas.ellipse(color, (x + facing * 14.0 * wide, hip), (7.0, 8.0));
        }
        Some((color, 2)) => {
            canvas.ellipse(color, (x + facing * 19.0 * wide, hip + 16.0), (7.0, 10.0))
        }
        _ => {}
    }
    canvas.ellipse(p.skin, (x, head), (6.5, 8.0));
    let back = if side > 0.5 { -facing * 2.5 } else { 0.0 };
    canvas.ellipse(p.hair, (x + back, head - 4.0), (7.0, 6.0));
    if p.long_hair {
        canvas.limb(
            p.hair,
            (x + 2.0 * back, head - 2.0),
            (x + 2.0 * back, shoulder + 5.0),
            (9.0, 7.0),
        );
    }
    // Seen from behind, the hair covers the head.
    if side < 0.5 && facing < 0.0 {
        canvas.ellipse(p.hair, (x, head - 1.0), (6.5, 7.5));
    }
}

/// Draws a wall or a post in front of the person.
fn occlude(canvas: &mut Canvas, rng: &mut Rng) {
    let color = cloth(rng);
    if rng.bool() {
        let top = uniform(rng, 95.0, 140.0);
        canvas.paint(|_, _| color, |_, y| y - top);
    } else {
        let x = 42.0 + (if rng.bool() { 1.0 } else { -1.0 }) * uniform(rng, 10.0, 34.0);
        let width = uniform(rng, 4.0, 18.0);
        canvas.limb(color, (x, -10.0), (x, HEIGHT as f32 + 10.0), (width, width));
    }
}

/// Simulates light and camera: exposure, colour cast, gamma, shading, distance (fewer pixels),
/// noise.
fn develop(canvas: &Canvas, camera: u32, seed: u64, rng: &mut Rng) -> Image {
    let mut fixed = Rng::with_seed(seed.wrapping_mul(31) ^ u64::from(camera));
    let cast: Rgb = std::array::from_fn(|_| uniform(&mut fixed, 0.93, 1.07));
    let (exposure, gamma) = (
        uniform(rng, 0.75, 1.3) * uniform(&mut fixed, 0.9, 1.1),
        uniform(rng, 0.9, 1.12),
    );
    let (slope, haze) = (uniform(rng, -0.25, 0.25), uniform(rng, 0.0, 0.1));
    let scale = uniform(rng, 1.0, 3.2);
    let (w, h) = (
        (WIDTH as f32 / scale) as usize,
        (HEIGHT as f32 / scale) as usize,
    );
    let noise = uniform(rng, 0.0, 0.04);
    let mut data = Vec::with_capacity(3 * w * h);
    for y in 0..h {
        for x in 0..w {
            let range = |i: usize, n: usize, full: usize| {
                (i * full / n, ((i + 1) * full / n).max(i * full / n + 1))
            };
            let ((x0, x1), (y0, y1)) = (range(x, w, WIDTH), range(y, h, HEIGHT));
            let mut sum = [0.0f32; 3];
            for yy in y0..y1 {
                canvas.pixels[yy * WIDTH + x0..yy * WIDTH + x1]
                    .iter()
                    .for_each(|p| (0..3).for_each(|k| sum[k] += p[k]));
            }
            let shade = 1.0 + slope * (x as f32 / w as f32 - 0.5) * 2.0;
            for k in [2, 1, 0] {
                let v = sum[k] / ((x1 - x0) * (y1 - y0)) as f32;
                let v = (v * exposure * shade * cast[k] * (1.0 - haze) + haze)
                    .max(0.0)
                    .powf(gamma)
                    + noise * (rng.f32() + rng.f32() + rng.f32() - 1.5);
                data.push((v.clamp(0.0, 1.0) * 255.0) as u8);
            }
        }
    }
    Image::packed(w as u32, h as u32, data.into())
}

/// Draws `people` people with `views` pictures each, from four cameras. The same seed gives the
/// same pictures.
///
/// # Errors
/// Fails when `people` or `views` is 0.
pub fn dataset(people: usize, views: usize, seed: u64) -> Result<Dataset, TrainError> {
    let mut crops = Vec::with_capacity(people * views);
    for id in 0..people {
        let mut rng = Rng::with_seed(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ id as u64);
        let person = Person::new(&mut rng);
        for view in 0..views {
            let camera = view as u32 % CAMERAS;
            let image = draw(&person, camera, seed, &mut rng);
            let (sx, sy) = (
                image.width as f32 / WIDTH as f32,
                image.height as f32 / HEIGHT as f32,
            );
            let area = BBox::new(
                PERSON.left * sx,
                PERSON.top * sy,
                PERSON.width * sx,
                PERSON.height * sy,
            );
            crops.push((
                id,
                Crop {
                    image,
                    person: area,
                    identity: id,
                    camera,
                    frame: view as u64,
                },
            ));
        }
    }
    Dataset::of(&format!("synthetic:{people}"), crops, Protocol::CrossCamera)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_determines_the_pictures() {
        let bytes = |seed| {
            dataset(2, 4, seed)
                .expect("people")
                .crops
                .iter()
                .flat_map(|c| c.image.data.to_vec())
                .collect::<Vec<u8>>()
        };
        assert_eq!(bytes(1), bytes(1));
        assert_ne!(bytes(1), bytes(2));
    }

    #[test]
    fn the_person_is_inside_the_picture() {
        for c in dataset(20, 4, 3).expect("people").crops {
            assert!(
                c.person.right() <= c.image.width as f32 + 0.01
                    && c.person.bottom() <= c.image.height as f32 + 0.01
            );
            assert!(c.image.width >= 24 && c.image.height >= 50);
        }
    }
}
