//! Boxes in offline linking: detected ones, and those of a trajectory whose gaps are filled.

use crate::geometry::BBox;

/// A detection assigned to a tracklet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DetectedBox {
    /// Index of the frame in the list of all frames.
    pub frame: usize,
    /// The box, pixels.
    pub bbox: BBox,
    /// Confidence, in [0, 1].
    pub confidence: f32,
}

/// The box of a linked trajectory in a frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrajectoryBox {
    /// Index of the frame in the list of all frames.
    pub frame: usize,
    /// The box, pixels.
    pub bbox: BBox,
    /// Confidence of the detection; in a gap the lower one of the two around it.
    pub confidence: f32,
    /// False where the box was filled in.
    pub seen: bool,
}
