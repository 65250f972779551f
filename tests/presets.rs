//! Presets: which frames the detector skips, and what events say of them.
#![cfg(feature = "video")]
#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{clip, complete_lines, json_lines, run, text, twintrack};
use serde_json::Value;

/// The `trajectory` events of the clip's first eight seconds.
fn track(more: &[&str]) -> Vec<Value> {
    let output = run(twintrack()
        .arg("track")
        .arg(clip())
        .args(["--quiet", "--duration", "8", "--run-id"])
        .arg("01990000-0000-7000-8000-000000000000")
        .args(more));
    let mut events = json_lines(&text(&output.stdout));
    events.retain(|e| e["schema"] == "twintrack.trajectory/1");
    assert_eq!(events.len(), 80, "every frame has an event");
    events
}

fn skipped(events: &[Value]) -> Vec<u64> {
    let skipped = events.iter().filter(|e| e["skipped"] == true);
    skipped.map(|e| e["frame"].as_u64().unwrap()).collect()
}

fn tracks(event: &Value) -> &Vec<Value> {
    event["tracks"].as_array().unwrap()
}

/// Left edges by frame and id.
fn lefts(events: &[Value]) -> BTreeMap<(u64, u64), f64> {
    let of = |e: &Value| {
        let frame = e["frame"].as_u64().unwrap();
        let left = |t: &Value| {
            let key = (frame, t["id"].as_u64().unwrap());
            (key, t["bbox"][0].as_f64().unwrap())
        };
        tracks(e).iter().map(left).collect::<Vec<_>>()
    };
    events.iter().flat_map(of).collect()
}

#[test]
fn by_default_some_frames_of_a_recording_are_skipped_and_interpolated() {
    let events = track(&[]);
    let skipped = skipped(&events);
    assert!((8..60).contains(&skipped.len()), "{skipped:?}");
    for e in &events {
        let states: BTreeSet<&str> = tracks(e)
            .iter()
            .map(|t| t["state"].as_str().unwrap())
            .collect();
        let last = e == &events[events.len() - 1];
        let allowed = match e["skipped"] == true {
            true if last => BTreeSet::from(["predicted"]),
            true => BTreeSet::from(["interpolated", "lost"]),
            false => BTreeSet::from(["confirmed", "lost"]),
        };
        assert!(states.is_subset(&allowed), "{e}");
    }
    // Boxes move little from frame to frame, in skipped frames too.
    let lefts = lefts(&events);
    let steps: Vec<f64> = lefts
        .iter()
        .filter_map(|((frame, id), left)| Some(lefts.get(&(frame + 1, *id))? - left))
        .collect();
    assert!(steps.len() > 300, "{}", steps.len());
    assert!(steps.iter().all(|s| s.abs() < 30.0), "{steps:?}");
    assert_eq!(track(&[]), events, "two runs skip the same frames");
}

#[test]
fn the_preset_decides_how_many_frames_are_skipped() {
    let (balanced, fast) = (track(&[]), track(&["--preset", "fast"]));
    assert!(skipped(&fast).len() > skipped(&balanced).len() + 5);
    // The interval of `accurate`, without its larger detector input, which is slow.
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("every.toml");
    std::fs::write(&config, "[cadence]\nmax_interval = 0\n").unwrap();
    let every = track(&["--config", config.to_str().unwrap()]);
    assert!(skipped(&every).is_empty());
}

#[test]
fn linking_uses_every_frame_unless_it_is_to_be_fast() {
    assert!(skipped(&track(&["--offline"])).is_empty());
    let fast = track(&["--offline", "--preset", "fast"]);
    let skipped: BTreeSet<u64> = skipped(&fast).into_iter().collect();
    let boxes = lefts(&fast);
    let in_skipped = boxes.keys().filter(|(f, _)| skipped.contains(f)).count();
    assert!(in_skipped > 100, "{in_skipped}");
    // Trajectories are not cut at skipped frames, nor thinned out there.
    let mean = |n: usize, frames: usize| n as f64 / frames as f64;
    let processed = 80 - skipped.len();
    let ratio = mean(in_skipped, skipped.len()) / mean(boxes.len() - in_skipped, processed);
    assert!((0.9..1.1).contains(&ratio), "{ratio}");
}

#[test]
fn refining_keeps_the_predictions_after_the_last_detection() {
    let dir = tempfile::tempdir().unwrap();
    let (online, refined) = (
        dir.path().join("online.jsonl"),
        dir.path().join("refined.jsonl"),
    );
    // With --preset fast, the detector skips the last of these frames.
    let duration = (60..80)
        .map(|n| format!("{}", f64::from(n) / 10.0 - 0.05))
        .find(|duration| {
            run(twintrack()
                .arg("track")
                .arg(clip())
                .args([
                    "--quiet",
                    "--preset",
                    "fast",
                    "--duration",
                    duration,
                    "--output",
                ])
                .arg(&online));
            let events = complete_lines(&online);
            let frames: Vec<&Value> = events.iter().filter(|e| e["tracks"].is_array()).collect();
            frames[frames.len() - 1]["skipped"] == true
        });
    assert!(duration.is_some());
    run(twintrack()
        .arg("refine")
        .arg(&online)
        .arg("--output")
        .arg(&refined));
    let last = |path| {
        let events = complete_lines(path);
        let frames: Vec<Value> = events
            .into_iter()
            .filter(|e| e["tracks"].is_array())
            .collect();
        frames[frames.len() - 1].clone()
    };
    let (before, after) = (last(&online), last(&refined));
    assert!(!tracks(&before).is_empty());
    assert_eq!(after["skipped"], true);
    let boxes = |e: &Value| -> Vec<Value> { tracks(e).iter().map(|t| t["bbox"].clone()).collect() };
    let (before, after) = (boxes(&before), boxes(&after));
    assert!(
        !after.is_empty() && after.iter().all(|b| before.contains(b)),
        "{after:?} {before:?}"
    );
}

#[test]
fn saved_detections_are_of_every_frame() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("det.txt");
    let events = track(&["--save-detections", file.to_str().unwrap()]);
    assert!(skipped(&events).is_empty());
    let saved = std::fs::read_to_string(file).unwrap();
    let frames: BTreeSet<&str> = saved.lines().filter_map(|l| l.split(',').next()).collect();
    assert_eq!(frames.len(), 80);
}
