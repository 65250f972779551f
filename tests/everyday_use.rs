//! The commands as users run them: error messages, creation of output folders, one configuration
//! file for all commands, summaries and reports.
#![cfg(feature = "video")]
#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{clip, json_lines, run, text, twintrack};
use opencv::core::{Mat, Scalar, Vector};
use opencv::videoio::{CAP_ANY, VideoCapture, VideoCaptureTrait};

/// Writes the sequence folder `dir/walk`, without pictures: detections and ground truth of one
/// person who walks through 20 frames. Returns its path.
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

/// `twintrack track` of a sequence that [`sequence`] wrote, with its detections.
fn track(sequence: &Path) -> Command {
    let mut c = twintrack();
    c.args(["track", "--no-embed", "--detections"])
        .arg(sequence.join("det/det.txt"))
        .arg(sequence);
    c
}

/// Asserts that the command exits with code 1 and an error message that contains all `parts`.
fn fails(command: &mut Command, parts: &[&str]) {
    let out = command.stdin(Stdio::null()).output().unwrap();
    let stderr = text(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{command:?}: {stderr}");
    parts
        .iter()
        .for_each(|part| assert!(stderr.contains(part), "{part} is not in: {stderr}"));
    assert!(!stderr.contains("untagged"), "{stderr}");
}

/// Writes a picture of one colour; sizes in pixels.
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
fn missing_output_folders_are_created_and_the_summary_lists_the_files() {
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
    let summary = text(&run(&mut command).stderr);
    for file in [&events, &mot, &detections] {
        assert!(
            std::fs::metadata(file).is_ok_and(|m| m.len() > 0),
            "{} was not written",
            file.display()
        );
        assert!(
            summary.contains(&file.display().to_string()),
            "{} is missing from\n{summary}",
            file.display()
        );
    }
    let (refined, tuned) = (
        dir.path().join("out/d/refined.jsonl"),
        dir.path().join("out/e/tuned.toml"),
    );
    let summary = text(
        &run(twintrack()
            .arg("refine")
            .arg(&events)
            .arg("-o")
            .arg(&refined))
        .stderr,
    );
    // The track is confirmed at its second detection, and written from then on.
    assert!(
        refined.is_file()
            && summary.contains(&refined.display().to_string())
            && summary.contains("tracks: 1 before, 1 after; boxes: 19 before, 19 after"),
        "{summary}"
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
        &["cannot create the folder", "events.jsonl"],
    );
}

#[test]
fn errors_name_a_gallery_or_picture_that_cannot_be_read() {
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
            "a folder with one picture per person",
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

/// The sequence names its video under the key `video` of `seqinfo.ini`.
#[test]
fn a_sequence_with_a_video_is_tracked_and_the_video_is_not_overwritten() {
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
        &["also an input", "another name"],
    );
    assert_eq!(std::fs::metadata(&video).unwrap().len(), before);
    // Without its video, a sequence can only be tracked with given detections.
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
    let assert_embeddings = |text: &str| {
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
    };
    assert_embeddings(&std::fs::read_to_string(&events).unwrap());
    run(twintrack()
        .args(["refine", "-q"])
        .arg(&events)
        .arg("-o")
        .arg(&refined));
    let of_file = std::fs::read_to_string(&refined).unwrap();
    assert_embeddings(&of_file);
    let from_stdin = run(twintrack()
        .args(["refine", "-"])
        .stdin(std::fs::File::open(&events).unwrap()));
    assert_eq!(text(&from_stdin.stdout), of_file);
    assert!(
        text(&from_stdin.stderr).contains("tracks: "),
        "the summary is missing"
    );
    // --offline computes embeddings for linking, but without --embeddings they are not written.
    let bare = run(twintrack()
        .args(["track", "-q", "--duration", "1", "--offline"])
        .arg(clip()));
    assert!(
        !text(&bare.stdout).contains("embedding"),
        "embeddings are written although --embeddings is absent"
    );
}

#[test]
fn parse_errors_name_file_line_and_cause() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("events.jsonl");
    for (line, cause) in [
        (
            "{\"schema\":\"twintrack.trajectory/1\",\"camera\":\"a\"}",
            "missing field `run`",
        ),
        ("{\"camera\":\"a\"}", "no field `schema`"),
        (
            "{\"schema\":\"twintrack.other/1\"}",
            "'twintrack.other/1' is none of",
        ),
        ("1,2,3,4,5,6", "not an event of twintrack"),
    ] {
        std::fs::write(&file, format!("{line}\n")).unwrap();
        fails(
            twintrack().arg("refine").arg(&file),
            &["events.jsonl, line 1", cause],
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
        &["head.json", "either only `leaf`"],
    );
    // Values of wrong types, for settings with parsers of their own.
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
            &["invalid configuration", "c.toml", "line "],
        );
    }
}

/// Sections that a command does not use are checked and otherwise ignored.
#[cfg(feature = "serve")]
#[test]
fn track_tune_and_serve_accept_the_same_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let sequence = sequence(dir.path());
    let (file, video) = (dir.path().join("site.toml"), dir.path().join("a.mp4"));
    std::fs::write(&video, "not a video").unwrap();
    let settings = format!(
        "[tracker]\nbirth = 0.9\n\n[cameras.gate]\nurl = \"{}\"\n\n\
         [serve]\nlisten = \"\"\ntoken_file = \"/nowhere/token\"\n\n\
         [webhook]\nurl = \"http://127.0.0.1:9/x\"\n",
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
        "tune does not keep the tracker's settings of the configuration"
    );
    run(track(&sequence)
        .args(["-q", "-o", "/dev/null", "-c"])
        .arg(&tuned));
    // `serve` accepts the file too; it fails because its camera is not a video.
    let out = twintrack()
        .current_dir(dir.path())
        .args(["serve", "-q", "-o", "/dev/null", "-c"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(
        !text(&out.stderr).contains("invalid configuration"),
        "{}",
        text(&out.stderr)
    );
    for (invalid, parts) in [
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
        std::fs::write(&file, invalid).unwrap();
        fails(
            track(&sequence).args(["-o", "/dev/null", "-c"]).arg(&file),
            &parts,
        );
        fails(
            twintrack()
                .current_dir(dir.path())
                .args(["serve", "-o", "/dev/null", "-c"])
                .arg(&file),
            &parts,
        );
    }
}

#[test]
fn every_command_with_config_has_the_short_option() {
    let overview = text(&run(twintrack().arg("--help")).stdout);
    let commands = overview.split("Commands:").nth(1).unwrap();
    let commands = commands.split("Options:").next().unwrap();
    // Lines with a larger indent are wrapped text.
    let names = commands
        .lines()
        .filter_map(|l| l.strip_prefix("  ").filter(|l| !l.starts_with(' ')))
        .filter_map(|l| l.split_whitespace().next())
        .filter(|name| *name != "help");
    let mut with_config = Vec::new();
    for name in names {
        let help = text(&run(twintrack().args([name, "--help"])).stdout);
        if help.contains("--config <FILE>") {
            assert!(help.contains("-c, --config <FILE>"), "{name}");
            with_config.push(name);
        }
    }
    for name in ["track", "refine", "compare", "search", "tune", "doctor"] {
        assert!(with_config.contains(&name), "{with_config:?}");
    }
}

#[test]
fn compare_reports_which_part_of_a_picture_it_used() {
    let dir = tempfile::tempdir().unwrap();
    let [wide, crop] = ["wide.png", "crop.png"].map(|f| dir.path().join(f));
    let mut capture = VideoCapture::from_file(clip().to_str().unwrap(), CAP_ANY).unwrap();
    let mut image = Mat::default();
    (0..10).for_each(|_| assert!(capture.read(&mut image).unwrap()));
    assert!(opencv::imgcodecs::imwrite(wide.to_str().unwrap(), &image, &Vector::new()).unwrap());
    plain(&crop, 32, 64);
    let output = text(&run(twintrack().arg("compare").args([&wide, &crop])).stdout);
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines.len(), 4, "{output}");
    assert!(
        lines[2].contains("wide.png: using the most confident of")
            && lines[2].contains("pixels (confidence 0."),
        "{output}"
    );
    assert!(
        lines[3].ends_with("crop.png: using the whole picture"),
        "{output}"
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

#[test]
fn every_row_of_the_summary_says_what_it_counts_or_its_unit() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("x.jsonl");
    let summary = text(
        &run(twintrack()
            .args(["track", "--duration", "1", "-o"])
            .arg(&out)
            .arg(clip()))
        .stderr,
    );
    let rows: Vec<&str> = summary.lines().filter(|l| l.starts_with("  ")).collect();
    assert!(rows.len() >= 8, "{summary}");
    // The name of a row ends in its unit, unless the value is a count.
    let units = [
        "frames",
        "people",
        "detections/frame",
        "frames/s",
        "ms/frame",
        "frames damaged",
        "frames skipped",
        "%",
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

/// Regression: ONNX Runtime 1.31 stored telemetry in the user's cache folder, with the program's
/// path.
#[test]
fn a_command_with_networks_writes_nothing_into_the_users_folders() {
    let home = tempfile::tempdir().unwrap();
    let mut doctor = twintrack();
    run(doctor
        .arg("doctor")
        .env("HOME", home.path())
        .env_remove("ORT_DISABLE_TELEMETRY")
        .env_remove("XDG_CACHE_HOME")
        .env_remove("XDG_DATA_HOME"));
    let written: Vec<PathBuf> = std::fs::read_dir(home.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(written, Vec::<PathBuf>::new());
}
