//! JSON lines: one event a line.

use std::path::Path;

use serde::Serialize;

use crate::frame::Frame;
use crate::sink::sink::{LineWriter, Sink, SinkError};
use crate::trajectory::{EndedEvent, FrameEvent};

/// Writes every event as one line of JSON.
pub struct JsonLines {
    out: LineWriter,
    line: Vec<u8>,
}

impl JsonLines {
    /// To a file, or to standard output when `path` is absent or `-`.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn create(path: Option<&Path>, prompt: bool) -> Result<Self, SinkError> {
        let out = match path {
            Some(p) if p != Path::new("-") => LineWriter::create(p, prompt)?,
            _ => LineWriter::stdout(),
        };
        Ok(JsonLines { out, line: Vec::new() })
    }

    fn write(&mut self, event: &impl Serialize) -> Result<(), SinkError> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, event).expect("events hold nothing that JSON cannot");
        self.line.push(b'\n');
        self.out.write(&self.line)
    }
}

impl Sink for JsonLines {
    fn frame(&mut self, _: &Frame, event: &FrameEvent) -> Result<(), SinkError> {
        self.write(event)
    }

    fn ended(&mut self, event: &EndedEvent) -> Result<(), SinkError> {
        self.write(event)
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        self.out.flush()
    }
}
