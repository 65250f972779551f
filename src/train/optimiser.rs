//! AdamW (Loshchilov and Hutter 2019). On a GPU all weights are one vector. A step then takes a
//! dozen operations, not a dozen per weight tensor: starting so many small operations takes longer
//! than computing them.

use std::collections::HashMap;

use burn::grad_clipping::{GradientClipping, GradientClippingConfig};
use burn::module::{AutodiffModule, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::record::Record;
use burn::tensor::Tensor;
use burn::tensor::backend::{AutodiffBackend, Backend};

/// Decay of the averages of gradients and of their squares.
const BETA: [f32; 2] = [0.9, 0.999];
/// Constant added to the root of the average square.
const EPSILON: f32 = 1e-5;

/// The averages of the gradients of all vectors, after a number of steps.
#[derive(Record, Clone)]
pub struct Moments<B: Backend> {
    /// Number of steps.
    steps: usize,
    /// Average gradients.
    first: Vec<Tensor<B, 1>>,
    /// Average squared gradients.
    second: Vec<Tensor<B, 1>>,
}

/// The optimiser.
pub struct AdamW<B: AutodiffBackend> {
    weight_decay: f32,
    clipping: Option<GradientClippingConfig>,
    /// Whether all weights are one vector; otherwise each weight tensor is a vector.
    whole: bool,
    /// Absent before the first step.
    moments: Option<Moments<B::InnerBackend>>,
}

impl<B: AutodiffBackend> AdamW<B> {
    /// Creates an optimiser. The gradient of a weight tensor is scaled down to the norm `clip` if
    /// its norm is larger; 0 disables this. `whole`: all weights are one vector, which is faster on
    /// a GPU, and slower on a CPU, because the vector does not fit into the cache.
    pub fn new(weight_decay: f32, clip: f32, whole: bool) -> Self {
        AdamW {
            weight_decay,
            clipping: (clip > 0.0).then_some(GradientClippingConfig::Norm(clip)),
            whole,
            moments: None,
        }
    }

    /// Continues with the moments of an earlier run of the same architecture.
    pub fn resume(self, moments: Option<Moments<B::InnerBackend>>) -> Self {
        AdamW { moments, ..self }
    }

    /// The moments.
    pub fn moments(&self) -> Option<Moments<B::InnerBackend>> {
        self.moments.clone()
    }

    /// Updates the weights that have a gradient. The same weights must have gradients in every
    /// step.
    pub fn step<M: AutodiffModule<B>>(
        &mut self,
        rate: f64,
        module: M,
        gradients: GradientsParams,
    ) -> M {
        let mut found = Collected::<B> {
            gradients,
            clipping: self.clipping.as_ref().map(GradientClippingConfig::init),
            parts: Vec::new(),
        };
        module.visit(&mut found);
        let mut parts = found.parts;
        if parts.is_empty() {
            return module;
        }
        // Parts whose length is not a multiple of four are last, so that the others begin at a
        // multiple of 16 bytes, which fast kernels need.
        parts.sort_by_key(|p| !p.weight.dims()[0].is_multiple_of(4));
        let groups: Vec<Vec<Part<B>>> = if self.whole {
            vec![parts]
        } else {
            parts.into_iter().map(|part| vec![part]).collect()
        };
        let mut moments = self.moments.take().unwrap_or_default();
        moments.steps += 1;
        let mut replaced = Replaced::<B> {
            vectors: Vec::new(),
            places: HashMap::new(),
        };
        let kept = 1.0 - rate * f64::from(self.weight_decay);
        for (number, group) in groups.into_iter().enumerate() {
            let (mut weights, mut slopes, mut start) = (Vec::new(), Vec::new(), 0);
            for Part { id, weight, slope } in group {
                replaced.places.insert(id, (number, start));
                start += weight.dims()[0];
                weights.push(weight);
                slopes.push(slope);
            }
            let change = moments.change(number, Tensor::cat(slopes, 0));
            let weights = Tensor::cat(weights, 0) * kept - change * rate;
            replaced.vectors.push(weights);
        }
        self.moments = Some(moments);
        module.map(&mut replaced)
    }
}

impl<B: Backend> Default for Moments<B> {
    fn default() -> Self {
        Moments {
            steps: 0,
            first: Vec::new(),
            second: Vec::new(),
        }
    }
}

impl<B: Backend> Moments<B> {
    /// Updates the averages of a vector by its gradient; returns the change of the vector at a
    /// learning rate of 1.
    fn change(&mut self, number: usize, slopes: Tensor<B, 1>) -> Tensor<B, 1> {
        let steps = self.steps as i32;
        let squares = slopes.clone().square();
        let averaged = |averages: &mut Vec<Tensor<B, 1>>, value: Tensor<B, 1>, beta: f32| {
            let value = value * (1.0 - beta);
            if let Some(average) = averages.get_mut(number) {
                *average = average.clone() * beta + value;
            } else {
                averages.push(value);
            }
            averages[number].clone() / (1.0 - beta.powi(steps))
        };
        let first = averaged(&mut self.first, slopes, BETA[0]);
        let second = averaged(&mut self.second, squares, BETA[1]);
        first / (second.sqrt() + EPSILON)
    }
}

/// A weight tensor and its gradient, as vectors.
struct Part<B: AutodiffBackend> {
    id: ParamId,
    weight: Tensor<B::InnerBackend, 1>,
    slope: Tensor<B::InnerBackend, 1>,
}

/// The weights that have a gradient, in the order of a visit.
struct Collected<B: AutodiffBackend> {
    gradients: GradientsParams,
    clipping: Option<GradientClipping>,
    parts: Vec<Part<B>>,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for Collected<B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let Some(slope) = self.gradients.remove::<B::InnerBackend, D>(param.id) else {
            return;
        };
        let slope = match &self.clipping {
            Some(clipping) => clipping.clip_gradient(slope),
            None => slope,
        };
        let weight = param.val().inner();
        let length = weight.dims().iter().product::<usize>();
        self.parts.push(Part {
            id: param.id,
            weight: weight.reshape([length]),
            slope: slope.reshape([length]),
        });
    }
}

/// Replaces the weights by parts of vectors.
struct Replaced<B: AutodiffBackend> {
    vectors: Vec<Tensor<B::InnerBackend, 1>>,
    /// For each weight tensor, its vector and the index at which its part begins.
    places: HashMap<ParamId, (usize, usize)>,
}

impl<B: AutodiffBackend> ModuleMapper<B> for Replaced<B> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let Some(&(vector, start)) = self.places.get(&param.id) else {
            return param;
        };
        let (id, weight, mapper) = param.consume();
        let shape = weight.dims();
        let length = shape.iter().product::<usize>();
        let part = self.vectors[vector].clone().narrow(0, start, length);
        let weight = Tensor::from_inner(part.reshape(shape)).require_grad();
        Param::from_mapped_value(id, weight, mapper)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::rng_lock::RNG_LOCK;
    use burn::backend::{Autodiff, Flex};
    use burn::nn::{Linear, LinearConfig};
    use burn::optim::{AdamWConfig, Optimizer};
    use burn::tensor::{Distribution, TensorData};

    type B = Autodiff<Flex>;

    fn gradients(layers: &[Linear<B>; 2], x: &Tensor<B, 2>) -> GradientsParams {
        let y = layers[1].forward(layers[0].forward(x.clone()).tanh());
        GradientsParams::from_grads(y.square().mean().backward(), layers)
    }

    fn weights(layers: &[Linear<B>; 2]) -> Vec<TensorData> {
        let bias = |l: &Linear<B>| l.bias.as_ref().map(|b| b.val().into_data());
        layers
            .iter()
            .flat_map(|l| [Some(l.weight.val().into_data()), bias(l)])
            .flatten()
            .collect()
    }

    #[test]
    fn weights_follow_those_of_burns_optimiser_exactly() {
        let _guard = RNG_LOCK.lock().unwrap_or_else(|e| e.into_inner());
        let device = Default::default();
        for (clip, whole) in [(0.0, true), (0.01, true), (0.0, false), (0.01, false)] {
            // Some lengths are multiples of four, with other lengths before and after them.
            let start =
                [(3, 5), (5, 4)].map(|(from, to)| LinearConfig::new(from, to).init::<B>(&device));
            weights(&start); // Draws the weights; clones made before would differ.
            let x = Tensor::random([7, 3], Distribution::Normal(0.0, 1.0), &device);
            let clipping = (clip > 0.0).then_some(GradientClippingConfig::Norm(clip));
            let mut theirs = AdamWConfig::new()
                .with_weight_decay(0.1)
                .with_grad_clipping(clipping)
                .init::<B, [Linear<B>; 2]>();
            let mut ours = AdamW::<B>::new(0.1, clip, whole);
            let (mut a, mut b) = (start.clone(), start.clone());
            for step in 1..=5 {
                let rate = 0.01 * f64::from(step);
                let by_a = gradients(&a, &x);
                a = theirs.step(rate, a, by_a);
                let by_b = gradients(&b, &x);
                b = ours.step(rate, b, by_b);
                assert_eq!(
                    weights(&a),
                    weights(&b),
                    "step {step}, clip {clip}, {whole}"
                );
            }
            assert_ne!(weights(&a), weights(&start));
        }
    }
}
