//! Selection of the crops that are embedded.

use serde::{Deserialize, Serialize};

/// The crops of a frame that are embedded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "serve", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Crops {
    /// The crops of all detections.
    All,
    /// The crops whose embeddings can change the association ([`crate::track::embed_policy`]).
    Needed,
}
