//! The settings of the tracker, put together from its parts.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::range::{OutOfRange, share, within};
use crate::track::appearance::AppearanceConfig;
use crate::track::camera_motion::CameraMotionConfig;
use crate::track::cost::CostConfig;
use crate::track::head::Head;
use crate::track::motion::MotionConfig;
use crate::track::reidentify::ReidentifyConfig;
use crate::track::scenery::SceneryConfig;

/// Everything that decides identities. Times are in seconds, so any frame rate works with one setting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrackerConfig {
    /// Detections from this confidence on are sure: matched first, and able to start a track. In [0, 1].
    pub sure: f32,
    /// Detections below this confidence are ignored; those between it and `sure` only continue tracks. In [0, 1].
    pub unsure: f32,
    /// A new track needs a detection at least this confident. Higher starts fewer false tracks, later.
    pub birth: f32,
    /// Detections a track needs before it is believed and shown. Higher shows fewer false tracks, later.
    pub confirm_hits: u32,
    /// A track not yet believed is dropped when unseen for this long, seconds.
    pub keep_tentative: f64,
    /// A believed track is kept, unseen, for this long, seconds. Higher bridges longer occlusions, but may give an old
    /// identity to a newcomer.
    pub keep_lost: f64,
    /// A detection that overlaps a track seen in this frame by more than this IoU starts no new track, in (0, 1].
    pub duplicate: f32,
    /// Motion of people.
    pub motion: MotionConfig,
    /// The association cost.
    pub cost: CostConfig,
    /// Memory of appearance.
    pub appearance: AppearanceConfig,
    /// Motion of the camera.
    pub camera_motion: CameraMotionConfig,
    /// People who come back.
    pub reidentify: ReidentifyConfig,
    /// What looks like a person and is none.
    pub scenery: SceneryConfig,
    /// A learned association head (JSON) that replaces the weights of `tracker.cost`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head_file: Option<PathBuf>,
    /// With a head: a pair less likely than this is never made, in [0, 1). Among those left the likeliest are made. Higher
    /// starts new tracks rather than to continue a doubtful one.
    pub head_limit: f32,
    /// The head read from that file.
    #[serde(skip)]
    pub head: Option<Arc<Head>>,
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
    /// Refuses values outside their ranges.
    ///
    /// # Errors
    /// The first such value.
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
