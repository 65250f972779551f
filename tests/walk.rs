//! What a new user meets on the first day: names that are wrong, folders that are missing, one file of settings for all.
#![cfg(feature = "video")]
#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{clip, json_lines, run, text, twintrack};
use opencv::core::{Mat, Scalar, Vector};
use opencv::videoio::{CAP_ANY, VideoCapture, VideoCaptureTrait};

/// A sequence of detections without pictures in `dir`: one person who walks through 20 frames.
fn sequence(dir: &Path) -> PathBuf {
    let sequence = dir.join("walk");
    std::fs::create_dir_all(sequence.join("det")).unwrap();
    std::fs::create_dir_all(sequence.join("gt")).unwrap();
    let info = "[Sequence]\nname=walk\nframeRate=10\nseqLength=20\nimWidth=640\nimHeight=480\n";
    std::fs::write(sequence.join("seqinfo.ini"), info).unwrap();
    let rows = |id: i32| {
        (1..=20)
            .map(|f| format!("{f},{id},{},100,40,100,1,1,1\n", 20 + 6 * f))
            .collect::<String>()
    };
    std::fs::write(sequence.join("det/det.txt"), rows(-1)).unwrap();
    std::fs::write(sequence.join("gt/gt.txt"), rows(1)).unwrap();
    sequence
}

/// `track` of such a sequence by its detections.
fn track(sequence: &Path) -> Command {
    let mut c = twintrack();
    c.args(["track", "--no-embed", "--detections"])
        .arg(sequence.join("det/det.txt"))
        .arg(sequence);
    c
}

fn fails(command: &mut Command, says: &[&str]) {
    let out = command.stdin(Stdio::null()).output().unwrap();
    let said = text(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{command:?}: {said}");
    says.iter()
        .for_each(|part| assert!(said.contains(part), "{part} is not in: {said}"));
    assert!(!said.contains("untagged"), "{said}");
}

/// A picture of one colour.
fn plain(path: &Path, width: i32, height: i32) {
    let picture = Mat::new_rows_cols_with_default(
        height,
        width,
        opencv::core::CV_8UC3,
        Scalar::new(30.0, 90.0, 200.0, 0.0),
    )
    .unwrap();
    assert!(opencv::imgcodecs::imwrite(path.to_str().unwrap(), &picture, &Vector::new()).unwrap());
}

#[test]
fn folders_of_outputs_are_made_and_the_summary_names_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let sequence = sequence(dir.path());
    let [events, mot, detections] =
        ["out/a/events.jsonl", "out/b/x.txt", "out/c/det.txt"].map(|f| dir.path().join(f));
    let mut command = track(&sequence);
    command
        .arg("-o")
        .arg(&events)
        .arg("--mot")
        .arg(&mot)
        .arg("--save-detections")
        .arg(&detections);
    let said = text(&run(&mut command).stderr);
    for file in [&events, &mot, &detections] {
        assert!(
            std::fs::metadata(file).is_ok_and(|m| m.len() > 0),
            "{} was not written",
            file.display()
        );
        assert!(
            said.contains(&file.display().to_string()),
            "{} is not named in\n{said}",
            file.display()
        );
    }
    let (refined, tuned) = (
        dir.path().join("out/d/refined.jsonl"),
        dir.path().join("out/e/tuned.toml"),
    );
    let said = text(
        &run(twintrack()
            .arg("refine")
            .arg(&events)
            .arg("-o")
            .arg(&refined))
        .stderr,
    );
    assert!(
        refined.is_file()
            && said.contains(&refined.display().to_string())
            && said.contains("1 tracks to 1 trajectories"),
        "{said}"
    );
    run(twintrack()
        .args(["tune", "--trials", "1", "--no-embed", "--gt"])
        .arg(&sequence)
        .arg("-o")
        .arg(&tuned));
    assert!(tuned.is_file());
    let below_a_file = events.join("x.jsonl");
    fails(
        track(&sequence).arg("-o").arg(&below_a_file),
        &["cannot make the folder", "events.jsonl"],
    );
}

#[test]
fn a_gallery_or_picture_that_is_not_there_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (picture, missing, nosuch) = (
        dir.path().join("a.png"),
        dir.path().join("missing.jpg"),
        dir.path().join("nosuch"),
    );
    plain(&picture, 32, 64);
    fails(
        twintrack()
            .args(["track", "--gallery"])
            .arg(&nosuch)
            .arg(clip()),
        &["cannot read the gallery", "nosuch", "No such file"],
    );
    fails(
        twintrack()
            .args(["track", "--gallery"])
            .arg(&picture)
            .arg(clip()),
        &[
            "cannot read the gallery",
            "a.png",
            "a folder with one picture a person",
        ],
    );
    fails(
        twintrack().arg("compare").args([&picture, &missing]),
        &["cannot read the picture", "missing.jpg", "No such file"],
    );
    fails(
        twintrack().arg("compare").arg(&picture).arg(dir.path()),
        &["cannot read the picture", "it is a folder"],
    );
    fails(
        twintrack()
            .arg("search")
            .arg(&missing)
            .arg("--in")
            .arg(dir.path()),
        &["cannot read the picture", "missing.jpg", "No such file"],
    );
}

/// `track` follows the video that `seqinfo.ini` names, as `tune` does, and does not write over it.
#[test]
fn a_sequence_whose_pictures_are_a_video_is_tracked() {
    let dir = tempfile::tempdir().unwrap();
    let sequence = sequence(dir.path());
    let video = dir.path().join("walk.mp4");
    std::fs::copy(clip(), &video).unwrap();
    let info = std::fs::read_to_string(sequence.join("seqinfo.ini")).unwrap();
    std::fs::write(sequence.join("seqinfo.ini"), info + "video=../walk.mp4\n").unwrap();
    let out = run(twintrack()
        .args(["track", "-q", "--no-embed", "--duration", "1"])
        .arg(&sequence));
    let events = json_lines(&text(&out.stdout));
    let frames: Vec<_> = events
        .iter()
        .filter(|e| e["schema"] == "twintrack.trajectory/1")
        .collect();
    assert_eq!(frames.len(), 10);
    assert!(
        frames
            .iter()
            .all(|f| f["camera"] == "walk" && f["width"] == 768)
    );
    let before = std::fs::metadata(&video).unwrap().len();
    fails(
        twintrack()
            .args(["track", "--duration", "1", "--video"])
            .arg(&video)
            .arg(&sequence),
        &["it is an input", "another name"],
    );
    assert_eq!(std::fs::metadata(&video).unwrap().len(), before);
    std::fs::remove_file(&video).unwrap();
    fails(
        twintrack().arg("track").arg(&sequence),
        &["walk.mp4 does not exist"],
    );
    run(track(&sequence).args(["-q", "-o", "/dev/null"]));
}

#[test]
fn refine_keeps_embeddings_and_reads_standard_input() {
    let dir = tempfile::tempdir().unwrap();
    let (events, refined) = (
        dir.path().join("events.jsonl"),
        dir.path().join("refined.jsonl"),
    );
    run(twintrack()
        .args(["track", "-q", "--duration", "3", "--embeddings", "-o"])
        .arg(&events)
        .arg(clip()));
    let embedded = |text: &str| {
        let ended: Vec<_> = json_lines(text)
            .into_iter()
            .filter(|e| e["schema"] == "twintrack.track_ended/1")
            .collect();
        assert!(
            !ended.is_empty()
                && ended
                    .iter()
                    .all(|e| e["embedding"].is_array() && e["embedder"].is_string()),
            "{text:.300}"
        );
        ended.len()
    };
    embedded(&std::fs::read_to_string(&events).unwrap());
    run(twintrack()
        .args(["refine", "-q"])
        .arg(&events)
        .arg("-o")
        .arg(&refined));
    let of_file = std::fs::read_to_string(&refined).unwrap();
    embedded(&of_file);
    let from_stdin = run(twintrack()
        .args(["refine", "-"])
        .stdin(std::fs::File::open(&events).unwrap()));
    assert_eq!(text(&from_stdin.stdout), of_file);
    assert!(
        text(&from_stdin.stderr).contains("trajectories"),
        "it says what it did"
    );
    // Without --embeddings there is none to keep.
    let bare = run(twintrack()
        .args(["track", "-q", "--duration", "1", "--offline"])
        .arg(clip()));
    assert!(
        !text(&bare.stdout).contains("embedding"),
        "nobody asked for it"
    );
}

#[test]
fn a_line_that_is_no_event_is_told_by_what_it_lacks() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("events.jsonl");
    for (line, says) in [
        (
            "{\"schema\":\"twintrack.trajectory/1\",\"camera\":\"a\"}",
            "missing field `run`",
        ),
        ("{\"camera\":\"a\"}", "no `schema`"),
        (
            "{\"schema\":\"twintrack.zone/1\"}",
            "'twintrack.zone/1' is none of",
        ),
        ("1,2,3,4,5,6", "not an event of twintrack"),
    ] {
        std::fs::write(&file, format!("{line}\n")).unwrap();
        fails(
            twintrack().arg("refine").arg(&file),
            &["events.jsonl, line 1", says],
        );
    }
    let (config, head) = (dir.path().join("c.toml"), dir.path().join("head.json"));
    std::fs::write(&config, "[tracker]\nhead_file = \"head.json\"\n").unwrap();
    std::fs::write(
        &head,
        "{\"schema\":\"twintrack.head/1\",\"base\":0.0,\"trees\":[[{\"leaf\":1.0,\"left\":2}]]}",
    )
    .unwrap();
    fails(
        twintrack().args(["doctor", "-c"]).arg(&config),
        &["head.json", "either `leaf` or `feature`"],
    );
    // Settings of every kind, with a value of a wrong type.
    for setting in [
        "[detector]\nclass = [1]",
        "[detector]\npixels = 5",
        "[embedder]\nsize = 5",
        "device = 5",
        "[embedder]\ncalibration = 5",
    ] {
        std::fs::write(&config, setting).unwrap();
        fails(
            twintrack().args(["doctor", "-c"]).arg(&config),
            &["c.toml is wrong", "line "],
        );
    }
}

/// One file for `track`, `tune` and `serve`: what a command has no use for is checked and left alone.
#[cfg(feature = "serve")]
#[test]
fn one_file_of_settings_is_for_every_command() {
    let dir = tempfile::tempdir().unwrap();
    let sequence = sequence(dir.path());
    let (file, video) = (dir.path().join("site.toml"), dir.path().join("a.mp4"));
    std::fs::write(&video, "no video").unwrap();
    let settings = format!(
        "[tracker]\nbirth = 0.9\n\n[cameras.gate]\nurl = \"{}\"\n\n[serve]\nlisten = \"\"\ntoken_file = \"/nowhere/token\"\n\n[webhook]\nurl = \"http://127.0.0.1:9/x\"\n",
        video.display()
    );
    std::fs::write(&file, &settings).unwrap();
    let tuned = dir.path().join("tuned.toml");
    run(track(&sequence)
        .args(["-q", "-o", "/dev/null", "-c"])
        .arg(&file));
    run(twintrack()
        .args(["tune", "--trials", "1", "--no-embed", "--gt"])
        .arg(&sequence)
        .arg("-c")
        .arg(&file)
        .arg("-o")
        .arg(&tuned));
    assert!(
        std::fs::read_to_string(&tuned)
            .unwrap()
            .contains("birth = 0.9"),
        "the other sections count"
    );
    run(track(&sequence)
        .args(["-q", "-o", "/dev/null", "-c"])
        .arg(&tuned));
    // The service takes the same file: what it says is of its camera, which is no video.
    let said = twintrack()
        .current_dir(dir.path())
        .args(["serve", "-q", "-o", "/dev/null", "-c"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(
        !text(&said.stderr).contains("is wrong"),
        "{}",
        text(&said.stderr)
    );
    for (wrong, says) in [
        (
            settings.replace("listen", "lissen"),
            ["unknown field `lissen`", "line 8"],
        ),
        (
            settings.replace("[tracker]", "[trackers]"),
            ["unknown field `trackers`", "line 1"],
        ),
        (
            settings.replace("birth = 0.9", "birth = 9.0"),
            ["tracker.birth = 9", "from 0.5 to 1"],
        ),
        (
            settings.replace("url = \"http:", "batch = 0\nurl = \"http:"),
            ["webhook.batch", "from 1"],
        ),
    ] {
        std::fs::write(&file, wrong).unwrap();
        fails(
            track(&sequence).args(["-o", "/dev/null", "-c"]).arg(&file),
            &says,
        );
        fails(
            twintrack()
                .current_dir(dir.path())
                .args(["serve", "-o", "/dev/null", "-c"])
                .arg(&file),
            &says,
        );
    }
}

#[test]
fn every_command_with_settings_has_the_short_option() {
    let mut seen = 0;
    for command in [
        "track", "serve", "refine", "compare", "search", "tune", "doctor",
    ] {
        if command == "serve" && !cfg!(feature = "serve") {
            continue;
        }
        let help = text(&run(twintrack().args([command, "--help"])).stdout);
        assert!(help.contains("-c, --config <FILE>"), "{command}");
        seen += 1;
    }
    assert!(seen >= 6);
}

/// `compare` and `search` say which person of a picture was taken.
#[test]
fn compare_says_which_person_it_took() {
    let dir = tempfile::tempdir().unwrap();
    let [wide, crop] = ["wide.png", "crop.png"].map(|f| dir.path().join(f));
    let mut capture = VideoCapture::from_file(clip().to_str().unwrap(), CAP_ANY).unwrap();
    let mut picture = Mat::default();
    (0..10).for_each(|_| assert!(capture.read(&mut picture).unwrap()));
    assert!(opencv::imgcodecs::imwrite(wide.to_str().unwrap(), &picture, &Vector::new()).unwrap());
    plain(&crop, 32, 64);
    let said = text(&run(twintrack().arg("compare").args([&wide, &crop])).stdout);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 4, "{said}");
    assert!(
        lines[2].contains("wide.png: the surest of")
            && lines[2].contains("pixels is taken (confidence 0."),
        "{said}"
    );
    assert!(
        lines[3].ends_with("crop.png: the whole picture is taken"),
        "{said}"
    );
    let json = text(&run(twintrack().args(["compare", "--json"]).args([&wide, &crop])).stdout);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let [l, t, w, h] = [0, 1, 2, 3].map(|i| json["taken"][0]["bbox"][i].as_f64().unwrap());
    assert!(
        l >= 0.0 && t >= 0.0 && l + w <= 768.5 && t + h <= 576.5 && h > w,
        "{json}"
    );
    assert!(
        json["taken"][0]["people"].as_u64() > Some(1) && json["taken"][1]["whole"] == true,
        "{json}"
    );
}

/// Each row of the summary says what its number counts or measures.
#[test]
fn every_row_of_the_summary_has_its_unit() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("x.jsonl");
    let said = text(
        &run(twintrack()
            .args(["track", "--duration", "1", "-o"])
            .arg(&out)
            .arg(clip()))
        .stderr,
    );
    let rows: Vec<&str> = said.lines().filter(|l| l.starts_with("  ")).collect();
    assert!(rows.len() >= 8, "{said}");
    let units = [
        "frames",
        "people",
        "detections/frame",
        "frames/s",
        "ms/frame",
        "frames damaged",
        "frames dropped",
        "file",
    ];
    for row in rows {
        let name = row.trim().split("  ").next().unwrap();
        assert!(
            units
                .iter()
                .any(|u| name == *u || name.ends_with(&format!(", {u}"))),
            "{row}"
        );
    }
}
