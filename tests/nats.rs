//! The NATS sink against a real server: order, repetitions, outages, logins, refusals.
#![cfg(feature = "serve")]
#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;
#[path = "common/nats.rs"]
mod nats;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::{NO_PAGE, Running, clip, complete_lines, free_port, twintrack, until};
use nats::{Client, create_stream, read_stream, server, stored};
use serde_json::{Value, json};
use twintrack::secret::Secret;
use twintrack::sink::Sink as _;
use twintrack::sink::delivery::SpoolSink;
use twintrack::sink::nats::NatsConfig;
use twintrack::sink::spool::{Spool, SpoolLimits};
use twintrack::trajectory::EventKind;

/// Settings for a server on `port`.
fn settings(port: u16) -> NatsConfig {
    NatsConfig::default().with_url(format!("nats://127.0.0.1:{port}"))
}

/// A sink and its spool.
struct Delivery {
    spool: Arc<Spool>,
    sink: SpoolSink,
    pushed: u64,
}

impl Delivery {
    fn start(dir: &Path, config: &NatsConfig) -> Self {
        Self::start_with(dir, config, Duration::from_secs(30))
    }

    fn start_with(dir: &Path, config: &NatsConfig, shutdown_timeout: Duration) -> Self {
        let spool = Spool::open(dir, "nats", SpoolLimits::default()).unwrap();
        let sink = config.start(spool.clone(), shutdown_timeout).unwrap();
        Delivery {
            spool,
            sink,
            pushed: 0,
        }
    }

    /// Spools `count` more events, of two cameras in turn, with the next sequence numbers.
    fn push(&mut self, count: u64) {
        for seq in self.pushed..self.pushed + count {
            let camera = ["gate-1", "gate.2"][(seq % 2) as usize];
            let body = json!({"run": "r", "camera": camera, "seq": seq}).to_string();
            let kind = [EventKind::Trajectory, EventKind::TrackEnded][(seq % 3 / 2) as usize];
            self.spool.push(kind, camera, body.as_bytes());
        }
        self.pushed += count;
    }

    fn delivered(&self) -> u64 {
        self.spool.counts.delivered.load(Ordering::Relaxed)
    }

    fn refused(&self) -> u64 {
        self.spool.counts.refused.load(Ordering::Relaxed)
    }

    /// Waits until the spool is empty.
    fn settle(&self) {
        let done = until(60, || self.spool.is_empty());
        assert!(done, "{:?}", self.spool.counts);
    }
}

fn seq(event: &Value) -> u64 {
    event["seq"].as_u64().unwrap()
}

/// The dead letters: sequence number of the event, and reason.
fn dead_letters(dir: &Path) -> Vec<(u64, String)> {
    complete_lines(&dir.join("nats.refused.jsonl"))
        .iter()
        .map(|l| (seq(&l["event"]), l["reason"].as_str().unwrap().to_string()))
        .collect()
}

/// Regression guard for order and repetition: the server is killed twice while events are under
/// way. At the end the stream has every event once, in the order of the spool.
#[test]
fn a_stream_has_every_event_once_and_in_order_after_kills_of_the_server() {
    let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
    let dir = dir.path();
    let Some(mut running) = server(dir, port, "") else {
        return;
    };
    create_stream(port, &json!({}), &json!({}));
    let config = settings(port).with_stream(Some("EVENTS".into()));
    let mut delivery = Delivery::start(dir, &config);
    for _ in 0..2 {
        delivery.push(3000);
        let at = delivery.delivered() + 200;
        assert!(until(60, || delivery.delivered() >= at));
        running.signal("KILL");
        running.code(10);
        assert!(until(60, || {
            delivery.spool.counts.failures.load(Ordering::Relaxed) > 0
        }));
        running = server(dir, port, "").unwrap();
    }
    delivery.settle();
    assert_eq!(delivery.delivered(), 6000);
    let messages = read_stream(port, &json!({}));
    let seqs: Vec<u64> = messages.iter().map(|m| seq(&m.json())).collect();
    assert_eq!(seqs, (0..6000).collect::<Vec<u64>>());
    let ids: BTreeSet<&str> = messages.iter().map(|m| m.headers.as_str()).collect();
    assert_eq!(ids.len(), 6000, "every event has an id of its own");
    let third = &messages[2];
    assert_eq!(third.subject, "twintrack.gate-1.track_ended");
    assert!(
        third
            .headers
            .contains("Nats-Msg-Id: r.gate-1.track_ended.2\r\n"),
        "{}",
        third.headers
    );
    assert_eq!(messages[1].subject, "twintrack.gate%2E2.trajectory");
}

/// Without a stream, a subscriber receives every event under its subject.
#[test]
fn a_subscriber_receives_every_event_in_order_without_a_stream() {
    let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
    let dir = dir.path();
    let Some(_server) = server(dir, port, "") else {
        return;
    };
    let mut subscriber = Client::connect(port, &json!({}), &["plant.cameras.*.*"]);
    let config = settings(port).with_subject("plant.cameras".into());
    let mut delivery = Delivery::start(dir, &config);
    delivery.push(500);
    delivery.settle();
    let messages = subscriber.drain(500);
    let seqs: Vec<u64> = messages.iter().map(|m| seq(&m.json())).collect();
    assert_eq!(seqs, (0..500).collect::<Vec<u64>>());
    assert_eq!(messages[0].subject, "plant.cameras.gate-1.trajectory");
    // At shutdown, what is on the spool is delivered first.
    delivery.push(100);
    delivery.sink.finish().unwrap();
    assert_eq!(
        (delivery.delivered(), subscriber.drain(100).len()),
        (600, 100)
    );
}

/// A stream that is full stores nothing; a stream that does not exist neither. The events wait.
#[test]
fn events_wait_while_no_stream_stores_them() {
    let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
    let dir = dir.path();
    let Some(_server) = server(dir, port, "") else {
        return;
    };
    let config = settings(port).with_stream(Some("EVENTS".into()));
    let mut delivery = Delivery::start(dir, &config);
    delivery.push(10);
    let failures = || delivery.spool.counts.failures.load(Ordering::Relaxed);
    assert!(until(30, || failures() > 1), "{:?}", delivery.spool.counts);
    assert_eq!(delivery.delivered(), 0);
    let full = json!({"max_msgs": 4, "discard": "new", "storage": "memory", "max_msg_size": 300});
    create_stream(port, &json!({}), &full);
    assert!(until(30, || delivery.delivered() == 4));
    let before = failures();
    assert!(until(30, || failures() > before + 1));
    assert_eq!((delivery.delivered(), delivery.refused()), (4, 0));
    let large = json!({"run": "r", "camera": "gate-1", "seq": 10, "more": "x".repeat(400)});
    let text = large.to_string();
    let end = EventKind::TrackEnded;
    delivery.spool.push(end, "gate-1", text.as_bytes());
    let free = json!({"max_msgs": -1, "max_msg_size": 300, "discard": "new", "storage": "memory"});
    nats::update_stream(port, &json!({}), &free);
    delivery.settle();
    assert_eq!((delivery.delivered(), stored(port, &json!({}))), (10, 10));
    let letters = dead_letters(dir);
    assert!(
        letters.len() == 1 && letters[0].0 == 10 && letters[0].1.contains("size"),
        "{letters:?}"
    );
}

/// A user who may not publish all subjects, and a server with a small limit of messages.
#[test]
fn events_that_the_server_refuses_go_to_the_dead_letter_file() {
    let login = json!({"user": "reader", "pass": "reads"});
    let rules = "max_payload: 4096\nauthorization { users: [\n\
        { user: tracker, password: tracks, permissions: { publish: { \
          allow: [\"twintrack.*.trajectory\", \"_INBOX.>\"] } } },\n\
        { user: reader, password: reads } ] }";
    for stream in [None, Some("EVENTS".to_string())] {
        let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
        let dir = dir.path();
        let Some(_server) = server(dir, port, rules) else {
            return;
        };
        create_stream(port, &login, &json!({}));
        let config = settings(port)
            .with_user(Some("tracker".into()))
            .with_password(Some(Secret::new("tracks")))
            .with_stream(stream);
        let mut delivery = Delivery::start(dir, &config);
        let large = json!({"run": "r", "camera": "gate-1", "seq": 99, "more": "x".repeat(5000)});
        let large = large.to_string();
        let kind = EventKind::Trajectory;
        delivery.spool.push(kind, "gate-1", large.as_bytes());
        delivery.push(30);
        delivery.settle();
        let letters = dead_letters(dir);
        let refused: BTreeSet<u64> = letters.iter().map(|(seq, _)| *seq).collect();
        let wanted: BTreeSet<u64> = (0..30).filter(|s| s % 3 == 2).chain([99]).collect();
        assert_eq!(refused, wanted, "{letters:?}");
        let reason = |of: u64| {
            letters
                .iter()
                .find(|(seq, _)| *seq == of)
                .unwrap()
                .1
                .clone()
        };
        assert!(
            reason(99).contains("accepts at most 4096"),
            "{}",
            reason(99)
        );
        assert!(reason(2).contains("forbids the subject"), "{}", reason(2));
        assert_eq!(stored(port, &login), 20);
    }
}

/// Every way to log in, and TLS. With wrong credentials or another CA nothing is delivered.
#[test]
fn logins_and_certificates_are_used() {
    let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
    let dir = dir.path();
    let write_pair = |name: &str| {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_string()]).unwrap();
        let (key, pem) = (made.signing_key.serialize_pem(), made.cert.pem());
        std::fs::write(dir.join(format!("{name}.key")), key).unwrap();
        std::fs::write(dir.join(format!("{name}.pem")), pem).unwrap();
        dir.join(format!("{name}.pem"))
    };
    let (right, other) = (write_pair("server"), write_pair("other"));
    // The pair of keys of the documentation of NATS.
    let public = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";
    let seed = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY";
    let rules = format!(
        "allow_non_tls: true\ntls {{ cert_file: {right:?}, key_file: {:?} }}\n\
         authorization {{ users: [ {{ user: tracker, password: \"secret word\" }}, \
         {{ nkey: {public} }} ] }}",
        dir.join("server.key")
    );
    let login = json!({"user": "tracker", "pass": "secret word"});
    let Some(_server) = server(dir, port, &rules) else {
        return;
    };
    create_stream(port, &login, &json!({}));
    let base = NatsConfig::default()
        .with_url(format!("tls://127.0.0.1:{port}"))
        .with_stream(Some("EVENTS".into()))
        .with_ca_file(Some(right));
    let file = dir.join("seed");
    std::fs::write(&file, format!("{seed}\nmore\n")).unwrap();
    let with_user = base.clone().with_user(Some("tracker".into()));
    let right_word = with_user
        .clone()
        .with_password(Some(Secret::new("secret word")));
    let by_nkey = base.clone().with_nkey_file(Some(file));
    let wrong = [
        with_user.with_password(Some(Secret::new("wrong word"))),
        base.with_token(Some(Secret::new("token"))),
        right_word.clone().with_ca_file(Some(other)),
    ];
    for (i, config) in wrong.iter().enumerate() {
        let state = dir.join(i.to_string());
        let mut delivery = Delivery::start_with(&state, config, Duration::ZERO);
        delivery.push(5);
        let failures = || delivery.spool.counts.failures.load(Ordering::Relaxed);
        assert!(until(30, || failures() > 1), "{i}");
        assert_eq!(delivery.delivered(), 0, "{i}");
    }
    assert_eq!(stored(port, &login), 0);
    let mut delivery = Delivery::start(&dir.join("word"), &right_word);
    delivery.push(5);
    delivery.settle();
    assert_eq!((delivery.delivered(), stored(port, &login)), (5, 5));
    // The same events again, over another login: the stream recognises them.
    let mut delivery = Delivery::start(&dir.join("nkey"), &by_nkey);
    delivery.push(7);
    delivery.settle();
    assert_eq!((delivery.delivered(), stored(port, &login)), (7, 7));
}

#[test]
fn invalid_settings_are_rejected() {
    let valid = || NatsConfig::default().with_url("nats://h".into());
    valid().check().unwrap();
    valid()
        .with_url("tls://a:1, nats://b".into())
        .check()
        .unwrap();
    let text = |s: &str| Some(s.to_string());
    for (config, wanted) in [
        (NatsConfig::default(), "nats://"),
        (valid().with_url("http://h".into()), "nats://"),
        (
            valid().with_url("nats://u:word@h".into()),
            "holds credentials",
        ),
        (valid().with_url("nats://h:99999".into()), "not an address"),
        (valid().with_subject("a..b".into()), "subject"),
        (valid().with_subject("a.>".into()), "subject"),
        (valid().with_stream(text("a.b")), "stream"),
        (valid().with_stream(text("")), "stream"),
        (
            valid().with_ca_file(Some("/no/such/ca".into())),
            "/no/such/ca",
        ),
        (
            valid().with_key_file(Some("/no/such/key".into())),
            "together",
        ),
        (valid().with_password(Some(Secret::new("word"))), "user"),
        (
            valid().with_password_env(text("TWINTRACK_NO_SUCH")),
            "TWINTRACK_NO_SUCH",
        ),
        (
            valid()
                .with_user(text("u"))
                .with_token(Some(Secret::new("t"))),
            "only one of",
        ),
        (
            valid().with_credentials_file(Some("/no/such/creds".into())),
            "/no/such/creds",
        ),
    ] {
        let error = config.check().unwrap_err().to_string();
        assert!(error.contains(wanted) && error.contains("nats"), "{error}");
        assert!(!error.contains("word@"), "{error}");
    }
}

/// Starts `serve` with two cameras that repeat the clip. `stop_within`: how many seconds events are
/// delivered at the end.
fn serve(dir: &Path, port: u16, stop_within: u32, more: &str) -> Running {
    let camera = |name: &str| {
        let url = clip().display().to_string();
        format!("[cameras.{name}]\nurl = {url:?}\nrepeat = true\n")
    };
    let text = format!(
        "{NO_PAGE}state_dir = \"state\"\nstop_within = {stop_within}\n\
         [detector]\nsize = \"416x320\"\n{}{}\
         [nats]\nurl = \"nats://127.0.0.1:{port}\"\nstream = \"EVENTS\"\n{more}",
        camera("gate-1"),
        camera("gate-2")
    );
    std::fs::write(dir.join("cameras.toml"), text).unwrap();
    Running::start(
        twintrack()
            .current_dir(dir)
            .args(["serve", "--config", "cameras.toml", "--output", "out.jsonl"])
            .stderr(std::fs::File::create(dir.join("log")).unwrap()),
    )
}

/// Regression: the client's library logged every attempt.
#[test]
fn a_wrong_password_is_one_line_of_the_log() {
    let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
    let dir = dir.path();
    let rules = "authorization { user: tracker, password: tracks }";
    let Some(_server) = server(dir, port, rules) else {
        return;
    };
    let login = "user = \"tracker\"\npassword = \"wrong word\"\n";
    let mut child = serve(dir, port, 5, login);
    let attempts = || {
        let log = std::fs::read_to_string(dir.join("nats.log")).unwrap();
        log.matches("authentication error").count()
    };
    assert!(until(60, || attempts() > 3));
    child.signal("TERM");
    assert_eq!(child.code(60), Some(0));
    let log = std::fs::read_to_string(dir.join("log")).unwrap();
    let lines: Vec<&str> = log.lines().filter(|l| l.contains("nats")).collect();
    // On a busy machine two lines say that events stay: of the delivery, and of who waits for it.
    assert!(
        (2..=3).contains(&lines.len())
            && lines[0].contains("the server refuses the login")
            && lines[1].contains("stay on disk"),
        "{log}"
    );
    assert!(
        !log.contains("wrong word") && !log.contains("ERROR"),
        "{log}"
    );
}

/// `serve` with two cameras: every event of the file is in the stream, although the server was
/// killed in the middle; an outage is one line of the log.
#[test]
fn a_stream_has_every_event_of_a_service() {
    let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
    let dir = dir.path();
    let Some(mut first) = server(dir, port, "") else {
        return;
    };
    create_stream(port, &json!({}), &json!({}));
    let mut child = serve(dir, port, 60, "");
    let log = || std::fs::read_to_string(dir.join("log")).unwrap();
    let written = || complete_lines(&dir.join("out.jsonl"));
    assert!(until(60, || stored(port, &json!({})) > 30), "{}", log());
    first.signal("KILL");
    first.code(10);
    let at = written().len();
    assert!(until(120, || written().len() > at + 40), "{}", log());
    let _second = server(dir, port, "").unwrap();
    let behind = || (stored(port, &json!({})) as usize) < at + 40;
    assert!(until(60, || !behind()), "{}", log());
    child.signal("TERM");
    assert_eq!(child.code(120), Some(0), "{}", log());
    let messages = read_stream(port, &json!({}));
    let sent: BTreeSet<String> = written().iter().map(Value::to_string).collect();
    let arrived: Vec<Value> = messages.iter().map(nats::Message::json).collect();
    let distinct: BTreeSet<String> = arrived.iter().map(Value::to_string).collect();
    assert_eq!(distinct.len(), arrived.len(), "an event is stored twice");
    assert!(sent.is_subset(&distinct), "{}", log());
    let mut last = BTreeMap::<String, u64>::new();
    for event in arrived.iter().filter(|e| e["seq"].is_u64()) {
        let before = last.insert(event["camera"].to_string(), seq(event));
        assert!(before.is_none_or(|before| before < seq(event)), "{event}");
    }
    let lines = log()
        .matches("the NATS server does not accept events")
        .count();
    assert!((1..=2).contains(&lines), "{lines} lines: {}", log());
}
