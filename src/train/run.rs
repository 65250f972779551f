//! The training run: batch, forward, loss, backward, step, and validation at intervals.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use burn::module::{AutodiffModule, Module};
use burn::record::Recorder;
use burn::tensor::backend::AutodiffBackend;
use ndarray::Array2;

use crate::train::batch::Sampler;
use crate::train::checkpoint::{
    self, Checkpoint, CheckpointRecorder, TrainingState, read_state, unusable,
};
use crate::train::colour;
use crate::train::config::TrainConfig;
use crate::train::curves::{Curve, CurvePoint};
use crate::train::dataset::Dataset;
use crate::train::distil;
use crate::train::distil::batches::{TeacherBatch, TeacherBatches};
use crate::train::embed::{plain, stacked};
use crate::train::error::TrainError;
use crate::train::kernels::backend::Kernels;
use crate::train::learner::{Learner, StepInput};
use crate::train::network::Tower;
use crate::train::prefetch::prefetch;
use crate::train::trainer::{Feeding, Results, Trainer};
use crate::train::validation::{ValidationScore, validate};

/// Data for training and validation.
#[derive(Debug, Default)]
pub struct TrainingData {
    /// Labelled data.
    pub train: Vec<Dataset>,
    /// Labelled data of held-out people.
    pub held: Vec<Dataset>,
    /// Pictures with a teacher's output.
    pub teacher_batches: Option<TeacherBatches>,
}

/// Result of a training run.
pub struct TrainedNetwork<B: AutodiffBackend> {
    /// The network that was best on held-out data.
    pub tower: Tower<B::InnerBackend>,
    /// The learning curve.
    pub curve: Curve,
    /// Pictures per second, including loading but not validation.
    pub speed: f64,
}

/// Returns an error if a loss is not finite. `first`: step of the first loss.
fn check_finite(
    losses: &[f32],
    first: usize,
    config: &TrainConfig,
    dir: &Path,
) -> Result<(), TrainError> {
    let Some((i, value)) = losses.iter().enumerate().find(|(_, v)| !v.is_finite()) else {
        return Ok(());
    };
    Err(TrainError::Diverged {
        value: *value,
        step: first + i,
        rate: config.rate(first + i),
        checkpoint: checkpoint::newest_or(dir).join("last.mpk"),
    })
}

/// State of a run, with the data for validation.
struct Run<'a, B: AutodiffBackend> {
    config: &'a TrainConfig,
    dir: &'a Path,
    device: &'a B::Device,
    /// Labelled data of held-out people.
    held: Vec<Dataset>,
    /// Held-out pictures with the teacher's output.
    probes: Vec<TeacherBatch>,
    trainer: Trainer<B>,
    state: TrainingState,
    results: Results<B::InnerBackend>,
}

/// Measures the time of training, without validation.
struct Clock {
    begun: Instant,
    first_step: usize,
    validating: Duration,
    /// Pictures per step.
    pictures: f64,
}

impl Clock {
    /// Pictures per second up to `step`.
    fn speed(&self, step: usize) -> f64 {
        let seconds = (self.begun.elapsed() - self.validating).as_secs_f64();
        (step - self.first_step) as f64 * self.pictures / seconds
    }
}

impl<B: AutodiffBackend<InnerBackend: Kernels> + Kernels> Run<'_, B> {
    fn validate(&self) -> ValidationScore {
        ValidationScore {
            map: validate(&self.trainer.learner.tower.valid(), &self.held, self.device),
            agreement: (!self.probes.is_empty()).then(|| {
                self.trainer
                    .learner
                    .agreement(&self.probes, self.config, self.device)
            }),
        }
    }

    /// Writes a checkpoint. `better`: whether the network is the best so far.
    fn save(&self, better: bool) -> Result<(), TrainError> {
        checkpoint::write(
            &Checkpoint {
                learner: &self.trainer.learner,
                optimizer: &self.trainer.optimizer,
                best: better.then_some(&self.trainer.learner.tower),
                state: &self.state,
            },
            self.dir,
        )
    }

    /// Starts a new run: validates the untrained network, and removes the checkpoints of earlier
    /// runs.
    fn start(mut self, report: &mut impl FnMut(String)) -> Result<Self, TrainError> {
        let score = self.validate();
        self.state.best = score.score().unwrap_or_default();
        report(format!("before training{}", score.text()));
        checkpoint::clear(self.dir)?;
        self.save(true)?;
        Ok(self)
    }

    /// Continues from the newest checkpoint.
    fn resume(mut self) -> Result<Self, TrainError> {
        let from = checkpoint::newest_or(self.dir);
        self.state = read_state(&from, self.config)?;
        let Trainer { learner, optimizer } = self.trainer;
        let learner = learner
            .load_file(from.join("last"), &CheckpointRecorder::new(), self.device)
            .map_err(|e| unusable(&from, &e.to_string()))?;
        let moments = Recorder::<B::InnerBackend>::load(
            &CheckpointRecorder::new(),
            from.join("last_optimizer"),
            self.device,
        )
        .map_err(|e| unusable(&from, &e.to_string()))?;
        let optimizer = optimizer.resume(moments);
        self.trainer = Trainer { learner, optimizer };
        Ok(self)
    }

    /// Performs one step.
    fn step(mut self, input: StepInput) -> Self {
        let (step, results) = (self.state.step, &mut self.results);
        self.trainer = self
            .trainer
            .step(input, self.config, step, self.device, results);
        self.state.step += 1;
        self
    }

    /// Reads the losses of the last steps.
    ///
    /// # Errors
    /// Fails when a loss is not finite.
    fn read_results(&mut self) -> Result<(), TrainError> {
        let losses = self.results.read();
        let first = self.state.step - losses.len();
        check_finite(&losses, first, self.config, self.dir)
    }

    /// Validates, reports, and writes a checkpoint and the learning curve.
    fn record(
        &mut self,
        clock: &Clock,
        labelled: usize,
        report: &mut impl FnMut(String),
    ) -> Result<(), TrainError> {
        let sums = std::mem::replace(&mut self.results, Results::new());
        let score = self.validate();
        let (config, step, n) = (self.config, self.state.step, f64::from(sums.steps));
        let speed = clock.speed(step);
        let left = (config.steps - step) as f64 * clock.pictures / speed;
        let active = sums.triplets.map(|sum| sum / labelled as f64 / n);
        let active_text = active.map_or(String::new(), |a| format!(", active {:3.0} %", 100.0 * a));
        report(format!(
            "step {step:6} of {}: loss {:.4}{active_text}{}, {speed:.0} pictures/s, {left:.0} s \
             left",
            config.steps,
            sums.loss / n,
            score.text()
        ));
        self.state.points.push(CurvePoint {
            step,
            loss: sums.loss / n,
            active,
            rate: config.rate(step - 1),
            map: score.map,
            agreement: score.agreement,
            speed,
        });
        // Without held-out data the last network counts as the best.
        let better = score.score().is_none_or(|m| m > self.state.best);
        self.state.best = self.state.best.max(score.score().unwrap_or_default());
        self.state.stale = if better { 0 } else { self.state.stale + 1 };
        self.save(better)?;
        Curve(self.state.points.clone()).write(self.dir)
    }
}

/// Colour layouts of training pictures, from which the linear map of the colour layout is
/// initialised.
fn colour_layouts(
    sampler: Option<&Sampler>,
    probes: &[TeacherBatch],
    config: &TrainConfig,
) -> Array2<f32> {
    match sampler {
        _ if !config.colours => Array2::default((0, 0)),
        Some(sampler) => {
            stacked(plain(&sampler.plain(2000), config.size()).map(|batch| colour::layouts(&batch)))
        }
        None => stacked(probes.iter().filter_map(|p| p.inputs.colours.clone())),
    }
}

/// A warning if the student's and the teacher's feature maps cannot be compared.
fn incomparable_maps<B: AutodiffBackend + Kernels>(
    learner: &Learner<B>,
    teacher_batches: Option<&TeacherBatches>,
) -> Option<String> {
    let [_, th, tw] = teacher_batches?.teacher().1?;
    let [_, h, w] = learner.tower.map_size();
    distil::loss::common_size((h, w), (th, tw))
        .is_none()
        .then(|| {
            format!(
                "feature maps of {w}x{h} pixels cannot be compared with the teacher's of \
                 {tw}x{th}: in height or in width neither is a multiple of the other; distil.map \
                 is ignored"
            )
        })
}

/// Trains a network, and writes checkpoints, `curve.csv` and `curve.svg` into the folder `dir`.
/// With `resume` training continues from the last checkpoint in `dir`. Calls `report` with lines on
/// the progress.
///
/// # Errors
/// Fails when settings or data are unsuitable, the loss is not finite, or a file cannot be written.
pub fn train<B: AutodiffBackend<InnerBackend: Kernels> + Kernels>(
    config: &TrainConfig,
    data: TrainingData,
    dir: &Path,
    resume: bool,
    device: &B::Device,
    mut report: impl FnMut(String),
) -> Result<TrainedNetwork<B>, TrainError> {
    config.validate()?;
    fs::create_dir_all(dir).map_err(|e| TrainError::Write {
        path: dir.into(),
        reason: e.to_string(),
    })?;
    B::seed(device, config.seed);
    let TrainingData {
        train,
        held,
        teacher_batches,
    } = data;
    let sampler = match train.is_empty() {
        true => None,
        false => Some(Sampler::new(
            train,
            (config.people, config.views),
            config.design(),
            config.augment.clone(),
            config.seed,
        )?),
    };
    if sampler.is_none() && teacher_batches.is_none() {
        return Err(TrainError::Setting(
            "there are no training data: neither labelled data nor pictures with a teacher's output"
                .into(),
        ));
    }
    let probes = teacher_batches
        .as_ref()
        .map(TeacherBatches::held_out)
        .transpose()?
        .unwrap_or_default();
    let learner = Learner::<B>::new(
        config,
        &colour_layouts(sampler.as_ref(), &probes, config),
        sampler.as_ref().map_or(0, Sampler::classes),
        teacher_batches.as_ref().map(TeacherBatches::teacher),
        device,
    )?;
    incomparable_maps(&learner, teacher_batches.as_ref())
        .into_iter()
        .for_each(&mut report);
    let run = Run {
        config,
        dir,
        device,
        held,
        probes,
        trainer: Trainer::new(learner, config, device),
        state: TrainingState {
            config: config.clone(),
            step: 0,
            best: 0.0,
            stale: 0,
            points: Vec::new(),
        },
        results: Results::new(),
    };
    let run = if resume {
        run.resume()?
    } else {
        run.start(&mut report)?
    };
    let labelled = sampler.as_ref().map_or(0, |_| config.people * config.views);
    let distilled = teacher_batches.as_ref().map_or(0, |_| config.distil.batch);
    let make = move |step| {
        Ok::<_, TrainError>(StepInput {
            labelled: sampler.as_ref().map(|s| s.batch(step)),
            distilled: teacher_batches
                .as_ref()
                .map(|t| t.batch(step))
                .transpose()?,
        })
    };
    steps(run, make, labelled, labelled + distilled, &mut report)
}

/// The loop of steps up to the configured number or an early stop; returns the best network.
/// `labelled`: number of labelled pictures per step; `pictures`: number of all pictures per step.
fn steps<B: AutodiffBackend<InnerBackend: Kernels> + Kernels>(
    mut run: Run<'_, B>,
    make: impl Fn(usize) -> Result<StepInput, TrainError> + Clone + Send + 'static,
    labelled: usize,
    pictures: usize,
    report: &mut impl FnMut(String),
) -> Result<TrainedNetwork<B>, TrainError> {
    let config = run.config;
    let feeding = Feeding::of::<B>(run.device);
    let mut clock = Clock {
        begun: Instant::now(),
        first_step: run.state.step,
        validating: Duration::ZERO,
        pictures: pictures as f64,
    };
    for input in prefetch(make, run.state.step, config.steps, feeding.loaders) {
        run = run.step(input?);
        let step = run.state.step;
        let validates = step.is_multiple_of(config.validate_every) || step == config.steps;
        if validates || step.is_multiple_of(feeding.read_every) {
            run.read_results()?;
        }
        if validates {
            let pause = Instant::now();
            run.record(&clock, labelled, report)?;
            if run.state.stale >= config.patience {
                report(format!(
                    "no better network in {} validations: stopping early",
                    config.patience
                ));
                break;
            }
            clock.validating += pause.elapsed();
        }
    }
    let speed = run.state.points.last().map_or(0.0, |p| p.speed);
    let from = checkpoint::newest_or(run.dir);
    let best = run
        .trainer
        .learner
        .tower
        .load_file(from.join("best"), &CheckpointRecorder::new(), run.device)
        .map_err(|e| unusable(&from, &e.to_string()))?;
    Ok(TrainedNetwork {
        tower: best.valid(),
        curve: Curve(run.state.points),
        speed,
    })
}

#[cfg(test)]
mod tests;
