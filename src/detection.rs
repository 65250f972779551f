//! What the detector and the embedder say about a frame.

use ndarray::{Array2, ArrayView1};

use crate::geometry::BBox;

/// A person found in a frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Detection {
    /// Where, in pixels of the source frame.
    pub bbox: BBox,
    /// How sure the detector is, in [0, 1].
    pub confidence: f32,
}

/// Embeddings of some of a frame's detections: unit vectors of one length.
#[derive(Debug, Clone, Default)]
pub struct Embeddings {
    /// Unit vectors, [n, d].
    vectors: Array2<f32>,
    /// For each detection the row of `vectors` that is its own, or none.
    row_of: Vec<Option<usize>>,
}

impl Embeddings {
    /// No embedding for any detection (tracking by motion only).
    pub fn none() -> Self {
        Embeddings::default()
    }

    /// One embedding for every detection, in their order; `vectors` is [detections, d], each row of unit length.
    pub fn all(vectors: Array2<f32>) -> Self {
        let row_of = (0..vectors.nrows()).map(Some).collect();
        Embeddings { vectors, row_of }
    }

    /// Embeddings of the detections named in `which` (indices into the frame's detections), `count` detections in all.
    pub fn of(vectors: Array2<f32>, which: &[usize], count: usize) -> Self {
        debug_assert_eq!(vectors.nrows(), which.len());
        let mut row_of = vec![None; count];
        for (row, &detection) in which.iter().enumerate() {
            row_of[detection] = Some(row);
        }
        Embeddings { vectors, row_of }
    }

    /// The embedding of a detection, if it has one.
    pub fn get(&self, detection: usize) -> Option<ArrayView1<'_, f32>> {
        self.row_of
            .get(detection)
            .copied()
            .flatten()
            .map(|row| self.vectors.row(row))
    }

    /// How many detections have an embedding.
    pub fn len(&self) -> usize {
        self.vectors.nrows()
    }

    /// True when no detection has an embedding.
    pub fn is_empty(&self) -> bool {
        self.vectors.nrows() == 0
    }
}
