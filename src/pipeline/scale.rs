//! The stage before the detector: the camera's own motion, the motion gate, and the detector's
//! input.

use std::collections::BTreeMap;
use std::sync::Arc;

use ndarray::{Array4, Axis, s};

use crate::detect::detector::Scaling;
use crate::frame::Frame;
use crate::pipeline::batch::{Batch, Item, Scaled};
use crate::pipeline::batcher::Lane;
use crate::pipeline::camera_motion::CameraMotion;
use crate::pipeline::error::PipelineError;
use crate::pipeline::motion_gate::MotionGate;
use crate::pipeline::quarantine::{LeftOut, Quarantine};
use crate::pipeline::stage::caught;

/// The stage's state: what it remembers of each camera's last picture.
pub(super) struct Scaler {
    quarantine: Arc<Quarantine>,
    /// Whether camera motion is estimated from the pixels.
    estimate_motion: bool,
    motions: BTreeMap<Lane, CameraMotion>,
    gates: BTreeMap<Lane, MotionGate>,
    /// Absent without a detector.
    scaling: Option<Scaling>,
}

impl Scaler {
    pub fn new(
        scaling: Option<Scaling>,
        estimate_motion: bool,
        quarantine: Arc<Quarantine>,
    ) -> Self {
        Scaler {
            quarantine,
            estimate_motion,
            motions: BTreeMap::new(),
            gates: BTreeMap::new(),
            scaling,
        }
    }

    /// Prepares a batch for the detector. A frame that cannot be prepared is dropped.
    pub fn prepare(&mut self, batch: &mut Batch) {
        for lane in &batch.ended {
            self.motions.remove(lane);
            self.gates.remove(lane);
        }
        for item in &mut batch.items {
            if self.quarantine.holds(item.lane, item.frame.pts) {
                item.left_out = Some(LeftOut::Quarantined);
            } else if let Err(e) = caught("scale", || self.observe(item)) {
                item.left_out = Some(LeftOut::Failed(e));
            }
        }
        if let Some(scaling) = &self.scaling {
            batch.input = input(scaling, batch);
        }
    }

    /// Estimates what the camera did since the frame before, and whether anything moves.
    fn observe(&mut self, item: &mut Item) -> Result<(), PipelineError> {
        item.still =
            item.gated && stands_still(self.gates.entry(item.lane).or_default(), &item.frame);
        if !item.still {
            item.motion = self
                .motions
                .entry(item.lane)
                .or_insert_with(|| CameraMotion::new(self.estimate_motion))
                .next(&item.frame);
        }
        Ok(())
    }
}

/// The active frames as one input tensor; they share one input size. `None` if there is none.
fn input(scaling: &Scaling, batch: &mut Batch) -> Option<Scaled> {
    let active = batch.active().count();
    let first = batch.active().next()?;
    let (w, h) = scaling.letterbox(first.frame.shape()).input;
    let mut input = Array4::zeros((active, 3, h, w));
    let mut places = Vec::new();
    for item in batch.active() {
        let out = input.index_axis_mut(Axis(0), places.len());
        let written = caught("scale", || {
            let image = pixels(&item.frame)?;
            let letterbox = scaling.letterbox(image.shape());
            scaling.write(image, &letterbox, out);
            Ok((letterbox, (image.width, image.height)))
        });
        match written {
            Ok(place) => places.push(place),
            Err(e) => item.left_out = Some(LeftOut::Failed(e)),
        }
    }
    let input = input.slice_move(s![..places.len(), .., .., ..]);
    (!places.is_empty()).then_some(Scaled { input, places })
}

/// The frame's pixels.
///
/// # Errors
/// [`PipelineError::NoPixels`].
pub(super) fn pixels(frame: &Frame) -> Result<&crate::frame::Image, PipelineError> {
    frame.image.as_ref().ok_or_else(|| PipelineError::NoPixels {
        camera: frame.camera.clone(),
        frame: frame.number,
    })
}

/// Whether nothing has moved since the last frame that the networks processed.
fn stands_still(gate: &mut MotionGate, frame: &Frame) -> bool {
    if frame.restart {
        *gate = MotionGate::default();
    }
    frame
        .image
        .as_ref()
        .is_some_and(|image| !gate.opens(image, frame.pts))
}
