//! JSON lines: one event per line.

use std::path::Path;

use serde::Serialize;

use crate::sink::sink::{FrameResult, LineWriter, Sink, SinkError};
use crate::trajectory::{AnalyticsEvent, EndedEvent, StatusEvent, WithJson};

/// Writes every event as one line of JSON.
pub struct JsonLines {
    out: LineWriter,
    with_ended: bool,
}

impl JsonLines {
    /// Creates the file, or writes to standard output when `path` is `-`. With `unbuffered` every
    /// line is written at once; with `with_ended` `track_ended` events are written too.
    ///
    /// # Errors
    /// When the file cannot be created.
    pub fn create(path: &Path, unbuffered: bool, with_ended: bool) -> Result<Self, SinkError> {
        let out = if path == Path::new("-") {
            LineWriter::stdout()
        } else {
            LineWriter::create(path, unbuffered)?
        };
        Ok(JsonLines { out, with_ended })
    }

    fn write(&mut self, event: &WithJson<impl Serialize>) -> Result<(), SinkError> {
        self.out.write(event.line().as_bytes())
    }
}

impl Sink for JsonLines {
    fn needs_pixels(&self) -> bool {
        false
    }

    fn frame(&mut self, finished: &FrameResult) -> Result<(), SinkError> {
        self.write(&finished.event)
    }

    fn ended(&mut self, event: &WithJson<EndedEvent>) -> Result<(), SinkError> {
        if self.with_ended {
            self.write(event)
        } else {
            Ok(())
        }
    }

    fn analytics(&mut self, event: &WithJson<AnalyticsEvent>) -> Result<(), SinkError> {
        self.write(event)
    }

    fn status(&mut self, event: &WithJson<StatusEvent>) -> Result<(), SinkError> {
        self.write(event)
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        self.out.flush()
    }
}
