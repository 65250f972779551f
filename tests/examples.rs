//! The examples of the README and the documents, verbatim: shell commands are run in the folder of
//! a new user, and configuration files are parsed. Commands that cannot be run in a test are listed
//! in [`NOT_RUN`] with the reason.
#![cfg(all(feature = "video", feature = "serve", feature = "models"))]
#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;
#[path = "common/pages.rs"]
mod pages;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{clip, repository, text};
use opencv::core::{Mat, MatTraitConst, Rect, Size, Vector};
use opencv::videoio::{
    CAP_ANY, CAP_FFMPEG, VideoCapture, VideoCaptureTrait, VideoWriter, VideoWriterTrait,
};
use pages::{FOLDERS, page};

const PAGES: [&str; 36] = [
    "README.md",
    "docs/README.md",
    "docs/glossary.md",
    "docs/guide/install.md",
    "docs/guide/first-camera.md",
    "docs/guide/zones.md",
    "docs/guide/access.md",
    "docs/guide/dashboard.md",
    "docs/guide/privacy.md",
    "docs/guide/tune.md",
    "docs/guide/train.md",
    "docs/guide/labelled-people.md",
    "docs/guide/one-shot.md",
    "docs/guide/troubleshoot.md",
    "docs/reference/commands.md",
    "docs/reference/configuration.md",
    "docs/reference/cameras.md",
    "docs/reference/events.md",
    "docs/reference/history.md",
    "docs/reference/http.md",
    "docs/reference/mqtt.md",
    "docs/guide/fleet.md",
    "docs/design/fleet.md",
    "docs/reference/nats.md",
    "docs/reference/networks.md",
    "docs/reference/onvif.md",
    "docs/reference/training-configuration.md",
    "docs/design/pipeline.md",
    "docs/design/tracker.md",
    "docs/design/multi-camera.md",
    "docs/design/networks.md",
    "docs/design/time.md",
    "docs/design/delivery.md",
    "docs/design/history.md",
    "docs/design/access.md",
    "docs/design/dashboard.md",
];

const BUILD: &str = "builds the program that this test is part of";
const CAMERA: &str = "needs cameras";
const NETWORK: &str = "needs a network connection";
const TRAINING: &str = "trains for minutes or hours (tests/training.rs trains)";
const DATA: &str = "needs data sets or networks that may not be part of this repository";
const SERVER: &str = "needs a server that this machine may not have";
const SYSTEM: &str = "changes the system";

/// Commands that are not run, and why. The arguments of twintrack's own commands are still checked.
const NOT_RUN: &[(&str, &str)] = &[
    ("make demo", BUILD),
    ("make test", BUILD),
    ("cargo build --release --features train", BUILD),
    ("make setup-train-torch", NETWORK),
    (
        "PATH=$PWD/.deps/torch/bin:$PATH LIBTORCH_USE_PYTORCH=1 cargo build --release --features train-torch",
        BUILD,
    ),
    ("make setup-train-gpu", NETWORK),
    (
        "nats stream add TWINTRACK --subjects 'twintrack.>' --storage file --retention limits --discard old --max-age 7d --dupe-window 10m --defaults",
        SERVER,
    ),
    ("cargo build --release --features train-cuda", BUILD),
    (
        "twintrack fleet --nats nats://10.0.0.2:4222 apply cameras.toml --dry-run",
        SERVER,
    ),
    (
        "twintrack fleet --nats nats://10.0.0.2:4222 apply cameras.toml",
        SERVER,
    ),
    (
        "twintrack serve --config worker.toml --output events.jsonl",
        SERVER,
    ),
    ("twintrack history --config history.toml", SERVER),
    ("twintrack fleet --nats nats://10.0.0.2:4222 status", SERVER),
    ("twintrack fleet --nats nats://10.0.0.2:4222 list", SERVER),
    (
        "target/release/twintrack track rtsp://camera/stream",
        CAMERA,
    ),
    (
        "twintrack serve --config cameras.toml --output events.jsonl",
        CAMERA,
    ),
    ("twintrack serve --config cameras.toml --check", CAMERA),
    ("kill -HUP $(pgrep -f 'twintrack serve')", CAMERA),
    ("target/release/twintrack models get omz-reid-0287", NETWORK),
    (
        "target/release/twintrack track video.mp4 --config configs/reidentification.toml",
        NETWORK,
    ),
    (
        "sudo git clone . /opt/twintrack && (cd /opt/twintrack && sudo make build)",
        SYSTEM,
    ),
    (
        "sudo cp scripts/twintrack.service /etc/systemd/system/ && sudo systemctl enable --now twintrack",
        SYSTEM,
    ),
    ("sudo systemctl reload twintrack", SYSTEM),
    (
        "sudo -u twintrack twintrack user add anna --role admin --config /etc/twintrack/cameras.toml",
        SYSTEM,
    ),
    (
        "twintrack token add grafana --role viewer --expires 90d --config /etc/twintrack/cameras.toml",
        SYSTEM,
    ),
    (
        "curl -H \"Authorization: Bearer tt_…\" http://127.0.0.1:8090/metrics",
        CAMERA,
    ),
    (
        "twintrack doctor --detector ./yolo11n.onnx --embedder ./osnet.onnx --config mine.toml",
        DATA,
    ),
    (
        "twintrack track video.mp4 --detector ./yolo11n.onnx --embedder ./osnet.onnx --config mine.toml",
        DATA,
    ),
    (
        "twintrack-train calibrate --config osnet.toml --data market:my-gallery --output osnet-calibrated.onnx",
        DATA,
    ),
    (
        "twintrack track video.mp4 --embedder ./osnet-calibrated.onnx --gallery people/",
        DATA,
    ),
    (
        "target/release/twintrack-train run --from-video my-camera.mp4 --data synthetic:1000 --output my-siamese.onnx",
        TRAINING,
    ),
    (
        "target/release/twintrack-train eval --model ./my-siamese.onnx --data market:Market-1501/bounding_box_test",
        DATA,
    ),
    (
        "target/release/twintrack-train convert --model ./my-siamese.onnx --precision int8 --data video:my-camera.mp4 --output my-siamese.int8.onnx",
        TRAINING,
    ),
    (
        "target/release/twintrack-train mirror --model ./my-siamese.onnx --output my-mirrored.onnx",
        TRAINING,
    ),
    (
        "twintrack-train distil --teacher ./reid.onnx --start-from ./reid.onnx --probes video:my-camera.mp4 figures:figures --config half.toml --output reid-half.onnx",
        TRAINING,
    ),
    (
        "twintrack-train distil --teacher ./large.onnx --probes video:my-camera.mp4 figures:figures synthetic:500 --config student.toml --output small.onnx",
        TRAINING,
    ),
    (
        "target/release/twintrack-train run --data market:train --config mobile.toml --work work --output people.onnx",
        TRAINING,
    ),
    (
        "target/release/twintrack-train eval --model ./people.onnx --data market:test",
        DATA,
    ),
    (
        "target/release/twintrack-train distil --teacher omz-reid-0277 --probes pictures:train --data market:train --config best.toml --work work --output people.onnx",
        TRAINING,
    ),
    (
        "target/release/twintrack-train head --data synthetic:200 video:my-camera.mp4 --output head.json",
        TRAINING,
    ),
    (
        "target/release/twintrack-train calibrate --model ./my-siamese.onnx --data market:a-gallery mot:my-sequence video:my-camera.mp4 --output calibrated.onnx",
        DATA,
    ),
    (
        "apt-get install --no-install-recommends fonts-noto-core fonts-freefont-ttf fonts-dejavu-core",
        SYSTEM,
    ),
    (
        "python3 -m venv .venv && .venv/bin/pip install -r scripts/draw_characters.txt",
        NETWORK,
    ),
    (
        ".venv/bin/python scripts/draw_characters.py --out out/characters",
        NETWORK,
    ),
    (
        ".venv/bin/python scripts/draw_characters.py --out out/characters --digits",
        NETWORK,
    ),
    (
        "target/release/twintrack-train run --data folders:out/characters/train --config configs/train/characters.toml --work out/characters/work --output out/characters.onnx",
        TRAINING,
    ),
    (
        "target/release/twintrack-train eval --model out/characters.onnx --ways 10 20 --data folders:out/characters/held-out folders:out/characters/digits",
        TRAINING,
    ),
    (
        "target/release/twintrack-train eval --pixels 32x32 --ways 10 20 --data folders:out/characters/held-out folders:out/characters/digits",
        DATA,
    ),
    (
        "target/release/twintrack compare --whole --embedder out/characters.onnx out/characters/digits/3/0003.png out/characters/digits/3/0013.png",
        TRAINING,
    ),
];

/// Words by which an unmarked code block is recognised as a shell command.
const SHELL: [&str; 10] = [
    "twintrack",
    "twintrack-train",
    "target",
    "make",
    "cargo",
    "kill",
    "sudo",
    "apt-get",
    "python3",
    "echo",
];

/// A code block of a page.
#[derive(Debug)]
enum Example {
    /// A shell command, without continuation lines and comments.
    Command(String),
    /// A configuration file.
    Settings(String),
    /// Anything else, such as events.
    Other,
}

/// The code blocks of a page: fenced, or indented by four spaces.
fn examples(page: &str) -> Vec<Example> {
    let (mut all, mut block, mut kind) = (Vec::new(), Vec::new(), None);
    for line in page.lines().chain([""]) {
        match (&kind, line.strip_prefix("```"), line.strip_prefix("    ")) {
            (None, Some(language), _) => kind = Some(language.trim().to_string()),
            (Some(language), Some(_), _) => {
                all.extend(read(language, &std::mem::take(&mut block)));
                kind = None;
            }
            (Some(_), None, _) => block.push(line.to_string()),
            (None, None, Some(code)) => block.push(code.to_string()),
            (None, None, None) if line.is_empty() || block.is_empty() => {}
            (None, None, None) => all.extend(read("", &std::mem::take(&mut block))),
        }
    }
    all.extend(read("", &block));
    all
}

fn read(language: &str, block: &[String]) -> Vec<Example> {
    let Some(first) = block.first() else {
        return Vec::new();
    };
    let word = first.split([' ', '/']).next().unwrap_or_default();
    let is_shell =
        language == "sh" || language.is_empty() && (SHELL.contains(&word) || word == ".venv");
    match language {
        _ if is_shell => {
            let whole = block.join("\n").replace("\\\n", " ");
            let bare = |l: &str| {
                l.split("  #")
                    .next()
                    .unwrap_or_default()
                    .split_whitespace()
                    .collect::<Vec<_>>()
                    .join(" ")
            };
            whole
                .lines()
                .map(bare)
                .filter(|l| !l.is_empty() && !l.starts_with('#'))
                .map(Example::Command)
                .collect()
        }
        "" | "toml" => vec![Example::Settings(block.join("\n"))],
        _ => vec![Example::Other],
    }
}

#[test]
fn pages_lists_every_document() {
    for dir in FOLDERS {
        for entry in std::fs::read_dir(repository(dir))
            .unwrap()
            .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        {
            let path = format!("{dir}/{entry}");
            assert!(
                !entry.ends_with(".md") || PAGES.contains(&path.as_str()),
                "{path} is missing from PAGES"
            );
        }
    }
}

/// The first `frames` frames of the sample clip as a video.
fn short_clip(path: &Path, frames: usize) {
    let mut capture = VideoCapture::from_file(clip().to_str().unwrap(), CAP_ANY).unwrap();
    let code = VideoWriter::fourcc('m', 'p', '4', 'v').unwrap();
    let mut writer = VideoWriter::new_with_backend(
        path.to_str().unwrap(),
        CAP_FFMPEG,
        code,
        10.0,
        Size::new(768, 576),
        true,
    )
    .unwrap();
    let mut image = Mat::default();
    for _ in 0..frames {
        assert!(capture.read(&mut image).unwrap());
        writer.write(&image).unwrap();
    }
    writer.release().unwrap();
}

/// Writes the crop of a person in the clip's 10th frame, by the ground truth.
fn write_crop(path: &Path, person: u32) {
    let truth = page("samples/pets2009-s2l1/gt/gt.txt");
    let numbers = |l: &str| {
        l.split(',')
            .take(6)
            .map(|v| v.parse::<f64>().unwrap())
            .collect::<Vec<_>>()
    };
    let row = truth
        .lines()
        .map(numbers)
        .find(|r| r[0] == 10.0 && r[1] == f64::from(person))
        .unwrap();
    let mut capture = VideoCapture::from_file(clip().to_str().unwrap(), CAP_ANY).unwrap();
    let mut picture = Mat::default();
    (0..10).for_each(|_| assert!(capture.read(&mut picture).unwrap()));
    let area = Rect::new(row[2] as i32, row[3] as i32, row[4] as i32, row[5] as i32);
    let crop = Mat::roi(&picture, area).unwrap().try_clone().unwrap();
    assert!(opencv::imgcodecs::imwrite(path.to_str().unwrap(), &crop, &Vector::new()).unwrap());
}

/// A folder with the files that a new user has after cloning and building, and with the videos and
/// pictures that the examples use.
fn new_user() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    for dir in ["target/release", "people"] {
        std::fs::create_dir_all(at(dir)).unwrap();
    }
    for name in ["configs", "models", "scripts", "samples"] {
        std::os::unix::fs::symlink(repository(name), at(name)).unwrap();
    }
    std::os::unix::fs::symlink(
        assert_cmd::cargo::cargo_bin!("twintrack"),
        at("target/release/twintrack"),
    )
    .unwrap();
    #[cfg(feature = "train")]
    std::os::unix::fs::symlink(
        assert_cmd::cargo::cargo_bin!("twintrack-train"),
        at("target/release/twintrack-train"),
    )
    .unwrap();
    short_clip(&at("video.mp4"), 40);
    std::fs::copy(at("video.mp4"), at("my-camera.mp4")).unwrap();
    for (name, person) in [
        ("a.jpg", 1),
        ("b.jpg", 3),
        ("ada.jpg", 1),
        ("people/ada.jpg", 1),
    ] {
        write_crop(&at(name), person);
    }
    // This file is used in place of a network that the user has trained.
    std::fs::copy(repository("models/siamese.onnx"), at("my-siamese.onnx")).unwrap();
    home
}

/// Runs a shell command in the folder, with the programs in PATH.
fn shell(home: &Path, command: &str) -> std::process::Output {
    let path = format!(
        "{}:{}",
        home.join("target/release").display(),
        std::env::var("PATH").unwrap()
    );
    let mut bash = Command::new("bash");
    bash.args(["-euo", "pipefail", "-c", command])
        .current_dir(home)
        .env("PATH", path)
        .stdin(Stdio::null());
    bash.env("HOME", home)
        .env("XDG_DATA_HOME", home.join("data"));
    [
        "ORT_DYLIB_PATH",
        "TWINTRACK_MODELS",
        "TWINTRACK_DATA",
        "TWINTRACK_LOG",
    ]
    .iter()
    .for_each(|key| {
        bash.env_remove(key);
    });
    bash.output().expect("bash")
}

#[test]
fn every_command_of_the_pages_runs_verbatim_or_is_listed() {
    let home = new_user();
    let (mut run, mut skipped) = (0, BTreeSet::new());
    for path in PAGES {
        for example in examples(&page(path)) {
            let Example::Command(command) = example else {
                continue;
            };
            if let Some((listed, _)) = NOT_RUN.iter().find(|(c, _)| *c == command) {
                skipped.insert(*listed);
                continue;
            }
            let start = std::time::Instant::now();
            let out = shell(home.path(), &command);
            assert!(
                out.status.success(),
                "{path}: {command}\n{}\n{}",
                text(&out.stdout),
                text(&out.stderr)
            );
            eprintln!("{:6.1} s  {command}", start.elapsed().as_secs_f64());
            run += 1;
        }
    }
    assert!(run >= 12, "only {run} examples were run");
    let stale: Vec<&str> = NOT_RUN
        .iter()
        .map(|(c, _)| *c)
        .filter(|c| !skipped.contains(c))
        .collect();
    assert!(stale.is_empty(), "no longer on any page: {stale:#?}");
    // Files that the examples write.
    for file in [
        "annotated.mp4",
        "trajectories.jsonl",
        "run.jsonl",
        "my.toml",
        "out/pets2009-s2l1.txt",
        "events.jsonl",
    ] {
        assert!(
            std::fs::metadata(home.path().join(file)).is_ok_and(|m| m.len() > 0),
            "{file} was not written"
        );
    }
}

#[test]
fn the_arguments_of_commands_that_are_not_run_are_valid() {
    let home = new_user();
    let mut checked = 0;
    for (command, reason) in NOT_RUN {
        assert!(!reason.is_empty());
        let program = command
            .split(' ')
            .next()
            .unwrap()
            .rsplit('/')
            .next()
            .unwrap();
        let is_built =
            program == "twintrack" || program == "twintrack-train" && cfg!(feature = "train");
        if is_built {
            // With an unknown argument the command fails instead of printing its help.
            let out = shell(home.path(), &format!("{command} --help"));
            assert!(
                out.status.success() && text(&out.stdout).contains("Usage:"),
                "{command}: {}",
                text(&out.stderr)
            );
            let wrong = shell(home.path(), &format!("{command} --nonesuch --help"));
            assert_eq!(
                wrong.status.code(),
                Some(2),
                "{command}: an unknown option is accepted"
            );
            checked += 1;
        }
    }
    assert!(checked >= 8, "only {checked} checked");
}

/// The tracker, `serve` or training must accept each example.
#[test]
fn every_example_of_a_configuration_is_valid() {
    let schema = serde_json::from_str(&page("schema/configuration.schema.json")).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    let mut seen = 0;
    for path in PAGES {
        for example in examples(&page(path)) {
            let Example::Settings(settings) = example else {
                continue;
            };
            let of_training = path.contains("train") || path.contains("labelled");
            if !of_training {
                let value: serde_json::Value = toml::from_str(&settings).unwrap();
                let problems: Vec<_> = schema.iter_errors(&value).map(|e| e.to_string()).collect();
                assert!(problems.is_empty(), "{path}:\n{settings}\n{problems:?}");
            }
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), &settings).unwrap();
            let service = twintrack::serve::ServiceConfig::read_partial(file.path())
                .map(|_| ())
                .map_err(|e| e.to_string());
            #[cfg(feature = "train")]
            let service = service.or_else(|e| {
                let training = toml::from_str::<twintrack::train::config::TrainConfig>(&settings);
                training
                    .map(|_| ())
                    .map_err(|other| format!("{e}\n{other}"))
            });
            assert!(
                service.is_ok() || of_training && !cfg!(feature = "train"),
                "{path}:\n{settings}\n{service:?}"
            );
            seen += 1;
        }
    }
    assert!(seen >= 5, "only {seen} examples of configurations");
}
