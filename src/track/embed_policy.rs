//! Selection of the detections that are embedded.

use derive_setters::Setters;
use serde::{Deserialize, Serialize};

use crate::range::{OutOfRange, within};

/// Conditions under which a detection is not embedded, because its embedding cannot change the
/// association.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Setters)]
#[cfg_attr(feature = "serve", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct EmbedPolicy {
    /// A detection is not embedded if its pair with a confirmed track costs at most this without
    /// appearance, and the conditions of `margin`, `settle` and `refresh` hold. Higher embeds less.
    pub certain: f32,
    /// How much more than that pair (`certain`) every other pair with the same detection or the
    /// same track must cost. Higher embeds more.
    pub margin: f32,
    /// Seconds for which a new track is embedded in every frame.
    pub settle: f64,
    /// A track is embedded again when its last clear view is this many seconds old. Higher embeds
    /// less, but the stored appearance is older.
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
