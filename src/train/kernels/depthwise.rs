//! Convolution of each channel by itself: [n, channels, height, width] with weights [channels, 1, kernel, kernel].

use rayon::prelude::*;

use crate::train::kernels::made::made;
use crate::train::kernels::normalisation::lanes;
use crate::train::kernels::shape::{Geometry, Run};

/// The part of a plane of the input that a run sees.
fn seen<'a>(plane: &'a [f32], r: &Run, stride: usize) -> impl Iterator<Item = &'a f32> {
    plane[r.from..].iter().step_by(stride).take(r.count)
}

/// The maps that `weight` makes of `x`.
pub fn forward(x: &[f32], weight: &[f32], s: &Geometry) -> Vec<f32> {
    let (channels, taps, stride, runs) = (s.shape.channels.0, s.shape.kernel * s.shape.kernel, s.shape.stride, s.runs());
    made(x.len() / s.pixels_in() * s.pixels_out(), s.pixels_out(), |plane, out| {
        let x = &x[plane * s.pixels_in()..][..s.pixels_in()];
        let weight = &weight[plane % channels * taps..][..taps];
        for r in &runs {
            let (w, out) = (weight[r.tap], &mut out[r.to..r.to + r.count]);
            if stride == 1 {
                out.iter_mut().zip(&x[r.from..r.from + r.count]).for_each(|(o, x)| *o += w * x);
            } else {
                out.iter_mut().zip(seen(x, r, stride)).for_each(|(o, x)| *o += w * x);
            }
        }
    })
}

/// The derivatives by the input (if wanted) and by the weights, from the one by the output.
pub fn backward(x: &[f32], weight: &[f32], grad: &[f32], s: &Geometry, wants_x: bool) -> (Option<Vec<f32>>, Vec<f32>) {
    let (channels, taps, stride, runs) = (s.shape.channels.0, s.shape.kernel * s.shape.kernel, s.shape.stride, s.runs());
    let by_x = wants_x.then(|| {
        made(x.len(), s.pixels_in(), |plane, by_x| {
            let grad = &grad[plane * s.pixels_out()..][..s.pixels_out()];
            let weight = &weight[plane % channels * taps..][..taps];
            for r in &runs {
                let (w, grad) = (weight[r.tap], &grad[r.to..r.to + r.count]);
                if stride == 1 {
                    by_x[r.from..r.from + r.count].iter_mut().zip(grad).for_each(|(x, g)| *x += w * g);
                } else {
                    by_x[r.from..].iter_mut().step_by(stride).zip(grad).for_each(|(x, g)| *x += w * g);
                }
            }
        })
    });
    let mut by_weight = vec![0.0; channels * taps];
    by_weight.par_chunks_mut(taps).enumerate().for_each(|(channel, by_weight)| {
        let planes = (channel..x.len() / s.pixels_in()).step_by(channels);
        for plane in planes {
            let (x, grad) = (&x[plane * s.pixels_in()..][..s.pixels_in()], &grad[plane * s.pixels_out()..][..s.pixels_out()]);
            for r in &runs {
                let grad = &grad[r.to..r.to + r.count];
                by_weight[r.tap] +=
                    if stride == 1 { lanes(&x[r.from..r.from + r.count], grad, |x, g| x * g) } else { seen(x, r, stride).zip(grad).map(|(x, g)| x * g).sum() };
            }
        }
    });
    (by_x, by_weight)
}
