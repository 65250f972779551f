//! The available convolutional networks.

use burn::module::{AutodiffModule, Module};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{FloatDType, Tensor};
use serde::{Deserialize, Serialize};

use crate::train::body::{mobile, omni, residual, tiny};
use crate::train::graph::network::GraphNetwork;
use crate::train::kernels::backend::{Kernels, MapNetwork, cast};
use crate::train::onnx::Graph;
use crate::train::tensors::MapSize;

/// The network to train.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// Five convolutions, for the CPU.
    Tiny,
    /// MobileNetV2 (Sandler et al. 2018) without its two last strides; can start from ImageNet
    /// weights.
    Mobile,
    /// Omni-scale network (OSNet, Zhou et al. 2019) of a quarter of the original width.
    Omni,
    /// Plain convolutions with residual blocks, for the CPU.
    Residual,
    /// As [`Network::Residual`], wider and deeper, at four times the cost.
    ResidualWide,
}

impl Network {
    /// The name in configuration and metadata.
    pub fn name(self) -> &'static str {
        match self {
            Network::Tiny => "tiny",
            Network::Mobile => "mobile",
            Network::Omni => "omni",
            Network::Residual => "residual",
            Network::ResidualWide => "residual-wide",
        }
    }
}

/// An instance of one of the networks.
#[derive(Module, Debug)]
pub enum Body<B: Backend> {
    /// [`Network::Tiny`]
    Tiny(tiny::Tiny<B>),
    /// [`Network::Mobile`]
    Mobile(mobile::Mobile<B>),
    /// [`Network::Omni`]
    Omni(omni::Omni<B>),
    /// [`Network::Residual`], [`Network::ResidualWide`]
    Residual(residual::Residual<B>),
    /// The graph of an ONNX file.
    Graph(GraphNetwork<B>),
}

impl<B: Backend> Body<B> {
    /// Creates a network with random weights.
    pub fn new(network: Network, device: &B::Device) -> Self {
        match network {
            Network::Tiny => Body::Tiny(tiny::Tiny::new(device)),
            Network::Mobile => Body::Mobile(mobile::Mobile::new(device)),
            Network::Omni => Body::Omni(omni::Omni::new(device)),
            Network::Residual => {
                Body::Residual(residual::Residual::new(residual::Plan::SLIM, device))
            }
            Network::ResidualWide => {
                Body::Residual(residual::Residual::new(residual::Plan::WIDE, device))
            }
        }
    }

    /// Channels of the feature maps.
    pub fn channels(&self) -> usize {
        match self {
            Body::Tiny(_) => tiny::CHANNELS,
            Body::Mobile(_) => mobile::CHANNELS,
            Body::Omni(_) => omni::CHANNELS,
            Body::Residual(b) => b.channels(),
            Body::Graph(b) => b.end_size()[0],
        }
    }

    /// Size of the feature maps for crops of the given size (height, width).
    pub fn map_size(&self, (h, w): (usize, usize)) -> MapSize {
        match self {
            Body::Residual(_) => [self.channels(), h / residual::STRIDE, w / residual::STRIDE],
            Body::Graph(b) => b.end_size(),
            _ => [self.channels(), h / 16, w / 16],
        }
    }

    /// Maps crops to feature maps.
    pub fn forward(&self, crops: Tensor<B, 4>) -> Tensor<B, 4>
    where
        B: Kernels,
    {
        B::run::<Bodies>(self, crops)
    }

    fn compute(&self, crops: Tensor<B, 4>) -> Tensor<B, 4>
    where
        B: Kernels,
    {
        match self {
            Body::Tiny(b) => b.forward(crops),
            Body::Mobile(b) => b.forward(crops),
            Body::Omni(b) => b.forward(crops),
            Body::Residual(b) => b.forward(crops),
            Body::Graph(b) => b.forward(cast(crops, FloatDType::F32)).end,
        }
    }

    /// Adds the network to the graph, from the value `input`; returns its output.
    pub fn export(&self, g: &mut Graph, input: &str) -> String {
        match self {
            Body::Tiny(b) => b.export(g, input),
            Body::Mobile(b) => b.export(g, input),
            Body::Omni(b) => b.export(g, input),
            Body::Residual(b) => b.export(g, input),
            Body::Graph(_) => unreachable!("a graph is written by Tower::to_onnx"),
        }
    }
}

/// [`Body`] on any backend.
struct Bodies;

impl MapNetwork for Bodies {
    type On<B: Backend> = Body<B>;

    fn forward<B: Kernels>(network: &Body<B>, crops: Tensor<B, 4>) -> Tensor<B, 4> {
        network.compute(crops)
    }

    fn inner<B: AutodiffBackend>(network: &Body<B>) -> Body<B::InnerBackend> {
        network.valid()
    }
}
