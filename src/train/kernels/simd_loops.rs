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

/// Three sums, with the products of `row` and a vector of three other rows added.
#[inline(always)]
fn add_products<S: Simd>(
    simd: S,
    sums: [S::f32s; 3],
    row: S::f32s,
    others: [S::f32s; 3],
) -> [S::f32s; 3] {
    [
        simd.mul_add_f32s(others[0], row, sums[0]),
        simd.mul_add_f32s(others[1], row, sums[1]),
        simd.mul_add_f32s(others[2], row, sums[2]),
    ]
}

/// Dot products of a row with the beginnings of three others, which read the row once.
#[inline(always)]
fn dots<S: Simd>(simd: S, [a, b, c]: [&[f32]; 3], row: &[f32]) -> [f32; 3] {
    let n = row.len();
    let (row, row_rest) = S::as_simd_f32s(row);
    let (a, a_rest) = S::as_simd_f32s(&a[..n]);
    let (b, b_rest) = S::as_simd_f32s(&b[..n]);
    let (c, c_rest) = S::as_simd_f32s(&c[..n]);
    let zeros = [simd.splat_f32s(0.0); 3];
    let (mut even, mut odd) = (zeros, zeros); // two, as in `dot`
    let (row2, a2) = (row.chunks_exact(2), a.chunks_exact(2));
    let (b2, c2) = (b.chunks_exact(2), c.chunks_exact(2));
    let rests = [&row2, &a2, &b2, &c2].map(|pairs| pairs.remainder());
    if let [[row], [a], [b], [c]] = rests {
        even = add_products(simd, even, *row, [*a, *b, *c]);
    }
    for (((row, a), b), c) in row2.zip(a2).zip(b2).zip(c2) {
        even = add_products(simd, even, row[0], [a[0], b[0], c[0]]);
        odd = add_products(simd, odd, row[1], [a[1], b[1], c[1]]);
    }
    let mut sums = [0.0; 3];
    for (k, rest) in [a_rest, b_rest, c_rest].into_iter().enumerate() {
        sums[k] = simd.reduce_sum_f32s(simd.add_f32s(even[k], odd[k]))
            + rest.iter().zip(row_rest).map(|(x, y)| x * y).sum::<f32>();
    }
    sums
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

struct Deviation<'a>(&'a [f32], f32);

impl WithSimd for Deviation<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        let (row, rest) = S::as_simd_f32s(self.0);
        let mean = simd.splat_f32s(self.1);
        let mut total = simd.splat_f32s(0.0);
        for v in row {
            let from_mean = simd.sub_f32s(*v, mean);
            total = simd.mul_add_f32s(from_mean, from_mean, total);
        }
        let rest = rest.iter().map(|v| (v - self.1) * (v - self.1));
        simd.reduce_sum_f32s(total) + rest.sum::<f32>()
    }
}

/// Sum of the squared differences of a row from `mean`.
pub(super) fn deviation(row: &[f32], mean: f32) -> f32 {
    Arch::new().dispatch(Deviation(row, mean))
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
        let mut sums = self.sums.chunks_exact_mut(3);
        let mut offsets = self.offsets.chunks_exact(3);
        for (sums, offsets) in (&mut sums).zip(&mut offsets) {
            let planes = [offsets[0], offsets[1], offsets[2]].map(|offset| &self.plane[offset..]);
            for (sum, part) in sums.iter_mut().zip(dots(simd, planes, self.row)) {
                *sum += part;
            }
        }
        let rest = sums.into_remainder().iter_mut();
        for (sum, offset) in rest.zip(offsets.remainder()) {
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

impl WithSimd for AffineBackward<'_> {
    type Output = (f32, f32);

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> (f32, f32) {
        let AffineBackward {
            x,
            grad,
            factor,
            offset,
            activation,
            out,
        } = self;
        let (low, high) = activation.bounds();
        for ((o, x), g) in out.iter_mut().zip(x).zip(grad) {
            let v = x * factor + offset;
            *o = if v > low && v < high { *g } else { 0.0 };
        }
        let sums = (dot(simd, x, out), sum(simd, out));
        out.iter_mut().for_each(|o| *o *= factor);
        sums
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

impl WithSimd for RectifierBackward<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        let (low, high) = self.activation.bounds();
        for ((o, g), y) in self.out.iter_mut().zip(self.grad).zip(self.output) {
            *o = if *y > low && *y < high { *g } else { 0.0 };
        }
        sum(simd, self.out)
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

/// A channel of a batch normalisation with its activation, whose output is `activation(x * factor +
/// offset)`.
#[derive(Clone, Copy)]
pub(super) struct NormChannel {
    /// Mean of the input.
    pub mean: f32,
    /// Factor and offset.
    pub affine: (f32, f32),
    pub activation: Activation,
}

struct NormSums<'a> {
    channel: NormChannel,
    x: &'a [f32],
    grad: &'a [f32],
}

impl WithSimd for NormSums<'_> {
    type Output = (f32, f32);

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> (f32, f32) {
        let (mean, (factor, offset)) = (self.channel.mean, self.channel.affine);
        let (low, high) = self.channel.activation.bounds();
        let ((x, x_rest), (grad, grad_rest)) =
            (S::as_simd_f32s(self.x), S::as_simd_f32s(self.grad));
        let zero = simd.splat_f32s(0.0);
        let (means, factors) = (simd.splat_f32s(mean), simd.splat_f32s(factor));
        let (offsets, lows) = (simd.splat_f32s(offset), simd.splat_f32s(low));
        let highs = simd.splat_f32s(high);
        let (mut plain, mut weighed) = (zero, zero);
        for (x, g) in x.iter().zip(grad) {
            let v = simd.add_f32s(simd.mul_f32s(*x, factors), offsets);
            let passes = simd.and_m32s(
                simd.greater_than_f32s(v, lows),
                simd.less_than_f32s(v, highs),
            );
            let g = simd.select_f32s(passes, *g, zero);
            plain = simd.add_f32s(plain, g);
            weighed = simd.mul_add_f32s(g, simd.sub_f32s(*x, means), weighed);
        }
        let mut sums = (simd.reduce_sum_f32s(plain), simd.reduce_sum_f32s(weighed));
        for (x, g) in x_rest.iter().zip(grad_rest) {
            let v = x * factor + offset;
            if v > low && v < high {
                sums = (sums.0 + g, sums.1 + g * (x - mean));
            }
        }
        sums
    }
}

struct NormBackward<'a> {
    channel: NormChannel,
    x: &'a [f32],
    grad: &'a [f32],
    means: (f32, f32),
    out: &'a mut [f32],
}

impl WithSimd for NormBackward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let (mean, (factor, offset)) = (self.channel.mean, self.channel.affine);
        let ((low, high), (plain, weighed)) = (self.channel.activation.bounds(), self.means);
        for ((o, x), g) in self.out.iter_mut().zip(self.x).zip(self.grad) {
            let v = x * factor + offset;
            let g = if v > low && v < high { *g } else { 0.0 };
            *o = factor * (g - plain - (x - mean) * weighed);
        }
    }
}

impl NormChannel {
    /// With the derivatives of a plane before the activation: their sum, and the sum of their
    /// products with `x - mean`. `grad` has the derivatives with respect to the output.
    pub fn sums(self, x: &[f32], grad: &[f32]) -> (f32, f32) {
        let channel = self;
        Arch::new().dispatch(NormSums { channel, x, grad })
    }

    /// Writes the derivatives with respect to a plane of the input. `means`: the first of
    /// [`Self::sums`] over the batch, divided by the number of values, and the second divided by it
    /// and by the variance.
    pub fn backward(self, x: &[f32], grad: &[f32], means: (f32, f32), out: &mut [f32]) {
        Arch::new().dispatch(NormBackward {
            channel: self,
            x,
            grad,
            means,
            out,
        })
    }
}
