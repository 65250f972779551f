//! The outputs of a detector for a batch, before they are decoded.

use ndarray::{ArrayView1, ArrayView3, Ix3};

use crate::detection::Detection;
use crate::geometry::BBox;
use crate::infer::Output;

/// The outputs of a batch and the parameters for decoding them.
pub(crate) struct BatchOutputs<'a> {
    /// The outputs of the model.
    pub outputs: &'a [Output],
    /// Number of pictures in the batch.
    pub n: usize,
    /// Width and height of the network's input in pixels.
    pub input: (usize, usize),
    /// Number of the class "person".
    pub class: usize,
    /// Minimum score.
    pub threshold: f32,
}

impl BatchOutputs<'_> {
    /// The detection of a valid box with a sufficient score.
    pub(super) fn keep(&self, bbox: BBox, confidence: f32) -> Option<Detection> {
        let kept = confidence >= self.threshold && bbox.is_valid();
        kept.then_some(Detection {
            bbox,
            confidence: confidence.min(1.0),
        })
    }

    /// Converts a box relative to the picture's size: centre, width, height.
    pub(super) fn share(&self, b: ArrayView1<'_, f32>) -> BBox {
        let (w, h) = (self.input.0 as f32, self.input.1 as f32);
        BBox::from_center(b[0] * w, b[1] * h, b[2] * w, b[3] * h)
    }

    /// Names and shapes of the outputs, for messages.
    pub(super) fn shapes(&self) -> String {
        let one = |o: &Output| format!("{} {:?}", o.name, o.values.shape());
        self.outputs.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    /// The outputs with three axes, the first of which is the batch axis.
    pub(super) fn tables(&self) -> impl Iterator<Item = ArrayView3<'_, f32>> {
        let views = self
            .outputs
            .iter()
            .filter_map(|o| o.values.view().into_dimensionality::<Ix3>().ok());
        views.filter(|v| v.dim().0 == self.n)
    }
}
