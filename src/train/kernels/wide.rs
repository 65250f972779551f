//! The innermost loops, compiled for the widest vectors of the processor they run on (AVX2, AVX-512, NEON): the program itself is
//! built for the oldest processor that may run it. Each is a type because only `#[inline(always)]` functions are certain to be
//! compiled again for each kind of vectors; a closure is not.

use pulp::{Arch, NullaryFnOnce};

use crate::train::kernels::normalisation::After;

/// Sums side by side: a single one would wait for itself.
const LANES: usize = 16;
/// Results of a correlation computed at once.
pub(super) const BLOCK: usize = 32;

fn widest<F: NullaryFnOnce>(f: F) -> F::Output {
    Arch::new().dispatch(Inlined(f))
}

/// `WithSimd` for a loop.
struct Inlined<F>(F);

impl<F: NullaryFnOnce> pulp::WithSimd for Inlined<F> {
    type Output = F::Output;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) -> F::Output {
        self.0.call()
    }
}

#[inline(always)]
fn lanes(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut sums = [0.0f32; LANES];
    let (a, b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = a.remainder().iter().zip(b.remainder()).map(|(a, b)| f(*a, *b)).sum();
    for (a, b) in a.zip(b) {
        for k in 0..LANES {
            sums[k] += f(a[k], b[k]);
        }
    }
    sums.iter().sum::<f32>() + rest
}

struct Product<'a>(&'a [f32], &'a [f32]);

impl NullaryFnOnce for Product<'_> {
    type Output = f32;

    #[inline(always)]
    fn call(self) -> f32 {
        lanes(self.0, self.1, |a, b| a * b)
    }
}

/// The sum of the products of two rows.
pub(super) fn product(a: &[f32], b: &[f32]) -> f32 {
    widest(Product(a, b))
}

struct Correlate<'a> {
    plane: &'a [f32],
    weights: &'a [f32],
    offsets: &'a [usize],
    out: &'a mut [f32],
}

impl NullaryFnOnce for Correlate<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        for (number, out) in self.out.chunks_exact_mut(BLOCK).enumerate() {
            let mut sums = [0.0f32; BLOCK];
            for (weight, offset) in self.weights.iter().zip(self.offsets) {
                let seen = &self.plane[number * BLOCK + offset..][..BLOCK];
                for k in 0..BLOCK {
                    sums[k] += weight * seen[k];
                }
            }
            out.copy_from_slice(&sums);
        }
    }
}

/// Writes the sums of `plane`, from each weight's offset on, weighed by the weights; as many as fill whole blocks of `out`.
pub(super) fn correlate(plane: &[f32], weights: &[f32], offsets: &[usize], out: &mut [f32]) {
    widest(Correlate { plane, weights, offsets, out });
}

struct Products<'a> {
    plane: &'a [f32],
    row: &'a [f32],
    offsets: &'a [usize],
    sums: &'a mut [f32],
}

impl NullaryFnOnce for Products<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        for (sum, offset) in self.sums.iter_mut().zip(self.offsets) {
            *sum += lanes(&self.plane[*offset..][..self.row.len()], self.row, |a, b| a * b);
        }
    }
}

/// Adds to each sum the product of `row` with as much of `plane` from its offset on.
pub(super) fn products(plane: &[f32], row: &[f32], offsets: &[usize], sums: &mut [f32]) {
    widest(Products { plane, row, offsets, sums });
}

struct Line<'a> {
    x: &'a [f32],
    factor: f32,
    offset: f32,
    after: After,
    out: &'a mut [f32],
}

impl NullaryFnOnce for Line<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let line = self.x.iter().map(|x| x * self.factor + self.offset);
        match self.after {
            After::Linear => self.out.iter_mut().zip(line).for_each(|(o, v)| *o = v),
            After::Relu => self.out.iter_mut().zip(line).for_each(|(o, v)| *o = v.max(0.0)),
            After::Relu6 => self.out.iter_mut().zip(line).for_each(|(o, v)| *o = v.clamp(0.0, 6.0)),
        }
    }
}

/// Writes `after(x * factor + offset)`.
pub(super) fn line(x: &[f32], (factor, offset): (f32, f32), after: After, out: &mut [f32]) {
    widest(Line { x, factor, offset, after, out });
}

struct LineBackward<'a> {
    x: &'a [f32],
    grad: &'a [f32],
    factor: f32,
    offset: f32,
    after: After,
    out: &'a mut [f32],
}

impl LineBackward<'_> {
    #[inline(always)]
    fn by(self, passes: impl Fn(f32) -> bool) -> (f32, f32) {
        let LineBackward { x, grad, factor, offset, out, .. } = self;
        for ((o, x), g) in out.iter_mut().zip(x).zip(grad) {
            *o = if passes(x * factor + offset) { *g } else { 0.0 };
        }
        let sums = (lanes(x, out, |x, g| g * x), lanes(x, out, |_, g| g));
        out.iter_mut().for_each(|o| *o *= factor);
        sums
    }
}

impl NullaryFnOnce for LineBackward<'_> {
    type Output = (f32, f32);

    #[inline(always)]
    fn call(self) -> (f32, f32) {
        match self.after {
            After::Linear => self.by(|_| true),
            After::Relu => self.by(|v| v > 0.0),
            After::Relu6 => self.by(|v| v > 0.0 && v < 6.0),
        }
    }
}

/// Writes the derivative of [`line`] by `x`, from the one by its output; returns those by the factor and by the offset.
pub(super) fn line_backward(x: &[f32], grad: &[f32], (factor, offset): (f32, f32), after: After, out: &mut [f32]) -> (f32, f32) {
    widest(LineBackward { x, grad, factor, offset, after, out })
}

struct Finish<'a> {
    row: &'a mut [f32],
    bias: f32,
    after: After,
}

impl NullaryFnOnce for Finish<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let bias = self.bias;
        match self.after {
            After::Linear => self.row.iter_mut().for_each(|v| *v += bias),
            After::Relu => self.row.iter_mut().for_each(|v| *v = (*v + bias).max(0.0)),
            After::Relu6 => self.row.iter_mut().for_each(|v| *v = (*v + bias).clamp(0.0, 6.0)),
        }
    }
}

/// Replaces each value by `after(value + bias)`.
pub(super) fn finish(row: &mut [f32], bias: f32, after: After) {
    widest(Finish { row, bias, after });
}

struct Passed<'a> {
    grad: &'a [f32],
    made: &'a [f32],
    after: After,
    out: &'a mut [f32],
}

impl Passed<'_> {
    #[inline(always)]
    fn by(self, passes: impl Fn(f32) -> bool) -> f32 {
        for ((o, g), y) in self.out.iter_mut().zip(self.grad).zip(self.made) {
            *o = if passes(*y) { *g } else { 0.0 };
        }
        lanes(self.out, self.out, |g, _| g)
    }
}

impl NullaryFnOnce for Passed<'_> {
    type Output = f32;

    #[inline(always)]
    fn call(self) -> f32 {
        match self.after {
            After::Linear => self.by(|_| true),
            After::Relu => self.by(|y| y > 0.0),
            After::Relu6 => self.by(|y| y > 0.0 && y < 6.0),
        }
    }
}

/// Writes the derivative by what [`finish`] was given, from the one by what it `made`; returns the one by the bias.
pub(super) fn passed(grad: &[f32], made: &[f32], after: After, out: &mut [f32]) -> f32 {
    widest(Passed { grad, made, after, out })
}
