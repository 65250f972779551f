//! Configuration of `twintrack-train run` and `distil`.

use std::path::PathBuf;

use burn::tensor::FloatDType;
use derive_setters::Setters;
use serde::{Deserialize, Serialize};

use crate::infer::PixelFormat;
use crate::train::batch::AugmentConfig;
use crate::train::body::Network;
use crate::train::colour::COLOURS;
use crate::train::distil::config::DistilConfig;
use crate::train::error::TrainError;
use crate::train::loss::Metric;
use crate::train::network::{Design, HeadKind};
use crate::train::onnx;

/// Loss function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum LossKind {
    /// For each picture, the farthest picture of the same person and the nearest picture of another
    /// person (Hermans et al. 2017).
    BatchHard,
    /// All triplets of a batch, averaged over those that violate the margin.
    BatchAll,
    /// For each picture, a random other picture of the same person and a random picture of another
    /// person.
    RandomTriplet,
    /// All pairs of a batch (Hadsell et al. 2006).
    Contrastive,
}

/// Number format in which the convolutional network computes in training. Weights, accumulations,
/// head and loss stay in float32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum TrainPrecision {
    /// 32 bits.
    Float32,
    /// 16 bits with the exponent range of float32 (mixed precision, Micikevicius et al. 2018);
    /// needs no loss scaling.
    Bfloat16,
}

impl From<TrainPrecision> for FloatDType {
    fn from(p: TrainPrecision) -> Self {
        match p {
            TrainPrecision::Float32 => FloatDType::F32,
            TrainPrecision::Bfloat16 => FloatDType::BF16,
        }
    }
}

/// Training configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Setters)]
#[serde(deny_unknown_fields, default)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct TrainConfig {
    /// The convolutional network: tiny, residual, residual-wide, mobile or omni.
    pub network: Network,
    /// Method by which the feature maps become a vector, from which the embedding is computed:
    /// stripes (means of eight horizontal stripes) or read-out (separate weights for each pixel of
    /// each channel).
    pub head: HeadKind,
    /// Add a linear map of the colour layout (a histogram of lightness and hue in eight horizontal
    /// stripes) to the output of the head. With few training pictures, this map gives most of the
    /// accuracy.
    pub colours: bool,
    /// Normalise each channel of a crop to mean 0 and standard deviation 1, which removes
    /// differences in exposure and colour cast.
    pub normalise: bool,
    /// Batch-normalise the output of the head before it is scaled to unit length, which prevents
    /// all embeddings from becoming equal (collapse). No effect if `colours` is true.
    pub neck: bool,
    /// Height of a crop in pixels: 16 to 1024, a multiple of 16; a multiple of 128 if a new head is
    /// "stripes". Doubling height and width shows finer detail at four times the cost.
    pub height: usize,
    /// Width of a crop in pixels: 16 to 1024, a multiple of 16; 0: half the height.
    pub width: usize,
    /// Number of channels, 1 to 4096, to which the feature maps are converted before the read-out;
    /// only with head = "read-out".
    pub channels: usize,
    /// Start from this ONNX file: its graph replaces `network`, and training continues from its
    /// weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_from: Option<PathBuf>,
    /// Name of the value (tensor) in the graph of `start_from` after which a new head is added.
    /// Absent: no head is added; the whole graph is trained and exported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cut: Option<String>,
    /// Feature maps keep at least 1/this of the crop's height and width (16: a sixteenth): a
    /// convolution in the graph of `start_from` whose output would be smaller gets stride 1.
    /// 0: no limit.
    pub stride: usize,
    /// Pixel format of `start_from`, if its metadata does not state it: color (bgr or rgb), and
    /// mean and std of each channel on the 0 to 255 scale.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_pixels: Option<PixelFormat>,
    /// Number format in which the convolutional network computes: float32, or bfloat16, which is
    /// faster on a GPU and slower on a CPU. Weights, accumulations, head and loss stay in float32.
    /// No effect with `start_from`: its graph always computes in float32.
    pub precision: TrainPrecision,
    /// Dimension of an embedding: 16 to 432 with `colours`, 2 to 4096 without. A larger dimension
    /// distinguishes more people, and takes more of the tracker's time. With `start_from` and
    /// without `cut` this is ignored, because the graph determines it.
    pub dimension: usize,
    /// Number of training steps, one batch each.
    pub steps: usize,
    /// People per batch (P). A larger P makes the hardest negative of a batch harder.
    pub people: usize,
    /// Pictures per person in a batch (K). A larger K makes the hardest positive of a batch harder.
    pub views: usize,
    /// Loss function: batch-hard, batch-all, random-triplet or contrastive.
    pub loss: LossKind,
    /// Number of first steps in which loss = "batch-hard" uses batch-all instead: the hardest
    /// triplets can make an untrained network map all pictures to one point. 0 disables this.
    pub easy_steps: usize,
    /// Distance in the triplet losses: euclidean or cosine. The contrastive loss is always
    /// Euclidean.
    pub metric: Metric,
    /// Weight, 0 to 100, of identity classification relative to `loss`; 0 disables it. Only data
    /// sets whose identities are all different people take part.
    pub classification: f32,
    /// Share, in [0, 1), of the target probability that is taken from a picture's class and spread
    /// evenly over all classes.
    pub label_smoothing: f32,
    /// Margin of the loss, above 0 and below 2. In triplet losses, the minimum difference between
    /// the distances to another person and to the same person. In the contrastive loss, the minimum
    /// distance of different people.
    pub margin: f32,
    /// Peak learning rate (AdamW), above 0 and below 1. It is reached after `warmup` steps, and
    /// then decreased to a hundredth along a cosine.
    pub learning_rate: f64,
    /// Number of steps over which the learning rate rises linearly.
    pub warmup: usize,
    /// Decoupled weight decay of AdamW: each step subtracts learning rate x this x weight.
    pub weight_decay: f32,
    /// Maximum norm of each weight tensor's gradient; gradients with a larger norm are scaled down.
    /// 0 disables this.
    pub clip: f32,
    /// Number of steps after which the network is validated and a checkpoint is written.
    pub validate_every: usize,
    /// Stop after this many validations in a row without a better score: mAP on held-out people or,
    /// without them, cosine to the teacher. Without held-out data, training does not stop early.
    pub patience: usize,
    /// In a data set of 40 or more people, hold out every n-th person (n at least 2) for validation
    /// and calibration.
    pub hold_out: usize,
    /// As `hold_out`, for data sets of 8 to 39 people. 0: none of their people are held out; if no
    /// data set has held-out people, copy the calibration of another network (--calibrate-with).
    pub hold_out_few: usize,
    /// Seed of all random numbers.
    pub seed: u64,
    /// Augmentation of pictures.
    pub augment: AugmentConfig,
    /// Distillation: training by a teacher's outputs, with or without labelled data, for
    /// `twintrack-train distil`.
    pub distil: DistilConfig,
}

impl Default for TrainConfig {
    fn default() -> Self {
        TrainConfig {
            network: Network::Tiny,
            head: HeadKind::Stripes,
            colours: true,
            normalise: false,
            neck: true,
            height: 128,
            width: 0,
            channels: 512,
            start_from: None,
            cut: None,
            stride: 0,
            start_pixels: None,
            precision: TrainPrecision::Float32,
            dimension: 128,
            steps: 3000,
            people: 16,
            views: 4,
            loss: LossKind::BatchHard,
            easy_steps: 300,
            metric: Metric::Euclidean,
            classification: 0.0,
            label_smoothing: 0.1,
            margin: 0.3,
            learning_rate: 3e-4,
            warmup: 100,
            weight_decay: 1e-3,
            clip: 0.0,
            validate_every: 200,
            patience: 10,
            hold_out: 10,
            hold_out_few: 4,
            seed: 1,
            augment: AugmentConfig::default(),
            distil: DistilConfig::default(),
        }
    }
}

impl TrainConfig {
    /// Checks that every value is in its range.
    ///
    /// # Errors
    /// The first value outside its range, or the first contradiction between two settings.
    pub fn validate(&self) -> Result<(), TrainError> {
        let checks = [
            (
                [self.size().0, self.size().1]
                    .iter()
                    .all(|s| s.is_multiple_of(16) && (16..=1024).contains(s)),
                "height and width must be multiples of 16 in 16 to 1024",
            ),
            (
                self.head == HeadKind::ReadOut
                    || self.height.is_multiple_of(128)
                    || !self.has_head(),
                "height must be a multiple of 128 for eight stripes; other heights need \
                 head = \"read-out\"",
            ),
            (
                (1..=4096).contains(&self.channels),
                "channels must be in 1 to 4096",
            ),
            (
                self.start_from.is_some() || (self.cut.is_none() && self.stride == 0),
                "cut and stride apply to start_from: set start_from, or leave cut and stride out",
            ),
            (
                self.start_from.is_none() || !(self.colours || self.normalise),
                "with start_from, colours and normalise cannot be used: set colours = false and \
                 normalise = false",
            ),
            (
                (16..=COLOURS).contains(&self.dimension)
                    || !self.colours && (2..=4096).contains(&self.dimension),
                "dimension must be in 16 to 432 with colours, in 2 to 4096 without",
            ),
            (self.steps > 0, "steps must be above 0"),
            (
                self.people >= 2 && self.views >= 2,
                "people and views must be at least 2",
            ),
            (
                self.margin > 0.0 && self.margin < 2.0,
                "margin must be above 0 and below 2: unit vectors are at most 2 apart",
            ),
            (
                self.classification >= 0.0 && self.classification <= 100.0,
                "classification must be in 0 to 100",
            ),
            (
                (0.0..1.0).contains(&self.label_smoothing),
                "label_smoothing must be at least 0 and below 1",
            ),
            (
                self.learning_rate > 0.0 && self.learning_rate < 1.0,
                "learning_rate must be above 0 and below 1",
            ),
            (
                self.validate_every > 0 && self.patience > 0,
                "validate_every and patience must be above 0",
            ),
            (
                self.clip >= 0.0 && self.clip.is_finite(),
                "clip must be at least 0",
            ),
            (
                self.hold_out >= 2 && self.hold_out_few != 1,
                "hold_out must be at least 2; hold_out_few must be 0 or at least 2",
            ),
        ];
        checks
            .iter()
            .find(|(holds, _)| !holds)
            .map_or(Ok(()), |(_, text)| Err(TrainError::configuration(text)))?;
        self.distil.validate()
    }

    /// Whether a head is added: always, except with `start_from` without `cut`, whose graph already
    /// ends in an embedding.
    fn has_head(&self) -> bool {
        self.start_from.is_none() || self.cut.is_some()
    }

    /// Size of a crop: height, width.
    pub fn size(&self) -> (usize, usize) {
        (
            self.height,
            if self.width == 0 {
                self.height / 2
            } else {
                self.width
            },
        )
    }

    /// Takes the pixel format of `start_from` from its metadata unless the configuration states it.
    ///
    /// # Errors
    /// Fails when neither states it, or the file cannot be read.
    pub fn fill_start_pixels(&mut self) -> Result<(), TrainError> {
        let Some(path) = self
            .start_from
            .as_ref()
            .filter(|_| self.start_pixels.is_none())
        else {
            return Ok(());
        };
        self.start_pixels = onnx::metadata(path)?.pixel_format();
        match self.start_pixels {
            Some(_) => Ok(()),
            None => Err(TrainError::Setting(format!(
                "{} does not state its pixel format; set start_pixels to the values of its \
                 authors, in this form: start_pixels = {{ color = \"bgr\", mean = [0, 0, 0], \
                 std = [1, 1, 1] }}",
                path.display()
            ))),
        }
    }

    /// Design of the tower to train.
    pub fn design(&self) -> Design {
        let TrainConfig {
            network,
            head,
            colours,
            normalise,
            neck,
            dimension,
            channels,
            ..
        } = *self;
        let pixels = self.start_from.as_ref().and(self.start_pixels);
        Design {
            network,
            head,
            colours,
            normalise,
            neck,
            size: self.size(),
            dimension,
            channels,
            pixels,
        }
    }

    /// Learning rate at a step: linear warm-up, then half a cosine.
    pub fn rate(&self, step: usize) -> f64 {
        if step < self.warmup {
            return self.learning_rate * (step + 1) as f64 / self.warmup as f64;
        }
        let done =
            (step - self.warmup) as f64 / self.steps.saturating_sub(self.warmup).max(1) as f64;
        self.learning_rate * (0.01 + 0.99 * 0.5 * (1.0 + (std::f64::consts::PI * done).cos()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn learning_rate_rises_then_falls() {
        let c = TrainConfig::default();
        assert!(c.rate(0) < c.rate(50) && c.rate(50) < c.rate(99));
        assert!((c.rate(100) - c.learning_rate).abs() < 1e-9);
        assert!(c.rate(2999) < 0.02 * c.learning_rate && c.rate(2999) > 0.0);
    }

    #[test]
    fn a_setting_out_of_range_is_rejected() {
        let e = TrainConfig {
            margin: 2.5,
            ..TrainConfig::default()
        }
        .validate()
        .expect_err("too far");
        let text = e.to_string();
        assert!(
            text.starts_with("invalid training configuration: margin"),
            "{text}"
        );
    }
}
