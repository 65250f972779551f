//! Video files and network cameras, decoded by OpenCV (FFmpeg).

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use opencv::core::{Mat, MatTraitConst, MatTraitConstManual, Vector};
use opencv::videoio::{self, VideoCapture, VideoCaptureTrait, VideoCaptureTraitConst};

use crate::frame::{Frame, Image};
use crate::source::camera_clock::CameraClock;
use crate::source::seek::{self, Landing};
use crate::source::source::{Source, SourceError, SourceInfo, SourceOptions, check_size, is_device, without_password};
use crate::source::timeline::{Lateness, Thinning, Timeline};
use crate::time::{Seconds, Timestamp, WallTime};

/// How long a camera may take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Patience {
    /// To answer.
    pub open: Seconds,
    /// To send its next frame.
    pub read: Seconds,
}

/// A video file or a camera.
pub struct Video {
    capture: VideoCapture,
    mat: Mat,
    info: SourceInfo,
    /// The input, without any password.
    input: String,
    timeline: Timeline,
    /// Frames read so far.
    read: u64,
    /// Frames that the file announces.
    announced: Option<u64>,
    options: SourceOptions,
    first: Option<Seconds>,
    thinning: Option<Thinning>,
    lateness: Lateness,
    clock: CameraClock,
    opened: Instant,
    /// The container knows no times, as a row of JPEG pictures over HTTP does not: a frame's time is its arrival.
    timeless: bool,
}

impl Video {
    /// Opens a video file.
    ///
    /// # Errors
    /// When it is no video, or has no usable size.
    pub fn open_file(input: &str, options: &SourceOptions) -> Result<Self, SourceError> {
        let capture = VideoCapture::from_file(input, videoio::CAP_FFMPEG).map_err(|e| read_error(input, e))?;
        if !capture.is_opened().unwrap_or(false) {
            let reason = "it is not a video that FFmpeg knows, or it is damaged; try to play it with ffplay".into();
            return Err(SourceError::Open { input: input.into(), kind: "a video", reason });
        }
        let name = Path::new(input).file_stem().map(|n| n.to_string_lossy().into_owned());
        let announced = Some(property(&capture, videoio::CAP_PROP_FRAME_COUNT)).filter(|n| *n >= 1.0 && *n < 1e12).map(|n| n as u64);
        let mut video = Self::new(capture, input.into(), name, false, announced, options)?;
        if let Some(Landing { capture, read, first }) = seek::open(input, options.start) {
            (video.capture, video.read, video.first) = (capture, read, Some(first));
        }
        Ok(video)
    }

    /// Opens a camera by its address.
    ///
    /// # Errors
    /// When it does not answer in time, or refuses.
    pub fn open_stream(input: &str, patience: Patience, options: &SourceOptions) -> Result<Self, SourceError> {
        let shown = without_password(input);
        let milliseconds = |s: Seconds| (1000.0 * s.0).round() as i32;
        let (open, read) = (milliseconds(patience.open), milliseconds(patience.read));
        if is_device(input) {
            let capture = VideoCapture::from_file(input, videoio::CAP_V4L2).map_err(|e| read_error(input, e))?;
            if !capture.is_opened().unwrap_or(false) {
                let reason = "no such camera, or in use, or not allowed; `ls -l /dev/video*` shows them, the group `video` may read them".into();
                return Err(SourceError::Open { input: input.into(), kind: "a camera", reason });
            }
            return Self::new(capture, input.into(), Path::new(input).file_name().map(|n| n.to_string_lossy().into_owned()), true, None, options);
        }
        let parameters = Vector::from_slice(&[videoio::CAP_PROP_OPEN_TIMEOUT_MSEC, open, videoio::CAP_PROP_READ_TIMEOUT_MSEC, read]);
        let capture = VideoCapture::from_file_with_params(input, videoio::CAP_FFMPEG, &parameters).map_err(|e| read_error(&shown, e))?;
        if !capture.is_opened().unwrap_or(false) {
            let reason = format!("no answer within {} s, or refused; check address, port, user and password", patience.open.0);
            return Err(SourceError::Open { input: shown, kind: "a camera", reason });
        }
        let host = shown.split("://").nth(1).map(|r| r.trim_start_matches("***@").split(['/', ':']).next().unwrap_or(r).to_string());
        Self::new(capture, shown, host, true, None, options)
    }

    fn new(
        capture: VideoCapture,
        input: String,
        name: Option<String>,
        live: bool,
        announced: Option<u64>,
        options: &SourceOptions,
    ) -> Result<Self, SourceError> {
        let (width, height) = (property(&capture, videoio::CAP_PROP_FRAME_WIDTH) as u32, property(&capture, videoio::CAP_PROP_FRAME_HEIGHT) as u32);
        if !live {
            check_size(&input, 1, width, height)?;
        }
        let frame_rate = property(&capture, videoio::CAP_PROP_FPS);
        let wanted = |n: u64| {
            let skipped = (options.start.0 * frame_rate).ceil() as u64;
            let rest = n.saturating_sub(skipped);
            options.duration.map_or(rest, |d| rest.min((d.0 * frame_rate).ceil() as u64))
        };
        let camera: Arc<str> = options.camera.clone().or(name).unwrap_or_else(|| "camera".into()).into();
        let info = SourceInfo { camera, width, height, frame_rate, frames: announced.map(wanted), live, has_pixels: true };
        // "MJPG", or "mjpe" by older OpenCVs
        let codec = String::from_utf8_lossy(&(property(&capture, videoio::CAP_PROP_FOURCC) as u32).to_le_bytes()).into_owned();
        tracing::debug!(%input, width, height, frame_rate, codec, "video opened");
        Ok(Video {
            capture,
            mat: Mat::default(),
            info,
            timeless: is_device(&input) || (input.starts_with("http") && codec.to_lowercase().starts_with("mjp")),
            input,
            timeline: Timeline::new(frame_rate),
            read: 0,
            announced,
            options: options.clone(),
            first: None,
            thinning: options.target_fps.map(Thinning::new),
            lateness: Lateness::default(),
            clock: CameraClock::default(),
            opened: Instant::now(),
        })
    }

    /// The wall-clock time of a camera's frame.
    fn wall_time(&mut self, reported: Seconds) -> WallTime {
        let zero = if self.timeless { 0.0 } else { property(&self.capture, videoio::CAP_PROP_STREAM_OPEN_TIME_USEC) };
        self.clock.time(&self.info.camera, zero, reported, Timestamp::now())
    }

    /// Takes the next frame without decoding it; `false` at the end.
    fn grab(&mut self) -> Result<bool, SourceError> {
        if self.capture.grab().map_err(|e| read_error(&self.input, e))? {
            self.read += 1;
            return Ok(true);
        }
        if self.info.live {
            return Err(SourceError::CameraLost { input: self.input.clone() });
        }
        // The count in a file's header may be off by a frame or two, but not by more.
        match self.announced {
            Some(n) if self.read + 2 + n / 50 < n => Err(SourceError::Truncated { input: self.input.clone(), read: self.read, expected: n }),
            _ => Ok(false),
        }
    }
}

impl Source for Video {
    fn info(&self) -> &SourceInfo {
        &self.info
    }

    fn next_frame(&mut self) -> Result<Option<Frame>, SourceError> {
        loop {
            self.options.link.beat();
            // Frames that are skipped give nobody else the chance to look.
            if self.options.link.stopped() || !self.grab()? {
                return Ok(None);
            }
            let now = Seconds(self.opened.elapsed().as_secs_f64());
            let reported = Seconds(property(&self.capture, videoio::CAP_PROP_POS_MSEC) / 1000.0);
            let time_of_stream = if self.timeless { now } else { reported };
            let pts = self.timeline.next((time_of_stream.0 > 0.0).then_some(time_of_stream));
            let since = pts - *self.first.get_or_insert(pts);
            if since < self.options.start {
                continue;
            }
            if self.options.duration.is_some_and(|d| since.0 >= self.options.start.0 + d.0 - 1e-6) {
                return Ok(None);
            }
            if let Some(limit) = self.options.late.filter(|_| !self.timeless)
                && self.lateness.of(now, pts, limit) > limit
            {
                self.options.link.late();
                continue;
            }
            if self.thinning.as_mut().is_some_and(|thin| !thin.takes(pts)) {
                self.options.link.thinned();
                continue;
            }
            if !self.capture.retrieve(&mut self.mat, 0).map_err(|e| read_error(&self.input, e))? {
                continue; // this picture is damaged, the next may be whole
            }
            let image = image_of(&self.mat).map_err(|reason| SourceError::Read { input: self.input.clone(), reason })?;
            check_size(&self.input, self.read, image.width, image.height)?;
            let time = if self.info.live { Some(self.wall_time(reported)) } else { self.options.wall_time(since) };
            let (width, height) = (image.width, image.height);
            return Ok(Some(Frame { camera: self.info.camera.clone(), number: self.read, pts, time, width, height, image: Some(image), restart: false }));
        }
    }
}

/// A decoded BGR matrix as plain bytes.
pub(crate) fn image_of(mat: &Mat) -> Result<Image, String> {
    if mat.empty() {
        return Err("it holds no picture".into());
    }
    if mat.typ() != opencv::core::CV_8UC3 {
        return Err(format!("its pixels are of OpenCV type {}, where 8-bit BGR is needed", mat.typ()));
    }
    let bytes = mat.data_bytes().map_err(|e| e.message)?;
    Ok(Image::packed(mat.cols() as u32, mat.rows() as u32, bytes.into()))
}

fn property(capture: &VideoCapture, id: i32) -> f64 {
    capture.get(id).unwrap_or(0.0)
}

fn read_error(input: &str, e: opencv::Error) -> SourceError {
    SourceError::Read { input: input.into(), reason: e.message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_is_noticed_while_frames_are_skipped() {
        let clip = concat!(env!("CARGO_MANIFEST_DIR"), "/samples/pets2009-s2l1.mp4");
        let options = SourceOptions { start: Seconds(1e6), ..SourceOptions::default() };
        let mut video = Video::open_file(clip, &options).expect("the clip opens");
        let before = video.read;
        options.link.stop();
        assert!(video.next_frame().expect("no error").is_none());
        assert_eq!(video.read, before, "frames were read after the stop");
    }
}
