//! The trait every way out is, and a writer of whole lines that the others stand on.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::detection::Detection;
use crate::frame::Frame;
use crate::range::{OutOfRange, within};
use crate::sink::private;
use crate::trajectory::{EndedEvent, FrameEvent, StatusEvent};

/// A frame when everything is known of it.
#[derive(Debug)]
pub struct FrameResult {
    /// The frame itself, for those who draw.
    pub frame: Frame,
    /// What the detector found in it.
    pub detections: Vec<Detection>,
    /// Its event.
    pub event: FrameEvent,
}

/// A way out for events. Blocks; belongs on a thread of its own.
pub trait Sink: Send {
    /// Takes a finished frame.
    ///
    /// # Errors
    /// When it cannot be written. What was written before stays valid.
    fn frame(&mut self, finished: &FrameResult) -> Result<(), SinkError>;

    /// Takes the event of a track's end; who has no use for it ignores it.
    ///
    /// # Errors
    /// As [`Sink::frame`].
    fn ended(&mut self, _event: &EndedEvent) -> Result<(), SinkError> {
        Ok(())
    }

    /// Takes the event of a camera's change of state; who has no use for it ignores it.
    ///
    /// # Errors
    /// As [`Sink::frame`].
    fn status(&mut self, _event: &StatusEvent) -> Result<(), SinkError> {
        Ok(())
    }

    /// Nothing more comes: begins to deliver what is left, without waiting. Called on every sink
    /// before the first [`Sink::finish`], so that the time that each may take runs for all at once.
    fn close(&mut self) {}

    /// Writes what is still held back, and closes.
    ///
    /// # Errors
    /// As [`Sink::frame`].
    fn finish(&mut self) -> Result<(), SinkError>;
}

/// What is written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutputConfig {
    /// Also write believed tracks that are not seen in a frame, at their predicted place, as state `lost`.
    pub lost: bool,
    /// Write them in any case, and into MOTChallenge files, while they have been unseen for at most this long, seconds: the
    /// detector missed them, they did not go. Higher bridges longer misses, and shows people longer who have gone.
    pub coast: f64,
    /// Also write an event when a track ends, with its path.
    pub ended: bool,
    /// Add the averaged embedding to the event of a track's end.
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
    /// Refuses values outside their ranges.
    ///
    /// # Errors
    /// The first such value.
    pub fn validate(&self) -> Result<(), OutOfRange> {
        within("output.coast", self.coast, 0.0, 3600.0)
    }

    /// Whether a track is written that has been unseen for so long (zero when it is seen).
    pub fn shows(&self, unseen: f64) -> bool {
        self.lost || self.coasts(unseen)
    }

    /// Whether a track unseen for so long counts as still there.
    pub fn coasts(&self, unseen: f64) -> bool {
        unseen <= self.coast + 1e-6
    }
}

/// What can go wrong with a way out.
#[derive(Debug, Error)]
pub enum SinkError {
    /// A file cannot be made.
    #[error("cannot write to {}: {source}", path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Writing failed half way.
    #[error("writing to {} failed: {source}; what was written before is whole (free some space, or write elsewhere)", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is none of ours.
    #[error("{} holds something else than events; give another file", .0.display())]
    Foreign(PathBuf),
    /// The events that wait for a receiver cannot be kept.
    #[error("cannot keep events in {}: {reason}", path.display())]
    Spool {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A receiver's settings are wrong.
    #[error("{sink}: {reason}")]
    Settings {
        /// The sink.
        sink: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// An annotated video cannot be made.
    #[error("cannot write the video {}: {reason}", path.display())]
    Video {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// Writes whole lines only: when the disk is full, the file ends with the last line that fitted.
pub struct LineWriter {
    path: PathBuf,
    out: Box<dyn Write + Send>,
    /// The same file, when it is a regular one and can be cut back.
    regular: Option<File>,
    buffer: Vec<u8>,
    /// Bytes of whole lines in the file.
    written: u64,
    /// Bytes held back before they are written.
    hold: usize,
}

impl LineWriter {
    /// Makes the file, readable by its owner only (the content of one that exists is replaced).
    /// `prompt` writes every line at once, for who reads along.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(path: &Path, prompt: bool) -> Result<Self, SinkError> {
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
            hold: if regular && !prompt { 64 * 1024 } else { 0 },
            regular: second,
            buffer: Vec::new(),
            written: 0,
        })
    }

    /// Standard output, every line at once.
    pub fn stdout() -> Self {
        LineWriter {
            path: "standard output".into(),
            out: Box::new(io::stdout()),
            regular: None,
            buffer: Vec::new(),
            written: 0,
            hold: 0,
        }
    }

    /// Adds whole lines (with their newlines).
    ///
    /// # Errors
    /// When the disk is full, or the reader has gone.
    pub fn write(&mut self, lines: &[u8]) -> Result<(), SinkError> {
        self.buffer.extend_from_slice(lines);
        if self.buffer.len() > self.hold {
            self.flush()
        } else {
            Ok(())
        }
    }

    /// Writes what is held back.
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
            // Keep the lines that fitted, cut off the piece of the next.
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
