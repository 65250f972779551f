//! Errors of sources.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::mot_format::MotError;

/// Errors of opening and reading a source.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The input does not exist.
    #[error("the input {} does not exist{}", .0.display(), address_hint(.0))]
    Missing(PathBuf),
    /// The file is empty.
    #[error("the input {} is empty (0 bytes)", .0.display())]
    Empty(PathBuf),
    /// The input cannot be opened.
    #[error("cannot open {input} as {kind}: {reason}")]
    Open {
        /// The input, without any password.
        input: String,
        /// The kind of source for which the input was taken.
        kind: &'static str,
        /// The cause and the remedy.
        reason: String,
    },
    /// The end of the file is missing. All frames before it were returned.
    #[error(
        "{input} is cut short after frame {read} ({how}); the trajectories up to that frame are \
         written"
    )]
    Truncated {
        /// The input.
        input: String,
        /// Number of frames read.
        read: u64,
        /// The evidence.
        how: String,
    },
    /// A frame is too small.
    #[error("frame {number} of {input} is {width}x{height} pixels; a frame needs at least 16x16")]
    FrameSize {
        /// The input.
        input: String,
        /// The frame's number.
        number: u64,
        /// Width of the frame in pixels.
        width: u32,
        /// Height of the frame in pixels.
        height: u32,
    },
    /// A picture in a folder cannot be read.
    #[error("cannot read the picture {}: {reason}", path.display())]
    Picture {
        /// The picture.
        path: PathBuf,
        /// The cause.
        reason: String,
    },
    /// A MOTChallenge file is invalid.
    #[error(transparent)]
    Mot(#[from] MotError),
    /// The video decoder failed.
    #[error("reading {input} failed: {reason}")]
    Read {
        /// The input.
        input: String,
        /// The cause.
        reason: String,
    },
    /// The connection to the camera was lost.
    #[error("the camera {input} gives no more frames; check its power, address and network")]
    CameraLost {
        /// The camera, without any password.
        input: String,
    },
    /// The program was built without OpenCV.
    #[error(
        "{input} needs video decoding, but this program was built without the feature `video`; \
         rebuild it with --features video"
    )]
    NoVideo {
        /// The input.
        input: String,
    },
}

/// The remedy for a missing path that looks like the address of a camera.
fn address_hint(path: &Path) -> &'static str {
    let text = path.to_string_lossy();
    let place = text.split('/').next().unwrap_or_default();
    let place = place.rsplit('@').next().unwrap_or_default();
    let (host, port) = place
        .rsplit_once(':')
        .filter(|(host, _)| !host.contains(':'))
        .map_or((place, None), |(host, port)| (host, Some(port)));
    let has_port = !host.is_empty() && port.is_some_and(|p| p.parse::<u16>().is_ok());
    if has_port || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
        "; the address of a camera begins with rtsp:// or http://"
    } else {
        ""
    }
}

/// Minimum width and height of a frame in pixels.
pub const MIN_SIDE: u32 = 16;

/// Checks that a frame has at least [`MIN_SIDE`] pixels in width and height.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_a_scheme_is_recognised() {
        let says = |input: &str| {
            let e = SourceError::Missing(input.into()).to_string();
            assert!(e.contains(input), "{e}");
            e.contains("rtsp://")
        };
        for input in [
            "192.168.1.5",
            "192.168.1.5/stream",
            "192.168.1.5:554/h264",
            "admin:secret@192.168.1.5",
            "camera.local:8554/x",
            "[fe80::1]",
            "::1",
        ] {
            assert!(says(input), "{input}");
        }
        for input in ["clip.mp4", "a/192.168.1.5", "10:00:00.mp4", "x:y", "1.2.3"] {
            assert!(!says(input), "{input}");
        }
    }

    #[test]
    fn a_frame_below_the_minimum_size_is_rejected() {
        let e = check_size("cam", 3, 0, 0).unwrap_err().to_string();
        assert!(e.contains("frame 3") && e.contains("0x0"), "{e}");
        assert!(check_size("cam", 3, 16, 16).is_ok());
    }
}
