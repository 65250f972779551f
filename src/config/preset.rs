//! Presets: how much work a run spends on accuracy.

use serde::{Deserialize, Serialize};

use crate::detect::Precision;
use crate::embed::Crops;
use crate::time::Seconds;

/// A choice between speed and accuracy. It decides those settings that are `auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "serve", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Preset {
    /// More than twice as fast as `balanced`; positions between detections are less precise.
    Fast,
    /// As accurate as possible without work that hardly changes the result.
    #[default]
    Balanced,
    /// Everything is computed in every frame, and the detector's input is larger.
    Accurate,
}

impl Preset {
    /// Longest time between two frames that the detector processes; zero: it processes every frame.
    /// In the frames between, boxes are interpolated (recordings) or predicted from motion (live
    /// inputs), which is less precise.
    pub fn max_interval(self, live: bool) -> Seconds {
        match (self, live) {
            (Preset::Fast, false) => Seconds(0.4),
            (Preset::Fast, true) | (Preset::Balanced, false) => Seconds(0.2),
            (Preset::Balanced, true) | (Preset::Accurate, _) => Seconds::ZERO,
        }
    }

    /// IoU of predictions and detections that is good enough to skip frames.
    pub(super) fn overlap(self) -> f32 {
        match self {
            Preset::Fast => 0.4,
            Preset::Balanced | Preset::Accurate => 0.6,
        }
    }

    /// Longest side of the detector's input in pixels.
    pub(super) fn longest_side(self) -> usize {
        match self {
            Preset::Fast => 640,
            Preset::Balanced => 768,
            Preset::Accurate => 1088,
        }
    }

    /// Number format of the shipped detector.
    pub(super) fn precision(self) -> Precision {
        match self {
            Preset::Fast | Preset::Balanced => Precision::Auto,
            Preset::Accurate => Precision::Fp32,
        }
    }

    /// The crops that are embedded on a CPU.
    pub(super) fn crops(self) -> Crops {
        match self {
            Preset::Fast | Preset::Balanced => Crops::Needed,
            Preset::Accurate => Crops::All,
        }
    }
}

impl std::str::FromStr for Preset {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "fast" => Ok(Preset::Fast),
            "balanced" => Ok(Preset::Balanced),
            "accurate" => Ok(Preset::Accurate),
            _ => Err(format!("'{s}' is not fast, balanced or accurate")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_preset_decides_settings_that_are_auto_and_no_others() {
        let of = |text: &str| toml::from_str::<Config>(text).expect("valid");
        let balanced = of("");
        assert_eq!(balanced.detector().longest_side, Some(768));
        assert_eq!(balanced.crops(false), Crops::Needed);
        assert!(balanced.cadence(false, false).is_some(), "recordings");
        assert_eq!(balanced.cadence(true, false), None, "live inputs");
        let accurate = of("preset = \"accurate\"");
        assert_eq!(accurate.detector().longest_side, Some(1088));
        assert_eq!(accurate.detector().precision, Precision::Fp32);
        assert_eq!(accurate.crops(false), Crops::All);
        assert_eq!(accurate.cadence(false, false), None);
        let fast = of("preset = \"fast\"");
        let (recording, live) = (fast.cadence(false, false), fast.cadence(true, false));
        assert_eq!(recording.map(|c| c.max_interval), Some(Seconds(0.4)));
        assert_eq!(live.map(|c| c.max_interval), Some(Seconds(0.2)));
        let own = of(
            "preset = \"fast\"\n[detector]\nlongest_side = 416\nprecision = \"int8\"\n\
                      [embedder]\ncrops = \"all\"\n[cadence]\nmax_interval = 1\noverlap = 0.9",
        );
        assert_eq!(own.detector().longest_side, Some(416));
        assert_eq!(own.detector().precision, Precision::Int8);
        assert_eq!(own.crops(false), Crops::All);
        let cadence = own.cadence(true, true).expect("set, on a GPU too");
        assert_eq!(cadence.max_interval, Seconds(1.0));
        assert_eq!(cadence.overlap, 0.9);
    }

    /// Somebody who appears in a skipped frame could not be hidden.
    #[test]
    fn no_frame_is_skipped_while_pictures_are_blurred_unless_asked_for() {
        let of = |text: &str| toml::from_str::<Config>(text).expect("valid");
        for blur in ["faces", "people"] {
            let text = format!("preset = \"fast\"\n[privacy]\nblur = \"{blur}\"\n");
            assert_eq!(of(&text).cadence(false, false), None);
            assert_eq!(of(&text).cadence(true, false), None);
            let asked = of(&format!("{text}[cadence]\nmax_interval = 0.5"));
            let interval = asked.cadence(true, false).map(|c| c.max_interval);
            assert_eq!(interval, Some(Seconds(0.5)));
        }
    }

    #[test]
    fn on_a_gpu_every_frame_is_detected_and_every_crop_embedded() {
        let fast = Config::default().with_preset(Preset::Fast);
        assert_eq!(fast.cadence(false, true), None);
        assert_eq!(fast.crops(true), Crops::All);
    }

    #[test]
    fn names_are_parsed() {
        assert_eq!("fast".parse(), Ok(Preset::Fast));
        assert!(
            "quick"
                .parse::<Preset>()
                .is_err_and(|e| e.contains("balanced"))
        );
    }
}
