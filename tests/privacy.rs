//! Pictures in which people are blurred, and settings that forbid to store them: every way by which
//! pictures leave the program.
#![cfg(feature = "serve")]
#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;
#[path = "common/http.rs"]
mod http;

use std::path::Path;

use common::{Running, clip, complete_lines, run, twintrack, until};
use http::{Request, Service};
use opencv::core::{MatTraitConst as _, MatTraitConstManual as _, Vector};
use opencv::imgcodecs;
use serde_json::{Value, json};
use twintrack::frame::Image;
use twintrack::source::{self, SourceOptions};

/// Seconds of the clip that are tracked, and their number of frames.
const PART: (&str, usize) = ("2.95", 30);

/// A part of a picture: left, top, right and bottom edge in pixels.
type Part = [f64; 4];

/// A part of a box, in shares of its width and height.
fn part(bbox: &Value, [left, top, right, bottom]: Part) -> Part {
    let v: Vec<f64> = serde_json::from_value(bbox.clone()).unwrap();
    let (x, y) = (
        |share: f64| v[0] + share * v[2],
        |share: f64| v[1] + share * v[3],
    );
    [x(left), y(top), x(right), y(bottom)]
}

/// Where the head is, away from the lines of the box.
const HEAD: Part = [0.3, 0.05, 0.7, 0.2];
/// Where the legs are.
const LEGS: Part = [0.2, 0.6, 0.8, 0.85];

/// Mean difference of horizontal neighbours in a part of a picture, and the number of pairs.
fn detail(image: &Image, [left, top, right, bottom]: Part) -> (f64, f64) {
    let edge = |v: f64, most: u32| v.clamp(0.0, f64::from(most)) as usize;
    let (left, right) = (edge(left, image.width), edge(right, image.width));
    let (mut sum, mut pairs) = (0.0, 0.0);
    for y in edge(top, image.height)..edge(bottom, image.height) {
        let row = image.row(y);
        for x in left + 1..right {
            sum += f64::from(row[3 * x + 1].abs_diff(row[3 * x - 2]));
            pairs += 1.0;
        }
    }
    (sum, pairs)
}

/// Mean detail of the same part of all boxes of the frames.
fn mean_detail(frames: &[(Image, Vec<Value>)], which: Part) -> f64 {
    let of = |(image, boxes): &(Image, Vec<Value>)| {
        let all = boxes.iter().map(|b| detail(image, part(b, which)));
        all.fold((0.0, 0.0), |a, b| (a.0 + b.0, a.1 + b.1))
    };
    let (sum, pairs) = frames
        .iter()
        .map(of)
        .fold((0.0, 0.0), |a, b| (a.0 + b.0, a.1 + b.1));
    assert!(pairs > 300.0, "only {pairs} pairs of pixels");
    sum / pairs
}

/// Mean difference of two pictures at the pixels for which `counts` is true.
fn difference(a: &Image, b: &Image, counts: impl Fn(f64, f64) -> bool) -> f64 {
    let (mut sum, mut pixels) = (0.0, 0.0);
    for y in 0..a.height as usize {
        let (one, other) = (a.row(y), b.row(y));
        for x in (0..a.width as usize).filter(|&x| counts(x as f64, y as f64)) {
            sum += f64::from(one[3 * x + 1].abs_diff(other[3 * x + 1]));
            pixels += 1.0;
        }
    }
    assert!(pixels > 10_000.0);
    sum / pixels
}

fn read(file: &Path) -> Vec<Image> {
    let mut source = source::open(&file.to_string_lossy(), &SourceOptions::default()).unwrap();
    let mut images = Vec::new();
    while let Some(frame) = source.next_frame().unwrap() {
        images.push(frame.image.unwrap());
    }
    images
}

/// The boxes of a frame's event.
fn boxes(event: &Value) -> Vec<Value> {
    let tracks = event["tracks"].as_array().unwrap();
    tracks.iter().map(|t| t["bbox"].clone()).collect()
}

fn frame_events(lines: &[Value]) -> Vec<Value> {
    let is_frame = |e: &&Value| e["schema"] == "twintrack.trajectory/1";
    lines.iter().filter(is_frame).cloned().collect()
}

/// Tracks the beginning of the clip into an annotated video. Returns its frames with the boxes of
/// their events, and the events without run.
fn annotated(dir: &Path, blur: &str, more: &[&str]) -> (Vec<(Image, Vec<Value>)>, Vec<Value>) {
    let config = dir.join(format!("{blur}.toml"));
    let text = format!(
        "[privacy]\nblur = \"{blur}\"\n[cadence]\nmax_interval = 0\n[detector]\nsize = \"416x320\"\n"
    );
    std::fs::write(&config, text).unwrap();
    let (video, events) = (
        dir.join(format!("{blur}.mp4")),
        dir.join(format!("{blur}.jsonl")),
    );
    run(twintrack()
        .arg("track")
        .arg(clip())
        .args(["--duration", PART.0, "--quiet", "--config"])
        .args([
            &config,
            Path::new("--output"),
            &events,
            Path::new("--video"),
            &video,
        ])
        .args(["--run-id", "0192a5b8-7c3e-7000-8000-000000000000"])
        .args(more));
    let lines = complete_lines(&events);
    let frames = frame_events(&lines);
    let images = read(&video);
    assert_eq!((images.len(), frames.len()), (PART.1, PART.1));
    let with_boxes = images.into_iter().zip(frames.iter().map(boxes)).collect();
    (with_boxes, lines)
}

fn annotated_videos(more: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let (none, events) = annotated(dir.path(), "none", more);
    let (faces, with_faces) = annotated(dir.path(), "faces", more);
    let (people, with_people) = annotated(dir.path(), "people", more);
    assert!(
        events == with_faces && events == with_people,
        "blur changes events"
    );
    // Without the first frames: people are not confirmed yet, so that they have no box to look at.
    let later = |frames: &[(Image, Vec<Value>)]| frames[10..].to_vec();
    let (none, faces, people) = (later(&none), later(&faces), later(&people));
    let ratio = |frames: &[(Image, Vec<Value>)], which| {
        mean_detail(frames, which) / mean_detail(&none, which)
    };
    let heads = (ratio(&faces, HEAD), ratio(&people, HEAD));
    let legs = (ratio(&faces, LEGS), ratio(&people, LEGS));
    assert!(heads.0 < 0.5 && heads.1 < 0.5, "heads {heads:?}");
    assert!(legs.0 > 0.9 && legs.1 < 0.5, "legs {legs:?}");
    // What is not near anybody is as it was, but for the encoder.
    for ((a, boxes), (b, _)) in none.iter().zip(&people) {
        let near = |x: f64, y: f64| {
            let inside = |[l, t, r, b]: Part| x >= l && x <= r && y >= t && y <= b;
            boxes
                .iter()
                .any(|bbox| inside(part(bbox, [-1.0, -0.6, 2.0, 1.6])))
        };
        let outside = difference(a, b, |x, y| !near(x, y));
        assert!(outside < 2.5, "{outside}");
    }
}

#[test]
fn people_are_blurred_in_annotated_videos() {
    annotated_videos(&[]);
}

#[test]
fn people_are_blurred_in_annotated_videos_of_linked_tracks() {
    annotated_videos(&["--offline"]);
}

/// A person without a confirmed track is hidden too: in the first frames nobody has one.
#[test]
fn people_are_blurred_before_they_are_tracked() {
    let dir = tempfile::tempdir().unwrap();
    let (none, _) = annotated(dir.path(), "none", &[]);
    let (people, _) = annotated(dir.path(), "people", &[]);
    assert!(
        none[0].1.is_empty(),
        "no track is confirmed in the first frame"
    );
    // Whoever has a track in frame 4 was there in frame 1, at nearly the same place.
    let later = none[3].1.clone();
    assert!(later.len() >= 3);
    let first = |frames: &[(Image, Vec<Value>)]| vec![(frames[0].0.clone(), later.clone())];
    let ratio = mean_detail(&first(&people), HEAD) / mean_detail(&first(&none), HEAD);
    assert!(ratio < 0.5, "{ratio}");
}

/// Runs `serve` with a history and with the camera `short`, which ends with the clip, beside one
/// that goes on; waits until `short` has ended.
fn serve(dir: &Path, privacy: &str) -> Service {
    let url = clip().display().to_string();
    let toml = format!(
        "[serve]\nlisten = \"127.0.0.1:0\"\nstate_dir = \"state\"\nstop_within = 60\n\
         [detector]\nsize = \"416x320\"\n\
         [cameras.short]\nurl = {url:?}\nrealtime = false\n\
         [cameras.long]\nurl = {url:?}\nrepeat = true\n\
         [history]\ncrops = true\nembeddings = true\n[output]\nembeddings = true\n\
         [privacy]\n{privacy}\n"
    );
    std::fs::write(dir.join("cameras.toml"), toml).unwrap();
    let child = Running::start(
        twintrack()
            .current_dir(dir)
            .args(["serve", "--config", "cameras.toml", "--output", "out.jsonl"])
            .stderr(std::fs::File::create(dir.join("log")).unwrap()),
    );
    let mut service = Service {
        child,
        port: 0,
        dir: dir.into(),
    };
    let ended = |e: &Value| e["camera"] == "short" && e["state"] == "ended";
    assert!(
        until(300, || complete_lines(&dir.join("out.jsonl"))
            .iter()
            .any(ended)),
        "{}",
        service.log()
    );
    let log = service.log();
    let line = log
        .lines()
        .find_map(|l| l.strip_prefix("page, live events and metrics: "));
    let port = line.and_then(|l| l.rsplit(':').next()?.split('/').next()?.parse().ok());
    service.port = port.unwrap();
    service
}

/// The JPEGs of an SQLite history's crops.
fn crops(dir: &Path) -> Vec<Vec<u8>> {
    let db = rusqlite::Connection::open(dir.join("state/history.sqlite")).unwrap();
    let mut select = db
        .prepare("SELECT jpeg FROM crops ORDER BY track_id, score")
        .unwrap();
    let rows = select.query_map([], |row| row.get(0)).unwrap();
    rows.map(Result::unwrap).collect()
}

fn decode(jpeg: &[u8]) -> Image {
    let bytes = Vector::<u8>::from_slice(jpeg);
    let mat = imgcodecs::imdecode(&bytes, imgcodecs::IMREAD_COLOR).unwrap();
    let (width, height) = (mat.cols() as u32, mat.rows() as u32);
    Image::packed(width, height, mat.data_bytes().unwrap().into())
}

/// Mean detail of pictures, without their borders.
fn detail_of(pictures: &[Vec<u8>]) -> f64 {
    let all = pictures.iter().map(|jpeg| {
        let image = decode(jpeg);
        let (w, h) = (f64::from(image.width), f64::from(image.height));
        detail(&image, [0.1 * w, 0.1 * h, 0.9 * w, 0.9 * h])
    });
    let (sum, pairs) = all.fold((0.0, 0.0), |a, b| (a.0 + b.0, a.1 + b.1));
    sum / pairs
}

#[test]
fn people_are_blurred_in_live_pictures_and_stored_crops() {
    let (open, hidden) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut last = Vec::new();
    let (mut without_overlay, mut stored) = (Vec::new(), Vec::new());
    for (dir, blur) in [(open.path(), "none"), (hidden.path(), "people")] {
        let mut service = serve(dir, &format!("blur = \"{blur}\""));
        for (query, shown) in [
            ("width=768", &mut last),
            ("overlay=false", &mut without_overlay),
        ] {
            let url = format!("/api/v1/cameras/short/picture.jpg?{query}");
            let answer = service.get(&url, &[]);
            assert_eq!(answer.status, 200);
            let frame = answer.header("x-twintrack-frame").unwrap();
            let frame: u64 = frame.parse().unwrap();
            // The page may show a frame before its event is in the file.
            let boxes_of = || {
                let events = frame_events(&complete_lines(&dir.join("out.jsonl")));
                let is_shown = |e: &&Value| e["camera"] == "short" && e["frame"] == frame;
                events.iter().find(is_shown).map(boxes)
            };
            assert!(until(120, || boxes_of().is_some()), "frame {frame}");
            shown.push(vec![(decode(&answer.body), boxes_of().unwrap())]);
        }
        service.child.signal("TERM");
        assert_eq!(service.child.code(120), Some(0), "{}", service.log());
        let pictures = crops(dir);
        assert!(pictures.len() > 5, "{} crops", pictures.len());
        stored.push(detail_of(&pictures));
    }
    for which in [HEAD, LEGS] {
        for pictures in [&last, &without_overlay] {
            let ratio = mean_detail(&pictures[1], which) / mean_detail(&pictures[0], which);
            assert!(ratio < 0.5, "{which:?} {ratio}");
        }
    }
    assert!(stored[1] < 0.6 * stored[0], "crops {stored:?}");
}

#[test]
fn one_setting_forbids_all_crops_and_one_all_embeddings() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let mut service = serve(dir, "crops = false\nembeddings = false");
    // Nobody can be enrolled.
    let track = service.get("/api/v1/tracks?limit=1", &[]).json()["items"][0].clone();
    let of = json!({"run": track["run"], "camera": track["camera"], "id": track["id"]});
    let body = json!({"name": "Ada", "track": of}).to_string();
    let refused = service.send(&Request::json("POST", "/api/v1/identities", &body));
    assert_eq!(refused.problem().1, "no-embedding", "{}", refused.text());
    let picture = service.get("/api/v1/cameras/short/picture.jpg?overlay=false", &[]);
    assert_eq!(picture.status, 200);
    let path = "/api/v1/identities/Ada/pictures";
    let refused = service.send(&Request::bytes("POST", path, "image/jpeg", &picture.body));
    assert_eq!(refused.problem().1, "no-embedder", "{}", refused.text());
    service.child.signal("TERM");
    assert_eq!(service.child.code(120), Some(0), "{}", service.log());
    assert_eq!(crops(dir).len(), 0);
    let db = rusqlite::Connection::open(dir.join("state/history.sqlite")).unwrap();
    let count = |table: &str| {
        let sql = format!("SELECT count(*) FROM {table}");
        db.query_row(&sql, [], |row| row.get::<_, u64>(0)).unwrap()
    };
    assert!(count("tracks") > 5);
    assert_eq!(count("embeddings") + count("identity_embeddings"), 0);
    let lines = complete_lines(&dir.join("out.jsonl"));
    let mut ended = lines
        .iter()
        .filter(|e| e["schema"] == "twintrack.track_ended/1")
        .peekable();
    assert!(ended.peek().is_some());
    assert!(ended.all(|e| e.get("embedding").is_none()));
    let config = dir.join("cameras.toml");
    let refused = twintrack()
        .args(["track", "--embeddings", "--config"])
        .args([&config, &clip()])
        .output()
        .unwrap();
    let message = common::text(&refused.stderr);
    assert!(
        !refused.status.success() && message.contains("privacy.embeddings"),
        "{message}"
    );
}
