//! Convolution of each channel separately: [n, channels, height, width] with weights [channels, 1,
//! kernel, kernel] of odd size.
//!
//! A plane is copied into a larger one with a border of zeros. Each weight of the kernel is then
//! multiplied with one contiguous stretch of that plane, over all rows, so that loops are long even
//! for narrow maps. With a stride above 1, the results of stride 1 are computed and some of them
//! selected.

use std::ops::Range;

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

/// The derivatives with respect to a plane before its epilogue (written to `passed` if there is an
/// epilogue) and with respect to the bias.
fn before_epilogue<'a>(
    grad: &'a [f32],
    output: Option<ConvOutput<'_>>,
    plane: Range<usize>,
    passed: &'a mut [f32],
) -> (&'a [f32], f32) {
    let grad = &grad[plane.clone()];
    match output {
        None => (grad, 0.0),
        Some(ConvOutput { maps, activation }) => {
            let by_bias = simd_loops::rectifier_backward(grad, &maps[plane], activation, passed);
            (passed, by_bias)
        }
    }
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
    let scratch = || (bordered.scratch(), vec![0.0; s.pixels_out()]);
    let of_plane = |plane: usize| plane * s.pixels_out()..(plane + 1) * s.pixels_out();
    // The derivative with respect to the input uses kernels rotated by 180 degrees.
    let turned: Vec<f32> = weight
        .chunks_exact(taps)
        .flat_map(|w| w.iter().rev().copied())
        .collect();
    let by_x = wants_x.then(|| {
        let fill = |([padded, stretch], passed): &mut ([Vec<f32>; 2], Vec<f32>),
                    plane: usize,
                    by_x: &mut [f32]| {
            let (grad, _) = before_epilogue(grad, output, of_plane(plane), passed);
            bordered.spread(grad, s.out.1, bordered.first(), stride, padded);
            simd_loops::correlate(
                padded,
                &turned[plane % channels * taps..][..taps],
                &bordered.offsets,
                stretch,
            );
            bordered.pick(stretch, s.size.1, 1, by_x);
        };
        fill_parallel_with(x.len(), s.pixels_in(), scratch, fill).0
    });
    let mut by_weight = vec![0.0; channels * taps];
    let of_channel = |([padded, stretch], passed): &mut ([Vec<f32>; 2], Vec<f32>),
                      (channel, by_weight): (usize, &mut [f32])| {
        let mut by_bias = 0.0;
        for plane in (channel..x.len() / s.pixels_in()).step_by(channels) {
            bordered.spread(
                &x[plane * s.pixels_in()..][..s.pixels_in()],
                s.size.1,
                bordered.first(),
                1,
                padded,
            );
            let (grad, sum) = before_epilogue(grad, output, of_plane(plane), passed);
            by_bias += sum;
            bordered.spread(grad, s.out.1, 0, stride, stretch);
            simd_loops::products(
                padded,
                &stretch[..bordered.stretch],
                &bordered.offsets,
                by_weight,
            );
        }
        by_bias
    };
    let by_bias = by_weight
        .par_chunks_mut(taps)
        .enumerate()
        .map_init(scratch, of_channel)
        .collect();
    ConvGradients {
        by_x,
        by_weight,
        by_bias,
    }
}
