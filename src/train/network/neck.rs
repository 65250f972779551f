//! The neck of a tower: batch normalisation of vectors before they are scaled to unit length (the
//! "BN neck" of Luo et al. 2019).
//!
//! The neck prevents collapse. With the hardest triplets, training can make all vectors equal; the
//! loss is then the margin, and small changes of the weights do not lower it. Vectors that are
//! normalised by the moments of the batch cannot all be equal, because their mean squared distance
//! is constant.

use burn::module::Module;
use burn::nn::{BatchNorm, BatchNormConfig};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use crate::train::body::conv::{Activation, factor_and_offset};
use crate::train::kernels::backend::Kernels;
use crate::train::onnx::Graph;

/// Constant added to variances. With the usual 1e-5, vectors with a smaller variance could
/// collapse.
const EPSILON: f64 = 1e-10;

/// Batch normalisation of vectors [n, d].
#[derive(Module, Debug)]
pub struct Neck<B: Backend> {
    norm: BatchNorm<B>,
}

impl<B: Backend> Neck<B> {
    /// Creates the neck for vectors of `dimension` components.
    pub(super) fn new(dimension: usize, device: &B::Device) -> Self {
        Neck {
            norm: BatchNormConfig::new(dimension)
                .with_epsilon(EPSILON)
                .init(device),
        }
    }

    /// Normalises vectors [n, d]; in training by the batch's moments.
    pub(super) fn forward(&self, vectors: Tensor<B, 2>) -> Tensor<B, 2>
    where
        B: Kernels,
    {
        let [n, d] = vectors.dims();
        let maps = vectors.reshape([n, d, 1, 1]);
        B::batch_normalise(&self.norm, maps, Activation::Linear).reshape([n, d])
    }

    /// Adds the neck to the graph as an affine map; returns its output.
    pub(super) fn export(&self, g: &mut Graph, input: &str) -> String {
        let (factor, offset) = factor_and_offset(&self.norm);
        let factor = g.constant("neck.factor", &[factor.len()], &factor);
        let offset = g.constant("neck.offset", &[offset.len()], &offset);
        let scaled = g.node("Mul", &[input, &factor], "neck_scaled", &[]);
        g.node("Add", &[&scaled, &offset], "neck", &[])
    }
}
