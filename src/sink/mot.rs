//! MOTChallenge result text, for evaluation: the seen tracks of every frame.

use std::path::Path;

use crate::frame::Frame;
use crate::mot_format;
use crate::sink::sink::{LineWriter, Sink, SinkError};
use crate::track::TrackState;
use crate::trajectory::{EndedEvent, FrameEvent};

/// Writes `frame,id,left,top,width,height,confidence,-1,-1,-1`.
pub struct MotText {
    out: LineWriter,
}

impl MotText {
    /// To a file.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(path: &Path) -> Result<Self, SinkError> {
        Ok(MotText { out: LineWriter::create(path, false)? })
    }
}

impl Sink for MotText {
    fn frame(&mut self, _: &Frame, event: &FrameEvent) -> Result<(), SinkError> {
        let mut lines = String::new();
        for t in event.tracks.iter().filter(|t| t.state == TrackState::Confirmed) {
            mot_format::write_row(&mut lines, event.frame, t.id, t.bbox.map(|v| v as f32), t.confidence as f32);
        }
        self.out.write(lines.as_bytes())
    }

    fn ended(&mut self, _: &EndedEvent) -> Result<(), SinkError> {
        Ok(())
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        self.out.flush()
    }
}
