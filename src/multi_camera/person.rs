//! A person whom the matcher knows: where and how the person was seen.

use serde::{Deserialize, Serialize};

use crate::time::Seconds;

/// Maximum number of sightings of a person that are kept, the latest ones.
const MAX_SIGHTINGS: usize = 12;

/// Presence of a person at a camera: one track.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Sighting {
    /// Number of the camera in the topology.
    pub camera: u32,
    /// Time of the first detection.
    pub first: Seconds,
    /// Time of the last detection.
    pub last: Seconds,
}

impl Sighting {
    /// For how long both lasted at the same time; negative if there is a gap.
    pub fn overlap(&self, other: &Sighting) -> Seconds {
        Seconds(self.last.0.min(other.last.0) - self.first.0.max(other.first.0))
    }
}

/// An embedding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct PersonEmbedding {
    /// Number of the embedder.
    pub embedder: u16,
    /// Unit length.
    pub vector: Box<[f32]>,
}

impl PersonEmbedding {
    /// The cosine distance, in [0, 2]; `None` if the embedders differ.
    pub fn distance(&self, other: &PersonEmbedding) -> Option<f32> {
        let comparable = self.embedder == other.embedder && self.vector.len() == other.vector.len();
        comparable.then(|| (1.0 - dot(&self.vector, &other.vector)).clamp(0.0, 2.0))
    }
}

/// The scalar product, in 16 partial sums, so that the compiler uses vector instructions.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
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
    /// The latest sightings, in order of their first detection.
    pub sightings: Vec<Sighting>,
    /// The latest embeddings, the newest last.
    pub embeddings: Vec<PersonEmbedding>,
}

impl Person {
    /// Adds a track.
    pub fn learn(&mut self, sighting: Sighting, embedding: PersonEmbedding, max_embeddings: usize) {
        let place = self
            .sightings
            .partition_point(|s| s.first.0 <= sighting.first.0);
        self.sightings.insert(place, sighting);
        if self.sightings.len() > MAX_SIGHTINGS {
            self.sightings.remove(0);
        }
        if self.embeddings.len() >= max_embeddings {
            self.embeddings.remove(0);
        }
        self.embeddings.push(embedding);
    }

    /// Time of the last detection.
    pub fn last(&self) -> Seconds {
        Seconds(
            self.sightings
                .iter()
                .fold(f64::NEG_INFINITY, |t, s| t.max(s.last.0)),
        )
    }
}
