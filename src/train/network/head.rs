//! The head of a tower: maps feature maps to a vector.

use burn::module::{Module, Param};
use burn::nn::{Initializer, Linear, LinearConfig};
use burn::tensor::backend::Backend;
use burn::tensor::module::avg_pool2d;
use burn::tensor::{Distribution, Tensor, activation};

use super::{Design, HeadKind};
use crate::train::body::conv::{Activation, ConvNorm, Shape};
use crate::train::colour::STRIPES;
use crate::train::kernels::backend::Kernels;
use crate::train::onnx::{Attribute, Graph};
use crate::train::tensors::{MapSize, export_linear, values};

/// Initial slope of the head's parametric rectifier (He et al. 2015).
const SLOPE: f32 = 0.25;

/// Maps feature maps to a vector.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)] // A network has a single one.
pub enum TowerHead<B: Backend> {
    /// [`HeadKind::Stripes`]
    Stripes(Linear<B>),
    /// [`HeadKind::ReadOut`]
    ReadOut(ReadOut<B>),
}

/// [`HeadKind::ReadOut`]
#[derive(Module, Debug)]
pub struct ReadOut<B: Backend> {
    /// Convolution to the channels that are read.
    widen: ConvNorm<B>,
    /// [channels, height * width of a map]
    weights: Param<Tensor<B, 2>>,
    linear: Linear<B>,
    /// Slope of the rectifier for negative inputs, [d].
    slope: Param<Tensor<B, 1>>,
}

impl<B: Backend> TowerHead<B> {
    /// Creates a head for feature maps of `c` channels and `h` by `w` pixels.
    pub(super) fn new(design: &Design, [c, h, w]: MapSize, device: &B::Device) -> Self {
        // With a colour layout the head is initialised with zero.
        let linear = |from: usize, bias: bool| {
            let linear = LinearConfig::new(from, design.dimension).with_bias(bias);
            if design.colours {
                linear.with_initializer(Initializer::Zeros)
            } else {
                linear
            }
            .init(device)
        };
        match design.head {
            HeadKind::Stripes => TowerHead::Stripes(linear(c * STRIPES, !design.colours)),
            HeadKind::ReadOut => {
                // Initially the read-out is nearly the mean over the map.
                let mean = 1.0 / (h * w) as f64;
                let weights = Tensor::random(
                    [design.channels, h * w],
                    Distribution::Normal(mean, 0.3 * mean),
                    device,
                );
                TowerHead::ReadOut(ReadOut {
                    widen: ConvNorm::new(Shape::point(c, design.channels), device),
                    weights: Param::from_tensor(weights),
                    linear: linear(design.channels, true),
                    slope: Param::from_tensor(Tensor::full([design.dimension], SLOPE, device)),
                })
            }
        }
    }

    /// The vectors [n, d], and the feature maps from which they are computed.
    pub(super) fn forward(&self, map: Tensor<B, 4>) -> (Tensor<B, 2>, Tensor<B, 4>)
    where
        B: Kernels,
    {
        let [n, c, h, w] = map.dims();
        match self {
            TowerHead::Stripes(linear) => {
                let pool = [h / STRIPES, w];
                (
                    linear.forward(
                        avg_pool2d(map.clone(), pool, pool, [0, 0], false, false)
                            .reshape([n, c * STRIPES]),
                    ),
                    map,
                )
            }
            TowerHead::ReadOut(head) => {
                let map = head.widen.forward(map, Activation::Relu);
                let x = head
                    .linear
                    .forward(B::read_out(map.clone(), head.weights.val()));
                let [_, d] = x.dims();
                (
                    activation::relu(x.clone())
                        - activation::relu(x.neg()) * head.slope.val().reshape([1, d]),
                    map,
                )
            }
        }
    }

    /// Adds the head to the graph, from the value `map`; returns its output.
    pub(super) fn export(&self, g: &mut Graph, map: &str, (h, w): (usize, usize)) -> String {
        match self {
            TowerHead::Stripes(linear) => {
                let pool = || Attribute::Ints(vec![(h / STRIPES) as i64, w as i64]);
                let mean = g.node(
                    "AveragePool",
                    &[map],
                    "stripe_means",
                    &[("kernel_shape", pool()), ("strides", pool())],
                );
                let flat = g.node("Flatten", &[&mean], "texture_flat", &[]);
                export_linear(g, linear, &flat, "texture")
            }
            TowerHead::ReadOut(head) => {
                let conv = head.widen.export(g, map, "widen.conv");
                let wide = Activation::Relu.export(g, &conv, "widen");
                let channels = head.weights.dims()[0];
                // The read-out is a depthwise convolution with a kernel as large as the map.
                let weights = g.constant(
                    "read_out.weight",
                    &[channels, 1, h, w],
                    &values(head.weights.val().reshape([-1])),
                );
                let kernel = Attribute::Ints(vec![h as i64, w as i64]);
                let sums = g.node(
                    "Conv",
                    &[&wide, &weights],
                    "read_out",
                    &[
                        ("kernel_shape", kernel),
                        ("group", Attribute::Int(channels as i64)),
                    ],
                );
                let flat = g.node("Flatten", &[&sums], "read_out_flat", &[]);
                let linear = export_linear(g, &head.linear, &flat, "texture_linear");
                let slope = values(head.slope.val());
                let slope = g.constant("texture.slope", &[slope.len()], &slope);
                g.node("PRelu", &[&linear, &slope], "texture", &[])
            }
        }
    }
}
