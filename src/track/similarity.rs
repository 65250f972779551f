//! From a distance between embeddings to a similarity that means something: near 1 the same person, near 0 two people,
//! 0.5 where false accepts and false rejects are equally many. Its two numbers are fitted on held-out pairs by
//! `twintrack-train` and stored in the ONNX file, for distances mean different things to different networks.

use serde::{Deserialize, Serialize};

use crate::range::{OutOfRange, within};

/// similarity = 1 / (1 + exp(slope * (distance - threshold))), on cosine distances.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// How fast similarity falls with distance, above zero.
    pub slope: f32,
    /// The distance at which it is 0.5.
    pub threshold: f32,
}

impl Calibration {
    /// The entry of the metadata that holds the two numbers.
    pub const KEY: &'static str = "calibration";

    /// Refuses numbers that no network can have; `key` is the setting's name.
    ///
    /// # Errors
    /// The first such number.
    pub fn validate(&self, key: &str) -> Result<(), OutOfRange> {
        within(&format!("{key}.slope"), self.slope, 0.01, 1000.0)?;
        within(&format!("{key}.threshold"), self.threshold, 0.0, 2.0)
    }

    /// The text for the metadata.
    pub fn entry(&self) -> String {
        format!("{},{}", self.slope, self.threshold)
    }

    /// Similarity in [0, 1] at a cosine distance.
    pub fn similarity(&self, distance: f32) -> f32 {
        1.0 / (1.0 + (self.slope * (distance - self.threshold)).exp())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similarity_falls_from_one_to_zero_through_a_half_at_the_threshold() {
        let c = Calibration { slope: 20.0, threshold: 0.3 };
        assert_eq!(c.similarity(0.3), 0.5);
        assert!(c.similarity(0.0) > 0.99 && c.similarity(0.6) < 0.01);
        assert!(c.similarity(0.0) <= 1.0 && c.similarity(2.0) >= 0.0);
    }
}
