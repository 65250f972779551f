//! Measures how fast a network trains.

use std::sync::Arc;
use std::time::Instant;

use burn::tensor::backend::AutodiffBackend;
use ndarray::Array2;

use crate::train::batch::Sampler;
use crate::train::colour::COLOURS;
use crate::train::config::TrainConfig;
use crate::train::dataset::Dataset;
use crate::train::error::TrainError;
use crate::train::kernels::backend::Kernels;
use crate::train::learner::{Learner, StepInput};
use crate::train::prefetch::prefetch;
use crate::train::trainer::{Feeding, Results, Trainer};

/// Number of different batches of a measurement without the loader.
const BATCHES: usize = 4;

/// Pictures per second.
#[derive(Debug, Clone, Copy)]
pub struct Speed {
    /// With batches prepared beforehand.
    pub prepared: f64,
    /// With the loader, which draws, cuts and augments pictures meanwhile.
    pub loaded: f64,
}

/// Trains a new network twice for `steps` steps after `warm_up` steps that are not counted (a GPU
/// compiles and chooses its kernels in them), without the easy steps at the beginning.
///
/// # Errors
/// Fails when settings or data are unsuitable.
pub fn measure<B: AutodiffBackend + Kernels>(
    config: &TrainConfig,
    data: Vec<Dataset>,
    (warm_up, steps): (usize, usize),
    device: &B::Device,
) -> Result<Speed, TrainError> {
    config.validate()?;
    let config = &config.clone().with_easy_steps(0);
    B::seed(device, config.seed);
    let sampler = Sampler::new(
        data,
        (config.people, config.views),
        config.design(),
        config.augment.clone(),
        config.seed,
    )?;
    // The initial map of the colours does not matter here.
    let colours = Array2::from_diag_elem(COLOURS, 1.0);
    let learner = Learner::<B>::new(config, &colours, sampler.classes(), None, device)?;
    let trainer = Trainer::new(learner, config);
    let input = |batch| StepInput {
        labelled: Some(batch),
        distilled: None,
    };
    let batches: Arc<Vec<_>> = Arc::new((0..BATCHES).map(|i| sampler.batch(i)).collect());
    let copied = move |step: usize| input(batches[step % BATCHES].clone());
    let counts = (warm_up, steps);
    let (trainer, prepared) = timed(trainer, copied, config, counts, device);
    let (_, loaded) = timed(
        trainer,
        move |step| input(sampler.batch(step)),
        config,
        counts,
        device,
    );
    Ok(Speed { prepared, loaded })
}

/// The trainer after the steps, and the pictures per second of the counted ones.
fn timed<B: AutodiffBackend + Kernels>(
    mut trainer: Trainer<B>,
    make: impl Fn(usize) -> StepInput + Clone + Send + 'static,
    config: &TrainConfig,
    (warm_up, steps): (usize, usize),
    device: &B::Device,
) -> (Trainer<B>, f64) {
    let feeding = Feeding::of::<B>(device);
    let mut results = Results::new();
    let mut begun = Instant::now();
    for (step, input) in prefetch(make, 0, warm_up + steps, feeding.loaders).enumerate() {
        if step == warm_up {
            results.read();
            begun = Instant::now();
        }
        trainer = trainer.step(input, config, step, device, &mut results);
        if (step + 1).is_multiple_of(feeding.read_every) {
            results.read();
        }
    }
    results.read();
    let pictures = (steps * config.people * config.views) as f64;
    (trainer, pictures / begun.elapsed().as_secs_f64())
}
