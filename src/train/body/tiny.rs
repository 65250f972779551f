//! `tiny`: five convolutions.

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use crate::train::body::conv::{Activation, ConvNorm, Shape};
use crate::train::kernels::backend::Kernels;
use crate::train::onnx::Graph;

/// Channels of the feature maps.
pub const CHANNELS: usize = 96;
const LAYERS: [(usize, usize, usize); 5] = [
    (3, 16, 2),
    (16, 32, 2),
    (32, 64, 2),
    (64, 96, 2),
    (96, CHANNELS, 1),
];

/// Five convolutions.
#[derive(Module, Debug)]
pub struct Tiny<B: Backend> {
    blocks: Vec<ConvNorm<B>>,
}

impl<B: Backend> Tiny<B> {
    /// Creates the network with random weights.
    pub fn new(device: &B::Device) -> Self {
        Tiny {
            blocks: LAYERS
                .iter()
                .map(|&(from, to, stride)| ConvNorm::new(Shape::full(from, to, stride), device))
                .collect(),
        }
    }

    /// Maps crops to feature maps.
    pub fn forward(&self, crops: Tensor<B, 4>) -> Tensor<B, 4>
    where
        B: Kernels,
    {
        self.blocks
            .iter()
            .fold(crops, |x, b| b.forward(x, Activation::Relu))
    }

    /// Adds the network to the graph, from the value `input`; returns its output.
    pub fn export(&self, g: &mut Graph, input: &str) -> String {
        self.blocks
            .iter()
            .enumerate()
            .fold(input.to_string(), |x, (i, b)| {
                let conv = b.export(g, &x, &format!("block{i}.conv"));
                Activation::Relu.export(g, &conv, &format!("block{i}"))
            })
    }
}
