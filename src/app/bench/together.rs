//! Measures the whole pipeline: the time of each stage while all stages run, frames per second, and
//! memory.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::app::bench::alone::Times;
use crate::app::bench::machine;
use crate::app::bench::report::{Network, rate, rounded};
use crate::app::networks;
use twintrack::config::Config;
use twintrack::detect::Detector;
use twintrack::infer::Model;
use twintrack::pipeline::metrics::STAGES;
use twintrack::pipeline::{
    BatchConfig, CameraConfigs, DetectionSource, Input, Inputs, Observer, Pipeline,
};
use twintrack::serve::config::ServiceConfig;
use twintrack::sink::Sink;
use twintrack::sink::jsonl::JsonLines;
use twintrack::source::{self, CameraConfig, SourceOptions, playback};
use twintrack::time::Seconds;

/// Results of a run of the pipeline.
pub struct Together {
    /// Times by stage.
    pub times: Times,
    /// Frames of all recordings.
    pub frames: usize,
    /// Frames per second of all recordings, from the first event written to the last.
    pub frames_per_second: f64,
    /// Mean number of frames in a batch of the detector.
    pub batch: f64,
    /// Peak resident memory in bytes.
    pub peak_memory: Option<u64>,
    /// The detector.
    pub detector: Network,
    /// The embedder.
    pub embedder: Option<Network>,
}

/// Tracks the first `frames` frames of one recording, as the command `track` does.
///
/// # Errors
/// When the input cannot be read or is a camera, or the run fails.
pub async fn one(
    input: &str,
    frames: usize,
    config: &Config,
    dir: &Path,
    stop: &CancellationToken,
) -> Result<Together> {
    let info = source::open(input, &SourceOptions::default())?
        .info()
        .clone();
    if info.live {
        bail!("{input} is a camera, whose frame rate limits the speed; name a video file");
    }
    // Half a frame less, so that exactly this number of frames is included despite rounding.
    let duration = (info.frame_rate > 0.0).then(|| (frames as f64 - 0.5) / info.frame_rate);
    let options = SourceOptions::default().with_duration(duration.map(Seconds));
    let inputs = Inputs::One(Input::open(input, options)?);
    let batch = |detector: &mut Detector| networks::batch(detector, &info);
    run(inputs, batch, config, dir, stop).await
}

/// Tracks `recordings` copies of a recording at once, as the command `serve` does.
///
/// # Errors
/// When the run fails.
pub async fn many(
    input: &Path,
    recordings: usize,
    service: &ServiceConfig,
    config: &Config,
    dir: &Path,
    stop: &CancellationToken,
) -> Result<Together> {
    let camera = CameraConfig::of_input(&input.to_string_lossy(), Some(true)).with_realtime(false);
    let configs: CameraConfigs = (1..=recordings)
        .map(|number| (format!("camera-{number}"), camera.clone()))
        .collect();
    // The sender is kept until the run ends, because dropping it would close the channel of
    // changes.
    let (_changes, changes) = mpsc::channel(1);
    let inputs = Inputs::Many {
        waits: false,
        configs,
        changes,
        open: Arc::new(playback::open),
    };
    let batch = |d: &mut Detector| Ok(service.batch(d.model().provider().is_gpu()));
    run(inputs, batch, config, dir, stop).await
}

async fn run(
    inputs: Inputs,
    batch: impl FnOnce(&mut Detector) -> Result<BatchConfig>,
    config: &Config,
    dir: &Path,
    stop: &CancellationToken,
) -> Result<Together> {
    machine::reset_peak_memory();
    let mut detector = networks::detector(config)?;
    let batch = batch(&mut detector)?;
    let embedder = networks::embedder(config)?;
    let used = (
        network(detector.model()),
        embedder.as_ref().map(|e| network(e.model())),
    );
    let samples = Arc::new(Samples::default());
    let events = JsonLines::create(&dir.join("together.jsonl"), false, true)?;
    let sinks: Vec<Box<dyn Sink>> = vec![Box::new(events)];
    let detections = DetectionSource::Network(Box::new(detector));
    let pipeline = Pipeline {
        embed_policy: networks::embed_policy(config, embedder.as_ref()),
        cadence: networks::cadence(config, &detections),
        embedder,
        tracker: config.tracker(false),
        sinks,
        output: config.output.clone(),
        batch,
        observer: samples.clone(),
        stop: stop.clone(),
        ..Pipeline::new(inputs, detections)
    };
    let summary = pipeline.run().await?;
    if summary.frames == 0 && !summary.interrupted {
        bail!("no frame was tracked; the reasons are logged above");
    }
    let peak_memory = machine::peak_memory();
    let samples = std::mem::take(&mut *samples.lock());
    Ok(Together {
        frames: summary.frames as usize,
        frames_per_second: samples.frames_per_second(),
        batch: samples.mean_batch(),
        times: samples.times,
        peak_memory,
        detector: used.0,
        embedder: used.1,
    })
}

/// The report's entry of a network.
fn network(model: &Model) -> Network {
    let file = model.path().file_name().unwrap_or_default();
    Network {
        file: file.to_string_lossy().into_owned(),
        precision: machine::precision(model.path()),
        provider: model.provider().to_string(),
    }
}

/// Keeps all measurements of a run.
#[derive(Default)]
struct Samples(Mutex<Measured>);

#[derive(Default)]
struct Measured {
    times: Times,
    /// Times at which the events of the first and the last frame were written.
    written: Option<(Instant, Instant)>,
    batches: usize,
    frames_in_batches: usize,
}

impl Samples {
    fn lock(&self) -> MutexGuard<'_, Measured> {
        // A poisoned lock is usable: no code panics while a value is partly changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Samples {
    fn stage(&self, stage: &'static str, took: Duration, frames: usize) {
        let Some(index) = STAGES.iter().position(|s| *s == stage) else {
            return;
        };
        let mut measured = self.lock();
        for _ in 0..frames {
            measured.times[index].push(took / frames as u32);
        }
        if stage == "write" && frames > 0 {
            let now = Instant::now();
            let first = measured.written.map_or(now, |(first, _)| first);
            measured.written = Some((first, now));
        }
    }

    fn batch(&self, frames: usize) {
        let mut measured = self.lock();
        measured.batches += 1;
        measured.frames_in_batches += frames;
    }
}

impl Measured {
    /// Frames per second between the first and the last event written, so that the time to allocate
    /// the networks' memory and to fill the stages is not included.
    fn frames_per_second(&self) -> f64 {
        let frames = self.times[STAGES.len() - 1].len().saturating_sub(1);
        self.written
            .map_or(0.0, |(first, last)| rate(frames, last - first))
    }

    fn mean_batch(&self) -> f64 {
        rounded(self.frames_in_batches as f64 / self.batches.max(1) as f64)
    }
}
