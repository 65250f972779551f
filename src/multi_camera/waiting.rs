//! Tracks that wait for their decision, and the state of deciding them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::multi_camera::camera_track::Decision;
use crate::multi_camera::person::{PersonEmbedding, Sighting};
use crate::multi_camera::score::UsedLink;

/// A track that waits for its decision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Waiting {
    pub key: u64,
    pub sighting: Sighting,
    pub embedding: PersonEmbedding,
    /// People of whom the track may be, by number, and the logarithm of appearance's likelihood
    /// ratio.
    pub people: Vec<(u64, f32)>,
    /// Waiting tracks that this one may follow, by key, and the same logarithm.
    pub tracks: Vec<(u64, f32)>,
}

/// What a waiting track follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Previous {
    Person(u64),
    Track(u64),
}

/// A way for a track to follow something: its score, and the link of the topology that it uses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Follow {
    pub previous: Previous,
    pub score: f32,
    pub link: UsedLink,
}

/// The state of one assignment.
pub(super) struct Round {
    /// Row of each waiting track, by key.
    pub rows: BTreeMap<u64, usize>,
    pub follows: Vec<Vec<Follow>>,
    /// Index in the row's list of what it follows; `None`: somebody new.
    pub chosen: Vec<Option<usize>>,
    /// The people of the tracks decided.
    pub person_of: BTreeMap<u64, u64>,
    pub decisions: Vec<Decision>,
}
