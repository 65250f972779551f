//! The devices on which networks are trained.

use anyhow::Result;
use burn::backend::{Autodiff, Flex};
use burn::tensor::backend::AutodiffBackend;
use clap::ValueEnum;
use twintrack::train::kernels::backend::Kernels;

/// Device to train on.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum TrainDevice {
    /// The CPU, with all cores.
    Cpu,
    /// The first NVIDIA GPU.
    #[cfg(feature = "train-cuda")]
    Cuda,
    /// The CPU, by LibTorch.
    #[cfg(feature = "train-torch")]
    TorchCpu,
    /// The first NVIDIA GPU, by LibTorch.
    #[cfg(feature = "train-torch")]
    TorchCuda,
}

/// Work that can run on any device.
pub trait OnDevice {
    /// Result of the work.
    type Output;

    /// Does the work on `device`.
    fn run<B: AutodiffBackend<InnerBackend: Kernels> + Kernels>(
        self,
        device: &B::Device,
    ) -> Self::Output;
}

impl TrainDevice {
    /// Does the work on this device.
    ///
    /// # Errors
    /// Fails when there is no such device.
    pub fn run<W: OnDevice>(self, work: W) -> Result<W::Output> {
        Ok(match self {
            TrainDevice::Cpu => work.run::<Autodiff<Flex>>(&Default::default()),
            #[cfg(feature = "train-cuda")]
            TrainDevice::Cuda => work.run::<Autodiff<burn::backend::Cuda>>(&Default::default()),
            #[cfg(feature = "train-torch")]
            TrainDevice::TorchCpu => {
                work.run::<Autodiff<burn_tch::LibTorch>>(&burn_tch::LibTorchDevice::Cpu)
            }
            #[cfg(feature = "train-torch")]
            TrainDevice::TorchCuda => {
                twintrack::train::kernels::torch::prepare_gpu()?;
                work.run::<Autodiff<burn_tch::LibTorch>>(&burn_tch::LibTorchDevice::Cuda(0))
            }
        })
    }
}
