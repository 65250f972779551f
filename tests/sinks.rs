//! The sinks of `twintrack serve` (MQTT, webhook, file), also while the receiver cannot be reached
//! and after the program was killed.
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

use common::broker::{broker, received, subscriber};
use common::{NO_PAGE, Running, clip, complete_lines, free_port, start_service, twintrack, until};
use serde_json::Value;

/// Identifies an event: run, camera and sequence number; for status events, which have no sequence
/// number, state and time instead.
type Key = (String, String, String);

fn key(e: &Value) -> Key {
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

/// Writes a configuration with two cameras that repeat the clip, and `more`.
fn cameras(dir: &Path, more: &str) -> PathBuf {
    let file = dir.join("cameras.toml");
    let camera = |name: &str| {
        format!(
            "[cameras.{name}]\nurl = \"{}\"\nrepeat = true\n",
            clip().display()
        )
    };
    let state = format!(
        "state_dir = \"{}\"\nstop_within = 60.0\n",
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
    start_service(file, &dir.join("out.jsonl"), log)
}

fn log_text(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("log")).unwrap_or_default()
}

/// Asserts that every event of the events file has arrived, in order for each camera, apart from
/// repetitions.
fn assert_complete(dir: &Path, arrived: &[Value]) {
    let sent: Vec<Value> = complete_lines(&dir.join("out.jsonl"));
    let keys: BTreeSet<Key> = arrived.iter().map(key).collect();
    let missing: Vec<Key> = sent.iter().map(key).filter(|k| !keys.contains(k)).collect();
    assert!(
        missing.is_empty(),
        "{} of {} are missing, such as {:?}\n{}",
        missing.len(),
        sent.len(),
        missing[0],
        log_text(dir)
    );
    let (mut seen, mut last) = (BTreeSet::new(), BTreeMap::<(String, String), u64>::new());
    for e in arrived
        .iter()
        .filter(|e| e["seq"].is_u64() && seen.insert(key(e)))
    {
        let (run, camera, _) = key(e);
        let seq = e["seq"].as_u64().unwrap();
        let before = last.insert((run, camera), seq).unwrap_or(0);
        assert!(before < seq, "{seq} after {before}: {e}");
    }
    assert!(seen.len() > 40, "only {} events", seen.len());
}

/// The events that the subscriber has received.
fn events(dir: &Path) -> Vec<Value> {
    received(dir)
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
    assert!(until(60, || events(dir).len() > 60), "{}", log_text(dir));
    child.signal("TERM");
    assert_eq!(child.code(120), Some(0), "{}", log_text(dir));
    let own = || -> Vec<String> {
        received(dir)
            .into_iter()
            .filter(|(_, t, _)| t == "twintrack/status")
            .map(|(_, _, p)| p)
            .collect()
    };
    // The program publishes its end after the last event.
    until(60, || {
        events(dir).len() >= complete_lines(&dir.join("out.jsonl")).len()
            && own().last().is_some_and(|s| s == "offline")
    });
    assert_complete(dir, &events(dir));
    for (_, topic, text) in received(dir).iter().filter(|(_, _, p)| p.starts_with('{')) {
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
    assert_eq!(own(), ["online", "offline"]);
    // A later subscriber receives the last states, because they are retained.
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
            "30",
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
fn every_event_arrives_under_its_topic_by_mqtt_5() {
    topics_and_states("5");
}

#[test]
fn every_event_arrives_under_its_topic_by_mqtt_3_1_1() {
    topics_and_states("3.1.1");
}

/// Stops the broker after `before` seconds, starts it again after `outage` seconds and at least 40
/// events, and ends the run after `after` seconds. All events must arrive, in order. No rate is
/// required, because it depends on the machine.
fn broker_outage(version: &str, before: u64, outage: u64, after: u64) {
    let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
    let dir = dir.path();
    let Some(mut first) = broker(dir, port, "allow_anonymous true") else {
        return;
    };
    let _subscriber = subscriber(dir, port, &[]);
    let file = cameras(dir, &mqtt(port, version));
    let mut child = serve(dir, &file);
    assert!(until(60, || events(dir).len() > 30), "{}", log_text(dir));
    std::thread::sleep(Duration::from_secs(before));
    first.signal("TERM");
    assert!(first.code(10).is_some());
    let written = || complete_lines(&dir.join("out.jsonl")).len();
    let at = written();
    std::thread::sleep(Duration::from_secs(outage));
    assert!(
        until(120, || written() >= at + 40),
        "the pipeline stops without the broker: {} events; {}",
        written() - at,
        log_text(dir)
    );
    assert!(
        until(60, || log_text(dir)
            .contains("cannot connect to the broker")),
        "{}",
        log_text(dir)
    );
    let _second = broker(dir, port, "allow_anonymous true").unwrap();
    std::thread::sleep(Duration::from_secs(after));
    let arrived = || events(dir).iter().map(key).collect::<BTreeSet<_>>().len();
    let at = written();
    assert!(
        until(60, || arrived() >= at),
        "{} of {at} events",
        arrived()
    );
    child.signal("TERM");
    assert_eq!(child.code(120), Some(0), "{}", log_text(dir));
    until(60, || arrived() >= written());
    assert_complete(dir, &events(dir));
}

#[test]
fn every_event_arrives_after_an_outage_of_the_broker_by_mqtt_5() {
    broker_outage("5", 0, 0, 0);
}

#[test]
fn every_event_arrives_after_an_outage_of_the_broker_by_mqtt_3_1_1() {
    broker_outage("3.1.1", 0, 0, 0);
}

#[test]
#[ignore = "long: `make soak`"]
fn soak_broker_outage_of_a_minute() {
    broker_outage("5", 50, 60, 60);
}

/// The program is killed during an outage of the broker. The next run delivers the remaining
/// events, the last will reports the end of the killed run, and no sequence number is used twice.
#[test]
fn events_of_a_killed_run_are_delivered_by_the_next_run() {
    let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
    let dir = dir.path();
    let Some(mut first) = broker(dir, port, "allow_anonymous true") else {
        return;
    };
    let _subscriber = subscriber(dir, port, &[]);
    let file = cameras(dir, &mqtt(port, "5"));
    let mut child = serve(dir, &file);
    assert!(until(60, || events(dir).len() > 30), "{}", log_text(dir));
    first.signal("TERM");
    assert!(first.code(10).is_some());
    let written = || complete_lines(&dir.join("out.jsonl")).len();
    let at = written();
    assert!(until(60, || written() >= at + 10), "{}", log_text(dir));
    child.signal("KILL");
    child.code(5);
    let left = complete_lines(&dir.join("out.jsonl"));
    let _second = broker(dir, port, "allow_anonymous true").unwrap();
    let mut child = serve(dir, &file);
    assert!(
        until(60, || complete_lines(&dir.join("out.jsonl")).len()
            > left.len() + 30),
        "{}",
        log_text(dir)
    );
    // The broker has the last will of this run when it has an event of it.
    let run = complete_lines(&dir.join("out.jsonl")).last().unwrap()["run"].clone();
    let arrives = || events(dir).iter().any(|e| e["run"] == run);
    assert!(until(60, arrives), "{}", log_text(dir));
    // Without a DISCONNECT the broker publishes the last will.
    child.signal("KILL");
    child.code(5);
    let own = || {
        received(dir)
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
    let arrived = || events(dir).iter().map(key).collect::<BTreeSet<_>>().len();
    let at = written();
    assert!(
        until(60, || arrived() >= at),
        "{} of {at} events",
        arrived()
    );
    child.signal("TERM");
    assert_eq!(child.code(120), Some(0), "{}", log_text(dir));
    until(30, || arrived() >= written());
    assert!(
        log_text(dir).contains("events of an earlier run"),
        "{}",
        log_text(dir)
    );
    assert_complete(dir, &events(dir));
    let all = complete_lines(&dir.join("out.jsonl"));
    assert_eq!(
        all.iter()
            .map(|e| e["run"].to_string())
            .collect::<BTreeSet<_>>()
            .len(),
        3
    );
    assert_eq!(
        all.iter().map(key).collect::<BTreeSet<_>>().len(),
        all.len(),
        "an event is in the file twice"
    );
}

#[test]
fn tls_and_password_are_used_and_a_wrong_password_is_logged() {
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
        eprintln!("SKIPPED: openssl is not installed");
        return;
    }
    if Command::new("mosquitto_passwd")
        .args(["-b", "-c", &path("users"), "tracker", "secret-word"])
        .output()
        .is_err()
    {
        eprintln!("SKIPPED: mosquitto is not installed (Debian: mosquitto mosquitto-clients)");
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
        "[mqtt]\nbroker = \"mqtts://127.0.0.1:{port}\"\nuser = \"tracker\"\n\
         password_file = \"{}\"\nca_file = \"{}\"\n",
        path("password"),
        path("ca.pem")
    );
    let file = cameras(dir, &tls);
    let child = serve(dir, &file);
    assert!(
        until(30, || log_text(dir).contains("NotAuthorized")),
        "{}",
        log_text(dir)
    );
    drop(child);
    std::fs::write(dir.join("password"), "secret-word\n").unwrap();
    let mut child = serve(dir, &file);
    assert!(until(60, || events(dir).len() > 30), "{}", log_text(dir));
    child.signal("TERM");
    assert_eq!(child.code(120), Some(0), "{}", log_text(dir));
    assert!(!log_text(dir).contains("secret-word") && !log_text(dir).contains("wrong-word"));
}

/// A webhook receiver that records all POSTs.
struct Receiver {
    port: u16,
    /// Whether it accepts POSTs (204) or is unavailable (503).
    accepts: Arc<AtomicBool>,
    posts: Arc<Mutex<Vec<Post>>>,
}

/// Timestamp, signature, body, accepted.
type Post = (String, String, String, bool);

fn receiver() -> Receiver {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let r = Receiver {
        port: listener.local_addr().unwrap().port(),
        accepts: Arc::new(AtomicBool::new(false)),
        posts: Arc::default(),
    };
    let (accepts, posts) = (r.accepts.clone(), r.posts.clone());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (accepts, posts) = (accepts.clone(), posts.clone());
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
                    let accepted = accepts.load(Ordering::Relaxed);
                    let field = |k: &str| fields.get(k).cloned().unwrap_or_default();
                    posts.lock().unwrap().push((
                        field("x-twintrack-timestamp"),
                        field("x-twintrack-signature"),
                        String::from_utf8(body).unwrap(),
                        accepted,
                    ));
                    let response: &[u8] = if accepted {
                        b"HTTP/1.1 204 No Content\r\n\r\n"
                    } else {
                        b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
                    };
                    reader.get_mut().write_all(response).unwrap();
                }
            });
        }
    });
    r
}

/// The receiver is unavailable at first. At the end it has received all events of the configured
/// kinds.
#[test]
fn a_webhook_receives_every_event_with_a_valid_signature() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let r = receiver();
    let hook = format!(
        "[webhook]\nurl = \"http://127.0.0.1:{}/events\"\nsecret = \"shared-word\"\n\
         events = [\"track_ended\", \"camera_status\"]\n",
        r.port
    );
    let file = cameras(dir, &hook);
    let mut child = serve(dir, &file);
    assert!(
        until(60, || !r.posts.lock().unwrap().is_empty()),
        "{}",
        log_text(dir)
    );
    r.accepts.store(true, Ordering::Relaxed);
    let accepted = || r.posts.lock().unwrap().iter().any(|p| p.3);
    assert!(until(60, accepted), "{}", log_text(dir));
    assert!(
        until(60, || complete_lines(&dir.join("out.jsonl")).len() > 60),
        "{}",
        log_text(dir)
    );
    child.signal("TERM");
    assert_eq!(child.code(120), Some(0), "{}", log_text(dir));
    let posts = r.posts.lock().unwrap().clone();
    let accepted: Vec<Value> = posts
        .iter()
        .filter(|p| p.3)
        .flat_map(|p| common::json_lines(&p.2))
        .collect();
    let wanted: BTreeSet<Key> = complete_lines(&dir.join("out.jsonl"))
        .iter()
        .filter(|e| e["schema"] != "twintrack.trajectory/1")
        .map(key)
        .collect();
    assert_eq!(accepted.iter().map(key).collect::<BTreeSet<_>>(), wanted);
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
    assert!(!log_text(dir).contains("shared-word"));
}

#[test]
fn invalid_settings_of_receivers_are_rejected_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for (more, want) in [
        ("[mqtt]\nbroker = \"somewhere\"", "mqtt://host:1883"),
        ("[mqtt]\nbroker = \"mqtt://u:p@h\"", "holds credentials"),
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
        assert_eq!(child.code(30), Some(1), "{more}: {}", log_text(dir));
        assert!(log_text(dir).contains(want), "{more}: {}", log_text(dir));
    }
}

/// Retained messages of a broker that arrive within 10 s: topic and text.
fn retained(port: u16, topics: &[&str]) -> BTreeMap<String, String> {
    let mut command = Command::new("mosquitto_sub");
    command.args([
        "-h",
        "127.0.0.1",
        "-p",
        &port.to_string(),
        "-W",
        "10",
        "-F",
        "%r\t%t\t%p",
    ]);
    for topic in topics {
        command.args(["-t", topic]);
    }
    let output = common::text(&command.output().unwrap().stdout);
    let message = |line: &str| {
        let (topic, text) = line.strip_prefix("1\t")?.split_once('\t')?;
        Some((topic.to_string(), text.to_string()))
    };
    output.lines().filter_map(message).collect()
}

#[test]
fn home_assistant_finds_zones_and_lines_and_forgets_those_that_are_gone() {
    let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
    let dir = dir.path();
    let Some(_broker) = broker(dir, port, "allow_anonymous true") else {
        return;
    };
    let file = dir.join("cameras.toml");
    let write = |shapes: &str| {
        let text = format!(
            "{NO_PAGE}state_dir = \"state\"\n[detector]\nsize = \"416x320\"\n\
             [mqtt]\nbroker = \"mqtt://127.0.0.1:{port}\"\nhome_assistant = \"homeassistant\"\n\
             [cameras.gate]\nurl = {:?}\nrepeat = true\nrealtime = false\n{shapes}",
            common::clip()
        );
        std::fs::write(&file, text).unwrap();
    };
    let line = "[cameras.gate.lines.diagonal]\npoints = [[200, 150], [560, 560]]\n";
    let zone = "[cameras.gate.zones.whole]\npoints = [[0, 0], [1, 0], [1, 1], [0, 1]]\n";
    write(&format!("{line}{zone}"));
    let mut child = Running::start(
        twintrack()
            .current_dir(dir)
            .args(["serve", "--config", "cameras.toml", "--output", "out.jsonl"])
            .stderr(std::fs::File::create(dir.join("log")).unwrap()),
    );
    let all = [
        "homeassistant/#",
        "twintrack/+/zones/#",
        "twintrack/+/lines/#",
    ];
    let states = [
        "twintrack/gate/zones/whole",
        "twintrack/gate/lines/diagonal",
    ];
    let sensor = |name: &str| format!("homeassistant/sensor/twintrack_gate/{name}/config");
    let names = [
        "zone_whole_occupancy",
        "zone_whole_entered",
        "zone_whole_left",
        "line_diagonal_in",
        "line_diagonal_out",
    ];
    let connection = "homeassistant/binary_sensor/twintrack_gate/connection/config";
    let mut found = BTreeMap::new();
    let is_complete = until(120, || {
        found = retained(port, &all);
        states.iter().all(|t| found.contains_key(*t))
            && names.iter().all(|n| found.contains_key(&sensor(n)))
            && found.contains_key(connection)
    });
    assert!(is_complete, "{found:?}\n{}", log_text(dir));
    for name in names {
        let config: Value = serde_json::from_str(&found[&sensor(name)]).unwrap();
        let state = config["state_topic"].as_str().unwrap();
        let field = name.rsplit('_').next().unwrap();
        assert_eq!(
            config["value_template"],
            format!("{{{{ value_json['{field}'] }}}}")
        );
        let event: Value = serde_json::from_str(&found[state]).unwrap();
        assert!(event[field].is_u64(), "{name}: {event}");
    }

    write(zone);
    child.signal("HUP");
    assert!(
        until(120, || {
            let found = retained(port, &all);
            !found.contains_key(&sensor("line_diagonal_in"))
                && found.contains_key(&sensor("zone_whole_occupancy"))
        }),
        "{}",
        log_text(dir)
    );
    child.signal("TERM");
    assert_eq!(child.code(60), Some(0), "{}", log_text(dir));
}

#[test]
fn home_assistant_needs_the_events_that_it_reads() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cameras.toml");
    let text = format!(
        "[cameras.a]\nurl = {:?}\n[mqtt]\nbroker = \"mqtt://127.0.0.1:1\"\n\
         home_assistant = \"homeassistant\"\nevents = [\"zone\", \"camera_status\"]\n",
        clip()
    );
    std::fs::write(&file, text).unwrap();
    let out = twintrack()
        .args(["serve", "--check", "--config"])
        .arg(&file)
        .output()
        .unwrap();
    let message = common::text(&out.stderr);
    assert!(
        !out.status.success() && message.contains("of the kind line"),
        "{message}"
    );
}
