//! Hides embeddings from sinks, where only another sink is to have them.

use std::sync::Arc;

use crate::sink::sink::{FrameResult, Sink, SinkError};
use crate::trajectory::{AnalyticsEvent, EndedEvent, StatusEvent, WithJson};

/// Passes events to other sinks; `track_ended` events without the embedding and its embedder.
pub struct WithoutEmbeddings(Vec<Box<dyn Sink>>);

impl WithoutEmbeddings {
    /// Hides embeddings from these sinks.
    pub fn new(sinks: Vec<Box<dyn Sink>>) -> Self {
        WithoutEmbeddings(sinks)
    }
}

impl Sink for WithoutEmbeddings {
    fn frame(&mut self, finished: &FrameResult) -> Result<(), SinkError> {
        self.0.frame(finished)
    }

    fn needs_pixels(&self) -> bool {
        self.0.needs_pixels()
    }

    fn ended(&mut self, event: &WithJson<EndedEvent>) -> Result<(), SinkError> {
        let stripped = WithJson::from(EndedEvent {
            embedder: None,
            embedding: None,
            ..EndedEvent::clone(event)
        });
        self.0.ended(&stripped)
    }

    fn analytics(&mut self, event: &WithJson<AnalyticsEvent>) -> Result<(), SinkError> {
        self.0.analytics(event)
    }

    fn status(&mut self, event: &WithJson<StatusEvent>) -> Result<(), SinkError> {
        self.0.status(event)
    }

    fn left(&mut self, camera: &Arc<str>) {
        self.0.left(camera);
    }

    fn close(&mut self) {
        self.0.close();
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        self.0.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::recorder::Recorder;
    use crate::trajectory::{ENDED_SCHEMA, RunId};

    #[test]
    fn the_events_of_tracks_ends_lose_their_embedding() {
        let recorder = Recorder::default();
        let mut sink = WithoutEmbeddings::new(vec![Box::new(recorder.clone())]);
        let event = EndedEvent {
            schema: ENDED_SCHEMA.into(),
            run: RunId::nil(),
            camera: "gate".into(),
            seq: 1,
            lease: None,
            id: 7,
            first: 0.0,
            last: 1.0,
            time: None,
            clock: None,
            width: 640,
            height: 480,
            hits: 5,
            path: Vec::new(),
            path_error: None,
            embedder: Some("net abc".into()),
            embedding: Some(vec![1.0]),
        };
        sink.ended(&event.clone().into()).expect("recorded");
        let expected = EndedEvent {
            embedder: None,
            embedding: None,
            ..event
        };
        assert_eq!(recorder.take().ended, [expected]);
        assert!(!sink.needs_pixels());
    }
}
