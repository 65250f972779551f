//! The training loop: batch, forward, loss, backward, step, and validation at intervals.

use std::fs;
use std::path::Path;
use std::time::Instant;

use burn::grad_clipping::GradientClippingConfig;
use burn::module::{AutodiffModule, Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::optim::{AdamWConfig, GradientsParams, Optimizer};
use burn::record::Recorder;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Distribution, Int, Tensor, TensorData};
use ndarray::{Array2, Array4, Axis};

use crate::train::batch::{Batch, Sampler, write_plain};
use crate::train::checkpoint::{
    self, Checkpoint, CheckpointRecorder, TrainingState, read_state, unusable,
};
use crate::train::colour;
use crate::train::config::{LossKind, TrainConfig};
use crate::train::curves::{Curve, CurvePoint};
use crate::train::dataset::{Crop, Dataset};
use crate::train::distil;
use crate::train::distil::batches::{TeacherBatch, TeacherBatches};
use crate::train::error::TrainError;
use crate::train::kernels::backend::{Kernels, cast};
use crate::train::kernels::shape::Shape;
use crate::train::loss;
use crate::train::network::{Inputs, Tower, TowerOutput};
use crate::train::prefetch::prefetch;
use crate::train::retrieval::{self, PictureLabel};
use crate::train::tensors::{MapSize, normalise};

/// Scale of the unit vectors before classification; without it no class could become certain.
const CLASS_SCALE: f32 = 16.0;

/// The network in training: the exported tower, and parts that only training needs.
#[derive(Module, Debug)]
struct Learner<B: Backend> {
    tower: Tower<B>,
    /// Classifier of training identities, if enabled.
    classifier: Option<Linear<B>>,
    /// Maps the student's to the teacher's embeddings, if their lengths differ.
    projection: Option<Linear<B>>,
    /// Maps the student's to the teacher's channels [teacher, student, 1, 1], if feature maps are
    /// compared and channels differ.
    map_projection: Option<Param<Tensor<B, 4>>>,
}

/// Input of one training step.
#[derive(Debug, Clone)]
pub struct StepInput {
    labelled: Option<Batch>,
    judged: Option<TeacherBatch>,
}

impl<B: Kernels> Learner<B> {
    /// Runs the tower on prepared crops.
    fn embed(&self, inputs: Inputs, config: &TrainConfig, device: &B::Device) -> TowerOutput<B> {
        self.tower.forward(
            cast(tensor(inputs.crops, device), config.precision.into()),
            inputs.colours.map(|c| matrix(c, device)),
        )
    }

    /// The student's embeddings in the teacher's space, unit rows.
    fn projected(&self, student: Tensor<B, 2>) -> Tensor<B, 2> {
        match &self.projection {
            None => student,
            Some(linear) => normalise(linear.forward(student)),
        }
    }
}

impl<B: AutodiffBackend + Kernels> Learner<B> {
    fn new(
        config: &TrainConfig,
        colours: &Array2<f32>,
        classes: usize,
        teacher: Option<(usize, Option<MapSize>)>,
        device: &B::Device,
    ) -> Result<Self, TrainError> {
        let tower = match &config.start_from {
            None => Tower::new(config.design(), colours, device),
            Some(path) => Tower::from_graph(
                path,
                config.cut.as_deref(),
                config.stride,
                config.design(),
                device,
            )?,
        };
        let dimension = tower.design().dimension;
        let linear = |to| {
            LinearConfig::new(dimension, to)
                .with_bias(false)
                .init(device)
        };
        let classifier = (config.classification > 0.0 && classes > 0).then(|| linear(classes));
        let projection = teacher
            .filter(|(d, _)| *d != dimension)
            .map(|(d, _)| linear(d));
        let [channels, ..] = tower.map_size();
        let map_projection = teacher
            .and_then(|(_, map)| map)
            .filter(|[c, ..]| *c != channels)
            .map(|[c, ..]| {
                let deviation = (1.0 / channels as f64).sqrt();
                Param::from_tensor(Tensor::random(
                    [c, channels, 1, 1],
                    Distribution::Normal(0.0, deviation),
                    device,
                ))
            });
        Ok(Learner {
            tower,
            classifier,
            projection,
            map_projection,
        })
    }

    /// The loss of a step [1], and the number of active hardest triplets [1] if it has labelled
    /// pictures.
    fn loss(
        &self,
        lesson: StepInput,
        config: &TrainConfig,
        step: usize,
        device: &B::Device,
    ) -> (Tensor<B, 1>, Option<Tensor<B, 1, Int>>) {
        let labelled = lesson
            .labelled
            .map(|batch| self.labelled_loss(batch, config, step, device));
        let judged = lesson
            .judged
            .map(|batch| self.distilled_loss(batch, config, device));
        match (labelled, judged) {
            (Some((value, active)), None) => (value, Some(active)),
            (Some((value, active)), Some(judged)) => {
                (value * config.distil.labels + judged, Some(active))
            }
            (None, Some(judged)) => (judged, None),
            (None, None) => (Tensor::zeros([1], device), None),
        }
    }

    fn labelled_loss(
        &self,
        batch: Batch,
        config: &TrainConfig,
        step: usize,
        device: &B::Device,
    ) -> (Tensor<B, 1>, Tensor<B, 1, Int>) {
        let Batch {
            inputs,
            relations,
            classes,
        } = batch;
        let x = self.embed(inputs, config, device).embeddings;
        let hardest = |x| loss::batch_hard(config.metric, x, &relations, config.margin);
        let kind = if config.loss == LossKind::BatchHard && step < config.easy_steps {
            LossKind::BatchAll
        } else {
            config.loss
        };
        let mut rng = fastrand::Rng::with_seed(config.seed ^ (step as u64) << 20);
        let (value, active) = match kind {
            LossKind::BatchHard => hardest(x.clone()),
            other => {
                let value = match other {
                    LossKind::RandomTriplet => loss::random_triplet(
                        config.metric,
                        x.clone(),
                        &relations,
                        config.margin,
                        &mut rng,
                    ),
                    LossKind::Contrastive => {
                        loss::contrastive_all(x.clone(), &relations, config.margin)
                    }
                    _ => loss::batch_all(config.metric, x.clone(), &relations, config.margin),
                };
                (value, hardest(x.clone().detach()).1)
            }
        };
        match &self.classifier {
            None => (value, active),
            Some(c) => (
                value
                    + loss::classification(
                        c.forward(x * CLASS_SCALE),
                        &classes,
                        config.label_smoothing,
                    ) * config.classification,
                active,
            ),
        }
    }

    fn distilled_loss(
        &self,
        batch: TeacherBatch,
        config: &TrainConfig,
        device: &B::Device,
    ) -> Tensor<B, 1> {
        let weights = &config.distil;
        let TowerOutput {
            embeddings: student,
            maps,
        } = self.embed(batch.inputs, config, device);
        let teacher = matrix::<B>(batch.embeddings, device);
        let mut sum = Tensor::zeros([1], device);
        if weights.relations > 0.0 {
            sum =
                sum + distil::loss::relations(student.clone(), teacher.clone()) * weights.relations;
        }
        if weights.cosine > 0.0 {
            sum = sum + distil::loss::cosine(self.projected(student), teacher) * weights.cosine;
        }
        if let Some(target) = batch.maps.filter(|_| weights.map > 0.0) {
            let maps = match &self.map_projection {
                None => maps,
                Some(weight) => {
                    let [to, from, ..] = weight.dims();
                    B::convolve(maps, weight.val(), Shape::point(from, to))
                }
            };
            if let Some(value) = distil::loss::maps(maps, tensor(target, device)) {
                sum = sum + value * weights.map;
            }
        }
        sum
    }

    /// Mean cosine between the student's and the teacher's embeddings of held-out pictures.
    fn agreement(&self, held: &[TeacherBatch], config: &TrainConfig, device: &B::Device) -> f64
    where
        B::InnerBackend: Kernels,
    {
        let learner = self.valid();
        let (mut sum, mut count) = (0.0, 0);
        for batch in held {
            let student = learner.projected(
                learner
                    .embed(batch.inputs.clone(), config, device)
                    .embeddings,
            );
            let product =
                (student * matrix::<B::InnerBackend>(batch.embeddings.clone(), device)).sum();
            sum += f64::from(
                product
                    .into_data()
                    .convert::<f32>()
                    .to_vec::<f32>()
                    .map_or(f32::NAN, |v| v[0]),
            );
            count += batch.embeddings.nrows();
        }
        sum / count.max(1) as f64
    }
}

/// The value of a loss, or an error if it is not finite.
fn finite<B: Backend>(
    loss: &Tensor<B, 1>,
    step: usize,
    rate: f64,
    dir: &Path,
) -> Result<f64, TrainError> {
    let value = loss
        .clone()
        .into_data()
        .convert::<f32>()
        .to_vec::<f32>()
        .map_or(f32::NAN, |v| v[0]);
    if value.is_finite() {
        Ok(f64::from(value))
    } else {
        Err(TrainError::Diverged {
            value,
            step,
            rate,
            checkpoint: checkpoint::newest_or(dir).join("last.mpk"),
        })
    }
}

/// Result of a training run.
pub struct Trained<B: AutodiffBackend> {
    /// The network that was best on held-out data.
    pub tower: Tower<B::InnerBackend>,
    /// The learning curve.
    pub curve: Curve,
    /// Pictures per second, including loading but not validation.
    pub speed: f64,
}

/// Batches of up to 64 crops without augmentation.
fn plain(crops: &[&Crop], (height, width): (usize, usize)) -> impl Iterator<Item = Array4<f32>> {
    crops.chunks(64).map(move |part| {
        let mut batch = Array4::zeros((part.len(), 3, height, width));
        batch
            .axis_iter_mut(Axis(0))
            .zip(part)
            .for_each(|(out, c)| write_plain(c, out));
        batch
    })
}

/// Concatenates matrices along the rows.
fn stacked(parts: impl Iterator<Item = Array2<f32>>) -> Array2<f32> {
    let parts: Vec<_> = parts.collect();
    ndarray::concatenate(Axis(0), &parts.iter().map(|p| p.view()).collect::<Vec<_>>())
        .unwrap_or_default()
}

/// Embeds crops [n, 3, h, w]: [n, d].
pub fn embed_batch<B: Kernels>(
    tower: &Tower<B>,
    batch: Array4<f32>,
    device: &B::Device,
) -> Array2<f32> {
    let Inputs { crops, colours } = tower.design().inputs(batch);
    let out = tower
        .forward(tensor(crops, device), colours.map(|c| matrix(c, device)))
        .embeddings;
    let dims = out.dims();
    Array2::from_shape_vec(
        dims,
        out.into_data()
            .convert::<f32>()
            .to_vec::<f32>()
            .expect("converted to float32"),
    )
    .expect("n rows of d")
}

/// Embeds crops: [n, d].
pub fn embed<B: Kernels>(tower: &Tower<B>, crops: &[&Crop], device: &B::Device) -> Array2<f32> {
    stacked(plain(crops, tower.size()).map(|batch| embed_batch(tower, batch, device)))
}

fn matrix<B: Backend>(rows: Array2<f32>, device: &B::Device) -> Tensor<B, 2> {
    let (n, d) = rows.dim();
    Tensor::from_data(
        TensorData::new(rows.into_raw_vec_and_offset().0, [n, d]),
        device,
    )
}

fn tensor<B: Backend>(batch: Array4<f32>, device: &B::Device) -> Tensor<B, 4> {
    let (n, c, h, w) = batch.dim();
    Tensor::from_data(
        TensorData::new(batch.into_raw_vec_and_offset().0, [n, c, h, w]),
        device,
    )
}

/// Labels of crops for evaluation.
pub fn labels(crops: &[Crop]) -> Vec<PictureLabel> {
    crops
        .iter()
        .map(|c| PictureLabel {
            identity: c.identity,
            camera: c.camera,
            frame: c.frame,
        })
        .collect()
}

/// Minimum number of people of a data set of which some are held out.
const FEWEST: usize = 8;
/// Minimum number of people of a large data set.
const MANY: usize = 40;

/// Splits data sets into those for training and those held out. Sets of fewer than eight people are
/// used for training entirely.
pub fn split(sets: Vec<Dataset>, config: &TrainConfig) -> (Vec<Dataset>, Vec<Dataset>) {
    let (mut train, mut held) = (Vec::new(), Vec::new());
    for set in sets {
        let every = if set.identities >= MANY {
            config.hold_out
        } else {
            config.hold_out_few
        };
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

/// Mean mAP over the held-out sets; `None` if none of them has a match.
fn validate<B: Kernels>(tower: &Tower<B>, held: &[Dataset], device: &B::Device) -> Option<f64> {
    let maps: Vec<f64> = held
        .iter()
        .filter_map(|set| {
            let e = embed(tower, &set.crops.iter().collect::<Vec<_>>(), device);
            retrieval::retrieval(
                &retrieval::distances(e.view()),
                &labels(&set.crops),
                set.protocol,
            )
            .map(|r| r.map)
        })
        .collect();
    (!maps.is_empty()).then(|| maps.iter().sum::<f64>() / maps.len() as f64)
}

/// Data for training and validation.
#[derive(Debug, Default)]
pub struct Material {
    /// Labelled data.
    pub train: Vec<Dataset>,
    /// Labelled data of held-out people.
    pub held: Vec<Dataset>,
    /// Pictures with a teacher's output.
    pub batches: Option<TeacherBatches>,
}

/// Measurements of a validation: mAP on held-out people, cosine to the teacher on held-out
/// pictures.
#[derive(Debug, Clone, Copy)]
struct Worth {
    map: Option<f64>,
    agreement: Option<f64>,
}

impl Worth {
    /// Criterion for the best network: mAP if people are held out, else the agreement with the
    /// teacher.
    fn score(self) -> Option<f64> {
        self.map.or(self.agreement)
    }

    fn text(self) -> String {
        let map = self
            .map
            .map_or(String::new(), |m| format!(", mAP {:.1}", 100.0 * m));
        map + &self
            .agreement
            .map_or(String::new(), |a| format!(", cosine to the teacher {a:.4}"))
    }
}

/// Trains in the folder `dir`, which receives all, `curve.csv` and `curve.svg`. With
/// `resume` it continues from the last checkpoint there.
///
/// # Errors
/// Fails when settings or data are unsuitable, the loss is not finite, or a file cannot be written.
pub fn train<B: AutodiffBackend<InnerBackend: Kernels> + Kernels>(
    config: &TrainConfig,
    material: Material,
    dir: &Path,
    resume: bool,
    device: &B::Device,
    mut tell: impl FnMut(String),
) -> Result<Trained<B>, TrainError> {
    config.validate()?;
    fs::create_dir_all(dir).map_err(|e| TrainError::Write {
        path: dir.into(),
        reason: e.to_string(),
    })?;
    B::seed(device, config.seed);
    let Material {
        train,
        held,
        batches,
    } = material;
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
    if sampler.is_none() && batches.is_none() {
        return Err(TrainError::Setting(
            "there are no training data: neither labelled data nor pictures with a teacher's output"
                .into(),
        ));
    }
    let probes = batches
        .as_ref()
        .map(TeacherBatches::held_out)
        .transpose()?
        .unwrap_or_default();
    let start = match &sampler {
        _ if !config.colours => Array2::default((0, 0)),
        Some(sampler) => {
            stacked(plain(&sampler.plain(2000), config.size()).map(|batch| colour::layouts(&batch)))
        }
        None => stacked(probes.iter().filter_map(|p| p.inputs.colours.clone())),
    };
    let classes = sampler.as_ref().map_or(0, Sampler::classes);
    let mut learner = Learner::<B>::new(
        config,
        &start,
        classes,
        batches.as_ref().map(TeacherBatches::teacher),
        device,
    )?;
    let sizes = batches
        .as_ref()
        .and_then(|l| l.teacher().1)
        .map(|of_teacher| (learner.tower.map_size(), of_teacher));
    if let Some(([_, h, w], [_, th, tw])) = sizes.filter(|([_, h, w], [_, th, tw])| {
        distil::loss::common_size((*h, *w), (*th, *tw)).is_none()
    }) {
        tell(format!(
            "maps of {w}x{h} pixels cannot be compared with the teacher's of {tw}x{th}: neither \
             size is a multiple of the other; distil.map is ignored"
        ));
    }
    let clipping = (config.clip > 0.0).then_some(GradientClippingConfig::Norm(config.clip));
    let mut optimizer = AdamWConfig::new()
        .with_weight_decay(config.weight_decay)
        .with_grad_clipping(clipping)
        .init::<B, Learner<B>>();
    let mut state = TrainingState {
        config: config.clone(),
        step: 0,
        best: 0.0,
        stale: 0,
        points: Vec::new(),
    };
    let judge = |learner: &Learner<B>| Worth {
        map: validate(&learner.tower.valid(), &held, device),
        agreement: (!probes.is_empty()).then(|| learner.agreement(&probes, config, device)),
    };
    if resume {
        let from = checkpoint::newest_or(dir);
        state = read_state(&from, config)?;
        learner = learner
            .load_file(from.join("last"), &CheckpointRecorder::new(), device)
            .map_err(|e| unusable(&from, &e.to_string()))?;
        let record = Recorder::<B>::load(
            &CheckpointRecorder::new(),
            from.join("last_optimizer"),
            device,
        )
        .map_err(|e| unusable(&from, &e.to_string()))?;
        optimizer = optimizer.load_record(record);
    } else {
        let worth = judge(&learner);
        state.best = worth.score().unwrap_or_default();
        tell(format!("before training{}", worth.text()));
        checkpoint::clear(dir)?;
        checkpoint::write(
            &Checkpoint {
                learner: &learner,
                optimizer: &optimizer,
                best: Some(&learner.tower),
                state: &state,
            },
            dir,
        )?;
    }
    let (begun, first) = (Instant::now(), state.step);
    let mut idle = std::time::Duration::ZERO;
    let labelled = sampler.as_ref().map_or(0, |_| config.people * config.views);
    let images = (labelled + batches.as_ref().map_or(0, |_| config.distil.batch)) as f64;
    let (mut sum, mut active, mut count) = (0.0, None, 0);
    // With a GPU the other cores are free for loading; on the CPU one loader keeps up with
    // training.
    let loaders = if B::ON_CPU {
        1
    } else {
        std::thread::available_parallelism().map_or(1, |cores| cores.get() - 1)
    };
    let make = move |step| {
        Ok::<_, TrainError>(StepInput {
            labelled: sampler.as_ref().map(|s| s.batch(step)),
            judged: batches.as_ref().map(|l| l.batch(step)).transpose()?,
        })
    };
    for lesson in prefetch(make, state.step, config.steps, loaders) {
        let (value, hard) = learner.loss(lesson?, config, state.step, device);
        let rate = config.rate(state.step);
        sum += finite(&value, state.step, rate, dir)?;
        if let Some(hard) = hard {
            let share =
                hard.into_data().iter::<i64>().next().unwrap_or_default() as f64 / labelled as f64;
            active = Some(active.unwrap_or(0.0) + share);
        }
        count += 1;
        let gradients = GradientsParams::from_grads(value.backward(), &learner);
        learner = optimizer.step(rate, learner, gradients);
        state.step += 1;
        if state.step.is_multiple_of(config.validate_every) || state.step == config.steps {
            let pause = Instant::now();
            let worth = judge(&learner);
            let n = f64::from(count);
            let speed =
                (state.step - first) as f64 * images / (begun.elapsed() - idle).as_secs_f64();
            let left = (config.steps - state.step) as f64 * images / speed;
            let active_text = active.map_or(String::new(), |a| {
                format!(", active {:3.0} %", 100.0 * a / n)
            });
            tell(format!(
                "step {:6} of {}: loss {:.4}{active_text}{}, {speed:.0} images/s, {left:.0} s left",
                state.step,
                config.steps,
                sum / n,
                worth.text()
            ));
            let Worth { map, agreement } = worth;
            state.points.push(CurvePoint {
                step: state.step,
                loss: sum / n,
                active: active.map(|a| a / n),
                rate,
                map,
                agreement,
                speed,
            });
            (sum, active, count) = (0.0, None, 0);
            // Without held-out data the last network is kept.
            let better = worth.score().is_none_or(|m| m > state.best);
            state.best = state.best.max(worth.score().unwrap_or_default());
            state.stale = if better { 0 } else { state.stale + 1 };
            let best = better.then_some(&learner.tower);
            checkpoint::write(
                &Checkpoint {
                    learner: &learner,
                    optimizer: &optimizer,
                    best,
                    state: &state,
                },
                dir,
            )?;
            Curve(state.points.clone()).write(dir)?;
            if state.stale >= config.patience {
                tell(format!(
                    "no better network in {} validations: stopping early",
                    config.patience
                ));
                break;
            }
            idle += pause.elapsed();
        }
    }
    let speed = state.points.last().map_or(0.0, |p| p.speed);
    let from = checkpoint::newest_or(dir);
    let best = learner
        .tower
        .load_file(from.join("best"), &CheckpointRecorder::new(), device)
        .map_err(|e| unusable(&from, &e.to_string()))?;
    Ok(Trained {
        tower: best.valid(),
        curve: Curve(state.points),
        speed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::rng_lock::RNG_LOCK;

    #[test]
    fn a_loss_that_is_not_finite_names_checkpoint_and_likely_cause() {
        type B = burn::backend::Flex;
        let value = |v: f32| {
            finite(
                &Tensor::<B, 1>::from_floats([v], &Default::default()),
                7,
                1e-2,
                Path::new("work"),
            )
        };
        assert_eq!(value(0.5).expect("a number"), 0.5);
        let e = value(f32::NAN).expect_err("none").to_string();
        assert!(
            e.contains("NaN at step 7") && e.contains("last.mpk") && e.contains("learning rate"),
            "{e}"
        );
        assert!(value(f32::INFINITY).is_err());
    }

    /// Four steps give the same network as two steps resumed for two more. The learning rate is
    /// still in its warm-up and so does not depend on the number of steps.
    #[test]
    fn resuming_from_a_checkpoint_is_exact() {
        use crate::train::synthetic;
        use burn::backend::{Autodiff, Flex};
        let _alone = RNG_LOCK.lock().expect("no test failed while it drew");
        let dirs = ["whole", "parts"].map(|n| {
            std::env::temp_dir().join(format!("twintrack-train-{}-{n}", std::process::id()))
        });
        let config = TrainConfig {
            dimension: 16,
            steps: 4,
            people: 2,
            views: 2,
            validate_every: 2,
            warmup: 100,
            classification: 0.5,
            ..TrainConfig::default()
        };
        let device = Default::default();
        let sets = || vec![synthetic::dataset(4, 3, 1).expect("people")];
        let run = |config: &TrainConfig, dir: &Path, resume| {
            train::<Autodiff<Flex>>(
                config,
                Material {
                    train: sets(),
                    ..Material::default()
                },
                dir,
                resume,
                &device,
                |_| {},
            )
        };
        let look = |t: &Trained<Autodiff<Flex>>| {
            embed(
                &t.tower,
                &sets()[0].crops.iter().collect::<Vec<_>>(),
                &device,
            )
        };
        let whole = run(&config, &dirs[0], false).expect("trained");
        run(
            &TrainConfig {
                steps: 2,
                ..config.clone()
            },
            &dirs[1],
            false,
        )
        .expect("trained");
        let other = run(
            &TrainConfig {
                dimension: 32,
                ..config.clone()
            },
            &dirs[1],
            true,
        )
        .err()
        .expect("another network");
        assert!(other.to_string().contains("length 16"), "{other}");
        let on = run(&config, &dirs[1], true).expect("went on");
        assert_eq!(
            on.curve.0.iter().map(|p| p.step).collect::<Vec<_>>(),
            [2, 4]
        );
        let worst = (look(&whole) - look(&on))
            .iter()
            .fold(0.0f32, |w, d| w.max(d.abs()));
        assert!(worst < 1e-5, "the embeddings differ by {worst}");
        for dir in dirs {
            std::fs::remove_dir_all(dir).expect("our own folder");
        }
    }

    /// bfloat16 gives nearly the same embeddings on every network, and trains as well.
    #[test]
    fn mixed_precision_trains_like_float32() {
        use crate::train::body::Network;
        use crate::train::config::TrainPrecision;
        use crate::train::synthetic;
        use burn::backend::{Autodiff, Flex};
        type B = Autodiff<Flex>;
        let _alone = RNG_LOCK.lock().expect("no test failed while it drew");
        let device = Default::default();
        B::seed(&device, 1);
        let design = TrainConfig {
            dimension: 16,
            ..TrainConfig::default()
        }
        .design();
        let sampler = Sampler::new(
            vec![synthetic::dataset(8, 3, 1).expect("people")],
            (8, 3),
            design,
            Default::default(),
            1,
        )
        .expect("enough");
        let start =
            stacked(plain(&sampler.plain(24), (128, 64)).map(|batch| colour::layouts(&batch)));
        let precisions = [TrainPrecision::Float32, TrainPrecision::Bfloat16];
        for network in [Network::Tiny, Network::Mobile, Network::Omni] {
            let config = |precision| TrainConfig {
                network,
                precision,
                dimension: 16,
                loss: LossKind::Contrastive,
                margin: 1.0,
                ..TrainConfig::default()
            };
            let mut learner =
                Learner::<B>::new(&config(TrainPrecision::Float32), &start, 0, None, &device)
                    .expect("a tower");
            // The convolutional part starts at zero; this makes it contribute from the first step
            // on.
            learner.tower.randomise_head(&device);
            let batch = sampler.batch(0);
            let [full, half] = precisions.map(|p| {
                let x = learner
                    .embed(batch.inputs.clone(), &config(p), &device)
                    .embeddings;
                x.into_data()
                    .to_vec::<f32>()
                    .expect("embeddings are float32")
            });
            let alike = full
                .chunks(16)
                .zip(half.chunks(16))
                .map(|(a, b)| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>())
                .sum::<f32>()
                / 24.0;
            // Each normalisation of an untrained network amplifies the small differences between
            // its pictures, and rounding errors with them; the fifty of `mobile` leave 0.85.
            assert!(
                alike > if network == Network::Tiny { 0.999 } else { 0.7 } && full != half,
                "{network:?}: {alike}"
            );
            if network == Network::Tiny {
                let learnt = precisions.map(|p| {
                    let (mut learner, mut optimizer) =
                        (learner.clone(), AdamWConfig::new().init::<B, Learner<B>>());
                    let losses: Vec<f64> = (0..12)
                        .map(|_| {
                            let (value, _) =
                                learner.labelled_loss(batch.clone(), &config(p), 0, &device);
                            let loss =
                                finite(&value, 0, 1e-3, Path::new("work")).expect("a number");
                            learner = optimizer.step(
                                1e-3,
                                learner.clone(),
                                GradientsParams::from_grads(value.backward(), &learner),
                            );
                            loss
                        })
                        .collect();
                    losses[11] / losses[0]
                });
                assert!(
                    learnt.iter().all(|l| *l < 0.5) && (learnt[0] - learnt[1]).abs() < 0.1,
                    "{learnt:?}"
                );
            }
        }
    }
}
