//! Measures the time of each stage while no other stage runs.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio_util::sync::CancellationToken;

use crate::app::networks;
use twintrack::camera_flow::CameraFlow;
use twintrack::config::Config;
use twintrack::detect::Detector;
use twintrack::detection::{Detection, Embeddings};
use twintrack::embed::{Embedder, People};
use twintrack::frame::Frame;
use twintrack::infer::{DeviceFrames, FrameLoader};
use twintrack::pipeline::metrics::STAGES;
use twintrack::sink::jsonl::JsonLines;
use twintrack::sink::{FrameResult, Sink as _};
use twintrack::source::{self, SourceOptions};
use twintrack::time::Seconds;
use twintrack::track::Tracker;
use twintrack::trajectory::{EventBuilder, RunId};

/// Number of frames that are decoded before the other stages process them, so that the decoder's
/// threads are idle while the other stages are measured.
const CHUNK: usize = 16;

/// For each of [`STAGES`], in their order, the time of each frame.
pub type Times = [Vec<Duration>; STAGES.len()];

/// Times of the stages, with the sizes of their inputs.
pub struct Alone {
    /// Times by stage.
    pub times: Times,
    /// Width and height of a frame in pixels.
    pub size: [u32; 2],
    /// Width and height of the detector's input in pixels.
    pub detector_input: [usize; 2],
    /// Mean number of detections per frame.
    pub detections: f64,
}

/// Measures the stages on the first `frames` frames of `input`; events go into a file in the folder
/// `dir`. Ends early when `stop` is cancelled.
///
/// # Errors
/// When the input cannot be read, has no frame, or a stage fails.
pub fn measure(
    input: &str,
    frames: usize,
    config: &Config,
    dir: &Path,
    stop: &CancellationToken,
) -> Result<Alone> {
    let mut stages = Stages::open(config, dir)?;
    stages.alone.times[0] = decode(input, frames, stop)?;
    let mut source = source::open(input, &SourceOptions::default())?;
    let mut left = frames;
    while left > 0 && !stop.is_cancelled() {
        let mut chunk = Vec::new();
        while chunk.len() < CHUNK.min(left)
            && let Some(frame) = source.next_frame()?
        {
            chunk.push(frame);
        }
        if chunk.is_empty() {
            break;
        }
        left -= chunk.len();
        for frame in chunk {
            stages.frame(frame)?;
        }
    }
    stages.write.finish()?;
    stages.alone.detections = stages.detections as f64 / stages.frames.max(1) as f64;
    Ok(stages.alone)
}

/// The times of decoding.
fn decode(input: &str, frames: usize, stop: &CancellationToken) -> Result<Vec<Duration>> {
    let mut source = source::open(input, &SourceOptions::default())?;
    let mut times = Vec::new();
    while times.len() < frames && !stop.is_cancelled() {
        let start = Instant::now();
        if source.next_frame()?.is_none() {
            break;
        }
        times.push(start.elapsed());
    }
    Ok(times)
}

/// The stages after decoding, with their state.
struct Stages {
    flow: Option<CameraFlow>,
    detector: Detector,
    /// Prepares frames on the detector's device, if it is not the CPU.
    loader: Option<FrameLoader>,
    embedder: Option<Embedder>,
    tracker: Tracker,
    events: EventBuilder,
    write: JsonLines,
    last: Option<Seconds>,
    frames: usize,
    detections: usize,
    alone: Alone,
}

impl Stages {
    fn open(config: &Config, dir: &Path) -> Result<Self> {
        let tracker = config.tracker(false);
        let embedder = networks::embedder(config)?;
        let strangers = embedder.as_ref().and_then(Embedder::strangers);
        let mut detector = networks::detector(config)?;
        Ok(Stages {
            flow: tracker.camera_motion.from_pixels.then(CameraFlow::default),
            loader: detector.take_loader(),
            detector,
            tracker: Tracker::new(tracker).with_strangers(strangers),
            embedder,
            events: EventBuilder::new(RunId::now_v7(), "bench".into(), None),
            write: JsonLines::create(&dir.join("alone.jsonl"), false, true)?,
            last: None,
            frames: 0,
            detections: 0,
            alone: Alone {
                times: Times::default(),
                size: [0; 2],
                detector_input: [0; 2],
                detections: 0.0,
            },
        })
    }

    /// Runs the stages after decoding on a frame.
    fn frame(&mut self, frame: Frame) -> Result<()> {
        let mut clock = Clock::start();
        let image = frame.image.as_ref().context("the input has no pixels")?;
        let motion = match &mut self.flow {
            Some(flow) => flow.next(image, frame.pts)?,
            None => None,
        };
        let letterbox = self.detector.scaling().letterbox(image.shape());
        let places = [(letterbox, (frame.width, frame.height))];
        let mut device_frames = None;
        let mut found = if let Some(loader) = &mut self.loader {
            let (input, frames) = loader.load(&[image], letterbox.placement())?;
            device_frames = Some(frames);
            clock.lap(&mut self.alone.times[1]);
            self.detector.detect_on_device(&input, &places)?
        } else {
            let (input, _) = self.detector.scaling().batch_of_one(image);
            clock.lap(&mut self.alone.times[1]);
            self.detector.detect(input.view(), &places)?
        };
        let detections = found.pop().unwrap_or_default();
        clock.lap(&mut self.alone.times[2]);

        let embeddings = match &mut self.embedder {
            Some(embedder) => embeddings(embedder, &frame, device_frames.as_ref(), &detections)?,
            None => Embeddings::none(),
        };
        clock.lap(&mut self.alone.times[3]);

        let elapsed = self.last.map_or(Seconds::ZERO, |last| frame.pts - last);
        self.last = Some(frame.pts);
        if let Some(map) = motion {
            self.tracker.apply_camera_motion(&map);
        }
        let update = self.tracker.update(&detections, &embeddings, elapsed)?;
        let event = self.events.frame(&frame, &update.tracks);
        clock.lap(&mut self.alone.times[4]);

        self.alone.size = [frame.width, frame.height];
        self.alone.detector_input = letterbox.input.into();
        self.detections += detections.len();
        self.write.frame(&FrameResult {
            frame,
            detections,
            event: event.into(),
            people: Vec::new(),
            scene: None,
        })?;
        clock.lap(&mut self.alone.times[5]);
        self.frames += 1;
        if self.frames == 1 {
            // The times so far are discarded, because a network's first run of an input shape
            // allocates memory.
            self.alone.times[1..].iter_mut().for_each(Vec::clear);
        }
        Ok(())
    }
}

/// Embeds the detections of a frame, whose pixels may be in the device's memory.
fn embeddings(
    embedder: &mut Embedder,
    frame: &Frame,
    device_frames: Option<&DeviceFrames>,
    detections: &[Detection],
) -> Result<Embeddings> {
    if let Some(frames) = device_frames {
        let people = People {
            frame: 0,
            size: (frame.width, frame.height),
            detections,
        };
        if let Some(mut all) = embedder.embed_on_device(frames, &[people])? {
            return Ok(all.pop().unwrap_or_default());
        }
    }
    let image = frame.image.as_ref().context("the input has no pixels")?;
    Ok(embedder.embed(image, detections)?)
}

/// A stopwatch.
struct Clock(Instant);

impl Clock {
    fn start() -> Self {
        Clock(Instant::now())
    }

    /// Adds the time since the start or the last lap to `times`.
    fn lap(&mut self, times: &mut Vec<Duration>) {
        let now = Instant::now();
        times.push(now - self.0);
        self.0 = now;
    }
}
