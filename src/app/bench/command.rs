//! The command: its options, and the order of the measurements.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use tokio_util::sync::CancellationToken;

use crate::app::bench::alone::{self, Alone};
use crate::app::bench::report::{self, Cost, Measurement, Report, Stage};
use crate::app::bench::together::{self, Together};
use crate::app::bench::{machine, scaled};
use crate::app::signals::Signals;
use twintrack::address;
use twintrack::config::Config;
use twintrack::infer::Device;
use twintrack::pipeline::metrics::STAGES;
use twintrack::serve::config::ServiceConfig;
use twintrack::source;

/// The shipped clip, relative to the program's folder or a folder above it.
const SAMPLE: &str = "samples/pets2009-s2l1.mp4";
/// Frame size in pixels for which the number of cameras is given.
const CAMERA_SIZE: (u32, u32) = (1920, 1080);
/// Minimum number of frames of each recording at that size; percentiles over fewer frames are
/// unreliable.
const LEAST_FRAMES: usize = 50;
/// Maximum number of recordings that are tracked together.
const MOST_RECORDINGS: usize = 16;

/// Measure the stages on this machine, alone and together, and estimate how many cameras it can
/// process.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Recording to measure with; by default the shipped sample clip.
    input: Option<String>,
    /// Number of frames to measure.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = parse_frames)]
    frames: usize,
    /// Configuration (TOML); see docs/reference/configuration.md. Options override it.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Device on which networks run: auto (CUDA if it works), cpu, cuda, cuda:N or tensorrt.
    #[arg(long, value_name = "DEVICE")]
    device: Option<Device>,
    /// CPU threads of each network; 0: one per core.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Print JSON instead of the tables.
    #[arg(long)]
    json: bool,
}

/// Parses a number of frames.
fn parse_frames(text: &str) -> Result<usize, String> {
    let number = text.parse().ok();
    number
        .filter(|n| (2..=100_000).contains(n))
        .ok_or_else(|| "use a number of frames from 2 to 100000".into())
}

/// Runs the command. `print` prints the report. Exit code 130 or 143 after a signal.
///
/// # Errors
/// If the configuration, the input or a network cannot be used, or a run fails.
pub fn run(args: &BenchArgs, print: impl FnOnce(String) -> ExitCode) -> Result<ExitCode> {
    let (service, mut config) = match &args.config {
        Some(path) => ServiceConfig::read_partial(path)?,
        None => Default::default(),
    };
    config.device = args.device.unwrap_or(config.device);
    config.threads = args.threads.unwrap_or(config.threads);
    config.validate()?;
    let input = args.input.clone().map_or_else(sample, Ok)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    runtime.block_on(async {
        let signals = Signals::listen();
        let stop = signals.stop();
        let report = measure(args.frames, &input, &service, &config, &stop).await?;
        Ok(match (signals.code(false), report) {
            (Some(code), _) => code,
            (None, Some(report)) if args.json => print(serde_json::to_string_pretty(&report)?),
            (None, Some(report)) => print(report.table()),
            (None, None) => ExitCode::FAILURE,
        })
    })
}

/// Finds the shipped sample clip: in the program's folder, up to three folders above it, or in the
/// working folder.
fn sample() -> Result<String> {
    let program = std::env::current_exe().unwrap_or_default();
    let above = program.ancestors().skip(1).take(4);
    let folders = above
        .chain([Path::new("")])
        .map(|folder| folder.join(SAMPLE));
    let found = folders.into_iter().find(|path| path.is_file());
    match found.as_ref().and_then(|path| path.to_str()) {
        Some(path) => Ok(path.into()),
        None => bail!("the sample clip {SAMPLE} was not found; name a video: twintrack bench FILE"),
    }
}

/// Measures at the input's own frame size, then at [`CAMERA_SIZE`]. Returns `None` when `stop` is
/// cancelled.
///
/// # Errors
/// If the input or a network cannot be used, or a run fails.
async fn measure(
    frames: usize,
    input: &str,
    service: &ServiceConfig,
    config: &Config,
    stop: &CancellationToken,
) -> Result<Option<Report>> {
    let dir = tempfile::tempdir().context("cannot create a temporary folder")?;
    let dir = dir.path();
    let name = name(input);
    progress(1, &format!("tracking {frames} frames of {name}"));
    let together = together::one(input, frames, config, dir, stop).await?;
    progress(2, "running one stage after the other on the same frames");
    let alone = alone::measure(input, frames, config, dir, stop)?;
    if stop.is_cancelled() {
        return Ok(None);
    }
    let (detector, embedder) = (together.detector.clone(), together.embedder.clone());
    let native = measurement(name, 1, alone, together);

    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let recordings = cores.clamp(2, MOST_RECORDINGS);
    let frames = (frames / recordings).max(LEAST_FRAMES).min(native.frames);
    let (width, height) = CAMERA_SIZE;
    let name = format!("scaled to {width}x{height}");
    progress(3, &format!("writing a copy {name}"));
    let Some(copy) = scaled::write(input, frames, CAMERA_SIZE, dir, stop)? else {
        return Ok(None);
    };
    progress(4, &format!("tracking {recordings} copies {name}"));
    let together = together::many(&copy, recordings, service, config, dir, stop).await?;
    progress(5, "running one stage after the other on the same frames");
    let alone = alone::measure(&copy.to_string_lossy(), frames, config, dir, stop)?;
    if stop.is_cancelled() {
        return Ok(None);
    }
    let scaled = measurement(name, recordings, alone, together);
    Ok(Some(Report {
        schema: "twintrack.bench/1",
        version: env!("CARGO_PKG_VERSION"),
        processor: machine::processor(),
        cores,
        threads: config.threads(),
        detector,
        embedder,
        cameras: report::cameras(scaled.together_frames_per_second),
        measurements: vec![native, scaled],
    }))
}

/// Name of the input in the report, which may be published: the name of the file or folder without
/// its path, or an address without its secrets.
fn name(input: &str) -> String {
    let file = (!source::is_stream(input)).then(|| source::path_of(input));
    let name = file.as_ref().and_then(|path| path.file_name());
    name.map_or_else(|| address::masked(input), |n| n.to_string_lossy().into())
}

/// Prints on standard error which of the five steps begins.
fn progress(step: usize, what: &str) {
    eprintln!("{step} of 5: {what}");
}

/// Joins the measurements at one frame size.
fn measurement(input: String, recordings: usize, alone: Alone, together: Together) -> Measurement {
    let mean = |times: &Vec<Duration>| times.iter().sum::<Duration>() / times.len().max(1) as u32;
    let total: Duration = alone.times.iter().map(mean).sum();
    let costs = STAGES.into_iter().zip(alone.times).zip(together.times);
    let stages = costs.map(|((stage, alone), together)| Stage {
        stage,
        alone: Cost::of(alone),
        together: Cost::of(together),
    });
    Measurement {
        input,
        size: alone.size,
        detector_input: alone.detector_input,
        recordings,
        frames: together.frames / recordings,
        detections: report::rounded(alone.detections),
        batch: together.batch,
        stages: stages.collect(),
        alone_frames_per_second: report::rate(1, total),
        together_frames_per_second: together.frames_per_second,
        peak_memory: together.peak_memory,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_frames_out_of_range_are_rejected() {
        assert_eq!(parse_frames("2"), Ok(2));
        for bad in ["1", "0", "-5", "100001", "ten", ""] {
            assert!(parse_frames(bad).is_err(), "{bad}");
        }
    }
}
