//! HTTP interface of `twintrack serve`: page, pictures, live events, health, metrics and
//! authorisation; also the log format, standard output and systemd's notifications.
#![cfg(feature = "serve")]
#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::{Running, clip, complete_lines, json_lines, twintrack, until};
use serde_json::Value;
use tungstenite::{Message, client::IntoClientRequest as _};

/// Starts the program with cameras that repeat the clip; returns it and the port of its web server.
fn serve(dir: &Path, cameras: usize, settings: &str) -> (Running, u16) {
    let file = dir.join("cameras.toml");
    let cameras: String = (1..=cameras)
        .map(|i| {
            format!(
                "[cameras.c{i}]\nurl = \"{}\"\nrepeat = true\n",
                clip().display()
            )
        })
        .collect();
    let text = format!(
        "[serve]\nlisten = \"127.0.0.1:0\"\n{settings}\n\
         [detector]\nsize = \"416x320\"\n{cameras}"
    );
    std::fs::write(&file, text).unwrap();
    let log = std::fs::File::create(dir.join("log")).unwrap();
    let child = Running::start(
        twintrack()
            .args(["serve", "--config"])
            .arg(&file)
            .arg("--output")
            .arg(dir.join("out.jsonl"))
            .stderr(log),
    );
    let port = || {
        log_text(dir).lines().find_map(|l| {
            l.strip_prefix("page, live events and metrics: http://127.0.0.1:")?
                .parse::<u16>()
                .ok()
        })
    };
    assert!(
        until(60, || port().is_some()
            && complete_lines(&dir.join("out.jsonl")).len() > 10),
        "{}",
        log_text(dir)
    );
    (child, port().unwrap())
}

fn log_text(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("log")).unwrap_or_default()
}

/// Sends a GET request; returns status, content type and body.
fn get(port: u16, path: &str, headers: &[(&str, &str)]) -> (u16, String, Vec<u8>) {
    let agent = ureq::Agent::new_with_config(
        ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_global(Some(Duration::from_secs(60)))
            .build(),
    );
    let mut request = agent.get(format!("http://127.0.0.1:{port}{path}"));
    for (k, v) in headers {
        request = request.header(*k, *v);
    }
    let mut response = request.call().unwrap();
    let content_type = response
        .headers()
        .get("content-type")
        .map_or(String::new(), |v| v.to_str().unwrap().into());
    (
        response.status().as_u16(),
        content_type,
        response.body_mut().read_to_vec().unwrap(),
    )
}

fn text(port: u16, path: &str) -> String {
    let (status, _, body) = get(port, path, &[]);
    assert_eq!(status, 200, "{path}");
    String::from_utf8(body).unwrap()
}

/// The metrics by name including labels.
fn metrics(port: u16) -> BTreeMap<String, f64> {
    let text = text(port, "/metrics");
    assert!(text.ends_with("# EOF\n"), "{text}");
    text.lines()
        .filter(|l| !l.starts_with('#'))
        .map(|l| l.rsplit_once(' ').unwrap())
        .map(|(k, v)| (k.to_string(), v.parse().unwrap()))
        .collect()
}

#[test]
fn page_pictures_health_and_metrics_are_served() {
    let dir = tempfile::tempdir().unwrap();
    let (mut child, port) = serve(dir.path(), 2, "");
    let page = text(port, "/");
    assert!(
        page.contains("<title>twintrack</title>")
            && !page.contains("http://")
            && !page.contains("https://"),
        "the page refers to other hosts"
    );
    assert_eq!(
        (text(port, "/healthz"), text(port, "/readyz")),
        ("ok\n".into(), "ready\n".into())
    );
    let overview = || -> Vec<Value> {
        let overview: Value = serde_json::from_str(&text(port, "/api/v1/cameras")).unwrap();
        overview["cameras"].as_array().unwrap().clone()
    };
    let names: Vec<_> = overview().iter().map(|c| c["name"].clone()).collect();
    assert_eq!(names, ["c1", "c2"]);
    let tracks = |c: &Value| {
        c["state"] == "online"
            && c["tracked"].as_u64() > Some(10)
            && c["latency_p95"].as_f64() > Some(0.0)
    };
    assert!(
        until(60, || overview().iter().all(tracks)),
        "{:?}",
        overview()
    );
    let (status, content_type, jpeg) = get(port, "/api/v1/cameras/c1/picture.jpg?width=400", &[]);
    assert_eq!((status, content_type.as_str()), (200, "image/jpeg"));
    let picture = dir.path().join("picture.jpg");
    std::fs::write(&picture, &jpeg).unwrap();
    let read =
        opencv::imgcodecs::imread(picture.to_str().unwrap(), opencv::imgcodecs::IMREAD_COLOR)
            .unwrap();
    assert_eq!(opencv::core::MatTraitConst::cols(&read), 400);
    assert_eq!(get(port, "/api/v1/cameras/nobody/picture.jpg", &[]).0, 404);
    assert_eq!(get(port, "/nothing", &[]).0, 404);

    let before = metrics(port);
    let has = |key: &str| {
        *before
            .get(key)
            .unwrap_or_else(|| panic!("{key} is missing: {before:?}"))
    };
    assert!(
        has("twintrack_frames_read_total{camera=\"c1\"}") > 3.0
            && has("twintrack_camera_up{camera=\"c2\"}") == 1.0
    );
    has("twintrack_frames_skipped_total{camera=\"c1\"}");
    for cause in ["decode_late", "detector_busy", "sink_slow", "target_fps"] {
        has(&format!(
            "twintrack_frames_dropped_total{{camera=\"c1\",cause=\"{cause}\"}}"
        ));
    }
    assert!(
        has("twintrack_queue_frames{queue=\"detector\"}") <= 2.0
            && has("twintrack_queue_frames{queue=\"sinks\"}") <= 32.0
    );
    for stage in ["scale", "detect", "embed", "track"] {
        assert!(
            has(&format!(
                "twintrack_stage_seconds_count{{stage=\"{stage}\"}}"
            )) > 3.0
        );
    }
    assert!(
        has("twintrack_latency_seconds_count{camera=\"c2\"}") > 3.0
            && has("twintrack_batch_frames_count") > 3.0
    );
    assert!(
        has("twintrack_process_memory_bytes") > 1e7
            && has("twintrack_process_threads") > 5.0
            && has("twintrack_people_present{camera=\"c1\"}") > 0.0
    );
    let tracked = || metrics(port)["twintrack_frames_tracked_total{camera=\"c1\"}"];
    assert!(until(60, || tracked()
        > has("twintrack_frames_tracked_total{camera=\"c1\"}")));

    child.signal("TERM");
    assert_eq!(child.code(20), Some(0), "{}", log_text(dir.path()));
}

/// Receives live events over a WebSocket until `enough` is true.
fn listen(
    port: u16,
    path: &str,
    headers: &[(&'static str, &str)],
    mut enough: impl FnMut(&Value) -> bool,
) -> Result<Vec<Value>, tungstenite::Error> {
    let mut request = format!("ws://127.0.0.1:{port}{path}").into_client_request()?;
    for (k, v) in headers {
        request.headers_mut().insert(*k, v.parse().unwrap());
    }
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let (mut socket, _) = tungstenite::client::client(request, stream).map_err(|e| match e {
        tungstenite::HandshakeError::Failure(e) => e,
        tungstenite::HandshakeError::Interrupted(_) => panic!("no response"),
    })?;
    let mut all = Vec::new();
    loop {
        if let Message::Text(text) = socket.read()? {
            let event: Value = serde_json::from_str(&text).unwrap();
            let done = enough(&event);
            all.push(event);
            if done {
                let _ = socket.close(None); // the server may have closed it
                return Ok(all);
            }
        }
    }
}

#[test]
fn live_events_arrive_by_websocket_and_by_server_sent_events() {
    let dir = tempfile::tempdir().unwrap();
    let (_child, port) = serve(dir.path(), 2, "");
    let mut n = 0;
    let all = listen(port, "/api/v1/live", &[], |_| {
        n += 1;
        n == 30
    });
    let all = all.unwrap();
    // First the current states of the cameras, then live events.
    assert!(
        all[..2]
            .iter()
            .all(|e| e["schema"] == "twintrack.camera_status/1" && e["state"] == "online"),
        "{:?}",
        &all[..2]
    );
    for name in ["c1", "c2"] {
        let numbers: Vec<u64> = all
            .iter()
            .filter(|e| e["camera"] == name)
            .filter_map(|e| e["seq"].as_u64())
            .collect();
        assert!(
            numbers.len() > 5 && numbers.windows(2).all(|w| w[1] == w[0] + 1),
            "{numbers:?}"
        );
    }
    let mut n = 0;
    let some = listen(
        port,
        "/api/v1/live?cameras=c2&events=trajectory",
        &[],
        |_| {
            n += 1;
            n == 8
        },
    );
    assert!(
        some.unwrap()
            .iter()
            .all(|e| e["camera"] == "c2" && e["schema"] == "twintrack.trajectory/1")
    );
    assert_eq!(get(port, "/api/v1/live?events=nonsense", &[]).0, 422);

    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    write!(
        stream,
        "GET /api/v1/live?cameras=c1 HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\
         Accept: text/event-stream\r\n\r\n"
    )
    .unwrap();
    let lines: Vec<String> = BufReader::new(stream)
        .lines()
        .map(|l| l.unwrap())
        .filter(|l| l.contains(':'))
        .take(40)
        .collect();
    assert!(
        lines
            .iter()
            .any(|l| l.to_lowercase() == "content-type: text/event-stream"),
        "{lines:?}"
    );
    let names = lines.iter().filter(|l| *l == "event: trajectory").count();
    let data: Vec<Value> = lines
        .iter()
        .filter_map(|l| l.strip_prefix("data: "))
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert!(names > 5 && data.len() > 5 && data.iter().all(|e| e["camera"] == "c1"));
}

/// Regression: every event postponed the ping, also an event that the client's filter excludes.
#[test]
fn a_client_that_filters_out_all_events_is_pinged() {
    let dir = tempfile::tempdir().unwrap();
    let (_child, port) = serve(dir.path(), 1, "");
    let request = format!("ws://127.0.0.1:{port}/api/v1/live?cameras=nobody")
        .into_client_request()
        .unwrap();
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let (mut socket, _) = tungstenite::client::client(request, stream).unwrap();
    let first = socket
        .read()
        .expect("a ping within a minute, while events happen");
    assert!(first.is_ping(), "{first:?}");
    socket.flush().unwrap(); // sends the pong
}

#[test]
fn requests_without_the_token_and_of_other_origins_are_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let token = "a-token-of-many-letters";
    let (_child, port) = serve(dir.path(), 1, &format!("token = \"{token}\""));
    for path in [
        "/",
        "/metrics",
        "/api/v1/cameras",
        "/api/v1/cameras/c1/picture.jpg",
        "/api/v1/live",
    ] {
        assert_eq!(get(port, path, &[]).0, 401, "{path}");
        assert_eq!(
            get(
                port,
                path,
                &[("authorization", "Bearer a-token-of-many-letterX")]
            )
            .0,
            401,
            "{path}"
        );
    }
    assert_eq!(
        (get(port, "/healthz", &[]).0, get(port, "/readyz", &[]).0),
        (200, 200)
    );
    let bearer = format!("Bearer {token}");
    assert_eq!(get(port, "/metrics", &[("authorization", &bearer)]).0, 200);
    // A browser sends the token once in the address, and later in the cookie that it received.
    assert_eq!(get(port, &format!("/?token={token}"), &[]).0, 303);
    assert_eq!(
        get(
            port,
            "/api/v1/cameras",
            &[("cookie", &format!("twintrack_token={token}"))]
        )
        .0,
        200
    );
    let live = |headers: &[(&'static str, &str)]| {
        listen(
            port,
            &format!("/api/v1/live?token={token}"),
            headers,
            |_| true,
        )
    };
    assert!(live(&[]).is_ok());
    assert!(live(&[("origin", &format!("http://127.0.0.1:{port}"))]).is_ok());
    let foreign = live(&[("origin", "https://evil.example")]);
    assert!(
        matches!(&foreign, Err(tungstenite::Error::Http(r)) if r.status() == 403),
        "{foreign:?}"
    );
    assert!(!log_text(dir.path()).contains(token));

    let file = dir.path().join("open.toml");
    std::fs::write(
        &file,
        format!(
            "[serve]\nlisten = \"0.0.0.0:0\"\n[cameras.a]\nurl = \"{}\"\n",
            clip().display()
        ),
    )
    .unwrap();
    let out = twintrack()
        .args(["serve", "--config"])
        .arg(&file)
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(1));
    assert!(
        common::text(&out.stderr).contains("token"),
        "{}",
        common::text(&out.stderr)
    );
}

#[test]
fn a_port_in_use_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let in_use = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = in_use.local_addr().unwrap();
    let file = dir.path().join("cameras.toml");
    std::fs::write(
        &file,
        format!(
            "[serve]\nlisten = \"{address}\"\n[cameras.a]\nurl = \"{}\"\n",
            clip().display()
        ),
    )
    .unwrap();
    let out = twintrack()
        .args(["serve", "--config"])
        .arg(&file)
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(1));
    assert!(
        common::text(&out.stderr).contains(&format!("cannot listen on {address}")),
        "{}",
        common::text(&out.stderr)
    );
}

/// What [`many_clients`] has measured.
struct Load {
    /// Events that all clients received together.
    received: u64,
    /// Number of tracked frames of the camera with the fewest.
    frames: u64,
    /// 95th percentile of the latency from decoding to client, seconds.
    p95: f64,
}

/// Runs `clients` clients, of which `stalled` read nothing, for at least the given seconds and
/// frames of each camera, and asserts that the other clients miss no event. Asserts no rate,
/// because the rate depends on the machine.
fn many_clients(
    (clients, stalled): (usize, usize),
    cameras: usize,
    seconds: u64,
    least: usize,
) -> Load {
    let dir = tempfile::tempdir().unwrap();
    let (mut child, port) = serve(dir.path(), cameras, "");
    let request = format!(
        "GET /api/v1/live HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let stalled_clients: Vec<TcpStream> = (0..stalled)
        .map(|_| {
            let mut s = TcpStream::connect(("127.0.0.1", port)).unwrap();
            s.write_all(request.as_bytes()).unwrap();
            s
        })
        .collect();
    let (over, gaps) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let listeners: Vec<_> = (0..clients - stalled)
        .map(|_| {
            let (over, gaps) = (over.clone(), gaps.clone());
            std::thread::spawn(move || {
                let (mut delays, mut last) = (Vec::new(), BTreeMap::<String, u64>::new());
                let received = listen(port, "/api/v1/live", &[], |e| {
                    if let (Some(time), Some(seq)) = (e["time"].as_str(), e["seq"].as_u64()) {
                        let sent = time.parse::<jiff::Timestamp>().unwrap();
                        delays.push(jiff::Timestamp::now().duration_since(sent).as_secs_f64());
                        let _ = seq;
                    }
                    if let (Some(camera), Some(seq)) = (e["camera"].as_str(), e["seq"].as_u64()) {
                        let before = last.insert(camera.into(), seq);
                        gaps.fetch_add(before.map_or(0, |b| seq - b - 1), Ordering::Relaxed);
                    }
                    over.load(Ordering::Relaxed) && delays.len() >= least
                });
                received.unwrap();
                delays
            })
        })
        .collect();
    let reading = (clients - stalled) as f64;
    let present = || metrics(port)["twintrack_live_clients"];
    assert!(until(60, || present() >= reading), "{} clients", present());
    let all = || complete_lines(&dir.path().join("out.jsonl"));
    let fewest = || {
        let frames = all()
            .into_iter()
            .filter(|e| e["schema"] == "twintrack.trajectory/1");
        let frames: Vec<Value> = frames.collect();
        let of = |i| {
            frames
                .iter()
                .filter(|e| e["camera"] == format!("c{i}"))
                .count()
        };
        (1..=cameras).map(of).min().unwrap_or(0)
    };
    let connected = fewest();
    std::thread::sleep(Duration::from_secs(seconds));
    assert!(
        until(120, || fewest() >= connected + least),
        "{} frames",
        fewest()
    );
    assert!(present() >= reading, "{} clients", present());
    over.store(true, Ordering::Relaxed);
    let each: Vec<Vec<f64>> = listeners.into_iter().map(|l| l.join().unwrap()).collect();
    assert!(
        each.iter().all(|d| d.len() >= least),
        "a client received fewer events than were written of one camera"
    );
    let mut delays = each.concat();
    delays.sort_unstable_by(f64::total_cmp);
    let p95 = delays[delays.len() * 95 / 100];
    eprintln!(
        "{clients} clients, {stalled} stalled, {cameras} cameras: {} events received, \
         from decoding to client {:.1} ms (median) {:.1} ms (p95)",
        delays.len(),
        1000.0 * delays[delays.len() / 2],
        1000.0 * p95
    );
    drop(stalled_clients);
    child.signal("TERM");
    assert_eq!(child.code(20), Some(0), "{}", log_text(dir.path()));
    assert_eq!(
        gaps.load(Ordering::Relaxed),
        0,
        "clients that read have missed events"
    );
    Load {
        received: delays.len() as u64,
        frames: fewest() as u64,
        p95,
    }
}

#[test]
fn stalled_web_clients_do_not_affect_others() {
    many_clients((20, 3), 2, 0, 20);
}

#[test]
#[ignore = "long: `make soak`"]
fn soak_a_hundred_web_clients() {
    let load = many_clients((100, 5), 4, 60, 20);
    assert!(load.p95 < 0.1, "{} s", load.p95);
    assert!(load.received > 95 * 4 * 60 * 8, "{} events", load.received);
    assert!(load.frames > 60 * 9, "{} frames of a camera", load.frames);
}

/// While standard output is not read, frames are tracked, web clients receive all events, and
/// dropped trajectory events are counted. `track_ended` events are not dropped.
#[test]
fn a_stalled_reader_of_standard_output_does_not_block_the_pipeline() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cameras.toml");
    let camera = |name: &str| {
        format!(
            "[cameras.{name}]\nurl = \"{}\"\nrealtime = false\nrepeat = true\n",
            clip().display()
        )
    };
    std::fs::write(
        &file,
        format!(
            "[serve]\nlisten = \"127.0.0.1:0\"\n[detector]\nsize = \"416x320\"\n{}",
            camera("c1")
        ),
    )
    .unwrap();
    let log = std::fs::File::create(dir.path().join("log")).unwrap();
    let mut child = Running::start(
        twintrack()
            .args(["serve", "--config"])
            .arg(&file)
            .stdout(std::process::Stdio::piped())
            .stderr(log),
    );
    let port = || {
        log_text(dir.path()).lines().find_map(|l| {
            l.strip_prefix("page, live events and metrics: http://127.0.0.1:")?
                .parse::<u16>()
                .ok()
        })
    };
    assert!(until(60, || port().is_some()), "{}", log_text(dir.path()));
    let port = port().unwrap();
    // Absent until the pipeline runs.
    let value = |key: &str| metrics(port).get(key).copied().unwrap_or_default();
    let dropped = || value("twintrack_sink_lost_total{sink=\"output\"}");
    assert!(
        until(300, || dropped() > 0.0),
        "no events are dropped although standard output is not read"
    );
    let tracked = || value("twintrack_frames_tracked_total{camera=\"c1\"}");
    let before = (tracked(), dropped());
    assert!(
        until(300, || tracked() > before.0 + 30.0 && dropped() > before.1),
        "{} frames, {} events dropped in five minutes",
        tracked() - before.0,
        dropped() - before.1
    );
    let mut numbers = Vec::new();
    listen(port, "/api/v1/live", &[], |e| {
        numbers.extend(e["seq"].as_u64());
        numbers.len() > 40
    })
    .unwrap();
    assert!(numbers.windows(2).all(|w| w[1] == w[0] + 1), "{numbers:?}");
    // The reader resumes. Every track in a frame that it receives has a `track_ended` event, also
    // tracks that ended while it did not read.
    let out = child.0.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        BufReader::new(out)
            .lines()
            .map(|l| serde_json::from_str::<Value>(&l.unwrap()).unwrap())
            .collect::<Vec<_>>()
    });
    std::thread::sleep(Duration::from_secs(1));
    child.signal("TERM");
    assert_eq!(child.code(20), Some(0), "{}", log_text(dir.path()));
    let all = reader.join().unwrap();
    let ids = |schema: &str| {
        all.iter()
            .filter(|e| e["schema"] == schema)
            .flat_map(|e| {
                e["tracks"].as_array().map_or_else(
                    || vec![e["id"].as_u64()],
                    |t| t.iter().map(|t| t["id"].as_u64()).collect(),
                )
            })
            .flatten()
            .collect::<std::collections::BTreeSet<_>>()
    };
    let (seen, ended) = (
        ids("twintrack.trajectory/1"),
        ids("twintrack.track_ended/1"),
    );
    assert!(
        seen.len() > 5 && seen.is_subset(&ended),
        "{:?} have no end",
        seen.difference(&ended)
    );
}

#[test]
fn the_json_log_has_an_object_per_line_with_the_camera_s_name() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cameras.toml");
    std::fs::write(dir.path().join("noise.mp4"), vec![7u8; 5000]).unwrap();
    std::fs::write(
        &file,
        format!(
            "{}[cameras.bad]\nurl = \"{}\"\n",
            common::NO_PAGE,
            dir.path().join("noise.mp4").display()
        ),
    )
    .unwrap();
    let out = twintrack()
        .args(["--log-format", "json", "serve", "--quiet", "--config"])
        .arg(&file)
        .output()
        .unwrap();
    let lines = json_lines(&common::text(&out.stderr));
    let bad: Vec<&Value> = lines.iter().filter(|l| l["camera"] == "bad").collect();
    assert!(
        bad.iter().any(|l| l["level"] == "ERROR"
            && l["error"]
                .as_str()
                .is_some_and(|e| e.contains("not recognise it as a video"))),
        "{lines:?}"
    );
}

#[test]
fn systemd_is_notified_of_readiness_watchdog_and_stopping() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let file = dir.path().join("cameras.toml");
    std::fs::write(
        &file,
        format!(
            "{}[cameras.a]\nurl = \"{}\"\nrepeat = true\n",
            common::NO_PAGE,
            clip().display()
        ),
    )
    .unwrap();
    let mut child = Running::start(
        twintrack()
            .args(["serve", "--quiet", "--config"])
            .arg(&file)
            .arg("--output")
            .arg(dir.path().join("out.jsonl"))
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "1000000"),
    );
    let receive = || {
        let mut buffer = [0; 256];
        let n = socket.recv(&mut buffer).unwrap();
        common::text(&buffer[..n]).trim().to_string()
    };
    let mut all = Vec::new();
    while all.iter().filter(|m| *m == "WATCHDOG=1").count() < 4 {
        all.push(receive());
    }
    assert!(all.contains(&"READY=1".to_string()), "{all:?}");
    child.signal("TERM");
    while all.last().is_none_or(|m| m != "STOPPING=1") {
        all.push(receive());
    }
    assert_eq!(child.code(20), Some(0));
}
