//! A person whom the matcher knows: where and how the person was seen.

use serde::{Deserialize, Serialize};

use crate::time::Seconds;

/// Stays that are kept of a person, the latest ones.
const MAX_STAYS: usize = 12;

/// Presence of a person at a camera: one track.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Stay {
    /// Number of the camera in the topology.
    pub camera: u32,
    /// Time of the first detection.
    pub first: Seconds,
    /// Time of the last detection.
    pub last: Seconds,
}

impl Stay {
    /// For how long both lasted at the same time; negative if there is a gap.
    pub fn overlap(&self, other: &Stay) -> Seconds {
        Seconds(self.last.0.min(other.last.0) - self.first.0.max(other.first.0))
    }
}

/// An embedding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Look {
    /// Number of the embedder.
    pub embedder: u16,
    /// Unit length.
    pub embedding: Box<[f32]>,
}

impl Look {
    /// The cosine distance, in [0, 2]; `None` if the embedders differ.
    pub fn distance(&self, other: &Look) -> Option<f32> {
        let comparable =
            self.embedder == other.embedder && self.embedding.len() == other.embedding.len();
        comparable.then(|| (1.0 - dot(&self.embedding, &other.embedding)).clamp(0.0, 2.0))
    }
}

/// The scalar product, in 16 partial sums, which the compiler makes vector instructions of.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 16;
    let (mut sums, whole) = ([0.0f32; LANES], a.len() / LANES * LANES);
    for (x, y) in a.chunks_exact(LANES).zip(b.chunks_exact(LANES)) {
        for k in 0..LANES {
            sums[k] += x[k] * y[k];
        }
    }
    let rest: f32 = a[whole..].iter().zip(&b[whole..]).map(|(x, y)| x * y).sum();
    sums.iter().sum::<f32>() + rest
}

/// A person.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Person {
    /// The latest stays, in order of their first detection.
    pub stays: Vec<Stay>,
    /// The latest embeddings, the newest last.
    pub looks: Vec<Look>,
}

impl Person {
    /// Adds a track.
    pub fn learn(&mut self, stay: Stay, look: Look, max_looks: usize) {
        let place = self.stays.partition_point(|s| s.first.0 <= stay.first.0);
        self.stays.insert(place, stay);
        if self.stays.len() > MAX_STAYS {
            self.stays.remove(0);
        }
        if self.looks.len() >= max_looks {
            self.looks.remove(0);
        }
        self.looks.push(look);
    }

    /// Time of the last detection.
    pub fn last(&self) -> Seconds {
        Seconds(self.stays.iter().fold(f64::NEG_INFINITY, |t, s| t.max(s.last.0)))
    }
}
