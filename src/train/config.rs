//! Configuration of `twintrack-train`.

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
    /// Each picture's farthest view of the same person against its nearest view of another
    /// (Hermans et al. 2017).
    BatchHard,
    /// All triplets of a batch, averaged over those that violate the margin.
    BatchAll,
    /// For each picture a random view of the same person and a random view of another.
    RandomTriplet,
    /// All pairs of a batch (Hadsell et al. 2006).
    Contrastive,
}

/// Number format of the convolutional network in training. Weights, sums and everything else stay
/// in float32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum TrainPrecision {
    /// 32 bits.
    Float32,
    /// 16 bits with the range of 32 (mixed precision, Micikevicius et al. 2018); needs no loss
    /// scaling.
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
    /// How the feature maps become a vector: stripes (means of eight horizontal stripes) or
    /// read-out (separate weights for each pixel of each channel).
    pub head: HeadKind,
    /// Add the colour layout (colours by height). With little data it contributes most.
    pub colours: bool,
    /// Normalise each channel of a crop to mean 0 and standard deviation 1, which removes exposure
    /// and colour cast.
    pub normalise: bool,
    /// Batch-normalise the output of the head before it is scaled to unit length, which prevents
    /// collapse; only without colours.
    pub neck: bool,
    /// Height of a crop, pixels, a multiple of 16. Doubling height and width shows finer detail at
    /// four times the cost.
    pub height: usize,
    /// Width of a crop, pixels, a multiple of 16; 0: half the height.
    pub width: usize,
    /// Number of channels that a read-out reads.
    pub channels: usize,
    /// Start from this ONNX file: its graph replaces `network`, and its weights are trained
    /// further.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_from: Option<PathBuf>,
    /// The value of that graph at which a new head begins; absent: the whole graph is trained and
    /// exported unchanged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cut: Option<String>,
    /// Convolutions of that graph keep the size where they would reduce the maps to less than
    /// 1/stride of the crop; 0 disables this.
    pub stride: usize,
    /// Pixel format of that file, if its metadata does not give it: color (bgr or rgb), mean, std.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_pixels: Option<PixelFormat>,
    /// float32, or bfloat16 for mixed precision, which is faster on a GPU and slower on a CPU.
    pub precision: TrainPrecision,
    /// Length of an embedding, 16 to 432. Longer distinguishes more people and costs the tracker
    /// more.
    pub dimension: usize,
    /// Number of batches.
    pub steps: usize,
    /// People per batch (P). More makes the hardest negative harder.
    pub people: usize,
    /// Pictures per person (K). More makes the hardest positive harder.
    pub views: usize,
    /// Loss function.
    pub loss: LossKind,
    /// The first steps use all triplets instead of the hardest, with which an untrained network can
    /// collapse.
    pub easy_steps: usize,
    /// Distance of triplets; contrastive loss is always Euclidean.
    pub metric: Metric,
    /// Weight of identity classification relative to the loss, 0 disables it. It uses data sets
    /// whose identities are certainly different people.
    pub classification: f32,
    /// Share of each class's probability that is given to all others.
    pub label_smoothing: f32,
    /// Required difference between the distances to another and to the same person, above 0, below
    /// 2.
    pub margin: f32,
    /// Peak learning rate (AdamW); reached after `warmup` steps, then decreased to a hundredth
    /// along a cosine.
    pub learning_rate: f64,
    /// Steps of rising learning rate.
    pub warmup: usize,
    /// Weight decay.
    pub weight_decay: f32,
    /// Maximum norm of each weight tensor's gradient; larger ones are scaled down; 0 disables this.
    pub clip: f32,
    /// Validate and write a checkpoint at this interval, steps.
    pub validate_every: usize,
    /// Stop after this many validations without a better mAP.
    pub patience: usize,
    /// Hold out one in this many identities of a data set with 40 or more, for validation and
    /// calibration.
    pub hold_out: usize,
    /// The same for data sets of 8 to 39 people; 0 trains on all of them (then take the calibration
    /// from a network that did not, with --calibrate-with).
    pub hold_out_few: usize,
    /// Seed of all random numbers.
    pub seed: u64,
    /// Augmentation of pictures.
    pub augment: AugmentConfig,
    /// Distillation from a teacher in place of labels, for `twintrack-train distil`.
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
    /// Refuses values outside their ranges.
    ///
    /// # Errors
    /// The first such value.
    pub fn validate(&self) -> Result<(), TrainError> {
        let ok = [
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
                "cut and stride need start_from",
            ),
            (
                self.start_from.is_none() || !(self.colours || self.normalise),
                "a network that starts from a file takes neither colours nor normalised crops: \
                 set colours = false, normalise = false",
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
                "hold_out must be at least 2, hold_out_few too or 0",
            ),
        ];
        ok.iter()
            .find(|(fine, _)| !fine)
            .map_or(Ok(()), |(_, text)| {
                Err(TrainError::Setting(format!("train: {text}")))
            })?;
        self.distil.validate()
    }

    /// Whether the tower has a head of its own; a complete graph ends in its embedding.
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

    /// Takes the pixel format of `start_from` from its metadata unless the configuration gives it.
    ///
    /// # Errors
    /// Fails when neither gives it, or the file cannot be read.
    pub fn complete(&mut self) -> Result<(), TrainError> {
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
                "{} does not name its pixel format: set start_pixels = {{ color = \"bgr\", \
                 mean = [0, 0, 0], std = [1, 1, 1] }} as its authors specify",
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
    fn a_setting_out_of_range_is_refused() {
        let e = TrainConfig {
            margin: 2.5,
            ..TrainConfig::default()
        }
        .validate()
        .expect_err("too far");
        assert!(e.to_string().contains("margin"), "{e}");
    }
}
