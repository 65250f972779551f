//! Inputs that are probably mistakes: linked outputs, pipes, implausible detections, damaged or
//! wrongly encoded files. Each is rejected or reported with a remedy, and no file is lost.
#![cfg(feature = "video")]
#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::{clip, ffmpeg, has_ffmpeg, json_lines, run, text, twintrack};

/// Runs the command; asserts the exit code, and that standard error is one error message, which
/// contains all `parts`.
fn fails(command: &mut Command, code: i32, parts: &[&str]) {
    let out = command.output().unwrap();
    let stderr = text(&out.stderr);
    assert_eq!(out.status.code(), Some(code), "{command:?}\n{stderr}");
    assert!(
        stderr.starts_with("error: ") && stderr.trim().lines().count() == 1,
        "one message and nothing else: {stderr}"
    );
    says(&out, parts);
}

/// Asserts that standard error contains all `parts`.
fn says(out: &Output, parts: &[&str]) {
    let stderr = text(&out.stderr);
    for part in parts {
        assert!(stderr.contains(part), "'{part}' is missing from: {stderr}");
    }
}

fn file(dir: &Path, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, content).unwrap();
    path
}

/// `twintrack track` in the folder `dir`, without the embedder.
fn track(dir: &Path, input: impl AsRef<Path>) -> Command {
    let mut c = twintrack();
    c.current_dir(dir)
        .args(["track", "--quiet", "--no-embed", "--threads", "1"])
        .arg(input.as_ref());
    c
}

/// A sequence without pictures: 20 frames of 768x576 pixels. Its detections are in `det.txt`.
fn sequence(detections: impl AsRef<[u8]>) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    file(
        dir.path(),
        "seqinfo.ini",
        "[Sequence]\nframeRate=10\nseqLength=20\nimWidth=768\nimHeight=576\n",
    );
    file(dir.path(), "det.txt", detections);
    dir
}

/// Tracks a sequence with these detections.
fn track_detections(detections: impl AsRef<[u8]>) -> Output {
    let dir = sequence(detections);
    run(track(dir.path(), ".").args(["--detections", "det.txt"]))
}

fn rows(line: impl Fn(u64) -> String) -> String {
    (1..=20).map(|n| line(n) + "\n").collect()
}

fn pipe(path: &Path) {
    run(Command::new("mkfifo").arg(path));
}

/// Regression: the recording was overwritten.
#[test]
fn an_output_that_is_a_hard_link_of_an_input_is_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::copy(clip(), dir.join("rec.mp4")).unwrap();
    std::fs::create_dir(dir.join("pictures")).unwrap();
    file(dir, "pictures/1.png", "not read");
    file(dir, "det.txt", "");
    for name in ["rec.mp4", "pictures/1.png", "det.txt"] {
        std::fs::hard_link(dir.join(name), dir.join("link.mp4")).unwrap();
        let input = if name.starts_with("pictures") {
            "pictures"
        } else {
            "rec.mp4"
        };
        for option in [
            "--output",
            "--mot",
            "--onvif",
            "--video",
            "--save-detections",
        ] {
            let mut c = track(dir, input);
            c.args(["--detections", "det.txt", option, "link.mp4"]);
            fails(&mut c, 1, &["link.mp4", "also an input", "another name"]);
        }
        std::fs::remove_file(dir.join("link.mp4")).unwrap();
    }
    let events = file(dir, "events.jsonl", "");
    std::fs::hard_link(&events, dir.join("linked.jsonl")).unwrap();
    let mut c = twintrack();
    c.current_dir(dir)
        .args(["refine", "events.jsonl", "-o", "linked.jsonl"]);
    fails(&mut c, 1, &["linked.jsonl", "also an input"]);
    let size = |path: &Path| path.metadata().unwrap().len();
    assert_eq!(size(&dir.join("rec.mp4")), size(&clip()), "overwritten");
}

#[test]
fn an_output_that_is_a_picture_of_the_input_folder_is_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::create_dir_all(dir.join("s/img1")).unwrap();
    for name in ["s/1.png", "s/img1/1.png"] {
        file(dir, name, "a picture");
        fails(
            track(dir, "s").args(["-o", name]),
            1,
            &[name, "also an input"],
        );
    }
}

/// Regression: a second message ("Non-zero status code returned while running ...") was printed,
/// because the program ended while ONNX Runtime was computing.
#[test]
fn an_error_of_an_output_is_the_only_message() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..3 {
        let mut c = track(dir.path(), clip());
        c.args(["-o", "/dev/null", "--save-detections", "/dev/full"]);
        fails(&mut c, 1, &["/dev/full"]);
    }
}

#[test]
fn a_video_that_cannot_be_written_is_rejected_before_a_file_is_created() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["x.xyz", "x.webm", "x.gif", "x"] {
        let mut c = track(dir.path(), clip());
        fails(c.args(["--video", name]), 1, &[name, ".mp4, .mkv or .avi"]);
        assert!(!dir.path().join(name).exists(), "{name}");
    }
}

/// Regression: opening the pipe waited without a limit for a writer.
#[test]
fn a_pipe_with_the_name_of_a_picture_is_left_out() {
    let Some(dir) = has_ffmpeg().then(|| tempfile::tempdir().unwrap()) else {
        return;
    };
    let dir = dir.path();
    std::fs::create_dir(dir.join("f")).unwrap();
    pipe(&dir.join("f/000.jpg"));
    std::fs::create_dir(dir.join("f/001.jpg")).unwrap();
    let out = track(dir, "f").output().unwrap();
    assert_eq!(out.status.code(), Some(1));
    says(
        &out,
        &[
            "f/000.jpg",
            "a pipe or a device",
            "f/001.jpg",
            "a folder",
            "contains none",
        ],
    );
    ffmpeg(
        dir,
        "-f lavfi -i testsrc=size=64x64:rate=10 -frames:v 3 f/1%d.jpg",
    );
    file(dir, "det.txt", "");
    let out = run(track(dir, "f").args(["--detections", "det.txt"]));
    assert_eq!(json_lines(&text(&out.stdout)).len(), 3);
    says(&out, &["f/000.jpg"]);
    let mut c = twintrack();
    c.current_dir(dir)
        .args(["compare", "f/000.jpg", "f/11.jpg"]);
    fails(&mut c, 1, &["f/000.jpg", "a pipe or a device"]);
}

#[test]
fn a_pipe_as_input_is_rejected() {
    let dir = tempfile::tempdir().unwrap();
    pipe(&dir.path().join("clip.mp4"));
    fails(
        &mut track(dir.path(), "clip.mp4"),
        1,
        &["clip.mp4", "pipe", "file"],
    );
    let mut c = track(dir.path(), "/dev/stdin");
    fails(
        c.stdin(std::process::Stdio::piped()),
        1,
        &["/dev/stdin", "pipe"],
    );
    fails(&mut track(dir.path(), "-"), 1, &["standard input", "file"]);
    let mut c = track(dir.path(), "192.168.1.5/stream");
    fails(&mut c, 1, &["192.168.1.5/stream", "rtsp://"]);
}

/// Regression: the result was empty, with exit code 0 and without a message.
#[test]
fn detections_that_do_not_fit_are_reported() {
    for (line, parts) in [
        (
            (|n| format!("{},-1,20,20,30,60,0.9", n + 100)) as fn(u64) -> String,
            ["20", "numbers"],
        ),
        (
            |n| format!("{n},-1,0.2,0.2,0.05,0.1,0.9"),
            ["fractions", "pixels"],
        ),
        (
            |n| format!("{n},-1,900,20,30,60,0.9"),
            ["outside", "768x576"],
        ),
        (
            |n| format!("{n},-1,20,20,30,60,0,9,-1,-1,-1"),
            ["confidences are 0", "0.87"],
        ),
        (
            |n| format!("{n},-1,20,20,30,60,0"),
            ["confidences are 0", "not tracked"],
        ),
    ] {
        says(&track_detections(rows(line)), &parts);
    }
    let good = track_detections(rows(|n| format!("{n},-1,20,20,30,60,0.9")));
    assert_eq!(text(&good.stderr), "", "nothing to report");
}

#[test]
fn tracking_a_part_of_a_sequence_does_not_warn_of_unused_detections() {
    let dir = sequence(rows(|n| format!("{n},-1,20,20,30,60,0.9")));
    let part = ["--detections", "det.txt", "--duration", "1"];
    let out = run(track(dir.path(), ".").args(part));
    assert_eq!(text(&out.stderr), "");
}

#[test]
fn lines_of_detections_may_end_in_cr_alone() {
    let good = rows(|n| format!("{n},-1,20,20,30,60,0.9,-1,-1,-1"));
    let boxes = |detections: &str| {
        let events = json_lines(&text(&track_detections(detections).stdout));
        let counts = events
            .iter()
            .filter_map(|e| Some(e["tracks"].as_array()?.len()));
        counts.sum::<usize>()
    };
    assert!(boxes(&good) > 15);
    assert_eq!(boxes(&good.replace('\n', "\r")), boxes(&good));
}

/// The text in UTF-16, as a spreadsheet saves "Unicode text".
fn utf16(text: &str) -> Vec<u8> {
    let units = std::iter::once(0xfeff).chain(text.encode_utf16());
    units.flat_map(u16::to_le_bytes).collect()
}

#[test]
fn a_text_in_utf_16_is_rejected_with_the_remedy() {
    let dir = sequence(utf16("1,-1,20,20,30,60,0.9\n"));
    let dir = dir.path();
    let mut c = track(dir, ".");
    c.args(["--detections", "det.txt"]);
    fails(&mut c, 1, &["det.txt", "save it as UTF-8"]);
    file(dir, "c.toml", utf16("threads = 1\n"));
    fails(
        track(dir, ".").args(["--config", "c.toml"]),
        1,
        &["c.toml", "save it as UTF-8"],
    );
    file(dir, "e.jsonl", utf16("{}\n"));
    let mut c = twintrack();
    c.current_dir(dir).args(["refine", "e.jsonl"]);
    fails(&mut c, 1, &["e.jsonl", "save it as UTF-8"]);
}

#[test]
fn refine_reads_files_with_a_byte_order_mark_and_without_the_end_of_the_last_line() {
    let events = track_detections(rows(|n| format!("{n},-1,20,20,30,60,0.9"))).stdout;
    let lines = json_lines(&text(&events));
    let dir = tempfile::tempdir().unwrap();
    let refine = |bytes: &[u8]| {
        file(dir.path(), "e.jsonl", bytes);
        let mut c = twintrack();
        c.current_dir(dir.path())
            .args(["refine", "--quiet", "e.jsonl"]);
        c
    };
    let marked = run(&mut refine(&[b"\xef\xbb\xbf", events.as_slice()].concat()));
    assert_eq!(json_lines(&text(&marked.stdout)).len(), lines.len());
    for cut in [1, 5, 40] {
        let out = run(&mut refine(&events[..events.len() - cut]));
        let frames = json_lines(&text(&out.stdout));
        assert!(
            frames.len() + 1 >= lines.len(),
            "{cut}: {} lines",
            frames.len()
        );
        if cut > 1 {
            says(&out, &["e.jsonl", "last line is incomplete"]);
        }
    }
    let ended = text(&events);
    let ended: String = ended
        .lines()
        .filter(|l| l.contains("track_ended"))
        .map(|l| format!("{l}\n"))
        .collect();
    fails(
        &mut refine(ended.as_bytes()),
        1,
        &["e.jsonl", "no trajectory events"],
    );
}

#[test]
fn unreadable_pictures_and_videos_are_named_with_the_cause() {
    let Some(dir) = has_ffmpeg().then(|| tempfile::tempdir().unwrap()) else {
        return;
    };
    let dir = dir.path();
    std::fs::create_dir(dir.join("f")).unwrap();
    file(dir, "f/1.pgm", "P5\n2000000 2000000\n255\n");
    let out = track(dir, "f").output().unwrap();
    says(&out, &["f/1.pgm", "too large"]);
    assert!(
        !text(&out.stderr).contains("Assertion"),
        "{}",
        text(&out.stderr)
    );
    // The head of an animated WebP of 64x64 pixels: RIFF, VP8X, ANIM, an empty ANMF.
    let head: &[&[u8]] = &[
        b"RIFF\x3e\0\0\0WEBPVP8X\x0a\0\0\0\x02\0\0\0\x3f\0\0\x3f\0\0",
        b"ANIM\x06\0\0\0\0\0\0\0\0\0",
        b"ANMF\x10\0\0\0\0\0\0\0\0\0\x3f\0\0\x3f\0\0\x64\0\0\0",
    ];
    file(dir, "a.webp", head.concat());
    let out = track(dir, "a.webp").output().unwrap();
    assert!(out.status.code() == Some(1) && !text(&out.stderr).contains("0x0"));
}

#[test]
fn a_damaged_model_and_a_folder_as_a_model_are_named_with_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let embedder = |model: &str| {
        let mut c = twintrack();
        c.current_dir(dir)
            .args(["track", "--quiet", "--embedder", model]);
        c.arg(clip());
        c
    };
    for content in [&b"not a model"[..], b"", b"\x08\x08"] {
        file(dir, "damaged.onnx", content);
        let mut c = embedder("./damaged.onnx");
        fails(
            &mut c,
            1,
            &["damaged.onnx", "damaged or not an ONNX file", "download"],
        );
    }
    std::fs::create_dir(dir.join("nets")).unwrap();
    for name in ["nets", "./nets"] {
        fails(&mut embedder(name), 1, &["nets", "it is a folder"]);
    }
}

#[test]
fn eval_says_that_a_result_is_empty() {
    let dir = sequence("");
    let dir = dir.path();
    std::fs::create_dir(dir.join("gt")).unwrap();
    file(
        dir,
        "gt/gt.txt",
        rows(|n| format!("{n},1,20,20,30,60,1,1,1")),
    );
    file(dir, "empty.txt", "");
    let out =
        run(twintrack()
            .current_dir(dir)
            .args(["eval", "--gt", ".", "--results", "empty.txt"]));
    says(&out, &["empty.txt", "no rows"]);
    assert!(
        !text(&out.stdout).contains("-0.00"),
        "{}",
        text(&out.stdout)
    );
}
