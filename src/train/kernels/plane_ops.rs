//! Operations on planes [n, channels, pixels]: multiplication of a plane by a number, means of
//! planes, and weighted sums of planes with separate weights for each pixel of each channel.

use rayon::prelude::*;

use crate::train::kernels::parallel_fill::fill_parallel;
use crate::train::kernels::simd_loops::{product, total};

/// Multiplies each plane of `x` by its number in `gates` [n, channels].
pub fn gate(x: &[f32], gates: &[f32], pixels: usize) -> Vec<f32> {
    fill_parallel(x.len(), pixels, |plane, out| {
        out.iter_mut()
            .zip(&x[plane * pixels..])
            .for_each(|(o, x)| *o = x * gates[plane]);
    })
}

/// Derivatives of [`gate`] with respect to `x` and the gates.
pub fn gate_backward(
    x: &[f32],
    gates: &[f32],
    grad: &[f32],
    pixels: usize,
) -> (Vec<f32>, Vec<f32>) {
    let by_gates = x
        .par_chunks(pixels)
        .zip(grad.par_chunks(pixels))
        .map(|(x, g)| product(x, g))
        .collect();
    (gate(grad, gates, pixels), by_gates)
}

/// The mean, [n, channels], of each plane.
pub fn mean(x: &[f32], pixels: usize) -> Vec<f32> {
    x.par_chunks(pixels)
        .map(|x| total(x) / pixels as f32)
        .collect()
}

/// Derivative of [`mean`] with respect to `x`.
pub fn mean_backward(grad: &[f32], pixels: usize) -> Vec<f32> {
    fill_parallel(grad.len() * pixels, pixels, |plane, out| {
        out.fill(grad[plane] / pixels as f32)
    })
}

/// The sum, [n, channels], of each plane, weighted by `weights` [channels, pixels].
pub fn read_out(x: &[f32], weights: &[f32], pixels: usize) -> Vec<f32> {
    let channels = weights.len() / pixels;
    x.par_chunks(pixels)
        .enumerate()
        .map(|(plane, x)| product(x, &weights[plane % channels * pixels..][..pixels]))
        .collect()
}

/// Derivatives of [`read_out`] with respect to `x` and the weights.
pub fn read_out_backward(
    x: &[f32],
    weights: &[f32],
    grad: &[f32],
    pixels: usize,
) -> (Vec<f32>, Vec<f32>) {
    let channels = weights.len() / pixels;
    let by_x = fill_parallel(x.len(), pixels, |plane, out| {
        out.iter_mut()
            .zip(&weights[plane % channels * pixels..])
            .for_each(|(o, w)| *o = grad[plane] * w);
    });
    let by_weights = fill_parallel(weights.len(), pixels, |channel, out| {
        for plane in (channel..grad.len()).step_by(channels) {
            out.iter_mut()
                .zip(&x[plane * pixels..][..pixels])
                .for_each(|(o, x)| *o += grad[plane] * x);
        }
    });
    (by_x, by_weights)
}
