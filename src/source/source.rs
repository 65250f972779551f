//! The trait every source is, what can go wrong with one, and the choice by the input's looks.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

use crate::frame::Frame;
use crate::mot_format::{MotError, SequenceInfo};
use crate::source::image_folder::ImageFolder;
use crate::source::link::Link;
use crate::time::{Clock, Seconds, Timestamp, WallTime};

/// A stream of frames. Blocks; belongs on a thread of its own.
pub trait Source: Send {
    /// What is known before the first frame.
    fn info(&self) -> &SourceInfo;

    /// The next frame, or `None` at the end.
    ///
    /// # Errors
    /// When the source breaks off before its end, or gives frames that cannot be used.
    fn next_frame(&mut self) -> Result<Option<Frame>, SourceError>;
}

/// What is known of a source before its first frame.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceInfo {
    /// The camera's short name.
    pub camera: Arc<str>,
    /// Width of a frame, pixels; 0 where unknown.
    pub width: u32,
    /// Height of a frame, pixels; 0 where unknown.
    pub height: u32,
    /// Frames per second; 0 where unknown.
    pub frame_rate: f64,
    /// How many frames will come, where known.
    pub frames: Option<u64>,
    /// A camera, which does not wait for us.
    pub live: bool,
    /// Frames carry pixels.
    pub has_pixels: bool,
}

/// How a source is read.
#[derive(Debug, Clone, Default)]
pub struct SourceOptions {
    /// Short name of the camera; the input's own name when absent.
    pub camera: Option<String>,
    /// Where to begin.
    pub start: Seconds,
    /// How much to take; all when absent.
    pub duration: Option<Seconds>,
    /// Wall-clock time of the first frame of a recording, where known.
    pub recorded_at: Option<Timestamp>,
    /// A MOTChallenge sequence may come without its pictures.
    pub pixels_optional: bool,
    /// Frames per second of a folder of pictures that does not say; 25 when absent.
    pub frame_rate: Option<f64>,
    /// Width and height of a sequence's frames, pixels, where neither `seqinfo.ini` nor pictures say.
    pub frame_size: Option<(u32, u32)>,
    /// A stream with an address is a recording, which ends, and of which no frame is left out; or a camera. Where absent,
    /// what the stream itself says: over HTTP one of known length is a recording; devices and RTSP are cameras.
    pub recorded: Option<bool>,
    /// At most so many frames a second, evenly; all when absent. Of videos and cameras.
    pub target_fps: Option<f64>,
    /// A camera's frame that comes so long after its time is left out; none when absent.
    pub late: Option<Seconds>,
    /// To whoever supervises the source.
    pub link: Link,
}

impl SourceOptions {
    /// Wall-clock time of a recording's frame, `since` its first.
    pub fn wall_time(&self, since: Seconds) -> Option<WallTime> {
        self.recorded_at.map(|t| WallTime {
            at: t.plus(since),
            clock: Some(Clock::Recording),
        })
    }
}

/// What can go wrong with a source.
#[derive(Debug, Error)]
pub enum SourceError {
    /// The input is not there.
    #[error("the input {} does not exist", .0.display())]
    Missing(PathBuf),
    /// The file has no bytes.
    #[error("the input {} is empty (0 bytes)", .0.display())]
    Empty(PathBuf),
    /// The input cannot be opened as what it looks like.
    #[error("cannot open {input} as {kind}: {reason}")]
    Open {
        /// The input, without any password.
        input: String,
        /// What it was taken for.
        kind: &'static str,
        /// Why, and what to do.
        reason: String,
    },
    /// The file's end is missing.
    #[error(
        "{input} is cut short after frame {read} ({how}); the trajectories up to there are written"
    )]
    Truncated {
        /// The input.
        input: String,
        /// Frames read.
        read: u64,
        /// How the file shows it.
        how: String,
    },
    /// A frame without pixels.
    #[error("frame {number} of {input} is {width}x{height} pixels; a frame needs at least 16x16")]
    FrameSize {
        /// The input.
        input: String,
        /// The frame.
        number: u64,
        /// Its width.
        width: u32,
        /// Its height.
        height: u32,
    },
    /// A picture in a folder cannot be read.
    #[error("cannot read the picture {}: {reason}", path.display())]
    Picture {
        /// The picture.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A MOTChallenge file is wrong.
    #[error(transparent)]
    Mot(#[from] MotError),
    /// OpenCV failed.
    #[error("reading {input} failed: {reason}")]
    Read {
        /// The input.
        input: String,
        /// Why.
        reason: String,
    },
    /// The camera is gone.
    #[error("the camera {input} gives no more frames; check its power, address and network")]
    CameraLost {
        /// The camera, without any password.
        input: String,
    },
    /// The program was built without OpenCV.
    #[error(
        "{input} needs video decoding, and this program was built without it; build with the feature `video`"
    )]
    NoVideo {
        /// The input.
        input: String,
    },
}

/// Smallest side of a usable frame, pixels.
pub const MIN_SIDE: u32 = 16;

/// Refuses frames too small to hold a person.
///
/// # Errors
/// [`SourceError::FrameSize`].
pub fn check_size(input: &str, number: u64, width: u32, height: u32) -> Result<(), SourceError> {
    if width < MIN_SIDE || height < MIN_SIDE {
        Err(SourceError::FrameSize {
            input: input.into(),
            number,
            width,
            height,
        })
    } else {
        Ok(())
    }
}

/// Whether `input` is opened as a stream: a URL that is not a file's, or a device of this machine.
pub fn is_camera(input: &str) -> bool {
    (input.contains("://") && local_file(input).is_none()) || device(input).is_some()
}

/// The path of a `file://` address.
fn local_file(input: &str) -> Option<PathBuf> {
    input
        .starts_with("file://")
        .then(|| url::Url::parse(input).ok()?.to_file_path().ok())?
}

/// The camera of this machine (Video4Linux) that `input` names: `/dev/video0`, a link in `/dev/v4l`, or its number alone.
pub fn device(input: &str) -> Option<PathBuf> {
    let is_number =
        |n: &str| !n.is_empty() && n.len() <= 3 && n.bytes().all(|b| b.is_ascii_digit());
    if is_number(input) && !Path::new(input).exists() {
        return Some(PathBuf::from(format!("/dev/video{input}")));
    }
    let known =
        input.strip_prefix("/dev/video").is_some_and(is_number) || input.starts_with("/dev/v4l/");
    known.then(|| PathBuf::from(input))
}

/// The path that `input` names where it is no camera: itself, or that of a `file://` address.
pub fn path_of(input: &str) -> PathBuf {
    local_file(input).unwrap_or_else(|| PathBuf::from(input))
}

/// Opens `input`: an address (`rtsp://…`, `https://…/clip.mp4`, `/dev/video0`), a folder of pictures, a MOTChallenge
/// sequence, or a video file.
///
/// # Errors
/// When it is missing, empty, or not what it looks like.
pub fn open(input: &str, options: &SourceOptions) -> Result<Box<dyn Source>, SourceError> {
    if is_camera(input) {
        return open_stream(input, options);
    }
    let path = path_of(input);
    match std::fs::metadata(&path) {
        Err(_) => Err(SourceError::Missing(path)),
        Ok(m) if m.is_dir() => open_folder(&path, options),
        Ok(m) if m.is_file() && m.len() == 0 => Err(SourceError::Empty(path)),
        Ok(_) => open_file(&path, options),
    }
}

/// The video that the sequence in the folder `dir` names in place of pictures (key `video` of `seqinfo.ini`).
///
/// # Errors
/// When `seqinfo.ini` is wrong.
pub fn sequence_video(dir: &Path) -> Result<Option<PathBuf>, MotError> {
    if !dir.join("seqinfo.ini").is_file() {
        return Ok(None);
    }
    Ok(SequenceInfo::read(dir)?.video.map(|video| dir.join(video)))
}

/// A folder of pictures or a sequence; a sequence's video where it names one, but where that is missing and pixels are optional.
fn open_folder(dir: &Path, options: &SourceOptions) -> Result<Box<dyn Source>, SourceError> {
    match sequence_video(dir)? {
        Some(video) if !video.is_file() && !options.pixels_optional => {
            Err(SourceError::Missing(video))
        }
        Some(video) if video.is_file() => {
            let name = dir
                .canonicalize()
                .ok()
                .and_then(|d| Some(d.file_name()?.to_string_lossy().into_owned()));
            open_file(
                &video,
                &SourceOptions {
                    camera: options.camera.clone().or(name),
                    ..options.clone()
                },
            )
        }
        _ => Ok(Box::new(ImageFolder::open(dir, options)?)),
    }
}

#[cfg(feature = "video")]
fn open_stream(input: &str, options: &SourceOptions) -> Result<Box<dyn Source>, SourceError> {
    use crate::address::Address;
    use crate::source::camera::{self, CameraConfig, Opened};
    // Where nobody would try again, a slow camera gets the time that it would get in the end.
    const FIRST_ANSWER: f64 = 8.0;
    let config = CameraConfig {
        url: Address::new(input),
        recorded: options.recorded,
        open_timeout: FIRST_ANSWER,
        ..CameraConfig::default()
    };
    Ok(match camera::open(config, options)? {
        Opened::Camera(camera) => camera,
        Opened::Recording(video) => video,
    })
}

#[cfg(feature = "video")]
fn open_file(path: &Path, options: &SourceOptions) -> Result<Box<dyn Source>, SourceError> {
    Ok(Box::new(crate::source::video::Video::open_file(
        path, options,
    )?))
}

#[cfg(not(feature = "video"))]
fn open_stream(input: &str, _: &SourceOptions) -> Result<Box<dyn Source>, SourceError> {
    Err(SourceError::NoVideo {
        input: crate::address::masked(input),
    })
}

#[cfg(not(feature = "video"))]
fn open_file(path: &Path, _: &SourceOptions) -> Result<Box<dyn Source>, SourceError> {
    Err(SourceError::NoVideo {
        input: path.display().to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cameras_are_known_by_their_addresses() {
        assert!(
            is_camera("rtsp://h/x")
                && is_camera("http://h/x.mjpg")
                && is_camera("/dev/video0")
                && is_camera("/dev/video12")
        );
        assert!(is_camera("/dev/v4l/by-id/usb-046d_C920-video-index0") && is_camera("0"));
        assert_eq!(device("2"), Some("/dev/video2".into()));
        assert!(
            !is_camera("/dev/video")
                && !is_camera("/dev/videos/a.mp4")
                && !is_camera("clip.mp4")
                && !is_camera("0.mp4")
        );
        assert!(!is_camera("file:///tmp/a.mp4"));
    }

    #[test]
    fn the_address_of_a_file_is_its_path() {
        assert_eq!(
            path_of("file:///tmp/a%20b%25.mp4"),
            PathBuf::from("/tmp/a b%.mp4")
        );
        assert_eq!(path_of("a b%25.mp4"), PathBuf::from("a b%25.mp4"));
        assert_eq!(local_file("file://elsewhere/x.mp4"), None);
        assert_eq!(local_file("http://h/x.mp4"), None);
    }

    #[test]
    fn a_frame_of_no_pixels_is_refused() {
        let e = check_size("cam", 3, 0, 0).unwrap_err().to_string();
        assert!(e.contains("frame 3") && e.contains("0x0"), "{e}");
        assert!(check_size("cam", 3, 16, 16).is_ok());
    }
}
