//! What a run has done so far, and what it did in all.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::source::SourceError;

/// Time and items of one stage; updated by its thread, read by anyone.
#[derive(Debug, Default)]
pub struct Meter {
    nanos: AtomicU64,
    items: AtomicU64,
}

impl Meter {
    /// Runs `work` and counts its time.
    pub fn time<T>(&self, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let out = work();
        self.nanos
            .fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
        self.items.fetch_add(1, Ordering::Relaxed);
        out
    }

    /// Total time at work.
    pub fn busy(&self) -> Duration {
        Duration::from_nanos(self.nanos.load(Ordering::Relaxed))
    }
}

/// A run under way. One for the whole pipeline, shared with whoever shows it.
#[derive(Debug, Default)]
pub struct Progress {
    /// Reading and decoding.
    pub decode: Meter,
    /// Scaling to the detector's input.
    pub scale: Meter,
    /// Detection.
    pub detect: Meter,
    /// Cropping and embedding.
    pub embed: Meter,
    /// Association.
    pub track: Meter,
    /// Writing.
    pub write: Meter,
    /// Frames written.
    pub frames: AtomicU64,
    /// Detections.
    pub detections: AtomicU64,
    /// People: tracks that were confirmed.
    pub people: AtomicU64,
    /// Frames of a live source dropped because the stages behind were busy.
    pub dropped: AtomicU64,
    /// Frames left out because a network failed at them.
    pub failed: AtomicU64,
    /// The source has come to its end.
    pub ended: AtomicBool,
}

impl Progress {
    /// Frames written so far.
    pub fn frames(&self) -> u64 {
        self.frames.load(Ordering::Relaxed)
    }
}

/// What a run did.
#[derive(Debug)]
pub struct Summary {
    /// Frames written.
    pub frames: u64,
    /// Detections in them.
    pub detections: u64,
    /// People: tracks that were confirmed.
    pub people: u64,
    /// Frames dropped (live sources only).
    pub dropped: u64,
    /// Frames that could not be decoded or read, and were left out.
    pub damaged: u64,
    /// The input's end is missing: [`SourceError::Truncated`]. Everything before it was written.
    pub cut: Option<SourceError>,
    /// Frames left out because a network failed at them.
    pub failed: u64,
    /// Time from the first frame asked for to the last event written.
    pub wall: Duration,
    /// Time inside ONNX Runtime: detector and embedder.
    pub inference: Duration,
    /// Stage and the time it was at work; stages work at the same time.
    pub stages: Vec<(&'static str, Duration)>,
    /// The run was stopped before the input's end.
    pub interrupted: bool,
}

impl Summary {
    /// Frames a second over the whole run.
    pub fn frames_per_second(&self) -> f64 {
        self.frames as f64 / self.wall.as_secs_f64().max(1e-9)
    }
}
