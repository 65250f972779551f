//! Convolution followed by batch normalisation: the layer of which the convolutional networks
//! consist.

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, PaddingConfig2d};
use burn::tensor::backend::Backend;
use burn::tensor::{FloatDType, Tensor};

use crate::train::kernels::backend::{Kernels, cast};
pub use crate::train::kernels::normalisation::Activation;
pub use crate::train::kernels::shape::Shape;
use crate::train::onnx::{Attribute, Graph};
use crate::train::tensors::values;

impl Activation {
    /// Adds the activation's nodes to the graph. Returns the name of its output, which is `input`
    /// for `Linear`.
    pub fn export(self, g: &mut Graph, input: &str, name: &str) -> String {
        match self {
            Activation::Linear => input.into(),
            Activation::Relu => g.node("Relu", &[input], name, &[]),
            Activation::Relu6 => {
                let low = g.constant(&format!("{name}.low"), &[], &[0.0]);
                let high = g.constant(&format!("{name}.high"), &[], &[6.0]);
                g.node("Clip", &[input, &low, &high], name, &[])
            }
        }
    }
}

/// Factor and offset, each `[channels]`, with which `factor * x + offset` is the batch
/// normalisation by its running averages.
pub fn factor_and_offset<B: Backend>(norm: &BatchNorm<B>) -> (Vec<f32>, Vec<f32>) {
    let (gamma, beta) = (values(norm.gamma.val()), values(norm.beta.val()));
    let mean = values(norm.running_mean.value());
    let variance = values(norm.running_var.value());
    let factor: Vec<f32> = gamma
        .iter()
        .zip(&variance)
        .map(|(g, v)| g / (v + norm.epsilon as f32).sqrt())
        .collect();
    let offset = (0..beta.len()).map(|c| beta[c] - mean[c] * factor[c]);
    let offset = offset.collect();
    (factor, offset)
}

/// A convolution without bias, followed by batch normalisation.
#[derive(Module, Debug)]
pub struct ConvNorm<B: Backend> {
    conv: Conv2d<B>,
    norm: BatchNorm<B>,
}

impl<B: Backend> ConvNorm<B> {
    /// Creates the layer with random weights.
    pub fn new(shape: Shape, device: &B::Device) -> Self {
        let pad = shape.padding();
        let conv = Conv2dConfig::new([shape.channels.0, shape.channels.1], [shape.kernel; 2])
            .with_stride([shape.stride; 2])
            .with_groups(shape.groups())
            .with_padding(PaddingConfig2d::Explicit(pad, pad, pad, pad))
            .with_bias(false);
        ConvNorm {
            conv: conv.init(device),
            norm: BatchNormConfig::new(shape.channels.1).init(device),
        }
    }

    fn shape(&self) -> Shape {
        let (conv, [out, in_per_group, kernel, _]) = (&self.conv, self.weight_shape());
        Shape {
            channels: (in_per_group * conv.groups, out),
            kernel,
            stride: conv.stride[0],
            depthwise: conv.groups > 1,
        }
    }

    /// Convolution, [`Kernels::batch_normalise`], activation. The convolution computes in the
    /// element type of `x`, and the result has that type; the stored weights, the moments and the
    /// normalisation are float32 (mixed precision, Micikevicius et al. 2018).
    pub fn forward(&self, x: Tensor<B, 4>, activation: Activation) -> Tensor<B, 4>
    where
        B: Kernels,
    {
        let precision = FloatDType::from(x.dtype());
        let weight = cast(self.conv.weight.val(), precision);
        let maps = B::convolve(x, weight, self.shape());
        B::batch_normalise(&self.norm, maps, activation)
    }

    /// Shape of the weights: output channels, input channels per group, height, width.
    pub fn weight_shape(&self) -> [usize; 4] {
        self.conv.weight.dims()
    }

    /// Adds one `Conv` node, with the normalisation folded into its weights and bias. Returns the
    /// name of the node's output.
    pub fn export(&self, graph: &mut Graph, input: &str, name: &str) -> String {
        let (factor, bias) = factor_and_offset(&self.norm);
        let weight_shape = self.weight_shape();
        let mut weight = values(self.conv.weight.val().reshape([-1]));
        let per_channel = weight.len() / weight_shape[0];
        weight
            .chunks_mut(per_channel)
            .zip(&factor)
            .for_each(|(w, f)| w.iter_mut().for_each(|v| *v *= f));
        let (w, b) = (
            graph.constant(&format!("{name}.weight"), &weight_shape, &weight),
            graph.constant(&format!("{name}.bias"), &[weight_shape[0]], &bias),
        );
        let ints = |v: usize, n: usize| Attribute::Ints(vec![v as i64; n]);
        let attributes = [
            ("kernel_shape", ints(weight_shape[2], 2)),
            ("strides", ints(self.conv.stride[0], 2)),
            ("pads", ints(weight_shape[2] / 2, 4)),
            ("group", Attribute::Int(self.conv.groups as i64)),
        ];
        graph.node("Conv", &[input, &w, &b], name, &attributes)
    }
}
