//! Cadence: the interval between two frames that the detector processes. While predictions agree
//! with detections, the motion model is accurate enough for the frames between.

use derive_setters::Setters;
use serde::{Deserialize, Serialize};

use crate::auto_or;
use crate::range::{OutOfRange, share, within};
use crate::time::Seconds;

/// Settings by which the interval between frames for the detector grows and shrinks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Setters)]
#[cfg_attr(feature = "serve", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct CadenceConfig {
    /// Longest time in seconds between two frames that the detector processes; 0: every frame;
    /// auto: 0 on a GPU, else as `preset` says. In the frames between, boxes are interpolated
    /// (recordings) or predicted from motion (live sources).
    #[serde(with = "auto_or")]
    #[cfg_attr(feature = "serve", schemars(with = "auto_or::AutoOr<f64>"))]
    pub max_interval: Option<f64>,
    /// Minimum IoU, in [0, 1], of predictions and detections at which the predictions are good
    /// enough; auto: as `preset` says. The interval grows if the overlap is at least 0.15 higher
    /// than this, and is halved if the overlap is lower than this. Higher detects more often.
    #[serde(with = "auto_or")]
    #[cfg_attr(feature = "serve", schemars(with = "auto_or::AutoOr<f32>"))]
    pub overlap: Option<f32>,
    /// Share, in [0, 1], of the tracks whose overlap may be lower than `overlap`. Lower detects
    /// more often. A track that is not detected has an overlap of 0.
    pub exceptions: f32,
    /// Seconds by which the interval grows after each frame with good predictions.
    pub growth: f64,
}

impl Default for CadenceConfig {
    fn default() -> Self {
        CadenceConfig {
            max_interval: None,
            overlap: None,
            exceptions: 0.2,
            growth: 0.05,
        }
    }
}

impl CadenceConfig {
    /// Checks that every value is in its range.
    ///
    /// # Errors
    /// The first value outside its range.
    pub fn validate(&self) -> Result<(), OutOfRange> {
        let interval = self.max_interval.unwrap_or_default();
        within("cadence.max_interval", interval, 0.0, 2.0)?;
        share("cadence.overlap", self.overlap.unwrap_or_default())?;
        share("cadence.exceptions", self.exceptions)?;
        within("cadence.growth", self.growth, 0.001, 10.0)
    }
}

/// Agreement of the predictions of a frame's tracks with the frame's detections.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Agreement {
    /// The IoU that all tracks reach, except the share `exceptions` of them; 1 without tracks.
    pub overlap: f32,
    /// Whether a person may have appeared: a track is not confirmed yet.
    pub newcomer: bool,
    /// Whether the camera moves.
    pub camera_moves: bool,
}

/// The interval grows if the overlap is at least [`CadenceLimits::overlap`] plus this.
const MARGIN: f32 = 0.15;
/// Shorter intervals count as none: the detector processes every frame.
const SHORTEST: f64 = 0.02;

/// Limits of an interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CadenceLimits {
    /// Longest interval; 0: the detector processes every frame.
    pub max_interval: Seconds,
    /// Minimum IoU at which predictions are good enough.
    pub overlap: f32,
}

/// The interval of one camera.
#[derive(Debug, Clone, Default)]
pub struct Cadence {
    interval: f64,
}

impl Cadence {
    /// Adapts the interval to a frame that the detector has processed, and returns it.
    pub fn observe(
        &mut self,
        a: Agreement,
        config: &CadenceConfig,
        limits: CadenceLimits,
    ) -> Seconds {
        if a.camera_moves {
            self.interval = 0.0;
        } else if a.overlap < limits.overlap || a.newcomer {
            self.interval /= 2.0;
        } else if a.overlap >= limits.overlap + MARGIN {
            self.interval += config.growth;
        }
        if self.interval < SHORTEST {
            self.interval = 0.0;
        }
        self.interval = self.interval.min(limits.max_interval.0);
        Seconds(self.interval)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: CadenceLimits = CadenceLimits {
        max_interval: Seconds(0.12),
        overlap: 0.6,
    };

    fn agreement(overlap: f32) -> Agreement {
        Agreement {
            overlap,
            newcomer: false,
            camera_moves: false,
        }
    }

    #[test]
    fn the_interval_grows_to_its_limit_with_good_predictions_and_is_halved_by_poor_ones() {
        let (config, mut cadence) = (CadenceConfig::default(), Cadence::default());
        let mut after = |a| cadence.observe(a, &config, LIMITS).0;
        let good: Vec<f64> = (0..3).map(|_| after(agreement(0.8))).collect();
        assert_eq!(good, [0.05, 0.1, 0.12]);
        assert_eq!(after(agreement(0.65)), 0.12, "good enough");
        assert_eq!(after(agreement(0.5)), 0.06);
        assert_eq!(after(agreement(0.5)), 0.03);
        assert_eq!(after(agreement(0.5)), 0.0, "shorter than any frame");
    }

    #[test]
    fn a_newcomer_halves_the_interval_and_a_moving_camera_ends_it() {
        let (config, mut cadence) = (CadenceConfig::default(), Cadence::default());
        for _ in 0..3 {
            cadence.observe(agreement(1.0), &config, LIMITS);
        }
        let newcomer = Agreement {
            newcomer: true,
            ..agreement(1.0)
        };
        assert_eq!(cadence.observe(newcomer, &config, LIMITS).0, 0.06);
        let moves = Agreement {
            camera_moves: true,
            ..agreement(1.0)
        };
        assert_eq!(cadence.observe(moves, &config, LIMITS).0, 0.0);
    }
}
