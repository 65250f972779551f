//! Shutdown of a run: by SIGINT and SIGTERM in each of its phases, and with a sink that hangs.
#![cfg(feature = "serve")]
#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{Running, clip, complete_lines, json_lines, twintrack, until};

fn log(dir: &Path) -> std::fs::File {
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(dir.join("log"))
        .unwrap()
}

fn log_text(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("log")).unwrap_or_default()
}

#[test]
fn sigterm_during_a_recording_exits_143_and_leaves_complete_lines() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.jsonl");
    let written = std::fs::File::create(&out).unwrap();
    let mut child = Running::start(
        twintrack()
            .arg("track")
            .arg(clip())
            .args(["--output", "-"])
            .stdout(written)
            .stderr(log(dir.path())),
    );
    assert!(
        until(60, || complete_lines(&out).len() > 3),
        "{}",
        log_text(dir.path())
    );
    child.signal("TERM");
    assert_eq!(child.code(60), Some(143), "{}", log_text(dir.path()));
    let n = json_lines(&std::fs::read_to_string(&out).unwrap()).len();
    assert!(
        n < 400 && log_text(dir.path()).contains("stopped before the end"),
        "{n}: {}",
        log_text(dir.path())
    );
}

/// Detections that give so many short tracks that linking takes minutes.
fn crowd(dir: &Path) -> std::path::PathBuf {
    let sequence = dir.join("crowd");
    std::fs::create_dir_all(&sequence).unwrap();
    std::fs::write(
        sequence.join("seqinfo.ini"),
        "[Sequence]\nname=crowd\nframeRate=10\nseqLength=4000\nimWidth=1920\nimHeight=1080\n",
    )
    .unwrap();
    let mut text = String::new();
    for frame in 0..4000u32 {
        for person in 0..30u32 {
            // A new position every 8 frames.
            let (life, x) = (frame / 8, 60 * person);
            let y = (life * 7919 + person * 104_729) % 900;
            writeln!(text, "{},-1,{x},{y},30,80,0.9,-1,-1,-1", frame + 1).unwrap();
        }
    }
    std::fs::write(dir.join("det.txt"), text).unwrap();
    std::fs::write(dir.join("c.toml"), "[offline]\nmax_gap = 400.0\n").unwrap();
    sequence
}

/// Regression: while tracks were linked, only SIGKILL ended the program.
#[test]
fn linking_tracks_can_be_interrupted() {
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let mut command = twintrack();
        command
            .args([
                "-v",
                "track",
                "--offline",
                "--no-embed",
                "--output",
                "/dev/null",
            ])
            .arg(crowd(dir))
            .arg("--detections")
            .arg(dir.join("det.txt"));
        let mut child = Running::start(
            command
                .arg("--config")
                .arg(dir.join("c.toml"))
                .stdout(Stdio::null())
                .stderr(log(dir)),
        );
        assert!(
            until(120, || log_text(dir).contains("linking tracks")
                || child.0.try_wait().unwrap().is_some()),
            "{}",
            log_text(dir)
        );
        assert!(
            child.0.try_wait().unwrap().is_none(),
            "the run ended before the signal: {}",
            log_text(dir)
        );
        child.signal(signal);
        assert_eq!(child.code(30), Some(code), "{}", log_text(dir));
        assert!(
            log_text(dir).contains("stopped at once"),
            "{}",
            log_text(dir)
        );
    }
}

/// A named pipe without a reader is used as a sink that hangs; a disk can hang in the same way.
#[test]
fn a_sink_that_hangs_does_not_block_shutdown() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (pipe, file) = (dir.join("pipe"), dir.join("cameras.toml"));
    common::run(Command::new("mkfifo").arg(&pipe));
    let reader = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&pipe)
        .unwrap();
    let url = clip();
    let serve = format!(
        "[serve]\nlisten = \"127.0.0.1:0\"\nstop_within = 0.5\n\
         [detector]\nsize = \"416x320\"\n\
         [cameras.a]\nurl = {url:?}\nrepeat = true\n"
    );
    std::fs::write(&file, serve).unwrap();
    let mut child = Running::start(
        twintrack()
            .args(["serve", "--config"])
            .arg(&file)
            .arg("--output")
            .arg(&pipe)
            .stderr(log(dir)),
    );
    let port = || {
        log_text(dir).lines().find_map(|l| {
            l.strip_prefix("page, live events and metrics: http://127.0.0.1:")?
                .parse::<u16>()
                .ok()
        })
    };
    assert!(until(60, || port().is_some()), "{}", log_text(dir));
    let agent = ureq::Agent::new_with_config(
        ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(60)))
            .build(),
    );
    let get = |path: &str| {
        let mut response = agent
            .get(format!("http://127.0.0.1:{}{path}", port().unwrap()))
            .call()
            .unwrap();
        (
            response.status().as_u16(),
            response.body_mut().read_to_string().unwrap(),
        )
    };
    let slow = "twintrack_frames_dropped_total{camera=\"a\",cause=\"sink_slow\"} ";
    let dropped = || {
        get("/metrics")
            .1
            .lines()
            .find_map(|l| l.strip_prefix(slow)?.parse::<u64>().ok())
            .unwrap_or(0)
    };
    assert!(
        until(180, || dropped() > 3),
        "no frames were dropped: {}",
        log_text(dir)
    );
    // Regression: dropped frames counted as progress.
    assert!(
        until(120, || get("/healthz").0 == 503),
        "a service that writes no events reports healthy"
    );
    child.signal("TERM");
    assert_eq!(child.code(60), Some(143), "{}", log_text(dir));
    assert!(
        log_text(dir).contains("shutdown timed out"),
        "{}",
        log_text(dir)
    );
    drop(reader);
}
