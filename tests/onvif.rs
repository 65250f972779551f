//! The documents of `track --onvif`: their structure, their agreement with the events, and their
//! validity under ONVIF's schemas.
#![cfg(all(feature = "video", feature = "models"))]
#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::path::Path;
use std::process::Command;

use common::{clip, complete_lines, repository, run, text, twintrack};
use roxmltree::{Document, Node};
use serde_json::Value;

const TT: &str = "http://www.onvif.org/ver10/schema";
/// Size of the clip's frames.
const SIZE: (f64, f64) = (768.0, 576.0);

/// Tracks a part of the clip with a line, zones and a ground plane. Returns the events and the text
/// of the documents.
fn track(dir: &Path, more: &[&str]) -> (Vec<Value>, String) {
    let config = dir.join("c.toml");
    let shapes = "[detector]\nsize = \"416x320\"\n[cadence]\nmax_interval = 0\n\
        [lines.door]\npoints = [[200, 150], [560, 560]]\n\
        [zones.whole]\npoints = [[0, 0], [1, 0], [1, 1], [0, 1]]\ndwell = 2\nlimit = 3\n\
        [ground]\npairs = [[0, 300, 0, 20], [768, 300, 20, 20], [768, 576, 20, 0], [0, 576, 0, 0]]\n";
    std::fs::write(&config, shapes).unwrap();
    let (events, metadata) = (dir.join("e.jsonl"), dir.join("m.xml"));
    run(twintrack()
        .arg("track")
        .arg(clip())
        .args(["--quiet", "--camera", "gate & yard", "--config"])
        .args([
            &config,
            Path::new("--output"),
            &events,
            Path::new("--onvif"),
            &metadata,
        ])
        .args(more));
    (
        complete_lines(&events),
        std::fs::read_to_string(metadata).unwrap(),
    )
}

fn of<'a>(document: &'a Document<'_>, name: &str) -> Vec<Node<'a, 'a>> {
    let is = |n: &Node<'_, '_>| n.tag_name().name() == name;
    document.descendants().filter(is).collect()
}

fn number(node: &Node<'_, '_>, name: &str) -> f64 {
    node.attribute(name).unwrap().parse().unwrap()
}

/// Name and value of the items below a node.
fn items(node: &Node<'_, '_>) -> Vec<(String, String)> {
    let items = node
        .descendants()
        .filter(|n| n.has_tag_name((TT, "SimpleItem")));
    let text = |n: &Node<'_, '_>, key| n.attribute(key).unwrap().to_string();
    items
        .map(|n| (text(&n, "Name"), text(&n, "Value")))
        .collect()
}

fn schema(event: &Value) -> &str {
    event["schema"].as_str().unwrap()
}

/// The frames of the documents against the events.
fn check_frames(events: &[Value], documents: &[Document<'_>]) {
    let frames: Vec<&Value> = (events.iter())
        .filter(|e| schema(e) == "twintrack.trajectory/1")
        .collect();
    let written: Vec<Node<'_, '_>> = documents.iter().flat_map(|d| of(d, "Frame")).collect();
    // After the last frame there may be one more, with the tracks that ended with the input.
    assert!(written.len() == frames.len() || written.len() == frames.len() + 1);
    let mut objects = 0;
    for (event, frame) in frames.iter().zip(&written) {
        let time = event["time"].as_str().unwrap();
        assert_eq!(frame.attribute("UtcTime"), Some(time));
        let found: Vec<Node<'_, '_>> = (frame.children())
            .filter(|n| n.has_tag_name((TT, "Object")))
            .collect();
        let tracks = event["tracks"].as_array().unwrap();
        assert_eq!(found.len(), tracks.len());
        for (track, object) in tracks.iter().zip(found) {
            assert_eq!(
                object.attribute("ObjectId"),
                Some(&*track["id"].to_string())
            );
            let part = |name| {
                let is = |n: &Node<'_, '_>| n.has_tag_name((TT, name));
                object.descendants().find(is).unwrap()
            };
            let (bbox, centre, class) =
                (part("BoundingBox"), part("CenterOfGravity"), part("Type"));
            // Back to pixels.
            let x = |v: f64| (v + 1.0) / 2.0 * SIZE.0;
            let y = |v: f64| (1.0 - v) / 2.0 * SIZE.1;
            let (left, top) = (x(number(&bbox, "left")), y(number(&bbox, "top")));
            let (right, bottom) = (x(number(&bbox, "right")), y(number(&bbox, "bottom")));
            let box_of_it = [left, top, right - left, bottom - top];
            let wanted: [f64; 4] = serde_json::from_value(track["bbox"].clone()).unwrap();
            for (a, b) in box_of_it.iter().zip(wanted) {
                assert!((a - b).abs() < 0.02, "{box_of_it:?} instead of {wanted:?}");
            }
            assert!((x(number(&centre, "x")) - (left + right) / 2.0).abs() < 0.02);
            assert!((y(number(&centre, "y")) - (top + bottom) / 2.0).abs() < 0.02);
            assert_eq!(class.text(), Some("Human"));
            let confidence = track["confidence"].as_f64().unwrap();
            assert!((number(&class, "Likelihood") - confidence).abs() < 0.001);
            let speed: f64 = part("Speed").text().unwrap().parse().unwrap();
            assert!((speed - track["ground"]["speed"].as_f64().unwrap()).abs() < 0.001);
            objects += 1;
        }
    }
    assert!(objects > 300, "only {objects} objects");
    let deleted: Vec<&str> = (documents.iter())
        .flat_map(|d| of(d, "Delete"))
        .map(|n| n.attribute("ObjectId").unwrap())
        .collect();
    let ended: Vec<String> = (events.iter())
        .filter(|e| schema(e) == "twintrack.track_ended/1")
        .map(|e| e["id"].to_string())
        .collect();
    assert_eq!(deleted, ended);
}

/// The notifications of the documents against the events of zones and lines.
fn check_events(events: &[Value], documents: &[Document<'_>]) {
    let written: Vec<Node<'_, '_>> = (documents.iter())
        .flat_map(|d| of(d, "NotificationMessage"))
        .collect();
    let mut notifications = written.iter();
    let mut next = |topic: &str, event: &Value, rule: &str, data: &[(&str, String)]| {
        let node = notifications.next().expect("a notification");
        let of = |name: &'static str| {
            node.descendants()
                .find(move |n| n.tag_name().name() == name && n.parent() != Some(*node))
        };
        let found = node.descendants().find(|n| n.tag_name().name() == "Topic");
        assert_eq!(
            found.unwrap().text(),
            Some(&*format!("tns1:RuleEngine/{topic}"))
        );
        let message = node
            .descendants()
            .find(|n| n.has_tag_name((TT, "Message")))
            .unwrap();
        assert_eq!(message.attribute("UtcTime"), event["time"].as_str());
        let source = [
            ("VideoSourceConfigurationToken", "gate & yard"),
            ("VideoAnalyticsConfigurationToken", "twintrack"),
            ("Rule", rule),
        ];
        let source: Vec<_> = source.map(|(n, v)| (n.to_string(), v.to_string())).to_vec();
        assert_eq!(items(&of("Source").unwrap()), source);
        let mut all = of("Key").map(|n| items(&n)).unwrap_or_default();
        all.extend(items(&of("Data").unwrap()));
        let data: Vec<_> = data
            .iter()
            .map(|(n, v)| (n.to_string(), v.clone()))
            .collect();
        assert_eq!(all, data, "{topic} {event}");
    };
    let mut kinds = std::collections::BTreeSet::new();
    for e in events {
        let track = ("ObjectId", e["track"].to_string());
        match schema(e) {
            "twintrack.line/1" => {
                let (line, way) = (
                    e["line"].as_str().unwrap(),
                    e["direction"].as_str().unwrap(),
                );
                let data = [track, ("Direction", way.to_string())];
                next("LineDetector/Crossed", e, line, &data);
                let rule = format!("{line} {way}");
                next(
                    "CountAggregation/Counter",
                    e,
                    &rule,
                    &[("Count", e[way].to_string())],
                );
                kinds.insert("line");
            }
            "twintrack.zone/1" => {
                let (zone, kind) = (e["zone"].as_str().unwrap(), e["kind"].as_str().unwrap());
                let inside = "FieldDetector/ObjectsInside";
                match kind {
                    "enter" => next(inside, e, zone, &[track, ("IsInside", "true".into())]),
                    "leave" => next(inside, e, zone, &[track, ("IsInside", "false".into())]),
                    "dwell" => {
                        let data = [track, ("State", "true".into())];
                        next("LoiteringDetector/ObjectIsLoitering", e, zone, &data);
                    }
                    _ => {}
                }
                let count = [("Count", e["occupancy"].to_string())];
                next("CountAggregation/Counter", e, zone, &count);
                kinds.insert(
                    ["enter", "leave", "dwell", "over_limit", "within_limit"]
                        .into_iter()
                        .find(|k| *k == kind)
                        .unwrap(),
                );
            }
            _ => {}
        }
    }
    assert!(notifications.next().is_none());
    for kind in ["line", "enter", "leave", "dwell", "over_limit"] {
        assert!(kinds.contains(kind), "no event {kind} in {kinds:?}");
    }
}

/// Validates every document under ONVIF's schemas, if they and xmllint are there.
fn check_schemas(dir: &Path, text_of_all: &str) {
    let schemas = repository(".deps/onvif");
    let has_xmllint = Command::new("xmllint").arg("--version").output().is_ok();
    if !schemas.join("all.xsd").exists() || !has_xmllint {
        eprintln!("SKIPPED: ONVIF's schemas or xmllint are missing (`make setup-test`)");
        return;
    }
    let files: Vec<_> = (text_of_all.lines().enumerate())
        .map(|(i, line)| {
            let file = dir.join(format!("{i}.xml"));
            std::fs::write(&file, line).unwrap();
            file
        })
        .collect();
    let valid = |files: &[std::path::PathBuf]| {
        Command::new("xmllint")
            .env("XML_CATALOG_FILES", schemas.join("catalog.xml"))
            .args(["--nonet", "--noout", "--schema"])
            .arg(schemas.join("all.xsd"))
            .args(files)
            .output()
            .unwrap()
    };
    let out = valid(&files);
    let message = text(&out.stderr);
    let wrong: Vec<&str> = message
        .lines()
        .filter(|l| !l.ends_with(" validates"))
        .collect();
    assert!(
        out.status.success() && wrong.is_empty(),
        "{:?}",
        &wrong[..wrong.len().min(5)]
    );
    // The schemas reject what is wrong.
    std::fs::write(
        &files[0],
        text_of_all
            .lines()
            .next()
            .unwrap()
            .replace("UtcTime", "Time"),
    )
    .unwrap();
    assert!(!valid(&files[..1]).status.success());
}

fn check(more: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let start: &[&str] = &["--recorded-at", "2026-11-27T12:00:00Z"];
    let (events, text) = track(dir.path(), &[start, &["--duration", "15"], more].concat());
    let documents: Vec<Document<'_>> = text.lines().map(|l| Document::parse(l).unwrap()).collect();
    for document in &documents {
        assert!(document.root_element().has_tag_name((TT, "MetadataStream")));
    }
    check_frames(&events, &documents);
    check_events(&events, &documents);
    check_schemas(dir.path(), &text);
}

#[test]
fn documents_agree_with_the_events_and_are_valid() {
    check(&[]);
}

#[test]
fn documents_of_linked_tracks_agree_with_the_events_and_are_valid() {
    check(&["--offline"]);
}

/// The attribute is required, so it is there without a wall-clock time too.
#[test]
fn times_count_from_1970_if_they_are_unknown() {
    let dir = tempfile::tempdir().unwrap();
    let (events, text) = track(dir.path(), &["--start", "1", "--duration", "0.5"]);
    let first = Document::parse(text.lines().next().unwrap()).unwrap();
    let pts = events[0]["pts"].as_f64().unwrap();
    let wanted = format!("1970-01-01T00:00:{:06.3}Z", pts);
    let frames = of(&first, "Frame");
    assert_eq!(frames[0].attribute("UtcTime"), Some(&*wanted));
}
