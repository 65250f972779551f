//! Cameras of an RTSP server: opening, tracking, reconnects and shutdown. The tests are skipped,
//! with a message, if GStreamer's RTSP server is not installed.
#![cfg(feature = "video")]
#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{
    NO_PAGE, Running, clip, complete_lines, free_port, json_lines, rtsp_server, start_service,
    text, twintrack, until,
};

/// Starts a server; returns it and the address of its camera.
fn serve() -> Option<(Running, String)> {
    let port = free_port();
    Some((
        serve_at(port)?,
        format!("rtsp://user:secret@127.0.0.1:{port}/cam"),
    ))
}

fn serve_at(port: u16) -> Option<Running> {
    rtsp_server(&clip(), port, 120, &[])
}

/// The server is killed and started again after two seconds. Presentation times continue to
/// increase, and the log has no password. The time of the reconnect is measured by `make soak`.
#[test]
fn a_camera_is_tracked_again_after_an_interruption() {
    let Some((server, address)) = serve() else {
        return;
    };
    let port: u16 = address
        .rsplit_once(':')
        .unwrap()
        .1
        .trim_end_matches("/cam")
        .parse()
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (out, log) = (dir.path().join("out.jsonl"), dir.path().join("log"));
    let stderr = std::fs::File::create(&log).unwrap();
    let mut child = Running::start(
        twintrack()
            .args(["-v", "track", &address, "--output"])
            .arg(&out)
            .stderr(stderr),
    );
    let frames = || {
        std::fs::read_to_string(&out)
            .unwrap_or_default()
            .lines()
            .filter(|l| l.contains("twintrack.trajectory/1"))
            .count()
    };
    let mut wait = |count: usize, seconds: u64| {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        while frames() < count && Instant::now() < deadline && child.0.try_wait().unwrap().is_none()
        {
            std::thread::sleep(Duration::from_millis(50));
        }
        (frames() >= count, std::fs::read_to_string(&log).unwrap())
    };
    let (seen, messages) = wait(20, 60);
    assert!(seen, "{messages}");
    drop(server);
    std::thread::sleep(Duration::from_secs(2));
    let before = frames();
    let _server = serve_at(port).unwrap();
    let (back, messages) = wait(before + 20, 60);
    assert!(back, "not tracked after the interruption: {messages}");
    child.signal("INT");
    assert_eq!(child.code(60), Some(130), "{messages}");
    let messages = std::fs::read_to_string(&log).unwrap();
    assert!(
        messages.contains("the camera gives no frames")
            && messages.contains("the camera is back")
            && !messages.contains("secret"),
        "{messages}"
    );
    let events = json_lines(&std::fs::read_to_string(&out).unwrap());
    let frames: Vec<_> = events
        .iter()
        .filter(|e| e["schema"] == "twintrack.trajectory/1")
        .collect();
    assert!(
        frames
            .windows(2)
            .all(|w| w[0]["pts"].as_f64() < w[1]["pts"].as_f64()
                && w[0]["frame"].as_u64() < w[1]["frame"].as_u64())
    );
    let ended: Vec<u64> = events
        .iter()
        .filter(|e| e["schema"] == "twintrack.track_ended/1")
        .map(|e| e["id"].as_u64().unwrap())
        .collect();
    let unique: std::collections::BTreeSet<&u64> = ended.iter().collect();
    assert!(
        !ended.is_empty() && unique.len() == ended.len(),
        "{ended:?}"
    );
}

/// One of two cameras is interrupted and tracked again afterwards; the other one continues. The log
/// has no password.
#[test]
fn an_interrupted_camera_does_not_affect_another() {
    let Some((interrupted, address)) = serve() else {
        return;
    };
    let (_healthy, other) = serve().unwrap();
    let port: u16 = address
        .rsplit_once(':')
        .unwrap()
        .1
        .trim_end_matches("/cam")
        .parse()
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (file, out, log) = (
        dir.path().join("cameras.toml"),
        dir.path().join("out.jsonl"),
        dir.path().join("log"),
    );
    let settings = format!(
        "{NO_PAGE}[detector]\nsize = \"416x320\"\n\
         [cameras.interrupted]\nurl = \"{address}\"\n[cameras.healthy]\nurl = \"{other}\"\n"
    );
    std::fs::write(&file, settings).unwrap();
    let stderr = std::fs::File::create(&log).unwrap();
    let mut child = start_service(&file, &out, stderr);
    let frames = |name: &str| {
        let mark = format!("\"camera\":\"{name}\"");
        let text = std::fs::read_to_string(&out).unwrap_or_default();
        text.lines()
            .filter(|l| l.contains("twintrack.trajectory/1") && l.contains(&mark))
            .count()
    };
    let wait = |name: &str, count: usize, seconds: u64| {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        while frames(name) < count && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
        }
        frames(name) >= count
    };
    let messages = || std::fs::read_to_string(&log).unwrap();
    let started = wait("interrupted", 20, 60) && wait("healthy", 20, 60);
    drop(interrupted);
    std::thread::sleep(Duration::from_secs(3));
    let gone = frames("interrupted");
    let meanwhile = wait("healthy", frames("healthy") + 20, 60);
    let _restarted = serve_at(port).unwrap();
    let back = wait("interrupted", gone + 5, 60);
    child.signal("INT");
    assert_eq!(child.code(60), Some(130), "{}", messages());
    assert!(
        started && back,
        "started {started}, back {back}: {}",
        messages()
    );
    assert!(
        meanwhile,
        "the healthy camera was not tracked during the interruption: {}",
        messages()
    );
    assert!(
        messages().contains("camera=interrupted") && !messages().contains("secret"),
        "{}",
        messages()
    );
}

/// From the first RTCP report on, frames have the camera's own time, which is before their arrival
/// and advances with the presentation time.
#[test]
fn frames_have_the_cameras_time_after_the_first_rtcp_report() {
    let Some((_server, address)) = serve() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.jsonl");
    let started = jiff::Timestamp::now();
    let _child = Running::start(
        twintrack()
            .args(["track", &address, "--output"])
            .arg(&out)
            .stderr(Stdio::null()),
    );
    let frames = || {
        complete_lines(&out)
            .into_iter()
            .filter(|e| e["schema"] == "twintrack.trajectory/1")
            .collect::<Vec<_>>()
    };
    let with_rtcp =
        |frames: &[serde_json::Value]| frames.iter().filter(|f| f["clock"] == "rtcp").count();
    assert!(
        until(60, || with_rtcp(&frames()) >= 20),
        "no frame has the camera's own time: {:?}",
        frames().last()
    );
    let frames = frames();
    let time = |f: &serde_json::Value| {
        f["time"]
            .as_str()
            .unwrap()
            .parse::<jiff::Timestamp>()
            .unwrap()
    };
    let own: Vec<_> = frames.iter().filter(|f| f["clock"] == "rtcp").collect();
    for pair in own.windows(2) {
        let (wall, stream) = (
            time(pair[1]).duration_since(time(pair[0])).as_secs_f64(),
            pair[1]["pts"].as_f64().unwrap() - pair[0]["pts"].as_f64().unwrap(),
        );
        assert!((wall - stream).abs() < 2e-3, "{wall} {stream}");
    }
    // If opening takes long, the first report comes before the first frame.
    if let Some(last) = frames.iter().rfind(|f| f["clock"] == "arrival") {
        let prefetch = own[0]["pts"].as_f64().unwrap() - last["pts"].as_f64().unwrap();
        let delay = prefetch - time(own[0]).duration_since(time(last)).as_secs_f64();
        assert!(delay > -0.1, "a frame arrives {delay} s after its time");
    }
    assert!(
        own.iter()
            .all(|f| time(f) > started && time(f) <= jiff::Timestamp::now())
    );
}

#[test]
fn ctrl_c_ends_the_wait_for_an_interrupted_camera() {
    let Some((server, address)) = serve() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.jsonl");
    let mut child = Running::start(
        twintrack()
            .args(["-v", "track", &address, "--output"])
            .arg(&out)
            .stderr(Stdio::null()),
    );
    until(60, || {
        std::fs::read_to_string(&out)
            .unwrap_or_default()
            .lines()
            .count()
            >= 10
    });
    drop(server);
    std::thread::sleep(Duration::from_secs(1));
    child.signal("INT");
    assert_eq!(child.code(60), Some(130));
}

#[test]
fn a_camera_is_tracked_until_ctrl_c() {
    let Some((_server, address)) = serve() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let (out, log) = (dir.path().join("out.jsonl"), dir.path().join("log"));
    let mut child = Running::start(
        twintrack()
            .args(["-v", "track", &address, "--output"])
            .arg(&out)
            .stderr(std::fs::File::create(&log).unwrap()),
    );
    let deadline = Instant::now() + Duration::from_secs(60);
    let lines = || {
        std::fs::read_to_string(&out)
            .unwrap_or_default()
            .lines()
            .count()
    };
    while lines() < 40 && Instant::now() < deadline && child.0.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(100));
    }
    child.signal("INT");
    let code = child.code(60);
    let stderr = std::fs::read_to_string(&log).unwrap();
    assert_eq!(code, Some(130), "{stderr}");
    assert!(
        !stderr.contains("secret"),
        "the password is shown: {stderr}"
    );
    let events = json_lines(&std::fs::read_to_string(&out).unwrap());
    let frames: Vec<_> = events
        .iter()
        .filter(|e| e["schema"] == "twintrack.trajectory/1")
        .collect();
    assert!(frames.len() >= 30, "{} frames: {stderr}", frames.len());
    assert!(
        frames
            .iter()
            .all(|f| f["time"].is_string() && f["camera"] == "127.0.0.1"),
        "{}",
        frames[0]
    );
    assert!(
        frames
            .windows(2)
            .all(|w| w[0]["pts"].as_f64() < w[1]["pts"].as_f64()
                && (w[0]["time"].as_str() <= w[1]["time"].as_str()
                    || w[0]["clock"] != w[1]["clock"]))
    );
    assert!(
        frames
            .iter()
            .any(|f| !f["tracks"].as_array().unwrap().is_empty())
    );
    assert!(!std::fs::read_to_string(&out).unwrap().contains("secret"));
}

#[test]
fn the_error_for_an_unreachable_camera_has_no_password() {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let out = twintrack()
        .args([
            "track",
            &format!("rtsp://user:secret@127.0.0.1:{port}/cam"),
            "--quiet",
        ])
        .output()
        .unwrap();
    let stderr = text(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("as a camera")
            && stderr.contains("check address")
            && !stderr.contains("secret"),
        "{stderr}"
    );
}

#[test]
fn an_h265_and_an_h264_camera_are_tracked_over_udp() {
    let dir = tempfile::tempdir().unwrap();
    let clip265 = dir.path().join("h265.mp4");
    let encode = [
        "-t",
        "30",
        "-c:v",
        "libx265",
        "-x265-params",
        "log-level=error:keyint=10:bframes=0",
        "-preset",
        "ultrafast",
    ];
    if !Command::new("ffmpeg")
        .args(["-v", "error", "-i"])
        .arg(clip())
        .args(encode)
        .arg(&clip265)
        .status()
        .is_ok_and(|s| s.success())
    {
        eprintln!("SKIPPED: ffmpeg with H.265 is missing (`make setup-test` installs it)");
        return;
    }
    let ports = [free_port(), free_port()];
    let Some(_h265) = rtsp_server(&clip265, ports[0], 120, &["--codec", "h265"]) else {
        return;
    };
    let _h264 = rtsp_server(&clip(), ports[1], 120, &[]).unwrap();
    let (file, out) = (
        dir.path().join("cameras.toml"),
        dir.path().join("out.jsonl"),
    );
    let toml = format!(
        "{NO_PAGE}[detector]\nsize = \"416x320\"\n\
         [cameras.h265]\nurl = \"rtsp://127.0.0.1:{}/cam\"\ntransport = \"udp\"\n\
         [cameras.udp]\nurl = \"rtsp://127.0.0.1:{}/cam\"\ntransport = \"udp\"\n",
        ports[0], ports[1]
    );
    std::fs::write(&file, toml).unwrap();
    let log = std::fs::File::create(dir.path().join("log")).unwrap();
    let mut child = start_service(&file, &out, log);
    let messages = || std::fs::read_to_string(dir.path().join("log")).unwrap();
    let people = |name: &str| {
        let frames = complete_lines(&out).into_iter().filter(|e| {
            e["camera"] == name && e["tracks"].as_array().is_some_and(|t| !t.is_empty())
        });
        frames.count()
    };
    assert!(
        until(60, || people("h265") >= 20 && people("udp") >= 20),
        "{} and {}: {}",
        people("h265"),
        people("udp"),
        messages()
    );
    // The process has UDP sockets, so the transport is UDP.
    let udp = || {
        std::fs::read_to_string(format!("/proc/{}/net/udp", child.0.id()))
            .unwrap_or_default()
            .lines()
            .count()
    };
    assert!(udp() > 4, "{} sockets of UDP", udp());
    child.signal("INT");
    assert_eq!(child.code(20), Some(130), "{}", messages());
}
