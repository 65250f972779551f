//! A network fails on some frames. `serve` drops these frames, quarantines a camera after five
//! failures in a row, and does not affect other cameras; `track` drops them, and ends with an error
//! after five in a row.
#![cfg(feature = "serve")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{NO_PAGE, complete_lines, has_ffmpeg, json_lines, run, text, twintrack};
use prost::Message as _;
use serde_json::Value;
use twintrack::onnx::graph::untyped;
use twintrack::onnx::proto::{FLOAT, ModelProto};
use twintrack::onnx::{Attribute, Graph};

/// Writes a detector with YOLO's output layout, and returns its path. It reports one person per
/// image. If the batch contains a white image (mean above 0.97) the run fails: `Gather` reads row 1
/// of a table that has only row 0.
fn write_failing_detector(dir: &Path) -> PathBuf {
    let mut g = Graph::default();
    let mut rows = vec![0.0f32; 6 * 100];
    for (row, value) in [100.0, 120.0, 40.0, 100.0, 0.9].into_iter().enumerate() {
        rows[100 * row + 3] = value;
    }
    g.tensor(
        "table",
        &[1, 6, 100],
        FLOAT,
        rows.iter().flat_map(|v| v.to_le_bytes()).collect(),
    );
    g.constant("limit", &[1], &[0.97]);
    let whole = [
        ("axes", Attribute::Ints(vec![1, 2, 3])),
        ("keepdims", Attribute::Int(0)),
    ];
    g.node("ReduceMean", &["images"], "mean", &whole);
    g.node("Greater", &["mean", "limit"], "white", &[]);
    g.node("Cast", &["white"], "row", &[("to", Attribute::Int(7))]);
    g.node(
        "Gather",
        &["table", "row"],
        "output0",
        &[("axis", Attribute::Int(0))],
    );
    let mut model = ModelProto::decode(
        g.finish(
            "fails_on_white",
            ("images", [3, 256, 320]),
            ("output0", 1),
            &[],
        )
        .as_slice(),
    )
    .unwrap();
    model.graph.as_mut().unwrap().output = vec![untyped("output0")];
    let path = dir.join("fails_on_white.onnx");
    std::fs::write(&path, model.encode_to_vec()).unwrap();
    path
}

/// Writes a video of 60 frames; the frames with the indices `first` to `last` are white. Indices
/// start at 0, frame numbers of events at 1.
fn video(dir: &Path, name: &str, first: u32, last: u32) -> PathBuf {
    let path = dir.join(format!("{name}.mp4"));
    let pattern = format!(
        "testsrc=size=320x256:rate=10,\
         drawbox=x=0:y=0:w=iw:h=ih:color=white:t=fill:enable='between(n,{first},{last})'"
    );
    run(Command::new("ffmpeg")
        .args([
            "-v",
            "error",
            "-f",
            "lavfi",
            "-i",
            &pattern,
            "-frames:v",
            "60",
            "-pix_fmt",
            "yuv420p",
        ])
        .arg(&path));
    path
}

/// Writes the detector to `dir`. Returns a configuration that uses it in every frame.
fn config(dir: &Path) -> String {
    let pixels =
        "pixels = { color = \"rgb\", mean = [0.0, 0.0, 0.0], std = [255.0, 255.0, 255.0] }";
    format!(
        "[detector]\nmodel = {:?}\nlayout = \"yolo\"\nsize = \"320x256\"\n{pixels}\n\
         [embedder]\nenabled = false\n[cadence]\nmax_interval = 0\n",
        write_failing_detector(dir)
    )
}

/// Frame numbers of the camera's trajectory events.
fn frame_numbers(events: &[Value], camera: &str) -> Vec<u64> {
    let trajectories = events
        .iter()
        .filter(|e| e["schema"] == "twintrack.trajectory/1" && e["camera"] == camera);
    trajectories.map(|e| e["frame"].as_u64().unwrap()).collect()
}

/// The frame numbers of [`video`], 1 to 60, without `dropped`.
fn all_but(dropped: &[u64]) -> Vec<u64> {
    (1..=60).filter(|n| !dropped.contains(n)).collect()
}

/// Regression: one failed inference stopped all cameras.
#[test]
fn a_frame_on_which_the_network_fails_is_dropped_and_other_cameras_are_not_affected() {
    if !has_ffmpeg() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let cameras: String = [
        ("none_white", 100, 100),
        ("two_white", 20, 21),
        ("all_white", 0, 59),
    ]
    .map(|(name, first, last)| {
        format!(
            "[cameras.{name}]\nurl = {:?}\nrealtime = false\n",
            video(dir, name, first, last)
        )
    })
    .concat();
    let file = dir.join("cameras.toml");
    std::fs::write(&file, format!("{NO_PAGE}{}{cameras}", config(dir))).unwrap();
    let out = twintrack()
        .args(["serve", "--config"])
        .arg(&file)
        .arg("--output")
        .arg(dir.join("out.jsonl"))
        .output()
        .unwrap();
    let log = text(&out.stderr);
    let events = complete_lines(&dir.join("out.jsonl"));
    assert_eq!(
        (
            frame_numbers(&events, "none_white"),
            frame_numbers(&events, "two_white")
        ),
        (all_but(&[]), all_but(&[21, 22])),
        "{log}"
    );
    assert!(frame_numbers(&events, "all_white").is_empty());
    // The track keeps its id across the dropped frames.
    let ids: std::collections::BTreeSet<u64> = events
        .iter()
        .filter(|e| e["camera"] == "two_white")
        .flat_map(|e| {
            e["tracks"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|t| t["id"].as_u64().unwrap())
        })
        .collect();
    assert_eq!(ids.len(), 1);
    assert!(
        log.contains("camera=two_white") && log.contains("the frame is dropped"),
        "{log}"
    );
    assert!(
        log.lines()
            .any(|l| l.contains("camera=all_white") && l.contains("quarantine"))
            && !log.contains("camera=none_white"),
        "{log}"
    );
    assert!(
        log.contains("all_white: 60 frames read, 0 tracked")
            && log.contains("60 dropped (network failed)"),
        "{log}"
    );
    // Exit code 1, because a camera has no tracked frames.
    assert_eq!(out.status.code(), Some(1), "{log}");
}

#[test]
fn the_track_command_drops_two_failing_frames_and_ends_with_an_error_after_five_in_a_row() {
    if !has_ffmpeg() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let file = dir.join("c.toml");
    std::fs::write(&file, config(dir)).unwrap();
    let track = |name: &str, first, last| {
        twintrack()
            .arg("track")
            .arg(video(dir, name, first, last))
            .arg("--config")
            .arg(&file)
            .output()
            .unwrap()
    };
    let out = track("two_white", 20, 21);
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert_eq!(
        frame_numbers(&json_lines(&text(&out.stdout)), "two_white"),
        all_but(&[21, 22])
    );
    assert!(
        text(&out.stderr).contains("the frame is dropped")
            && text(&out.stderr).contains("network failed, frames dropped"),
        "{}",
        text(&out.stderr)
    );
    let out = track("half_white", 30, 59);
    assert_eq!(out.status.code(), Some(1), "{}", text(&out.stderr));
    assert_eq!(
        frame_numbers(&json_lines(&text(&out.stdout)), "half_white"),
        (1..=30).collect::<Vec<u64>>()
    );
    assert!(
        text(&out.stderr).contains("error: ") && text(&out.stderr).contains("fails_on_white.onnx"),
        "{}",
        text(&out.stderr)
    );
}
