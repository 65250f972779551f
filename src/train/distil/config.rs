//! Settings of distillation: the section `[distil]` of a training configuration.

use serde::{Deserialize, Serialize};

use crate::infer::PixelFormat;
use crate::train::dataset::TrainError;

/// Settings of distillation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DistilConfig {
    /// How many different pictures the teacher judges. More is better, and the teacher's time is spent on each once.
    pub probes: usize,
    /// How many of them are judged before the first step; the others are judged while training goes on.
    pub first: usize,
    /// Pictures added to those learnt from at every step, until all are there. Where the teacher has not judged them yet,
    /// training waits.
    pub fresh: usize,
    /// Pictures of a batch.
    pub batch: usize,
    /// Share of pictures that are recombined into people who do not exist, in [0, 1]; the others are altered by the camera
    /// only.
    pub recombined: f32,
    /// Weight of the cosine distance between the student's and the teacher's embedding.
    pub cosine: f32,
    /// Weight of the difference between the similarity matrices of a batch (relational distillation, Park et al. 2019).
    pub relations: f32,
    /// Weight of the difference between the last maps, where the teacher has maps; 0 does not compute them.
    pub map: f32,
    /// Weight of the loss on labelled data beside these, where --data is given.
    pub labels: f32,
    /// The teacher's crop size (width, height), where neither its input nor its metadata says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub teacher_size: Option<[usize; 2]>,
    /// The teacher's pixel format, where its metadata does not say it: color (bgr or rgb), mean, std.
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

/// The first probes are never learnt from: the network is judged on them.
pub const HELD_OUT: usize = 512;

impl DistilConfig {
    /// Refuses values outside their ranges.
    ///
    /// # Errors
    /// The first such value.
    pub fn validate(&self) -> Result<(), TrainError> {
        let weights = [self.cosine, self.relations, self.map, self.labels];
        let size = self
            .teacher_size
            .is_none_or(|s| s.iter().all(|v| (8..=4096).contains(v)));
        let ok = [
            (self.batch >= 2, "batch must be at least 2"),
            (self.first >= self.batch, "first must be at least batch"),
            (self.probes >= self.first, "probes must be at least first"),
            (
                (0.0..=1.0).contains(&self.recombined),
                "recombined must be in 0 to 1",
            ),
            (
                weights.iter().all(|w| (0.0..=100.0).contains(w)),
                "cosine, relations, map and labels must be in 0 to 100",
            ),
            (
                weights[..3].iter().any(|w| *w > 0.0),
                "one of cosine, relations and map must be above 0",
            ),
            (
                size,
                "teacher_size must be [width, height], each in 8 to 4096",
            ),
        ];
        ok.iter()
            .find(|(fine, _)| !fine)
            .map_or(Ok(()), |(_, text)| {
                Err(TrainError::Setting(format!("train.distil: {text}")))
            })
    }

    /// How many of the probes that are learnt from may be used at a step.
    pub fn available(&self, step: usize) -> usize {
        (self.first + step * self.fresh).min(self.probes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_learnt_from_grows_to_all_probes() {
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
    fn settings_that_contradict_each_other_are_told() {
        let told = |c: DistilConfig| c.validate().expect_err("refused").to_string();
        assert!(
            told(DistilConfig {
                first: 10,
                ..DistilConfig::default()
            })
            .contains("first")
        );
        assert!(
            told(DistilConfig {
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
