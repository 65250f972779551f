//! JSON lines: one event a line.

use std::path::Path;

use serde::Serialize;

use crate::sink::sink::{FrameResult, LineWriter, Sink, SinkError};
use crate::trajectory::{EndedEvent, StatusEvent};

/// Writes every event as one line of JSON.
pub struct JsonLines {
    out: LineWriter,
    line: Vec<u8>,
    with_ended: bool,
}

impl JsonLines {
    /// To a file, or to standard output when `path` is `-`. `prompt` writes every line at once; `with_ended` also writes the
    /// events at tracks' ends.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn create(path: &Path, prompt: bool, with_ended: bool) -> Result<Self, SinkError> {
        let out = if path == Path::new("-") {
            LineWriter::stdout()
        } else {
            LineWriter::create(path, prompt)?
        };
        Ok(JsonLines {
            out,
            line: Vec::new(),
            with_ended,
        })
    }

    fn write(&mut self, event: &impl Serialize) -> Result<(), SinkError> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, event).expect("events hold nothing that JSON cannot");
        self.line.push(b'\n');
        self.out.write(&self.line)
    }
}

impl Sink for JsonLines {
    fn frame(&mut self, finished: &FrameResult) -> Result<(), SinkError> {
        self.write(&finished.event)
    }

    fn ended(&mut self, event: &EndedEvent) -> Result<(), SinkError> {
        if self.with_ended {
            self.write(event)
        } else {
            Ok(())
        }
    }

    fn status(&mut self, event: &StatusEvent) -> Result<(), SinkError> {
        self.write(event)
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        self.out.flush()
    }
}
