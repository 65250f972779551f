//! Where detections come from.

use std::collections::BTreeMap;
use std::time::Duration;

use ndarray::s;

use crate::detect::Detector;
use crate::detect::detector::Scaling;
use crate::detection::Detection;
use crate::pipeline::batch::{Batch, Scaled};
use crate::pipeline::quarantine::LeftOut;
use crate::pipeline::stage::each;

/// Where detections come from.
pub enum DetectionSource {
    /// A detector.
    Network(Box<Detector>),
    /// Detections of one recording, by frame number.
    Given(BTreeMap<u64, Vec<Detection>>),
}

impl DetectionSource {
    /// How frames become the detector's input; `None` without a detector.
    pub(super) fn scaling(&self) -> Option<Scaling> {
        match self {
            DetectionSource::Network(d) => Some(d.scaling().clone()),
            DetectionSource::Given(_) => None,
        }
    }

    /// The number of frames that the detector's file is fixed at.
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

    /// Fills in the detections of a batch. A frame at which the detector fails, alone too, is left
    /// out.
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
    let found = each("detect", places.len(), |some| {
        Ok(detector.detect(input.slice(s![some.clone(), .., .., ..]), &places[some])?)
    });
    for (item, found) in batch.active().zip(found) {
        match found {
            Ok(found) => item.detections = found,
            Err(e) => item.left_out = Some(LeftOut::Failed(e)),
        }
    }
}
