//! The networks to choose from.

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use serde::{Deserialize, Serialize};

use crate::train::body::{mobile, omni, tiny};
use crate::train::kernels::backend::Kernels;
use crate::train::onnx::Graph;

/// Crops are divided by so much.
pub const STRIDE: usize = 16;

/// Which network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// Five convolutions, for the CPU.
    Tiny,
    /// MobileNetV2 (Sandler et al. 2018) with its last strides left out; can start from ImageNet weights.
    Mobile,
    /// Omni-scale (OSNet, Zhou et al. 2019), a quarter of its width.
    Omni,
}

impl Network {
    /// Its name in configuration and metadata.
    pub fn name(self) -> &'static str {
        match self {
            Network::Tiny => "tiny",
            Network::Mobile => "mobile",
            Network::Omni => "omni",
        }
    }
}

/// One of them.
#[derive(Module, Debug)]
pub enum Body<B: Backend> {
    /// [`Network::Tiny`]
    Tiny(tiny::Tiny<B>),
    /// [`Network::Mobile`]
    Mobile(mobile::Mobile<B>),
    /// [`Network::Omni`]
    Omni(omni::Omni<B>),
}

impl<B: Backend> Body<B> {
    /// New, with random weights.
    pub fn new(network: Network, device: &B::Device) -> Self {
        match network {
            Network::Tiny => Body::Tiny(tiny::Tiny::new(device)),
            Network::Mobile => Body::Mobile(mobile::Mobile::new(device)),
            Network::Omni => Body::Omni(omni::Omni::new(device)),
        }
    }

    /// Channels of its maps.
    pub fn channels(&self) -> usize {
        match self {
            Body::Tiny(_) => tiny::CHANNELS,
            Body::Mobile(_) => mobile::CHANNELS,
            Body::Omni(_) => omni::CHANNELS,
        }
    }

    /// Crops to maps.
    pub fn forward(&self, crops: Tensor<B, 4>) -> Tensor<B, 4>
    where
        B: Kernels,
    {
        match self {
            Body::Tiny(b) => b.forward(crops),
            Body::Mobile(b) => b.forward(crops),
            Body::Omni(b) => b.forward(crops),
        }
    }

    /// Writes it, from the edge `crops`; returns its output.
    pub fn export(&self, g: &mut Graph) -> String {
        match self {
            Body::Tiny(b) => b.export(g),
            Body::Mobile(b) => b.export(g),
            Body::Omni(b) => b.export(g),
        }
    }
}
