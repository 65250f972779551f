//! Frames keep their pixels up to the sinks only if a sink needs them.
#![cfg(feature = "video")]
#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use common::clip;
use twintrack::pipeline::{DetectionSource, Input, Inputs, Pipeline};
use twintrack::sink::{FrameResult, Sink, SinkError};
use twintrack::source::SourceOptions;
use twintrack::time::Seconds;

/// Records for each frame whether it has pixels.
struct Pixels {
    needed: bool,
    seen: Arc<Mutex<Vec<bool>>>,
}

impl Sink for Pixels {
    fn frame(&mut self, finished: &FrameResult) -> Result<(), SinkError> {
        let mut seen = self.seen.lock().unwrap();
        seen.push(finished.frame.image.is_some());
        Ok(())
    }

    fn needs_pixels(&self) -> bool {
        self.needed
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

/// Whether the frames of the clip's first half second have pixels at the sinks: an entry for each
/// sink and frame. `needed`: for each sink, whether it needs pixels.
fn pixels(needed: &[bool]) -> Vec<bool> {
    let seen: Arc<Mutex<Vec<bool>>> = Arc::default();
    let part = SourceOptions::default().with_duration(Some(Seconds(0.45)));
    let input = Input::open(&clip().to_string_lossy(), part).unwrap();
    let detections = DetectionSource::Given(BTreeMap::new());
    let sink = |&needed: &bool| -> Box<dyn Sink> {
        let seen = seen.clone();
        Box::new(Pixels { needed, seen })
    };
    let pipeline = Pipeline {
        sinks: needed.iter().map(sink).collect(),
        ..Pipeline::new(Inputs::One(input), detections)
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let summary = runtime.block_on(pipeline.run()).unwrap();
    assert_eq!(summary.frames, 5);
    std::mem::take(&mut *seen.lock().unwrap())
}

#[test]
fn one_sink_that_needs_pixels_is_enough() {
    assert_eq!(pixels(&[false]), [false; 5]);
    assert_eq!(pixels(&[true, false]), [true; 10]);
}
