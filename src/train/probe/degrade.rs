//! Simulates cameras and detectors: inaccurate boxes, other people, low resolution, blur,
//! sharpening, exposure, colour cast, shadows, noise, occlusion.

use fastrand::Rng;

use crate::train::probe::cloth::{chance, cloth, plain, uniform};
use crate::train::probe::grid::{Border, Mask, Picture, luma, mix, noise, normal};
use crate::train::probe::recombine::FigureSources;

/// Randomly degrades a picture.
pub fn degrade(mut picture: Picture, sources: &FigureSources, rng: &mut Rng) -> Picture {
    let size = sources.size;
    if chance(rng, 0.5) {
        picture = picture.mirrored();
    }
    if chance(rng, 0.15) {
        neighbour(&mut picture, sources, rng);
    }
    if chance(rng, 0.8) {
        picture = box_error(&picture, rng);
    }
    // Only some pictures may be scaled down, blurred or noisy.
    let spoilt = chance(rng, 0.4);
    if spoilt && chance(rng, 0.4) {
        let width = rng.usize(size.0 * 28 / 100..size.0 * 88 / 100);
        picture = picture
            .resized((width, width * size.1 / size.0))
            .resized(size);
    } else if spoilt && chance(rng, 0.4) {
        picture = picture.blurred((uniform(rng, 0.3, 1.5), uniform(rng, 0.3, 1.2)));
    }
    // Cameras sharpen pictures, often too much.
    if chance(rng, 0.6) {
        let (amount, width) = (uniform(rng, 0.4, 1.5), uniform(rng, 0.8, 1.5));
        let soft = picture.blurred((width, width));
        picture = picture.join(&soft, |p, s| {
            std::array::from_fn(|k| (p[k] + amount * (p[k] - s[k])).clamp(0.0, 1.0))
        });
    }
    if chance(rng, 0.4) {
        let (gamma, gain, lift) = (
            uniform(rng, 0.6, 1.6),
            uniform(rng, 0.55, 1.35),
            uniform(rng, -0.08, 0.12),
        );
        picture = picture.map(|p| p.map(|v| v.max(0.0).powf(gamma) * gain + lift));
    }
    if chance(rng, 0.25) {
        let cast = [
            uniform(rng, 0.8, 1.2),
            uniform(rng, 0.9, 1.1),
            uniform(rng, 0.8, 1.2),
        ];
        picture = picture.map(|p| std::array::from_fn(|k| p[k] * cast[k]));
    }
    if chance(rng, 0.15) {
        let shadow = noise(size, 2, uniform(rng, 0.1, 0.4), rng);
        picture = picture.join(&shadow, |p, s| p.map(|v| v * (1.0 + s).clamp(0.3, 1.7)));
    }
    if chance(rng, 0.03) {
        picture = picture.map(|p| [luma(*p); 3]);
    } else if chance(rng, 0.25) {
        let pale = uniform(rng, 0.0, 0.7);
        picture = picture.map(|p| mix(*p, [luma(*p); 3], pale));
    }
    if chance(rng, 0.06) {
        let (w, h) = (uniform(rng, 0.2, 0.8), uniform(rng, 0.1, 0.45));
        let (x0, y0) = (uniform(rng, 0.0, 1.0 - w), uniform(rng, 0.0, 1.0 - h));
        let thing = if chance(rng, 0.4) {
            plain(size, cloth(rng))
        } else {
            sources.background(rng)
        };
        picture.cover(
            &thing,
            &Mask::from_fn(size, |x, y| {
                f32::from(u8::from(
                    (x0..x0 + w).contains(&x) && (y0..y0 + h).contains(&y),
                ))
            }),
        );
    }
    if spoilt && chance(rng, 0.4) {
        let amount = uniform(rng, 0.005, 0.05);
        picture = picture.map(|p| {
            let n = amount * normal(rng);
            p.map(|v| v + n)
        });
    }
    picture.map(|p| p.map(|v| v.clamp(0.0, 1.0)))
}

/// Adds another person, beside or in front of the first, cut by the box.
fn neighbour(picture: &mut Picture, sources: &FigureSources, rng: &mut Rng) {
    let other = sources.person(rng);
    let (w, h) = (sources.size.0 as f32, sources.size.1 as f32);
    let dx = uniform(rng, 0.25, 0.75) * w * if chance(rng, 0.5) { 1.0 } else { -1.0 };
    let dy = if chance(rng, 0.6) {
        uniform(rng, -0.1, 0.35) * h
    } else {
        0.0
    };
    let shift = [1.0, 0.0, -dx, 0.0, 1.0, -dy];
    let inside = Mask::from_fn(sources.size, |x, y| {
        let (sx, sy) = (x - dx / w, y - dy / h);
        f32::from(u8::from((sx - 0.5).abs() < 0.3 && (0.0..1.0).contains(&sy)))
    });
    picture.cover(&other.warped(shift, Border::Repeat), &inside);
}

/// Simulates an inaccurate box: shifted, too large or small, slightly rotated.
fn box_error(picture: &Picture, rng: &mut Rng) -> Picture {
    let (w, h) = (picture.width as f32, picture.height as f32);
    let scale = if chance(rng, 0.8) {
        uniform(rng, 0.85, 1.35)
    } else {
        uniform(rng, 0.6, 2.0)
    };
    let (sx, angle) = (
        scale * uniform(rng, 0.85, 1.18),
        uniform(rng, -6.0, 6.0).to_radians(),
    );
    let (sin, cos) = angle.sin_cos();
    // Map from pixels of the new picture to the old one: the inverse of scaling and rotation about
    // the centre, then a shift.
    let (a, b, c, d) = (cos / sx, sin / sx, -sin / scale, cos / scale);
    let (cx, cy) = (
        w / 2.0 + uniform(rng, -0.1, 0.1) * w,
        h / 2.0 + uniform(rng, -0.08, 0.08) * h,
    );
    let m = [
        a,
        b,
        w / 2.0 - a * cx - b * cy,
        c,
        d,
        h / 2.0 - c * cx - d * cy,
    ];
    let border = if chance(rng, 0.5) {
        Border::Reflect
    } else {
        Border::Repeat
    };
    picture.warped(m, border)
}
