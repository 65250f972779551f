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

/// A measurement.
#[derive(Debug, Clone, Copy)]
pub struct Speed {
    /// Whether the loader prepared the batches during the measurement; otherwise they were prepared
    /// before.
    pub loader: bool,
    /// Duration of the uncounted steps in seconds.
    pub warm_up: f64,
    /// Pictures per second in the counted steps.
    pub pictures: f64,
    /// Mean loss of all steps.
    pub loss: f64,
}

/// Trains a new network with prepared batches, then the same network with the loader. Each time,
/// `steps` steps are measured after `warm_up` uncounted ones, in which a GPU compiles and selects
/// its kernels. `easy_steps` is ignored.
///
/// # Errors
/// Fails when settings or data are unsuitable.
pub fn measure<B: AutodiffBackend + Kernels>(
    config: &TrainConfig,
    data: Vec<Dataset>,
    (warm_up, steps): (usize, usize),
    device: &B::Device,
    mut report: impl FnMut(Speed),
) -> Result<(), TrainError> {
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
    // The initial linear map of the colour layout has no effect on the speed.
    let colours = Array2::from_diag_elem(COLOURS, 1.0);
    let learner = Learner::<B>::new(config, &colours, sampler.classes(), None, device)?;
    let trainer = Trainer::new(learner, config, device);
    let input = |batch| StepInput {
        labelled: Some(batch),
        distilled: None,
    };
    let batches: Arc<Vec<_>> = Arc::new((0..BATCHES).map(|i| sampler.batch(i)).collect());
    let copied = move |step: usize| input(batches[step % BATCHES].clone());
    let counts = (warm_up, steps);
    let (trainer, speed) = timed(trainer, copied, config, counts, device);
    report(speed);
    let loaded = move |step| input(sampler.batch(step));
    let (_, speed) = timed(trainer, loaded, config, counts, device);
    report(Speed {
        loader: true,
        ..speed
    });
    Ok(())
}

/// Runs the steps; returns the trainer and the measured speed.
fn timed<B: AutodiffBackend + Kernels>(
    mut trainer: Trainer<B>,
    make: impl Fn(usize) -> StepInput + Clone + Send + 'static,
    config: &TrainConfig,
    (warm_up, steps): (usize, usize),
    device: &B::Device,
) -> (Trainer<B>, Speed) {
    let feeding = Feeding::of::<B>(device);
    let mut results = Results::new();
    let (mut begun, mut before) = (Instant::now(), 0.0);
    for (step, input) in prefetch(make, 0, warm_up + steps, feeding.loaders).enumerate() {
        if step == warm_up {
            results.read();
            before = begun.elapsed().as_secs_f64();
            begun = Instant::now();
        }
        trainer = trainer.step(input, config, step, device, &mut results);
        if (step + 1).is_multiple_of(feeding.read_every) {
            results.read();
        }
    }
    results.read();
    let pictures = (steps * config.people * config.views) as f64;
    let speed = Speed {
        loader: false,
        warm_up: before,
        pictures: pictures / begun.elapsed().as_secs_f64(),
        loss: results.loss / f64::from(results.steps),
    };
    (trainer, speed)
}
