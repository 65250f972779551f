//! One training step: forward, loss, backward, update of the weights.

use burn::optim::GradientsParams;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Int, Tensor};

use crate::train::config::TrainConfig;
use crate::train::kernels::backend::Kernels;
use crate::train::learner::{Learner, StepInput};
use crate::train::optimiser::AdamW;
use crate::train::tensors::values;

/// Number of steps whose losses are read together, if reading waits for a device.
const READ_EVERY: usize = 32;

/// Preparation of batches and reading of results for a device.
#[derive(Debug, Clone, Copy)]
pub(super) struct Feeding {
    /// Number of threads that prepare batches.
    pub(super) loaders: usize,
    /// Number of steps whose losses are read together.
    pub(super) read_every: usize,
}

impl Feeding {
    /// With a GPU the other cores are free for loading; on the CPU one loader is fast enough.
    pub(super) fn of<B: Kernels>(device: &B::Device) -> Self {
        if B::on_cpu(device) {
            return Feeding {
                loaders: 1,
                read_every: 1,
            };
        }
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        Feeding {
            loaders: cores - 1,
            read_every: READ_EVERY,
        }
    }
}

/// A network in training with its optimiser.
pub(super) struct Trainer<B: AutodiffBackend> {
    pub(super) learner: Learner<B>,
    pub(super) optimizer: AdamW<B>,
}

impl<B: AutodiffBackend + Kernels> Trainer<B> {
    pub(super) fn new(learner: Learner<B>, config: &TrainConfig, device: &B::Device) -> Self {
        Trainer {
            learner,
            optimizer: AdamW::new(config.weight_decay, config.clip, !B::on_cpu(device)),
        }
    }

    /// Performs one step, and adds its results to `results`. Takes the trainer by value, so that
    /// weights can be changed in place.
    pub(super) fn step(
        mut self,
        input: StepInput,
        config: &TrainConfig,
        step: usize,
        device: &B::Device,
        results: &mut Results<B::InnerBackend>,
    ) -> Self {
        let (value, active) = self.learner.loss(input, config, step, device);
        results.losses.push(value.clone().inner());
        results.active.extend(active.map(Tensor::inner));
        let gradients = GradientsParams::from_grads(value.backward(), &self.learner);
        let rate = config.rate(step);
        self.learner = self.optimizer.step(rate, self.learner, gradients);
        self
    }
}

/// Results of the steps since the previous validation.
#[derive(Debug)]
pub(super) struct Results<B: Backend> {
    /// Losses that are not read yet, [1] each.
    losses: Vec<Tensor<B, 1>>,
    /// Numbers of active triplets that are not read yet, [1] each; with labelled pictures only.
    active: Vec<Tensor<B, 1, Int>>,
    /// Sum of the losses that are read.
    pub(super) loss: f64,
    /// Sum of the numbers of active triplets that are read, if there are any.
    pub(super) triplets: Option<f64>,
    /// Number of steps that are read.
    pub(super) steps: u32,
}

impl<B: Backend> Results<B> {
    pub(super) fn new() -> Self {
        Results {
            losses: Vec::new(),
            active: Vec::new(),
            loss: 0.0,
            triplets: None,
            steps: 0,
        }
    }

    /// Reads the values that are not read yet, for which it waits for the device; returns the new
    /// losses.
    pub(super) fn read(&mut self) -> Vec<f32> {
        if self.losses.is_empty() {
            return Vec::new();
        }
        let losses = values(Tensor::cat(std::mem::take(&mut self.losses), 0));
        self.loss += losses.iter().map(|v| f64::from(*v)).sum::<f64>();
        self.steps += losses.len() as u32;
        if !self.active.is_empty() {
            let counts = Tensor::cat(std::mem::take(&mut self.active), 0).into_data();
            let sum = counts.iter::<i64>().sum::<i64>() as f64;
            self.triplets = Some(self.triplets.unwrap_or(0.0) + sum);
        }
        losses
    }
}
