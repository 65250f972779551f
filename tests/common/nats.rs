//! A NATS server, if nats-server is installed, and a client that speaks the protocol's text.
#![allow(dead_code, reason = "each test program uses a part")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::common::{Running, until};

/// Starts a server with JetStream, whose streams are in `dir`, and these settings. None, with a
/// message, if nats-server is not installed.
pub fn server(dir: &Path, port: u16, settings: &str) -> Option<Running> {
    if Command::new("nats-server")
        .arg("--version")
        .output()
        .is_err()
    {
        eprintln!("SKIPPED: nats-server is not installed (`make setup-test` installs it)");
        return None;
    }
    let config = dir.join("nats.conf");
    let store = dir.join("jetstream");
    let text = format!(
        "listen: \"127.0.0.1:{port}\"\njetstream {{ store_dir: {:?} }}\n{settings}\n",
        store.display().to_string()
    );
    std::fs::write(&config, text).expect("written");
    let running = Running::start(
        Command::new("nats-server")
            .arg("-c")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(dir.join("nats.log")).expect("created")),
    );
    assert!(
        until(20, || TcpStream::connect(("127.0.0.1", port)).is_ok()),
        "nats-server did not start: {:?}",
        std::fs::read_to_string(dir.join("nats.log"))
    );
    Some(running)
}

/// A received message.
#[derive(Debug, Clone)]
pub struct Message {
    pub subject: String,
    pub headers: String,
    pub body: Vec<u8>,
}

impl Message {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }
}

/// Longest wait for a line of the server. It only passes where a test fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// A client.
pub struct Client(BufReader<TcpStream>);

impl Client {
    /// Connects with the fields of CONNECT, such as user and password, and these subscriptions.
    pub fn connect(port: u16, login: &Value, subscriptions: &[&str]) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        stream.set_write_timeout(Some(PATIENCE)).expect("set");
        let mut client = Client(BufReader::new(stream));
        let mut options = json!({"verbose": false, "headers": true});
        for (key, value) in login.as_object().expect("fields") {
            options[key] = value.clone();
        }
        let mut text = format!("CONNECT {options}\r\n");
        for (i, subject) in subscriptions.iter().enumerate() {
            text += &format!("SUB {subject} {}\r\n", i + 1);
        }
        client.send(&format!("{text}PING\r\n"));
        loop {
            let line = client.line().expect("an answer");
            assert!(!line.starts_with("-ERR"), "{line}");
            if line == "PONG" {
                return client;
            }
        }
    }

    fn send(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).expect("sent");
    }

    /// The next line; None after [`PATIENCE`] without one.
    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.0.read_line(&mut line) {
            Ok(n) if n > 0 => Some(line.trim_end().to_string()),
            _ => None,
        }
    }

    /// The next message; None after [`PATIENCE`] without one.
    pub fn next(&mut self) -> Option<Message> {
        loop {
            let line = self.line()?;
            let words: Vec<&str> = line.split(' ').collect();
            let size = |at: usize| words[words.len() - at].parse::<usize>().expect("a size");
            let (header_bytes, bytes) = match words[0] {
                "PING" => {
                    self.send("PONG\r\n");
                    continue;
                }
                "MSG" => (0, size(1)),
                "HMSG" => (size(2), size(1)),
                _ => continue,
            };
            let mut all = vec![0; bytes + 2];
            self.0.read_exact(&mut all).expect("a message");
            all.truncate(bytes);
            let body = all.split_off(header_bytes);
            return Some(Message {
                subject: words[1].into(),
                headers: String::from_utf8(all).expect("text"),
                body,
            });
        }
    }

    /// Receives messages until there are `enough` or [`PATIENCE`] passes without one.
    pub fn drain(&mut self, enough: usize) -> Vec<Message> {
        let mut all = Vec::new();
        while all.len() < enough
            && let Some(message) = self.next()
        {
            all.push(message);
        }
        all
    }
}

/// Publishes a message.
pub fn publish(port: u16, subject: &str, body: &str) {
    let mut client = Client::connect(port, &json!({}), &[]);
    let length = body.len();
    client.send(&format!("PUB {subject} {length}\r\n{body}\r\nPING\r\n"));
    assert!(until(20, || client.line().as_deref() == Some("PONG")));
}

/// A request to JetStream's API.
fn jetstream(port: u16, login: &Value, request: &str, body: &Value) -> Value {
    let mut client = Client::connect(port, login, &["answer"]);
    let body = body.to_string();
    let (length, subject) = (body.len(), format!("$JS.API.{request}"));
    client.send(&format!("PUB {subject} answer {length}\r\n{body}\r\n"));
    let answer = client.drain(1).pop().expect("JetStream answers").json();
    assert!(answer["error"].is_null(), "{request}: {answer}");
    answer
}

/// Creates the stream EVENTS for the subjects `twintrack.>`.
pub fn create_stream(port: u16, login: &Value, more: &Value) {
    request_stream(port, login, "CREATE", more);
}

fn request_stream(port: u16, login: &Value, what: &str, more: &Value) {
    let mut config = json!({
        "name": "EVENTS", "subjects": ["twintrack.>"], "storage": "file",
        "retention": "limits", "discard": "old", "num_replicas": 1,
        "duplicate_window": 120_000_000_000_u64,
    });
    for (key, value) in more.as_object().expect("fields") {
        config[key] = value.clone();
    }
    jetstream(port, login, &format!("STREAM.{what}.EVENTS"), &config);
}

/// The number of messages in the stream EVENTS.
pub fn stored(port: u16, login: &Value) -> u64 {
    stored_in(port, login, "EVENTS")
}

fn stored_in(port: u16, login: &Value, stream: &str) -> u64 {
    let info = jetstream(port, login, &format!("STREAM.INFO.{stream}"), &json!({}));
    info["state"]["messages"].as_u64().expect("a number")
}

/// All messages of the stream EVENTS, in order.
pub fn read_stream(port: u16, login: &Value) -> Vec<Message> {
    read_stream_named(port, login, "EVENTS")
}

/// All messages of a stream, in order.
pub fn read_stream_named(port: u16, login: &Value, stream: &str) -> Vec<Message> {
    static READERS: AtomicUsize = AtomicUsize::new(0);
    let count = stored_in(port, login, stream) as usize;
    // A subject of its own: the consumer of an earlier call lives on for some seconds.
    let subject = format!("reader.{}", READERS.fetch_add(1, Ordering::Relaxed));
    let mut reader = Client::connect(port, login, &[&subject]);
    let config = json!({"stream_name": stream, "config": {
        "deliver_subject": subject, "ack_policy": "none", "deliver_policy": "all",
        "max_deliver": -1,
    }});
    jetstream(port, login, &format!("CONSUMER.CREATE.{stream}"), &config);
    let all = reader.drain(count);
    assert_eq!(all.len(), count, "messages of the stream {stream}");
    all
}

/// Changes the stream EVENTS.
pub fn update_stream(port: u16, login: &Value, more: &Value) {
    request_stream(port, login, "UPDATE", more);
}
