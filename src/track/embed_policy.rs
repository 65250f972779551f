//! Which detections are embedded.

use derive_setters::Setters;
use serde::{Deserialize, Serialize};

use crate::range::{OutOfRange, within};

/// When a detection's embedding cannot matter, so that it is left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Setters)]
#[cfg_attr(feature = "serve", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct EmbedPolicy {
    /// Highest cost of position and size at which a detection can be certain to belong to a track.
    /// Higher embeds less.
    pub certain: f32,
    /// All other pairs of this track or this detection must cost at least this much more. Higher
    /// embeds more.
    pub margin: f32,
    /// A new track is embedded in every frame for this long, seconds.
    pub settle: f64,
    /// A track is embedded again when its last clear view is this old, seconds. Higher embeds less,
    /// but knows the person's present appearance less well.
    pub refresh: f64,
}

impl Default for EmbedPolicy {
    fn default() -> Self {
        EmbedPolicy {
            certain: 0.7,
            margin: 0.5,
            settle: 1.0,
            refresh: 3.0,
        }
    }
}

impl EmbedPolicy {
    /// Checks that every value is in its range.
    ///
    /// # Errors
    /// The first value outside its range.
    pub fn validate(&self) -> Result<(), OutOfRange> {
        within("embedder.needed.certain", self.certain, 0.0, 10.0)?;
        within("embedder.needed.margin", self.margin, 0.0, 10.0)?;
        within("embedder.needed.settle", self.settle, 0.0, 3600.0)?;
        within("embedder.needed.refresh", self.refresh, 0.0, 3600.0)
    }
}
