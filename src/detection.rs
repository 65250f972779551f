//! The outputs of the detector and the embedder for a frame.

use ndarray::{Array2, ArrayView1, Axis};

use crate::geometry::BBox;

/// A person detected in a frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Detection {
    /// The person's box, pixels of the source frame.
    pub bbox: BBox,
    /// The detector's confidence, in [0, 1].
    pub confidence: f32,
}

/// Embeddings of some or all of a frame's detections.
#[derive(Debug, Clone, Default)]
pub struct Embeddings {
    /// Embeddings, [n, d], rows of unit length.
    vectors: Array2<f32>,
    /// For each detection, its row in `vectors`, if it has one.
    row_of: Vec<Option<usize>>,
}

impl Embeddings {
    /// No embeddings (tracking by motion only).
    pub fn none() -> Self {
        Embeddings::default()
    }

    /// An embedding for every detection, in the order of the detections. `vectors`: [detections,
    /// d], rows of unit length.
    pub fn all(vectors: Array2<f32>) -> Self {
        let row_of = (0..vectors.nrows()).map(Some).collect();
        Embeddings { vectors, row_of }
    }

    /// Embeddings of the detections with the indices `which`, among `count` detections. `vectors`:
    /// [which.len(), d], rows of unit length.
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

    /// The embeddings of the detections with these indices, in this order.
    pub fn select(&self, kept: &[usize]) -> Self {
        let row = |d: usize| self.row_of.get(d).copied().flatten();
        let rows: Vec<usize> = kept.iter().filter_map(|&d| row(d)).collect();
        let mut new_rows = 0..;
        let row_of = kept.iter().map(|&d| row(d).and_then(|_| new_rows.next()));
        Embeddings {
            vectors: self.vectors.select(Axis(0), &rows),
            row_of: row_of.collect(),
        }
    }

    /// Number of detections with an embedding.
    pub fn len(&self) -> usize {
        self.vectors.nrows()
    }

    /// True when no detection has an embedding.
    pub fn is_empty(&self) -> bool {
        self.vectors.nrows() == 0
    }
}
