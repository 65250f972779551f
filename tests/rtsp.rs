//! A camera, by a real RTSP server: opens, tracks, stops cleanly. Skips, said loudly, where GStreamer's server is missing.
#![cfg(feature = "video")]
#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{clip, json_lines, repository, text, twintrack};

/// A server that ends with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn serve() -> Option<(Server, String)> {
    let check = "import gi; gi.require_version('GstRtspServer', '1.0'); gi.require_version('Gst', '1.0'); from gi.repository import Gst; Gst.init(None); assert Gst.ElementFactory.find('rtph264pay') and Gst.ElementFactory.find('h264parse')";
    if !Command::new("/usr/bin/python3").args(["-c", check]).stderr(Stdio::null()).status().is_ok_and(|s| s.success()) {
        eprintln!("SKIPPED: no GStreamer RTSP server here (Debian: gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-good gstreamer1.0-plugins-bad)");
        return None;
    }
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let script = repository("tests/fixtures/rtsp_server.py");
    let mut child = Command::new("/usr/bin/python3").arg(script).arg(clip()).arg(port.to_string()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line.trim(), "ready");
    Some((Server(child), format!("rtsp://user:secret@127.0.0.1:{port}/cam")))
}

#[test]
fn a_camera_is_tracked_live_and_stops_cleanly() {
    let Some((_server, address)) = serve() else { return };
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.jsonl");
    let mut child = twintrack().args(["-v", "track", &address, "--output"]).arg(&out).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let lines = || std::fs::read_to_string(&out).unwrap_or_default().lines().count();
    while lines() < 40 && Instant::now() < deadline && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let result = child.wait_with_output().unwrap();
    let stderr = text(&result.stderr);
    assert_eq!(result.status.code(), Some(130), "{stderr}");
    assert!(!stderr.contains("secret"), "the password is shown: {stderr}");
    let events = json_lines(&std::fs::read_to_string(&out).unwrap());
    let frames: Vec<_> = events.iter().filter(|e| e["schema"] == "twintrack.trajectory/1").collect();
    assert!(frames.len() >= 30, "{} frames: {stderr}", frames.len());
    assert!(frames.iter().all(|f| f["time"].is_string() && f["camera"] == "127.0.0.1"), "{}", frames[0]);
    assert!(frames.windows(2).all(|w| w[0]["pts"].as_f64() < w[1]["pts"].as_f64() && w[0]["time"].as_str() <= w[1]["time"].as_str()));
    assert!(frames.iter().any(|f| !f["tracks"].as_array().unwrap().is_empty()));
    assert!(!std::fs::read_to_string(&out).unwrap().contains("secret"));
}

#[test]
fn a_camera_that_does_not_answer_is_told_without_its_password() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let out = twintrack().args(["track", &format!("rtsp://user:secret@127.0.0.1:{port}/cam"), "--quiet"]).output().unwrap();
    let stderr = text(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("as a camera") && stderr.contains("check address") && !stderr.contains("secret"), "{stderr}");
}
