//! What cameras and detectors do to a picture of a person: the box is off, somebody stands in front, there are few pixels,
//! blur, over-sharpening, another exposure and colour cast, shadows, noise, something in the way.

use fastrand::Rng;

use crate::train::probe::cloth::{between, chance, cloth, plain};
use crate::train::probe::grid::{Border, Mask, Picture, luma, mixed, noise, normal};
use crate::train::probe::recombine::Stock;

/// The picture as a camera might give it.
pub fn degraded(mut picture: Picture, stock: &Stock, rng: &mut Rng) -> Picture {
    let size = stock.size;
    if chance(rng, 0.5) {
        picture = picture.mirrored();
    }
    if chance(rng, 0.15) {
        neighbour(&mut picture, stock, rng);
    }
    if chance(rng, 0.8) {
        picture = box_error(&picture, rng);
    }
    // Most pictures are as clear as the sources allow.
    let spoilt = chance(rng, 0.4);
    if spoilt && chance(rng, 0.4) {
        let width = rng.usize(size.0 * 28 / 100..size.0 * 88 / 100);
        picture = picture
            .resized((width, width * size.1 / size.0))
            .resized(size);
    } else if spoilt && chance(rng, 0.4) {
        picture = picture.blurred((between(rng, 0.3, 1.5), between(rng, 0.3, 1.2)));
    }
    // Cameras sharpen, and most of them too much.
    if chance(rng, 0.6) {
        let (amount, width) = (between(rng, 0.4, 1.5), between(rng, 0.8, 1.5));
        let soft = picture.blurred((width, width));
        picture = picture.join(&soft, |p, s| {
            std::array::from_fn(|k| (p[k] + amount * (p[k] - s[k])).clamp(0.0, 1.0))
        });
    }
    if chance(rng, 0.4) {
        let (gamma, gain, lift) = (
            between(rng, 0.6, 1.6),
            between(rng, 0.55, 1.35),
            between(rng, -0.08, 0.12),
        );
        picture = picture.map(|p| p.map(|v| v.max(0.0).powf(gamma) * gain + lift));
    }
    if chance(rng, 0.25) {
        let cast = [
            between(rng, 0.8, 1.2),
            between(rng, 0.9, 1.1),
            between(rng, 0.8, 1.2),
        ];
        picture = picture.map(|p| std::array::from_fn(|k| p[k] * cast[k]));
    }
    if chance(rng, 0.15) {
        let shadow = noise(size, 2, between(rng, 0.1, 0.4), rng);
        picture = picture.join(&shadow, |p, s| p.map(|v| v * (1.0 + s).clamp(0.3, 1.7)));
    }
    if chance(rng, 0.03) {
        picture = picture.map(|p| [luma(*p); 3]);
    } else if chance(rng, 0.25) {
        let pale = between(rng, 0.0, 0.7);
        picture = picture.map(|p| mixed(*p, [luma(*p); 3], pale));
    }
    if chance(rng, 0.06) {
        let (w, h) = (between(rng, 0.2, 0.8), between(rng, 0.1, 0.45));
        let (x0, y0) = (between(rng, 0.0, 1.0 - w), between(rng, 0.0, 1.0 - h));
        let thing = if chance(rng, 0.4) {
            plain(size, cloth(rng))
        } else {
            stock.background(rng)
        };
        picture.cover(
            &thing,
            &Mask::of(size, |x, y| {
                f32::from(u8::from(
                    (x0..x0 + w).contains(&x) && (y0..y0 + h).contains(&y),
                ))
            }),
        );
    }
    if spoilt && chance(rng, 0.4) {
        let amount = between(rng, 0.005, 0.05);
        picture = picture.map(|p| {
            let n = amount * normal(rng);
            p.map(|v| v + n)
        });
    }
    picture.map(|p| p.map(|v| v.clamp(0.0, 1.0)))
}

/// Somebody else, beside or in front, cut by the box.
fn neighbour(picture: &mut Picture, stock: &Stock, rng: &mut Rng) {
    let other = stock.person(rng);
    let (w, h) = (stock.size.0 as f32, stock.size.1 as f32);
    let dx = between(rng, 0.25, 0.75) * w * if chance(rng, 0.5) { 1.0 } else { -1.0 };
    let dy = if chance(rng, 0.6) {
        between(rng, -0.1, 0.35) * h
    } else {
        0.0
    };
    let shift = [1.0, 0.0, -dx, 0.0, 1.0, -dy];
    let inside = Mask::of(stock.size, |x, y| {
        let (sx, sy) = (x - dx / w, y - dy / h);
        f32::from(u8::from((sx - 0.5).abs() < 0.3 && (0.0..1.0).contains(&sy)))
    });
    picture.cover(&other.warped(shift, Border::Repeat), &inside);
}

/// The box of a detector that is off: shifted, too large or small, a little turned.
fn box_error(picture: &Picture, rng: &mut Rng) -> Picture {
    let (w, h) = (picture.width as f32, picture.height as f32);
    let scale = if chance(rng, 0.8) {
        between(rng, 0.85, 1.35)
    } else {
        between(rng, 0.6, 2.0)
    };
    let (sx, angle) = (
        scale * between(rng, 0.85, 1.18),
        between(rng, -6.0, 6.0).to_radians(),
    );
    let (sin, cos) = angle.sin_cos();
    // From a pixel of the new picture to the old one: the inverse of scaling and turning about the centre, then a shift.
    let (a, b, c, d) = (cos / sx, sin / sx, -sin / scale, cos / scale);
    let (cx, cy) = (
        w / 2.0 + between(rng, -0.1, 0.1) * w,
        h / 2.0 + between(rng, -0.08, 0.08) * h,
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
