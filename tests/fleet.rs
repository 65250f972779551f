//! A small fleet on one NATS server: takeover of a killed worker's cameras, a worker that was
//! stopped and goes on, orderly handover, the records of cameras.
#![cfg(feature = "serve")]
#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;
#[path = "common/fleet.rs"]
mod fleet_workers;
#[path = "common/nats.rs"]
mod nats;

use std::collections::BTreeMap;
use std::path::Path;

use common::{free_port, run, text, twintrack, until};
use fleet_workers::{Findings, FleetWorker, cameras, check, fleet, held, worker_settings};
use nats::{read_stream_named, server};
use serde_json::{Value, json};

/// Two workers and their server.
struct Pair {
    url: String,
    port: u16,
    _server: common::Running,
    workers: [FleetWorker; 2],
}

/// Starts workers `a` and `b` with `count` cameras between them; returns when each has its half.
/// None, with a message, if nats-server is not installed.
fn pair(dir: &Path, count: usize) -> Option<Pair> {
    let port = free_port();
    let server = server(dir, port, "")?;
    let url = format!("nats://127.0.0.1:{port}");
    let file = dir.join("cameras.toml");
    std::fs::write(&file, cameras(count, "")).unwrap();
    fleet(&url, &["apply", file.to_str().unwrap()]);
    let worker = |name: &str| {
        let settings = worker_settings(&url, name, &dir.join(name), "");
        FleetWorker::start(dir, name, &settings)
    };
    let workers = [worker("a"), worker("b")];
    wait_for(&url, &[("a", count / 2), ("b", count / 2)]);
    Some(Pair {
        url,
        port,
        _server: server,
        workers,
    })
}

/// Waits until the workers have these numbers of cameras.
fn wait_for(url: &str, expected: &[(&str, usize)]) {
    let expected: BTreeMap<String, usize> =
        expected.iter().map(|(n, c)| (n.to_string(), *c)).collect();
    let mut now = BTreeMap::new();
    let done = until(120, || {
        now = held(url);
        now == expected
    });
    assert!(done, "{now:?}, expected {expected:?}");
}

impl Pair {
    fn events(&self) -> Vec<Value> {
        let messages = read_stream_named(self.port, &json!({}), "twintrack-events");
        messages.iter().map(|m| m.json()).collect()
    }

    /// Number of events of a camera so far.
    fn count(&self, camera: &str) -> usize {
        let events = self.events();
        events.iter().filter(|e| e["camera"] == camera).count()
    }

    /// Waits for events of every camera of `names` beyond those there are.
    fn wait_for_events(&self, names: &[String]) {
        let before: Vec<usize> = names.iter().map(|n| self.count(n)).collect();
        let done = until(120, || {
            names
                .iter()
                .zip(&before)
                .all(|(name, before)| self.count(name) > before + 2)
        });
        assert!(done, "events of {names:?}");
    }
}

fn assert_clean(found: &Findings) {
    assert!(found.events > 0 && found.without_lease == 0, "{found:?}");
    assert!(
        found.interleaved.is_empty() && found.doubled.is_empty() && found.lost.is_empty(),
        "{found:?}"
    );
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("c{n}")).collect()
}

#[test]
fn a_killed_workers_cameras_are_tracked_by_the_other_one() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mut pair) = pair(dir.path(), 4) else {
        return;
    };
    pair.wait_for_events(&names(4));
    pair.workers[0].process.signal("KILL");
    pair.workers[0].process.code(10);
    wait_for(&pair.url, &[("b", 4)]);
    pair.wait_for_events(&names(4));
    // It stops, and gives its cameras back.
    pair.workers[1].process.signal("TERM");
    assert_eq!(pair.workers[1].process.code(60), Some(0));
    assert!(held(&pair.url).is_empty(), "the worker has left the fleet");
    let found = check(&pair.events());
    assert_clean(&found);
    let taken_over = found.leases.values().filter(|l| l.len() == 2).count();
    assert_eq!(taken_over, 2, "{found:?}");
}

/// The zombie: a worker that is stopped for longer than its lease must not go on with its cameras.
#[test]
fn a_worker_that_was_stopped_passes_on_no_event_of_its_old_leases() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mut pair) = pair(dir.path(), 2) else {
        return;
    };
    pair.wait_for_events(&names(2));
    pair.workers[0].process.signal("STOP");
    wait_for(&pair.url, &[("b", 2)]);
    pair.wait_for_events(&names(2));
    pair.workers[0].process.signal("CONT");
    // It registers again under another id.
    let done = until(120, || held(&pair.url).len() == 2);
    assert!(done, "{:?}", held(&pair.url));
    pair.wait_for_events(&names(2));
    for worker in &mut pair.workers {
        worker.process.signal("TERM");
        assert_eq!(worker.process.code(60), Some(0));
    }
    assert_clean(&check(&pair.events()));
}

#[test]
fn the_records_of_cameras_follow_a_file_and_single_commands() {
    let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
    let Some(_server) = server(dir.path(), port, "") else {
        return;
    };
    let url = format!("nats://127.0.0.1:{port}");
    let file = dir.path().join("cameras.toml");
    let apply = |text: &str, more: &[&str]| {
        std::fs::write(&file, text).unwrap();
        fleet(&url, &[&["apply", file.to_str().unwrap()], more].concat())
    };
    let two =
        "[cameras.a]\nurl = \"rtsp://10.0.0.1/x\"\n[cameras.b]\nurl = \"rtsp://10.0.0.2/x\"\n";
    let out = apply(two, &["--dry-run"]);
    assert!(
        out.contains("+ a  rtsp://10.0.0.1/x") && out.contains("2 cameras would be"),
        "{out}"
    );
    let listed = |url: &str| -> Vec<String> {
        let list: Value = serde_json::from_str(&fleet(url, &["list", "--json"])).unwrap();
        let names = list.as_array().unwrap().iter();
        names
            .map(|c| c["name"].as_str().unwrap().to_string())
            .collect()
    };
    assert!(listed(&url).is_empty());
    apply(two, &[]);
    assert_eq!(listed(&url), ["a", "b"]);
    let other = two.replace("10.0.0.2/x\"", "10.0.0.2/x\"\npriority = 5");
    let out = apply(&other, &[]);
    assert!(out.contains("~ b\n    priority: 0 -> 5"), "{out}");
    assert!(
        out.contains("0 cameras were added, 1 changed, 0 removed"),
        "{out}"
    );
    fleet(
        &url,
        &["add", "c.d", "rtsp://10.0.0.3/x", "--label", "site=north"],
    );
    let out = apply(two, &["--keep", "--dry-run"]);
    assert!(!out.contains("- c.d"), "{out}");
    let out = apply(two, &[]);
    assert!(out.contains("- c.d  rtsp://10.0.0.3/x"), "{out}");
    fleet(&url, &["remove", "a"]);
    assert_eq!(listed(&url), ["b"]);
    let fails = |arguments: &[&str]| {
        let out = run(twintrack().args(["fleet", "--nats", &url]).args(arguments));
        assert!(!out.status.success());
        text(&out.stderr)
    };
    assert!(fails(&["remove", "a"]).contains("no camera 'a'"));
    assert!(fails(&["add", "b", "rtsp://10.0.0.9/x"]).contains("already"));
    let secret = fails(&["add", "e", "rtsp://admin:hunter2@10.0.0.9/x"]);
    assert!(
        secret.contains("login") && !secret.contains("hunter2"),
        "{secret}"
    );
    std::fs::write(
        &file,
        "[cameras.a]\nurl = \"rtsp://h/x\"\npassword = \"hunter2\"\n",
    )
    .unwrap();
    let secret = fails(&["apply", file.to_str().unwrap()]);
    assert!(
        secret.contains("password_env") && !secret.contains("hunter2"),
        "{secret}"
    );
    assert_eq!(listed(&url), ["b"]);
}
