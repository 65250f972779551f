//! A mosquitto broker and subscriber, if mosquitto is installed.
#![allow(dead_code, reason = "each test program uses a part")]

use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::{Running, until};

/// Starts a broker that stores its clients' sessions on disk. None, with a message, if mosquitto is
/// not installed.
pub fn broker(dir: &Path, port: u16, more: &str) -> Option<Running> {
    if Command::new("mosquitto").arg("-h").output().is_err()
        || Command::new("mosquitto_sub")
            .arg("--help")
            .output()
            .is_err()
    {
        eprintln!("SKIPPED: mosquitto is not installed (Debian: mosquitto mosquitto-clients)");
        return None;
    }
    let config = dir.join("mosquitto.conf");
    let store = dir.join("broker");
    std::fs::create_dir_all(&store).expect("created");
    // Without `user root`, a mosquitto that root starts changes to a user who cannot write here.
    let text = format!(
        "listener {port} 127.0.0.1\nuser root\npersistence true\npersistence_location {}/\n\
         max_queued_messages 100000\n{more}\n",
        store.display()
    );
    std::fs::write(&config, text).expect("written");
    let running = Running::start(
        Command::new("mosquitto")
            .arg("-c")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null()),
    );
    assert!(
        until(10, || TcpStream::connect(("127.0.0.1", port)).is_ok()),
        "mosquitto did not start"
    );
    Some(running)
}

/// Starts a subscriber with a persistent session, and waits until the broker has its subscription.
/// The subscriber writes a line per message: retained (1 or 0), topic, text.
pub fn subscriber(dir: &Path, port: u16, more: &[&str]) -> Running {
    let out = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(dir.join("received"))
        .expect("opened");
    let port = port.to_string();
    let all = [
        "-h",
        "127.0.0.1",
        "-p",
        &port,
        "-i",
        "test",
        "-c",
        "-q",
        "1",
        "-t",
        "twintrack/#",
        "-F",
        "%r\t%t\t%p",
    ];
    // With -d mosquitto_sub writes a line when the broker has acknowledged the subscription;
    // without stdbuf the line would stay in the output buffer.
    let subscriptions = || {
        std::fs::read_to_string(dir.join("received"))
            .map_or(0, |t| t.matches("Subscribed (").count())
    };
    let before = subscriptions();
    let running = Running::start(
        Command::new("stdbuf")
            .args(["-oL", "mosquitto_sub"])
            .args(all)
            .args(more)
            .arg("-d")
            .stdout(out)
            .stderr(Stdio::null()),
    );
    assert!(
        until(30, || subscriptions() > before),
        "mosquitto_sub could not subscribe"
    );
    running
}

/// The messages that the subscriber has received so far: retained, topic, text.
pub fn received(dir: &Path) -> Vec<(bool, String, String)> {
    let text = std::fs::read_to_string(dir.join("received")).unwrap_or_default();
    let complete = &text[..text.rfind('\n').map_or(0, |at| at + 1)];
    complete
        .lines()
        .filter_map(|l| {
            l.splitn(3, '\t')
                .map(String::from)
                .collect::<Vec<_>>()
                .try_into()
                .ok()
        })
        .map(|[r, t, p]: [String; 3]| (r == "1", t, p))
        .collect()
}
