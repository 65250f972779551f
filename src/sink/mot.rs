//! MOTChallenge text: the tracks of every frame (detected, or within `output.coast`), or its
//! detections.

use std::path::Path;

use crate::mot_format;
use crate::sink::sink::{FrameResult, LineWriter, OutputConfig, Sink, SinkError};
use crate::track::TrackState;

/// Writes lines of `frame,id,left,top,width,height,confidence,-1,-1,-1`.
pub struct MotText {
    out: LineWriter,
    content: MotContent,
    output: OutputConfig,
}

/// The kind of the lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MotContent {
    /// Tracks, for evaluation.
    Tracks,
    /// Detections (id -1), for tracking later with other settings.
    Detections,
}

impl MotText {
    /// Creates the file.
    ///
    /// # Errors
    /// When the file cannot be created.
    pub fn create(
        path: &Path,
        content: MotContent,
        output: &OutputConfig,
    ) -> Result<Self, SinkError> {
        Ok(MotText {
            out: LineWriter::create(path, false)?,
            content,
            output: output.clone(),
        })
    }
}

impl Sink for MotText {
    fn needs_pixels(&self) -> bool {
        false
    }

    fn frame(
        &mut self,
        FrameResult {
            event, detections, ..
        }: &FrameResult,
    ) -> Result<(), SinkError> {
        let mut lines = String::new();
        match self.content {
            MotContent::Tracks => {
                for t in event.tracks.iter().filter(|t| {
                    t.state != TrackState::Lost || self.output.coasts(t.unseen.unwrap_or(0.0))
                }) {
                    mot_format::write_row(
                        &mut lines,
                        event.frame,
                        t.id as i64,
                        t.bbox.map(|v| v as f32),
                        t.confidence as f32,
                    );
                }
            }
            MotContent::Detections => detections.iter().for_each(|d| {
                mot_format::write_row(&mut lines, event.frame, -1, d.bbox.into(), d.confidence)
            }),
        }
        self.out.write(lines.as_bytes())
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        self.out.flush()
    }
}
