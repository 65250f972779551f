//! Decoding: pixels, the number of threads, and what happens without a decoder in hardware.
#![cfg(feature = "video")]
#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;

use common::{clip, ffmpeg, has_ffmpeg, json_lines, run, text, twintrack};
use opencv::core::Mat;
use opencv::prelude::*;
use opencv::videoio::{self, VideoCapture};
use twintrack::source::{self, CameraConfig, SourceConfig, SourceOptions, video};

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
        assert_eq!(frames, 10, "{name}");
        assert_eq!((largest, mean), (0, 0.0), "{name}");
    }
}

/// The number of frames read from the sample clip, and of the decoder's threads without the calling
/// one, if `threads` are requested. The decoder's threads are found by their name, which they
/// inherit from the thread that starts them.
#[cfg(target_os = "linux")]
fn frames_and_threads(threads: usize) -> (usize, usize) {
    let name = format!("decoding-{threads}");
    let tasks = {
        let name = name.clone();
        move || {
            let all = std::fs::read_dir("/proc/self/task").unwrap();
            let comm = |t: std::fs::DirEntry| std::fs::read_to_string(t.path().join("comm"));
            all.filter_map(|t| comm(t.unwrap()).ok())
                .filter(|comm| comm.trim() == name)
                .count()
        }
    };
    let count = move || {
        let decoding = SourceConfig::default().with_threads(threads);
        let options = SourceOptions::default().with_decoding(decoding);
        let mut source = source::open(clip().to_str().unwrap(), &options).unwrap();
        let more = tasks() - 1;
        let frames = std::iter::from_fn(|| source.next_frame().unwrap()).count();
        (frames, more)
    };
    let thread = std::thread::Builder::new().name(name).spawn(count);
    thread.unwrap().join().unwrap()
}

/// OpenCV opens every decoder with one thread per core.
#[cfg(target_os = "linux")]
#[test]
fn a_decoder_has_the_threads_that_are_asked_for_and_gives_all_frames() {
    assert_eq!(frames_and_threads(1), (400, 0));
    assert_eq!(frames_and_threads(3), (400, 3));
}

/// The number of frames that a camera gives of 30, when no more data comes for half a minute.
fn frames_of_a_camera_that_stalls(bytes: &[u8], decoding: SourceConfig) -> usize {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/live.ts", listener.local_addr().unwrap());
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]); // the request
            let head = "HTTP/1.1 200 OK\r\nContent-Type: video/mp2t\r\nConnection: close\r\n\r\n";
            stream
                .write_all(&[head.as_bytes(), bytes].concat())
                .unwrap();
            let _ = stopped.recv(); // the connection stays open
        });
        let config = CameraConfig::of_input(&address, Some(false)).with_read_timeout(30.0);
        let options = SourceOptions::default().with_decoding(decoding);
        let mut camera = source::open_camera(&config, &options).unwrap();
        let frames = std::iter::from_fn(|| camera.next_frame().ok().flatten()).count();
        drop(stop);
        frames
    })
}

/// With one thread per core, as OpenCV opens decoders, a camera's frames would come later.
#[test]
fn a_cameras_frames_do_not_wait_for_the_next_ones_to_be_decoded() {
    let Some(dir) = has_ffmpeg().then(|| tempfile::tempdir().unwrap()) else {
        return;
    };
    let encoder = "-c:v libx264 -preset ultrafast -bf 0 -refs 1";
    ffmpeg(
        dir.path(),
        &format!("-f lavfi -i testsrc2=size=192x128:rate=10:duration=3 {encoder} camera.ts"),
    );
    let bytes = std::fs::read(dir.path().join("camera.ts")).unwrap();
    let default = SourceConfig::default();
    let (usual, later) = std::thread::scope(|scope| {
        let later = scope.spawn(|| frames_of_a_camera_that_stalls(&bytes, default.with_threads(4)));
        let usual = frames_of_a_camera_that_stalls(&bytes, default);
        (usual, later.join().unwrap())
    });
    // The container and the parser hold the last one or two: their end is not known yet.
    assert!(usual >= 27, "{usual} of 30 frames");
    assert_eq!(usual - later, 3);
}

#[test]
fn without_a_decoder_in_hardware_the_cpu_decodes_and_one_line_says_so() {
    if !video::hardware().is_empty() {
        eprintln!("SKIPPED: this test needs a machine without a decoder in hardware");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let track = |hardware: &str| {
        let config = dir.path().join("twintrack.toml");
        std::fs::write(&config, format!("[source]\nhardware = \"{hardware}\"\n")).unwrap();
        let out = run(twintrack()
            .args(["track", "--duration", "0.5", "--quiet", "--config"])
            .args([config, clip()]));
        let events = json_lines(&text(&out.stdout));
        let tracks: Vec<_> = events.into_iter().map(|e| e["tracks"].clone()).collect();
        (tracks, text(&out.stderr))
    };
    let (tracks, said) = track("none");
    assert!(tracks.len() > 3 && said.is_empty(), "{said}");
    assert_eq!(track("auto"), (tracks.clone(), String::new()));
    for hardware in ["vaapi", "nvdec"] {
        let (same, said) = track(hardware);
        assert_eq!(same, tracks, "{hardware}");
        assert!(
            said.lines().count() == 1 && said.contains("WARN") && said.contains(hardware),
            "{said}"
        );
    }
}
