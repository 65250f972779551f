//! `twintrack serve`: many cameras in one process.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::app::track::{spare, stop_on_signal};
use crate::config::{Config, ConfigError};
use crate::detect::Detector;
use crate::embed::Embedder;
use crate::infer::Runtime;
use crate::pipeline::cameras::{Cameras, Member};
use crate::pipeline::fleet::{Fleet, FleetConfig};
use crate::pipeline::fleet_metrics::FleetMetrics;
use crate::pipeline::roster::Wanted;
use crate::sink::jsonl::JsonLines;
use crate::source::{self, playback};

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
    let cameras = Cameras::default();
    let (tell, changes) = mpsc::channel(1);
    let reloading = tokio::spawn(reload_on_signal(args.config.clone(), fleet.clone(), config.clone(), tell));
    let fleet = Fleet {
        config: fleet,
        detector,
        embedder,
        tracker: config.tracker(false),
        run: uuid::Uuid::now_v7(),
        sinks: vec![Box::new(JsonLines::create(&args.output, true, config.output.ended)?)],
        output: config.output.clone(),
        open: Arc::new(playback::open),
        cameras: cameras.clone(),
        metrics: FleetMetrics::default(),
        changes,
        stop,
    };
    fleet.run().await?;
    let interrupted = asked.is_cancelled();
    watching.abort();
    reloading.abort();
    let cameras = cameras.all();
    if !args.quiet {
        cameras.iter().for_each(|c| eprintln!("{}", told(c)));
    }
    let failed = cameras.iter().map(|c| &c.counts).any(|c| c.failures.load(Ordering::Relaxed) > 0 && c.read.load(Ordering::Relaxed) == 0);
    Ok(if interrupted {
        ExitCode::from(130)
    } else if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// SIGHUP: the file of cameras is read again. One that is wrong changes nothing.
async fn reload_on_signal(path: PathBuf, fleet: FleetConfig, config: Config, tell: mpsc::Sender<Wanted>) {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut hangup) = signal(SignalKind::hangup()) else {
        tracing::error!("SIGHUP cannot be listened for: the file of cameras is not read again");
        return;
    };
    while hangup.recv().await.is_some() {
        let (again, other) = match read(&path) {
            Ok(both) => both,
            Err(e) => {
                tracing::error!(error = %e, "the file of cameras is wrong; everything stays as it was");
                continue;
            }
        };
        let same = FleetConfig { cameras: fleet.cameras.clone(), ..again.clone() } == fleet && other == config;
        if !same {
            tracing::warn!("only [cameras] can change while running; for the other changes start anew");
        }
        tracing::warn!(cameras = again.cameras.len(), "the file of cameras has been read again");
        if tell.send(again.cameras).await.is_err() {
            return;
        }
    }
}

/// One camera's line of the summary.
fn told(camera: &Member) -> String {
    let c = &camera.counts;
    let n = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let latency = |share| c.latency(share).map_or("-".into(), |s| format!("{:.0} ms", 1000.0 * s));
    format!(
        "{}: {} frames read, {} tracked, {} dropped (decoded late), {} dropped (detector busy), {} dropped (sink slow), {} people, latency {} (median) {} (p95), {} reconnects, {} failures",
        camera.name,
        n(&c.read),
        n(&c.tracked),
        camera.late(),
        n(&c.detector_busy),
        n(&c.sink_slow),
        n(&c.people),
        latency(0.5),
        latency(0.95),
        camera.reconnects(),
        n(&c.failures),
    )
}
