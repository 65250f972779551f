//! The interface by which a running pipeline reports its measurements.

use std::time::Duration;

/// Receives measurements. Called from the stages' threads: implementations must not block.
pub trait Observer: Send + Sync {
    /// A stage has worked on `frames` frames together.
    fn stage(&self, stage: &'static str, took: Duration, frames: usize);

    /// A frame's event was passed to the sinks; the argument is the time since the frame was
    /// decoded.
    fn latency(&self, _camera: &str, _took: Duration) {}

    /// Frames went to the detector together.
    fn batch(&self, _frames: usize) {}

    /// Number of frames that wait in a queue.
    fn queue(&self, _queue: &'static str, _frames: usize) {}

    /// A camera was removed: its measurements end.
    fn forget(&self, _camera: &str) {}
}

/// Discards all measurements.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoObserver;

impl Observer for NoObserver {
    fn stage(&self, _: &'static str, _: Duration, _: usize) {}
}
