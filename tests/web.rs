//! The web side of `twintrack serve`: page, pictures, live events, health, metrics, and who is let in.
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

use common::{Running, clip, json_lines, repository, twintrack, until, whole_lines};
use serde_json::Value;
use tungstenite::{Message, client::IntoClientRequest as _};

/// The program with so many cameras that play the clip without end, and the port that it has taken.
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
    std::fs::write(&file, format!("[serve]\nlisten = \"127.0.0.1:0\"\n{settings}\n[detector]\nsize = \"416x320\"\n{cameras}")).unwrap();
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
        said(dir).lines().find_map(|l| {
            l.strip_prefix("page, live events and metrics: http://127.0.0.1:")?
                .parse::<u16>()
                .ok()
        })
    };
    assert!(
        until(60, || port().is_some()
            && whole_lines(&dir.join("out.jsonl")).len() > 10),
        "{}",
        said(dir)
    );
    (child, port().unwrap())
}

fn said(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("log")).unwrap_or_default()
}

/// Status, content type and body.
fn get(port: u16, path: &str, headers: &[(&str, &str)]) -> (u16, String, Vec<u8>) {
    let agent = ureq::Agent::new_with_config(
        ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .build(),
    );
    let mut ask = agent.get(format!("http://127.0.0.1:{port}{path}"));
    for (k, v) in headers {
        ask = ask.header(*k, *v);
    }
    let mut answer = ask.call().unwrap();
    let kind = answer
        .headers()
        .get("content-type")
        .map_or(String::new(), |v| v.to_str().unwrap().into());
    (
        answer.status().as_u16(),
        kind,
        answer.body_mut().read_to_vec().unwrap(),
    )
}

fn text(port: u16, path: &str) -> String {
    let (status, _, body) = get(port, path, &[]);
    assert_eq!(status, 200, "{path}");
    String::from_utf8(body).unwrap()
}

/// Metrics by their whole name with labels.
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
fn page_pictures_health_and_metrics() {
    let dir = tempfile::tempdir().unwrap();
    let (mut child, port) = serve(dir.path(), 2, "");
    let page = text(port, "/");
    assert!(
        page.contains("<title>twintrack</title>")
            && !page.contains("http://")
            && !page.contains("https://"),
        "the page fetches from elsewhere"
    );
    assert_eq!(
        (text(port, "/healthz"), text(port, "/readyz")),
        ("ok\n".into(), "ready\n".into())
    );
    let overview: Value = serde_json::from_str(&text(port, "/api/v1/cameras")).unwrap();
    let all = overview["cameras"].as_array().unwrap();
    assert_eq!(
        all.iter()
            .map(|c| c["name"].as_str().unwrap())
            .collect::<Vec<_>>(),
        ["c1", "c2"]
    );
    assert!(
        all.iter().all(|c| c["state"] == "online"
            && c["tracked"].as_u64() > Some(2)
            && c["latency_p95"].as_f64() > Some(0.0)),
        "{overview}"
    );
    let (status, kind, jpeg) = get(port, "/api/v1/cameras/c1/picture.jpg?width=400", &[]);
    assert_eq!((status, kind.as_str()), (200, "image/jpeg"));
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
    for cause in ["decode_late", "detector_busy", "sink_slow", "target_fps"] {
        has(&format!(
            "twintrack_frames_dropped_total{{camera=\"c1\",cause=\"{cause}\"}}"
        ));
    }
    assert!(
        has("twintrack_queue_frames{queue=\"detector\"}") <= 2.0
            && has("twintrack_queue_frames{queue=\"sinks\"}") < 10.0
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
    assert_eq!(child.code(20), Some(0), "{}", said(dir.path()));
}

/// A WebSocket's events until `enough`.
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
        tungstenite::HandshakeError::Interrupted(_) => panic!("no answer"),
    })?;
    let mut all = Vec::new();
    loop {
        if let Message::Text(text) = socket.read()? {
            let event: Value = serde_json::from_str(&text).unwrap();
            let done = enough(&event);
            all.push(event);
            if done {
                let _ = socket.close(None); // it may end before us
                return Ok(all);
            }
        }
    }
}

#[test]
fn live_events_by_websocket_and_by_server_sent_events() {
    let dir = tempfile::tempdir().unwrap();
    let (_child, port) = serve(dir.path(), 2, "");
    let mut n = 0;
    let all = listen(port, "/api/v1/live", &[], |_| {
        n += 1;
        n == 30
    });
    let all = all.unwrap();
    // First how the cameras stand, then what happens.
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
    assert_eq!(get(port, "/api/v1/live?events=nonsense", &[]).0, 400);

    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    write!(stream, "GET /api/v1/live?cameras=c1 HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: text/event-stream\r\n\r\n").unwrap();
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

/// A client that wants little of what happens was never asked whether it is there: every event put
/// the question off.
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
    socket.flush().unwrap(); // the answer
}

#[test]
fn only_who_shows_the_token_is_let_in_and_no_page_of_somebody_else() {
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
    // A browser shows it once in the address, then in the cookie that it was given.
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
    assert!(!said(dir.path()).contains(token));

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
fn a_port_that_is_taken_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
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

/// Many clients, some of whom take nothing: the others miss no event. Returns the time from decoding to client that 95 of 100
/// events take at most, seconds.
fn many_clients(clients: usize, stalled: usize, cameras: usize, seconds: u64) -> f64 {
    let dir = tempfile::tempdir().unwrap();
    let (mut child, port) = serve(dir.path(), cameras, "");
    let request = format!(
        "GET /api/v1/live HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let sleepers: Vec<TcpStream> = (0..stalled)
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
                let heard = listen(port, "/api/v1/live", &[], |e| {
                    if let (Some(time), Some(seq)) = (e["time"].as_str(), e["seq"].as_u64()) {
                        let sent = time.parse::<jiff::Timestamp>().unwrap();
                        delays.push(jiff::Timestamp::now().duration_since(sent).as_secs_f64());
                        let _ = seq;
                    }
                    if let (Some(camera), Some(seq)) = (e["camera"].as_str(), e["seq"].as_u64()) {
                        let before = last.insert(camera.into(), seq);
                        gaps.fetch_add(before.map_or(0, |b| seq - b - 1), Ordering::Relaxed);
                    }
                    over.load(Ordering::Relaxed)
                });
                heard.unwrap();
                delays
            })
        })
        .collect();
    std::thread::sleep(Duration::from_secs(seconds));
    let present = metrics(port)["twintrack_live_clients"];
    over.store(true, Ordering::Relaxed);
    let mut delays: Vec<f64> = listeners
        .into_iter()
        .flat_map(|l| l.join().unwrap())
        .collect();
    delays.sort_unstable_by(f64::total_cmp);
    let p95 = delays[delays.len() * 95 / 100];
    eprintln!(
        "{clients} clients, {stalled} stalled, {cameras} cameras: {} events heard, from decoding to client {:.1} ms (median) {:.1} ms (p95)",
        delays.len(),
        1000.0 * delays[delays.len() / 2],
        1000.0 * p95
    );
    drop(sleepers);
    child.signal("TERM");
    assert_eq!(child.code(20), Some(0), "{}", said(dir.path()));
    assert_eq!(
        gaps.load(Ordering::Relaxed),
        0,
        "clients that listen have missed events"
    );
    assert!(
        delays.len() as u64 > (clients - stalled) as u64 * cameras as u64 * seconds * 8,
        "{} events",
        delays.len()
    );
    assert!(present >= (clients - stalled) as f64, "{present} clients");
    let all = json_lines(&std::fs::read_to_string(dir.path().join("out.jsonl")).unwrap());
    for i in 1..=cameras {
        let frames = all
            .iter()
            .filter(|e| e["camera"] == format!("c{i}") && e["schema"] == "twintrack.trajectory/1")
            .count();
        assert!(
            frames as u64 > seconds * 9,
            "camera {i} has {frames} frames in more than {seconds} s"
        );
    }
    p95
}

#[test]
fn twenty_web_clients_three_of_them_asleep() {
    many_clients(20, 3, 2, 5);
}

/// 100 clients on 4 cameras, 5 of them stalled.
#[test]
#[ignore = "long: `make soak`"]
fn soak_a_hundred_web_clients() {
    let p95 = many_clients(100, 5, 4, 60);
    assert!(p95 < 0.1, "{p95} s");
}

/// Nobody reads standard output: the cameras go on, web clients hear everything, and what is lost is counted. The ends of tracks
/// wait for the reader.
#[test]
fn a_reader_who_sleeps_slows_nobody_down() {
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
        said(dir.path()).lines().find_map(|l| {
            l.strip_prefix("page, live events and metrics: http://127.0.0.1:")?
                .parse::<u16>()
                .ok()
        })
    };
    assert!(until(60, || port().is_some()), "{}", said(dir.path()));
    let port = port().unwrap();
    let lost = || metrics(port)["twintrack_sink_lost_total{sink=\"output\"}"];
    assert!(
        until(120, || lost() > 0.0),
        "nothing is lost though nobody reads"
    );
    let tracked = || metrics(port)["twintrack_frames_tracked_total{camera=\"c1\"}"];
    let before = (tracked(), lost());
    assert!(
        until(60, || tracked() > before.0 + 30.0 && lost() > before.1),
        "{} frames, {} events lost in a minute",
        tracked() - before.0,
        lost() - before.1
    );
    let mut numbers = Vec::new();
    listen(port, "/api/v1/live", &[], |e| {
        numbers.extend(e["seq"].as_u64());
        numbers.len() > 40
    })
    .unwrap();
    assert!(numbers.windows(2).all(|w| w[1] == w[0] + 1), "{numbers:?}");
    // The reader wakes: who was seen in a frame that it got has an end, though that came while it slept.
    let out = child.0.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        BufReader::new(out)
            .lines()
            .map(|l| serde_json::from_str::<Value>(&l.unwrap()).unwrap())
            .collect::<Vec<_>>()
    });
    std::thread::sleep(Duration::from_secs(1));
    child.signal("TERM");
    assert_eq!(child.code(20), Some(0), "{}", said(dir.path()));
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

/// The log as an object a line, with the camera's name in it.
#[test]
fn the_log_can_be_json() {
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
                .is_some_and(|e| e.contains("not a video"))),
        "{lines:?}"
    );
    assert!(repository("web/index.html").exists());
}

/// What systemd is told: ready, alive, stopping.
#[test]
fn systemd_hears_of_the_start_the_life_and_the_end() {
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
    let hear = || {
        let mut buffer = [0; 256];
        let n = socket.recv(&mut buffer).unwrap();
        common::text(&buffer[..n]).trim().to_string()
    };
    let mut all = Vec::new();
    while all.iter().filter(|m| *m == "WATCHDOG=1").count() < 4 {
        all.push(hear());
    }
    assert!(all.contains(&"READY=1".to_string()), "{all:?}");
    child.signal("TERM");
    while all.last().is_none_or(|m| m != "STOPPING=1") {
        all.push(hear());
    }
    assert_eq!(child.code(20), Some(0));
}
