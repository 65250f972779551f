//! `residual` and `residual-wide`: 3x3 convolutions with residual blocks (He et al. 2016), whose
//! channels are weighted by squeeze and excitation (Hu et al. 2018). The feature maps have an
//! eighth of the crop's size. The matrix products are fewer and larger than in MobileNetV2 or
//! OSNet, which makes better use of a CPU.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::backend::Backend;
use burn::tensor::{FloatDType, Tensor, activation};

use crate::train::body::conv::{Activation, ConvNorm, Shape};
use crate::train::kernels::backend::{Kernels, cast};
use crate::train::onnx::Graph;
use crate::train::tensors::export_linear;

/// Size of the crop divided by the size of the feature maps.
pub const STRIDE: usize = 8;

/// Channels and depth of a residual network.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Channels after the first, second and third halving of the size.
    pub channels: [usize; 3],
    /// Residual blocks at a quarter and at an eighth of the crop's size.
    pub blocks: [usize; 2],
}

impl Plan {
    /// [`crate::train::body::Network::Residual`]
    pub const SLIM: Plan = Plan {
        channels: [24, 48, 80],
        blocks: [1, 2],
    };
    /// [`crate::train::body::Network::ResidualWide`]
    pub const WIDE: Plan = Plan {
        channels: [32, 80, 160],
        blocks: [2, 4],
    };
}

/// A residual block.
#[derive(Module, Debug)]
struct Block<B: Backend> {
    first: ConvNorm<B>,
    second: ConvNorm<B>,
    narrow: Linear<B>,
    widen: Linear<B>,
}

impl<B: Backend> Block<B> {
    fn new(channels: usize, device: &B::Device) -> Self {
        let inner = (channels / 8).max(8);
        let conv = || ConvNorm::new(Shape::full(channels, channels, 1), device);
        Block {
            first: conv(),
            second: conv(),
            narrow: LinearConfig::new(channels, inner).init(device),
            widen: LinearConfig::new(inner, channels).init(device),
        }
    }

    fn forward(&self, x: Tensor<B, 4>) -> Tensor<B, 4>
    where
        B: Kernels,
    {
        let y = self.second.forward(
            self.first.forward(x.clone(), Activation::Relu),
            Activation::Linear,
        );
        let precision = FloatDType::from(y.dtype());
        let mean = cast(B::plane_mean(y.clone()), FloatDType::F32);
        // Twice the sigmoid, so that an untrained gate multiplies its channel by about 1.
        let gates = activation::sigmoid(
            self.widen
                .forward(activation::relu(self.narrow.forward(mean))),
        );
        let doubled = gates.clone() * 2.0;
        activation::relu(x.clone() + B::gate(y, cast(doubled, precision)))
    }

    fn export(&self, g: &mut Graph, input: &str, name: &str) -> String {
        let first = self.first.export(g, input, &format!("{name}.first.conv"));
        let first = Activation::Relu.export(g, &first, &format!("{name}.first"));
        let second = self.second.export(g, &first, &format!("{name}.second"));
        let mean = g.node(
            "GlobalAveragePool",
            &[&second],
            &format!("{name}.mean"),
            &[],
        );
        let flat = g.node("Flatten", &[&mean], &format!("{name}.flat"), &[]);
        let narrow = export_linear(g, &self.narrow, &flat, &format!("{name}.narrow"));
        let relu = g.node("Relu", &[&narrow], &format!("{name}.relu"), &[]);
        let wide = export_linear(g, &self.widen, &relu, &format!("{name}.widen"));
        let gate = g.node("Sigmoid", &[&wide], &format!("{name}.gate"), &[]);
        let two = g.constant(&format!("{name}.two"), &[1], &[2.0]);
        let double = g.node("Mul", &[&gate, &two], &format!("{name}.double"), &[]);
        let shape = g.integers(&format!("{name}.shape"), &[0, -1, 1, 1]);
        let by_channel = g.node(
            "Reshape",
            &[&double, &shape],
            &format!("{name}.by_channel"),
            &[],
        );
        let weighed = g.node(
            "Mul",
            &[&second, &by_channel],
            &format!("{name}.weighed"),
            &[],
        );
        let sum = g.node("Add", &[input, &weighed], &format!("{name}.sum"), &[]);
        Activation::Relu.export(g, &sum, name)
    }
}

/// The network.
#[derive(Module, Debug)]
pub struct Residual<B: Backend> {
    /// The three convolutions that halve the size.
    halvings: Vec<ConvNorm<B>>,
    /// The blocks at a quarter of the crop's size.
    quarter: Vec<Block<B>>,
    /// The blocks at an eighth of the crop's size.
    eighth: Vec<Block<B>>,
}

impl<B: Backend> Residual<B> {
    /// Creates the network with random weights.
    pub fn new(plan: Plan, device: &B::Device) -> Self {
        let [a, b, c] = plan.channels;
        let halving = |from, to| ConvNorm::new(Shape::full(from, to, 2), device);
        let blocks = |count, channels| (0..count).map(|_| Block::new(channels, device)).collect();
        Residual {
            halvings: vec![halving(3, a), halving(a, b), halving(b, c)],
            quarter: blocks(plan.blocks[0], b),
            eighth: blocks(plan.blocks[1], c),
        }
    }

    /// Channels of the feature maps.
    pub fn channels(&self) -> usize {
        self.halvings.last().map_or(0, |h| h.weight_shape()[0])
    }

    /// Maps crops to feature maps.
    pub fn forward(&self, crops: Tensor<B, 4>) -> Tensor<B, 4>
    where
        B: Kernels,
    {
        let halved = |x, i: usize| self.halvings[i].forward(x, Activation::Relu);
        let quarter = self
            .quarter
            .iter()
            .fold(halved(halved(crops, 0), 1), |x, block| block.forward(x));
        self.eighth
            .iter()
            .fold(halved(quarter, 2), |x, block| block.forward(x))
    }

    /// Adds the network to the graph, from the value `input`; returns its output.
    pub fn export(&self, g: &mut Graph, input: &str) -> String {
        let halved = |g: &mut Graph, x: &str, i: usize| {
            let conv = self.halvings[i].export(g, x, &format!("halving{i}.conv"));
            Activation::Relu.export(g, &conv, &format!("halving{i}"))
        };
        let mut x = halved(g, input, 0);
        x = halved(g, &x, 1);
        for (i, block) in self.quarter.iter().enumerate() {
            x = block.export(g, &x, &format!("quarter{i}"));
        }
        x = halved(g, &x, 2);
        for (i, block) in self.eighth.iter().enumerate() {
            x = block.export(g, &x, &format!("eighth{i}"));
        }
        x
    }
}
