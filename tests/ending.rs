//! How a run ends: by SIGINT and SIGTERM, in every part of it, and where a way out hangs.
#![cfg(feature = "serve")]
#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{Running, clip, json_lines, twintrack, until, whole_lines};

fn log(dir: &Path) -> std::fs::File {
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(dir.join("log"))
        .unwrap()
}

fn said(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("log")).unwrap_or_default()
}

/// SIGTERM in the middle of a recording: the work is not finished, but what is written is whole.
#[test]
fn a_recording_that_is_terminated_exits_143() {
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
        until(60, || whole_lines(&out).len() > 3),
        "{}",
        said(dir.path())
    );
    child.signal("TERM");
    assert_eq!(child.code(60), Some(143), "{}", said(dir.path()));
    let n = json_lines(&std::fs::read_to_string(&out).unwrap()).len();
    assert!(
        n < 400 && said(dir.path()).contains("stopped before the end"),
        "{n}: {}",
        said(dir.path())
    );
}

/// A scene of so many people, each seen for a moment only, that linking them takes minutes.
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
            // Another place every 8 frames, and never the same.
            let (life, x) = (frame / 8, 60 * person);
            let y = (life * 7919 + person * 104_729) % 900;
            writeln!(text, "{},-1,{x},{y},30,80,0.9,-1,-1,-1", frame + 1).unwrap();
        }
    }
    std::fs::write(dir.join("det.txt"), text).unwrap();
    std::fs::write(dir.join("c.toml"), "[offline]\nmax_gap = 400.0\n").unwrap();
    sequence
}

/// While tracks were linked nothing ended the program but SIGKILL.
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
            until(120, || said(dir).contains("tracks are linked")
                || child.0.try_wait().unwrap().is_some()),
            "{}",
            said(dir)
        );
        assert!(
            child.0.try_wait().unwrap().is_none(),
            "it has ended by itself: {}",
            said(dir)
        );
        child.signal(signal);
        assert_eq!(child.code(30), Some(code), "{}", said(dir));
        assert!(said(dir).contains("stopped at once"), "{}", said(dir));
    }
}

/// A file of events that takes nothing, as on a disk that hangs: here a pipe that nobody reads. The
/// end comes all the same.
#[test]
fn a_way_out_that_hangs_does_not_hold_up_the_end() {
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
        "[serve]\nlisten = \"127.0.0.1:0\"\nstop_within = 0.5\n[detector]\nsize = \"416x320\"\n[cameras.a]\nurl = {url:?}\nrepeat = true\n"
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
        said(dir).lines().find_map(|l| {
            l.strip_prefix("page, live events and metrics: http://127.0.0.1:")?
                .parse::<u16>()
                .ok()
        })
    };
    assert!(until(60, || port().is_some()), "{}", said(dir));
    let agent = ureq::Agent::new_with_config(
        ureq::Agent::config_builder()
            .http_status_as_error(false)
            .build(),
    );
    let get = |path: &str| {
        let mut answer = agent
            .get(format!("http://127.0.0.1:{}{path}", port().unwrap()))
            .call()
            .unwrap();
        (
            answer.status().as_u16(),
            answer.body_mut().read_to_string().unwrap(),
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
        "the pipe takes everything: {}",
        said(dir)
    );
    // That was counted as health.
    assert!(
        until(120, || get("/healthz").0 == 503),
        "a service of which no event leaves says that it is well"
    );
    child.signal("TERM");
    assert_eq!(child.code(60), Some(143), "{}", said(dir));
    assert!(said(dir).contains("a sink blocks"), "{}", said(dir));
    drop(reader);
}
