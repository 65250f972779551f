//! Convolution over all channels as a matrix product: the pixels under the kernel become a column
//! ("im2col").
//!
//! Maps are [n, channels, height, width], weights [to, from, kernel, kernel]. A batch is processed
//! in groups of pictures. The size of a group does not depend on the number of cores, so that sums
//! are the same on every machine.

use ndarray::{ArrayView2, ArrayViewMut2};
use rayon::prelude::*;

use crate::train::kernels::matmul::multiply;
use crate::train::kernels::parallel_fill::fill_parallel_with;
use crate::train::kernels::shape::{ConvGeometry, ConvGradients, ConvOutput, Epilogue, KernelRun};
use crate::train::kernels::simd_loops;

/// Target number of columns per group: enough for an efficient product, and small enough for the
/// cache.
const COLUMNS: usize = 512;
/// Minimum number of columns per product, if the pixels are used as columns without a copy.
const FEWEST: usize = 100;

/// Number of groups whose weight derivatives one thread adds up.
const BUNDLE: usize = 8;

/// The matrix product for one batch.
struct Product {
    from: usize,
    to: usize,
    stride: usize,
    pixels_in: usize,
    pixels_out: usize,
    /// Number of weights per output channel.
    taps: usize,
    runs: Vec<KernelRun>,
    /// Pictures per group.
    group: usize,
    /// Whether the pixels can be used as columns without a copy.
    direct: bool,
}

impl Product {
    fn new(s: &ConvGeometry, n: usize) -> Self {
        let (from, to) = s.shape.channels;
        let pointwise = s.shape.kernel == 1 && s.shape.stride == 1;
        // A pointwise convolution needs no copy, so its products can have fewer columns.
        let group = if pointwise && s.pixels_out() >= FEWEST {
            1
        } else {
            (COLUMNS / s.pixels_out()).clamp(1, n.max(1))
        };
        Product {
            from,
            to,
            stride: s.shape.stride,
            pixels_in: s.pixels_in(),
            pixels_out: s.pixels_out(),
            taps: from * s.shape.kernel * s.shape.kernel,
            runs: s.runs(),
            group,
            direct: pointwise && group == 1,
        }
    }

    /// Calls `f` for the runs of all channels of picture `i` of a group, with the row of the column
    /// matrix, the position in the row, and the run.
    fn rows(&self, i: usize, width: usize, mut f: impl FnMut(usize, usize, &KernelRun)) {
        let kernel = self.taps / self.from;
        for c in 0..self.from {
            self.runs.iter().for_each(|r| {
                f(
                    (c * kernel + r.tap) * width + i * self.pixels_out + r.to,
                    c * self.pixels_in + r.from,
                    r,
                )
            });
        }
    }

    /// Fills the columns [taps, pictures * pixels] of a group of pictures. Pixels outside a picture
    /// stay zero.
    fn columns(&self, pictures: &[f32], columns: &mut [f32]) {
        let width = pictures.len() / (self.from * self.pixels_in) * self.pixels_out;
        for (i, picture) in pictures
            .chunks_exact(self.from * self.pixels_in)
            .enumerate()
        {
            self.rows(i, width, |to, from, r| {
                let row = &mut columns[to..to + r.count];
                if self.stride == 1 {
                    row.copy_from_slice(&picture[from..from + r.count]);
                } else {
                    row.iter_mut()
                        .zip(picture[from..].iter().step_by(self.stride))
                        .for_each(|(a, b)| *a = *b);
                }
            });
        }
    }

    /// Adds columns to the pixels from which they were copied.
    fn gather(&self, columns: &[f32], pictures: &mut [f32]) {
        let width = pictures.len() / (self.from * self.pixels_in) * self.pixels_out;
        for (i, picture) in pictures
            .chunks_exact_mut(self.from * self.pixels_in)
            .enumerate()
        {
            self.rows(i, width, |at, to, r| {
                let row = &columns[at..at + r.count];
                if self.stride == 1 {
                    picture[to..to + r.count]
                        .iter_mut()
                        .zip(row)
                        .for_each(|(a, b)| *a += b);
                } else {
                    picture[to..]
                        .iter_mut()
                        .step_by(self.stride)
                        .zip(row)
                        .for_each(|(a, b)| *a += b);
                }
            });
        }
    }

    /// Transposes maps between [pictures, channels, pixels] and [channels, pictures, pixels].
    fn swap(&self, rows: usize, columns: usize, from: &[f32], to: &mut [f32]) {
        for (k, part) in from.chunks_exact(self.pixels_out).enumerate() {
            let at = (k % columns * rows + k / columns) * self.pixels_out;
            to[at..at + self.pixels_out].copy_from_slice(part);
        }
    }
}

fn matrix(values: &[f32], rows: usize, columns: usize) -> ArrayView2<'_, f32> {
    ArrayView2::from_shape((rows, columns), &values[..rows * columns])
        .expect("the slice has rows * columns values")
}

fn matrix_mut(values: &mut [f32], rows: usize, columns: usize) -> ArrayViewMut2<'_, f32> {
    ArrayViewMut2::from_shape((rows, columns), &mut values[..rows * columns])
        .expect("the slice has rows * columns values")
}

/// Buffers that a thread reuses for each group. The last group can be smaller, with columns of
/// another width, and then starts with zeroed buffers.
#[derive(Default)]
struct Scratch {
    width: usize,
    columns: Vec<f32>,
    maps: Vec<f32>,
    /// Derivatives with respect to the columns.
    by_columns: Vec<f32>,
    /// Derivatives with respect to the maps before the epilogue.
    passed: Vec<f32>,
}

impl Scratch {
    fn fit(&mut self, p: &Product, width: usize) {
        if self.width != width {
            self.width = width;
            self.columns = vec![0.0; if p.direct { 0 } else { p.taps * width }];
            self.maps = vec![0.0; if p.group == 1 { 0 } else { p.to * width }];
        }
    }
}

/// Convolves `x` with `weight`.
pub fn forward(
    x: &[f32],
    weight: &[f32],
    s: &ConvGeometry,
    epilogue: Option<Epilogue<'_>>,
) -> Vec<f32> {
    let n = x.len() / (s.shape.channels.0 * s.pixels_in());
    let p = Product::new(s, n);
    let (chunk_in, chunk_out) = (
        p.group * p.from * p.pixels_in,
        p.group * p.to * p.pixels_out,
    );
    let fill = |scratch: &mut Scratch, number: usize, out: &mut [f32]| {
        let x = &x[number * chunk_in..x.len().min((number + 1) * chunk_in)];
        let pictures = out.len() / (p.to * p.pixels_out);
        let width = pictures * p.pixels_out;
        scratch.fit(&p, width);
        let Scratch { columns, maps, .. } = scratch;
        if !p.direct {
            p.columns(x, columns);
        }
        let columns = matrix(if p.direct { x } else { columns }, p.taps, width);
        let target = if p.group == 1 { &mut *out } else { &mut *maps };
        multiply(
            &matrix(weight, p.to, p.taps),
            &columns,
            &mut matrix_mut(target, p.to, width),
        );
        if let Some(Epilogue { bias, activation }) = epilogue {
            target
                .chunks_exact_mut(width)
                .zip(bias)
                .for_each(|(row, bias)| simd_loops::affine(row, (1.0, *bias), activation));
        }
        if p.group > 1 {
            p.swap(p.to, pictures, maps, out);
        }
    };
    fill_parallel_with(
        n * p.to * p.pixels_out,
        chunk_out.max(1),
        Scratch::default,
        fill,
    )
    .0
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
    let n = x.len() / (s.shape.channels.0 * s.pixels_in());
    let p = Product::new(s, n);
    let (per_in, per_out) = (
        p.group * p.from * p.pixels_in,
        p.group * p.to * p.pixels_out,
    );
    // For one group: writes the derivatives with respect to the input, if requested; returns the
    // derivatives with respect to weights and bias.
    let group = |scratch: &mut Scratch, number: usize, by_x: Option<&mut [f32]>| {
        let x = &x[number * per_in..x.len().min((number + 1) * per_in)];
        let part = number * per_out..grad.len().min((number + 1) * per_out);
        let grad = &grad[part.clone()];
        let pictures = grad.len() / (p.to * p.pixels_out);
        let width = pictures * p.pixels_out;
        scratch.fit(&p, width);
        let Scratch {
            columns,
            maps,
            by_columns,
            passed,
            ..
        } = scratch;
        let mut by_bias = vec![0.0; if output.is_some() { p.to } else { 0 }];
        let grad = match output {
            None => grad,
            Some(ConvOutput { maps, activation }) => {
                passed.resize(grad.len(), 0.0);
                let planes = passed
                    .chunks_exact_mut(p.pixels_out)
                    .zip(grad.chunks_exact(p.pixels_out))
                    .zip(maps[part].chunks_exact(p.pixels_out));
                planes.enumerate().for_each(|(k, ((out, grad), y))| {
                    by_bias[k % p.to] += simd_loops::rectifier_backward(grad, y, activation, out)
                });
                passed
            }
        };
        if p.group > 1 {
            p.swap(pictures, p.to, grad, maps);
        }
        let grad = matrix(if p.group == 1 { grad } else { maps }, p.to, width);
        if !p.direct {
            p.columns(x, columns);
        }
        let mut by_weight = vec![0.0; p.to * p.taps];
        multiply(
            &grad,
            &matrix(if p.direct { x } else { columns }, p.taps, width).t(),
            &mut matrix_mut(&mut by_weight, p.to, p.taps),
        );
        if let Some(by_x) = by_x {
            let weight = matrix(weight, p.to, p.taps);
            if p.direct {
                multiply(&weight.t(), &grad, &mut matrix_mut(by_x, p.taps, width));
            } else {
                by_columns.resize(p.taps * width, 0.0);
                multiply(
                    &weight.t(),
                    &grad,
                    &mut matrix_mut(by_columns, p.taps, width),
                );
                p.gather(by_columns, by_x);
            }
        }
        (by_weight, by_bias)
    };
    let (by_x, parts) = if wants_x {
        let (by_x, parts) = fill_parallel_with(
            x.len(),
            per_in.max(1),
            Scratch::default,
            |scratch, number, by_x| group(scratch, number, Some(by_x)),
        );
        (Some(by_x), parts)
    } else {
        (
            None,
            (0..n.div_ceil(p.group))
                .into_par_iter()
                .map_init(Scratch::default, |scratch, number| {
                    group(scratch, number, None)
                })
                .collect(),
        )
    };
    // The derivatives are summed within bundles in parallel, then over bundles, so that the order
    // does not depend on the machine.
    let sum = |parts: Vec<(Vec<f32>, Vec<f32>)>| {
        parts.into_iter().reduce(|mut sum, (by_weight, by_bias)| {
            let add = |a: &mut [f32], b: Vec<f32>| a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
            add(&mut sum.0, by_weight);
            add(&mut sum.1, by_bias);
            sum
        })
    };
    let bundles: Vec<_> = parts
        .into_par_iter()
        .chunks(BUNDLE)
        .filter_map(sum)
        .collect();
    let (by_weight, by_bias) = sum(bundles).unwrap_or_else(|| {
        (
            vec![0.0; weight.len()],
            vec![0.0; if output.is_some() { p.to } else { 0 }],
        )
    });
    ConvGradients {
        by_x,
        by_weight,
        by_bias,
    }
}
