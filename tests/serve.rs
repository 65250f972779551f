//! Many cameras in one process: `twintrack serve`.
#![cfg(feature = "video")]
#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::io::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use common::{
    NO_PAGE, Running, clip, has_ffmpeg, json_lines, run, text, twintrack, until, whole_lines,
};
use serde_json::Value;

/// Serves the cameras of `toml`, with small pictures and a fast start.
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

/// The first 4 s of the clip, as a file of its own.
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
    whole_lines(&dir.join("out.jsonl"))
        .into_iter()
        .filter(|e| e["schema"] == "twintrack.trajectory/1" && e["camera"] == camera)
        .collect()
}

/// Events but for the run's id.
fn plain(mut frames: Vec<Value>) -> Vec<Value> {
    frames.iter_mut().for_each(|f| f["run"] = Value::Null);
    frames
}

/// Batches change nothing: each of three cameras has every frame, in order, and the events it has alone.
#[test]
fn cameras_that_share_batches_have_the_events_they_have_alone() {
    if !has_ffmpeg() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let url = short_clip(dir.path());
    let camera = |name: &str| format!("[cameras.{name}]\nurl = \"{url}\"\nrealtime = false\n");
    let out = serve(dir.path(), &camera("alone"));
    assert!(out.status.success(), "{}", text(&out.stderr));
    let alone = plain(frames(dir.path(), "alone"));
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
        let mut mine = plain(frames(dir.path(), name));
        mine.iter_mut().for_each(|f| f["camera"] = "alone".into());
        assert_eq!(mine.len(), alone.len(), "camera {name}");
        let near = |a: &Value, b: &Value| (a.as_f64().unwrap() - b.as_f64().unwrap()).abs() < 2.0;
        for (one, other) in mine.iter().zip(&alone) {
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

/// A picture that stands still: with the gate the tracks are those without it, of people who stand there all the time.
#[test]
fn who_stands_still_is_tracked_though_the_networks_rest() {
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
        &(camera("gated", true) + &camera("plain", false)),
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
    // The networks' answer differs from frame to frame by the noise; while they rest it does not. (They look again every two
    // seconds, and when a key frame of the video changes the picture.)
    let differ = |all: &[Vec<Value>]| {
        all[10..]
            .windows(2)
            .filter(|w| {
                w[0].iter()
                    .zip(&w[1])
                    .any(|(a, b)| a["confidence"] != b["confidence"])
            })
            .count()
    };
    let (gated, plain) = (differ(&gated), differ(&plain));
    assert!(
        plain > 30 && gated < plain / 3,
        "the networks looked {gated} times at a still picture, without the gate {plain} times"
    );
}

/// A file's address plays the file as its path does; it was looked for as a path and said to be missing.
#[test]
fn the_address_of_a_file_plays_the_file() {
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

/// A dead camera and a file that is no video: the third loses nothing, and the exit code tells.
#[test]
fn the_failure_of_one_camera_is_its_own() {
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
    let said = text(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(
        said.contains("camera=bad") && said.contains("is not a video"),
        "{said}"
    );
    let good = frames(dir.path(), "good");
    assert!(
        good.len() > 20 && good.last().unwrap()["frame"].as_u64().unwrap() == good.len() as u64,
        "{}",
        good.len()
    );
}

/// Cameras play at their own pace, one of them dead; Ctrl-C ends them, with every track ended and no password shown.
#[test]
fn live_cameras_stop_cleanly() {
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
        "{NO_PAGE}[detector]\nsize = \"416x320\"\n[cameras.gate-1]\nurl = \"{0}\"\nrepeat = true\n[cameras.gate-2]\nurl = \"{0}\"\nrepeat = true\n\
         [cameras.dead]\nurl = \"rtsp://127.0.0.1:{port}/cam\"\nuser = \"admin\"\npassword = \"secret\"\n",
        clip().display()
    );
    std::fs::write(&file, toml).unwrap();
    let log = std::fs::File::create(dir.path().join("log")).unwrap();
    let mut child = Running::start(
        twintrack()
            .args(["-v", "serve", "--config"])
            .arg(&file)
            .arg("--output")
            .arg(&out)
            .stderr(log),
    );
    until(60, || {
        std::fs::read_to_string(&out)
            .unwrap_or_default()
            .lines()
            .count()
            >= 60
    });
    child.signal("INT");
    let code = child.code(20);
    let said = std::fs::read_to_string(dir.path().join("log")).unwrap();
    assert_eq!(code, Some(130), "{said}");
    assert!(
        said.contains("camera=dead") && !said.contains("secret"),
        "{said}"
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

/// SIGHUP: a camera goes and comes back, another comes; the one that stays loses no frame; a wrong file changes nothing.
#[test]
fn the_file_of_cameras_is_read_again_on_sighup() {
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
    write(&["stays", "goes"], "");
    let log = std::fs::File::create(dir.path().join("log")).unwrap();
    let mut child = Running::start(
        twintrack()
            .args(["serve", "--config"])
            .arg(&file)
            .arg("--output")
            .arg(&out)
            .stderr(log),
    );
    let said = || std::fs::read_to_string(dir.path().join("log")).unwrap();
    let count = |name: &str| frames(dir.path(), name).len();
    assert!(
        until(60, || count("stays") > 10 && count("goes") > 10),
        "{}",
        said()
    );
    write(&["stays", "comes"], "");
    child.signal("HUP");
    assert!(until(10, || count("comes") > 5), "{}", said());
    let gone = count("goes");
    write(&["stays"], "[cameras.bad]\nulr = \"x\"");
    child.signal("HUP");
    assert!(
        until(10, || said().contains("everything stays")),
        "{}",
        said()
    );
    assert_eq!(count("goes"), gone);
    write(&["stays", "comes", "goes"], "");
    child.signal("HUP");
    assert!(until(10, || count("goes") > gone + 20), "{}", said());
    child.signal("TERM");
    assert_eq!(child.code(20), Some(0), "{}", said());
    let stays = frames(dir.path(), "stays");
    let rate = stays.len() as f64
        / (stays.last().unwrap()["pts"].as_f64().unwrap() - stays[0]["pts"].as_f64().unwrap());
    assert!((9.5..10.5).contains(&rate), "{rate} frames/s of 10");
    let goes = frames(dir.path(), "goes");
    assert!(
        goes.windows(2)
            .all(|w| w[0]["frame"].as_u64() < w[1]["frame"].as_u64()
                && w[0]["seq"].as_u64() < w[1]["seq"].as_u64())
    );
    // Nobody of its second time has an id of its first.
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
    let (first, second) = (ids(&goes[..gone]), ids(&goes[gone..]));
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
    assert_eq!(
        states("stays").iter().filter(|s| *s == "online").count(),
        1,
        "{:?}",
        states("stays")
    );
    assert_eq!(states("comes").last().unwrap(), "ended");
}

/// A row of JPEG pictures over HTTP has no times of its own: those of arrival count. And `target_fps` thins it.
#[test]
fn pictures_over_http_are_tracked_by_their_arrival() {
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
    let pictures = [
        "-t", "30", "-q:v", "4", "-f", "mpjpeg", "-listen", "1", &url,
    ];
    let _camera = Running::start(
        Command::new("ffmpeg")
            .args(["-v", "quiet", "-re", "-i"])
            .arg(clip())
            .args(pictures),
    );
    let (file, out) = (
        dir.path().join("cameras.toml"),
        dir.path().join("out.jsonl"),
    );
    std::fs::write(&file, format!("{NO_PAGE}[detector]\nsize = \"416x320\"\n[cameras.web]\nurl = \"{url}\"\ntarget_fps = 3.5\n")).unwrap();
    let mut child = Running::start(
        twintrack()
            .args(["serve", "--quiet", "--config"])
            .arg(&file)
            .arg("--output")
            .arg(&out),
    );
    let enough = until(60, || frames(dir.path(), "web").len() >= 25);
    child.signal("INT");
    assert_eq!(child.code(20), Some(130));
    let frames = frames(dir.path(), "web");
    assert!(enough, "{} frames", frames.len());
    let pts: Vec<f64> = frames.iter().map(|f| f["pts"].as_f64().unwrap()).collect();
    // The first pictures come in a heap, as the server waits for nobody while it opens.
    let rate = 15.0 / (pts[24] - pts[9]);
    assert!(
        (2.8..3.7).contains(&rate),
        "{rate} frames/s where 3.5 were asked for: {pts:?}"
    );
    assert!(
        frames.iter().all(|f| f["clock"] == "arrival")
            && frames
                .iter()
                .any(|f| !f["tracks"].as_array().unwrap().is_empty())
    );
}

#[test]
fn a_camera_s_own_file_is_not_written_over() {
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
        text(&out.stderr).contains("it is an input"),
        "{}",
        text(&out.stderr)
    );
    assert_eq!(std::fs::metadata(&video).unwrap().len(), before);
}

#[test]
fn a_wrong_file_of_cameras_is_refused_with_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let cases = [
        ("", "names no camera"),
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
            "[serve]\nbatch = 0\n[cameras.a]\nurl = \"rtsp://h/x\"",
            "serve.batch = 0",
        ),
        ("[serve.cameras.a]\nurl = \"rtsp://h/x\"", "[cameras.NAME]"),
        (
            "[cameras.a]\nurl = \"rtsp://h/x\"\n[cameras.b]\nurl = \"rtsp://h/y\"\ntransport = \"udp\"",
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

/// JPEG pictures over HTTP from a camera that takes so long to answer each request.
fn slow_camera(answers_after: Duration) -> String {
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
                std::thread::sleep(answers_after);
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=b\r\n\r\n")?;
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

/// It would never be seen if each attempt had the same time as the first.
#[test]
fn a_camera_that_needs_longer_to_answer_than_it_first_has_is_given_more() {
    let dir = tempfile::tempdir().unwrap();
    let url = slow_camera(Duration::from_millis(2500));
    let file = dir.path().join("cameras.toml");
    let toml = format!(
        "[cameras.slow]\nurl = \"{url}\"\nopen_timeout = 1.0\nretry_after = 0.05\nretry_at_most = 0.05\n[detector]\nsize = \"64x64\"\n{NO_PAGE}"
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
fn a_blank_token_is_refused_at_the_start() {
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
                "[serve]\nlisten = \"127.0.0.1:0\"\n{setting}\n[cameras.a]\nurl = \"rtsp://127.0.0.1:9/x\""
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
