//! The training loop: batch, forward, loss, backward, step; now and then validate, remember, tell.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::module::{AutodiffModule, Module};
use burn::nn::{Linear, LinearConfig};
use burn::optim::{AdamWConfig, GradientsParams, Optimizer};
use burn::record::{FullPrecisionSettings, NamedMpkFileRecorder, Recorder};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Int, Tensor, TensorData};
use ndarray::{Array2, Array4, Axis};
use serde::{Deserialize, Serialize};

use crate::train::batch::{Batch, Sampler, write_plain};
use crate::train::colour;
use crate::train::config::{LossKind, TrainConfig};
use crate::train::curves::{Curve, Point};
use crate::train::dataset::{Crop, Dataset, TrainError};
use crate::train::kernels::backend::{Kernels, cast};
use crate::train::loss;
use crate::train::network::Tower;
use crate::train::retrieval::{self, Label};

/// Where training stands, beside the weights.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct State {
    config: TrainConfig,
    step: usize,
    best: f64,
    stale: usize,
    points: Vec<Point>,
}

/// Scale of the unit vectors before classification: without it no class could be certain.
const CLASS_SCALE: f32 = 16.0;

/// What is trained: the tower that ships, and beside it a linear map to the training identities, if asked for.
#[derive(Module, Debug)]
struct Learner<B: Backend> {
    tower: Tower<B>,
    classifier: Option<Linear<B>>,
}

impl<B: AutodiffBackend + Kernels> Learner<B> {
    fn new(config: &TrainConfig, colours: &Array2<f32>, classes: usize, device: &B::Device) -> Self {
        let tower = Tower::new(config.network, config.height, config.dimension, colours, device);
        let classifier = (config.classification > 0.0 && classes > 0).then(|| LinearConfig::new(config.dimension, classes).with_bias(false).init(device));
        Learner { tower, classifier }
    }

    /// The loss of a batch [1], and how many of its hardest triplets are active [1].
    fn loss(&self, batch: Batch, config: &TrainConfig, step: usize, device: &B::Device) -> (Tensor<B, 1>, Tensor<B, 1, Int>) {
        let Batch { crops, colours, relations, classes } = batch;
        let x = self.tower.forward(cast(tensor(crops, device), config.precision.into()), matrix(colours, device));
        let hardest = |x| loss::batch_hard(config.metric, x, &relations, config.margin);
        let kind = if config.loss == LossKind::BatchHard && step < config.easy_steps { LossKind::BatchAll } else { config.loss };
        let mut rng = fastrand::Rng::with_seed(config.seed ^ (step as u64) << 20);
        let (value, active) = match kind {
            LossKind::BatchHard => hardest(x.clone()),
            other => {
                let value = match other {
                    LossKind::RandomTriplet => loss::random_triplet(config.metric, x.clone(), &relations, config.margin, &mut rng),
                    LossKind::Contrastive => loss::contrastive_all(x.clone(), &relations, config.margin),
                    _ => loss::batch_all(config.metric, x.clone(), &relations, config.margin),
                };
                (value, hardest(x.clone().detach()).1)
            }
        };
        match &self.classifier {
            None => (value, active),
            Some(c) => (value + loss::classification(c.forward(x * CLASS_SCALE), &classes, config.label_smoothing) * config.classification, active),
        }
    }
}

/// The value of a loss, or the error that says why there is none.
fn finite<B: Backend>(loss: &Tensor<B, 1>, step: usize, rate: f64, dir: &Path) -> Result<f64, TrainError> {
    let value = loss.clone().into_data().convert::<f32>().to_vec::<f32>().map_or(f32::NAN, |v| v[0]);
    if value.is_finite() { Ok(f64::from(value)) } else { Err(TrainError::Diverged { value, step, rate, checkpoint: dir.join("last.mpk") }) }
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

/// Crops as the tracker would see them, 64 at a time.
fn plain(crops: &[&Crop], (height, width): (usize, usize)) -> impl Iterator<Item = Array4<f32>> {
    crops.chunks(64).map(move |part| {
        let mut batch = Array4::zeros((part.len(), 3, height, width));
        batch.axis_iter_mut(Axis(0)).zip(part).for_each(|(out, c)| write_plain(c, out));
        batch
    })
}

/// One below another.
fn stacked(parts: impl Iterator<Item = Array2<f32>>) -> Array2<f32> {
    let parts: Vec<_> = parts.collect();
    ndarray::concatenate(Axis(0), &parts.iter().map(|p| p.view()).collect::<Vec<_>>()).unwrap_or_default()
}

/// Embeds crops [n, 3, h, w]: [n, d].
pub fn embed_batch<B: Kernels>(tower: &Tower<B>, batch: Array4<f32>, device: &B::Device) -> Array2<f32> {
    let colours = matrix(colour::layouts(&batch), device);
    let out = tower.forward(tensor(batch, device), colours);
    let dims = out.dims();
    Array2::from_shape_vec(dims, out.into_data().convert::<f32>().to_vec::<f32>().expect("float32 was asked for")).expect("n rows of d")
}

/// Embeds crops: [n, d].
pub fn embed<B: Kernels>(tower: &Tower<B>, crops: &[&Crop], device: &B::Device) -> Array2<f32> {
    stacked(plain(crops, tower.size()).map(|batch| embed_batch(tower, batch, device)))
}

fn matrix<B: Backend>(rows: Array2<f32>, device: &B::Device) -> Tensor<B, 2> {
    let (n, d) = rows.dim();
    Tensor::from_data(TensorData::new(rows.into_raw_vec_and_offset().0, [n, d]), device)
}

fn tensor<B: Backend>(batch: Array4<f32>, device: &B::Device) -> Tensor<B, 4> {
    let (n, c, h, w) = batch.dim();
    Tensor::from_data(TensorData::new(batch.into_raw_vec_and_offset().0, [n, c, h, w]), device)
}

/// Labels of a data set's crops.
pub fn labels(crops: &[Crop]) -> Vec<Label> {
    crops.iter().map(|c| Label { identity: c.identity, camera: c.camera, frame: c.frame }).collect()
}

/// From so many people on, some of a data set are held out.
const FEWEST: usize = 8;
/// From so many on it counts as large.
const MANY: usize = 40;

/// The training data split into what is learnt from and who is held out. Sets of fewer than eight people are learnt from
/// whole.
pub fn split(sets: Vec<Dataset>, config: &TrainConfig) -> (Vec<Dataset>, Vec<Dataset>) {
    let (mut train, mut held) = (Vec::new(), Vec::new());
    for set in sets {
        let every = if set.identities >= MANY { config.hold_out } else { config.hold_out_few };
        if set.identities >= FEWEST && every > 0 {
            let (rest, out) = set.hold_out(every);
            train.push(rest);
            held.push(out);
        } else {
            train.push(set);
        }
    }
    (train, held)
}

/// mAP over the sets held out, on average; `None` when there is none with a match.
fn validate<B: Kernels>(tower: &Tower<B>, held: &[Dataset], device: &B::Device) -> Option<f64> {
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
pub fn train<B: AutodiffBackend<InnerBackend: Kernels> + Kernels>(
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
    let sampler = Sampler::new(train, (config.people, config.views), config.size(), config.augment.clone(), config.seed)?;
    let start = stacked(plain(&sampler.plain(2000), config.size()).map(|batch| colour::layouts(&batch)));
    let mut learner = Learner::<B>::new(config, &start, sampler.classes(), device);
    let mut optimizer = AdamWConfig::new().with_weight_decay(config.weight_decay).init::<B, Learner<B>>();
    let mut state = State { config: config.clone(), step: 0, best: 0.0, stale: 0, points: Vec::new() };
    if resume {
        state = read_state(dir, config)?;
        learner = learner.load_file(dir.join("last"), &Files::new(), device).map_err(|e| bad(dir, &e.to_string()))?;
        let record = Recorder::<B>::load(&Files::new(), dir.join("last_optimizer"), device).map_err(|e| bad(dir, &e.to_string()))?;
        optimizer = optimizer.load_record(record);
    } else {
        if let Some(path) = &config.start_from {
            learner.tower.load(path, device)?;
        }
        state.best = validate(&learner.tower.valid(), held, device).unwrap_or_default();
        tell(format!("before training: mAP {:.1} on people held out", 100.0 * state.best));
        save(&learner.tower, dir, "best")?;
    }
    let (begun, first) = (Instant::now(), state.step);
    let mut idle = std::time::Duration::ZERO;
    let images = (config.people * config.views) as f64;
    let (mut sum, mut active, mut count) = (0.0, 0.0, 0);
    // Beside a GPU the cores have nothing else to do; where they train themselves one loader is quick enough.
    let loaders = if B::ON_PROCESSOR { 1 } else { std::thread::available_parallelism().map_or(1, |cores| cores.get() - 1) };
    for batch in sampler.ahead(state.step, config.steps, loaders) {
        let (value, hard) = learner.loss(batch, config, state.step, device);
        let rate = config.rate(state.step);
        sum += finite(&value, state.step, rate, dir)?;
        active += hard.into_data().iter::<i64>().next().unwrap_or_default() as f64 / images;
        count += 1;
        let gradients = GradientsParams::from_grads(value.backward(), &learner);
        learner = optimizer.step(rate, learner, gradients);
        state.step += 1;
        if state.step.is_multiple_of(config.validate_every) || state.step == config.steps {
            let pause = Instant::now();
            let map = validate(&learner.tower.valid(), held, device);
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
                save(&learner.tower, dir, "best")?;
            }
            checkpoint(&learner, &optimizer, &state, dir)?;
            Curve(state.points.clone()).write(dir)?;
            if state.stale >= config.patience {
                tell(format!("no better mAP in {} validations: stopping early", config.patience));
                break;
            }
            idle += pause.elapsed();
        }
    }
    let speed = state.points.last().map_or(0.0, |p| p.speed);
    let best = learner.tower.load_file(dir.join("best"), &Files::new(), device).map_err(|e| bad(dir, &e.to_string()))?;
    Ok(Trained { tower: best.valid(), curve: Curve(state.points), speed })
}

fn bad(dir: &Path, problem: &str) -> TrainError {
    TrainError::Checkpoint { path: dir.to_path_buf(), problem: problem.to_string() }
}

fn save<B: Backend>(module: &impl Module<B>, dir: &Path, name: &str) -> Result<(), TrainError> {
    replace(dir, name, |path| module.clone().save_file(path, &Files::new()).map_err(|e| e.to_string()))
}

fn checkpoint<B: AutodiffBackend>(learner: &Learner<B>, optimizer: &impl Optimizer<Learner<B>, B>, state: &State, dir: &Path) -> Result<(), TrainError> {
    save(learner, dir, "last")?;
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
    let network = |c: &TrainConfig| format!("{} for crops {} high with embeddings of length {}", c.network.name(), c.height, c.dimension);
    if network(a) != network(b) || (a.classification > 0.0) != (b.classification > 0.0) {
        let heads = |c: &TrainConfig| if c.classification > 0.0 { ", with classification" } else { "" };
        return Err(bad(&path, &format!("it is of the network {}{}, and {}{} was asked for", network(a), heads(a), network(b), heads(b))));
    }
    if (a.people, a.views, a.seed) != (b.people, b.views, b.seed) {
        return Err(bad(&path, "people, views and seed must stay as they were, or the batches are others"));
    }
    Ok(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Held by who draws from burn's random numbers, of which there is one sequence for all tests.
    static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

    #[test]
    fn a_loss_that_is_no_number_names_the_checkpoint_and_the_likely_cause() {
        type B = burn::backend::Flex;
        let value = |v: f32| finite(&Tensor::<B, 1>::from_floats([v], &Default::default()), 7, 1e-2, Path::new("work"));
        assert_eq!(value(0.5).expect("a number"), 0.5);
        let e = value(f32::NAN).expect_err("none").to_string();
        assert!(e.contains("NaN at step 7") && e.contains("last.mpk") && e.contains("learning rate"), "{e}");
        assert!(value(f32::INFINITY).is_err());
    }

    /// Four steps at once, and two and then two more, give the same network. The rate is still rising, so it does not
    /// depend on how many steps were asked for.
    #[test]
    fn going_on_from_a_checkpoint_is_exact() {
        use crate::train::synthetic;
        use burn::backend::{Autodiff, Flex};
        let _alone = ALONE.lock().expect("no test failed while it drew");
        let dirs = ["whole", "parts"].map(|n| std::env::temp_dir().join(format!("twintrack-train-{}-{n}", std::process::id())));
        let config =
            TrainConfig { dimension: 16, steps: 4, people: 2, views: 2, validate_every: 2, warmup: 100, classification: 0.5, ..TrainConfig::default() };
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

    /// Half of the bits give nearly the same embeddings on every network, and learn as much.
    #[test]
    fn mixed_precision_learns_as_float32_does() {
        use crate::train::body::Network;
        use crate::train::config::TrainPrecision;
        use crate::train::synthetic;
        use burn::backend::{Autodiff, Flex};
        type B = Autodiff<Flex>;
        let _alone = ALONE.lock().expect("no test failed while it drew");
        let device = Default::default();
        B::seed(&device, 1);
        let sampler = Sampler::new(vec![synthetic::dataset(8, 3, 1).expect("people")], (8, 3), (128, 64), Default::default(), 1).expect("enough");
        let start = stacked(plain(&sampler.plain(24), (128, 64)).map(|batch| colour::layouts(&batch)));
        let precisions = [TrainPrecision::Float32, TrainPrecision::Bfloat16];
        for network in [Network::Tiny, Network::Mobile, Network::Omni] {
            let config = |precision| TrainConfig { network, precision, dimension: 16, loss: LossKind::Contrastive, margin: 1.0, ..TrainConfig::default() };
            let mut learner = Learner::<B>::new(&config(TrainPrecision::Float32), &start, 0, &device);
            // The texture starts at zero; here it shall count from the first step on.
            learner.tower.excite(&device);
            let batch = sampler.batch(0);
            let [full, half] = precisions.map(|p| {
                let x = learner.tower.forward(cast(tensor(batch.crops.clone(), &device), p.into()), matrix(batch.colours.clone(), &device));
                x.into_data().to_vec::<f32>().expect("embeddings are float32")
            });
            let alike = full.chunks(16).zip(half.chunks(16)).map(|(a, b)| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>()).sum::<f32>() / 24.0;
            // Each normalisation of an untaught network enlarges what little tells its pictures apart, and the rounding with
            // it; the fifty of `mobile` leave 0.85.
            assert!(alike > if network == Network::Tiny { 0.999 } else { 0.7 } && full != half, "{network:?}: {alike}");
            if network == Network::Tiny {
                let learnt = precisions.map(|p| {
                    let (mut learner, mut optimizer) = (learner.clone(), AdamWConfig::new().init::<B, Learner<B>>());
                    let losses: Vec<f64> = (0..12)
                        .map(|_| {
                            let (value, _) = learner.loss(batch.clone(), &config(p), 0, &device);
                            let loss = finite(&value, 0, 1e-3, Path::new("work")).expect("a number");
                            learner = optimizer.step(1e-3, learner.clone(), GradientsParams::from_grads(value.backward(), &learner));
                            loss
                        })
                        .collect();
                    losses[11] / losses[0]
                });
                assert!(learnt.iter().all(|l| *l < 0.5) && (learnt[0] - learnt[1]).abs() < 0.1, "{learnt:?}");
            }
        }
    }
}
