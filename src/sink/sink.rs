//! The trait that every sink implements, its errors, and a file writer that writes complete lines.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use derive_setters::Setters;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::analytics::SceneView;
use crate::detection::Detection;
use crate::frame::Frame;
use crate::geometry::BBox;
use crate::range::{OutOfRange, within};
use crate::sink::private;
use crate::trajectory::{AnalyticsEvent, EndedEvent, FrameEvent, StatusEvent, WithJson};

/// A processed frame, as handed to the sinks.
#[derive(Debug)]
pub struct FrameResult {
    /// The frame, whose pixels are needed by sinks that draw.
    pub frame: Frame,
    /// The detector's output for the frame.
    pub detections: Vec<Detection>,
    /// The frame's trajectory event.
    pub event: WithJson<FrameEvent>,
    /// Boxes of everybody whom the frame may show, also of those who are not tracked; empty unless
    /// pictures are blurred.
    pub people: Vec<BBox>,
    /// The camera's zones and lines with their counts, for sinks that draw; absent if it has none.
    pub scene: Option<Arc<SceneView>>,
}

/// Receives events. Methods may block on local I/O, so the pipeline calls sinks on a thread of its
/// own.
pub trait Sink: Send {
    /// Writes a processed frame.
    ///
    /// # Errors
    /// When the frame cannot be written. Events written before remain valid.
    fn frame(&mut self, finished: &FrameResult) -> Result<(), SinkError>;

    /// Whether the sink needs the frames' pixels. If no sink of a run needs them, frames have none,
    /// which saves memory.
    fn needs_pixels(&self) -> bool {
        true
    }

    /// Writes a `track_ended` event. By default the event is ignored.
    ///
    /// # Errors
    /// As [`Sink::frame`].
    fn ended(&mut self, _event: &WithJson<EndedEvent>) -> Result<(), SinkError> {
        Ok(())
    }

    /// Writes an event of a zone or line. By default the event is ignored.
    ///
    /// # Errors
    /// As [`Sink::frame`].
    fn analytics(&mut self, _event: &WithJson<AnalyticsEvent>) -> Result<(), SinkError> {
        Ok(())
    }

    /// Writes a `camera_status` event. By default the event is ignored.
    ///
    /// # Errors
    /// As [`Sink::frame`].
    fn status(&mut self, _event: &WithJson<StatusEvent>) -> Result<(), SinkError> {
        Ok(())
    }

    /// A camera was removed, and all its tracks have ended: except for `camera_status`, no event of
    /// the camera follows until the camera is added again.
    fn left(&mut self, _camera: &Arc<str>) {}

    /// Begins shutdown without waiting: no more events follow. Called on every sink before the
    /// first [`Sink::finish`], so that the shutdown timeouts of all sinks run at the same time.
    fn close(&mut self) {}

    /// Writes buffered events, and closes the sink.
    ///
    /// # Errors
    /// As [`Sink::frame`].
    fn finish(&mut self) -> Result<(), SinkError>;
}

/// Passes every event to the sinks in their order; after a sink's error, the sinks behind it do not
/// get the event.
impl Sink for Vec<Box<dyn Sink>> {
    fn frame(&mut self, finished: &FrameResult) -> Result<(), SinkError> {
        self.iter_mut().try_for_each(|sink| sink.frame(finished))
    }

    fn needs_pixels(&self) -> bool {
        self.iter().any(|sink| sink.needs_pixels())
    }

    fn ended(&mut self, event: &WithJson<EndedEvent>) -> Result<(), SinkError> {
        self.iter_mut().try_for_each(|sink| sink.ended(event))
    }

    fn analytics(&mut self, event: &WithJson<AnalyticsEvent>) -> Result<(), SinkError> {
        self.iter_mut().try_for_each(|sink| sink.analytics(event))
    }

    fn status(&mut self, event: &WithJson<StatusEvent>) -> Result<(), SinkError> {
        self.iter_mut().try_for_each(|sink| sink.status(event))
    }

    fn left(&mut self, camera: &Arc<str>) {
        self.iter_mut().for_each(|sink| sink.left(camera));
    }

    fn close(&mut self) {
        self.iter_mut().for_each(|sink| sink.close());
    }

    /// Finishes all sinks, and returns the first error.
    fn finish(&mut self) -> Result<(), SinkError> {
        let finished: Vec<_> = self.iter_mut().map(|sink| sink.finish()).collect();
        finished.into_iter().collect()
    }
}

/// Settings: which tracks and events are written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Setters)]
#[cfg_attr(feature = "serve", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct OutputConfig {
    /// Also write confirmed tracks that have no detection in a frame, at their predicted position,
    /// as state `lost`.
    pub lost: bool,
    /// Seconds for which a confirmed track without a detection is written at its predicted
    /// position, in the state `lost`, even if `lost` is false, and into MOTChallenge files too.
    /// Higher bridges longer misses of the detector, but shows people who have left for longer.
    pub coast: f64,
    /// Also write a `track_ended` event, with the path, when a track ends.
    pub ended: bool,
    /// Add the mean embedding of the track to `track_ended` events, for `twintrack search`.
    pub embeddings: bool,
}

impl Default for OutputConfig {
    fn default() -> Self {
        OutputConfig {
            lost: false,
            coast: 0.1,
            ended: true,
            embeddings: false,
        }
    }
}

impl OutputConfig {
    /// Checks that every value is in its range.
    ///
    /// # Errors
    /// The first value outside its range.
    pub fn validate(&self) -> Result<(), OutOfRange> {
        within("output.coast", self.coast, 0.0, 3600.0)
    }

    /// Whether a track whose last detection was `unseen` seconds ago is written (0: detected in
    /// this frame).
    pub fn shows(&self, unseen: f64) -> bool {
        self.lost || self.coasts(unseen)
    }

    /// Whether a track whose last detection was `unseen` seconds ago is within
    /// [`OutputConfig::coast`].
    pub fn coasts(&self, unseen: f64) -> bool {
        unseen <= self.coast + 1e-6
    }
}

/// Errors of sinks.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SinkError {
    /// A file cannot be created or opened, or the thread that writes it cannot be started.
    #[error("cannot write to {}: {source}", path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Writing to an open file failed. The file consists of complete lines.
    #[error(
        "writing to {} failed: {source}; all earlier lines are complete \
         (free some space, or write elsewhere)",
        path.display()
    )]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// An existing file holds something other than events, so nothing is appended to it.
    #[error("{} contains something other than events; choose another file", .0.display())]
    Foreign(PathBuf),
    /// The spool of a remote receiver cannot be opened, read or written.
    #[error("cannot use the spool {}: {reason}", path.display())]
    Spool {
        /// The file.
        path: PathBuf,
        /// The cause.
        reason: String,
    },
    /// The settings of a remote receiver are invalid.
    #[error("{sink}: {reason}")]
    Settings {
        /// The sink.
        sink: &'static str,
        /// The cause.
        reason: String,
    },
    /// An annotated video cannot be written.
    #[error("cannot write the video {}: {reason}", path.display())]
    Video {
        /// The file.
        path: PathBuf,
        /// The cause.
        reason: String,
    },
}

/// A buffered file writer that writes complete lines: if writing fails, for example because the
/// disk is full, the file is truncated after the last complete line.
pub struct LineWriter {
    path: PathBuf,
    out: Box<dyn Write + Send>,
    /// The same file, if it is a regular file and so can be truncated.
    regular: Option<File>,
    buffer: Vec<u8>,
    /// Bytes written to the file so far.
    written: u64,
    /// Length in bytes above which the buffer is written.
    buffer_limit: usize,
}

impl LineWriter {
    /// Creates the file, readable by its owner only; the content of an existing file is replaced.
    /// With `unbuffered` every line is written at once, for a program that reads the file at the
    /// same time.
    ///
    /// # Errors
    /// When the file cannot be created.
    pub fn create(path: &Path, unbuffered: bool) -> Result<Self, SinkError> {
        let fail = |source| SinkError::Create {
            path: path.into(),
            source,
        };
        let file = private::options()
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)
            .map_err(fail)?;
        let regular = file.metadata().map_err(fail)?.is_file();
        let second = if regular {
            Some(file.try_clone().map_err(fail)?)
        } else {
            None
        };
        Ok(LineWriter {
            path: path.into(),
            out: Box::new(file),
            buffer_limit: if regular && !unbuffered { 64 * 1024 } else { 0 },
            regular: second,
            buffer: Vec::new(),
            written: 0,
        })
    }

    /// Standard output, unbuffered.
    pub fn stdout() -> Self {
        Self::unbuffered("standard output", Box::new(io::stdout()))
    }

    /// Writes every line at once; `name` is used in messages.
    pub(super) fn unbuffered(name: &str, out: Box<dyn Write + Send>) -> Self {
        LineWriter {
            path: name.into(),
            out,
            regular: None,
            buffer: Vec::new(),
            written: 0,
            buffer_limit: 0,
        }
    }

    /// Adds complete lines (with their newlines).
    ///
    /// # Errors
    /// When the disk is full, or the reader of a pipe has closed it.
    pub fn write(&mut self, lines: &[u8]) -> Result<(), SinkError> {
        self.buffer.extend_from_slice(lines);
        if self.buffer.len() > self.buffer_limit {
            self.flush()
        } else {
            Ok(())
        }
    }

    /// Writes the buffer.
    ///
    /// # Errors
    /// As [`LineWriter::write`].
    pub fn flush(&mut self) -> Result<(), SinkError> {
        let mut sent = 0;
        let mut result = Ok(());
        while sent < self.buffer.len() && result.is_ok() {
            match self.out.write(&self.buffer[sent..]) {
                Ok(0) => result = Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => sent += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => result = Err(e),
            }
        }
        let result = result.and_then(|()| self.out.flush());
        if result.is_err() {
            // Keep the complete lines and truncate the partial one.
            let whole = self.buffer[..sent]
                .iter()
                .rposition(|&b| b == b'\n')
                .map_or(0, |i| i + 1) as u64;
            if let Some(f) = &mut self.regular {
                let _ = f
                    .set_len(self.written + whole)
                    .and_then(|()| f.seek(SeekFrom::Start(self.written + whole)));
            }
        }
        self.written += sent as u64;
        self.buffer.clear();
        result.map_err(|source| SinkError::Write {
            path: self.path.clone(),
            source,
        })
    }
}
