//! Networks that fail at some frames: these frames are dropped, a camera with many of them is
//! quarantined, and other cameras are not affected.
#![cfg(feature = "serve")]
#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{NO_PAGE, complete_lines, has_ffmpeg, json_lines, run, text, twintrack};
use prost::Message as _;
use serde_json::Value;
use twintrack::onnx::graph::untyped;
use twintrack::onnx::proto::{FLOAT, ModelProto};
use twintrack::onnx::{Attribute, Graph};

/// A detector of YOLO's layout that detects one person in every image and fails at a batch with a
/// white image: it looks up its output in a table of one row, by an index that is out of range for
/// white images.
fn network(dir: &Path) -> PathBuf {
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
        g.finish("picky", ("images", [3, 256, 320]), ("output0", 1), &[])
            .as_slice(),
    )
    .unwrap();
    model.graph.as_mut().unwrap().output = vec![untyped("output0")];
    let path = dir.join("picky.onnx");
    std::fs::write(&path, model.encode_to_vec()).unwrap();
    path
}

/// A video of 60 frames, of which frames `first` to `last` (from 0) are white.
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

fn config(dir: &Path) -> String {
    let pixels =
        "pixels = { color = \"rgb\", mean = [0.0, 0.0, 0.0], std = [255.0, 255.0, 255.0] }";
    format!(
        "[detector]\nmodel = {:?}\nlayout = \"yolo\"\nsize = \"320x256\"\n{pixels}\n\
         [embedder]\nenabled = false\n",
        network(dir)
    )
}

fn frames(events: &[Value], camera: &str) -> Vec<u64> {
    let mine = events
        .iter()
        .filter(|e| e["schema"] == "twintrack.trajectory/1" && e["camera"] == camera);
    mine.map(|e| e["frame"].as_u64().unwrap()).collect()
}

/// The frame numbers of a video except these.
fn all_but(dropped: &[u64]) -> Vec<u64> {
    (1..=60).filter(|n| !dropped.contains(n)).collect()
}

/// Regression: one failed inference ended all cameras.
#[test]
fn a_frame_at_which_the_network_fails_is_dropped_and_other_cameras_are_not_affected() {
    if !has_ffmpeg() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let cameras: String = [("good", 100, 100), ("spotted", 20, 21), ("white", 0, 59)]
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
        (frames(&events, "good"), frames(&events, "spotted")),
        (all_but(&[]), all_but(&[21, 22])),
        "{log}"
    );
    assert!(frames(&events, "white").is_empty());
    // The track continues over the dropped frames.
    let ids: std::collections::BTreeSet<u64> = events
        .iter()
        .filter(|e| e["camera"] == "spotted")
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
        log.contains("camera=spotted") && log.contains("the frame is left out"),
        "{log}"
    );
    assert!(
        log.lines()
            .any(|l| l.contains("camera=white") && l.contains("quarantine"))
            && !log.contains("camera=good"),
        "{log}"
    );
    assert!(
        log.contains("white: 60 frames read, 0 tracked")
            && log.contains("60 left out (network failed)"),
        "{log}"
    );
    // Exit code 1, because a camera has no tracked frames.
    assert_eq!(out.status.code(), Some(1), "{log}");
}

#[test]
fn track_continues_after_single_failures_and_ends_after_repeated_ones() {
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
    let out = track("spotted", 20, 21);
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert_eq!(
        frames(&json_lines(&text(&out.stdout)), "spotted"),
        all_but(&[21, 22])
    );
    assert!(
        text(&out.stderr).contains("the frame is left out")
            && text(&out.stderr).contains("frames left out"),
        "{}",
        text(&out.stderr)
    );
    let out = track("white", 30, 59);
    assert_eq!(out.status.code(), Some(1), "{}", text(&out.stderr));
    assert_eq!(
        frames(&json_lines(&text(&out.stdout)), "white"),
        (1..=30).collect::<Vec<u64>>()
    );
    assert!(
        text(&out.stderr).contains("error: ") && text(&out.stderr).contains("picky.onnx"),
        "{}",
        text(&out.stderr)
    );
}
