//! Streams whose size, rotation or pixel format changes. Every frame is returned in its own size,
//! and tracks end when the size changes.
#![cfg(feature = "video")]
#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;

use common::{ffmpeg, has_ffmpeg, json_lines, run, text, twintrack};
use twintrack::frame::Frame;
use twintrack::source::{self, CameraConfig, Source, SourceOptions};

/// All frames of an input.
fn frames(input: &str) -> Vec<Frame> {
    let options = SourceOptions::default().with_recorded(Some(true));
    let source = source::open(input, &options).unwrap_or_else(|e| panic!("{e}"));
    frames_from(source, input)
}

fn frames_from(mut source: Box<dyn Source>, input: &str) -> Vec<Frame> {
    std::iter::from_fn(|| {
        source
            .next_frame()
            .unwrap_or_else(|e| panic!("{input}: {e}"))
    })
    .collect()
}

fn frames_of(dir: &Path, name: &str) -> Vec<Frame> {
    frames(dir.join(name).to_str().unwrap())
}

/// Mean absolute difference of the pixels of two frames of equal size.
fn difference(a: &Frame, b: &Frame) -> f64 {
    assert_eq!(
        (a.width, a.height),
        (b.width, b.height),
        "frame {}",
        a.number
    );
    let (a, b) = (a.image.as_ref().unwrap(), b.image.as_ref().unwrap());
    let rows = (0..a.height as usize).flat_map(|y| a.row(y).iter().zip(b.row(y)));
    let sum: u64 = rows.map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
    sum as f64 / f64::from(3 * a.width * a.height)
}

/// Makes the file `name` with 10 frames of the test pattern. `more`: filter, encoder and the
/// encoder's options.
fn part(dir: &Path, name: &str, size: &str, more: &str) {
    ffmpeg(
        dir,
        &format!("-f lavfi -i testsrc=size={size}:rate=10:duration=1 {more} {name}"),
    );
}

/// Makes the files `large` and `small` in one format; returns their names.
fn large_and_small(dir: &Path, kind: &str, more: &str) -> [String; 2] {
    [("large", "192x128"), ("small", "98x66")].map(|(name, size)| {
        let name = format!("{name}.{kind}");
        part(dir, &name, size, more);
        name
    })
}

/// Makes the file `both.ts`, whose large frames are followed by small ones.
fn both_ts(dir: &Path) {
    let [large, small] = large_and_small(dir, "ts", "-c:v libx264 -preset ultrafast");
    joined(dir, &[&large, &small], "both.ts");
}

/// Concatenates the files byte by byte.
fn joined(dir: &Path, parts: &[&str], name: &str) {
    let bytes: Vec<Vec<u8>> = parts
        .iter()
        .map(|p| std::fs::read(dir.join(p)).unwrap())
        .collect();
    std::fs::write(dir.join(name), bytes.concat()).unwrap();
}

/// Asserts that `name` has the frames of the `parts`, with consecutive numbers and rising times,
/// and a restart mark at each change of size.
fn assert_frames_of(dir: &Path, name: &str, parts: &[&str]) {
    let got = frames_of(dir, name);
    let want: Vec<Frame> = parts.iter().flat_map(|p| frames_of(dir, p)).collect();
    let sizes: Vec<_> = got.iter().map(|f| (f.width, f.height)).collect();
    assert_eq!(got.len(), want.len(), "{name}: {sizes:?}");
    for (i, (a, b)) in got.iter().zip(&want).enumerate() {
        let off = difference(a, b);
        assert!(off < 3.0, "{name}, frame {}: {off} off", a.number);
        assert_eq!(a.number, i as u64 + 1, "{name}");
        let changed = i > 0 && sizes[i] != sizes[i - 1];
        assert_eq!(a.restart, changed, "{name}, frame {}", a.number);
        assert!(
            i == 0 || a.pts > got[i - 1].pts,
            "{name}, frame {}",
            a.number
        );
    }
}

/// Regression: every frame had the size of the first. A smaller picture was repeated, with a part
/// of the last large picture below; of a larger picture only a corner was returned.
#[test]
fn frames_have_their_own_size_where_it_changes_within_a_stream() {
    let Some(dir) = has_ffmpeg().then(|| tempfile::tempdir().unwrap()) else {
        return;
    };
    let dir = dir.path();
    for (kind, more) in [
        ("ts", "-c:v libx264 -preset ultrafast"),
        ("mjpeg", "-c:v mjpeg -q:v 2"),
        ("h264", "-c:v libx264 -preset ultrafast"),
    ] {
        let [large, small] = large_and_small(dir, kind, more);
        let tall = format!("tall.{kind}");
        part(dir, &tall, "98x202", more);
        for (name, order) in [
            ("shrink", [&large, &small, &large]),
            ("grow", [&small, &large, &small]),
            ("turn", [&large, &tall, &small]),
        ] {
            let (name, order) = (format!("{name}.{kind}"), order.map(String::as_str));
            joined(dir, &order, &name);
            assert_frames_of(dir, &name, &order);
        }
    }
}

#[test]
fn frames_of_containers_with_one_header_have_their_own_size() {
    let Some(dir) = has_ffmpeg().then(|| tempfile::tempdir().unwrap()) else {
        return;
    };
    let dir = dir.path();
    for (kind, more) in [
        ("webm", "-c:v libvpx -b:v 1M"),
        ("mkv", "-c:v mjpeg -q:v 2"),
        ("mov", "-c:v mjpeg -q:v 2"),
        ("avi", "-c:v mjpeg -q:v 2"),
    ] {
        let [large, small] = large_and_small(dir, kind, more);
        for order in [[&large, &small], [&small, &large]] {
            let list = order.map(|n| format!("file {n}\n")).concat();
            std::fs::write(dir.join("list.txt"), list).unwrap();
            let name = format!("both.{kind}");
            ffmpeg(dir, &format!("-f concat -i list.txt -c copy {name}"));
            assert_frames_of(dir, &name, &order.map(String::as_str));
        }
    }
}

#[test]
fn a_change_of_the_pixel_format_alone_keeps_colours_and_tracks() {
    let Some(dir) = has_ffmpeg().then(|| tempfile::tempdir().unwrap()) else {
        return;
    };
    let dir = dir.path();
    part(
        dir,
        "a.mjpeg",
        "96x64",
        "-c:v mjpeg -q:v 2 -pix_fmt yuvj420p",
    );
    part(
        dir,
        "b.mjpeg",
        "96x64",
        "-c:v mjpeg -q:v 2 -pix_fmt yuvj444p",
    );
    joined(dir, &["a.mjpeg", "b.mjpeg"], "both.mjpeg");
    assert_frames_of(dir, "both.mjpeg", &["a.mjpeg", "b.mjpeg"]);
}

#[test]
fn a_rotated_video_whose_size_changes_stays_rotated() {
    let Some(dir) = has_ffmpeg().then(|| tempfile::tempdir().unwrap()) else {
        return;
    };
    let dir = dir.path();
    large_and_small(dir, "mov", "-c:v mjpeg -q:v 2");
    std::fs::write(dir.join("list.txt"), "file large.mov\nfile small.mov\n").unwrap();
    for turn in ["90", "180", "270"] {
        let rotate = format!("-c copy -metadata:s:v:0 rotate={turn}");
        for name in ["large", "small"] {
            ffmpeg(dir, &format!("-i {name}.mov {rotate} {name}-turned.mov"));
        }
        ffmpeg(dir, &format!("-f concat -i list.txt {rotate} both.mov"));
        assert_frames_of(dir, "both.mov", &["large-turned.mov", "small-turned.mov"]);
    }
}

#[test]
fn frames_of_a_stream_over_http_have_their_own_size() {
    let Some(dir) = has_ffmpeg().then(|| tempfile::tempdir().unwrap()) else {
        return;
    };
    let dir = dir.path();
    both_ts(dir);
    let bytes = std::fs::read(dir.join("both.ts")).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/live.ts", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]); // the request
            let head = "HTTP/1.1 200 OK\r\nContent-Type: video/mp2t\r\nConnection: close\r\n\r\n";
            let _ = stream.write_all(&[head.as_bytes(), &bytes].concat()); // the reader may be gone
        }
    });
    let camera = CameraConfig::of_input(&address, Some(true)).with_read_timeout(30.0);
    let source = source::open_camera(&camera, &SourceOptions::default()).unwrap();
    let got = frames_from(source, &address);
    let sizes: Vec<u32> = got.iter().map(|f| f.width).collect();
    assert_eq!(sizes, [[192; 10], [98; 10]].concat());
    let small = frames_of(dir, "small.ts");
    assert!(difference(&got[19], &small[9]) < 3.0);
}

#[test]
fn tracks_end_where_the_size_changes_and_events_have_the_true_size() {
    let Some(dir) = has_ffmpeg().then(|| tempfile::tempdir().unwrap()) else {
        return;
    };
    let dir = dir.path();
    both_ts(dir);
    let rows: String = (1..=20)
        .map(|f| format!("{f},-1,20,10,16,40,0.9\n"))
        .collect();
    std::fs::write(dir.join("det.txt"), rows).unwrap();
    for more in [&[][..], &["--offline"]] {
        let out = run(twintrack()
            .current_dir(dir)
            .args(["track", "both.ts", "--detections", "det.txt", "--no-embed"])
            .args(["--video", "out.mp4"])
            .args(more));
        let all = json_lines(&text(&out.stdout));
        let all: Vec<_> = all
            .iter()
            .filter(|e| e["frame"].is_u64() && e["tracks"].is_array())
            .collect();
        let sizes: Vec<u64> = all.iter().map(|e| e["width"].as_u64().unwrap()).collect();
        assert_eq!(sizes, [[192; 10], [98; 10]].concat(), "{more:?}");
        // With `--offline`, tracks at the same place are linked again.
        let id = |i: usize| all[i]["tracks"][0]["id"].as_u64().unwrap();
        assert!(
            !more.is_empty() || id(9) != id(19),
            "one id over the change"
        );
    }
}
