//! `twintrack serve`: several cameras in one process.
#![cfg(feature = "video")]
#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::io::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use common::{
    NO_PAGE, Running, clip, complete_lines, has_ffmpeg, json_lines, run, start_service, text,
    twintrack, until,
};
use serde_json::Value;

/// Runs `serve` with the cameras of `toml` and a small detector input, until the program ends.
fn serve(dir: &Path, toml: &str) -> Output {
    let file = dir.join("cameras.toml");
    std::fs::write(
        &file,
        format!(
            "{toml}\n[detector]\nsize = \"416x320\"\n{}",
            if toml.contains("[serve]") {
                ""
            } else {
                NO_PAGE
            }
        ),
    )
    .unwrap();
    twintrack()
        .args(["serve", "--config"])
        .arg(file)
        .arg("--output")
        .arg(dir.join("out.jsonl"))
        .output()
        .unwrap()
}

/// Writes the first 4 s of the clip to a file.
fn short_clip(dir: &Path) -> String {
    let path = dir.join("short.mp4");
    run(Command::new("ffmpeg")
        .args(["-v", "error", "-i"])
        .arg(clip())
        .args(["-t", "4", "-c", "copy"])
        .arg(&path));
    path.to_str().unwrap().into()
}

fn frames(dir: &Path, camera: &str) -> Vec<Value> {
    complete_lines(&dir.join("out.jsonl"))
        .into_iter()
        .filter(|e| e["schema"] == "twintrack.trajectory/1" && e["camera"] == camera)
        .collect()
}

/// Regression: if a file with `repeat` could not be opened for a moment, for example for lack of
/// file descriptors, the camera ended, and the program ended with exit code 0.
#[test]
fn a_repeated_file_that_disappears_is_opened_again_when_it_is_back() {
    if !has_ffmpeg() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = short_clip(dir.path());
    let away = dir.path().join("away.mp4");
    let config = dir.path().join("cameras.toml");
    let toml = format!(
        "[cameras.loop]\nurl = {file:?}\nrepeat = true\nrealtime = false\nretry_after = 0.1\n\
         retry_at_most = 0.2\n[detector]\nsize = \"416x320\"\n{NO_PAGE}"
    );
    std::fs::write(&config, toml).unwrap();
    let (out, log) = (dir.path().join("out.jsonl"), dir.path().join("log"));
    let mut child = Running::start(
        twintrack()
            .args(["serve", "--config"])
            .arg(&config)
            .arg("--output")
            .arg(&out)
            .stderr(std::fs::File::create(&log).unwrap()),
    );
    let logged = |text: &str| std::fs::read_to_string(&log).unwrap().contains(text);
    let count = || frames(dir.path(), "loop").len();
    assert!(until(120, || out.exists() && count() > 0));
    std::fs::rename(&file, &away).unwrap();
    assert!(until(120, || logged("the camera gives no frames")));
    std::fs::rename(&away, &file).unwrap();
    assert!(until(120, || logged("the camera is back")));
    let before = count();
    assert!(until(120, || count() > before));
    child.signal("TERM");
    assert_eq!(child.code(60), Some(0));
}

#[test]
fn a_file_that_is_cut_short_leads_to_exit_code_1() {
    if !has_ffmpeg() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    common::ffmpeg(
        dir.path(),
        "-f lavfi -i testsrc=size=320x240:rate=10 -t 3 -c:v mjpeg whole.avi",
    );
    let whole = std::fs::read(dir.path().join("whole.avi")).unwrap();
    let cut = dir.path().join("cut.avi");
    std::fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    let output = serve(dir.path(), &format!("[cameras.cut]\nurl = {cut:?}\n"));
    let log = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{log}");
    assert!(!frames(dir.path(), "cut").is_empty(), "{log}");
}

/// Events without the run's id.
fn without_run(mut frames: Vec<Value>) -> Vec<Value> {
    frames.iter_mut().for_each(|f| f["run"] = Value::Null);
    frames
}

#[test]
fn cameras_that_share_batches_have_the_same_events_as_a_single_camera() {
    if !has_ffmpeg() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let url = short_clip(dir.path());
    let camera = |name: &str| format!("[cameras.{name}]\nurl = \"{url}\"\nrealtime = false\n");
    let out = serve(dir.path(), &camera("alone"));
    assert!(out.status.success(), "{}", text(&out.stderr));
    let alone = without_run(frames(dir.path(), "alone"));
    assert!(
        alone.len() > 20
            && alone
                .iter()
                .any(|f| f["tracks"].as_array().unwrap().len() > 3),
        "{} frames",
        alone.len()
    );
    let out = serve(dir.path(), &["a", "b", "c"].map(camera).concat());
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert!(
        text(&out.stderr).contains("b: "),
        "no summary: {}",
        text(&out.stderr)
    );
    for name in ["a", "b", "c"] {
        let mut shared = without_run(frames(dir.path(), name));
        shared.iter_mut().for_each(|f| f["camera"] = "alone".into());
        assert_eq!(shared.len(), alone.len(), "camera {name}");
        let near = |a: &Value, b: &Value| (a.as_f64().unwrap() - b.as_f64().unwrap()).abs() < 2.0;
        for (one, other) in shared.iter().zip(&alone) {
            assert_eq!(
                (&one["frame"], &one["pts"]),
                (&other["frame"], &other["pts"])
            );
            let ids = |f: &Value| {
                f["tracks"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|t| t["id"].as_u64().unwrap())
                    .collect::<Vec<_>>()
            };
            assert_eq!(
                ids(one),
                ids(other),
                "camera {name}, frame {}",
                one["frame"]
            );
            let boxes = |f: &Value| {
                f["tracks"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .flat_map(|t| t["bbox"].as_array().unwrap().clone())
                    .collect::<Vec<_>>()
            };
            assert!(
                boxes(one)
                    .iter()
                    .zip(&boxes(other))
                    .all(|(a, b)| near(a, b)),
                "camera {name}, frame {}",
                one["frame"]
            );
        }
    }
}

/// A still scene with people: the motion gate skips the networks without ending the tracks.
#[test]
fn standing_people_are_tracked_while_the_motion_gate_skips_the_networks() {
    if !has_ffmpeg() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let still = dir.path().join("still.mp4");
    let filter = "select=eq(n\\,60),loop=60:1:0,setpts=N/10/TB,noise=alls=6:allf=t";
    run(Command::new("ffmpeg")
        .args(["-v", "error", "-i"])
        .arg(clip())
        .args(["-vf", filter, "-r", "10", "-frames:v", "50"])
        .arg(&still));
    let camera = |name: &str, gate: bool| {
        format!(
            "[cameras.{name}]\nurl = \"{}\"\nrealtime = false\nmotion_gate = {gate}\n",
            still.display()
        )
    };
    let out = serve(
        dir.path(),
        &format!(
            "[cadence]\nmax_interval = 0\n{}{}",
            camera("gated", true),
            camera("plain", false)
        ),
    );
    assert!(out.status.success(), "{}", text(&out.stderr));
    let tracks = |name: &str| {
        frames(dir.path(), name)
            .iter()
            .map(|f| f["tracks"].as_array().unwrap().clone())
            .collect::<Vec<_>>()
    };
    let (gated, plain) = (tracks("gated"), tracks("plain"));
    assert_eq!((gated.len(), plain.len()), (50, 50));
    let ids = |tracks: &[Value]| {
        tracks
            .iter()
            .map(|t| t["id"].as_u64().unwrap())
            .collect::<Vec<_>>()
    };
    assert!(
        ids(&gated[49]).len() >= 3 && ids(&gated[10]) == ids(&gated[49]),
        "{:?} and {:?}",
        ids(&gated[10]),
        ids(&gated[49])
    );
    // Because of the noise, confidences differ between frames if the networks ran, and are equal if
    // the networks were skipped. (The networks run every two seconds, and when a key frame changes
    // the image.)
    let network_runs = |all: &[Vec<Value>]| {
        all[10..]
            .windows(2)
            .filter(|w| {
                w[0].iter()
                    .zip(&w[1])
                    .any(|(a, b)| a["confidence"] != b["confidence"])
            })
            .count()
    };
    let (gated, plain) = (network_runs(&gated), network_runs(&plain));
    assert!(
        plain > 30 && gated < plain / 3,
        "the networks ran {gated} times with the gate, {plain} times without"
    );
}

/// Regression: a `file://` address was reported as missing.
#[test]
fn a_file_address_is_opened_like_its_path() {
    if !has_ffmpeg() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let url = format!("file://{}", short_clip(dir.path()));
    let out = serve(
        dir.path(),
        &format!("[cameras.a]\nurl = \"{url}\"\nrealtime = false\n"),
    );
    assert!(out.status.success(), "{}", text(&out.stderr));
    assert!(frames(dir.path(), "a").len() > 20);
}

#[test]
fn a_failing_camera_does_not_affect_another_and_the_exit_code_is_1() {
    if !has_ffmpeg() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let url = short_clip(dir.path());
    std::fs::write(dir.path().join("noise.mp4"), vec![7u8; 5000]).unwrap();
    let noise = dir.path().join("noise.mp4");
    let out = serve(
        dir.path(),
        &format!(
            "[cameras.good]\nurl = \"{url}\"\nrealtime = false\n[cameras.bad]\nurl = \"{}\"\n",
            noise.display()
        ),
    );
    let log = text(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{log}");
    assert!(
        log.contains("camera=bad") && log.contains("does not recognise it as a video"),
        "{log}"
    );
    let good = frames(dir.path(), "good");
    assert!(
        good.len() > 20 && good.last().unwrap()["frame"].as_u64().unwrap() == good.len() as u64,
        "{}",
        good.len()
    );
}

/// One of the cameras cannot be reached. The log has no password.
#[test]
fn ctrl_c_ends_live_cameras_and_all_their_tracks() {
    let dir = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let (file, out) = (
        dir.path().join("cameras.toml"),
        dir.path().join("out.jsonl"),
    );
    let toml = format!(
        "{NO_PAGE}[detector]\nsize = \"416x320\"\n\
         [cameras.gate-1]\nurl = \"{0}\"\nrepeat = true\n\
         [cameras.gate-2]\nurl = \"{0}\"\nrepeat = true\n\
         [cameras.unreachable]\nurl = \"rtsp://127.0.0.1:{port}/cam\"\n\
         user = \"admin\"\npassword = \"secret\"\n",
        clip().display()
    );
    std::fs::write(&file, toml).unwrap();
    let log = std::fs::File::create(dir.path().join("log")).unwrap();
    let mut child = start_service(&file, &out, log);
    until(60, || {
        std::fs::read_to_string(&out)
            .unwrap_or_default()
            .lines()
            .count()
            >= 60
    });
    child.signal("INT");
    let code = child.code(20);
    let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
    assert_eq!(code, Some(130), "{log}");
    assert!(
        log.contains("camera=unreachable") && !log.contains("secret"),
        "{log}"
    );
    let events = json_lines(&std::fs::read_to_string(&out).unwrap());
    for name in ["gate-1", "gate-2"] {
        let frames = frames(dir.path(), name);
        assert!(frames.len() > 15, "{name}: {}", frames.len());
        assert!(
            frames
                .windows(2)
                .all(|w| w[0]["pts"].as_f64() < w[1]["pts"].as_f64()
                    && w[0]["frame"].as_u64() < w[1]["frame"].as_u64())
        );
        let seen: std::collections::BTreeSet<u64> = frames
            .iter()
            .flat_map(|f| {
                f["tracks"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|t| t["id"].as_u64().unwrap())
            })
            .collect();
        let ended = events
            .iter()
            .filter(|e| e["schema"] == "twintrack.track_ended/1" && e["camera"] == name);
        let ended: std::collections::BTreeSet<u64> =
            ended.map(|e| e["id"].as_u64().unwrap()).collect();
        assert!(
            !seen.is_empty() && seen.is_subset(&ended),
            "{name}: seen {seen:?}, ended {ended:?}"
        );
    }
}

/// On SIGHUP a camera is removed and later added again, and another is added. The unchanged camera
/// is not opened again and loses no events. An invalid file changes nothing.
#[test]
fn cameras_change_on_sighup() {
    let dir = tempfile::tempdir().unwrap();
    let (file, out) = (
        dir.path().join("cameras.toml"),
        dir.path().join("out.jsonl"),
    );
    let write = |names: &[&str], more: &str| {
        let cameras: String = names
            .iter()
            .map(|n| {
                format!(
                    "[cameras.{n}]\nurl = \"{}\"\nrepeat = true\n",
                    clip().display()
                )
            })
            .collect();
        std::fs::write(
            &file,
            format!("{NO_PAGE}[detector]\nsize = \"416x320\"\n{cameras}{more}"),
        )
        .unwrap();
    };
    write(&["stays", "removed"], "");
    let log = std::fs::File::create(dir.path().join("log")).unwrap();
    let mut child = Running::start(
        twintrack()
            .args(["serve", "--config"])
            .arg(&file)
            .arg("--output")
            .arg(&out)
            .stderr(log),
    );
    let log_text = || std::fs::read_to_string(dir.path().join("log")).unwrap();
    let count = |name: &str| frames(dir.path(), name).len();
    assert!(
        until(60, || count("stays") > 10 && count("removed") > 10),
        "{}",
        log_text()
    );
    write(&["stays", "added"], "");
    child.signal("HUP");
    assert!(until(120, || count("added") > 5), "{}", log_text());
    let before = count("removed");
    write(&["stays"], "[cameras.bad]\nulr = \"x\"");
    child.signal("HUP");
    assert!(
        until(120, || log_text().contains("the cameras stay unchanged")),
        "{}",
        log_text()
    );
    assert_eq!(count("removed"), before);
    write(&["stays", "added", "removed"], "");
    child.signal("HUP");
    assert!(
        until(120, || count("removed") > before + 20),
        "{}",
        log_text()
    );
    child.signal("TERM");
    assert_eq!(child.code(20), Some(0), "{}", log_text());
    let stays = frames(dir.path(), "stays");
    assert!(
        stays
            .windows(2)
            .all(|w| w[0]["frame"].as_u64() < w[1]["frame"].as_u64()
                && w[0]["pts"].as_f64() < w[1]["pts"].as_f64())
    );
    let removed = frames(dir.path(), "removed");
    assert!(
        removed
            .windows(2)
            .all(|w| w[0]["frame"].as_u64() < w[1]["frame"].as_u64()
                && w[0]["seq"].as_u64() < w[1]["seq"].as_u64())
    );
    // Ids that were used before the removal are not used again.
    let ids = |frames: &[Value]| {
        frames
            .iter()
            .flat_map(|f| {
                f["tracks"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|t| t["id"].as_u64().unwrap())
            })
            .collect::<Vec<_>>()
    };
    let (first, second) = (ids(&removed[..before]), ids(&removed[before..]));
    assert!(
        !first.is_empty() && second.iter().min() > first.iter().max(),
        "{first:?} {second:?}"
    );
    let events = json_lines(&std::fs::read_to_string(&out).unwrap());
    let states = |name: &str| {
        let mine = events
            .iter()
            .filter(|e| e["schema"] == "twintrack.camera_status/1" && e["camera"] == name);
        mine.map(|e| e["state"].as_str().unwrap().to_string())
            .collect::<Vec<_>>()
    };
    let numbers = events
        .iter()
        .filter(|e| e["camera"] == "stays")
        .filter_map(|e| e["seq"].as_u64());
    let numbers: Vec<u64> = numbers.collect();
    assert!(numbers.windows(2).all(|w| w[0] + 1 == w[1]), "{numbers:?}");
    assert_eq!(
        states("stays").iter().filter(|s| *s == "online").count(),
        1,
        "{:?}",
        states("stays")
    );
    assert_eq!(states("added").last().unwrap(), "ended");
}

#[test]
fn an_mjpeg_camera_has_arrival_times_and_respects_target_fps() {
    if !has_ffmpeg() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let url = format!("http://127.0.0.1:{port}/cam.mjpg");
    // It accepts one connection, so it plays the clip in a loop and is not left for being slow.
    let output = [
        "-t", "300", "-q:v", "4", "-f", "mpjpeg", "-listen", "1", &url,
    ];
    let _camera = Running::start(
        Command::new("ffmpeg")
            .args(["-v", "quiet", "-re", "-stream_loop", "-1", "-i"])
            .arg(clip())
            .args(output),
    );
    let (file, out) = (
        dir.path().join("cameras.toml"),
        dir.path().join("out.jsonl"),
    );
    let settings = format!(
        "{NO_PAGE}[detector]\nsize = \"416x320\"\n\
         [cameras.web]\nurl = \"{url}\"\ntarget_fps = 3.5\n\
         open_timeout = 30\nread_timeout = 30\nhang_timeout = 121\n"
    );
    std::fs::write(&file, settings).unwrap();
    let mut child = Running::start(
        twintrack()
            .args(["serve", "--quiet", "--config"])
            .arg(&file)
            .arg("--output")
            .arg(&out),
    );
    let enough = until(240, || frames(dir.path(), "web").len() >= 25);
    child.signal("INT");
    assert_eq!(child.code(60), Some(130));
    let frames = frames(dir.path(), "web");
    assert!(enough, "{} frames", frames.len());
    let pts: Vec<f64> = frames.iter().map(|f| f["pts"].as_f64().unwrap()).collect();
    // The first frames arrive at once, because the server sends frames while the camera is being
    // opened. A slow machine receives fewer frames, never more. Due times stay on a grid, so 15
    // intervals may be shorter by nearly one.
    assert!(
        13.9 < 3.5 * (pts[24] - pts[9]),
        "more than 3.5 frames/s: {pts:?}"
    );
    assert!(
        frames.iter().all(|f| f["clock"] == "arrival")
            && frames
                .iter()
                .any(|f| !f["tracks"].as_array().unwrap().is_empty())
    );
}

#[test]
fn an_output_that_is_a_camera_s_file_is_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let video = dir.path().join("out.jsonl");
    std::fs::copy(clip(), &video).unwrap();
    let before = std::fs::metadata(&video).unwrap().len();
    let out = serve(
        dir.path(),
        &format!("[cameras.a]\nurl = \"{}\"\n", video.display()),
    );
    assert_eq!(out.status.code(), Some(1));
    assert!(
        text(&out.stderr).contains("also an input"),
        "{}",
        text(&out.stderr)
    );
    assert_eq!(std::fs::metadata(&video).unwrap().len(), before);
}

#[test]
fn an_invalid_configuration_is_rejected_with_the_cause() {
    let dir = tempfile::tempdir().unwrap();
    let cases = [
        ("", "has no camera"),
        (
            "[cameras.a]\nurl = \"/no/such/file.mp4\"",
            "/no/such/file.mp4 does not exist",
        ),
        ("[cameras.a]\nulr = \"x\"", "ulr"),
        ("[cameras.a]\nuser = \"x\"", "cameras.a has no url"),
        ("[cameras.\"a/b\"]\nurl = \"rtsp://h/x\"", "'a/b'"),
        (
            "[cameras.a]\nurl = \"rtsp://h/x\"\nweight = 0",
            "cameras.a.weight = 0",
        ),
        (
            "[serve]\nbatch = 129\n[cameras.a]\nurl = \"rtsp://h/x\"",
            "serve.batch = 129",
        ),
        ("[serve.cameras.a]\nurl = \"rtsp://h/x\"", "[cameras.NAME]"),
        (
            "[cameras.a]\nurl = \"rtsp://h/x\"\n\
             [cameras.b]\nurl = \"rtsp://h/y\"\ntransport = \"udp\"",
            "transport differs",
        ),
        (
            "[tracker]\nno_such = 1\n[cameras.a]\nurl = \"rtsp://h/x\"",
            "no_such",
        ),
    ];
    for (toml, want) in cases {
        let out = serve(dir.path(), toml);
        assert_eq!(out.status.code(), Some(1), "{toml}");
        assert!(
            text(&out.stderr).contains(want),
            "{toml}: {}",
            text(&out.stderr)
        );
    }
}

/// Starts an MJPEG camera that responds to each request after a delay; returns its address.
fn slow_camera(delay: Duration) -> String {
    use opencv::core::{CV_8UC3, Mat, Scalar, Vector};
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let grey = Mat::new_rows_cols_with_default(64, 64, CV_8UC3, Scalar::all(90.0)).unwrap();
    let mut jpeg = Vector::<u8>::new();
    assert!(opencv::imgcodecs::imencode(".jpg", &grey, &mut jpeg, &Vector::new()).unwrap());
    let jpeg: Vec<u8> = jpeg.into();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten().take(20) {
            let jpeg = jpeg.clone();
            std::thread::spawn(move || -> std::io::Result<()> {
                std::thread::sleep(delay);
                stream.write_all(
                    b"HTTP/1.1 200 OK\r\n\
                      Content-Type: multipart/x-mixed-replace; boundary=b\r\n\r\n",
                )?;
                for _ in 0..600 {
                    write!(
                        stream,
                        "--b\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n",
                        jpeg.len()
                    )?;
                    stream.write_all(&jpeg)?;
                    stream.write_all(b"\r\n")?;
                    std::thread::sleep(Duration::from_millis(50));
                }
                Ok(())
            });
        }
    });
    format!("http://{address}/video.mjpg")
}

/// The first attempts fail. A later one succeeds because the timeout grows with each attempt.
#[test]
fn a_camera_slower_than_open_timeout_is_opened_after_retries() {
    let dir = tempfile::tempdir().unwrap();
    let url = slow_camera(Duration::from_millis(2500));
    let file = dir.path().join("cameras.toml");
    let toml = format!(
        "[cameras.slow]\nurl = \"{url}\"\nopen_timeout = 1.0\nretry_after = 0.05\n\
         retry_at_most = 0.05\n[detector]\nsize = \"64x64\"\n{NO_PAGE}"
    );
    std::fs::write(&file, toml).unwrap();
    let out = dir.path().join("out.jsonl");
    let mut service = Running::start(
        twintrack()
            .args(["serve", "--config"])
            .arg(&file)
            .arg("--output")
            .arg(&out),
    );
    until(120, || !frames(dir.path(), "slow").is_empty());
    service.signal("INT");
    assert_eq!(service.code(60), Some(130));
    assert!(!frames(dir.path(), "slow").is_empty());
}

#[test]
fn a_blank_token_is_rejected_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("token"), "\n").unwrap();
    let token = dir.path().join("token");
    for (setting, named) in [
        (format!("token_file = \"{}\"", token.display()), "token"),
        ("token = \"  \"".to_string(), "white space"),
    ] {
        let out = serve(
            dir.path(),
            &format!(
                "[serve]\nlisten = \"127.0.0.1:0\"\n{setting}\n\
                 [cameras.a]\nurl = \"rtsp://127.0.0.1:9/x\""
            ),
        );
        let stderr = text(&out.stderr);
        assert!(
            out.status.code() == Some(1)
                && stderr.contains(named)
                && stderr.contains("openssl rand"),
            "{stderr}"
        );
    }
}
