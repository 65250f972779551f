//! One-shot identification through the command line: comparing two pictures, naming people of a
//! gallery, searching earlier runs.
#![cfg(feature = "video")]
#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::path::{Path, PathBuf};

use common::{clip, twintrack};
use opencv::core::{Mat, MatTraitConst, Rect, Vector};
use opencv::videoio::{CAP_ANY, VideoCapture, VideoCaptureTrait};
use serde_json::Value;

/// Ground truth of the clip: frame, person, left, top, width, height.
fn truth() -> Vec<[f64; 6]> {
    let text = std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("samples/pets2009-s2l1/gt/gt.txt"),
    )
    .unwrap();
    let row = |line: &str| {
        let v: Vec<f64> = line
            .split(',')
            .take(6)
            .map(|v| v.parse().unwrap())
            .collect();
        v.try_into().unwrap()
    };
    text.lines().map(row).collect()
}

/// Cuts a person out of a frame of the clip into `dir`.
fn portrait(dir: &Path, name: &str, person: u32, frame: u32) -> PathBuf {
    let of = |r: &&[f64; 6]| r[0] == f64::from(frame) && r[1] == f64::from(person);
    let [_, _, l, t, w, h] = truth()
        .iter()
        .find(of)
        .copied()
        .unwrap_or_else(|| panic!("person {person} is not in frame {frame}"));
    let mut capture = VideoCapture::from_file(clip().to_str().unwrap(), CAP_ANY).unwrap();
    let mut picture = Mat::default();
    (0..frame).for_each(|_| assert!(capture.read(&mut picture).unwrap()));
    let area = Rect::new(l.max(0.0) as i32, t.max(0.0) as i32, w as i32, h as i32);
    let crop = Mat::roi(&picture, area).unwrap().try_clone().unwrap();
    let path = dir.join(format!("{name}.png"));
    assert!(opencv::imgcodecs::imwrite(path.to_str().unwrap(), &crop, &Vector::new()).unwrap());
    path
}

fn said(output: &std::process::Output) -> (bool, String, String) {
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    (
        output.status.success(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

fn similarity(a: &Path, b: &Path) -> f64 {
    let (ok, out, err) = said(&twintrack().arg("compare").args([a, b]).output().unwrap());
    assert!(ok, "{err}");
    let value: f64 = out.lines().next().unwrap().parse().unwrap();
    assert!(
        out.lines()
            .nth(1)
            .unwrap()
            .contains("strangers are this similar"),
        "{out}"
    );
    assert!((0.0..=1.0).contains(&value), "{value}");
    value
}

#[test]
fn similarity_is_higher_for_the_same_person() {
    let dir = tempfile::tempdir().unwrap();
    let (early, late) = (
        portrait(dir.path(), "early", 1, 10),
        portrait(dir.path(), "late", 1, 170),
    );
    let other = portrait(dir.path(), "other", 3, 10);
    let (same, two, itself) = (
        similarity(&early, &late),
        similarity(&early, &other),
        similarity(&early, &early),
    );
    assert!(
        same > 0.7 && two < 0.5 && itself > 0.95,
        "same {same}, two {two}, itself {itself}"
    );
    let (ok, out, _) = said(
        &twintrack()
            .args(["compare", "--json"])
            .args([&early, &other])
            .output()
            .unwrap(),
    );
    let json: Value = serde_json::from_str(&out).unwrap();
    assert!(
        ok && (json["similarity"].as_f64().unwrap() - two).abs() < 1e-3
            && json["distance"].as_f64().unwrap() > 0.0
    );
}

/// With one picture each of three people, most names are right, and no name occurs twice in a
/// frame.
#[test]
fn gallery_people_are_named_and_found_by_search() {
    let dir = tempfile::tempdir().unwrap();
    let gallery = dir.path().join("gallery");
    std::fs::create_dir(&gallery).unwrap();
    for (name, person, frame) in [("ada", 1, 10), ("ben", 3, 10), ("cora", 5, 30)] {
        portrait(&gallery, name, person, frame);
    }
    let people = [("ada", 1.0), ("ben", 3.0), ("cora", 5.0)];
    let runs = dir.path().join("runs");
    std::fs::create_dir(&runs).unwrap();
    let events = runs.join("clip.jsonl");
    let mut track = twintrack();
    track
        .args([
            "track",
            "-q",
            "--duration",
            "15",
            "--embeddings",
            "--gallery",
        ])
        .arg(&gallery)
        .arg("-o")
        .arg(&events)
        .arg(clip());
    let (ok, _, err) = said(&track.output().unwrap());
    assert!(ok, "{err}");

    let truth = truth();
    let (mut right, mut wrong) = (0, 0);
    for line in std::fs::read_to_string(&events).unwrap().lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        let mut here = std::collections::BTreeSet::new();
        for t in event["tracks"].as_array().into_iter().flatten() {
            let Some(name) = t["identity"]["name"].as_str() else {
                continue;
            };
            assert!(here.insert(name.to_string()), "{name} occurs twice: {line}");
            assert!(
                t["identity"]["similarity"]
                    .as_f64()
                    .is_some_and(|s| (0.7..=1.0).contains(&s)),
                "{t}"
            );
            let foot = t["foot"].as_array().unwrap();
            let near = |r: &&[f64; 6]| {
                let (x, y) = (r[2] + r[4] / 2.0, r[3] + r[5]);
                r[0] == event["frame"].as_f64().unwrap()
                    && (foot[0].as_f64().unwrap() - x).hypot(foot[1].as_f64().unwrap() - y) < 12.0
            };
            let Some(who) = truth.iter().find(near) else {
                continue;
            };
            if people.contains(&(name, who[1])) {
                right += 1
            } else {
                wrong += 1
            }
        }
    }
    assert!(
        right > 150 && wrong * 20 < right,
        "{right} names right, {wrong} wrong"
    );

    // Refining keeps the names; each occurs at most once per frame.
    let refined = dir.path().join("refined.jsonl");
    let (ok, _, err) = said(
        &twintrack()
            .args(["refine", "-q"])
            .arg(&events)
            .arg("-o")
            .arg(&refined)
            .output()
            .unwrap(),
    );
    assert!(ok, "{err}");
    let mut named = 0;
    for line in std::fs::read_to_string(&refined).unwrap().lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        let names: Vec<&str> = event["tracks"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|t| t["identity"]["name"].as_str())
            .collect();
        assert_eq!(
            names
                .iter()
                .collect::<std::collections::BTreeSet<_>>()
                .len(),
            names.len(),
            "{line}"
        );
        named += names.len();
    }
    assert!(
        named >= right,
        "{named} named after refining, {right} before"
    );

    let search = |picture: &Path| {
        said(
            &twintrack()
                .args(["search", "--json", "-n", "2"])
                .arg(picture)
                .arg("--in")
                .arg(&runs)
                .output()
                .unwrap(),
        )
    };
    let (ok, out, err) = search(&portrait(dir.path(), "later", 5, 140));
    assert!(ok, "{err}");
    let found: Vec<Value> = out
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert!(found.len() == 2 && found[0]["similarity"].as_f64() >= found[1]["similarity"].as_f64());
    assert!(
        found[0]["similarity"].as_f64().unwrap() > 0.5 && found[0]["embedding"].is_null(),
        "{out}"
    );
    // Tracks with embeddings of another network are not ranked, even if it has the same name;
    // skipped files and tracks are reported.
    let other = |line: &str| {
        line.contains("track_ended")
            .then(|| line.replace("sha256:", "sha256:0"))
    };
    let others: Vec<String> = std::fs::read_to_string(&events)
        .unwrap()
        .lines()
        .filter_map(other)
        .collect();
    assert!(!others.is_empty() && others[0].contains("sha256:0"));
    std::fs::write(runs.join("others.jsonl"), others.join("\n") + "\n").unwrap();
    std::fs::write(
        runs.join("broken.jsonl"),
        "{\"schema\":\"twintrack.track_ended/1\"\n",
    )
    .unwrap();
    std::fs::write(runs.join("notes.txt"), "none of ours").unwrap();
    std::fs::copy(&events, runs.join("old.jsonl.1")).unwrap();
    let (ok, again, err) = search(&portrait(dir.path(), "later", 5, 140));
    let found_again: Vec<Value> = again
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert!(ok && found_again.len() == 2, "{err}");
    let names = |v: &Value| {
        v["file"]
            .as_str()
            .unwrap()
            .rsplit('/')
            .next()
            .unwrap()
            .to_string()
    };
    let files: std::collections::BTreeSet<String> = found_again.iter().map(names).collect();
    assert_eq!(
        files.into_iter().collect::<Vec<_>>(),
        ["clip.jsonl", "old.jsonl.1"],
        "the same track in a file and in its rotated copy"
    );
    for told in [
        "others.jsonl: ",
        "were embedded by",
        "broken.jsonl, line 1",
        "notes.txt",
    ] {
        assert!(err.contains(told), "{told} is missing in {err}");
    }
    assert!(!err.contains("clip.jsonl"), "{err}");
    // The found track is the one that was named cora.
    let named = std::fs::read_to_string(&events).unwrap().lines().any(|l| {
        let e: Value = serde_json::from_str(l).unwrap();
        e["tracks"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|t| t["id"] == found[0]["id"] && t["identity"]["name"] == "cora")
    });
    assert!(named, "{out}");
}

/// `serve` names gallery people on every camera with overlapping views. An added picture is used
/// after SIGHUP; after an invalid picture the gallery is unchanged. Embeddings are written if
/// configured.
#[cfg(feature = "serve")]
#[test]
fn serve_names_people_and_reloads_the_gallery_on_sighup() {
    let dir = tempfile::tempdir().unwrap();
    let (gallery, file, out, log) = (
        dir.path().join("gallery"),
        dir.path().join("cameras.toml"),
        dir.path().join("out.jsonl"),
        dir.path().join("log"),
    );
    std::fs::create_dir(&gallery).unwrap();
    portrait(&gallery, "ada", 1, 10);
    let camera = |name: &str| {
        format!(
            "[cameras.{name}]\nurl = \"{}\"\nrepeat = true\n",
            clip().display()
        )
    };
    let more =
        "[identity]\noverlap = true\n[output]\nembeddings = true\n[detector]\nsize = \"416x320\"\n";
    std::fs::write(
        &file,
        format!(
            "{}{more}{}{}",
            common::NO_PAGE,
            camera("door"),
            camera("yard")
        ),
    )
    .unwrap();
    let mut serve = twintrack();
    serve
        .args(["serve", "--config"])
        .arg(&file)
        .arg("--gallery")
        .arg(&gallery)
        .arg("-o")
        .arg(&out);
    let mut child = common::Running::start(serve.stderr(std::fs::File::create(&log).unwrap()));
    let said = || std::fs::read_to_string(&log).unwrap();
    let named = |camera: &str, name: &str| {
        let here = |e: &Value| {
            e["camera"] == camera
                && e["tracks"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .any(|t| t["identity"]["name"] == name)
        };
        common::complete_lines(&out).iter().any(here)
    };
    assert!(
        common::until(60, || named("door", "ada") && named("yard", "ada")),
        "{}",
        said()
    );
    assert!(said().contains("looking for 1 people") && !named("door", "ben"));
    std::fs::write(gallery.join("broken.png"), "no picture").unwrap();
    child.signal("HUP");
    assert!(
        common::until(20, || said().contains("cannot read the gallery again")),
        "{}",
        said()
    );
    std::fs::remove_file(gallery.join("broken.png")).unwrap();
    portrait(&gallery, "ben", 3, 10);
    child.signal("HUP");
    assert!(
        common::until(60, || named("door", "ben") && named("yard", "ben")),
        "{}",
        said()
    );
    child.signal("TERM");
    assert_eq!(child.code(20), Some(0), "{}", said());
    let ended: Vec<Value> = common::complete_lines(&out)
        .into_iter()
        .filter(|e| e["schema"] == "twintrack.track_ended/1")
        .collect();
    assert!(
        ended
            .iter()
            .any(|e| e["embedding"].as_array().is_some_and(|a| a.len() == 256)),
        "{:?}",
        ended.first()
    );
}

/// A `track_ended` event as a line, with the additional fields `more`.
fn ended_event(more: &str) -> String {
    format!(
        "{}{}{more}}}\n",
        r#"{"schema":"twintrack.track_ended/1","run":"00000000-0000-0000-0000-000000000000","#,
        r#""camera":"a","id":1,"first":0.0,"last":1.0,"hits":9,"path":[]"#
    )
}

#[test]
fn incomparable_inputs_are_reported() {
    let dir = tempfile::tempdir().unwrap();
    let (empty, broken) = (dir.path().join("empty"), dir.path().join("broken.png"));
    std::fs::create_dir(&empty).unwrap();
    std::fs::write(&broken, b"no picture").unwrap();
    let fails = |args: &[&std::ffi::OsStr], what: &str| {
        let (ok, _, err) = said(&twintrack().args(args).output().unwrap());
        assert!(
            !ok && err.contains(what) && err.lines().count() == 1,
            "{err}"
        );
    };
    let s = |t: &'static str| std::ffi::OsStr::new(t);
    let video = clip();
    fails(
        &[
            s("track"),
            video.as_os_str(),
            s("--gallery"),
            empty.as_os_str(),
        ],
        "has no pictures",
    );
    fails(
        &[s("compare"), broken.as_os_str(), broken.as_os_str()],
        "broken.png",
    );
    let person = portrait(dir.path(), "ada", 1, 10);
    fails(
        &[
            s("search"),
            person.as_os_str(),
            s("--in"),
            empty.as_os_str(),
        ],
        "has no trajectories",
    );
    std::fs::write(empty.join("run.jsonl"), ended_event("")).unwrap();
    fails(
        &[
            s("search"),
            person.as_os_str(),
            s("--in"),
            empty.as_os_str(),
        ],
        "track with --embeddings",
    );
    std::fs::write(
        empty.join("run.jsonl"),
        ended_event(r#","embedder":"another 2020-01-01","embedding":[1.0,0.0]"#),
    )
    .unwrap();
    fails(
        &[
            s("search"),
            person.as_os_str(),
            s("--in"),
            empty.as_os_str(),
        ],
        "embedded by 'another 2020-01-01'",
    );
}
