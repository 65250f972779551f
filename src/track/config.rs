//! The tracker's settings, composed of its parts' settings.

use std::path::PathBuf;
use std::sync::Arc;

use derive_setters::Setters;
use serde::{Deserialize, Serialize};

use crate::range::{OutOfRange, share, within};
use crate::track::appearance::AppearanceConfig;
use crate::track::camera_motion::CameraMotionConfig;
use crate::track::cost::CostConfig;
use crate::track::head::AssociationHead;
use crate::track::motion::MotionConfig;
use crate::track::reidentify::ReidentifyConfig;
use crate::track::scenery::SceneryConfig;

/// Settings of the tracker, which assigns the ids. Times are in seconds, so that they hold for any
/// frame rate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Setters)]
#[cfg_attr(feature = "serve", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct TrackerConfig {
    /// Detections with at least this confidence (a value from `unsure` to 1) are matched first.
    pub sure: f32,
    /// Detections below this confidence, in [0, 1], are ignored; those with at least this
    /// confidence and below `sure` can only continue a track.
    pub unsure: f32,
    /// A new track needs a detection with at least this confidence (a value from `sure` to 1).
    /// Higher starts fewer false tracks, but starts every track later.
    pub birth: f32,
    /// Number of detections, 1 to 100, after which a track is confirmed and reported. Higher
    /// reports fewer false tracks, but reports every track later.
    pub confirm_hits: u32,
    /// A tentative track ends when it was not detected for this many seconds.
    pub keep_tentative: f64,
    /// A confirmed track that was not detected for this many seconds is not continued by position
    /// any more. It ends then, or after `reidentify.within` if re-identification is possible and
    /// that is longer. Higher bridges longer occlusions, but may give the id of an old track to a
    /// new person.
    pub keep_lost: f64,
    /// A detection starts no track if its IoU with a track detected in the same frame exceeds this
    /// value, in [0, 1].
    pub duplicate: f32,
    /// Motion model of people.
    pub motion: MotionConfig,
    /// The association cost.
    pub cost: CostConfig,
    /// Appearance model.
    pub appearance: AppearanceConfig,
    /// Camera motion.
    pub camera_motion: CameraMotionConfig,
    /// Re-identification of people who come back.
    pub reidentify: ReidentifyConfig,
    /// Fixed objects that the detector takes for people.
    pub scenery: SceneryConfig,
    /// A learned association head (JSON), which replaces the weights of `tracker.cost`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head_file: Option<PathBuf>,
    /// With an association head: probability, in [0, 0.99], that a track and a detection are the
    /// same person; pairs with this probability or a lower one are not matched. Higher starts a new
    /// track rather than continuing a doubtful one.
    pub head_limit: f32,
    /// The association head read from `head_file`.
    #[serde(skip)]
    pub head: Option<Arc<AssociationHead>>,
}

impl Default for TrackerConfig {
    fn default() -> Self {
        TrackerConfig {
            sure: 0.5,
            unsure: 0.25,
            birth: 0.64,
            confirm_hits: 2,
            keep_tentative: 0.25,
            keep_lost: 2.9,
            duplicate: 0.7,
            motion: MotionConfig::default(),
            cost: CostConfig::default(),
            appearance: AppearanceConfig::default(),
            camera_motion: CameraMotionConfig::default(),
            reidentify: ReidentifyConfig::default(),
            scenery: SceneryConfig::default(),
            head_file: None,
            head_limit: 0.05,
            head: None,
        }
    }
}

impl TrackerConfig {
    /// Checks that every value is in its range.
    ///
    /// # Errors
    /// The first value outside its range.
    pub fn validate(&self) -> Result<(), OutOfRange> {
        share("tracker.unsure", self.unsure)?;
        within("tracker.sure", self.sure, self.unsure, 1.0)?;
        within("tracker.birth", self.birth, self.sure, 1.0)?;
        within("tracker.confirm_hits", self.confirm_hits, 1, 100)?;
        within("tracker.keep_tentative", self.keep_tentative, 0.0, 60.0)?;
        within("tracker.keep_lost", self.keep_lost, 0.0, 3600.0)?;
        share("tracker.duplicate", self.duplicate)?;
        within("tracker.head_limit", self.head_limit, 0.0, 0.99)?;
        self.motion.validate()?;
        self.cost.validate()?;
        self.appearance.validate()?;
        self.reidentify.validate()?;
        self.scenery.validate()?;
        within(
            "tracker.camera_motion.min_people",
            self.camera_motion.min_people,
            2,
            1000,
        )
    }
}
