//! Opens an input as the kind of source that it is.

use std::path::{Path, PathBuf};

use crate::mot_files;
use crate::mot_format::MotError;
use crate::source::camera_config::CameraConfig;
use crate::source::error::SourceError;
use crate::source::image_folder::ImageFolder;
use crate::source::input::{is_stream, path_of};
use crate::source::source::{Source, SourceOptions};

/// Opens `input`: an address (`rtsp://…`, `https://…/clip.mp4`, `/dev/video0`), a folder of
/// pictures, a MOTChallenge sequence, or a video file. A camera is connected once: reconnecting is
/// the reader's task ([`crate::source::reconnect`]).
///
/// # Errors
/// If a path is missing, empty, or not of the kind that its name suggests. For a camera as
/// [`open_camera`].
pub fn open(input: &str, options: &SourceOptions) -> Result<Box<dyn Source>, SourceError> {
    if is_stream(input) {
        return open_camera(&CameraConfig::of_input(input, options.recorded), options);
    }
    let path = path_of(input);
    match std::fs::metadata(&path) {
        Err(_) if input == "-" => Err(SourceError::Open {
            input: "standard input".into(),
            kind: "a video",
            reason: "a video needs a file that can be searched; give its path".into(),
        }),
        Err(_) => Err(SourceError::Missing(path)),
        Ok(m) if m.is_dir() => open_folder(&path, options),
        Ok(m) if !m.is_file() => Err(SourceError::Open {
            input: path.display().to_string(),
            kind: "a video",
            reason: "it is a pipe or a device; save it to a file and give that".into(),
        }),
        Ok(m) if m.len() == 0 => Err(SourceError::Empty(path)),
        Ok(_) => open_file(&path, options),
    }
}

/// The video that `seqinfo.ini` in the folder `dir` names (key `video`) in place of pictures.
///
/// # Errors
/// If `seqinfo.ini` is wrong.
pub fn sequence_video(dir: &Path) -> Result<Option<PathBuf>, MotError> {
    if !dir.join("seqinfo.ini").is_file() {
        return Ok(None);
    }
    Ok(mot_files::read_sequence(dir)?
        .video
        .map(|video| dir.join(video)))
}

/// Opens a folder of pictures or a sequence. A sequence whose video is missing is opened without
/// pixels if `options` allow it.
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

/// Connects to the camera or remote recording that `config` describes, once.
///
/// # Errors
/// If it does not answer within its timeout or rejects the request, or if its password cannot be
/// read.
#[cfg(feature = "video")]
pub fn open_camera(
    config: &CameraConfig,
    options: &SourceOptions,
) -> Result<Box<dyn Source>, SourceError> {
    use crate::source::video::{Timeouts, Video};
    use crate::time::Seconds;
    let options = SourceOptions {
        target_fps: config.target_fps.or(options.target_fps),
        late: Some(Seconds(config.late)),
        recorded: config.recorded,
        decoding: match config.recorded {
            Some(true) => options.decoding,
            _ => options.decoding.of_camera(),
        },
        ..options.clone()
    };
    let timeouts = Timeouts {
        open: Seconds(config.open_timeout),
        read: Seconds(config.read_timeout),
    };
    Ok(Box::new(Video::open_stream(
        &config.address()?,
        timeouts,
        &options,
    )?))
}

#[cfg(feature = "video")]
fn open_file(path: &Path, options: &SourceOptions) -> Result<Box<dyn Source>, SourceError> {
    Ok(Box::new(crate::source::video::Video::open_file(
        path, options,
    )?))
}

/// Fails: this build cannot decode streams.
///
/// # Errors
/// [`SourceError::NoVideo`].
#[cfg(not(feature = "video"))]
pub fn open_camera(
    config: &CameraConfig,
    _: &SourceOptions,
) -> Result<Box<dyn Source>, SourceError> {
    Err(SourceError::NoVideo {
        input: config.url.to_string(),
    })
}

#[cfg(not(feature = "video"))]
fn open_file(path: &Path, _: &SourceOptions) -> Result<Box<dyn Source>, SourceError> {
    Err(SourceError::NoVideo {
        input: path.display().to_string(),
    })
}
