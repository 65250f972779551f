//! Graphs prepare frames on the networks' device, in batches of several frames, as on a GPU. Here
//! the device is the CPU.
#![cfg(feature = "video")]
#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::clip;
use twintrack::detect::{Detector, DetectorConfig};
use twintrack::embed::{Embedder, EmbedderConfig};
use twintrack::frame::Shape;
use twintrack::geometry::BBox;
use twintrack::infer::{Device, Preprocessing, Runtime, SessionOptions};
use twintrack::pipeline::{BatchConfig, DetectionSource, Input, Inputs, Observer, Pipeline};
use twintrack::sink::recorder::Recorder;
use twintrack::source::SourceOptions;
use twintrack::time::Seconds;

const FRAMES: u64 = 40;
/// Greatest difference of a coordinate, pixels.
const TOLERANCE: f64 = 0.05;

fn options(preprocessing: Preprocessing) -> SessionOptions {
    SessionOptions::new(Device::Cpu, 2).with_preprocessing(preprocessing)
}

/// The largest number of frames in a batch of the detector.
#[derive(Default)]
struct LargestBatch(AtomicUsize);

impl Observer for LargestBatch {
    fn stage(&self, _: &'static str, _: Duration, _: usize) {}

    fn batch(&self, frames: usize) {
        self.0.fetch_max(frames, Ordering::Relaxed);
    }
}

/// Frame, id and box of every track in the clip's first frames, and the largest batch.
fn tracks(preprocessing: Preprocessing, together: usize) -> (Vec<(u64, u64, [f64; 4])>, usize) {
    let runtime = Runtime::load().unwrap();
    let session = options(preprocessing);
    let detector = Detector::open(&runtime, &DetectorConfig::default(), session).unwrap();
    let embedder = Embedder::open(&runtime, &EmbedderConfig::default(), session).unwrap();
    let part = SourceOptions::default().with_duration(Some(Seconds(FRAMES as f64 / 10.0)));
    let input = Input::open(&clip().to_string_lossy(), part).unwrap();
    let (recorder, observer) = (Recorder::default(), Arc::new(LargestBatch::default()));
    let detections = DetectionSource::Network(Box::new(detector));
    let pipeline = Pipeline {
        embedder: Some(embedder),
        batch: BatchConfig::default()
            .with_size(together)
            .with_per_recording(together),
        sinks: vec![Box::new(recorder.clone())],
        observer: observer.clone(),
        ..Pipeline::new(Inputs::One(input), detections)
    };
    let async_runtime = tokio::runtime::Runtime::new().unwrap();
    let summary = async_runtime.block_on(pipeline.run()).unwrap();
    assert_eq!((summary.frames, summary.failed), (FRAMES, 0));
    let events = recorder.take();
    let boxes = events
        .frames
        .iter()
        .flat_map(|e| e.tracks.iter().map(|t| (e.frame, t.id, t.bbox)));
    (boxes.collect(), observer.0.load(Ordering::Relaxed))
}

#[test]
fn batches_on_the_device_give_the_tracks_of_single_frames_on_the_cpu() {
    let (here, single) = tracks(Preprocessing::Cpu, 1);
    let (there, largest) = tracks(Preprocessing::Device, 8);
    assert!(here.len() > 100, "{} boxes", here.len());
    assert_eq!(single, 1);
    assert!((2..=8).contains(&largest), "{largest} frames in a batch");
    assert_eq!(here.len(), there.len());
    for (here, there) in here.iter().zip(&there) {
        assert_eq!((here.0, here.1), (there.0, there.1));
        let difference = here.2.iter().zip(&there.2).map(|(a, b)| (a - b).abs());
        assert!(
            difference.fold(0.0, f64::max) < TOLERANCE,
            "{here:?} {there:?}"
        );
    }
}

#[test]
fn the_fastest_batch_is_measured_on_the_device_only() {
    let runtime = Runtime::load().unwrap();
    let open = |preprocessing| {
        Detector::open(&runtime, &DetectorConfig::default(), options(preprocessing)).unwrap()
    };
    let shape = Shape::square(160, 120);
    let mut here = open(Preprocessing::Cpu);
    assert_eq!(here.fastest_batch(shape, 4).unwrap(), 1);
    assert!(here.take_loader().is_none());
    let mut there = open(Preprocessing::Device);
    let batch = there.fastest_batch(shape, 4).unwrap();
    assert!([1, 2, 4].contains(&batch), "{batch}");
    assert_eq!(there.model().busy(), Duration::ZERO);
    assert!(there.take_loader().is_some());
}

#[test]
fn crops_beyond_the_frame_are_left_to_the_cpu() {
    use twintrack::detection::Detection;
    use twintrack::embed::People;
    use twintrack::frame::Image;

    let runtime = Runtime::load().unwrap();
    let session = options(Preprocessing::Device);
    let mut embedder = Embedder::open(&runtime, &EmbedderConfig::default(), session).unwrap();
    let image = Image::packed(60, 90, vec![90; 3 * 60 * 90].into());
    let frames = embedder.load(&[&image]).unwrap().unwrap();
    let mut embedded = |left: f32| {
        let detections = [Detection {
            bbox: BBox::new(left, 0.0, 30.0, 90.0),
            confidence: 0.9,
        }];
        let people = [People {
            frame: 0,
            size: (60, 90),
            detections: &detections,
        }];
        embedder.embed_on_device(&frames, &people).unwrap()
    };
    assert!(embedded(-5.0).is_none());
    assert_eq!(embedded(5.0).unwrap()[0].len(), 1);
}
