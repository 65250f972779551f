//! MOTChallenge text: results (the tracks of every frame that are seen or were a moment ago) or detections.

use std::path::Path;

use crate::mot_format;
use crate::sink::sink::{FrameResult, LineWriter, OutputConfig, Sink, SinkError};

/// Writes `frame,id,left,top,width,height,confidence,-1,-1,-1`.
pub struct MotText {
    out: LineWriter,
    what: What,
    output: OutputConfig,
}

/// What the lines are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Tracks, for evaluation.
    Tracks,
    /// Detections (id -1), to track again later with other settings.
    Detections,
}

impl MotText {
    /// To a file.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(path: &Path, what: What, output: &OutputConfig) -> Result<Self, SinkError> {
        Ok(MotText {
            out: LineWriter::create(path, false)?,
            what,
            output: output.clone(),
        })
    }
}

impl Sink for MotText {
    fn frame(
        &mut self,
        FrameResult {
            event, detections, ..
        }: &FrameResult,
    ) -> Result<(), SinkError> {
        let mut lines = String::new();
        match self.what {
            What::Tracks => {
                for t in event
                    .tracks
                    .iter()
                    .filter(|t| self.output.coasts(t.unseen.unwrap_or(0.0)))
                {
                    mot_format::write_row(
                        &mut lines,
                        event.frame,
                        t.id as i64,
                        t.bbox.map(|v| v as f32),
                        t.confidence as f32,
                    );
                }
            }
            What::Detections => detections.iter().for_each(|d| {
                mot_format::write_row(&mut lines, event.frame, -1, d.bbox.into(), d.confidence)
            }),
        }
        self.out.write(lines.as_bytes())
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        self.out.flush()
    }
}
