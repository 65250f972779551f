//! The time that stages are busy, and the summary of a run.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::pipeline::observer::Observer;
use crate::source::SourceError;

/// The stages, in the order of the pipeline.
pub const STAGES: [&str; 6] = ["decode", "scale", "detect", "embed", "track", "write"];

/// Measures the time that each of [`STAGES`] is busy.
#[derive(Debug, Default)]
pub struct StageTimes([AtomicU64; STAGES.len()]);

impl StageTimes {
    /// Each stage and the time it was busy so far. Stages work at the same time.
    pub fn busy(&self) -> Vec<(&'static str, Duration)> {
        let busy = self
            .0
            .iter()
            .map(|b| Duration::from_nanos(b.load(Ordering::Relaxed)));
        STAGES.into_iter().zip(busy).collect()
    }
}

impl Observer for StageTimes {
    fn stage(&self, stage: &'static str, took: Duration, _: usize) {
        if let Some(i) = STAGES.iter().position(|s| *s == stage) {
            self.0[i].fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
        }
    }
}

/// The summary of a run.
#[derive(Debug, Default)]
pub struct Summary {
    /// Frames written.
    pub frames: u64,
    /// Frames among them that the detector skipped.
    pub skipped: u64,
    /// Detections in the other frames.
    pub detections: u64,
    /// Detections that were embedded.
    pub embedded: u64,
    /// People: tracks that were confirmed.
    pub people: u64,
    /// Frames dropped because a stage or a sink was busy (live sources only).
    pub dropped: u64,
    /// Frames that could not be decoded or read.
    pub damaged: u64,
    /// [`SourceError::Truncated`] if the end of the input is missing. All frames before it were
    /// written.
    pub cut: Option<SourceError>,
    /// Frames dropped because a network failed on them, or during a quarantine.
    pub failed: u64,
    /// Time from the start of the pipeline to the last event written.
    pub wall: Duration,
    /// Sum of the detector's and the embedder's time inside ONNX Runtime. It may exceed `wall`,
    /// because they run at the same time.
    pub inference: Duration,
    /// Number of detections supplied by the user for frames that the source did not deliver.
    pub unused: u64,
    /// Whether the run was stopped before the input's end.
    pub interrupted: bool,
}

impl Summary {
    /// Adds the counts of frames, detections and people.
    pub(super) fn add(&mut self, other: &Summary) {
        self.frames += other.frames;
        self.skipped += other.skipped;
        self.detections += other.detections;
        self.embedded += other.embedded;
        self.people += other.people;
        self.dropped += other.dropped;
        self.damaged += other.damaged;
        self.failed += other.failed;
    }

    /// Frames per second over the whole run.
    pub fn frames_per_second(&self) -> f64 {
        self.frames as f64 / self.wall.as_secs_f64().max(1e-9)
    }
}
