//! The network in training: the tower with its classifier and projections; the losses of a step.

use burn::module::{AutodiffModule, Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Distribution, Int, Tensor};
use ndarray::Array2;

use crate::train::batch::Batch;
use crate::train::config::{LossKind, TrainConfig};
use crate::train::distil;
use crate::train::distil::batches::TeacherBatch;
use crate::train::embed::{matrix, tensor};
use crate::train::error::TrainError;
use crate::train::kernels::backend::{Kernels, cast};
use crate::train::kernels::shape::Shape;
use crate::train::loss;
use crate::train::network::{Inputs, Tower, TowerOutput};
use crate::train::tensors::{MapSize, normalise};

/// Scale of the unit vectors before classification. With unit length the probability of a class
/// could not approach 1.
const CLASS_SCALE: f32 = 16.0;

/// The network in training: the tower, which is exported, and parts that only training needs.
#[derive(Module, Debug)]
pub(super) struct Learner<B: Backend> {
    pub(super) tower: Tower<B>,
    /// Classifier of training identities, if enabled.
    classifier: Option<Linear<B>>,
    /// Maps the student's to the teacher's embeddings, if their dimensions differ.
    projection: Option<Linear<B>>,
    /// Maps the student's to the teacher's channels [teacher, student, 1, 1], if feature maps are
    /// compared and channels differ.
    map_projection: Option<Param<Tensor<B, 4>>>,
}

/// Input of one training step.
#[derive(Debug, Clone)]
pub struct StepInput {
    /// Labelled pictures.
    pub(super) labelled: Option<Batch>,
    /// Pictures with a teacher's output.
    pub(super) distilled: Option<TeacherBatch>,
}

impl<B: Kernels> Learner<B> {
    /// Runs the tower on prepared crops.
    pub(super) fn embed(
        &self,
        inputs: Inputs,
        config: &TrainConfig,
        device: &B::Device,
    ) -> TowerOutput<B> {
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
    pub(super) fn new(
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

    /// The loss of a step [1], and the number of active hardest triplets [1] if the step has
    /// labelled pictures.
    pub(super) fn loss(
        &self,
        input: StepInput,
        config: &TrainConfig,
        step: usize,
        device: &B::Device,
    ) -> (Tensor<B, 1>, Option<Tensor<B, 1, Int>>) {
        let labelled = input
            .labelled
            .map(|batch| self.labelled_loss(batch, config, step, device));
        let distilled = input
            .distilled
            .map(|batch| self.distilled_loss(batch, config, device));
        match (labelled, distilled) {
            (Some((value, active)), None) => (value, Some(active)),
            (Some((value, active)), Some(distilled)) => {
                (value * config.distil.labels + distilled, Some(active))
            }
            (None, Some(distilled)) => (distilled, None),
            (None, None) => (Tensor::zeros([1], device), None),
        }
    }

    pub(super) fn labelled_loss(
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
    pub(super) fn agreement(
        &self,
        held: &[TeacherBatch],
        config: &TrainConfig,
        device: &B::Device,
    ) -> f64
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
