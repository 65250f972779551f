//! The ways out of `twintrack serve`: a real MQTT broker, a web address, a file; with the receiver away, and the program killed.
#![cfg(feature = "serve")]
#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::broker::{broker, heard, subscriber};
use common::{NO_PAGE, Running, clip, free_port, twintrack, until, whole_lines};
use serde_json::Value;

/// Who an event is: run, camera and number; a status has no number, and its time tells it.
type Who = (String, String, String);

fn who(e: &Value) -> Who {
    let text = |k: &str| e[k].as_str().unwrap_or_default().to_string();
    (
        text("run"),
        text("camera"),
        e["seq"].as_u64().map_or_else(
            || format!("{} {}", text("state"), text("time")),
            |n| n.to_string(),
        ),
    )
}

/// Two cameras that play the clip without end, and what else.
fn cameras(dir: &Path, more: &str) -> PathBuf {
    let file = dir.join("cameras.toml");
    let camera = |name: &str| {
        format!(
            "[cameras.{name}]\nurl = \"{}\"\nrepeat = true\n",
            clip().display()
        )
    };
    let state = format!(
        "state_dir = \"{}\"\nstop_within = 5.0\n",
        dir.join("state").display()
    );
    std::fs::write(
        &file,
        format!(
            "{NO_PAGE}{state}{}{}[detector]\nsize = \"416x320\"\n{more}",
            camera("gate-1"),
            camera("gate-2")
        ),
    )
    .unwrap();
    file
}

fn serve(dir: &Path, file: &Path) -> Running {
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(dir.join("log"))
        .unwrap();
    Running::start(
        twintrack()
            .args(["-v", "serve", "--config"])
            .arg(file)
            .arg("--output")
            .arg(dir.join("out.jsonl"))
            .stderr(log),
    )
}

fn said(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("log")).unwrap_or_default()
}

/// Every event of the file has arrived, and each camera's in order once doubles are dropped.
fn assert_whole(dir: &Path, arrived: &[Value]) {
    let sent: Vec<Value> = whole_lines(&dir.join("out.jsonl"));
    let have: BTreeSet<Who> = arrived.iter().map(who).collect();
    let missing: Vec<Who> = sent.iter().map(who).filter(|w| !have.contains(w)).collect();
    assert!(
        missing.is_empty(),
        "{} of {} are missing, as {:?}\n{}",
        missing.len(),
        sent.len(),
        missing[0],
        said(dir)
    );
    let (mut seen, mut last) = (BTreeSet::new(), BTreeMap::<(String, String), u64>::new());
    for e in arrived
        .iter()
        .filter(|e| e["seq"].is_u64() && seen.insert(who(e)))
    {
        let (run, camera, _) = who(e);
        let seq = e["seq"].as_u64().unwrap();
        let before = last.insert((run, camera), seq).unwrap_or(0);
        assert!(before < seq, "{seq} after {before}: {e}");
    }
    assert!(seen.len() > 40, "only {} events", seen.len());
}

fn events(dir: &Path) -> Vec<Value> {
    heard(dir)
        .iter()
        .filter(|(_, _, p)| p.starts_with('{'))
        .map(|(_, _, p)| serde_json::from_str(p).unwrap())
        .collect()
}

fn mqtt(port: u16, version: &str) -> String {
    format!("[mqtt]\nbroker = \"mqtt://127.0.0.1:{port}\"\nversion = \"{version}\"\n")
}

fn topics_and_states(version: &str) {
    let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
    let dir = dir.path();
    let Some(_broker) = broker(dir, port, "allow_anonymous true") else {
        return;
    };
    let _subscriber = subscriber(dir, port, &[]);
    let file = cameras(dir, &mqtt(port, version));
    let mut child = serve(dir, &file);
    assert!(until(60, || events(dir).len() > 60), "{}", said(dir));
    child.signal("TERM");
    assert_eq!(child.code(20), Some(0), "{}", said(dir));
    until(5, || {
        events(dir).len() >= whole_lines(&dir.join("out.jsonl")).len()
    });
    assert_whole(dir, &events(dir));
    for (_, topic, text) in heard(dir).iter().filter(|(_, _, p)| p.starts_with('{')) {
        let e: Value = serde_json::from_str(text).unwrap();
        let last = match e["schema"].as_str().unwrap() {
            "twintrack.trajectory/1" => "tracks",
            "twintrack.track_ended/1" => "events",
            "twintrack.camera_status/1" => "status",
            other => panic!("{other}"),
        };
        assert_eq!(
            *topic,
            format!("twintrack/{}/{last}", e["camera"].as_str().unwrap())
        );
    }
    let own: Vec<String> = heard(dir)
        .into_iter()
        .filter(|(_, t, _)| t == "twintrack/status")
        .map(|(_, _, p)| p)
        .collect();
    assert_eq!(own, ["online", "offline"]);
    // Who comes later hears the last states at once.
    let port = port.to_string();
    let late = Command::new("mosquitto_sub")
        .args([
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-t",
            "twintrack/+/status",
            "-C",
            "2",
            "-W",
            "5",
        ])
        .output()
        .unwrap();
    let late = common::json_lines(&common::text(&late.stdout));
    assert!(
        late.len() == 2 && late.iter().all(|e| e["state"] == "ended"),
        "{late:?}"
    );
}

#[test]
fn mqtt_5_has_every_event_under_its_topic() {
    topics_and_states("5");
}

#[test]
fn mqtt_3_1_1_has_every_event_under_its_topic() {
    topics_and_states("3.1.1");
}

/// The broker is away until 40 events have happened without it, and `away` seconds at least: they arrive after its return, in
/// order. No rate is asked for: how fast events come depends on the machine.
fn broker_away(version: &str, before: u64, away: u64, after: u64) {
    let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
    let dir = dir.path();
    let Some(mut first) = broker(dir, port, "allow_anonymous true") else {
        return;
    };
    let _subscriber = subscriber(dir, port, &[]);
    let file = cameras(dir, &mqtt(port, version));
    let mut child = serve(dir, &file);
    assert!(until(60, || events(dir).len() > 30), "{}", said(dir));
    std::thread::sleep(Duration::from_secs(before));
    first.signal("TERM");
    assert!(first.code(10).is_some());
    let written = || whole_lines(&dir.join("out.jsonl")).len();
    let at = written();
    std::thread::sleep(Duration::from_secs(away));
    assert!(
        until(120, || written() >= at + 40),
        "the cameras stand still without the broker: {} events; {}",
        written() - at,
        said(dir)
    );
    assert!(
        until(60, || said(dir).contains("the broker is not reached")),
        "{}",
        said(dir)
    );
    let _second = broker(dir, port, "allow_anonymous true").unwrap();
    std::thread::sleep(Duration::from_secs(after));
    child.signal("TERM");
    assert_eq!(child.code(20), Some(0), "{}", said(dir));
    until(60, || {
        events(dir).iter().map(who).collect::<BTreeSet<_>>().len() >= written()
    });
    assert_whole(dir, &events(dir));
}

#[test]
fn a_broker_that_was_away_has_every_event_after_its_return() {
    broker_away("5", 0, 0, 4);
}

#[test]
fn and_so_has_one_of_the_older_protocol() {
    broker_away("3.1.1", 0, 0, 4);
}

/// 60 s of a 3 minute run.
#[test]
#[ignore = "long: `make soak`"]
fn soak_broker_away_for_a_minute() {
    broker_away("5", 50, 60, 60);
}

/// Killed without a warning while the broker is away: the last will tells of it, the next run delivers what the first left, and
/// numbers no event twice.
#[test]
fn a_killed_run_s_events_are_delivered_by_the_next() {
    let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
    let dir = dir.path();
    let Some(mut first) = broker(dir, port, "allow_anonymous true") else {
        return;
    };
    let _subscriber = subscriber(dir, port, &[]);
    let file = cameras(dir, &mqtt(port, "5"));
    let mut child = serve(dir, &file);
    assert!(until(60, || events(dir).len() > 30), "{}", said(dir));
    first.signal("TERM");
    assert!(first.code(10).is_some());
    std::thread::sleep(Duration::from_secs(2));
    child.signal("KILL");
    child.code(5);
    let left = whole_lines(&dir.join("out.jsonl"));
    let _second = broker(dir, port, "allow_anonymous true").unwrap();
    let mut child = serve(dir, &file);
    assert!(
        until(60, || whole_lines(&dir.join("out.jsonl")).len()
            > left.len() + 30),
        "{}",
        said(dir)
    );
    // Without a farewell the broker speaks in its name.
    child.signal("KILL");
    child.code(5);
    let own = || {
        heard(dir)
            .into_iter()
            .filter(|(_, t, _)| t == "twintrack/status")
            .map(|(_, _, p)| p)
            .collect::<Vec<_>>()
    };
    assert!(
        until(20, || own().last().is_some_and(|s| s == "offline")),
        "{:?}",
        own()
    );
    let mut child = serve(dir, &file);
    assert!(
        until(60, || own().last().is_some_and(|s| s == "online")),
        "{:?}",
        own()
    );
    std::thread::sleep(Duration::from_secs(1));
    child.signal("TERM");
    assert_eq!(child.code(20), Some(0), "{}", said(dir));
    until(15, || {
        events(dir).iter().map(who).collect::<BTreeSet<_>>().len()
            >= whole_lines(&dir.join("out.jsonl")).len()
    });
    assert!(
        said(dir).contains("events of an earlier run"),
        "{}",
        said(dir)
    );
    assert_whole(dir, &events(dir));
    let all = whole_lines(&dir.join("out.jsonl"));
    assert_eq!(
        all.iter()
            .map(|e| e["run"].to_string())
            .collect::<BTreeSet<_>>()
            .len(),
        3
    );
    assert_eq!(
        all.iter().map(who).collect::<BTreeSet<_>>().len(),
        all.len(),
        "an event twice in the file"
    );
}

/// TLS and a password, and both wrong.
#[test]
fn a_broker_behind_tls_and_a_password_is_reached_and_a_wrong_password_is_told() {
    let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
    let dir = dir.path();
    let path = |name: &str| dir.join(name).display().to_string();
    let openssl = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=127.0.0.1",
        ])
        .args([
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
            "-keyout",
            &path("key.pem"),
            "-out",
            &path("ca.pem"),
        ])
        .output();
    if !openssl.is_ok_and(|o| o.status.success()) {
        eprintln!("SKIPPED: no openssl here to make a certificate");
        return;
    }
    if Command::new("mosquitto_passwd")
        .args(["-b", "-c", &path("users"), "tracker", "secret-word"])
        .output()
        .is_err()
    {
        eprintln!("SKIPPED: no mosquitto here (Debian: mosquitto mosquitto-clients)");
        return;
    }
    let closed = format!(
        "allow_anonymous false\npassword_file {}\ncertfile {}\nkeyfile {}",
        path("users"),
        path("ca.pem"),
        path("key.pem")
    );
    let Some(_broker) = broker(dir, port, &closed) else {
        return;
    };
    let login = [
        "--cafile",
        &path("ca.pem"),
        "-u",
        "tracker",
        "-P",
        "secret-word",
    ];
    let _subscriber = subscriber(dir, port, &login);
    std::fs::write(dir.join("password"), "wrong-word\n").unwrap();
    let tls = format!(
        "[mqtt]\nbroker = \"mqtts://127.0.0.1:{port}\"\nuser = \"tracker\"\npassword_file = \"{}\"\nca_file = \"{}\"\n",
        path("password"),
        path("ca.pem")
    );
    let file = cameras(dir, &tls);
    let child = serve(dir, &file);
    assert!(
        until(30, || said(dir).contains("NotAuthorized")),
        "{}",
        said(dir)
    );
    drop(child);
    std::fs::write(dir.join("password"), "secret-word\n").unwrap();
    let mut child = serve(dir, &file);
    assert!(until(60, || events(dir).len() > 30), "{}", said(dir));
    child.signal("TERM");
    assert_eq!(child.code(20), Some(0), "{}", said(dir));
    assert!(!said(dir).contains("secret-word") && !said(dir).contains("wrong-word"));
}

/// A receiver of POSTs: takes what it is told to take, remembers everything.
struct Receiver {
    port: u16,
    takes: Arc<AtomicBool>,
    posts: Arc<Mutex<Vec<Post>>>,
}

/// Timestamp, signature, body, taken.
type Post = (String, String, String, bool);

fn receiver() -> Receiver {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let r = Receiver {
        port: listener.local_addr().unwrap().port(),
        takes: Arc::new(AtomicBool::new(false)),
        posts: Arc::default(),
    };
    let (takes, posts) = (r.takes.clone(), r.posts.clone());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (takes, posts) = (takes.clone(), posts.clone());
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream);
                loop {
                    let (mut line, mut fields) = (String::new(), BTreeMap::new());
                    while reader.read_line(&mut line).is_ok_and(|n| n > 0) && line.trim() != "" {
                        fields.extend(
                            line.split_once(':')
                                .map(|(k, v)| (k.to_lowercase(), v.trim().to_string())),
                        );
                        line.clear();
                    }
                    let Some(length) = fields.get("content-length").and_then(|l| l.parse().ok())
                    else {
                        return;
                    };
                    let mut body = vec![0; length];
                    reader.read_exact(&mut body).unwrap();
                    let taken = takes.load(Ordering::Relaxed);
                    let field = |k: &str| fields.get(k).cloned().unwrap_or_default();
                    posts.lock().unwrap().push((
                        field("x-twintrack-timestamp"),
                        field("x-twintrack-signature"),
                        String::from_utf8(body).unwrap(),
                        taken,
                    ));
                    let answer: &[u8] = if taken {
                        b"HTTP/1.1 204 No Content\r\n\r\n"
                    } else {
                        b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
                    };
                    reader.get_mut().write_all(answer).unwrap();
                }
            });
        }
    });
    r
}

/// Signed POSTs; a receiver that first refuses has everything in the end, and only the kinds of events that were asked for.
#[test]
fn a_webhook_has_every_event_signed() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let r = receiver();
    let hook = format!(
        "[webhook]\nurl = \"http://127.0.0.1:{}/events\"\nsecret = \"shared-word\"\nevents = [\"track_ended\", \"camera_status\"]\n",
        r.port
    );
    let file = cameras(dir, &hook);
    let mut child = serve(dir, &file);
    assert!(
        until(60, || !r.posts.lock().unwrap().is_empty()),
        "{}",
        said(dir)
    );
    r.takes.store(true, Ordering::Relaxed);
    assert!(
        until(60, || whole_lines(&dir.join("out.jsonl")).len() > 60),
        "{}",
        said(dir)
    );
    child.signal("TERM");
    assert_eq!(child.code(20), Some(0), "{}", said(dir));
    let posts = r.posts.lock().unwrap().clone();
    let taken: Vec<Value> = posts
        .iter()
        .filter(|p| p.3)
        .flat_map(|p| common::json_lines(&p.2))
        .collect();
    let wanted: BTreeSet<Who> = whole_lines(&dir.join("out.jsonl"))
        .iter()
        .filter(|e| e["schema"] != "twintrack.trajectory/1")
        .map(who)
        .collect();
    assert_eq!(taken.iter().map(who).collect::<BTreeSet<_>>(), wanted);
    assert!(
        posts.iter().any(|p| !p.3) && wanted.len() > 8,
        "{} events",
        wanted.len()
    );
    for (timestamp, signature, body, _) in &posts {
        let text = dir.join("signed");
        std::fs::write(&text, format!("{timestamp}.{body}")).unwrap();
        let Ok(out) = Command::new("openssl")
            .args(["dgst", "-sha256", "-hmac", "shared-word"])
            .arg(&text)
            .output()
        else {
            continue;
        };
        let want = common::text(&out.stdout)
            .split_whitespace()
            .last()
            .unwrap()
            .to_string();
        assert_eq!(*signature, format!("v1={want}"));
    }
    assert!(!said(dir).contains("shared-word"));
}

#[test]
fn wrong_receivers_are_refused_before_anything_begins() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for (more, want) in [
        ("[mqtt]\nbroker = \"somewhere\"", "mqtt://host:1883"),
        ("[mqtt]\nbroker = \"mqtt://u:p@h\"", "own fields"),
        ("[mqtt]\nbroker = \"mqtt://h\"\ntopic = \"a/#\"", "topic"),
        (
            "[mqtt]\nbroker = \"mqtts://h\"\nca_file = \"/no/such/ca\"",
            "/no/such/ca",
        ),
        (
            "[mqtt]\nbroker = \"mqtt://h\"\nevents = [\"nonsense\"]",
            "nonsense",
        ),
        ("[webhook]\nurl = \"ftp://h\"", "http://"),
        (
            "[webhook]\nurl = \"http://h\"\nsecret_env = \"TWINTRACK_NO_SUCH\"",
            "TWINTRACK_NO_SUCH",
        ),
        (
            "[webhook]\nurl = \"http://h\"\n[webhook.spool]\nbytes = 5",
            "webhook.spool.bytes",
        ),
    ] {
        let _ = std::fs::remove_file(dir.join("log"));
        let file = cameras(dir, more);
        let mut child = serve(dir, &file);
        assert_eq!(child.code(30), Some(1), "{more}: {}", said(dir));
        assert!(said(dir).contains(want), "{more}: {}", said(dir));
    }
}
