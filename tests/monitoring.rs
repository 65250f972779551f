//! What a running service shows of zones and lines, and that the files in `monitoring/` name
//! metrics that exist.
#![cfg(feature = "serve")]
#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use common::{Running, clip, free_port, repository, twintrack, until};
use serde_json::Value;

/// The file of a service with the camera `gate`, which repeats the clip at full speed, and the
/// shapes of `configs/zones.toml`; `more` is added to it.
fn configuration(port: u16, more: &str) -> String {
    let shapes = std::fs::read_to_string(repository("configs/zones.toml")).unwrap();
    let shapes = shapes
        .replace("[lines.", "[cameras.gate.lines.")
        .replace("[zones.", "[cameras.gate.zones.");
    format!(
        "[serve]\nlisten = \"127.0.0.1:{port}\"\n[detector]\nsize = \"416x320\"\n\
         [cameras.gate]\nurl = {:?}\nrepeat = true\nrealtime = false\n{shapes}\n{more}",
        clip()
    )
}

fn scrape(port: u16) -> String {
    common::metrics(port).unwrap_or_default()
}

/// The value of a metric with its labels, as they stand in the text.
fn value(metrics: &str, name: &str) -> Option<f64> {
    let line = metrics.lines().find_map(|l| l.strip_prefix(name))?;
    line.trim().parse().ok()
}

/// Names beginning with `twintrack_` in a text.
fn names(text: &str) -> Vec<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c| !is_name(c));
    words
        .filter(|w| w.starts_with("twintrack_"))
        .map(str::to_string)
        .collect()
}

fn start(dir: &Path, port: u16, more: &str) -> Running {
    std::fs::write(dir.join("cameras.toml"), configuration(port, more)).unwrap();
    Running::start(
        twintrack()
            .current_dir(dir)
            .args(["serve", "--config", "cameras.toml", "--output", "out.jsonl"])
            .stderr(std::fs::File::create(dir.join("log")).unwrap()),
    )
}

#[test]
fn counts_are_metrics_and_new_shapes_are_used_on_sighup() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let service = start(dir.path(), port, "");
    let crossings =
        "twintrack_line_crossings_total{camera=\"gate\",line=\"diagonal\",direction=\"in\"}";
    let entries = "twintrack_zone_entries_total{camera=\"gate\",zone=\"gate\"}";
    let exits = "twintrack_zone_exits_total{camera=\"gate\",zone=\"gate\"}";
    let inside = "twintrack_zone_occupancy{camera=\"gate\",zone=\"gate\"}";
    assert!(until(120, || value(&scrape(port), crossings) > Some(1.0)));
    assert!(until(120, || value(&scrape(port), entries) > Some(1.0)));
    let metrics = scrape(port);
    let of = |name| value(&metrics, name).unwrap();
    assert_eq!(of(entries) - of(exits), of(inside));

    let whole = "[cameras.gate.zones.whole]\npoints = [[0, 0], [1, 0], [1, 1], [0, 1]]\n";
    let before = of(crossings);
    std::fs::write(dir.path().join("cameras.toml"), configuration(port, whole)).unwrap();
    service.signal("HUP");
    let new = "twintrack_zone_entries_total{camera=\"gate\",zone=\"whole\"}";
    assert!(until(120, || value(&scrape(port), new) > Some(1.0)));
    assert!(
        value(&scrape(port), crossings) >= Some(before),
        "counts go on"
    );

    let lines = std::fs::read_to_string(dir.path().join("out.jsonl")).unwrap();
    let events = lines
        .lines()
        .filter_map(|l| serde_json::from_str::<Value>(l).ok());
    let mut counted = BTreeMap::<String, (u64, u64)>::new();
    for e in events.filter(|e| e["line"].is_string()) {
        let counts = (e["in"].as_u64().unwrap(), e["out"].as_u64().unwrap());
        let last = counted
            .entry(e["line"].as_str().unwrap().into())
            .or_default();
        assert_eq!(
            counts.0 + counts.1,
            last.0 + last.1 + 1,
            "each crossing once: {e}"
        );
        *last = counts;
    }
    assert_eq!(counted.len(), 3, "every line was crossed");
}

#[test]
fn the_grafana_dashboard_and_the_alerts_name_existing_metrics() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let _service = start(dir.path(), port, "");
    let tracked = "twintrack_frames_tracked_total{camera=\"gate\"}";
    assert!(until(120, || value(&scrape(port), tracked) > Some(5.0)));
    let metrics = scrape(port);
    let mut known = Vec::new();
    for line in metrics.lines().filter_map(|l| l.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        match kind {
            "counter" => known.push(format!("{name}_total")),
            "histogram" => known.push(format!("{name}_bucket")),
            _ => known.push(name.to_string()),
        }
    }
    assert!(known.len() > 25, "{known:?}");
    for file in [
        "monitoring/grafana-dashboard.json",
        "monitoring/alerts.yaml",
    ] {
        let text = std::fs::read_to_string(repository(file)).unwrap();
        let used = names(&text);
        assert!(used.len() >= 10, "{file}");
        for name in used {
            assert!(
                known.contains(&name),
                "{file} uses {name}, which is not among {known:?}"
            );
        }
    }
    let dashboard =
        std::fs::read_to_string(repository("monitoring/grafana-dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(
        panels
            .iter()
            .filter(|p| p["type"] != "row")
            .all(|p| !p["targets"].is_null())
    );
}
