//! A real MQTT broker and a real subscriber, where mosquitto is installed.
#![allow(dead_code, reason = "each test program uses a part")]

use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::{Running, until};

/// A broker that keeps its clients' sessions on disk.
pub fn broker(dir: &Path, port: u16, more: &str) -> Option<Running> {
    if Command::new("mosquitto").arg("-h").output().is_err()
        || Command::new("mosquitto_sub")
            .arg("--help")
            .output()
            .is_err()
    {
        eprintln!("SKIPPED: no mosquitto here (Debian: mosquitto mosquitto-clients)");
        return None;
    }
    let config = dir.join("mosquitto.conf");
    let store = dir.join("broker");
    std::fs::create_dir_all(&store).expect("done");
    // As root mosquitto becomes another user, who may not write here.
    let text = format!(
        "listener {port} 127.0.0.1\nuser root\npersistence true\npersistence_location {}/\nmax_queued_messages 100000\n{more}\n",
        store.display()
    );
    std::fs::write(&config, text).expect("done");
    let running = Running::start(
        Command::new("mosquitto")
            .arg("-c")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null()),
    );
    assert!(
        until(10, || TcpStream::connect(("127.0.0.1", port)).is_ok()),
        "mosquitto does not begin"
    );
    Some(running)
}

/// A subscriber whose session the broker keeps; a line a message: retained or not, topic, text.
pub fn subscriber(dir: &Path, port: u16, more: &[&str]) -> Running {
    let out = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(dir.join("heard"))
        .expect("done");
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
    Running::start(
        Command::new("mosquitto_sub")
            .args(all)
            .args(more)
            .stdout(out)
            .stderr(Stdio::null()),
    )
}

/// Every message that the subscriber has heard: retained or not, topic, text.
pub fn heard(dir: &Path) -> Vec<(bool, String, String)> {
    let text = std::fs::read_to_string(dir.join("heard")).unwrap_or_default();
    let whole = &text[..text.rfind('\n').map_or(0, |at| at + 1)];
    whole
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
