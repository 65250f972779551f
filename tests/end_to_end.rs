//! The program as a whole, on the sample clip.
#![cfg(feature = "video")]
#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{Running, clip, json_lines, repository, run, shared, text, twintrack};
use serde_json::Value;

const RUN: &str = "01936a1e-0000-7000-8000-000000000001";

fn track(dir: &Path, more: &[&str]) -> (Vec<Value>, String) {
    let (jsonl, mot) = (dir.join("out.jsonl"), dir.join("out.txt"));
    run(twintrack()
        .arg("track")
        .arg(clip())
        .args(["--quiet", "--threads", "2", "--run-id", RUN, "--output"])
        .arg(&jsonl)
        .arg("--mot")
        .arg(&mot)
        .args(more));
    (
        json_lines(&std::fs::read_to_string(jsonl).unwrap()),
        std::fs::read_to_string(mot).unwrap(),
    )
}

fn frames(events: &[Value]) -> Vec<&Value> {
    events
        .iter()
        .filter(|e| e["schema"] == "twintrack.trajectory/1")
        .collect()
}

fn foot(t: &Value) -> (f64, f64) {
    (
        t["foot"][0].as_f64().unwrap(),
        t["foot"][1].as_f64().unwrap(),
    )
}

/// The id of the track with the foot point nearest to (x, y) in a frame, which must be within
/// `reach` pixels.
fn id_at(events: &[Value], frame: u64, x: f64, y: f64, reach: f64) -> u64 {
    let event = frames(events)
        .into_iter()
        .find(|e| e["frame"] == frame)
        .expect("an event of the frame");
    let tracks = event["tracks"].as_array().unwrap();
    let near = tracks
        .iter()
        .map(|t| (foot(t), t))
        .map(|((fx, fy), t)| ((fx - x).hypot(fy - y), t))
        .min_by(|a, b| a.0.total_cmp(&b.0));
    let (distance, t) = near.unwrap_or_else(|| panic!("no one is tracked in frame {frame}"));
    assert!(
        distance <= reach,
        "the nearest person to ({x}, {y}) in frame {frame} is {distance:.0} pixels away"
    );
    t["id"].as_u64().unwrap()
}

/// The expected values were read from the clip by a person, not from the program's output. Ten
/// people stay for more than five seconds (some leave and return). The positions of three people
/// who are never occluded for long are known in frames that are far apart.
#[test]
fn people_of_the_sample_clip_are_counted_and_keep_their_ids() {
    for precision in ["fp32", "int8"] {
        let dir = tempfile::tempdir().unwrap();
        let (events, _) = track(dir.path(), &["--precision", precision]);
        check_people(&events);
    }
}

fn check_people(events: &[Value]) {
    let all = frames(events);
    assert_eq!(all.len(), 400);
    let per_frame: f64 = all
        .iter()
        .map(|e| e["tracks"].as_array().unwrap().len() as f64)
        .sum::<f64>()
        / 400.0;
    assert!(
        (4.5..8.5).contains(&per_frame),
        "{per_frame:.1} people per frame; about six are visible"
    );
    let mut seconds: BTreeMap<u64, u32> = BTreeMap::new();
    all.iter()
        .flat_map(|e| e["tracks"].as_array().unwrap())
        .for_each(|t| *seconds.entry(t["id"].as_u64().unwrap()).or_default() += 1);
    let long = seconds.values().filter(|n| **n > 50).count();
    assert!(
        (8..=15).contains(&long),
        "{long} tracks of more than five seconds; ten people stay that long"
    );
    assert!(
        seconds.len() <= 30,
        "{} tracks of about a dozen people",
        seconds.len()
    );
    // The woman in red, the man in black beside her, and the man in blue jeans: frame and foot
    // point.
    for (name, places) in [
        (
            "in red",
            [(41, 584.0, 329.0), (121, 572.0, 196.0), (281, 614.0, 207.0)],
        ),
        (
            "in black",
            [(41, 619.0, 324.0), (121, 598.0, 196.0), (281, 641.0, 209.0)],
        ),
        (
            "in jeans",
            [
                (121, 664.0, 202.0),
                (281, 127.0, 214.0),
                (381, 676.0, 307.0),
            ],
        ),
    ] {
        let ids = places.map(|(frame, x, y)| id_at(events, frame, x, y, 15.0));
        assert!(
            ids.iter().all(|id| *id == ids[0]),
            "the person {name} is {ids:?}"
        );
    }
}

#[test]
fn every_event_is_valid_by_the_schema() {
    let schema: Value = serde_json::from_str(
        &std::fs::read_to_string(repository("schema/trajectory.schema.json")).unwrap(),
    )
    .unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("all.toml");
    std::fs::write(
        &config,
        "[output]\nlost = true\nembeddings = true\n[identity]\nremember = 60.0\n",
    )
    .unwrap();
    let (events, _) = track(
        dir.path(),
        &[
            "--duration",
            "12",
            "--recorded-at",
            "2009-06-01T12:00:00Z",
            "--config",
            config.to_str().unwrap(),
        ],
    );
    for e in &events {
        let problems: Vec<String> = validator
            .iter_errors(e)
            .map(|p| format!("{p} at {}", p.instance_path()))
            .collect();
        assert!(problems.is_empty(), "{problems:?} in {e}");
    }
    let states: BTreeSet<&str> = frames(&events)
        .iter()
        .flat_map(|e| e["tracks"].as_array().unwrap())
        .map(|t| t["state"].as_str().unwrap())
        .collect();
    assert_eq!(
        states,
        BTreeSet::from(["confirmed", "interpolated", "lost"])
    );
    let ended: Vec<&Value> = events
        .iter()
        .filter(|e| e["schema"] == "twintrack.track_ended/1")
        .collect();
    assert!(
        !ended.is_empty()
            && ended
                .iter()
                .all(|e| e["embedding"].as_array().is_some_and(|v| v.len() == 256))
    );
    assert_eq!(frames(&events)[10]["time"], "2009-06-01T12:00:01.000Z");
    let named = |t: &Value| {
        t["identity"]["name"]
            .as_str()
            .is_some_and(|n| n.starts_with("person-"))
    };
    assert!(
        frames(&events)
            .iter()
            .flat_map(|e| e["tracks"].as_array().unwrap())
            .any(named),
        "some tracks have a remembered identity"
    );
    // The validator must reject an invalid event.
    let mut broken = events[0].clone();
    broken["tracks"] = Value::Null;
    assert!(!validator.is_valid(&broken));
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (first, second) = (
        track(a.path(), &["--duration", "10"]),
        track(b.path(), &["--duration", "10"]),
    );
    assert!(!first.1.is_empty());
    assert_eq!(
        std::fs::read(a.path().join("out.jsonl")).unwrap(),
        std::fs::read(b.path().join("out.jsonl")).unwrap()
    );
    assert_eq!(first.1, second.1);
}

#[test]
fn events_are_in_order_and_agree_with_the_mot_file() {
    let dir = tempfile::tempdir().unwrap();
    let (events, mot) = track(dir.path(), &["--start", "5", "--duration", "10"]);
    let numbers: Vec<u64> = frames(&events)
        .iter()
        .map(|e| e["frame"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, (51..=150).collect::<Vec<_>>());
    let from_events: BTreeSet<(u64, u64)> = frames(&events)
        .iter()
        .flat_map(|e| {
            e["tracks"]
                .as_array()
                .unwrap()
                .iter()
                .map(|t| (e["frame"].as_u64().unwrap(), t["id"].as_u64().unwrap()))
        })
        .collect();
    let from_mot: BTreeSet<(u64, u64)> = mot
        .lines()
        .map(|l| {
            let mut f = l.split(',').map(|v| v.parse::<f64>().unwrap());
            (f.next().unwrap() as u64, f.next().unwrap() as u64)
        })
        .collect();
    assert_eq!(from_events, from_mot);
    for e in events
        .iter()
        .filter(|e| e["schema"] == "twintrack.track_ended/1")
    {
        assert!(
            e["first"].as_f64().unwrap() >= 5.0 - 1e-6
                && e["last"].as_f64().unwrap() >= e["first"].as_f64().unwrap(),
            "{e}"
        );
        assert!(!e["path"].as_array().unwrap().is_empty());
    }
}

#[test]
fn the_annotated_video_has_every_frame() {
    use opencv::videoio::{
        CAP_FFMPEG, CAP_PROP_FRAME_COUNT, CAP_PROP_FRAME_WIDTH, VideoCapture,
        VideoCaptureTraitConst,
    };
    let dir = tempfile::tempdir().unwrap();
    let video = dir.path().join("out.mp4");
    track(
        dir.path(),
        &["--duration", "3", "--video", video.to_str().unwrap()],
    );
    let capture = VideoCapture::from_file(&video, CAP_FFMPEG).unwrap();
    assert_eq!(capture.get(CAP_PROP_FRAME_COUNT).unwrap(), 30.0);
    assert_eq!(capture.get(CAP_PROP_FRAME_WIDTH).unwrap(), 768.0);
}

#[test]
fn saved_detections_give_the_same_tracks_as_the_detector() {
    let dir = tempfile::tempdir().unwrap();
    let saved = dir.path().join("det.txt");
    let args = ["--no-embed", "--duration", "6"];
    let (_, with_network) = track(
        dir.path(),
        &[&args[..], &["--save-detections", saved.to_str().unwrap()]].concat(),
    );
    let (_, again) = track(
        dir.path(),
        &[&args[..], &["--detections", saved.to_str().unwrap()]].concat(),
    );
    let ids = |t: &str| {
        t.lines()
            .map(|l| l.split(',').take(2).map(str::to_string).collect::<Vec<_>>())
            .collect::<Vec<_>>()
    };
    assert!(!with_network.is_empty());
    assert_eq!(ids(&with_network), ids(&again));
}

#[test]
fn a_folder_of_images_is_tracked() {
    use opencv::core::Vector;
    use opencv::{imgcodecs, videoio, videoio::VideoCaptureTrait};
    let dir = tempfile::tempdir().unwrap();
    let images = dir.path().join("yard");
    std::fs::create_dir(&images).unwrap();
    let mut capture = videoio::VideoCapture::from_file(clip(), videoio::CAP_FFMPEG).unwrap();
    for i in 0..12 {
        let mut mat = opencv::core::Mat::default();
        assert!(capture.read(&mut mat).unwrap());
        assert!(
            imgcodecs::imwrite(
                images.join(format!("{i}.png")).to_str().unwrap(),
                &mat,
                &Vector::new()
            )
            .unwrap()
        );
    }
    let out = run(twintrack()
        .arg("track")
        .arg(&images)
        .args(["--quiet", "--frame-rate", "10"]));
    let events = json_lines(&text(&out.stdout));
    let all = frames(&events);
    assert_eq!(
        (
            all.len(),
            all[0]["camera"].as_str(),
            all[11]["pts"].as_f64()
        ),
        (12, Some("yard"), Some(1.1))
    );
    // Three people are visible; a small sign at the left edge may be detected as a fourth person.
    assert!(
        (3..=4).contains(&all[11]["tracks"].as_array().unwrap().len()),
        "{}",
        all[11]
    );
}

#[test]
fn ctrl_c_completes_the_files_and_exits_130() {
    let dir = tempfile::tempdir().unwrap();
    let (jsonl, video) = (dir.path().join("out.jsonl"), dir.path().join("out.mp4"));
    let mut child = Running::start(
        twintrack()
            .args([
                "track",
                clip().to_str().unwrap(),
                "--output",
                "-",
                "--video",
                video.to_str().unwrap(),
            ])
            .stdout(std::fs::File::create(&jsonl).unwrap())
            .stderr(Stdio::null()),
    );
    let deadline = Instant::now() + Duration::from_secs(60);
    while std::fs::metadata(&jsonl).unwrap().len() < 2000 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    child.signal("INT");
    assert_eq!(child.code(60), Some(130));
    let events = json_lines(&std::fs::read_to_string(&jsonl).unwrap());
    let n = frames(&events).len();
    assert!((1..400).contains(&n), "{n} frames before the interruption");
    use opencv::videoio::{CAP_FFMPEG, CAP_PROP_FRAME_COUNT, VideoCapture, VideoCaptureTraitConst};
    assert_eq!(
        VideoCapture::from_file(&video, CAP_FFMPEG)
            .unwrap()
            .get(CAP_PROP_FRAME_COUNT)
            .unwrap(),
        n as f64
    );
}

#[test]
fn detectors_of_other_layouts_run_by_configuration() {
    let dir = tempfile::tempdir().unwrap();
    for (layout, expected) in [
        ("yolo", [192.0, 168.0, 96.0, 240.0]),
        ("dfine", [307.2, 172.8, 76.8, 230.4]),
    ] {
        let config = dir.path().join("c.toml");
        let model = repository(&format!("tests/fixtures/{layout}.onnx"));
        let settings = format!(
            "[detector]\nmodel = {model:?}\nlayout = \"{layout}\"\n[embedder]\nenabled = false\n"
        );
        std::fs::write(&config, settings).unwrap();
        let out = run(twintrack()
            .arg("track")
            .arg(clip())
            .args(["--quiet", "--duration", "0.5", "--config"])
            .arg(&config));
        let events = json_lines(&text(&out.stdout));
        let last = frames(&events)[4];
        let [t] = last["tracks"].as_array().unwrap().as_slice() else {
            panic!("{layout}: one person expected in {last}")
        };
        for (got, want) in t["bbox"].as_array().unwrap().iter().zip(expected) {
            assert!((got.as_f64().unwrap() - want).abs() < 0.1, "{layout}: {t}");
        }
    }
}

/// Tracking by motion only, on MOT17's public detections. The limits are scores of Roboflow
/// trackers 2.6.1 by the reference scorer (see BENCHMARKS.md).
#[test]
fn motion_only_scores_above_sort_and_c_biou_on_mot17() {
    let Some(root) = shared("data/mot17") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(&root)
        .unwrap()
        .flatten()
        .filter(|e| e.path().join("seqinfo.ini").exists())
    {
        let (sequence, name) = (entry.path(), entry.file_name().into_string().unwrap());
        run(twintrack()
            .arg("track")
            .arg(&sequence)
            .args([
                "--quiet",
                "--no-embed",
                "--output",
                "/dev/null",
                "--detections",
            ])
            .arg(sequence.join("det/det.txt"))
            .arg("--mot")
            .arg(dir.path().join(format!("{name}.txt"))));
    }
    let out = run(twintrack()
        .args(["eval", "--json", "--gt"])
        .arg(&root)
        .arg("--results")
        .arg(dir.path()));
    let rows: Value = serde_json::from_slice(&out.stdout).unwrap();
    let all = rows.as_array().unwrap().last().unwrap();
    for (metric, peer, score) in [
        ("HOTA", "C-BIoU", 41.691),
        ("IDF1", "C-BIoU", 48.154),
        ("MOTA", "SORT", 41.551),
    ] {
        let ours = all[metric].as_f64().unwrap();
        assert!(ours > score, "{metric} {ours:.2}, {peer} has {score}");
    }
}

#[test]
fn offline_and_refine_link_tracks_and_fill_gaps() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("embeddings.toml");
    std::fs::write(&config, "[output]\nembeddings = true\n").unwrap();
    let online = dir.path().join("online.jsonl");
    run(twintrack()
        .arg("track")
        .arg(clip())
        .args(["--quiet", "--duration", "12", "--run-id", RUN, "--output"])
        .arg(&online)
        .arg("--config")
        .arg(&config));
    let video = dir.path().join("offline.mp4");
    let (offline, mot) = track(
        dir.path(),
        &[
            "--duration",
            "12",
            "--offline",
            "--video",
            video.to_str().unwrap(),
        ],
    );
    let (refined, refined_mot) = (
        dir.path().join("refined.jsonl"),
        dir.path().join("refined.txt"),
    );
    run(twintrack()
        .arg("refine")
        .arg(&online)
        .arg("--output")
        .arg(&refined)
        .arg("--mot")
        .arg(&refined_mot));
    let refined = json_lines(&std::fs::read_to_string(&refined).unwrap());

    let schema: Value = serde_json::from_str(
        &std::fs::read_to_string(repository("schema/trajectory.schema.json")).unwrap(),
    )
    .unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let online = json_lines(&std::fs::read_to_string(&online).unwrap());
    let ids = |events: &[Value]| -> BTreeSet<u64> {
        let tracks = frames(events)
            .into_iter()
            .flat_map(|e| e["tracks"].as_array().unwrap().clone());
        tracks.map(|t| t["id"].as_u64().unwrap()).collect()
    };
    for events in [&offline, &refined] {
        assert!(events.iter().all(|e| validator.is_valid(e)));
        assert_eq!(frames(events).len(), 120);
        let filled = frames(events)
            .iter()
            .flat_map(|e| e["tracks"].as_array().unwrap())
            .filter(|t| t["state"] == "interpolated")
            .count();
        assert!(filled > 10, "only {filled} boxes were filled in");
        let embedded = events
            .iter()
            .filter(|e| e.get("embedding").is_some())
            .count();
        assert_eq!(
            embedded > 0,
            std::ptr::eq(events, &refined),
            "refine keeps the embeddings of its input; --offline was run without --embeddings"
        );
        let ended: BTreeSet<u64> = events
            .iter()
            .filter(|e| e["schema"] == "twintrack.track_ended/1")
            .map(|e| e["id"].as_u64().unwrap())
            .collect();
        assert_eq!(
            ended,
            ids(events),
            "exactly the ids in frames have a track_ended event"
        );
    }
    assert!(
        ids(&refined).is_subset(&ids(&online)),
        "a trajectory has the id of its first track"
    );
    assert!(
        mot.lines().count() > frames(&offline).len()
            && std::fs::metadata(&video).unwrap().len() > 100_000
    );
    assert_eq!(
        std::fs::read_to_string(&refined_mot)
            .unwrap()
            .lines()
            .count(),
        frames(&refined)
            .iter()
            .map(|e| e["tracks"].as_array().unwrap().len())
            .sum::<usize>()
    );
}

#[test]
fn tune_writes_a_configuration_that_is_not_worse_on_the_tuned_sequence() {
    let dir = tempfile::tempdir().unwrap();
    let sequence = dir.path().join("gt/clip");
    std::fs::create_dir_all(sequence.join("gt")).unwrap();
    std::fs::create_dir_all(sequence.join("det")).unwrap();
    std::fs::copy(
        repository("samples/pets2009-s2l1/gt/gt.txt"),
        sequence.join("gt/gt.txt"),
    )
    .unwrap();
    std::fs::write(
        sequence.join("seqinfo.ini"),
        "[Sequence]\nframeRate=10\nseqLength=400\nimWidth=768\nimHeight=576\n",
    )
    .unwrap();
    let detections = sequence.join("det/det.txt");
    run(twintrack()
        .arg("track")
        .arg(clip())
        .args([
            "--quiet",
            "--no-embed",
            "--output",
            "/dev/null",
            "--save-detections",
        ])
        .arg(&detections));
    let tuned = dir.path().join("tuned.toml");
    let tune = |more: &[&str]| {
        text(
            &run(twintrack()
                .args(["tune", "--trials", "40", "--gt"])
                .arg(dir.path().join("gt"))
                .arg("--output")
                .arg(&tuned)
                .args(more))
            .stdout,
        )
    };
    let report = tune(&[
        "--vary",
        "tracker.keep_lost=0.2..6",
        "tracker.cost.limit=0.3..1",
    ]);
    let objective = |row: &str| {
        let line = report
            .lines()
            .find(|l| l.starts_with(row))
            .unwrap_or_else(|| panic!("no row {row} in\n{report}"));
        let numbers: Vec<f64> = line
            .split_whitespace()
            .skip(1)
            .map(|v| v.parse().unwrap())
            .collect();
        numbers[0] + numbers[5]
    };
    assert!(objective("best") >= objective("start"), "{report}");
    assert!(report.contains("tracker.keep_lost") && report.contains("with a single sequence"));
    let config = twintrack::config::Config::read(&tuned).unwrap();
    assert!((0.2..=6.0).contains(&config.tracker.keep_lost));
    assert_eq!(
        report,
        tune(&[
            "--vary",
            "tracker.keep_lost=0.2..6",
            "tracker.cost.limit=0.3..1"
        ]),
        "the same seed gives the same report"
    );
}
