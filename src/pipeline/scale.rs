//! The stage before the detector: the camera's own motion, the motion gate, and the detector's
//! input.

use std::collections::BTreeMap;
use std::sync::Arc;

use ndarray::{Array4, Axis, s};

use crate::detect::detector::Scaling;
use crate::frame::{Frame, Image};
use crate::infer::FrameLoader;
use crate::pipeline::batch::{Batch, DetectorInput, Item, Scaled};
use crate::pipeline::batcher::Lane;
use crate::pipeline::cadences::Cadences;
use crate::pipeline::camera_motion::CameraMotion;
use crate::pipeline::error::PipelineError;
use crate::pipeline::motion_gate::MotionGate;
use crate::pipeline::quarantine::{LeftOut, Quarantine};
use crate::pipeline::stage::caught;

/// The stage's state, with data kept of each camera's last picture.
pub(super) struct Scaler {
    quarantine: Arc<Quarantine>,
    cadences: Cadences,
    /// Whether camera motion is estimated from the pixels.
    estimate_motion: bool,
    cameras: BTreeMap<Lane, Observed>,
    /// Absent without a detector.
    input: Option<FrameInput>,
}

/// The preparation of the detector's input from frames.
pub(super) struct FrameInput {
    pub scaling: Scaling,
    /// Prepares the input on the detector's device; absent if the CPU prepares the input.
    pub loader: Option<FrameLoader>,
}

impl Scaler {
    pub fn new(
        input: Option<FrameInput>,
        estimate_motion: bool,
        quarantine: Arc<Quarantine>,
        cadences: Cadences,
    ) -> Self {
        Scaler {
            quarantine,
            cadences,
            estimate_motion,
            cameras: BTreeMap::new(),
            input,
        }
    }

    /// Prepares a batch for the detector. A frame that cannot be prepared is dropped.
    pub fn prepare(&mut self, batch: &mut Batch) {
        for (lane, _) in &batch.ended {
            self.cameras.remove(lane);
        }
        for item in &mut batch.items {
            if self.quarantine.holds(item.lane, item.frame.pts) {
                item.left_out = Some(LeftOut::Quarantined);
            } else {
                let decision = self.cadences.skips(item.lane, &item.frame, item.live);
                (item.skipped, item.number) = decision;
            }
        }
        self.observe(&mut batch.items);
        if let Some(input) = &mut self.input {
            batch.input = input.of(batch);
        }
    }

    /// Estimates for each frame its camera's motion since the frame before, and whether anything in
    /// the picture moves. Cameras are independent, so each has a thread of its own.
    fn observe(&mut self, items: &mut [Item]) {
        let mut by_camera: BTreeMap<Lane, Vec<&mut Item>> = BTreeMap::new();
        for item in items.iter_mut().filter(|i| i.left_out.is_none()) {
            by_camera.entry(item.lane).or_default().push(item);
        }
        let mut work: Vec<(Lane, Observed, Vec<&mut Item>)> = by_camera
            .into_iter()
            .map(|(lane, items)| {
                let camera = self.cameras.remove(&lane);
                let new = || Observed::new(self.estimate_motion);
                (lane, camera.unwrap_or_else(new), items)
            })
            .collect();
        match work.as_mut_slice() {
            [(_, camera, items)] => items.iter_mut().for_each(|item| camera.observe(item)),
            several => std::thread::scope(|scope| {
                for (_, camera, items) in several {
                    scope.spawn(|| items.iter_mut().for_each(|item| camera.observe(item)));
                }
            }),
        }
        let cameras = work.into_iter().map(|(lane, camera, _)| (lane, camera));
        self.cameras.extend(cameras);
    }
}

/// Data kept of a camera's last picture.
struct Observed {
    motion: CameraMotion,
    gate: MotionGate,
}

impl Observed {
    fn new(estimate_motion: bool) -> Self {
        Observed {
            motion: CameraMotion::new(estimate_motion),
            gate: MotionGate::default(),
        }
    }

    /// Estimates both for one frame. The frame is dropped if this fails.
    fn observe(&mut self, item: &mut Item) {
        let observed = caught("scale", || {
            item.still = !item.skipped && item.gated && stands_still(&mut self.gate, &item.frame);
            if !item.still {
                item.motion = self.motion.next(&item.frame);
            }
            Ok(())
        });
        if let Err(e) = observed {
            item.left_out = Some(LeftOut::Failed(e));
        }
    }
}

impl FrameInput {
    /// The active frames as the detector's input. The batcher has grouped them by input size and, if
    /// they are prepared on the device, by frame size. `None` if there is no
    /// active frame. If the device fails, this input and all later ones are made on the CPU.
    fn of(&mut self, batch: &mut Batch) -> Option<Scaled> {
        let Some(loader) = &mut self.loader else {
            return host_input(&self.scaling, batch);
        };
        match device_input(&self.scaling, loader, batch)? {
            Ok(scaled) => Some(scaled),
            Err(error) => {
                tracing::warn!(%error, "frames cannot be prepared on the device; using the CPU");
                self.loader = None;
                host_input(&self.scaling, batch)
            }
        }
    }
}

/// The input in the device's memory.
fn device_input(
    scaling: &Scaling,
    loader: &mut FrameLoader,
    batch: &mut Batch,
) -> Option<Result<Scaled, PipelineError>> {
    for item in batch.active() {
        if let Err(e) = pixels(&item.frame) {
            item.left_out = Some(LeftOut::Failed(e));
        }
    }
    let images: Vec<Image> = batch
        .active()
        .filter_map(|i| i.frame.image.clone())
        .collect();
    let images: Vec<&Image> = images.iter().collect();
    let letterbox = scaling.letterbox(images.first()?.shape());
    let loaded = caught("scale", || Ok(loader.load(&images, letterbox.placement())?));
    Some(loaded.map(|(pictures, frames)| {
        batch.frames = Some(frames);
        let index = |(i, item): (usize, &mut Item)| item.device_index = Some(i);
        batch.active().enumerate().for_each(index);
        Scaled {
            input: DetectorInput::Device(pictures),
            places: images
                .iter()
                .map(|i| (letterbox, (i.width, i.height)))
                .collect(),
        }
    }))
}

/// The input in the program's memory.
fn host_input(scaling: &Scaling, batch: &mut Batch) -> Option<Scaled> {
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
    let input = DetectorInput::Host(input.slice_move(s![..places.len(), .., .., ..]));
    (!places.is_empty()).then_some(Scaled { input, places })
}

/// The frame's pixels.
///
/// # Errors
/// [`PipelineError::NoPixels`].
pub(super) fn pixels(frame: &Frame) -> Result<&Image, PipelineError> {
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
