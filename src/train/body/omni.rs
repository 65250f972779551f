//! `omni`: omni-scale blocks (OSNet, Zhou et al. 2019). Four streams of one to four light 3x3
//! convolutions detect features of four scales; one gate, shared by the streams, weights each
//! channel of each stream.

use burn::module::Module;
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::nn::{Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::backend::Backend;
use burn::tensor::{FloatDType, Tensor, activation};

use crate::train::body::conv::{Activation, ConvNorm, Shape};
use crate::train::kernels::backend::{Kernels, cast};
use crate::train::onnx::{Attribute, Graph};
use crate::train::tensors::export_linear;

/// Channels of the feature maps.
pub const CHANNELS: usize = 128;
const STAGES: [usize; 3] = [64, 96, CHANNELS];
const FIRST: usize = 16;
/// Blocks per stage.
const BLOCKS: usize = 2;
const SCALES: usize = 4;
/// Reduction of the number of channels inside a block.
const NARROW: usize = 4;

/// A pointwise and a depthwise convolution.
#[derive(Module, Debug)]
struct Light<B: Backend> {
    point: ConvNorm<B>,
    around: ConvNorm<B>,
}

/// Weights each channel by a function of the channels' means over the map.
#[derive(Module, Debug)]
struct Gate<B: Backend> {
    narrow: Linear<B>,
    widen: Linear<B>,
}

/// An omni-scale block.
#[derive(Module, Debug)]
struct OmniBlock<B: Backend> {
    enter: ConvNorm<B>,
    /// The convolutions of all streams in order: one, two, three, four.
    streams: Vec<Light<B>>,
    gate: Gate<B>,
    leave: ConvNorm<B>,
    /// Projection of the input that is added to the output, if the number of channels changes.
    around: Option<ConvNorm<B>>,
}

/// OSNet x0.25 without its head.
#[derive(Module, Debug)]
pub struct Omni<B: Backend> {
    first: ConvNorm<B>,
    pool: MaxPool2d,
    blocks: Vec<OmniBlock<B>>,
    /// Convolutions between the stages; the maps are halved after each.
    between: Vec<ConvNorm<B>>,
}

impl<B: Backend> OmniBlock<B> {
    fn new(from: usize, to: usize, device: &B::Device) -> Self {
        let mid = to / NARROW;
        let light = || Light {
            point: ConvNorm::new(Shape::point(mid, mid), device),
            around: ConvNorm::new(Shape::depthwise(mid, 1), device),
        };
        OmniBlock {
            enter: ConvNorm::new(Shape::point(from, mid), device),
            streams: (0..SCALES * (SCALES + 1) / 2).map(|_| light()).collect(),
            gate: Gate {
                narrow: LinearConfig::new(mid, mid / NARROW).init(device),
                widen: LinearConfig::new(mid / NARROW, mid).init(device),
            },
            leave: ConvNorm::new(Shape::point(mid, to), device),
            around: (from != to).then(|| ConvNorm::new(Shape::point(from, to), device)),
        }
    }

    /// The convolutions of each stream.
    fn streams(&self) -> impl Iterator<Item = &[Light<B>]> {
        (1..=SCALES).map(|s| &self.streams[s * (s - 1) / 2..s * (s + 1) / 2])
    }

    fn forward(&self, x: Tensor<B, 4>) -> Tensor<B, 4>
    where
        B: Kernels,
    {
        let entered = self.enter.forward(x.clone(), Activation::Relu);
        let seen = |stream: &[Light<B>]| {
            stream.iter().fold(entered.clone(), |y, l| {
                l.around
                    .forward(l.point.forward(y, Activation::Linear), Activation::Relu)
            })
        };
        let weighed = self.streams().map(seen).map(|y| self.gate.forward(y));
        let sum = weighed
            .reduce(|a, b| a + b)
            .unwrap_or_else(|| entered.clone());
        let kept = self
            .around
            .as_ref()
            .map_or_else(|| x.clone(), |c| c.forward(x.clone(), Activation::Linear));
        activation::relu(self.leave.forward(sum, Activation::Linear) + kept)
    }

    fn export(&self, g: &mut Graph, input: &str, name: &str) -> String {
        let enter = self.enter.export(g, input, &format!("{name}.enter.conv"));
        let entered = Activation::Relu.export(g, &enter, &format!("{name}.enter"));
        let mut sum: Option<String> = None;
        for (s, stream) in self.streams().enumerate() {
            let seen = stream
                .iter()
                .enumerate()
                .fold(entered.clone(), |y, (i, l)| {
                    let point = l
                        .point
                        .export(g, &y, &format!("{name}.stream{s}.{i}.point"));
                    let around =
                        l.around
                            .export(g, &point, &format!("{name}.stream{s}.{i}.around"));
                    Activation::Relu.export(g, &around, &format!("{name}.stream{s}.{i}"))
                });
            let weighed = self.gate.export(g, &seen, &format!("{name}.gate{s}"));
            sum = Some(match sum {
                None => weighed,
                Some(other) => g.node("Add", &[&other, &weighed], &format!("{name}.sum{s}"), &[]),
            });
        }
        let left = self
            .leave
            .export(g, &sum.unwrap_or(entered), &format!("{name}.leave"));
        let kept = self.around.as_ref().map_or_else(
            || input.to_string(),
            |c| c.export(g, input, &format!("{name}.around")),
        );
        let both = g.node("Add", &[&left, &kept], &format!("{name}.both"), &[]);
        Activation::Relu.export(g, &both, name)
    }
}

impl<B: Backend> Gate<B> {
    fn forward(&self, x: Tensor<B, 4>) -> Tensor<B, 4>
    where
        B: Kernels,
    {
        let mean = B::plane_mean(x.clone());
        let precision = FloatDType::from(x.dtype());
        let gate = activation::sigmoid(self.widen.forward(activation::relu(
            self.narrow.forward(cast(mean, FloatDType::F32)),
        )));
        B::gate(x, cast(gate, precision))
    }

    fn export(&self, g: &mut Graph, input: &str, name: &str) -> String {
        let mean = g.node("GlobalAveragePool", &[input], &format!("{name}.mean"), &[]);
        let flat = g.node("Flatten", &[&mean], &format!("{name}.flat"), &[]);
        let narrow = export_linear(g, &self.narrow, &flat, &format!("{name}.narrow"));
        let relu = g.node("Relu", &[&narrow], &format!("{name}.relu"), &[]);
        let wide = export_linear(g, &self.widen, &relu, &format!("{name}.widen"));
        let gate = g.node("Sigmoid", &[&wide], &format!("{name}.gate"), &[]);
        let shape = g.integers(&format!("{name}.shape"), &[0, -1, 1, 1]);
        let by_channel = g.node(
            "Reshape",
            &[&gate, &shape],
            &format!("{name}.by_channel"),
            &[],
        );
        g.node("Mul", &[input, &by_channel], name, &[])
    }
}

impl<B: Backend> Omni<B> {
    /// Creates the network with random weights.
    pub fn new(device: &B::Device) -> Self {
        let (mut blocks, mut from) = (Vec::new(), FIRST);
        for to in STAGES {
            for _ in 0..BLOCKS {
                blocks.push(OmniBlock::new(from, to, device));
                from = to;
            }
        }
        let between = STAGES[..STAGES.len() - 1]
            .iter()
            .map(|&c| ConvNorm::new(Shape::point(c, c), device))
            .collect();
        let pool = MaxPool2dConfig::new([3, 3])
            .with_strides([2, 2])
            .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
            .init();
        Omni {
            first: ConvNorm::new(Shape::full(3, FIRST, 2), device),
            pool,
            blocks,
            between,
        }
    }

    /// Maps crops to feature maps.
    pub fn forward(&self, crops: Tensor<B, 4>) -> Tensor<B, 4>
    where
        B: Kernels,
    {
        let mut x = self
            .pool
            .forward(self.first.forward(crops, Activation::Relu));
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward(x);
            if let Some(between) = self
                .between
                .get(i / BLOCKS)
                .filter(|_| i % BLOCKS == BLOCKS - 1)
            {
                x = burn::tensor::module::avg_pool2d(
                    between.forward(x, Activation::Relu),
                    [2, 2],
                    [2, 2],
                    [0, 0],
                    false,
                    false,
                );
            }
        }
        x
    }

    /// Adds the network to the graph, from the value `input`; returns its output.
    pub fn export(&self, g: &mut Graph, input: &str) -> String {
        let ints = |v: i64, n: usize| Attribute::Ints(vec![v; n]);
        let first = self.first.export(g, input, "first.conv");
        let first = Activation::Relu.export(g, &first, "first");
        let mut x = g.node(
            "MaxPool",
            &[&first],
            "pool",
            &[
                ("kernel_shape", ints(3, 2)),
                ("strides", ints(2, 2)),
                ("pads", ints(1, 4)),
            ],
        );
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.export(g, &x, &format!("block{i}"));
            if let Some(between) = self
                .between
                .get(i / BLOCKS)
                .filter(|_| i % BLOCKS == BLOCKS - 1)
            {
                let conv = between.export(g, &x, &format!("between{i}.conv"));
                let relu = Activation::Relu.export(g, &conv, &format!("between{i}"));
                x = g.node(
                    "AveragePool",
                    &[&relu],
                    &format!("halved{i}"),
                    &[("kernel_shape", ints(2, 2)), ("strides", ints(2, 2))],
                );
            }
        }
        x
    }
}
