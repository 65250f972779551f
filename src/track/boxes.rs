//! Types of boxes in offline linking: detections of a tracklet, and boxes of a linked trajectory.

use crate::geometry::BBox;

/// A detection assigned to a tracklet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DetectedBox {
    /// Index of the frame in the list of all frames.
    pub frame: usize,
    /// The box in pixels.
    pub bbox: BBox,
    /// Confidence, in [0, 1].
    pub confidence: f32,
}

/// The box of a linked trajectory in a frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrajectoryBox {
    /// Index of the frame in the list of all frames.
    pub frame: usize,
    /// The box in pixels.
    pub bbox: BBox,
    /// Confidence of the detection; in a gap, the lower confidence of the detections before and
    /// after the gap.
    pub confidence: f32,
    /// Whether the box was detected; false if it was interpolated in a gap.
    pub seen: bool,
}
