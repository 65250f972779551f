//! Output for users: log lines about the networks, progress, summary, and the list of written
//! files.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::app::outputs::STDOUT;
use twintrack::detect::Detector;
use twintrack::embed::Embedder;
use twintrack::infer::Model;
use twintrack::pipeline::{Cameras, DetectionSource, Summary};
use twintrack::sink::counts::{Counts, ShapeKey};

/// Reason why re-identification and false-accept rates are not available; used after a comma.
pub const NO_STRANGER_RATES: &str = "because the network's file has no false-accept rates \
                                     (`twintrack-train calibrate` measures them)";

/// Summary lines of the files that were written: description and path. Standard output is left out.
pub fn written(files: &[(&str, Option<&PathBuf>)]) -> String {
    let named = files
        .iter()
        .filter_map(|(what, path)| path.filter(|p| *p != Path::new(STDOUT)).map(|p| (what, p)));
    named
        .map(|(what, path)| format!("  {:<28}{}\n", format!("{what}, file"), path.display()))
        .collect()
}

/// Logs the networks in use.
pub fn models(detections: &DetectionSource, embedder: Option<&Embedder>) {
    match detections {
        DetectionSource::Network(d) => detector(d),
        DetectionSource::Given(frames) => {
            tracing::info!(frames = frames.len(), "detections from a file")
        }
    }
    match embedder {
        Some(e) => self::embedder(e),
        None => tracing::info!("no embedder: tracking by motion only"),
    }
}

/// Logs a detector: file, hash of the weights, execution provider, and layout, class and pixel
/// format, each with its reason (`by`).
pub fn detector(d: &Detector) {
    let (model, format) = (d.model(), d.format());
    let (path, provider, weights) = (model.path().display(), model.provider(), model.weights());
    tracing::info!(
        model = %path, weights, %provider,
        layout = format.layout.value.name(), by = format.layout.reason,
        "detector"
    );
    tracing::info!(
        class = format.class.value,
        by = format.class.reason,
        "detector: number of the class \"person\""
    );
    tracing::info!(
        pixels = %format.pixels.value, by = format.pixels.reason, batch = batch(model),
        "detector: input"
    );
}

/// Logs an embedder: file, hash of the weights, execution provider, output and input.
pub fn embedder(e: &Embedder) {
    let (model, (w, h)) = (e.model(), e.size());
    let (path, provider, weights) = (model.path().display(), model.provider(), model.weights());
    tracing::info!(
        model = %path, weights, %provider, output = e.output(), dimension = e.dimension(),
        "embedder"
    );
    tracing::info!(
        pixels = %e.pixels(), size = format!("{w}x{h}"), batch = batch(model),
        "embedder: input"
    );
    if e.strangers().is_none() {
        tracing::info!("tracker.reidentify is off, {NO_STRANGER_RATES}");
    }
}

/// The batch size of a network, or "any".
pub fn batch(model: &Model) -> String {
    model
        .batch()
        .map_or_else(|| "any".into(), |n| n.to_string())
}

/// Shows the progress on standard error until the task is aborted: a bar on a terminal, else a line
/// every five seconds. `total`: number of frames of the input, if known.
pub async fn progress(cameras: Cameras, total: Option<u64>) {
    const LINE_EVERY: Duration = Duration::from_secs(5);
    let started = Instant::now();
    let bar = std::io::stderr().is_terminal().then(|| bar(total));
    loop {
        tokio::time::sleep(if bar.is_some() {
            Duration::from_millis(200)
        } else {
            LINE_EVERY
        })
        .await;
        let Summary {
            frames,
            people,
            dropped,
            ..
        } = cameras.summary();
        let rate = frames as f64 / started.elapsed().as_secs_f64();
        let drops = if dropped > 0 {
            format!(", {dropped} dropped")
        } else {
            String::new()
        };
        match &bar {
            Some(b) => {
                b.set_position(frames);
                b.set_message(format!("{rate:.1} frames/s, {people} people{drops}"));
            }
            None => {
                let left = total
                    .filter(|_| rate > 0.0)
                    .map(|t| {
                        format!(
                            " of {t}, {:.0} s left",
                            t.saturating_sub(frames) as f64 / rate
                        )
                    })
                    .unwrap_or_default();
                eprintln!("{frames} frames{left}, {rate:.1} frames/s, {people} people{drops}");
            }
        }
    }
}

fn bar(total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        Some(n) => (
            ProgressBar::new(n),
            "{bar:30} {pos}/{len} frames, {msg}, {eta} left",
        ),
        None => (
            ProgressBar::new_spinner(),
            "{spinner} {pos} frames, {msg}, {elapsed}",
        ),
    };
    bar.with_style(
        ProgressStyle::with_template(template).expect("the template is a valid constant"),
    )
}

/// The summary table at the end of a run. `stages`: each stage and the total time it was busy.
pub fn summary(s: &Summary, stages: &[(&'static str, Duration)]) -> String {
    let per_frame = |d: Duration| 1e3 * d.as_secs_f64() / s.frames.max(1) as f64;
    let mut out = String::new();
    let mut row = |name: &str, value: String| {
        writeln!(out, "  {name:<31}{value:>10}").expect("writing to a String cannot fail")
    };
    row("frames", s.frames.to_string());
    row("people", s.people.to_string());
    let detected = s.frames.saturating_sub(s.skipped);
    if s.skipped > 0 {
        row("frames skipped", s.skipped.to_string());
    }
    row(
        "detections/frame",
        format!("{:.1}", s.detections as f64 / detected.max(1) as f64),
    );
    if s.embedded > 0 {
        row(
            "embedded detections, %",
            format!(
                "{:.0}",
                100.0 * s.embedded as f64 / s.detections.max(1) as f64
            ),
        );
    }
    if s.dropped > 0 {
        row("frames dropped", s.dropped.to_string());
    }
    if s.damaged > 0 {
        row("frames damaged", s.damaged.to_string());
    }
    if s.failed > 0 {
        row("network failed, frames dropped", s.failed.to_string());
    }
    row("frames/s", format!("{:.1}", s.frames_per_second()));
    for (stage, busy) in stages {
        row(
            &format!("{stage}, ms/frame"),
            format!("{:.2}", per_frame(*busy)),
        );
    }
    row("total, ms/frame", format!("{:.2}", per_frame(s.wall)));
    if !s.inference.is_zero() {
        row(
            "ONNX Runtime, ms/frame",
            format!("{:.2}", per_frame(s.inference)),
        );
    }
    if s.interrupted {
        out.push_str("  stopped before the end; the files are complete up to here\n");
    }
    out.trim_end().to_string()
}

/// The rows of the summary with the counts of zones and lines, each with the name of its camera if
/// `cameras`; empty if there are neither zones nor lines.
pub fn counts(counts: &Counts, cameras: bool) -> String {
    let mut out = String::new();
    let mut row = |name: String, value: String| {
        writeln!(out, "  {name:<31} {value}").expect("writing to a String cannot fail")
    };
    let label = |kind: &str, (camera, name): &ShapeKey| match cameras {
        true => format!("{kind} {camera}/{name}"),
        false => format!("{kind} {name}"),
    };
    for (zone, c) in counts.zones() {
        let mut value = format!(
            "{} entered, {} left, {} inside",
            c.entered, c.left, c.occupancy
        );
        for (n, what) in [(c.dwelled, "dwelled"), (c.over_limit, "times over limit")] {
            if n > 0 {
                value.push_str(&format!(", {n} {what}"));
            }
        }
        row(label("zone", &zone), value);
    }
    for (line, c) in counts.lines() {
        let mut value = format!("{} in, {} out", c.inwards, c.outwards);
        if c.wrong > 0 {
            value.push_str(&format!(", {} in the wrong direction", c.wrong));
        }
        row(label("line", &line), value);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_has_every_count_and_time_per_frame() {
        let s = Summary {
            frames: 12,
            skipped: 2,
            detections: 25,
            embedded: 5,
            people: 3,
            dropped: 0,
            damaged: 4,
            unused: 0,
            cut: None,
            failed: 2,
            wall: Duration::from_secs(1),
            inference: Duration::from_millis(1080),
            interrupted: true,
        };
        let text = summary(&s, &[("decode", Duration::from_millis(60))]);
        for part in [
            "people",
            "3",
            "frames skipped",
            "2",
            "embedded detections, %",
            "20",
            "frames damaged",
            "4",
            "network failed, frames dropped",
            "2.5",
            "12.0",
            "decode, ms/frame",
            "5.00",
            "ONNX Runtime",
            "90.00",
            "stopped before the end",
        ] {
            assert!(text.contains(part), "{part} is missing from\n{text}");
        }
    }

    #[test]
    fn written_lists_files_but_not_standard_output() {
        let (a, b) = (PathBuf::from(STDOUT), PathBuf::from("out/x.txt"));
        let text = written(&[
            ("trajectories", Some(&a)),
            ("MOTChallenge", Some(&b)),
            ("video", None),
        ]);
        assert!(
            text.contains("MOTChallenge, file")
                && text.ends_with("out/x.txt\n")
                && text.lines().count() == 1,
            "{text}"
        );
    }
}
