//! Convolution and batch normalisation, the brick of every network here.

use burn::module::{Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, PaddingConfig2d};
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData, activation};

use crate::train::onnx::{Attribute, Graph};

/// What follows the normalisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// Nothing.
    Linear,
    /// max(x, 0).
    Relu,
    /// min(max(x, 0), 6).
    Relu6,
}

impl After {
    /// Applies it.
    pub fn apply<B: Backend>(self, x: Tensor<B, 4>) -> Tensor<B, 4> {
        match self {
            After::Linear => x,
            After::Relu => activation::relu(x),
            After::Relu6 => x.clamp(0.0, 6.0),
        }
    }

    /// Writes it; returns its output.
    pub fn export(self, g: &mut Graph, input: &str, name: &str) -> String {
        match self {
            After::Linear => input.into(),
            After::Relu => g.node("Relu", &[input], name, &[]),
            After::Relu6 => {
                let low = g.constant(&format!("{name}.low"), &[], &[0.0]);
                let high = g.constant(&format!("{name}.high"), &[], &[6.0]);
                g.node("Clip", &[input, &low, &high], name, &[])
            }
        }
    }
}

/// The shape of a convolution.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Channels in and out.
    pub channels: (usize, usize),
    /// Side of the kernel.
    pub kernel: usize,
    /// Stride.
    pub stride: usize,
    /// Groups; as many as channels is depthwise.
    pub groups: usize,
}

impl Shape {
    /// 3x3 over all channels.
    pub fn full(from: usize, to: usize, stride: usize) -> Self {
        Shape { channels: (from, to), kernel: 3, stride, groups: 1 }
    }

    /// 1x1.
    pub fn point(from: usize, to: usize) -> Self {
        Shape { channels: (from, to), kernel: 1, stride: 1, groups: 1 }
    }

    /// 3x3, each channel by itself.
    pub fn depthwise(channels: usize, stride: usize) -> Self {
        Shape { channels: (channels, channels), kernel: 3, stride, groups: channels }
    }
}

/// Convolution without bias, batch normalisation.
#[derive(Module, Debug)]
pub struct ConvNorm<B: Backend> {
    conv: Conv2d<B>,
    norm: BatchNorm<B>,
}

impl<B: Backend> ConvNorm<B> {
    /// New, with random weights.
    pub fn new(shape: Shape, device: &B::Device) -> Self {
        let pad = shape.kernel / 2;
        let conv = Conv2dConfig::new([shape.channels.0, shape.channels.1], [shape.kernel; 2])
            .with_stride([shape.stride; 2])
            .with_groups(shape.groups)
            .with_padding(PaddingConfig2d::Explicit(pad, pad, pad, pad))
            .with_bias(false);
        ConvNorm { conv: conv.init(device), norm: BatchNormConfig::new(shape.channels.1).init(device) }
    }

    /// Applies both.
    pub fn forward(&self, x: Tensor<B, 4>) -> Tensor<B, 4> {
        self.norm.forward(self.conv.forward(x))
    }

    /// The shape of the weights: out, in by group, height, width.
    pub fn weight_shape(&self) -> [usize; 4] {
        self.conv.weight.dims()
    }

    /// Takes the weights of a convolution with its normalisation folded in: the normalisation starts as the bias alone.
    pub fn load(&mut self, weight: &[f32], bias: &[f32], device: &B::Device) {
        self.conv.weight = Param::from_tensor(Tensor::from_data(TensorData::new(weight.to_vec(), self.weight_shape()), device));
        // Deviation one and mean zero would hold only for the data it was folded on; training finds them anew.
        self.norm.beta = Param::from_tensor(Tensor::from_data(TensorData::new(bias.to_vec(), [bias.len()]), device));
    }

    /// Writes the convolution with the normalisation folded into it; returns its output.
    pub fn export(&self, graph: &mut Graph, input: &str, name: &str) -> String {
        let values = |t: Tensor<B, 1>| t.into_data().convert::<f32>().to_vec::<f32>().expect("float32 was asked for");
        let (gamma, beta) = (values(self.norm.gamma.val()), values(self.norm.beta.val()));
        let (mean, var) = (values(self.norm.running_mean.value()), values(self.norm.running_var.value()));
        let factor: Vec<f32> = gamma.iter().zip(&var).map(|(g, v)| g / (v + self.norm.epsilon as f32).sqrt()).collect();
        let bias: Vec<f32> = (0..beta.len()).map(|c| beta[c] - mean[c] * factor[c]).collect();
        let shape = self.weight_shape();
        let mut weight = values(self.conv.weight.val().reshape([-1]));
        let each = weight.len() / shape[0];
        weight.chunks_mut(each).zip(&factor).for_each(|(w, f)| w.iter_mut().for_each(|v| *v *= f));
        let (w, b) = (graph.constant(&format!("{name}.weight"), &shape, &weight), graph.constant(&format!("{name}.bias"), &[shape[0]], &bias));
        let ints = |v: usize, n: usize| Attribute::Ints(vec![v as i64; n]);
        let attributes = [
            ("kernel_shape", ints(shape[2], 2)),
            ("strides", ints(self.conv.stride[0], 2)),
            ("pads", ints(shape[2] / 2, 4)),
            ("group", Attribute::Int(self.conv.groups as i64)),
        ];
        graph.node("Conv", &[input, &w, &b], name, &attributes)
    }
}
