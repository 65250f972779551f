//! Colours of skin, hair and clothes, and patterns of cloth.

use fastrand::Rng;

use crate::train::probe::grid::{Grid, Mask, Picture, Rgb, luma, mix, noise};
pub(crate) use crate::train::synthetic::uniform;

/// True with the given probability.
pub fn chance(rng: &mut Rng, probability: f32) -> bool {
    rng.f32() < probability
}

/// Converts hue in degrees, saturation and value in [0, 1].
fn hsv(hue: f32, saturation: f32, value: f32) -> Rgb {
    [5.0f32, 3.0, 1.0].map(|n| {
        let k = (n + hue / 60.0).rem_euclid(6.0);
        value - value * saturation * k.min(4.0 - k).clamp(0.0, 1.0)
    })
}

/// Random colour of clothes: mostly black, grey, white, blue and brown, rarely saturated.
pub fn cloth(rng: &mut Rng) -> Rgb {
    let kind = rng.f32();
    let (hue, saturation, value) = match kind {
        k if k < 0.30 => ((0.0, 360.0), (0.0, 0.3), (0.03, 0.22)),
        k if k < 0.48 => ((0.0, 360.0), (0.0, 0.1), (0.25, 0.95)),
        k if k < 0.62 => ((205.0, 240.0), (0.25, 0.6), (0.15, 0.55)),
        k if k < 0.74 => ((18.0, 52.0), (0.2, 0.5), (0.2, 0.75)),
        k if k < 0.90 => ((0.0, 360.0), (0.15, 0.45), (0.2, 0.8)),
        _ => ((0.0, 360.0), (0.5, 0.95), (0.25, 0.9)),
    };
    hsv(
        uniform(rng, hue.0, hue.1),
        uniform(rng, saturation.0, saturation.1),
        uniform(rng, value.0, value.1),
    )
}

/// Random skin colour, from dark to pale.
pub fn skin(rng: &mut Rng) -> Rgb {
    let tone = uniform(rng, 0.25, 0.92);
    [
        tone,
        tone * uniform(rng, 0.72, 0.82),
        tone * uniform(rng, 0.58, 0.72),
    ]
}

/// Random hair colour: mostly dark, sometimes blond, grey or white.
pub fn hair(rng: &mut Rng) -> Rgb {
    let tone = if chance(rng, 0.8) {
        uniform(rng, 0.04, 0.55)
    } else {
        uniform(rng, 0.5, 0.85)
    };
    [
        tone,
        tone * uniform(rng, 0.6, 0.95),
        tone * uniform(rng, 0.4, 0.9),
    ]
}

/// Random cloth: plain, striped, checked, mottled, printed with part of a picture, or with a band
/// or a badge. `print` provides the part, of the requested size.
pub fn pattern(
    size: (usize, usize),
    rng: &mut Rng,
    print: impl FnOnce(&mut Rng) -> Picture,
) -> Picture {
    let (first, second) = (cloth(rng), cloth(rng));
    let (w, h) = (size.0 as f32, size.1 as f32);
    let kind = rng.f32();
    let bool_mask =
        |f: &dyn Fn(f32, f32) -> bool| Mask::from_fn(size, |x, y| f32::from(u8::from(f(x, y))));
    let share = match kind {
        k if k < 0.52 => return Picture::filled(size, first),
        k if k < 0.62 => {
            let (down, period, phase, width) = (
                chance(rng, 0.7),
                uniform(rng, 3.0, 16.0),
                rng.f32(),
                uniform(rng, 0.2, 0.7),
            );
            bool_mask(&|x, y| ((if down { y * h } else { x * w }) / period + phase).fract() < width)
        }
        k if k < 0.70 => {
            let (period, width, weak) = (
                uniform(rng, 4.0, 14.0),
                uniform(rng, 0.15, 0.5),
                if chance(rng, 0.5) { 0.6 } else { 1.0 },
            );
            let line = |v: f32| f32::from(u8::from((v / period).fract() < width));
            Mask::from_fn(size, |x, y| line(x * w).max(weak * line(y * h)))
        }
        k if k < 0.80 => {
            let grey = print(rng).map(|c| luma(*c));
            let low = grey.values.iter().copied().fold(f32::INFINITY, f32::min);
            let high = grey
                .values
                .iter()
                .copied()
                .fold(f32::NEG_INFINITY, f32::max);
            grey.map(|v| (v - low) / (high - low + 1e-3))
        }
        k if k < 0.88 => {
            let (cells, level) = (rng.usize(4..24), uniform(rng, -0.5, 1.0));
            noise(size, cells, 1.0, rng).map(|v| f32::from(u8::from(*v > level)))
        }
        k if k < 0.94 => {
            let (middle, half) = (uniform(rng, 0.15, 0.75), uniform(rng, 0.02, 0.12));
            bool_mask(&|_, y| (y - middle).abs() < half)
        }
        _ => {
            let (x0, y0, size) = (
                uniform(rng, 0.3, 0.7),
                uniform(rng, 0.2, 0.45),
                uniform(rng, 0.01, 0.08),
            );
            bool_mask(&|x, y| (x - x0).powi(2) * 2.0 + (y - y0).powi(2) * 8.0 < size)
        }
    };
    share.map(|&s| mix(first, second, s))
}

/// Randomly recolours a picture: by brightness between two cloth colours, by another hue and
/// saturation, or by another gamma.
pub fn recolour(picture: &Picture, rng: &mut Rng) -> Picture {
    let kind = rng.f32();
    let clamped = |c: Rgb| c.map(|v| v.clamp(0.0, 1.0));
    if kind < 0.4 {
        let (dark, bright, strength) = (cloth(rng), cloth(rng), uniform(rng, 0.3, 1.0));
        return picture.map(|&p| clamped(mix(p, mix(dark, bright, luma(p)), strength)));
    }
    if kind < 0.7 {
        // Rotates colours around the grey axis and scales their distance from it.
        let (angle, saturation) = (
            uniform(rng, 0.0, std::f32::consts::TAU),
            uniform(rng, 0.0, 2.0),
        );
        let (sin, cos) = angle.sin_cos();
        let third = 1.0 / 3.0;
        let (a, b) = (cos + (1.0 - cos) * third, (1.0 - cos) * third);
        let s = sin * third.sqrt();
        let rows = [[a, b - s, b + s], [b + s, a, b - s], [b - s, b + s, a]];
        return picture.map(|&p| {
            let grey = luma(p);
            clamped(std::array::from_fn(|k| {
                let turned: f32 = (0..3).map(|j| rows[k][j] * (p[j] - grey)).sum();
                grey + saturation * turned
            }))
        });
    }
    let (gamma, gain) = (uniform(rng, 0.5, 2.0), uniform(rng, 0.5, 1.4));
    picture.map(|p| clamped(p.map(|v| v.max(0.0).powf(gamma) * gain)))
}

/// A picture of one colour.
pub fn plain(size: (usize, usize), color: Rgb) -> Picture {
    Grid::filled(size, color)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hsv_converts_primary_hues() {
        assert_eq!(hsv(0.0, 1.0, 1.0), [1.0, 0.0, 0.0]);
        assert_eq!(hsv(120.0, 1.0, 0.5), [0.0, 0.5, 0.0]);
        assert_eq!(hsv(240.0, 0.5, 1.0), [0.5, 0.5, 1.0]);
    }

    #[test]
    fn colours_and_patterns_are_in_range_and_deterministic() {
        let draw = |seed| {
            let mut rng = Rng::with_seed(seed);
            let cloth = pattern((16, 32), &mut rng, |_| {
                Picture::from_fn((16, 32), |x, y| [x, y, 0.5])
            });
            recolour(&cloth, &mut rng)
        };
        for seed in 0..60 {
            let picture = draw(seed);
            assert_eq!(picture.size(), (16, 32));
            assert!(
                picture
                    .values
                    .iter()
                    .flatten()
                    .all(|v| (0.0..=1.0).contains(v))
            );
            assert_eq!(picture, draw(seed));
        }
        let plain = (0..60)
            .filter(|&s| {
                pattern((8, 16), &mut Rng::with_seed(s), |_| {
                    Picture::filled((8, 16), [0.5; 3])
                })
                .values
                .windows(2)
                .all(|w| w[0] == w[1])
            })
            .count();
        assert!((15..50).contains(&plain), "{plain} of 60 are plain");
    }
}
