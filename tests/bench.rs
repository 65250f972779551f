//! `twintrack bench`: its table, its JSON, its errors, and that it removes its temporary files. No
//! test depends on the speed of the machine.
#![cfg(feature = "serve")]
#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::path::Path;
use std::process::Command;

use common::{Running, clip, run, text, twintrack, until};

const STAGES: [&str; 6] = ["decode", "scale", "detect", "embed", "track", "write"];

/// `twintrack bench` of four frames, with its temporary files below `temporary`.
fn bench(temporary: &Path) -> Command {
    let mut command = twintrack();
    command
        .args([
            "bench",
            "--frames",
            "4",
            "--device",
            "cpu",
            "--threads",
            "1",
        ])
        .env("TMPDIR", temporary);
    command
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).unwrap().next().is_none()
}

#[test]
fn the_table_has_every_row_and_measures_the_sample_clip_by_default() {
    let dir = tempfile::tempdir().unwrap();
    let out = run(bench(dir.path()).current_dir(dir.path()));
    let table = text(&out.stdout);
    for row in STAGES.iter().chain(&["all", "peak memory"]) {
        let rows = table.matches(&format!("| {row} ")).count();
        assert_eq!(rows, 2, "{row} in\n{table}");
    }
    let parts = [
        "1 threads a network",
        "detector: person_detector",
        ", CPU\n",
        "embedder: siamese.onnx, float32, CPU\n",
        "pets2009-s2l1.mp4: 768x576, detector input 768x576",
        "scaled to 1920x1080: 1920x1080, detector input 768x448",
        "1 recording(s) of 4 frames each, 1.0 frames per batch",
        "cameras of 1920x1080 at 15 frames/s: ",
        "cameras of 1920x1080 at 25 frames/s: ",
        "divided by the frame rate and rounded down",
    ];
    for part in parts {
        assert!(table.contains(part), "{part} is missing from\n{table}");
    }
    assert!(text(&out.stderr).contains("5 of 5"));
    assert!(is_empty(dir.path()), "temporary files are left");
}

#[test]
fn the_json_has_every_stage_with_its_costs() {
    let dir = tempfile::tempdir().unwrap();
    let out = run(bench(dir.path()).arg("--json").arg(clip()));
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(report["schema"], "twintrack.bench/1");
    assert_eq!(report["threads"], 1);
    assert_eq!(report["detector"]["provider"], "CPU");
    let measured = report["measurements"].as_array().unwrap();
    let sizes: Vec<_> = measured.iter().map(|m| m["size"].to_string()).collect();
    assert_eq!(sizes, ["[768,576]", "[1920,1080]"]);
    for measurement in measured {
        let stages = measurement["stages"].as_array().unwrap();
        let names: Vec<_> = stages
            .iter()
            .map(|s| s["stage"].as_str().unwrap())
            .collect();
        assert_eq!(names, STAGES);
        for stage in stages {
            for cost in [&stage["alone"], &stage["together"]] {
                let number = |key: &str| cost[key].as_f64().unwrap();
                assert!(number("p50_ms") <= number("p95_ms"), "{stage}");
                assert!(number("frames_per_second") > 0.0, "{stage}");
            }
        }
        assert_eq!(measurement["frames"], 4);
        assert!(measurement["detections"].as_f64().unwrap() > 1.0);
    }
    let together = &measured[1]["together_frames_per_second"];
    for camera in report["cameras"].as_array().unwrap() {
        let held = together.as_f64().unwrap() / camera["frame_rate"].as_f64().unwrap();
        assert_eq!(camera["cameras"].as_f64().unwrap(), held.floor());
    }
    assert_eq!(report["cameras"].as_array().unwrap().len(), 2);
}

#[test]
fn an_unusable_input_is_an_error_of_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let (bad, temporary) = (dir.path().join("notes.mp4"), dir.path().join("tmp"));
    std::fs::write(&bad, "no video").unwrap();
    std::fs::create_dir(&temporary).unwrap();
    for input in [bad, dir.path().join("missing.mp4"), temporary.clone()] {
        let out = bench(&temporary).arg(&input).output().unwrap();
        let stderr = text(&out.stderr);
        assert_eq!(out.status.code(), Some(1), "{stderr}");
        let errors: Vec<&str> = stderr.lines().filter(|l| !l.contains(" of 5: ")).collect();
        assert_eq!(errors.len(), 1, "{stderr}");
        let file = input.file_name().unwrap().to_str().unwrap();
        assert!(
            errors[0].starts_with("error: ") && errors[0].contains(file),
            "{stderr}"
        );
        assert!(out.stdout.is_empty() && is_empty(&temporary));
    }
}

#[test]
fn without_the_sample_clip_a_video_must_be_named() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("twintrack");
    std::fs::copy(assert_cmd::cargo::cargo_bin!("twintrack"), &program).unwrap();
    let out = Command::new(&program)
        .arg("bench")
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(1));
    assert_eq!(
        text(&out.stderr),
        "error: the sample clip samples/pets2009-s2l1.mp4 was not found; name a video: twintrack \
         bench FILE\n"
    );
}

#[test]
fn a_number_of_frames_out_of_range_is_wrong_usage() {
    let out = twintrack()
        .args(["bench", "--frames", "1"])
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(2));
    assert!(text(&out.stderr).contains("from 2 to 100000"));
}

#[test]
fn ctrl_c_ends_it_without_a_report_and_removes_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = Running::start(
        twintrack()
            .args(["bench", "--frames", "400"])
            .env("TMPDIR", dir.path())
            .arg(clip())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null()),
    );
    assert!(until(60, || !is_empty(dir.path())), "it did not begin");
    running.signal("INT");
    assert_eq!(running.code(120), Some(130));
    assert!(is_empty(dir.path()), "temporary files are left");
}
