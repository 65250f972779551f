//! The section `[distil]` of a training configuration.

use derive_setters::Setters;
use serde::{Deserialize, Serialize};

use crate::infer::PixelFormat;
use crate::train::error::TrainError;

/// Distillation settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Setters)]
#[serde(deny_unknown_fields, default)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct DistilConfig {
    /// Number of probes. With more probes, the student's embeddings agree better with the
    /// teacher's. The teacher embeds each probe once, so its time is proportional to their number.
    pub probes: usize,
    /// Number of probes, at least `batch`, that are embedded before the first step; the others are
    /// added during training.
    pub first: usize,
    /// Number of probes that become available at each step, until all are available. Training waits
    /// if the teacher has not embedded them yet.
    pub fresh: usize,
    /// Number of probes, at least 2, per batch.
    pub batch: usize,
    /// Share, in [0, 1], of probes that are recombined into people who do not exist; the others get
    /// camera effects only.
    pub recombined: f32,
    /// Weight, 0 to 100, of the cosine distance between the student's and the teacher's embeddings.
    pub cosine: f32,
    /// Weight, 0 to 100, of the difference between the student's and the teacher's matrices of the
    /// cosines of all pairs of a batch (relational distillation, Park et al. 2019).
    pub relations: f32,
    /// Weight, 0 to 100, of the difference between the last feature maps, if the teacher has any; 0
    /// disables this loss.
    pub map: f32,
    /// Weight, 0 to 100, of the loss on labelled data (--data), relative to the weights above.
    pub labels: f32,
    /// The teacher's crop size in pixels, [width, height], if neither its input nor its metadata
    /// states it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub teacher_size: Option<[usize; 2]>,
    /// The teacher's pixel format, if its metadata does not state it: color (bgr or rgb), and mean
    /// and std of each channel on the 0 to 255 scale.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub teacher_pixels: Option<PixelFormat>,
}

impl Default for DistilConfig {
    fn default() -> Self {
        DistilConfig {
            probes: 40_000,
            first: 4000,
            fresh: 32,
            batch: 64,
            recombined: 0.9,
            cosine: 1.0,
            relations: 1.0,
            map: 1.0,
            labels: 1.0,
            teacher_size: None,
            teacher_pixels: None,
        }
    }
}

/// Number of probes, the first ones, that are held out for evaluation.
pub const HELD_OUT: usize = 512;

impl DistilConfig {
    /// Checks that every value is in its range.
    ///
    /// # Errors
    /// The first value outside its range.
    pub fn validate(&self) -> Result<(), TrainError> {
        let weights = [self.cosine, self.relations, self.map, self.labels];
        let size = self
            .teacher_size
            .is_none_or(|s| s.iter().all(|v| (8..=4096).contains(v)));
        let checks = [
            (self.batch >= 2, "distil.batch must be at least 2"),
            (
                self.first >= self.batch,
                "distil.first must be at least distil.batch",
            ),
            (
                self.probes >= self.first,
                "distil.probes must be at least distil.first",
            ),
            (
                (0.0..=1.0).contains(&self.recombined),
                "distil.recombined must be in 0 to 1",
            ),
            (
                weights.iter().all(|w| (0.0..=100.0).contains(w)),
                "distil.cosine, relations, map and labels must be in 0 to 100",
            ),
            (
                weights[..3].iter().any(|w| *w > 0.0),
                "one of distil.cosine, relations and map must be above 0",
            ),
            (
                size,
                "distil.teacher_size must be [width, height], each in 8 to 4096 pixels",
            ),
        ];
        checks
            .iter()
            .find(|(holds, _)| !holds)
            .map_or(Ok(()), |(_, text)| Err(TrainError::configuration(text)))
    }

    /// Number of probes available for training at a step.
    pub fn available(&self, step: usize) -> usize {
        (self.first + step * self.fresh).min(self.probes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_probes_grow_to_all() {
        let config = DistilConfig {
            probes: 1000,
            first: 200,
            fresh: 10,
            ..DistilConfig::default()
        };
        assert_eq!(
            [0, 5, 80, 10_000].map(|s| config.available(s)),
            [200, 250, 1000, 1000]
        );
    }

    #[test]
    fn contradictory_settings_are_rejected() {
        let message = |c: DistilConfig| c.validate().expect_err("invalid").to_string();
        assert!(
            message(DistilConfig {
                first: 10,
                ..DistilConfig::default()
            })
            .contains("first")
        );
        assert!(
            message(DistilConfig {
                cosine: 0.0,
                relations: 0.0,
                map: 0.0,
                ..DistilConfig::default()
            })
            .contains("above 0")
        );
        assert!(DistilConfig::default().validate().is_ok());
    }
}
