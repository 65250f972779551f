//! Zones and lines on the sample clip, against counts made by eye.
#![cfg(feature = "video")]
#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::path::Path;
use std::process::Command;

use common::{clip, json_lines, repository, run, text, twintrack};
use serde_json::Value;

/// Largest difference between a counted event and the one counted by eye: 3 frames, which are 0.3
/// s.
const TOLERANCE: i64 = 3;

/// A zone's or line's name, the event, and its frame.
type Count = (String, String, i64);

/// The counts made by eye.
fn truth() -> Vec<Count> {
    let file = repository("samples/pets2009-s2l1/counts.csv");
    let rows = std::fs::read_to_string(file).unwrap();
    let row = |line: &str| {
        let fields: Vec<&str> = line.split(',').collect();
        let frame = fields[1].parse().unwrap();
        (fields[0].to_string(), fields[2].to_string(), frame)
    };
    rows.lines().skip(1).map(row).collect()
}

/// The counts of events: entries, exits and crossings. The clip has 10 frames/s.
fn counts(events: &[Value]) -> Vec<Count> {
    let of = |e: &Value| {
        let name = e["zone"].as_str().or(e["line"].as_str())?.to_string();
        let event = e["kind"].as_str().or(e["direction"].as_str())?.to_string();
        let frame = (e["pts"].as_f64()? * 10.0).round() as i64 + 1;
        ["enter", "leave", "in", "out"]
            .contains(&event.as_str())
            .then_some((name, event, frame))
    };
    events.iter().filter_map(of).collect()
}

/// The counts that have no partner among the others.
fn unmatched(counts: &[Count], others: &[Count]) -> Vec<Count> {
    let mut left = others.to_vec();
    let mut alone = Vec::new();
    for count in counts {
        let near =
            |o: &Count| (&o.0, &o.1) == (&count.0, &count.1) && (o.2 - count.2).abs() <= TOLERANCE;
        let gap = |i: &usize| (left[*i].2 - count.2).abs();
        match (0..left.len()).filter(|&i| near(&left[i])).min_by_key(gap) {
            Some(i) => drop(left.swap_remove(i)),
            None => alone.push(count.clone()),
        }
    }
    alone
}

fn track(more: &[&str]) -> Command {
    let mut command = twintrack();
    command
        .arg("track")
        .arg(clip())
        .arg("--config")
        .arg(repository("configs/zones.toml"))
        .args(["--run-id", "01990000-0000-7000-8000-000000000000"])
        .args(more);
    command
}

#[test]
fn the_default_settings_count_what_the_eye_counts() {
    let out = run(&mut track(&[]));
    let events = json_lines(&text(&out.stdout));
    let (found, truth) = (counts(&events), truth());
    assert_eq!(truth.len(), 31 + 2 * 20);
    assert_eq!(unmatched(&found, &truth), [], "too many");
    assert_eq!(unmatched(&truth, &found), [], "missing");

    let summary = text(&out.stderr);
    for row in [
        "zone gate                       15 entered, 15 left, 0 inside",
        "zone left                       5 entered, 5 left, 0 inside",
        "line diagonal                   8 in, 6 out",
        "line lower                      5 in, 6 out",
        "line road                       3 in, 3 out, 3 in the wrong direction",
    ] {
        assert!(summary.contains(row), "no row '{row}' in\n{summary}");
    }
    check_events(&events);
}

/// Checks what every receiver relies on: the schema, the sequence numbers, and that the names in
/// `tracks` agree with the entries and exits.
fn check_events(events: &[Value]) {
    let schema = std::fs::read_to_string(repository("schema/trajectory.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let mut inside = std::collections::BTreeMap::<String, Vec<u64>>::new();
    for (i, e) in events.iter().enumerate() {
        let problems: Vec<String> = validator.iter_errors(e).map(|p| p.to_string()).collect();
        assert_eq!(problems, Vec::<String>::new(), "{e}");
        assert_eq!(e["seq"].as_u64().unwrap(), i as u64 + 1, "{e}");
        if let Some(zone) = e["zone"].as_str() {
            let people = inside.entry(zone.to_string()).or_default();
            match e["kind"].as_str().unwrap() {
                "enter" => people.push(e["track"].as_u64().unwrap()),
                "leave" => people.retain(|t| Some(*t) != e["track"].as_u64()),
                _ => {}
            }
            assert_eq!(people.len() as u64, e["occupancy"].as_u64().unwrap(), "{e}");
        }
    }
    assert!(inside.values().all(Vec::is_empty), "somebody stayed");
}

#[test]
fn events_of_people_in_zones_have_the_zones_names() {
    let events = json_lines(&text(&run(&mut track(&["--duration", "6"])).stdout));
    let frame = |f: u64| {
        let of = |e: &&Value| e["schema"] == "twintrack.trajectory/1" && e["frame"] == f;
        events.iter().find(of).unwrap()
    };
    let enter = events
        .iter()
        .find(|e| e["kind"] == "enter" && e["pts"].as_f64() > Some(1.0))
        .unwrap();
    let at = enter["frame"].as_u64().unwrap();
    let zones = |f: u64| {
        let tracks = frame(f)["tracks"].as_array().unwrap().clone();
        let track = tracks.into_iter().find(|t| t["id"] == enter["track"]);
        track.unwrap()["zones"].clone()
    };
    assert_eq!(zones(at), serde_json::json!([enter["zone"]]));
    assert_eq!(zones(at - 1), Value::Null, "before the event");
}

#[test]
fn offline_and_refine_count_on_the_final_trajectories() {
    let dir = tempfile::tempdir().unwrap();
    let recorded = dir.path().join("online.jsonl");
    run(track(&["--quiet", "--output"]).arg(&recorded));
    let refined = run(twintrack()
        .args(["refine", "--quiet", "--config"])
        .arg(repository("configs/zones.toml"))
        .arg(&recorded));
    let offline = run(&mut track(&["--quiet", "--offline"]));
    for (name, out) in [("refine", refined), ("offline", offline)] {
        let events = json_lines(&text(&out.stdout));
        check_events(&events);
        let (found, truth) = (counts(&events), truth());
        let missing = unmatched(&truth, &found);
        let false_ones = unmatched(&found, &truth);
        // Linking may add or join a track: at most two of the 71 differ.
        assert!(
            missing.len() <= 2 && false_ones.len() <= 2,
            "{name}: missing {missing:?}, too many {false_ones:?}"
        );
        // Every event comes after the frame that it names, and before the next.
        let mut last = 0;
        for e in &events {
            let frame = e["frame"].as_u64();
            if e["schema"] == "twintrack.trajectory/1" {
                last = frame.unwrap();
            } else if let Some(frame) = frame {
                assert_eq!(frame, last, "{name}: {e}");
            }
        }
    }
}

#[test]
fn refine_without_zones_leaves_their_events_out() {
    let dir = tempfile::tempdir().unwrap();
    let recorded = dir.path().join("online.jsonl");
    run(track(&["--quiet", "--duration", "10", "--output"]).arg(&recorded));
    assert!(
        std::fs::read_to_string(&recorded)
            .unwrap()
            .contains("twintrack.line/1")
    );
    let refined = text(&run(twintrack().args(["refine", "--quiet"]).arg(&recorded)).stdout);
    assert!(refined.contains("twintrack.trajectory/1") && !refined.contains("twintrack.line/1"));
}

#[test]
fn nobody_is_tracked_in_a_mask_for_detections() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("mask.toml");
    let mask = "[masks.left]\npoints = [[0, 0], [0.5, 0], [0.5, 1], [0, 1]]\n\
                [cadence]\nmax_interval = 0\n";
    std::fs::write(&config, mask).unwrap();
    for offline in [&[][..], &["--offline"]] {
        let out = run(twintrack()
            .arg("track")
            .arg(clip())
            .args(["--quiet", "--duration", "6", "--config"])
            .arg(&config)
            .args(offline));
        let events = json_lines(&text(&out.stdout));
        let tracks = events
            .iter()
            .filter_map(|e| e["tracks"].as_array())
            .flatten();
        let confirmed = tracks.filter(|t| t["state"] == "confirmed");
        let feet: Vec<f64> = confirmed.map(|t| t["foot"][0].as_f64().unwrap()).collect();
        assert!(feet.len() > 50, "people on the right are tracked");
        // A foot point is rounded to hundredths of a pixel.
        assert!(feet.iter().all(|x| *x >= 384.0 - 1.0), "{feet:?}");
    }
}

#[test]
fn a_ground_plane_gives_positions_and_speeds() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("ground.toml");
    // Invented: 50 pixels a metre in both directions.
    let pairs =
        "[ground]\npairs = [[0, 0, 0, 0], [500, 0, 10, 0], [500, 500, 10, 10], [0, 500, 0, 10]]\n";
    std::fs::write(&config, pairs).unwrap();
    let out = run(twintrack()
        .arg("track")
        .arg(clip())
        .args(["--quiet", "--duration", "4", "--config"])
        .arg(&config));
    let events = json_lines(&text(&out.stdout));
    let (mut moving, mut walked) = (0, std::collections::BTreeMap::new());
    for t in events
        .iter()
        .filter_map(|e| e["tracks"].as_array())
        .flatten()
    {
        let (foot, ground) = (&t["foot"], &t["ground"]);
        for i in 0..2 {
            let metres = foot[i].as_f64().unwrap() / 50.0;
            assert!(
                (ground["position"][i].as_f64().unwrap() - metres).abs() < 0.02,
                "{t}"
            );
        }
        moving += usize::from(ground["speed"].as_f64().unwrap() > 0.2);
        let before = walked.insert(t["id"].as_u64(), ground["walked"].as_f64().unwrap());
        assert!(
            before.unwrap_or_default() <= walked[&t["id"].as_u64()],
            "{t}"
        );
    }
    assert!(walked.values().any(|w| *w > 2.0), "{walked:?}");
    assert!(moving > 50, "{moving}");
}

#[cfg(feature = "serve")]
#[test]
fn serve_counts_as_track_does() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("cameras.toml");
    let shapes = std::fs::read_to_string(repository("configs/zones.toml")).unwrap();
    let shapes = shapes
        .replace("[lines.", "[cameras.gate.lines.")
        .replace("[zones.", "[cameras.gate.zones.");
    let camera = format!(
        "[serve]\nlisten = \"\"\n[cameras.gate]\nurl = {:?}\nrealtime = false\n{shapes}",
        clip()
    );
    std::fs::write(&config, camera).unwrap();
    let events = |path: &Path| {
        let mut events = json_lines(&std::fs::read_to_string(path).unwrap());
        events.retain(|e| e["zone"].is_string() || e["line"].is_string());
        for e in &mut events {
            e.as_object_mut().unwrap().remove("run");
        }
        events
    };
    let served = dir.path().join("served.jsonl");
    let out = run(twintrack()
        .current_dir(dir.path())
        .args(["serve", "--config", "cameras.toml", "--output"])
        .arg(&served));
    let tracked = dir.path().join("tracked.jsonl");
    run(twintrack()
        .arg("track")
        .arg(clip())
        .args(["--quiet", "--camera", "gate", "--config"])
        .arg(&config)
        .arg("--output")
        .arg(&tracked));
    assert!(
        events(&tracked).len() > 70,
        "the file's shapes of the camera are used"
    );
    assert_eq!(events(&served), events(&tracked));
    let summary = text(&out.stderr);
    assert!(summary.contains("line gate/diagonal"), "{summary}");
}

#[test]
fn a_zone_that_crosses_itself_is_rejected_with_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("bad.toml");
    std::fs::write(
        &config,
        "[zones.bow]\npoints = [[0, 0], [1, 1], [1, 0], [0, 1]]\n",
    )
    .unwrap();
    let out = twintrack()
        .arg("track")
        .arg(clip())
        .arg("--config")
        .arg(&config)
        .output()
        .unwrap();
    let message = text(&out.stderr);
    assert!(!out.status.success());
    assert!(
        message.contains("zones.bow") && message.contains("edges 1 and 3 cross"),
        "{message}"
    );
}
