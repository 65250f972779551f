//! Video files and network cameras, decoded by OpenCV (FFmpeg).

mod capture;
mod decoded;
mod open;
mod retrieve;

use std::time::Instant;

use opencv::core::{Mat, MatTraitConst, MatTraitConstManual};
use opencv::videoio::{self, VideoCapture, VideoCaptureTrait, VideoCaptureTraitConst};

pub use self::decoded::hardware;
use self::decoded::{Buffers, Converter};
use crate::clock;
use crate::frame::{Frame, Image};
use crate::source::camera_clock::CameraClock;
use crate::source::container::Container;
use crate::source::error::{SourceError, check_size};
use crate::source::source::{Source, SourceInfo, SourceOptions};
use crate::source::timeline::{Breaks, Lateness, Thinning, Timeline};
use crate::time::{Seconds, WallTime};

/// Timeouts of a camera.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Timeouts {
    /// Timeout for opening the camera.
    pub open: Seconds,
    /// Timeout for the next frame of the camera.
    pub read: Seconds,
}

/// A video file or a stream.
pub struct Video {
    capture: VideoCapture,
    /// Converts frames of the present format.
    converter: Option<Converter>,
    buffers: Buffers,
    info: SourceInfo,
    /// The input, without any password.
    input: String,
    timeline: Timeline,
    /// Frames read so far.
    read: u64,
    /// Completeness of a local file; absent for a stream.
    container: Option<Container>,
    /// Number of frames stored in the container, otherwise its estimate.
    announced: Option<u64>,
    /// Width of a pixel over its height.
    pixel_aspect: f32,
    breaks: Breaks,
    options: SourceOptions,
    first: Option<Seconds>,
    thinning: Option<Thinning>,
    lateness: Lateness,
    clock: CameraClock,
    opened: Instant,
    /// The stream has no timestamps, such as MJPEG over HTTP: a frame's time is the time of its
    /// arrival.
    timeless: bool,
}

/// This many undecodable frames in a row are taken for the end of the file.
const MAX_DAMAGED: u64 = 1000;

impl Video {
    /// The wall-clock time of a camera's current frame.
    fn wall_time(&mut self) -> WallTime {
        // Frames that the decoder releases at the end of a stream have no time.
        let reported = self.timeline.reported();
        let zero = if self.timeless {
            0.0
        } else {
            property(&self.capture, videoio::CAP_PROP_STREAM_OPEN_TIME_USEC)
        };
        self.clock
            .time(&self.info.camera, zero, reported, clock::now())
    }

    /// Advances to the next frame without decoding it; `false` at the end.
    fn grab(&mut self) -> Result<bool, SourceError> {
        if self.try_grab()? {
            return Ok(true);
        }
        if self.info.live {
            return Err(SourceError::CameraLost {
                input: self.input.clone(),
            });
        }
        if self.resumes()? {
            return Ok(true);
        }
        let Some(Container { cut, stores_count }) = &self.container else {
            return Ok(false);
        };
        if let Some(how) = cut {
            return Err(SourceError::Truncated {
                input: self.input.clone(),
                read: self.read,
                how: how.clone(),
            });
        }
        // Stored numbers may be off by one or two.
        let missing = self
            .announced
            .filter(|_| *stores_count)
            .map_or(0, |all| all.saturating_sub(self.read));
        if missing > 2 {
            self.damaged(missing);
        }
        Ok(false)
    }

    fn try_grab(&mut self) -> Result<bool, SourceError> {
        decoded::forget();
        let grabbed = self
            .capture
            .grab()
            .map_err(|e| read_error(&self.input, e))?;
        self.read += u64::from(grabbed);
        Ok(grabbed)
    }

    /// Skips undecodable frames, which look like the end of the file to OpenCV. Returns whether
    /// another frame follows.
    fn resumes(&mut self) -> Result<bool, SourceError> {
        // A stream is not probed: each attempt may block.
        let Some(container) = &self.container else {
            return Ok(false);
        };
        // The last frame of a cut file is damaged; the missing end is reported instead.
        let is_reported = container.cut.is_some();
        for skipped in 1..=MAX_DAMAGED {
            if self.try_grab()? {
                self.read += skipped;
                if !is_reported {
                    self.damaged(skipped);
                }
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Counts and logs frames that could not be decoded.
    fn damaged(&mut self, frames: u64) {
        self.options.link.count_damaged(frames);
        tracing::warn!(
            input = %self.input, after = self.read, frames,
            "frames could not be decoded and are dropped"
        );
    }
}

impl Source for Video {
    fn info(&self) -> &SourceInfo {
        &self.info
    }

    fn next_frame(&mut self) -> Result<Option<Frame>, SourceError> {
        loop {
            self.options.link.mark_active();
            // Checked here too, because skipped frames do not return to the caller.
            if self.options.link.stopped() || !self.grab()? {
                return Ok(None);
            }
            let now = Seconds(self.opened.elapsed().as_secs_f64());
            let reported = Seconds(property(&self.capture, videoio::CAP_PROP_POS_MSEC) / 1000.0);
            let time_of_stream = if self.timeless { now } else { reported };
            let pts = self
                .timeline
                .next((time_of_stream.0 > 0.0).then_some(time_of_stream));
            let since = pts - *self.first.get_or_insert(pts);
            if since < self.options.start {
                continue;
            }
            // A camera's duration counts over interruptions, so its reader ends it.
            let over = |d: Seconds| since.0 >= self.options.start.0 + d.0 - 1e-6;
            if !self.info.live && self.options.duration.is_some_and(over) {
                return Ok(None);
            }
            if let Some(limit) = self
                .options
                .late
                .filter(|_| self.info.live && !self.timeless)
                && self.lateness.of(now, pts, limit) > limit
            {
                self.options.link.count_late();
                continue;
            }
            if self.thinning.as_mut().is_some_and(|thin| !thin.takes(pts)) {
                self.options.link.count_thinned();
                continue;
            }
            let Some(image) = self.retrieve()? else {
                self.damaged(1);
                continue;
            };
            let image = image.with_pixel_aspect(self.pixel_aspect);
            check_size(&self.input, self.read, image.width, image.height)?;
            let time = if self.info.live {
                Some(self.wall_time())
            } else {
                self.options.wall_time(since)
            };
            let (width, height) = (image.width, image.height);
            // The restart marks of a camera span interruptions: `Reconnect` sets them.
            let restart = !self.info.live && self.breaks.before(pts, (width, height));
            return Ok(Some(Frame {
                camera: self.info.camera.clone(),
                number: self.read,
                pts,
                time,
                width,
                height,
                image: Some(image),
                restart,
            }));
        }
    }
}

/// Converts a decoded BGR matrix, or says why it cannot.
pub(crate) fn image_of(mat: &Mat) -> Result<Image, String> {
    if mat.empty() {
        return Err("it contains no picture".into());
    }
    if mat.typ() != opencv::core::CV_8UC3 {
        return Err(format!(
            "its pixels have OpenCV type {} instead of 8-bit BGR",
            mat.typ()
        ));
    }
    let bytes = mat.data_bytes().map_err(|e| e.message)?;
    Ok(Image::packed(
        mat.cols() as u32,
        mat.rows() as u32,
        bytes.into(),
    ))
}

/// Number of frames stored or estimated by the container; `None` if its length is unknown.
fn announced(capture: &VideoCapture) -> Option<u64> {
    Some(property(capture, videoio::CAP_PROP_FRAME_COUNT))
        .filter(|n| *n >= 1.0 && *n < 1e12)
        .map(|n| n as u64)
}

fn property(capture: &VideoCapture, id: i32) -> f64 {
    capture.get(id).unwrap_or(0.0)
}

fn read_error(input: &str, e: opencv::Error) -> SourceError {
    SourceError::Read {
        input: input.into(),
        reason: e.message,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_stop_request_ends_skipping_of_frames() {
        let clip = concat!(env!("CARGO_MANIFEST_DIR"), "/samples/pets2009-s2l1.mp4");
        let options = SourceOptions {
            start: Seconds(1e6),
            ..SourceOptions::default()
        };
        let mut video = Video::open_file(Path::new(clip), &options).expect("the clip opens");
        let before = video.read;
        options.link.stop();
        assert!(video.next_frame().expect("no error").is_none());
        assert_eq!(video.read, before, "frames were read after the stop");
    }
}
