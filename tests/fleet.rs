//! A small fleet on one NATS server: takeover of a killed worker's cameras, a worker that was
//! paused (SIGSTOP) and goes on, orderly handover, the records of cameras.
#![cfg(feature = "serve")]
#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;
#[path = "common/fleet.rs"]
mod fleet_workers;
#[path = "common/http.rs"]
mod http;
#[path = "common/nats.rs"]
mod nats;

use std::collections::BTreeMap;
use std::path::Path;

use common::{free_port, output_within, text, twintrack, until};
use fleet_workers::{Findings, FleetWorker, cameras, check, fleet, held, worker_settings};
use nats::{read_stream_named, server};
use serde_json::{Value, json};

/// Number of times that a changing bucket is listed.
const LISTS: usize = 300;

/// Two workers and their server.
struct Pair {
    url: String,
    port: u16,
    server: common::Running,
    workers: [FleetWorker; 2],
}

/// Starts workers `a` and `b` with `count` cameras between them; returns when each has its half.
/// None, with a message, if nats-server is not installed.
fn pair(dir: &Path, count: usize) -> Option<Pair> {
    let port = free_port();
    let server = server(dir, port, "")?;
    let url = format!("nats://127.0.0.1:{port}");
    let file = dir.join("cameras.toml");
    // Fast and large enough that people are tracked.
    let sections = cameras(count, "").replace("target_fps = 1.0", "target_fps = 5.0");
    std::fs::write(&file, sections).unwrap();
    fleet(&url, &["apply", file.to_str().unwrap()]);
    let worker = |name: &str| {
        let settings = worker_settings(&url, name, &dir.join(name), "");
        let settings = settings.replace("longest_side = 160", "longest_side = 416");
        FleetWorker::start(dir, name, &settings)
    };
    let workers = [worker("a"), worker("b")];
    wait_for(&url, &[("a", count / 2), ("b", count / 2)]);
    Some(Pair {
        url,
        port,
        server,
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
    let before = check(&pair.events()).leases;
    pair.workers[0].process.signal("KILL");
    pair.workers[0].process.code(10);
    wait_for(&pair.url, &[("b", 4)]);
    pair.wait_for_events(&names(4));
    // It stops, and gives its cameras back.
    pair.workers[1].process.signal("TERM");
    assert_eq!(pair.workers[1].process.code(60), Some(0));
    assert!(
        until(60, || held(&pair.url).is_empty()),
        "the worker has left the fleet"
    );
    let found = check(&pair.events());
    assert_clean(&found);
    let is_taken_over = |(camera, leases): &(&String, &Vec<u64>)| {
        leases.len() > before.get(*camera).map_or(0, Vec::len)
    };
    let taken_over = found.leases.iter().filter(is_taken_over).count();
    assert!(taken_over >= 2, "{before:?}, {found:?}");
}

/// A worker that is paused (SIGSTOP) for longer than its lease must not go on with its cameras.
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

/// The server has lost its data: numbers of leases begin again, below those that workers know.
#[test]
fn workers_get_their_cameras_again_when_the_server_has_lost_its_data() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mut pair) = pair(dir.path(), 2) else {
        return;
    };
    pair.wait_for_events(&names(2));
    pair.server.signal("KILL");
    pair.server.code(10);
    std::fs::remove_dir_all(dir.path().join("jetstream")).unwrap();
    pair.server = server(dir.path(), pair.port, "").unwrap();
    let file = dir.path().join("cameras.toml");
    fleet(&pair.url, &["apply", file.to_str().unwrap()]);
    let held_by_both = || held(&pair.url).values().sum::<usize>() == 2;
    assert!(until(120, held_by_both), "{:?}", held(&pair.url));
    pair.wait_for_events(&names(2));
    for worker in &mut pair.workers {
        worker.process.signal("TERM");
        assert_eq!(worker.process.code(60), Some(0));
    }
}

/// Regression: the program did not end, because a part of the fleet's worker waited for a signal.
#[test]
fn a_worker_whose_output_is_closed_ends_and_leaves_the_fleet() {
    let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
    let dir = dir.path();
    let Some(_server) = server(dir, port, "") else {
        return;
    };
    let url = format!("nats://127.0.0.1:{port}");
    let (file, config) = (dir.join("cameras.toml"), dir.join("w.toml"));
    std::fs::write(&file, cameras(1, "")).unwrap();
    fleet(&url, &["apply", file.to_str().unwrap()]);
    std::fs::write(&config, worker_settings(&url, "w", &dir.join("w"), "")).unwrap();
    let mut command = twintrack();
    command.args(["serve", "-v", "--output", "-", "--config"]);
    command.arg(&config).stdout(std::process::Stdio::piped());
    command.stderr(std::fs::File::create(dir.join("w.log")).unwrap());
    let mut worker = common::Running::start(&mut command);
    drop(worker.0.stdout.take());
    let code = worker.code(240);
    let log = std::fs::read_to_string(dir.join("w.log")).unwrap();
    assert!(code.is_some(), "{log}");
    assert!(until(60, || held(&url).is_empty()), "{log}");
}

/// The answer of the web server on `port`; None while it does not answer.
fn get_json(port: u16, path: &str) -> Option<Value> {
    std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
    let mut stream = http::connect(port);
    let answer = http::Request::new("GET", path).send(&mut stream, "127.0.0.1");
    (answer.status == 200).then(|| answer.json())
}

/// Camera and id of a track, of an event or of the API.
fn track_id(value: &Value) -> (String, u64) {
    let camera = value["camera"].as_str().unwrap().to_string();
    (camera, value["id"].as_u64().unwrap())
}

/// The stream's events are stored once although the process that stores them is killed; what an
/// older lease writes behind a newer one is left out; the API lists the fleet's cameras.
#[test]
fn the_history_of_a_fleet_has_every_ended_track_once() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let Some(mut pair) = pair(dir, 2) else {
        return;
    };
    let page = free_port();
    let config = dir.join("history.toml");
    let state = dir.join("history");
    let text = format!(
        "[fleet]\nnats = \"{}\"\n[history]\n[embedder]\nenabled = false\n\
         [serve]\nlisten = \"127.0.0.1:{page}\"\nstate_dir = \"{}\"\n",
        pair.url,
        state.display()
    );
    std::fs::write(&config, text).unwrap();
    let start = || {
        let log = std::fs::File::create(dir.join("history.log")).unwrap();
        let mut command = twintrack();
        command.args(["history", "-v", "--config"]).arg(&config);
        common::Running::start(command.stderr(log))
    };
    let stored = || -> Vec<(String, u64)> {
        let answer = get_json(page, "/api/v1/tracks?limit=1000").unwrap_or_default();
        let tracks = answer["items"].as_array().cloned().unwrap_or_default();
        let mut ids: Vec<_> = tracks.iter().map(track_id).collect();
        ids.sort();
        ids
    };
    let mut history = start();
    let listed = until(120, || {
        let answer = get_json(page, "/api/v1/cameras").unwrap_or_default();
        answer["cameras"].as_array().is_some_and(|c| c.len() == 2)
    });
    assert!(listed, "the fleet's cameras are listed");
    let put = |path: &str, body: Value| {
        let path = format!("/api/v1/fleet/cameras/{path}");
        let request = http::Request::json("PUT", &path, &body.to_string());
        request.send(&mut http::connect(page), "127.0.0.1")
    };
    let extra = json!({"url": "rtsp://10.0.0.9/x", "labels": ["site=nowhere"]});
    assert_eq!(put("extra", extra.clone()).status, 201);
    assert_eq!(put("extra", extra).status, 200);
    let secret = put("other", json!({"url": "rtsp://h/x", "password": "hunter2"}));
    assert_eq!(
        (secret.status, secret.text().contains("hunter2")),
        (422, false)
    );
    let overview = get_json(page, "/api/v1/fleet").unwrap();
    let names = overview["cameras"].as_array().unwrap().iter();
    let names: Vec<&str> = names.map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["c0", "c1", "extra"]);
    assert!(
        overview["cameras"][2]["worker"].is_null(),
        "no worker has its label"
    );
    let delete = http::Request::new("DELETE", "/api/v1/fleet/cameras/extra");
    let delete = delete.with(&[("sec-fetch-site", "same-origin")]);
    let deleted = || delete.send(&mut http::connect(page), "127.0.0.1").status;
    assert_eq!((deleted(), deleted()), (204, 404));
    assert!(until(240, || !stored().is_empty()), "a first track");
    history.signal("KILL");
    history.code(10);
    for worker in &mut pair.workers {
        worker.process.signal("TERM");
        assert_eq!(worker.process.code(60), Some(0));
    }
    history = start();
    let events = pair.events();
    let is_ended = |e: &&Value| e["schema"] == "twintrack.track_ended/1";
    let ended: Vec<&Value> = events.iter().filter(is_ended).collect();
    let mut expected: Vec<_> = ended.iter().map(|e| track_id(e)).collect();
    // A late event of an older lease, behind those of the newest lease, and an event that counts.
    let last = *ended.last().unwrap();
    let camera = track_id(last).0;
    let subject = format!("twintrack.events.{camera}.track_ended");
    let publish = |lease: u64, id: u64| {
        let mut event = last.clone();
        (event["lease"], event["id"]) = (json!(lease), json!(id));
        nats::publish(pair.port, &subject, &event.to_string());
    };
    // The worker that had the camera last need not have ended a track.
    let of_camera = events.iter().filter(|e| e["camera"] == *camera);
    let lease = of_camera.filter_map(|e| e["lease"].as_u64()).max().unwrap();
    publish(lease - 1, 987_654);
    publish(lease, 987_655);
    expected.push((camera, 987_655));
    expected.sort();
    let mut found = Vec::new();
    let done = until(120, || {
        found = stored();
        found == expected
    });
    assert!(done, "{found:?}, expected {expected:?}");
    history.signal("TERM");
    assert_eq!(history.code(60), Some(0));
    let log = std::fs::read_to_string(dir.join("history.log")).unwrap();
    assert!(log.contains(" 1 left out"), "{log}");
}

/// Regression guard: a server may count one record too many that is still to come while records
/// change, and then the list of a bucket never ended.
#[test]
fn a_list_of_records_ends_while_records_change() {
    use twintrack::fleet::buckets::{Fleet, REQUEST};
    use twintrack::fleet::records::LeaseRecord;
    let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
    let Some(_server) = server(dir.path(), port, "") else {
        return;
    };
    let mut config = twintrack::fleet::FleetConfig::default();
    config.nats = format!("nats://127.0.0.1:{port}");
    let record = LeaseRecord::of("w");
    let keys = ["worker.a", "worker.b", "other"];
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let all = async {
        let fleet = Fleet::connect(&config, None, REQUEST).await.unwrap();
        assert!(fleet.leases.all("worker.*").await.unwrap().is_empty());
        for key in keys {
            let fleet = Fleet::connect(&config, None, REQUEST).await.unwrap();
            let record = record.clone();
            let mut revision = fleet.leases.create(key, &record).await.unwrap();
            tokio::spawn(async move {
                loop {
                    let updated = fleet.leases.update(key, &record, revision).await;
                    revision = updated.unwrap();
                }
            });
        }
        for _ in 0..LISTS {
            let records = fleet.leases.all("worker.*").await.unwrap();
            let names: Vec<&str> = records.keys().map(String::as_str).collect();
            assert_eq!(names, ["worker.a", "worker.b"]);
        }
    };
    let timeout = std::time::Duration::from_secs(240);
    let ended = runtime.block_on(async { tokio::time::timeout(timeout, all).await });
    runtime.shutdown_background();
    assert!(ended.is_ok(), "a list has not ended");
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
        let mut command = twintrack();
        let command = command.args(["fleet", "--nats", &url]).args(arguments);
        let out = output_within(60, command);
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
