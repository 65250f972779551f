//! Settings of matching across cameras.

use derive_setters::Setters;
use serde::{Deserialize, Serialize};

use crate::range::{OutOfRange, share, within};

/// Who is who across cameras. Needs a calibrated embedder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Setters)]
#[cfg_attr(feature = "serve", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct MultiCameraConfig {
    /// Seconds, 1 to 10,000,000, for which a person is remembered after the last detection at any
    /// camera. Higher recognises people after longer absences, and costs time and memory.
    pub remember: f64,
    /// Seconds, 0 to 3600, from the end of a track to the decision who it is. Tracks that end in
    /// this time are assigned together, and tracks may arrive late by this much.
    pub delay: f64,
    /// Minimum probability, in [0, 1], that a track is of a known person, by the matcher's model.
    /// Below it, the track is of a new person. Higher joins fewer strangers, and divides more
    /// people.
    pub probability: f32,
    /// Number, 1 to 100, of the latest embeddings of a person that are compared.
    pub views: usize,
    /// Learn at which camera people are seen next, and after how long, and use this. Without it,
    /// appearance decides alone, except that nobody is in two places at once.
    pub topology: bool,
    /// Weight, in [0, 10], of the appearance; 1: as the embedder's calibration states it. Higher
    /// finds more people again and takes more strangers for each other; 0: time decides alone.
    pub appearance: f32,
    /// Seconds, 0 to 3600, by which the clocks of two cameras may differ: at cameras whose views do
    /// not overlap, tracks of one person do not overlap in time by more than this.
    pub clocks: f64,
    /// Seconds, 60 to 1,000,000,000, in which what was learned about the cameras loses half of its
    /// weight. Lower adapts faster after a camera was moved; higher remembers rare ways
    /// longer.
    pub half_life: f64,
    /// Largest number, 1 to 1,000,000, of people remembered. The one who was not seen for longest
    /// is forgotten first. Limits memory and time.
    pub people: usize,
}

impl Default for MultiCameraConfig {
    fn default() -> Self {
        MultiCameraConfig {
            remember: 3600.0,
            delay: 30.0,
            probability: 0.5,
            views: 5,
            topology: true,
            appearance: 1.5,
            clocks: 3.0,
            half_life: 604_800.0,
            people: 20_000,
        }
    }
}

impl MultiCameraConfig {
    /// Checks that every value is in its range.
    ///
    /// # Errors
    /// The first value outside its range.
    pub fn validate(&self) -> Result<(), OutOfRange> {
        within("multi_camera.remember", self.remember, 1.0, 1e7)?;
        within("multi_camera.delay", self.delay, 0.0, 3600.0)?;
        share("multi_camera.probability", self.probability)?;
        within("multi_camera.views", self.views, 1, 100)?;
        within("multi_camera.appearance", self.appearance, 0.0, 10.0)?;
        within("multi_camera.clocks", self.clocks, 0.0, 3600.0)?;
        within("multi_camera.half_life", self.half_life, 60.0, 1e9)?;
        within("multi_camera.people", self.people, 1, 1_000_000)
    }
}
