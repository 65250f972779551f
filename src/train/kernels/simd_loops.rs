//! The innermost loops, compiled for several vector instruction sets (AVX2, AVX-512, NEON) and
//! selected at run time, because the program is built for old processors too. Each loop is a type
//! with an `#[inline(always)]` function: unlike a closure, such a function is always compiled for
//! each instruction set.

use pulp::{Arch, Simd, WithSimd};

use crate::train::kernels::activation::Activation;

/// The number of results of a correlation is a multiple of this: two of the widest vectors.
pub(super) const BLOCK: usize = 32;

/// Dot product of two rows of equal length.
#[inline(always)]
fn dot<S: Simd>(simd: S, a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (S::as_simd_f32s(a), S::as_simd_f32s(b));
    let zero = simd.splat_f32s(0.0);
    // There are two partial sums, because each addition to a single sum would wait for the previous
    // one.
    let (mut even, mut odd) = (zero, zero);
    let (a2, b2) = (a.chunks_exact(2), b.chunks_exact(2));
    if let ([x], [y]) = (a2.remainder(), b2.remainder()) {
        even = simd.mul_add_f32s(*x, *y, even);
    }
    for (x, y) in a2.zip(b2) {
        even = simd.mul_add_f32s(x[0], y[0], even);
        odd = simd.mul_add_f32s(x[1], y[1], odd);
    }
    simd.reduce_sum_f32s(simd.add_f32s(even, odd))
        + a_rest.iter().zip(b_rest).map(|(x, y)| x * y).sum::<f32>()
}

/// Sum of a row.
#[inline(always)]
fn sum<S: Simd>(simd: S, row: &[f32]) -> f32 {
    let (row, rest) = S::as_simd_f32s(row);
    let total = row
        .iter()
        .fold(simd.splat_f32s(0.0), |sum, v| simd.add_f32s(sum, *v));
    simd.reduce_sum_f32s(total) + rest.iter().sum::<f32>()
}

struct Total<'a>(&'a [f32]);

impl WithSimd for Total<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        sum(simd, self.0)
    }
}

/// Sum of a row.
pub(super) fn total(row: &[f32]) -> f32 {
    Arch::new().dispatch(Total(row))
}

struct Product<'a>(&'a [f32], &'a [f32]);

impl WithSimd for Product<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        dot(simd, self.0, self.1)
    }
}

/// Dot product of two rows of equal length.
pub(super) fn product(a: &[f32], b: &[f32]) -> f32 {
    Arch::new().dispatch(Product(a, b))
}

struct Correlate<'a> {
    plane: &'a [f32],
    weights: &'a [f32],
    offsets: &'a [usize],
    out: &'a mut [f32],
}

impl WithSimd for Correlate<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Correlate {
            plane,
            weights,
            offsets,
            out,
        } = self;
        let (out, _) = S::as_mut_simd_f32s(out);
        for (number, out) in out.chunks_exact_mut(2).enumerate() {
            let mut sums = [simd.splat_f32s(0.0); 2];
            for (weight, offset) in weights.iter().zip(offsets) {
                let (seen, _) = S::as_simd_f32s(
                    &plane[2 * number * S::F32_LANES + offset..][..2 * S::F32_LANES],
                );
                let weight = simd.splat_f32s(*weight);
                sums = [
                    simd.mul_add_f32s(weight, seen[0], sums[0]),
                    simd.mul_add_f32s(weight, seen[1], sums[1]),
                ];
            }
            out.copy_from_slice(&sums);
        }
    }
}

/// For each position, the sum over all weights of the weight times `plane` at the weight's offset.
/// The length of `out` is a multiple of [`BLOCK`].
pub(super) fn correlate(plane: &[f32], weights: &[f32], offsets: &[usize], out: &mut [f32]) {
    debug_assert!(out.len().is_multiple_of(BLOCK));
    Arch::new().dispatch(Correlate {
        plane,
        weights,
        offsets,
        out,
    });
}

struct Products<'a> {
    plane: &'a [f32],
    row: &'a [f32],
    offsets: &'a [usize],
    sums: &'a mut [f32],
}

impl WithSimd for Products<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for (sum, offset) in self.sums.iter_mut().zip(self.offsets) {
            *sum += dot(simd, &self.plane[*offset..][..self.row.len()], self.row);
        }
    }
}

/// Adds to each sum the dot product of `row` with `plane` from the sum's offset on.
pub(super) fn products(plane: &[f32], row: &[f32], offsets: &[usize], sums: &mut [f32]) {
    Arch::new().dispatch(Products {
        plane,
        row,
        offsets,
        sums,
    });
}

struct Affine<'a> {
    row: &'a mut [f32],
    factor: f32,
    offset: f32,
    activation: Activation,
}

impl WithSimd for Affine<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let line = |v: f32| v * self.factor + self.offset;
        match self.activation {
            Activation::Linear => self.row.iter_mut().for_each(|v| *v = line(*v)),
            Activation::Relu => self.row.iter_mut().for_each(|v| *v = line(*v).max(0.0)),
            Activation::Relu6 => self
                .row
                .iter_mut()
                .for_each(|v| *v = line(*v).clamp(0.0, 6.0)),
        }
    }
}

/// Replaces each value by `activation(value * factor + offset)`.
pub(super) fn affine(row: &mut [f32], (factor, offset): (f32, f32), activation: Activation) {
    Arch::new().dispatch(Affine {
        row,
        factor,
        offset,
        activation,
    });
}

struct AffineBackward<'a> {
    x: &'a [f32],
    grad: &'a [f32],
    factor: f32,
    offset: f32,
    activation: Activation,
    out: &'a mut [f32],
}

impl AffineBackward<'_> {
    #[inline(always)]
    fn by<S: Simd>(self, simd: S, passes: impl Fn(f32) -> bool) -> (f32, f32) {
        let AffineBackward {
            x,
            grad,
            factor,
            offset,
            out,
            ..
        } = self;
        for ((o, x), g) in out.iter_mut().zip(x).zip(grad) {
            *o = if passes(x * factor + offset) { *g } else { 0.0 };
        }
        let sums = (dot(simd, x, out), sum(simd, out));
        out.iter_mut().for_each(|o| *o *= factor);
        sums
    }
}

impl WithSimd for AffineBackward<'_> {
    type Output = (f32, f32);

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> (f32, f32) {
        match self.activation {
            Activation::Linear => self.by(simd, |_| true),
            Activation::Relu => self.by(simd, |v| v > 0.0),
            Activation::Relu6 => self.by(simd, |v| v > 0.0 && v < 6.0),
        }
    }
}

/// Writes the derivative of [`affine`] with respect to `x`, given the derivative with respect to
/// its output; returns the derivatives with respect to factor and offset.
pub(super) fn affine_backward(
    x: &[f32],
    grad: &[f32],
    (factor, offset): (f32, f32),
    activation: Activation,
    out: &mut [f32],
) -> (f32, f32) {
    Arch::new().dispatch(AffineBackward {
        x,
        grad,
        factor,
        offset,
        activation,
        out,
    })
}

struct RectifierBackward<'a> {
    grad: &'a [f32],
    output: &'a [f32],
    activation: Activation,
    out: &'a mut [f32],
}

impl RectifierBackward<'_> {
    #[inline(always)]
    fn by<S: Simd>(self, simd: S, passes: impl Fn(f32) -> bool) -> f32 {
        for ((o, g), y) in self.out.iter_mut().zip(self.grad).zip(self.output) {
            *o = if passes(*y) { *g } else { 0.0 };
        }
        sum(simd, self.out)
    }
}

impl WithSimd for RectifierBackward<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        match self.activation {
            Activation::Linear => self.by(simd, |_| true),
            Activation::Relu => self.by(simd, |y| y > 0.0),
            Activation::Relu6 => self.by(simd, |y| y > 0.0 && y < 6.0),
        }
    }
}

/// Writes the derivatives with respect to an activation's input, given those with respect to its
/// `output`. Returns the sum of the written ones, which is the derivative with respect to a
/// preceding bias.
pub(super) fn rectifier_backward(
    grad: &[f32],
    output: &[f32],
    activation: Activation,
    out: &mut [f32],
) -> f32 {
    Arch::new().dispatch(RectifierBackward {
        grad,
        output,
        activation,
        out,
    })
}
