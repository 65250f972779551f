//! The trait that every source implements, its description before the first frame, and the options
//! for opening it.

use std::sync::Arc;

use derive_setters::Setters;

use crate::frame::Frame;
use crate::source::error::SourceError;
use crate::source::link::Link;
use crate::source::source_config::SourceConfig;
use crate::time::{Clock, Seconds, Timestamp, WallTime};

/// A stream of frames. Blocks; run it on its own thread.
pub trait Source: Send {
    /// Properties that are known before the first frame.
    fn info(&self) -> &SourceInfo;

    /// The next frame, or `None` at the end.
    ///
    /// # Errors
    /// If the source ends before its announced end, or gives frames that cannot be used.
    fn next_frame(&mut self) -> Result<Option<Frame>, SourceError>;
}

/// Properties of a source that are known before its first frame.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceInfo {
    /// The camera's short name.
    pub camera: Arc<str>,
    /// Width of a frame in pixels; 0 if unknown.
    pub width: u32,
    /// Height of a frame in pixels; 0 if unknown.
    pub height: u32,
    /// Frames per second; 0 if unknown.
    pub frame_rate: f64,
    /// Number of frames to come, if known.
    pub frames: Option<u64>,
    /// Whether it is a camera, which does not wait for its reader.
    pub live: bool,
    /// Whether frames have pixels.
    pub has_pixels: bool,
}

/// How a source is read.
#[derive(Debug, Clone, Default, Setters)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct SourceOptions {
    /// Short name of the camera; derived from the input if absent.
    pub camera: Option<String>,
    /// Time in the input at which to begin.
    pub start: Seconds,
    /// Time to read; to the end if absent.
    pub duration: Option<Seconds>,
    /// Wall-clock time of the first frame of a recording, if known.
    pub recorded_at: Option<Timestamp>,
    /// Whether a MOTChallenge sequence may be opened without its pictures.
    pub pixels_optional: bool,
    /// Frames per second of a folder of pictures that does not state it; 25 if absent.
    pub frame_rate: Option<f64>,
    /// Width and height in pixels of a sequence's frames, if neither `seqinfo.ini` nor pictures
    /// state them.
    pub frame_size: Option<(u32, u32)>,
    /// Whether a stream with an address is a recording, which ends and of which no frame is
    /// dropped, or a camera. If absent, the stream decides: over HTTP one of known length is a
    /// recording; devices and RTSP are cameras.
    pub recorded: Option<bool>,
    /// Frames per second to read of a video or camera, evenly spaced; all if absent.
    pub target_fps: Option<f64>,
    /// A camera's frame is dropped if it arrives later than this after its time; never if absent.
    pub late: Option<Seconds>,
    /// How videos are decoded.
    pub decoding: SourceConfig,
    /// The link to the supervisor.
    pub link: Link,
}

impl SourceOptions {
    /// Wall-clock time of a recording's frame; `since` is its time since the first frame.
    pub fn wall_time(&self, since: Seconds) -> Option<WallTime> {
        self.recorded_at.map(|t| WallTime {
            at: t.plus(since),
            clock: Some(Clock::Recording),
        })
    }
}
