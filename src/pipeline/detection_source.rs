//! Source of the detections: a detector, or detections that were read from a file.

use std::collections::BTreeMap;
use std::time::Duration;

use ndarray::s;

use crate::detect::Detector;
use crate::detection::Detection;
use crate::frame::Frame;
use crate::pipeline::batch::{Batch, DetectorInput, Scaled};
use crate::pipeline::quarantine::LeftOut;
use crate::pipeline::scale::{FrameInput, pixels};
use crate::pipeline::stage::each;

/// Source of the detections.
pub enum DetectionSource {
    /// A detector.
    Network(Box<Detector>),
    /// Detections of one recording, by frame number.
    Given(BTreeMap<u64, Vec<Detection>>),
}

impl DetectionSource {
    /// The preparation of the detector's input from frames; `None` without a detector. The loader
    /// that prepares the input on the device is moved out of the detector.
    pub(super) fn take_input(&mut self) -> Option<FrameInput> {
        match self {
            DetectionSource::Network(d) => Some(FrameInput {
                scaling: d.scaling().clone(),
                loader: d.take_loader(),
            }),
            DetectionSource::Given(_) => None,
        }
    }

    /// Tells the detector how many frames its batches will have at most.
    pub(super) fn expect_batches(&mut self, largest: usize) {
        if let DetectionSource::Network(d) = self {
            d.expect_batches(largest);
        }
    }

    /// The batch size that the detector's file fixes, if it fixes one.
    pub(super) fn fixed_batch(&self) -> Option<usize> {
        match self {
            DetectionSource::Network(d) => d.model().batch(),
            DetectionSource::Given(_) => None,
        }
    }

    /// Time spent inside ONNX Runtime so far.
    pub(super) fn busy(&self) -> Duration {
        match self {
            DetectionSource::Network(d) => d.model().busy(),
            DetectionSource::Given(_) => Duration::ZERO,
        }
    }

    /// Number of given detections whose frames have not come so far.
    pub(super) fn unused(&self) -> u64 {
        match self {
            DetectionSource::Network(_) => 0,
            DetectionSource::Given(by_frame) => by_frame.values().map(|d| d.len() as u64).sum(),
        }
    }

    /// Fills in the detections of a batch. A frame on which the detector fails in the batch, and
    /// again when it is processed alone, is dropped.
    pub(super) fn detect(&mut self, batch: &mut Batch) {
        match self {
            DetectionSource::Network(detector) => detect(detector, batch),
            DetectionSource::Given(by_frame) => {
                for item in batch.active() {
                    item.detections = by_frame.remove(&item.frame.number).unwrap_or_default();
                }
            }
        }
    }
}

fn detect(detector: &mut Detector, batch: &mut Batch) {
    let Some(Scaled { input, places }) = batch.input.take() else {
        return;
    };
    let found = match &input {
        DetectorInput::Host(input) => each("detect", places.len(), |some| {
            Ok(detector.detect(input.slice(s![some.clone(), .., .., ..]), &places[some])?)
        }),
        DetectorInput::Device(input) => {
            let frames: Vec<Frame> = batch.active().map(|i| i.frame.clone()).collect();
            each("detect", places.len(), |some| {
                if some.len() == places.len() {
                    return Ok(detector.detect_on_device(input, &places)?);
                }
                // After a failure of the batch: each frame is detected alone, prepared on the CPU.
                let one = |frame: &Frame| Ok(detector.detect_image(pixels(frame)?)?);
                frames[some].iter().map(one).collect()
            })
        }
    };
    for (item, found) in batch.active().zip(found) {
        match found {
            Ok(found) => item.detections = found,
            Err(e) => item.left_out = Some(LeftOut::Failed(e)),
        }
    }
}
