//! `mobile`: MobileNetV2 (Sandler et al. 2018) up to its last block. The last two strides are 1
//! instead of 2, so that the maps have eight rows.

use burn::module::Module;
use burn::tensor::backend::Backend;
use burn::tensor::{FloatDType, Tensor, TensorData};

use crate::train::body::conv::{Activation, ConvNorm, Shape};
use crate::train::kernels::backend::{Kernels, cast};
use crate::train::onnx::Graph;

/// Channels of the feature maps.
pub const CHANNELS: usize = 320;
/// Expansion, channels, number of blocks, stride of the first block.
const STAGES: [(usize, usize, usize, usize); 7] = [
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 1),
    (6, CHANNELS, 1, 1),
];
const FIRST: usize = 32;
/// ImageNet's mean and standard deviation: red, green, blue.
const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const STD: [f32; 3] = [0.229, 0.224, 0.225];

/// An inverted residual: pointwise expansion, depthwise convolution, pointwise projection.
#[derive(Module, Debug)]
struct Residual<B: Backend> {
    widen: Option<ConvNorm<B>>,
    around: ConvNorm<B>,
    narrow: ConvNorm<B>,
    adds: bool,
}

/// MobileNetV2 without its head.
#[derive(Module, Debug)]
pub struct Mobile<B: Backend> {
    first: ConvNorm<B>,
    blocks: Vec<Residual<B>>,
}

impl<B: Backend> Mobile<B> {
    /// Creates the network with random weights.
    pub fn new(device: &B::Device) -> Self {
        let (mut blocks, mut from) = (Vec::new(), FIRST);
        for (expansion, to, count, stride) in STAGES {
            for i in 0..count {
                let (wide, stride) = (from * expansion, if i == 0 { stride } else { 1 });
                blocks.push(Residual {
                    widen: (expansion > 1).then(|| ConvNorm::new(Shape::point(from, wide), device)),
                    around: ConvNorm::new(Shape::depthwise(wide, stride), device),
                    narrow: ConvNorm::new(Shape::point(wide, to), device),
                    adds: stride == 1 && from == to,
                });
                from = to;
            }
        }
        Mobile {
            first: ConvNorm::new(Shape::full(3, FIRST, 2), device),
            blocks,
        }
    }

    /// Maps crops to feature maps.
    pub fn forward(&self, crops: Tensor<B, 4>) -> Tensor<B, 4>
    where
        B: Kernels,
    {
        let device = crops.device();
        let precision = FloatDType::from(crops.dtype());
        let channels = |v: [f32; 3]| {
            cast(
                B::upload(TensorData::new(v.to_vec(), [1, 3, 1, 1]), &device),
                precision,
            )
        };
        let x = self
            .first
            .forward((crops - channels(MEAN)) / channels(STD), Activation::Relu6);
        self.blocks.iter().fold(x, |x, b| {
            let wide = b
                .widen
                .as_ref()
                .map_or_else(|| x.clone(), |w| w.forward(x.clone(), Activation::Relu6));
            let y = b.narrow.forward(
                b.around.forward(wide, Activation::Relu6),
                Activation::Linear,
            );
            // `x` is cloned, because the convolution's derivative refers to it.
            if b.adds { x.clone() + y } else { y }
        })
    }

    /// Adds the network to the graph, from the value `input`; returns its output.
    pub fn export(&self, g: &mut Graph, input: &str) -> String {
        let (mean, std) = (
            g.constant("imagenet_mean", &[1, 3, 1, 1], &MEAN),
            g.constant("imagenet_std", &[1, 3, 1, 1], &STD),
        );
        let centred = g.node("Sub", &[input, &mean], "centred", &[]);
        let scaled = g.node("Div", &[&centred, &std], "standardised", &[]);
        let brick = |g: &mut Graph, conv: &ConvNorm<B>, input: &str, name: String| {
            let c = conv.export(g, input, &format!("{name}.conv"));
            Activation::Relu6.export(g, &c, &name)
        };
        let first = brick(g, &self.first, &scaled, "first".into());
        self.blocks.iter().enumerate().fold(first, |x, (i, b)| {
            let wide = b
                .widen
                .as_ref()
                .map_or_else(|| x.clone(), |w| brick(g, w, &x, format!("block{i}.widen")));
            let around = brick(g, &b.around, &wide, format!("block{i}.around"));
            let y = b.narrow.export(g, &around, &format!("block{i}.narrow"));
            if b.adds {
                g.node("Add", &[&x, &y], &format!("block{i}"), &[])
            } else {
                y
            }
        })
    }
}
