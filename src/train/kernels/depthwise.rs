//! Convolution of each channel separately: [n, channels, height, width] with weights [channels, 1,
//! kernel, kernel] of odd size.
//!
//! A plane is copied into a larger one with a border of zeros. Each weight of the kernel is then
//! multiplied with one contiguous stretch of that plane, over all rows, so that loops are long even
//! for narrow maps. With a stride above 1, the results of stride 1 are computed and some of them
//! selected.

use rayon::prelude::*;

use crate::train::kernels::parallel_fill::fill_parallel_with;
use crate::train::kernels::shape::{ConvGeometry, ConvGradients, ConvOutput, Epilogue};
use crate::train::kernels::simd_loops::{self, BLOCK};

/// Layout of planes with a border of zeros.
struct Bordered {
    /// Width of a plane with its border.
    width: usize,
    border: usize,
    /// Offset of the stretch of each weight.
    offsets: Vec<usize>,
    /// Length of a stretch: the results of all rows, with border columns between them.
    stretch: usize,
    /// Length of a plane, padded for the last block.
    plane: usize,
}

impl Bordered {
    fn new(s: &ConvGeometry) -> Self {
        let (kernel, (h, w)) = (s.shape.kernel, s.size);
        assert!(kernel % 2 == 1, "a kernel of {kernel} pixels has no centre");
        let width = w + kernel - 1;
        let stretch = (h - 1) * width + w;
        let offsets = (0..kernel * kernel)
            .map(|tap| tap / kernel * width + tap % kernel)
            .collect();
        Bordered {
            width,
            border: kernel / 2,
            offsets,
            stretch,
            plane: ((h + kernel - 1) * width).next_multiple_of(BLOCK) + BLOCK,
        }
    }

    /// A zeroed plane and stretch.
    fn scratch(&self) -> [Vec<f32>; 2] {
        [
            vec![0.0; self.plane],
            vec![0.0; self.stretch.next_multiple_of(BLOCK)],
        ]
    }

    /// Copies rows of `width` values into a plane or stretch, from the index `first`, with a
    /// spacing of `stride` pixels in both directions.
    fn spread(&self, rows: &[f32], width: usize, first: usize, stride: usize, to: &mut [f32]) {
        for (y, row) in rows.chunks_exact(width).enumerate() {
            let to = &mut to[first + y * stride * self.width..];
            if stride == 1 {
                to[..width].copy_from_slice(row);
            } else {
                to.iter_mut()
                    .step_by(stride)
                    .zip(row)
                    .for_each(|(t, v)| *t = *v);
            }
        }
    }

    /// Copies rows of `width` values out of a stretch.
    fn pick(&self, stretch: &[f32], width: usize, stride: usize, rows: &mut [f32]) {
        for (y, row) in rows.chunks_exact_mut(width).enumerate() {
            let from = &stretch[y * stride * self.width..];
            if stride == 1 {
                row.copy_from_slice(&from[..width]);
            } else {
                row.iter_mut()
                    .zip(from.iter().step_by(stride))
                    .for_each(|(v, f)| *v = *f);
            }
        }
    }

    /// Index of a plane's first pixel.
    fn first(&self) -> usize {
        self.border * self.width + self.border
    }
}

/// Convolves `x` with `weight`.
pub fn forward(
    x: &[f32],
    weight: &[f32],
    s: &ConvGeometry,
    epilogue: Option<Epilogue<'_>>,
) -> Vec<f32> {
    let (channels, stride, bordered) = (s.shape.channels.0, s.shape.stride, Bordered::new(s));
    let taps = bordered.offsets.len();
    let fill = |[padded, stretch]: &mut [Vec<f32>; 2], plane: usize, out: &mut [f32]| {
        bordered.spread(
            &x[plane * s.pixels_in()..][..s.pixels_in()],
            s.size.1,
            bordered.first(),
            1,
            padded,
        );
        simd_loops::correlate(
            padded,
            &weight[plane % channels * taps..][..taps],
            &bordered.offsets,
            stretch,
        );
        bordered.pick(stretch, s.out.1, stride, out);
        if let Some(Epilogue { bias, activation }) = epilogue {
            simd_loops::affine(out, (1.0, bias[plane % channels]), activation);
        }
    };
    fill_parallel_with(
        x.len() / s.pixels_in() * s.pixels_out(),
        s.pixels_out(),
        || bordered.scratch(),
        fill,
    )
    .0
}

/// Buffers of one thread. What is zero outside of the copied pixels stays zero.
struct Scratch {
    /// The input's plane with its border.
    x: Vec<f32>,
    /// The derivative with respect to the output, with its border.
    grad: Vec<f32>,
    /// The same derivative as a stretch.
    stretch: Vec<f32>,
    by_x: Vec<f32>,
    /// The derivative before the epilogue.
    passed: Vec<f32>,
}

/// The derivatives, given the derivative with respect to the output.
pub fn backward(
    x: &[f32],
    weight: &[f32],
    grad: &[f32],
    s: &ConvGeometry,
    wants_x: bool,
    output: Option<ConvOutput<'_>>,
) -> ConvGradients {
    let (channels, stride, bordered) = (s.shape.channels.0, s.shape.stride, Bordered::new(s));
    let taps = bordered.offsets.len();
    let scratch = || {
        let ([x, stretch], [grad, by_x]) = (bordered.scratch(), bordered.scratch());
        Scratch {
            x,
            grad,
            stretch,
            by_x,
            passed: vec![0.0; s.pixels_out()],
        }
    };
    // The derivative with respect to the input uses kernels rotated by 180 degrees.
    let turned: Vec<f32> = weight
        .chunks_exact(taps)
        .flat_map(|w| w.iter().rev().copied())
        .collect();
    // Writes a plane's derivative with respect to the input, if requested; returns its derivatives
    // with respect to weights and bias.
    let of_plane = |scratch: &mut Scratch, plane: usize, by_x: Option<&mut [f32]>| {
        let range = plane * s.pixels_out()..(plane + 1) * s.pixels_out();
        let mut grad = &grad[range.clone()];
        let mut by_bias = 0.0;
        if let Some(ConvOutput { maps, activation }) = output {
            let passed = &mut scratch.passed;
            by_bias = simd_loops::rectifier_backward(grad, &maps[range], activation, passed);
            grad = passed;
        }
        if let Some(by_x) = by_x {
            let first = bordered.first();
            bordered.spread(grad, s.out.1, first, stride, &mut scratch.grad);
            simd_loops::correlate(
                &scratch.grad,
                &turned[plane % channels * taps..][..taps],
                &bordered.offsets,
                &mut scratch.by_x,
            );
            bordered.pick(&scratch.by_x, s.size.1, 1, by_x);
        }
        bordered.spread(
            &x[plane * s.pixels_in()..][..s.pixels_in()],
            s.size.1,
            bordered.first(),
            1,
            &mut scratch.x,
        );
        bordered.spread(grad, s.out.1, 0, stride, &mut scratch.stretch);
        let mut by_weight = vec![0.0; taps];
        simd_loops::products(
            &scratch.x,
            &scratch.stretch[..bordered.stretch],
            &bordered.offsets,
            &mut by_weight,
        );
        (by_weight, by_bias)
    };
    let (by_x, parts) = if wants_x {
        let fill = |scratch: &mut Scratch, plane: usize, by_x: &mut [f32]| {
            of_plane(scratch, plane, Some(by_x))
        };
        let (by_x, parts) = fill_parallel_with(x.len(), s.pixels_in(), scratch, fill);
        (Some(by_x), parts)
    } else {
        let planes = (0..x.len() / s.pixels_in()).into_par_iter();
        let parts = planes.map_init(scratch, |scratch, plane| of_plane(scratch, plane, None));
        (None, parts.collect())
    };
    // The order of the sums does not depend on the number of cores.
    let mut by_weight = vec![0.0; channels * taps];
    let mut by_bias = vec![0.0; channels];
    for (plane, (weights, bias)) in parts.into_iter().enumerate() {
        let channel = plane % channels;
        let sums = by_weight[channel * taps..][..taps].iter_mut();
        sums.zip(weights).for_each(|(sum, part)| *sum += part);
        by_bias[channel] += bias;
    }
    ConvGradients {
        by_x,
        by_weight,
        by_bias,
    }
}
