//! Small pictures and masks of floats with the operations for generating probes.

use fastrand::Rng;

use crate::frame::Image;
use crate::geometry::BBox;
use crate::infer::{PixelFormat, tensor};

/// A colour: red, green, blue in [0, 1].
pub type Rgb = [f32; 3];
/// A picture.
pub type Picture = Grid<Rgb>;
/// A weight per pixel, usually in [0, 1].
pub type Mask = Grid<f32>;

/// Values that can be interpolated.
pub trait Linear: Copy {
    /// The neutral element of addition.
    const ZERO: Self;
    /// `self + factor * other`.
    fn add(self, other: Self, factor: f32) -> Self;
}

impl Linear for f32 {
    const ZERO: f32 = 0.0;
    fn add(self, other: f32, factor: f32) -> f32 {
        self + factor * other
    }
}

impl Linear for Rgb {
    const ZERO: Rgb = [0.0; 3];
    fn add(self, other: Rgb, factor: f32) -> Rgb {
        std::array::from_fn(|k| self[k] + factor * other[k])
    }
}

/// Luma of a colour (BT.601).
pub fn luma(c: Rgb) -> f32 {
    0.299 * c[0] + 0.587 * c[1] + 0.114 * c[2]
}

/// Interpolates from `a` to `b`; `share` is the weight of `b`.
pub fn mix<T: Linear>(a: T, b: T, share: f32) -> T {
    T::ZERO.add(a, 1.0 - share).add(b, share)
}

/// Continuation of a warped picture beyond its border.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Border {
    /// Repeats the border pixels.
    Repeat,
    /// Mirrors the picture.
    Reflect,
}

/// Values on a grid of pixels, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Grid<T> {
    /// Number of columns.
    pub width: usize,
    /// Number of rows.
    pub height: usize,
    /// The values: `width * height`.
    pub values: Vec<T>,
}

impl<T: Linear> Grid<T> {
    /// A grid with one value.
    pub fn filled((width, height): (usize, usize), value: T) -> Self {
        Grid {
            width,
            height,
            values: vec![value; width * height],
        }
    }

    /// Computes a value for each pixel from its centre (x, y) in [0, 1].
    pub fn from_fn((width, height): (usize, usize), mut value: impl FnMut(f32, f32) -> T) -> Self {
        let at = |i: usize| ((i % width) as f32 + 0.5, (i / width) as f32 + 0.5);
        let values = (0..width * height)
            .map(at)
            .map(|(x, y)| value(x / width as f32, y / height as f32))
            .collect();
        Grid {
            width,
            height,
            values,
        }
    }

    /// Width and height.
    pub fn size(&self) -> (usize, usize) {
        (self.width, self.height)
    }

    /// The value at a pixel; outside the grid, the value of the nearest pixel.
    pub fn at(&self, x: isize, y: isize) -> T {
        let (x, y) = (
            x.clamp(0, self.width as isize - 1),
            y.clamp(0, self.height as isize - 1),
        );
        self.values[y as usize * self.width + x as usize]
    }

    /// Bilinear interpolation; pixel centres are at integers.
    pub fn sample(&self, x: f32, y: f32) -> T {
        let (fx, fy) = (x.floor(), y.floor());
        let (sx, sy) = (x - fx, y - fy);
        let (x, y) = (fx as isize, fy as isize);
        let row = |y| mix(self.at(x, y), self.at(x + 1, y), sx);
        mix(row(y), row(y + 1), sy)
    }

    /// Resizes: averages when shrinking, interpolates when enlarging.
    pub fn resized(&self, (width, height): (usize, usize)) -> Self {
        if (width, height) == self.size() {
            return self.clone();
        }
        let (columns, rows) = (spans(self.width, width), spans(self.height, height));
        let mut narrow = Vec::with_capacity(width * self.height);
        for row in self.values.chunks_exact(self.width) {
            narrow.extend(
                columns
                    .iter()
                    .map(|span| span.iter().fold(T::ZERO, |sum, &(i, w)| sum.add(row[i], w))),
            );
        }
        let mut values = Vec::with_capacity(width * height);
        for span in &rows {
            values.extend((0..width).map(|x| {
                span.iter()
                    .fold(T::ZERO, |sum, &(i, w)| sum.add(narrow[i * width + x], w))
            }));
        }
        Grid {
            width,
            height,
            values,
        }
    }

    /// Gaussian blur with standard deviations in pixels along x and y; 0 disables the blur along
    /// that axis.
    pub fn blurred(&self, sigma: (f32, f32)) -> Self {
        let kernel = |sigma: f32| -> Vec<f32> {
            let reach = (2.5 * sigma).ceil() as i32;
            let raw: Vec<f32> = (-reach..=reach)
                .map(|i| (-0.5 * (i as f32 / sigma.max(1e-3)).powi(2)).exp())
                .collect();
            let sum: f32 = raw.iter().sum();
            raw.into_iter().map(|v| v / sum).collect()
        };
        let along = |grid: &Self, kernel: &[f32], step: (isize, isize)| {
            let reach = kernel.len() as isize / 2;
            let sum = |x: isize, y: isize| {
                kernel.iter().zip(-reach..).fold(T::ZERO, |sum, (&k, i)| {
                    sum.add(grid.at(x + i * step.0, y + i * step.1), k)
                })
            };
            let values = (0..grid.values.len())
                .map(|i| sum((i % grid.width) as isize, (i / grid.width) as isize))
                .collect();
            Grid { values, ..*grid }
        };
        let across = along(self, &kernel(sigma.0), (1, 0));
        along(&across, &kernel(sigma.1), (0, 1))
    }

    /// Mirrors left and right.
    pub fn mirrored(&self) -> Self {
        let values = self
            .values
            .chunks_exact(self.width)
            .flat_map(|row| row.iter().rev().copied())
            .collect();
        Grid { values, ..*self }
    }

    /// Warps: each pixel (x, y) takes the value at `(m[0] x + m[1] y + m[2], m[3] x + m[4] y +
    /// m[5])`.
    pub fn warped(&self, m: [f32; 6], border: Border) -> Self {
        let fold = |v: f32, side: usize| match border {
            Border::Repeat => v,
            Border::Reflect => {
                let last = (side - 1).max(1) as f32;
                let v = v.rem_euclid(2.0 * last);
                v.min(2.0 * last - v)
            }
        };
        let value = |i: usize| {
            let (x, y) = ((i % self.width) as f32, (i / self.width) as f32);
            let (sx, sy) = (m[0] * x + m[1] * y + m[2], m[3] * x + m[4] * y + m[5]);
            self.sample(fold(sx, self.width), fold(sy, self.height))
        };
        Grid {
            values: (0..self.values.len()).map(value).collect(),
            ..*self
        }
    }

    /// Cuts a part out; outside the grid the border is repeated.
    pub fn part(&self, (x, y): (isize, isize), (width, height): (usize, usize)) -> Self {
        let at = |i: usize| self.at(x + (i % width) as isize, y + (i / width) as isize);
        Grid {
            width,
            height,
            values: (0..width * height).map(at).collect(),
        }
    }

    /// Blends `other` over this grid with the weights `share`.
    ///
    /// # Panics
    /// When the sizes differ.
    pub fn cover(&mut self, other: &Self, share: &Mask) {
        assert!(
            self.size() == other.size() && self.size() == share.size(),
            "all grids have one size"
        );
        for ((v, o), s) in self.values.iter_mut().zip(&other.values).zip(&share.values) {
            *v = mix(*v, *o, *s);
        }
    }

    /// Maps each value.
    pub fn map<U>(&self, f: impl FnMut(&T) -> U) -> Grid<U> {
        Grid {
            width: self.width,
            height: self.height,
            values: self.values.iter().map(f).collect(),
        }
    }

    /// Combines each value with that of another grid of the same size.
    pub fn join<U: Linear, V>(&self, other: &Grid<U>, mut f: impl FnMut(T, U) -> V) -> Grid<V> {
        assert_eq!(self.size(), other.size(), "both grids have one size");
        Grid {
            width: self.width,
            height: self.height,
            values: self
                .values
                .iter()
                .zip(&other.values)
                .map(|(a, b)| f(*a, *b))
                .collect(),
        }
    }
}

/// For each of `to` pixels: the source pixels out of `from` with their weights.
fn spans(from: usize, to: usize) -> Vec<Vec<(usize, f32)>> {
    let step = from as f32 / to as f32;
    let shrunk = |i: usize| {
        let (start, end) = (i as f32 * step, (i + 1) as f32 * step);
        let weight = |k: usize| ((k as f32 + 1.0).min(end) - (k as f32).max(start)) / step;
        (start as usize..(end.ceil() as usize).min(from))
            .map(|k| (k, weight(k)))
            .collect()
    };
    let grown = |i: usize| {
        let at = ((i as f32 + 0.5) * step - 0.5).clamp(0.0, (from - 1) as f32);
        let low = at as usize;
        vec![
            (low, 1.0 - at.fract()),
            ((low + 1).min(from - 1), at.fract()),
        ]
    };
    (0..to)
        .map(|i| if step > 1.0 { shrunk(i) } else { grown(i) })
        .collect()
}

impl Picture {
    /// Cuts a region of an image and resizes it; outside the image its border is repeated.
    pub fn cut(image: &Image, region: &BBox, (width, height): (usize, usize)) -> Self {
        // Sampling alone would skip pixels when shrinking by more than half, so more samples are
        // taken and averaged.
        let fine = |side: f32, to: usize| ((side / to as f32).ceil() as usize).clamp(1, 4) * to;
        let (w, h) = (fine(region.width, width), fine(region.height, height));
        let mut planes = ndarray::Array3::zeros((3, h, w));
        tensor::write_crop(image, region, &PixelFormat::UNIT_RGB, planes.view_mut());
        let values = (0..w * h)
            .map(|i| std::array::from_fn(|c| planes[[c, i / w, i % w]]))
            .collect();
        Grid {
            width: w,
            height: h,
            values,
        }
        .resized((width, height))
    }

    /// Converts to packed blue, green, red bytes.
    pub fn to_bgr(&self) -> Vec<u8> {
        self.values
            .iter()
            .flat_map(|p| [p[2], p[1], p[0]])
            .map(|v| (v.clamp(0.0, 1.0) * 255.0 + 0.5) as u8)
            .collect()
    }

    /// Converts from packed blue, green, red bytes.
    ///
    /// # Panics
    /// When the number of bytes is not 3 per pixel.
    pub fn from_bgr((width, height): (usize, usize), bytes: &[u8]) -> Self {
        assert_eq!(
            bytes.len(),
            3 * width * height,
            "packed pixels of a {width}x{height} picture"
        );
        let values = bytes
            .chunks_exact(3)
            .map(|b| [b[2], b[1], b[0]].map(|v| f32::from(v) / 255.0))
            .collect();
        Grid {
            width,
            height,
            values,
        }
    }
}

/// A smooth random field of mean 0 and standard deviation about `amplitude`, with `cells` bumps
/// horizontally and twice as many vertically.
pub fn noise(size: (usize, usize), cells: usize, amplitude: f32, rng: &mut Rng) -> Mask {
    let coarse = Mask::from_fn((cells.max(1), 2 * cells.max(1)), |_, _| {
        amplitude * normal(rng)
    });
    coarse.resized(size)
}

/// A random number of the standard normal distribution, approximated by the sum of twelve uniform
/// ones (Irwin-Hall).
pub fn normal(rng: &mut Rng) -> f32 {
    (0..12).map(|_| rng.f32()).sum::<f32>() - 6.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resizing_preserves_mean_and_monotony() {
        let ramp = Mask::from_fn((12, 8), |x, _| x);
        let small = ramp.resized((5, 8));
        let mean = |m: &Mask| m.values.iter().sum::<f32>() / m.values.len() as f32;
        assert!((mean(&ramp) - mean(&small)).abs() < 1e-5);
        assert!(small.values[..5].windows(2).all(|w| w[1] > w[0] + 0.15));
        assert_eq!(ramp.resized((12, 8)), ramp);
        let large = small.resized((50, 8));
        assert!(large.values[..50].windows(2).all(|w| w[1] >= w[0]));
    }

    #[test]
    fn blur_spreads_a_point_and_preserves_the_sum() {
        let mut point = Mask::filled((21, 21), 0.0);
        point.values[10 * 21 + 10] = 1.0;
        let blurred = point.blurred((2.0, 0.0));
        assert!((blurred.values.iter().sum::<f32>() - 1.0).abs() < 1e-4);
        assert!(
            blurred.at(10, 10) > blurred.at(12, 10)
                && blurred.at(12, 10) > 0.05
                && blurred.at(10, 12) == 0.0
        );
    }

    #[test]
    fn warping_by_a_whole_pixel_shifts() {
        let ramp = Mask::from_fn((6, 4), |x, y| x + 10.0 * y);
        let moved = ramp.warped([1.0, 0.0, 1.0, 0.0, 1.0, 0.0], Border::Repeat);
        assert_eq!(moved.at(2, 2), ramp.at(3, 2));
        assert_eq!(moved.at(5, 2), ramp.at(5, 2));
        let reflected = ramp.warped([1.0, 0.0, 1.0, 0.0, 1.0, 0.0], Border::Reflect);
        assert_eq!(reflected.at(5, 2), ramp.at(4, 2));
    }

    #[test]
    fn bytes_survive_conversion() {
        let bytes: Vec<u8> = (0..24).map(|i| 10 * i).collect();
        assert_eq!(Picture::from_bgr((4, 2), &bytes).to_bgr(), bytes);
    }
}
