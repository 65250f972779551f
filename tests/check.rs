//! `twintrack serve --check` reports errors of a configuration without running the service.
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::path::Path;

mod common;
use common::{clip, text, twintrack};

fn check(dir: &Path, config: &str) -> (Option<i32>, String) {
    let file = dir.join("cameras.toml");
    std::fs::write(&file, config).unwrap();
    let output = twintrack()
        .current_dir(dir)
        .args(["serve", "--check", "--config"])
        .arg(&file)
        .output()
        .unwrap();
    (output.status.code(), text(&output.stderr))
}

#[test]
fn a_valid_file_is_reported_without_opening_cameras_or_ports() {
    let dir = tempfile::tempdir().unwrap();
    // Nothing listens at the camera's port, and another program uses the server's port.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let config = format!(
        "[serve]\nlisten = \"127.0.0.1:{port}\"\n\
         [mqtt]\nbroker = \"mqtt://127.0.0.1:9\"\n\
         [webhook]\nurl = \"http://127.0.0.1:9\"\n\
         [cameras.gate]\nurl = \"rtsp://127.0.0.1:9/x\"\n\
         [cameras.clip]\nurl = {:?}\n",
        clip()
    );
    let (code, said) = check(dir.path(), &config);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("the settings, the networks and 2 cameras are valid"),
        "{said}"
    );
    let files: Vec<_> = std::fs::read_dir(dir.path()).unwrap().flatten().collect();
    assert_eq!(files.len(), 1, "only the configuration: {files:?}");
}

#[test]
fn what_is_wrong_is_named_with_exit_code_1() {
    let dir = tempfile::tempdir().unwrap();
    for (config, named) in [
        (
            "[cameras.gate]\nurl = \"rtsp://h/x\"\npassword_env = \"TWINTRACK_NO_SUCH\"\n",
            "TWINTRACK_NO_SUCH",
        ),
        (
            "[cameras.gate]\nurl = \"rtsp://ada:pa/ss@h/x\"\n",
            "cameras.gate",
        ),
        ("[cameras.gate]\nurl = \"nosuch.mp4\"\n", "nosuch.mp4"),
        ("[cameras.gate]\nurl = \"onvif://h/x\"\n", "onvif://"),
        ("[cameras.gate]\nurl = \"rtsp://\"\n", "no host"),
        (
            "[detector]\nmodel = \"nosuch.onnx\"\n[cameras.gate]\nurl = \"rtsp://h/x\"\n",
            "nosuch.onnx",
        ),
        (
            "[serve]\nlisten = \"0.0.0.0:8090\"\n[cameras.gate]\nurl = \"rtsp://h/x\"\n",
            "token",
        ),
        (
            "[mqtt]\nbroker = \"mqtt://h\"\npassword_env = \"TWINTRACK_NO_SUCH\"\n\
             [cameras.gate]\nurl = \"rtsp://h/x\"\n",
            "TWINTRACK_NO_SUCH",
        ),
        (
            "[mqtt]\nbroker = \"mqtts://h\"\nca_file = \"nosuch.pem\"\n\
             [cameras.gate]\nurl = \"rtsp://h/x\"\n",
            "nosuch.pem",
        ),
        (
            "[webhook]\nurl = \"https://h/x\"\nsecret_file = \"nosuch.secret\"\n\
             [cameras.gate]\nurl = \"rtsp://h/x\"\n",
            "nosuch.secret",
        ),
        (
            "[webhook]\nurl = \"https://h/x\"\nca_file = \"nosuch.pem\"\n\
             [cameras.gate]\nurl = \"rtsp://h/x\"\n",
            "nosuch.pem",
        ),
        (
            "[multi_camera]\n[cameras.gate]\nurl = \"rtsp://h/x\"\n",
            "needs a section [history]",
        ),
        (
            "[multi_camera]\n[history]\n[cameras.gate]\nurl = \"rtsp://h/x\"\n",
            "history.embeddings",
        ),
        (
            "[multi_camera]\n[history]\nembeddings = true\n[embedder]\nenabled = false\n\
             [cameras.gate]\nurl = \"rtsp://h/x\"\n",
            "calibrated embedder",
        ),
    ] {
        let (code, said) = check(dir.path(), config);
        assert_eq!(code, Some(1), "{config}: {said}");
        assert!(
            said.contains(named) && !said.contains("pa/ss"),
            "{config}: {said}"
        );
    }
}
