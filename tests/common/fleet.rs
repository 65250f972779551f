//! A fleet on this machine: workers, and the checker of what they have published.
#![allow(dead_code, reason = "each test program uses a part")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;

use crate::common::{Running, clip, run, text, twintrack};

/// Settings of a small worker: a small detector input, no embedder, no web server.
pub fn worker_settings(nats: &str, name: &str, state: &Path, more: &str) -> String {
    format!(
        "[fleet]\nnats = \"{nats}\"\nname = \"{name}\"\ncapacity = 100.0\nlease = 15.0\n{more}\n\
         [serve]\nlisten = \"\"\nstate_dir = \"{}\"\n\
         [detector]\nlongest_side = 160\n[embedder]\nenabled = false\n\
         [tracker.camera_motion]\nfrom_pixels = false\n",
        state.display()
    )
}

/// A worker of a fleet.
pub struct FleetWorker {
    pub name: String,
    pub process: Running,
    pub log: PathBuf,
}

impl FleetWorker {
    pub fn start(dir: &Path, name: &str, settings: &str) -> Self {
        let config = dir.join(format!("{name}.toml"));
        std::fs::write(&config, settings).expect("written");
        let log = dir.join(format!("{name}.log"));
        let process = Running::start(
            twintrack()
                .args(["serve", "-v", "--output", "/dev/null", "--config"])
                .arg(&config)
                .stdout(Stdio::null())
                .stderr(std::fs::File::create(&log).expect("created")),
        );
        FleetWorker {
            name: name.into(),
            process,
            log,
        }
    }
}

/// The sections of `count` cameras, `c0` and so on, that play the sample clip for ever.
pub fn cameras(count: usize, more: &str) -> String {
    let clip = clip();
    let camera = |n: usize| {
        format!(
            "[cameras.c{n}]\nurl = \"{}\"\nrepeat = true\ntarget_fps = 1.0\n{more}\n",
            clip.display()
        )
    };
    (0..count).map(camera).collect()
}

/// Runs `twintrack fleet`; returns its standard output. The command must succeed.
pub fn fleet(nats: &str, arguments: &[&str]) -> String {
    let output = run(twintrack().args(["fleet", "--nats", nats]).args(arguments));
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// Number of cameras of every worker, by name.
pub fn held(nats: &str) -> BTreeMap<String, usize> {
    let status: Value = serde_json::from_str(&fleet(nats, &["status", "--json"])).expect("JSON");
    let workers = status["workers"].as_array().expect("a list");
    let count = |w: &Value| w["cameras"].as_object().expect("cameras").len();
    workers
        .iter()
        .map(|w| (w["name"].as_str().expect("a name").to_string(), count(w)))
        .collect()
}

/// What a fleet's stream shows.
#[derive(Debug, Default)]
pub struct Findings {
    pub events: usize,
    /// Leases by camera, in the order of their first events.
    pub leases: BTreeMap<String, Vec<u64>>,
    /// Frames that were decoded under an older lease after the first frame of a newer one. An event
    /// that only arrives late does not count: readers leave it out.
    pub interleaved: Vec<String>,
    /// Events that are stored twice.
    pub doubled: Vec<String>,
    /// Sequence numbers that are missing between two events of a lease.
    pub lost: Vec<String>,
    /// Events without a lease.
    pub without_lease: usize,
}

/// What tells an event from others.
fn shown(event: &Value) -> String {
    let keys = ["schema", "run", "camera", "seq", "lease", "time"];
    let shown: Vec<String> = keys.iter().map(|key| event[key].to_string()).collect();
    shown.join(" ")
}

/// Checks events in the order of the stream.
pub fn check(events: &[Value]) -> Findings {
    let mut found = Findings {
        events: events.len(),
        ..Findings::default()
    };
    let mut seen = BTreeSet::new();
    let mut numbers: BTreeMap<(String, String, u64), BTreeSet<u64>> = BTreeMap::new();
    let mut first_frames: BTreeMap<(String, u64), String> = BTreeMap::new();
    for event in events {
        let text = |key: &str| event[key].as_str().unwrap_or_default().to_string();
        let (run, camera, schema) = (text("run"), text("camera"), text("schema"));
        let Some(lease) = event["lease"].as_u64() else {
            found.without_lease += 1;
            continue;
        };
        let leases = found.leases.entry(camera.clone()).or_default();
        if !leases.contains(&lease) {
            leases.push(lease);
        }
        if !event["frame"].is_null() {
            let first = first_frames.entry((camera.clone(), lease));
            let first = first.or_insert_with(|| text("time"));
            *first = text("time").min(first.clone());
        }
        if let Some(seq) = event["seq"].as_u64() {
            if !seen.insert((run.clone(), camera.clone(), schema, seq)) {
                found.doubled.push(shown(event));
            }
            numbers.entry((run, camera, lease)).or_default().insert(seq);
        }
    }
    for event in events.iter().filter(|e| !e["frame"].is_null()) {
        let text = |key: &str| event[key].as_str().unwrap_or_default().to_string();
        let (camera, lease) = (text("camera"), event["lease"].as_u64().unwrap_or_default());
        let mut newer = first_frames.range((camera.clone(), lease + 1)..(camera, u64::MAX));
        // Times of one format: their order is that of their texts.
        if newer.any(|(_, first)| *first <= text("time")) {
            found.interleaved.push(shown(event));
        }
    }
    for ((run, camera, lease), seqs) in numbers {
        let (first, last) = (seqs.first(), seqs.last());
        if let (Some(first), Some(last)) = (first, last)
            && last - first + 1 != seqs.len() as u64
        {
            let missing: Vec<u64> = (*first..*last).filter(|n| !seqs.contains(n)).collect();
            found
                .lost
                .push(format!("{run} {camera} {lease}: {missing:?}"));
        }
    }
    found
}
