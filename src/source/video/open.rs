//! Opens video files, streams and devices.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use opencv::videoio::{self, VideoCapture, VideoCaptureTraitConst as _};

use super::decoded::Buffers;
use super::{Timeouts, Video, announced, capture, decoded, property, read_error};
use crate::address::Address;
use crate::source::camera_clock::CameraClock;
use crate::source::container::{self, Container};
use crate::source::diagnosis;
use crate::source::error::{SourceError, check_size};
use crate::source::input::device;
use crate::source::seek::{self, Landing};
use crate::source::source::{SourceInfo, SourceOptions};
use crate::source::timeline::{Breaks, Lateness, Thinning, Timeline};
use crate::time::Seconds;

/// An opened capture and what is known about it.
struct Opening {
    capture: VideoCapture,
    /// The input, without any password.
    input: String,
    name: Option<String>,
    live: bool,
    /// Whether frames have no time.
    timeless: bool,
    /// Completeness of a local file.
    container: Option<Container>,
}

impl Video {
    /// Opens a video file.
    ///
    /// # Errors
    /// If it cannot be read or is not a video, its name is not UTF-8, or its frames are too small.
    pub fn open_file(path: &Path, options: &SourceOptions) -> Result<Self, SourceError> {
        let input = path.display().to_string();
        let fail = |reason: String| SourceError::Open {
            input: input.clone(),
            kind: "a video",
            reason,
        };
        let container = container::look(path).map_err(|e| fail(e.to_string()))?;
        // FFmpeg takes text before a colon for a protocol, unless the path begins with a slash.
        let whole = std::path::absolute(path).map_err(|e| fail(e.to_string()))?;
        let name = whole
            .to_str()
            .ok_or_else(|| fail("its name is not UTF-8; rename it".into()))?;
        let capture =
            capture::open(name, options.decoding, &[]).map_err(|e| read_error(&input, e))?;
        let Some(capture) = capture else {
            return Err(fail(match container.cut {
                Some(how) => {
                    format!("it is cut short ({how}), and the missing part is needed to decode it")
                }
                None => {
                    "FFmpeg does not recognise it as a video, or it is damaged; try ffplay".into()
                }
            }));
        };
        let stem = path.file_stem().map(|n| n.to_string_lossy().into_owned());
        let mut video = Self::new(
            Opening {
                capture,
                input,
                name: stem,
                live: false,
                timeless: false,
                container: Some(container),
            },
            options,
        )?;
        if let Some(Landing {
            capture,
            read,
            first,
        }) = seek::open(name, options.start, || {
            capture::open(name, options.decoding, &[]).ok()?
        }) {
            (video.capture, video.read, video.first) = (capture, read, Some(first));
        }
        Ok(video)
    }

    /// Opens a stream. Unless `options.recorded` decides, a stream over HTTP whose container states
    /// its length is a recording.
    ///
    /// # Errors
    /// If the address is invalid, or it does not answer within the timeout or rejects the request.
    pub fn open_stream(
        address: &Address,
        timeouts: Timeouts,
        options: &SourceOptions,
    ) -> Result<Self, SourceError> {
        let input = address.expose();
        if let Some(device) = device(input) {
            return Self::open_device(&device, options);
        }
        let shown = address.to_string();
        address.check().map_err(|reason| SourceError::Open {
            input: shown.clone(),
            kind: "a camera",
            reason,
        })?;
        let milliseconds = |s: Seconds| (1000.0 * s.0).round() as i32;
        let (open, read) = (milliseconds(timeouts.open), milliseconds(timeouts.read));
        let parameters = [
            videoio::CAP_PROP_OPEN_TIMEOUT_MSEC,
            open,
            videoio::CAP_PROP_READ_TIMEOUT_MSEC,
            read,
        ];
        let capture = capture::open(input, options.decoding, &parameters)
            .map_err(|e| read_error(&shown, e))?;
        let Some(capture) = capture else {
            let doubt = address
                .hint()
                .map(|remedy| format!("; {remedy}"))
                .unwrap_or_default();
            let why = diagnosis::why(address, Duration::from_secs_f64(timeouts.open.0));
            let reason = format!("{why}; check address, port, user and password{doubt}");
            return Err(SourceError::Open {
                input: shown,
                kind: "a camera",
                reason,
            });
        };
        let over_http = input.starts_with("http");
        // "MJPG"; older versions of OpenCV report "mjpe"
        let codec = String::from_utf8_lossy(
            &(property(&capture, videoio::CAP_PROP_FOURCC) as u32).to_le_bytes(),
        )
        .to_lowercase();
        let recorded = options
            .recorded
            .unwrap_or_else(|| over_http && announced(&capture).is_some());
        let host = url::Url::parse(input)
            .ok()
            .and_then(|u| u.host_str().map(str::to_string));
        let timeless = !recorded && over_http && codec.starts_with("mjp");
        Self::new(
            Opening {
                capture,
                input: shown,
                name: host,
                live: !recorded,
                timeless,
                container: None,
            },
            options,
        )
    }

    fn open_device(device: &Path, options: &SourceOptions) -> Result<Self, SourceError> {
        let input = device.display().to_string();
        let fail = |reason: &str| SourceError::Open {
            input: input.clone(),
            kind: "a camera",
            reason: reason.into(),
        };
        // Names in /dev/v4l are stable links; device numbers change between boots.
        let real: PathBuf = device
            .canonicalize()
            .unwrap_or_else(|_| device.to_path_buf());
        let path = real.to_str().ok_or_else(|| fail("its name is not UTF-8"))?;
        let capture =
            VideoCapture::from_file(path, videoio::CAP_V4L2).map_err(|e| read_error(&input, e))?;
        if !capture.is_opened().unwrap_or(false) {
            return Err(fail(
                "it does not exist, is in use, or access is denied; `ls -l /dev/video*` lists the \
                 cameras, and members of the group `video` may read them",
            ));
        }
        let name = device.file_name().map(|n| n.to_string_lossy().into_owned());
        Self::new(
            Opening {
                capture,
                input,
                name,
                live: true,
                timeless: true,
                container: None,
            },
            options,
        )
    }

    fn new(opening: Opening, options: &SourceOptions) -> Result<Self, SourceError> {
        let Opening {
            capture,
            input,
            name,
            live,
            timeless,
            container,
        } = opening;
        let (width, height) = (
            property(&capture, videoio::CAP_PROP_FRAME_WIDTH) as u32,
            property(&capture, videoio::CAP_PROP_FRAME_HEIGHT) as u32,
        );
        if !live && (width == 0 || height == 0) {
            return Err(SourceError::Open {
                input,
                kind: "a video",
                reason: "FFmpeg does not find the size of its frames (animated WebP is not \
                         supported); convert it, for example to MP4"
                    .into(),
            });
        }
        if !live {
            check_size(&input, 1, width, height)?;
        }
        let frame_rate = property(&capture, videoio::CAP_PROP_FPS);
        let announced = announced(&capture).filter(|_| !live);
        let wanted = |n: u64| {
            let skipped = (options.start.0 * frame_rate).ceil() as u64;
            let rest = n.saturating_sub(skipped);
            options
                .duration
                .map_or(rest, |d| rest.min((d.0 * frame_rate).ceil() as u64))
        };
        let camera: Arc<str> = options
            .camera
            .clone()
            .or(name)
            .unwrap_or_else(|| "camera".into())
            .into();
        let info = SourceInfo {
            camera,
            width,
            height,
            frame_rate,
            frames: announced.map(wanted),
            live,
            has_pixels: true,
        };
        let pixel_aspect = (property(&capture, videoio::CAP_PROP_SAR_NUM)
            / property(&capture, videoio::CAP_PROP_SAR_DEN).max(1.0))
            as f32;
        tracing::debug!(%input, width, height, frame_rate, pixel_aspect, ?container, "video opened");
        capture::log_decoder(&capture, &input, options.decoding.hardware);
        if !decoded::is_called() {
            tracing::warn!(
                %input,
                "a change of the frames' size cannot be noticed, and source.threads has no effect: \
                 link the program with -Wl,--export-dynamic-symbol=avcodec_receive_frame \
                 -Wl,--export-dynamic-symbol=avcodec_open2"
            );
        }
        Ok(Video {
            capture,
            converter: None,
            buffers: Buffers::default(),
            info,
            timeless,
            input,
            timeline: if live {
                Timeline::of_stream(frame_rate)
            } else {
                Timeline::of_recording(frame_rate)
            },
            read: 0,
            container,
            announced,
            pixel_aspect,
            breaks: Breaks::default(),
            options: options.clone(),
            first: None,
            thinning: options.target_fps.map(Thinning::new),
            lateness: Lateness::default(),
            clock: CameraClock::default(),
            opened: Instant::now(),
        })
    }
}
