//! Keeps the events in memory, for what is done once all are known.

use std::sync::{Arc, Mutex, PoisonError};

use crate::refine::Recording;
use crate::sink::sink::{FrameResult, Sink, SinkError};
use crate::trajectory::EndedEvent;

/// A sink that remembers.
#[derive(Debug, Clone, Default)]
pub struct Recorder(Arc<Mutex<Recording>>);

impl Recorder {
    /// What was recorded so far; the recorder is empty afterwards.
    pub fn take(&self) -> Recording {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Sink for Recorder {
    fn frame(&mut self, finished: &FrameResult) -> Result<(), SinkError> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .frames
            .push(finished.event.clone());
        Ok(())
    }

    fn ended(&mut self, event: &EndedEvent) -> Result<(), SinkError> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .ended
            .push(event.clone());
        Ok(())
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}
