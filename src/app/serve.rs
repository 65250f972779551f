//! `twintrack serve`: many cameras in one process.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use tokio_util::sync::CancellationToken;

use crate::app::track::{spare, stop_on_signal};
use crate::config::{Config, ConfigError};
use crate::detect::Detector;
use crate::embed::Embedder;
use crate::infer::Runtime;
use crate::pipeline::fleet::{Fleet, FleetConfig};
use crate::pipeline::reader::CameraCounts;
use crate::sink::jsonl::JsonLines;
use crate::source;

/// Track many cameras at once, with one detector for all.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The cameras and all other settings (TOML): [cameras.NAME] with a `url` each, see docs/cameras.md.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Where the events of all cameras go, a JSON object a line; - is standard output.
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    output: PathBuf,
    /// No summary.
    #[arg(short, long)]
    quiet: bool,
}

/// Reads a file of cameras: `[serve]`, `[cameras.NAME]`, and beside them the sections of any configuration.
///
/// # Errors
/// When it cannot be read, is not TOML, names no camera, or has an unknown key or a value out of range.
pub fn read(path: &Path) -> Result<(FleetConfig, Config), ConfigError> {
    let wrong = |e: toml::de::Error| ConfigError::wrong(path, e);
    let mut table: toml::Table = toml::from_str(&Config::text(path)?).map_err(wrong)?;
    let mut own = match table.remove("serve") {
        Some(toml::Value::Table(own)) => own,
        None => toml::Table::new(),
        Some(_) => return Err(ConfigError::wrong(path, "serve is no section; write [serve]")),
    };
    if own.contains_key("cameras") {
        return Err(ConfigError::wrong(path, "cameras stand at the top: write [cameras.NAME], not [serve.cameras.NAME]"));
    }
    own.extend(table.remove("cameras").map(|cameras| ("cameras".to_string(), cameras)));
    let fleet: FleetConfig = own.try_into().map_err(wrong)?;
    fleet.validate()?;
    if fleet.cameras.is_empty() {
        return Err(ConfigError::wrong(path, "it names no camera; add a section [cameras.NAME] with url = \"rtsp://…\""));
    }
    for (name, camera) in &fleet.cameras {
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
            return Err(ConfigError::wrong(
                path,
                format!("the camera's name '{name}' may have letters, digits, '-', '_' and '.' only: it becomes a part of addresses"),
            ));
        }
        if camera.url.is_empty() {
            return Err(ConfigError::wrong(path, format!("cameras.{name} has no url")));
        }
    }
    let text = toml::to_string(&table).map_err(|e| ConfigError::wrong(path, e))?;
    Ok((fleet, Config::from_toml(&text, path)?))
}

/// Runs the command. Exit code 130 after Ctrl-C, 1 when a camera could not be read to its end.
///
/// # Errors
/// Whatever ended the run for all cameras.
pub fn run(args: &ServeArgs) -> Result<ExitCode> {
    let (fleet, config) = read(&args.config)?;
    let mut read = vec![args.config.clone()];
    for (name, camera) in fleet.cameras.iter().filter(|(_, camera)| !camera.has_address()) {
        let file = PathBuf::from(&camera.url);
        if !file.exists() {
            bail!("cameras.{name}: {}", source::SourceError::Missing(file));
        }
        read.push(file);
    }
    spare([&args.output].into_iter(), &read)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().context("cannot start the async runtime")?;
    runtime.block_on(serve(args, fleet, config))
}

async fn serve(args: &ServeArgs, fleet: FleetConfig, config: Config) -> Result<ExitCode> {
    let networks = Runtime::load()?;
    let detector = Detector::open(&networks, &config.detector, config.session())?;
    let embedder = if config.embedder.enabled { Some(Embedder::open(&networks, &config.embedder, config.session())?) } else { None };
    let stop = CancellationToken::new();
    let watching = tokio::spawn(stop_on_signal(stop.clone()));
    let asked = stop.clone();
    let fleet = Fleet {
        config: fleet,
        detector,
        embedder,
        tracker: config.tracker(false),
        run: uuid::Uuid::now_v7(),
        sinks: vec![Box::new(JsonLines::create(&args.output, true, config.output.ended)?)],
        output: config.output.clone(),
        stop,
    };
    let counts = fleet.run().await?;
    let interrupted = asked.is_cancelled();
    watching.abort();
    if !args.quiet {
        counts.iter().for_each(|(name, c)| eprintln!("{}", told(name, c)));
    }
    let failed = counts.values().any(|c| c.failures.load(Ordering::Relaxed) > 0 && c.read.load(Ordering::Relaxed) == 0);
    Ok(if interrupted {
        ExitCode::from(130)
    } else if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// One camera's line of the summary.
fn told(name: &str, c: &CameraCounts) -> String {
    let n = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let latency = |share| c.latency(share).map_or("-".into(), |s| format!("{:.0} ms", 1000.0 * s));
    format!(
        "{name}: {} frames read, {} tracked, {} dropped (detector busy), {} dropped (sink slow), {} people, latency {} (median) {} (p95), {} failures",
        n(&c.read),
        n(&c.tracked),
        n(&c.detector_busy),
        n(&c.sink_slow),
        n(&c.people),
        latency(0.5),
        latency(0.95),
        n(&c.failures),
    )
}
