//! Classifies inputs: streams, local devices, and paths.

use std::path::{Path, PathBuf};

/// Whether `input` is a stream: a URL other than `file://`, or a local video device.
pub fn is_stream(input: &str) -> bool {
    (input.contains("://") && local_file(input).is_none()) || device(input).is_some()
}

/// The path of a `file://` URL.
fn local_file(input: &str) -> Option<PathBuf> {
    input
        .starts_with("file://")
        .then(|| url::Url::parse(input).ok()?.to_file_path().ok())?
}

/// The local video device (Video4Linux) that `input` names: `/dev/video0`, a link in `/dev/v4l`, or
/// a number.
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

/// The path that `input` names if it is not a stream: `input` itself, or the path of a `file://`
/// URL.
pub fn path_of(input: &str) -> PathBuf {
    local_file(input).unwrap_or_else(|| PathBuf::from(input))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_devices_are_cameras() {
        assert!(
            is_stream("rtsp://h/x")
                && is_stream("http://h/x.mjpg")
                && is_stream("/dev/video0")
                && is_stream("/dev/video12")
        );
        assert!(is_stream("/dev/v4l/by-id/usb-046d_C920-video-index0") && is_stream("0"));
        assert_eq!(device("2"), Some("/dev/video2".into()));
        assert!(
            !is_stream("/dev/video")
                && !is_stream("/dev/videos/a.mp4")
                && !is_stream("clip.mp4")
                && !is_stream("0.mp4")
        );
        assert!(!is_stream("file:///tmp/a.mp4"));
    }

    #[test]
    fn a_file_url_becomes_its_path() {
        assert_eq!(
            path_of("file:///tmp/a%20b%25.mp4"),
            PathBuf::from("/tmp/a b%.mp4")
        );
        assert_eq!(path_of("a b%25.mp4"), PathBuf::from("a b%25.mp4"));
        assert_eq!(local_file("file://elsewhere/x.mp4"), None);
        assert_eq!(local_file("http://h/x.mp4"), None);
    }
}
