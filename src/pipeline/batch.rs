//! Frames on their way through the stages.

use std::sync::Arc;
use std::time::Instant;

use ndarray::Array4;
use tokio::sync::mpsc;

use crate::detect::Letterbox;
use crate::detection::{Detection, Embeddings};
use crate::frame::Frame;
use crate::geometry::Affine;
use crate::infer::{DeviceFrames, DevicePictures};
use crate::pipeline::batcher::{self, Batcher, Lane, Waiting};
use crate::pipeline::cameras::Cameras;
use crate::pipeline::observer::Observer;
use crate::pipeline::quarantine::LeftOut;
use crate::pipeline::stage::{self, Outcome};
use crate::source::CameraConfig;

/// A frame and what the stages have added to it.
pub(super) struct Item {
    pub lane: Lane,
    /// Time at which the frame was decoded.
    pub arrived: Instant,
    pub frame: Frame,
    /// The camera's own motion since the frame before.
    pub motion: Option<Affine>,
    pub detections: Vec<Detection>,
    pub embeddings: Embeddings,
    /// Whether the camera's settings allow to skip the networks while nothing moves.
    pub gated: bool,
    /// Whether the camera is a live input.
    pub live: bool,
    /// Whether the detector skips the frame: its tracks are predicted.
    pub skipped: bool,
    /// Its number among the camera's frames, for the report on its detections.
    pub number: u64,
    /// Whether nothing has moved since the last frame that the networks processed: their results
    /// are reused.
    pub still: bool,
    /// Why the remaining stages skip the frame.
    pub left_out: Option<LeftOut>,
    /// Index of the frame among the batch's frames in the device's memory.
    pub device_index: Option<usize>,
    /// Seconds of work that the shared stages spent on the frame.
    pub cost: f64,
}

impl Item {
    /// Whether the networks process the frame.
    pub fn is_active(&self) -> bool {
        !self.still && !self.skipped && self.left_out.is_none()
    }
}

/// The detector's input. For each of its frames: the letterbox, and the frame's width and height in
/// pixels.
pub(super) struct Scaled {
    pub input: DetectorInput,
    pub places: Vec<(Letterbox, (u32, u32))>,
}

/// Frames as the detector takes them, [n, 3, h, w].
pub(super) enum DetectorInput {
    /// In the program's memory.
    Host(Array4<f32>),
    /// In the memory of the detector's device.
    Device(DevicePictures),
}

/// Frames that pass the stages together.
pub(super) struct Batch {
    pub items: Vec<Item>,
    /// Cameras that have ended, with their names: no frame of theirs follows.
    pub ended: Vec<(Lane, Arc<str>)>,
    /// The active frames as the detector's input.
    pub input: Option<Scaled>,
    /// The active frames in the device's memory, if they are prepared there.
    pub frames: Option<DeviceFrames>,
}

impl Batch {
    fn new(batch: batcher::Batch, cameras: &Cameras) -> Self {
        let item = |w: Waiting, config: Option<&CameraConfig>| Item {
            gated: config.is_some_and(|c| c.motion_gate),
            live: config.is_some_and(CameraConfig::is_live),
            skipped: false,
            number: 0,
            lane: w.lane,
            arrived: w.arrived,
            frame: w.frame,
            motion: None,
            detections: Vec::new(),
            embeddings: Embeddings::none(),
            still: false,
            left_out: None,
            device_index: None,
            cost: 0.0,
        };
        Batch {
            items: batch
                .frames
                .into_iter()
                .map(|w| {
                    let member = cameras.get(w.lane);
                    item(w, member.as_ref().map(|m| &*m.config))
                })
                .collect(),
            ended: batch.ended,
            input: None,
            frames: None,
        }
    }

    /// The frames that the networks process.
    pub fn active(&mut self) -> impl Iterator<Item = &mut Item> {
        self.items.iter_mut().filter(|i| i.is_active())
    }

    /// Runs a stage's work and charges its time, in equal parts, to the active frames.
    pub fn timed(
        &mut self,
        stage: &'static str,
        observer: &dyn Observer,
        work: impl FnOnce(&mut Self),
    ) {
        let start = Instant::now();
        work(self);
        let took = start.elapsed();
        observer.stage(stage, took, self.items.len());
        let share = took.as_secs_f64() / self.active().count().max(1) as f64;
        self.active().for_each(|item| item.cost += share);
    }
}

/// The stage that takes batches from the batcher, until all cameras have ended.
pub(super) fn batches(
    batcher: Arc<Batcher>,
    cameras: Cameras,
    observer: Arc<dyn Observer>,
) -> (mpsc::Receiver<Batch>, Outcome<()>) {
    let (tx, rx) = mpsc::channel(1);
    let outcome = stage::spawn("batch", move || {
        while let Some(batch) = batcher.next() {
            if !batch.frames.is_empty() {
                observer.batch(batch.frames.len());
                observer.queue("detector", batcher.waiting());
            }
            if tx.blocking_send(Batch::new(batch, &cameras)).is_err() {
                break;
            }
        }
        Ok(())
    });
    (rx, outcome)
}
