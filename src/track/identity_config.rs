//! Settings of identities beyond one track.

use derive_setters::Setters;
use serde::{Deserialize, Serialize};

use crate::range::{OutOfRange, share, within};

/// Identities beyond one track. Needs a calibrated embedder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Setters)]
#[cfg_attr(feature = "serve", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct IdentityConfig {
    /// Seconds for which a person is remembered after the last detection; 0 disables remembering.
    /// Recognition follows the rules of `tracker.reidentify`.
    pub remember: f64,
    /// Minimum similarity, in [0, 1], at which a track gets the name of a person of the gallery; at
    /// 0.5 false accepts and false rejects are equally frequent. Lower names more people, with more
    /// mistakes.
    pub similarity: f32,
    /// Number of detections, 1 to 100000, that a track needs before it gets an identity, so that its
    /// appearance is reliable.
    pub after_hits: u32,
    /// Number, 1 to 100, of a track's clearest crops whose embeddings are averaged and compared
    /// with the gallery.
    pub crops: usize,
    /// The fields of view of the cameras of `serve` overlap, so that several cameras can see a person
    /// at once. Otherwise a person is at one camera at a time.
    pub overlap: bool,
}

impl Default for IdentityConfig {
    fn default() -> Self {
        IdentityConfig {
            remember: 0.0,
            similarity: 0.7,
            after_hits: 5,
            crops: 5,
            overlap: false,
        }
    }
}

impl IdentityConfig {
    /// Checks that every value is in its range.
    ///
    /// # Errors
    /// The first value outside its range.
    pub fn validate(&self) -> Result<(), OutOfRange> {
        within("identity.remember", self.remember, 0.0, 1e7)?;
        share("identity.similarity", self.similarity)?;
        within("identity.after_hits", self.after_hits, 1, 100_000)?;
        within("identity.crops", self.crops, 1, 100)
    }
}
