//! The training loop: batch, forward, loss, backward, step; now and then validate, remember, tell.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::module::{AutodiffModule, Module};
use burn::optim::{AdamWConfig, GradientsParams, Optimizer};
use burn::record::{FullPrecisionSettings, NamedMpkFileRecorder, Recorder};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Tensor, TensorData};
use ndarray::{Array2, Array4, Axis};
use serde::{Deserialize, Serialize};

use crate::train::batch::{AugmentConfig, Sampler, write_plain};
use crate::train::curves::{Curve, Point};
use crate::train::dataset::{Crop, Dataset, TrainError};
use crate::train::loss;
use crate::train::network::{HEIGHT, Tower, WIDTH, colour_layout};
use crate::train::retrieval::{self, Label};

/// What is minimised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LossKind {
    /// Each picture's farthest view of the same person against its nearest of another (Hermans et al. 2017).
    BatchHard,
    /// All pairs of a batch (Hadsell et al. 2006).
    Contrastive,
}

/// How to train.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Length of an embedding, 16 to 432. Longer tells more people apart and costs the tracker more.
    pub dimension: usize,
    /// How many batches.
    pub steps: usize,
    /// People in a batch (P). More makes the hardest negative harder.
    pub people: usize,
    /// Pictures of each (K). More makes the hardest positive harder.
    pub views: usize,
    /// What is minimised.
    pub loss: LossKind,
    /// How much farther (Euclidean) a stranger should be than the person, above 0, below 2.
    pub margin: f32,
    /// Highest learning rate (AdamW); it rises to it over `warmup` steps and falls to a hundredth along a cosine.
    pub learning_rate: f64,
    /// Steps of rising learning rate.
    pub warmup: usize,
    /// Weight decay.
    pub weight_decay: f32,
    /// Validate and write a checkpoint every so many steps.
    pub validate_every: usize,
    /// Stop after so many validations without a better mAP.
    pub patience: usize,
    /// Every so manyth identity of a data set with 20 or more is held out for validation and calibration.
    pub hold_out: usize,
    /// Seed of everything drawn.
    pub seed: u64,
    /// How pictures are altered.
    pub augment: AugmentConfig,
}

impl Default for TrainConfig {
    fn default() -> Self {
        TrainConfig {
            dimension: 128,
            steps: 3000,
            people: 16,
            views: 4,
            loss: LossKind::BatchHard,
            margin: 0.3,
            learning_rate: 1e-3,
            warmup: 100,
            weight_decay: 1e-3,
            validate_every: 200,
            patience: 10,
            hold_out: 10,
            seed: 1,
            augment: AugmentConfig::default(),
        }
    }
}

impl TrainConfig {
    /// Refuses values outside their ranges.
    ///
    /// # Errors
    /// The first such value.
    pub fn validate(&self) -> Result<(), TrainError> {
        let ok = [
            ((16..=432).contains(&self.dimension), "dimension must be in 16 to 432"),
            (self.steps > 0, "steps must be above 0"),
            (self.people >= 2 && self.views >= 2, "people and views must be at least 2"),
            (self.margin > 0.0 && self.margin < 2.0, "margin must be above 0 and below 2: unit vectors are at most 2 apart"),
            (self.learning_rate > 0.0 && self.learning_rate < 1.0, "learning_rate must be above 0 and below 1"),
            (self.validate_every > 0 && self.patience > 0, "validate_every and patience must be above 0"),
            (self.hold_out >= 2, "hold_out must be at least 2"),
        ];
        ok.iter().find(|(fine, _)| !fine).map_or(Ok(()), |(_, text)| Err(TrainError::Setting(format!("train: {text}"))))
    }

    /// The learning rate at a step: linear warm-up, then half a cosine.
    pub fn rate(&self, step: usize) -> f64 {
        if step < self.warmup {
            return self.learning_rate * (step + 1) as f64 / self.warmup as f64;
        }
        let done = (step - self.warmup) as f64 / self.steps.saturating_sub(self.warmup).max(1) as f64;
        self.learning_rate * (0.01 + 0.99 * 0.5 * (1.0 + (std::f64::consts::PI * done).cos()))
    }
}

/// Where training stands, beside the weights.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct State {
    config: TrainConfig,
    step: usize,
    best: f64,
    stale: usize,
    points: Vec<Point>,
}

/// What came of it.
pub struct Trained<B: AutodiffBackend> {
    /// The network that was best on the people held out.
    pub tower: Tower<B::InnerBackend>,
    /// The course of training.
    pub curve: Curve,
    /// Images a second, loading included, validation not.
    pub speed: f64,
}

/// Embeds crops, 64 at a time: [n, d].
pub fn embed<B: Backend>(tower: &Tower<B>, crops: &[&Crop], device: &B::Device) -> Array2<f32> {
    map_crops(crops, |t| tower.forward(t), device)
}

fn map_crops<B: Backend>(crops: &[&Crop], f: impl Fn(Tensor<B, 4>) -> Tensor<B, 2>, device: &B::Device) -> Array2<f32> {
    let parts: Vec<Array2<f32>> = crops
        .chunks(64)
        .map(|part| {
            let mut batch = Array4::zeros((part.len(), 3, HEIGHT, WIDTH));
            batch.axis_iter_mut(Axis(0)).zip(part).for_each(|(out, c)| write_plain(c, out));
            let out = f(tensor(batch, device));
            let [n, d] = out.dims();
            let values = out.into_data().convert::<f32>().to_vec::<f32>().expect("float32 was asked for");
            Array2::from_shape_vec((n, d), values).expect("n rows of d")
        })
        .collect();
    ndarray::concatenate(Axis(0), &parts.iter().map(|p| p.view()).collect::<Vec<_>>()).unwrap_or_default()
}

fn tensor<B: Backend>(batch: Array4<f32>, device: &B::Device) -> Tensor<B, 4> {
    let (n, c, h, w) = batch.dim();
    Tensor::from_data(TensorData::new(batch.into_raw_vec_and_offset().0, [n, c, h, w]), device)
}

/// Labels of a data set's crops.
pub fn labels(crops: &[Crop]) -> Vec<Label> {
    crops.iter().map(|c| Label { identity: c.identity, camera: c.camera, frame: c.frame }).collect()
}

/// The training data split into what is learnt from and who is held out. Sets of few people are learnt from whole.
pub fn split(sets: Vec<Dataset>, hold_out: usize) -> (Vec<Dataset>, Vec<Dataset>) {
    let (mut train, mut held) = (Vec::new(), Vec::new());
    for set in sets {
        if set.identities >= 20 {
            let (rest, out) = set.hold_out(hold_out);
            train.push(rest);
            held.push(out);
        } else {
            train.push(set);
        }
    }
    (train, held)
}

/// mAP over the sets held out, on average; `None` when there is none with a match.
fn validate<B: Backend>(tower: &Tower<B>, held: &[Dataset], device: &B::Device) -> Option<f64> {
    let maps: Vec<f64> = held
        .iter()
        .filter_map(|set| {
            let e = embed(tower, &set.crops.iter().collect::<Vec<_>>(), device);
            retrieval::retrieval(&retrieval::distances(e.view()), &labels(&set.crops), set.protocol).map(|r| r.map)
        })
        .collect();
    (!maps.is_empty()).then(|| maps.iter().sum::<f64>() / maps.len() as f64)
}

type Files = NamedMpkFileRecorder<FullPrecisionSettings>;

/// Trains into `dir`: checkpoints (`last`, `best`), `curve.csv`, `curve.svg`. With `resume` it goes on from `dir`'s last.
///
/// # Errors
/// When the settings or data do not suffice, the loss stops being a number, or a file cannot be written.
pub fn train<B: AutodiffBackend>(
    config: &TrainConfig,
    train: Vec<Dataset>,
    held: &[Dataset],
    dir: &Path,
    resume: bool,
    device: &B::Device,
    mut tell: impl FnMut(String),
) -> Result<Trained<B>, TrainError> {
    config.validate()?;
    fs::create_dir_all(dir).map_err(|e| TrainError::Write { path: dir.into(), reason: e.to_string() })?;
    B::seed(device, config.seed);
    let sampler = Sampler::new(train, config.people, config.views, config.augment.clone(), config.seed)?;
    let start = map_crops::<B::InnerBackend>(&sampler.plain(2000), colour_layout, device);
    let mut tower = Tower::<B>::new(config.dimension, &start, device);
    let mut optimizer = AdamWConfig::new().with_weight_decay(config.weight_decay).init::<B, Tower<B>>();
    let mut state = State { config: config.clone(), step: 0, best: 0.0, stale: 0, points: Vec::new() };
    if resume {
        state = read_state(dir, config)?;
        tower = tower.load_file(dir.join("last"), &Files::new(), device).map_err(|e| bad(dir, &e.to_string()))?;
        let record = Recorder::<B>::load(&Files::new(), dir.join("last_optimizer"), device).map_err(|e| bad(dir, &e.to_string()))?;
        optimizer = optimizer.load_record(record);
    } else {
        state.best = validate(&tower.valid(), held, device).unwrap_or_default();
        tell(format!("before training: mAP {:.1} on people held out", 100.0 * state.best));
        save(&tower, dir, "best")?;
    }
    let (begun, first) = (Instant::now(), state.step);
    let mut idle = std::time::Duration::ZERO;
    let images = (config.people * config.views) as f64;
    let (mut sum, mut active, mut count) = (0.0, 0.0, 0);
    let batches = sampler.ahead(state.step, config.steps);
    while state.step < config.steps {
        let Ok(batch) = batches.recv() else { break };
        let embeddings = tower.forward(tensor(batch.crops, device));
        let (value, hard) = match config.loss {
            LossKind::BatchHard => loss::batch_hard(embeddings, &batch.relations, config.margin),
            LossKind::Contrastive => {
                let hard = loss::batch_hard(embeddings.clone().detach(), &batch.relations, config.margin).1;
                (loss::contrastive_all(embeddings, &batch.relations, config.margin), hard)
            }
        };
        let number: f32 = value.clone().into_data().convert::<f32>().to_vec::<f32>().map_or(f32::NAN, |v| v[0]);
        let rate = config.rate(state.step);
        if !number.is_finite() {
            return Err(TrainError::Diverged { value: number, step: state.step, rate, checkpoint: dir.join("last.mpk") });
        }
        sum += f64::from(number);
        active += hard.into_data().iter::<i64>().next().unwrap_or_default() as f64 / images;
        count += 1;
        let gradients = GradientsParams::from_grads(value.backward(), &tower);
        tower = optimizer.step(rate, tower, gradients);
        state.step += 1;
        if state.step.is_multiple_of(config.validate_every) || state.step == config.steps {
            let pause = Instant::now();
            let map = validate(&tower.valid(), held, device);
            let n = f64::from(count);
            let speed = (state.step - first) as f64 * images / (begun.elapsed() - idle).as_secs_f64();
            let left = (config.steps - state.step) as f64 * images / speed;
            let shown = map.map_or(String::new(), |m| format!(", mAP {:.1}", 100.0 * m));
            tell(format!(
                "step {:6} of {}: loss {:.4}, active {:3.0} %{shown}, {speed:.0} images/s, {left:.0} s left",
                state.step,
                config.steps,
                sum / n,
                100.0 * active / n
            ));
            state.points.push(Point { step: state.step, loss: sum / n, active: active / n, rate, map, speed });
            (sum, active, count) = (0.0, 0.0, 0);
            // Without people held out the last network is taken.
            let better = map.is_none_or(|m| m > state.best);
            state.best = state.best.max(map.unwrap_or_default());
            state.stale = if better { 0 } else { state.stale + 1 };
            if better {
                save(&tower, dir, "best")?;
            }
            checkpoint(&tower, &optimizer, &state, dir)?;
            Curve(state.points.clone()).write(dir)?;
            if state.stale >= config.patience {
                tell(format!("no better mAP in {} validations: stopping early", config.patience));
                break;
            }
            idle += pause.elapsed();
        }
    }
    let speed = state.points.last().map_or(0.0, |p| p.speed);
    let best = tower.load_file(dir.join("best"), &Files::new(), device).map_err(|e| bad(dir, &e.to_string()))?;
    Ok(Trained { tower: best.valid(), curve: Curve(state.points), speed })
}

fn bad(dir: &Path, problem: &str) -> TrainError {
    TrainError::Checkpoint { path: dir.to_path_buf(), problem: problem.to_string() }
}

fn save<B: Backend>(tower: &Tower<B>, dir: &Path, name: &str) -> Result<(), TrainError> {
    replace(dir, name, |path| tower.clone().save_file(path, &Files::new()).map_err(|e| e.to_string()))
}

fn checkpoint<B: AutodiffBackend>(tower: &Tower<B>, optimizer: &impl Optimizer<Tower<B>, B>, state: &State, dir: &Path) -> Result<(), TrainError> {
    save(tower, dir, "last")?;
    replace(dir, "last_optimizer", |path| Recorder::<B>::record(&Files::new(), optimizer.to_record(), path).map_err(|e| e.to_string()))?;
    let path = dir.join("last.json");
    let text = serde_json::to_string_pretty(state).map_err(|e| TrainError::Write { path: path.clone(), reason: e.to_string() })?;
    fs::write(&path, text).map_err(|e| TrainError::Write { path, reason: e.to_string() })
}

/// Writes beside and renames: a run broken off while writing leaves the former file whole. The recorder gives the file its
/// own ending.
fn replace(dir: &Path, name: &str, write: impl FnOnce(PathBuf) -> Result<(), String>) -> Result<(), TrainError> {
    let (fresh, path) = (dir.join(format!("{name}_new")), dir.join(format!("{name}.mpk")));
    let fail = |reason: String| TrainError::Write { path: path.clone(), reason };
    write(fresh.clone()).map_err(fail)?;
    fs::rename(fresh.with_extension("mpk"), &path).map_err(|e| fail(e.to_string()))
}

fn read_state(dir: &Path, config: &TrainConfig) -> Result<State, TrainError> {
    let path = dir.join("last.json");
    let text = fs::read_to_string(&path).map_err(|source| TrainError::Read { path: path.clone(), source })?;
    let state: State = serde_json::from_str(&text).map_err(|e| bad(&path, &e.to_string()))?;
    let (a, b) = (&state.config, config);
    if a.dimension != b.dimension {
        return Err(bad(&path, &format!("it is of a network with embeddings of length {}, and {} was asked for", a.dimension, b.dimension)));
    }
    if (a.people, a.views, a.seed) != (b.people, b.views, b.seed) {
        return Err(bad(&path, "people, views and seed must stay as they were, or the batches are others"));
    }
    Ok(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_rises_then_falls() {
        let c = TrainConfig::default();
        assert!(c.rate(0) < c.rate(50) && c.rate(50) < c.rate(99));
        assert!((c.rate(100) - c.learning_rate).abs() < 1e-9);
        assert!(c.rate(2999) < 0.02 * c.learning_rate && c.rate(2999) > 0.0);
    }

    /// Four steps at once, and two and then two more, give the same network. The rate is still rising, so it does not
    /// depend on how many steps were asked for.
    #[test]
    fn going_on_from_a_checkpoint_is_exact() {
        use crate::train::synthetic;
        use burn::backend::{Autodiff, Flex};
        let dirs = ["whole", "parts"].map(|n| std::env::temp_dir().join(format!("twintrack-train-{}-{n}", std::process::id())));
        let config = TrainConfig { dimension: 16, steps: 4, people: 2, views: 2, validate_every: 2, warmup: 100, ..TrainConfig::default() };
        let device = Default::default();
        let sets = || vec![synthetic::dataset(4, 3, 1).expect("people")];
        let run = |config: &TrainConfig, dir: &Path, resume| train::<Autodiff<Flex>>(config, sets(), &[], dir, resume, &device, |_| {});
        let look = |t: &Trained<Autodiff<Flex>>| embed(&t.tower, &sets()[0].crops.iter().collect::<Vec<_>>(), &device);
        let whole = run(&config, &dirs[0], false).expect("trained");
        run(&TrainConfig { steps: 2, ..config.clone() }, &dirs[1], false).expect("trained");
        let other = run(&TrainConfig { dimension: 32, ..config.clone() }, &dirs[1], true).err().expect("another network");
        assert!(other.to_string().contains("length 16"), "{other}");
        let on = run(&config, &dirs[1], true).expect("went on");
        assert_eq!(on.curve.0.iter().map(|p| p.step).collect::<Vec<_>>(), [2, 4]);
        let worst = (look(&whole) - look(&on)).iter().fold(0.0f32, |w, d| w.max(d.abs()));
        assert!(worst < 1e-5, "the embeddings differ by {worst}");
        for dir in dirs {
            std::fs::remove_dir_all(dir).expect("our own folder");
        }
    }

    #[test]
    fn a_setting_out_of_range_is_told() {
        let e = TrainConfig { margin: 2.5, ..TrainConfig::default() }.validate().expect_err("too far");
        assert!(e.to_string().contains("margin"), "{e}");
    }
}
