//! Decoded frames have the pixels of OpenCV's own reading.
#![cfg(feature = "video")]
#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::path::Path;

use common::{ffmpeg, has_ffmpeg};
use opencv::core::Mat;
use opencv::prelude::*;
use opencv::videoio::{self, VideoCapture};
use twintrack::source::{self, SourceOptions};

/// Frames, and the largest and the mean absolute difference of all their values from OpenCV's.
fn difference(path: &Path) -> (u64, u8, f64) {
    let path = path.to_str().unwrap();
    let mut source = source::open(path, &SourceOptions::default()).unwrap();
    let mut capture = VideoCapture::from_file(path, videoio::CAP_FFMPEG).unwrap();
    let (mut frames, mut largest, mut sum, mut values) = (0, 0, 0u64, 0u64);
    while let Some(frame) = source.next_frame().unwrap() {
        let (image, mut mat) = (frame.image.unwrap(), Mat::default());
        assert!(capture.read(&mut mat).unwrap(), "{path}: {frames} frames");
        assert_eq!(
            (image.width as i32, image.height as i32),
            (mat.cols(), mat.rows())
        );
        let bytes = mat.data_bytes().unwrap();
        for (y, row) in bytes.chunks(3 * image.width as usize).enumerate() {
            for (a, b) in image.row(y).iter().zip(row) {
                largest = largest.max(a.abs_diff(*b));
                sum += u64::from(a.abs_diff(*b));
            }
        }
        values += bytes.len() as u64;
        frames += 1;
    }
    (frames, largest, sum as f64 / values as f64)
}

#[test]
fn pixels_are_those_of_opencv() {
    let Some(dir) = has_ffmpeg().then(|| tempfile::tempdir().unwrap()) else {
        return;
    };
    let dir = dir.path();
    let kinds = [
        ("plain.mp4", "192x128", "-c:v libx264 -pix_fmt yuv420p"),
        // 1080 is no multiple of 16: the decoder's frames have more rows than the picture.
        (
            "cropped.mp4",
            "1920x1080",
            "-c:v libx264 -preset ultrafast -pix_fmt yuv420p",
        ),
        ("narrow.mp4", "98x66", "-c:v libx264 -pix_fmt yuv420p"),
        ("full-colour.mp4", "98x66", "-c:v libx264 -pix_fmt yuv444p"),
        (
            "ten-bits.mp4",
            "192x128",
            "-c:v libx264 -pix_fmt yuv420p10le",
        ),
        (
            "full-range.avi",
            "192x128",
            "-c:v mjpeg -q:v 2 -pix_fmt yuvj420p",
        ),
        (
            "half-colour.avi",
            "192x128",
            "-c:v mjpeg -q:v 2 -pix_fmt yuvj422p",
        ),
        ("odd.avi", "97x65", "-c:v mjpeg -q:v 2 -pix_fmt yuvj420p"),
        ("palette.gif", "97x65", ""),
        ("colours.avi", "97x65", "-c:v rawvideo -pix_fmt bgr24"),
        ("grey.avi", "96x64", "-c:v ffv1 -pix_fmt gray"),
    ];
    for (name, size, more) in kinds {
        ffmpeg(
            dir,
            &format!("-f lavfi -i testsrc2=size={size}:rate=10:duration=1 {more} {name}"),
        );
        let (frames, largest, mean) = difference(&dir.join(name));
        eprintln!("{name}: {frames} frames, largest {largest}, mean {mean}");
        assert_eq!(frames, 10, "{name}");
        assert_eq!((largest, mean), (0, 0.0), "{name}");
    }
}
