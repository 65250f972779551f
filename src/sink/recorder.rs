//! A sink that keeps all events in memory, for offline linking.

use std::sync::{Arc, Mutex, PoisonError};

use crate::refine::RecordedEvents;
use crate::sink::sink::{FrameResult, Sink, SinkError};
use crate::trajectory::{AnalyticsEvent, EndedEvent, WithJson};

/// Collects events; clones share the collected events.
#[derive(Debug, Clone, Default)]
pub struct Recorder(Arc<Mutex<RecordedEvents>>);

impl Recorder {
    /// Returns the events recorded so far and leaves the recorder empty.
    pub fn take(&self) -> RecordedEvents {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Sink for Recorder {
    fn needs_pixels(&self) -> bool {
        false
    }

    fn frame(&mut self, finished: &FrameResult) -> Result<(), SinkError> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .frames
            .push(finished.event.clone());
        Ok(())
    }

    fn ended(&mut self, event: &WithJson<EndedEvent>) -> Result<(), SinkError> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .ended
            .push(EndedEvent::clone(event));
        Ok(())
    }

    fn analytics(&mut self, event: &WithJson<AnalyticsEvent>) -> Result<(), SinkError> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .analytics
            .push(AnalyticsEvent::clone(event));
        Ok(())
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}
