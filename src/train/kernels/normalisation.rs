//! Batch normalisation (Ioffe and Szegedy 2015) with a following activation, on [n, channels,
//! pixels].

use rayon::prelude::*;

pub use crate::train::kernels::activation::Activation;
use crate::train::kernels::parallel_fill::{fill_parallel, fill_parallel_with};
use crate::train::kernels::simd_loops;

/// Computes `f` for all channels in parallel.
fn by_channel<T: Send>(channels: usize, f: impl Fn(usize) -> T + Sync + Send) -> Vec<T> {
    (0..channels).into_par_iter().map(f).collect()
}

/// The planes of a channel of [n, channels, pixels].
fn planes(
    x: &[f32],
    channel: usize,
    channels: usize,
    pixels: usize,
) -> impl Iterator<Item = &[f32]> {
    x.chunks_exact(pixels).skip(channel).step_by(channels)
}

/// Moments of a batch, per channel.
#[derive(Debug, Clone)]
pub struct Moments {
    /// Mean.
    pub mean: Vec<f32>,
    /// Variance, with the divisor n (not n - 1).
    pub variance: Vec<f32>,
}

impl Moments {
    /// Moments of a batch.
    pub fn of(x: &[f32], channels: usize, pixels: usize) -> Self {
        let count = (x.len() / channels.max(1)) as f64;
        let (mean, variance) = by_channel(channels, |c| {
            let total = |f: &dyn Fn(&[f32]) -> f32| {
                planes(x, c, channels, pixels)
                    .map(|p| f64::from(f(p)))
                    .sum::<f64>()
                    / count
            };
            let mean = total(&simd_loops::total) as f32;
            (mean, total(&|p| simd_loops::deviation(p, mean)) as f32)
        })
        .into_iter()
        .unzip();
        Moments { mean, variance }
    }
}

/// Computes `activation(x * factor + offset)` with one factor and offset per channel.
pub fn scale(
    x: &[f32],
    pixels: usize,
    factor: &[f32],
    offset: &[f32],
    activation: Activation,
) -> Vec<f32> {
    fill_parallel(x.len(), pixels, |plane, out| {
        let c = plane % factor.len();
        out.copy_from_slice(&x[plane * pixels..][..pixels]);
        simd_loops::affine(out, (factor[c], offset[c]), activation);
    })
}

/// Derivatives of [`scale`] with respect to input, factors and offsets, given the derivative with
/// respect to the output.
pub fn scale_backward(
    x: &[f32],
    grad: &[f32],
    pixels: usize,
    factor: &[f32],
    offset: &[f32],
    activation: Activation,
) -> [Vec<f32>; 3] {
    let channels = factor.len();
    let (by_x, planes) = fill_parallel_with(
        x.len(),
        pixels,
        || (),
        |(), plane, out| {
            let (c, at) = (plane % channels, plane * pixels);
            simd_loops::affine_backward(
                &x[at..][..pixels],
                &grad[at..][..pixels],
                (factor[c], offset[c]),
                activation,
                out,
            )
        },
    );
    let mut sums = vec![(0.0, 0.0); channels];
    for (plane, (by_factor, by_offset)) in planes.into_iter().enumerate() {
        let sum = &mut sums[plane % channels];
        *sum = (sum.0 + by_factor, sum.1 + by_offset);
    }
    let (by_factor, by_offset) = sums.into_iter().unzip();
    [by_x, by_factor, by_offset]
}

/// Normalisation by a batch's moments.
#[derive(Debug, Clone)]
pub struct Norm {
    /// The moments.
    pub moments: Moments,
    /// Factor after the normalisation.
    pub gamma: Vec<f32>,
    /// Offset after the normalisation.
    pub beta: Vec<f32>,
    /// Constant added to the variance.
    pub epsilon: f32,
    /// The activation.
    pub activation: Activation,
}

impl Norm {
    /// Reciprocal of a channel's standard deviation.
    fn inverse(&self, channel: usize) -> f32 {
        1.0 / (self.moments.variance[channel] + self.epsilon).sqrt()
    }

    /// Factor and offset of a channel with which `x * factor + offset` is the normalisation.
    fn affine(&self, channel: usize) -> (f32, f32) {
        let factor = self.gamma[channel] * self.inverse(channel);
        (
            factor,
            self.beta[channel] - self.moments.mean[channel] * factor,
        )
    }

    fn of_channel(&self, channel: usize) -> simd_loops::NormChannel {
        simd_loops::NormChannel {
            mean: self.moments.mean[channel],
            affine: self.affine(channel),
            activation: self.activation,
        }
    }

    /// Normalises the batch.
    pub fn forward(&self, x: &[f32], pixels: usize) -> Vec<f32> {
        let (factor, offset): (Vec<f32>, Vec<f32>) =
            (0..self.gamma.len()).map(|c| self.affine(c)).unzip();
        scale(x, pixels, &factor, &offset, self.activation)
    }

    /// Derivatives with respect to input, gamma and beta, given the derivative with respect to the
    /// output.
    pub fn backward(&self, x: &[f32], grad: &[f32], pixels: usize) -> [Vec<f32>; 3] {
        let channels = self.gamma.len();
        let count = (x.len() / channels.max(1)) as f64;
        // Sums of the derivative, and of the derivative times the normalised input.
        let sums: Vec<(f32, f32)> = by_channel(channels, |c| {
            let channel = self.of_channel(c);
            let both = planes(x, c, channels, pixels).zip(planes(grad, c, channels, pixels));
            let (plain, weighed) = both.fold((0.0f64, 0.0f64), |(a, b), (x, g)| {
                let (plain, weighed) = channel.sums(x, g);
                (a + f64::from(plain), b + f64::from(weighed))
            });
            (plain as f32, (weighed * f64::from(self.inverse(c))) as f32)
        });
        let by_x = fill_parallel(x.len(), pixels, |plane, out| {
            let (c, at) = (plane % channels, plane * pixels);
            let weighed = f64::from(sums[c].1) * f64::from(self.inverse(c));
            let means = (
                (f64::from(sums[c].0) / count) as f32,
                (weighed / count) as f32,
            );
            self.of_channel(c)
                .backward(&x[at..][..pixels], &grad[at..][..pixels], means, out);
        });
        let (beta, gamma) = sums.into_iter().unzip();
        [by_x, gamma, beta]
    }
}
