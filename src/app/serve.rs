//! `twintrack serve`: many cameras in one process.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::app::signals::Signals;
use crate::app::{identities, outputs, show};
use twintrack::config::Config;
use twintrack::detect::Detector;
use twintrack::embed::Embedder;
use twintrack::gallery::GalleryReader;
use twintrack::infer::Runtime;
use twintrack::pipeline::{
    CameraConfigs, Cameras, DetectionSource, Inputs, Member, Pipeline, PipelineError,
};
use twintrack::serve::config::{ServeConfig, ServiceConfig};
use twintrack::serve::health::HealthMonitor;
use twintrack::serve::hub::Hub;
use twintrack::serve::metrics;
use twintrack::serve::server;
use twintrack::serve::service::Service;
use twintrack::serve::stage_metrics::StageMetrics;
use twintrack::sink::Sink;
use twintrack::sink::mqtt::MqttConfig;
use twintrack::sink::rotating::Rotating;
use twintrack::sink::spool::Spool;
use twintrack::sink::stdout::StdoutSink;
use twintrack::sink::webhook::WebhookConfig;
use twintrack::source::{self, Transport, playback};
use twintrack::track::identity::GalleryPerson;

/// Track many cameras at once, with one detector for all.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The cameras and all other settings (TOML): [cameras.NAME] with a `url` each, see
    /// docs/reference/cameras.md.
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Where the events of all cameras go, a JSON object a line; - is standard output.
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    output: PathBuf,
    /// Name the people of a gallery: a folder with one picture a person, the file's name is the
    /// person's. Read again on SIGHUP.
    #[arg(long, value_name = "DIR")]
    gallery: Option<PathBuf>,
    /// Check the file, its secrets, the networks and the gallery, without opening a camera or a port;
    /// then exit.
    #[arg(long)]
    check: bool,
    /// No summary.
    #[arg(short, long)]
    quiet: bool,
}

impl ServeArgs {
    /// How the cameras' pictures are carried; what is wrong with the file is told when the command
    /// runs.
    pub fn transport(&self) -> Transport {
        ServiceConfig::read(&self.config)
            .map(|(service, _)| service.transport())
            .unwrap_or_default()
    }
}

/// Runs the command. Exit code 130 after Ctrl-C; 0 after SIGTERM, 143 where a way out could not be
/// finished in time; 1 when a camera could not be read at all.
///
/// # Errors
/// Whatever ended the run for all cameras.
pub fn run(args: &ServeArgs) -> Result<ExitCode> {
    let (service, config) = ServiceConfig::read(&args.config)?;
    let mut read = vec![args.config.clone()];
    for (name, camera) in service
        .cameras
        .iter()
        .filter(|(_, camera)| !camera.has_address())
    {
        let file = source::path_of(camera.url.expose());
        if !file.exists() {
            bail!("cameras.{name}: {}", source::SourceError::Missing(file));
        }
        read.push(file);
    }
    if args.check {
        return check(args, &service, &config);
    }
    outputs::prepare([&args.output], &read)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    runtime.block_on(serve(args, service, config))
}

/// Checks everything that can be checked without cameras, receivers and ports.
///
/// # Errors
/// The first thing that is wrong.
fn check(args: &ServeArgs, service: &ServiceConfig, config: &Config) -> Result<ExitCode> {
    service.serve.listen_address().map_err(anyhow::Error::msg)?;
    for (name, camera) in &service.cameras {
        let address = camera
            .address()
            .with_context(|| format!("cameras.{name}"))?;
        if camera.has_address() {
            address
                .check()
                .map_err(|reason| anyhow::anyhow!("cameras.{name}.url: {reason}"))?;
        }
    }
    service.mqtt.iter().try_for_each(MqttConfig::check)?;
    service.webhook.iter().try_for_each(WebhookConfig::check)?;
    let runtime = Runtime::load()?;
    show::detector(&Detector::open(
        &runtime,
        &config.detector,
        config.session(),
    )?);
    let mut embedder = None;
    if config.embedder.enabled {
        embedder = Some(Embedder::open(
            &runtime,
            &config.embedder,
            config.session(),
        )?);
    }
    embedder.iter().for_each(show::embedder);
    identities::registry(args.gallery.as_deref(), config, &mut embedder, args.quiet)?;
    if !args.quiet {
        let (file, cameras) = (args.config.display(), service.cameras.len());
        eprintln!("{file}: {cameras} cameras, settings and networks are valid");
    }
    Ok(ExitCode::SUCCESS)
}

/// The ways out, and what is to be known of them.
struct Ways {
    sinks: Vec<Box<dyn Sink>>,
    spools: Vec<Arc<Spool>>,
    lost: Option<Arc<AtomicU64>>,
}

fn ways(args: &ServeArgs, service: &ServiceConfig, config: &Config, hub: &Hub) -> Result<Ways> {
    let ServeConfig {
        output_bytes,
        output_keep,
        stop_within,
        ..
    } = service.serve;
    let mut ways = Ways {
        sinks: vec![Box::new(hub.clone())],
        spools: Vec::new(),
        lost: None,
    };
    let patience = Duration::from_secs_f64(stop_within);
    if let Some(mqtt) = &service.mqtt {
        let spool = Spool::open(&service.serve.state(), "mqtt", mqtt.spool)?;
        ways.spools.push(spool.clone());
        ways.sinks.push(Box::new(mqtt.start(spool, patience)?));
    }
    if let Some(webhook) = &service.webhook {
        let spool = Spool::open(&service.serve.state(), "webhook", webhook.spool)?;
        ways.spools.push(spool.clone());
        ways.sinks.push(Box::new(webhook.start(spool, patience)?));
    }
    if args.output == Path::new("-") {
        let (stdout, lost) = StdoutSink::stdout(config.output.ended, patience)?;
        ways.sinks.push(Box::new(stdout));
        ways.lost = Some(lost);
    } else {
        let (file, lost) =
            Rotating::open(&args.output, output_bytes, output_keep, config.output.ended)?;
        ways.sinks.push(Box::new(file));
        ways.lost = Some(lost);
    }
    Ok(ways)
}

async fn serve(args: &ServeArgs, service: ServiceConfig, config: Config) -> Result<ExitCode> {
    let door = match service.serve.listen_address().map_err(anyhow::Error::msg)? {
        Some((address, token)) => Some((server::listen(address).await?, token)),
        None => None,
    };
    let networks = Runtime::load()?;
    let detector = Detector::open(&networks, &config.detector, config.session())?;
    let mut embedder = if config.embedder.enabled {
        Some(Embedder::open(
            &networks,
            &config.embedder,
            config.session(),
        )?)
    } else {
        None
    };
    show::detector(&detector);
    embedder.iter().for_each(show::embedder);
    let identities =
        identities::registry(args.gallery.as_deref(), &config, &mut embedder, args.quiet)?;
    let (hub, cameras, metrics, run) = (
        Hub::default(),
        Cameras::default(),
        StageMetrics::default(),
        uuid::Uuid::now_v7(),
    );
    let Ways {
        sinks,
        spools,
        lost,
    } = ways(args, &service, &config, &hub)?;

    let (signals, over) = (Signals::listen(), CancellationToken::new());
    let stop = signals.stop();
    let pulse = HealthMonitor::default();
    let beating = tokio::spawn(pulse.clone().run(cameras.clone(), over.clone()));
    let serving = door.map(|(listener, token)| {
        if !args.quiet {
            eprintln!(
                "page, live events and metrics: http://{}",
                listener
                    .local_addr()
                    .map_or_else(|e| e.to_string(), |a| a.to_string())
            );
        }
        let registry = Arc::new(metrics::registry(
            &metrics,
            cameras.clone(),
            hub.clone(),
            spools,
            lost,
        ));
        let shown = Service {
            run,
            cameras: cameras.clone(),
            hub: hub.clone(),
            registry,
            health: pulse,
            stop: over.clone(),
        };
        tokio::spawn(server::run(listener, shown, token))
    });
    let (tell, changes) = mpsc::channel(1);
    let (show, gallery) = watch::channel(Vec::new());
    let reload = Reload {
        path: args.config.clone(),
        service: service.clone(),
        config: config.clone(),
        gallery: args.gallery.clone(),
    };
    let reloading = tokio::spawn(reload.on_signal(hub, tell, show));
    tell_systemd(sd_notify::NotifyState::Ready);
    let stopping = stop.clone();
    tokio::spawn(async move {
        stopping.cancelled().await;
        tell_systemd(sd_notify::NotifyState::Stopping);
    });

    let pipeline = Pipeline {
        inputs: Inputs::Many {
            configs: service.cameras.clone(),
            changes,
            open: Arc::new(playback::open),
        },
        detections: DetectionSource::Network(Box::new(detector)),
        embedder,
        tracker: config.tracker(false),
        embeddings: config.output.embeddings,
        identities,
        gallery,
        run,
        sinks,
        output: config.output.clone(),
        batch: service.batch(),
        observer: Arc::new(metrics),
        cameras: cameras.clone(),
        stop,
        finish_within: Some(Duration::from_secs_f64(service.serve.stop_within)),
    };
    let ended = pipeline.run().await;
    over.cancel();
    reloading.abort();
    if let Some(serving) = serving {
        let _ = serving.await; // it logs its own errors
    }
    let _ = beating.await; // it has none
    let finished = match ended {
        Err(e @ PipelineError::Hung { .. }) => {
            tracing::error!("{e}");
            false
        }
        ended => ended.map(|_| true)?,
    };
    let cameras = cameras.all();
    if !args.quiet {
        cameras.iter().for_each(|c| eprintln!("{}", told(c)));
        eprint!("{}", show::written(&[("events", Some(&args.output))]));
    }
    let n = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let failed = cameras.iter().any(|m| {
        (m.failures() > 0 && n(&m.counts.read) == 0)
            || (n(&m.counts.network_failed) > 0 && n(&m.counts.tracked) == 0)
    });
    let code = if failed || !finished {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    };
    Ok(signals.code(finished).unwrap_or(code))
}

/// Tells systemd, where it asks for it.
fn tell_systemd(state: sd_notify::NotifyState<'_>) {
    if let Err(e) = sd_notify::notify(&[state]) {
        tracing::warn!(error = %e, "systemd does not hear");
    }
}

/// What is read again on SIGHUP, and what the run began with.
struct Reload {
    path: PathBuf,
    service: ServiceConfig,
    config: Config,
    gallery: Option<PathBuf>,
}

impl Reload {
    /// Waits for SIGHUP, again and again. What is wrong then changes nothing.
    async fn on_signal(
        self,
        hub: Hub,
        tell: mpsc::Sender<CameraConfigs>,
        show: watch::Sender<Vec<GalleryPerson>>,
    ) {
        use tokio::signal::unix::{SignalKind, signal};
        let Ok(mut hangup) = signal(SignalKind::hangup()) else {
            tracing::error!("SIGHUP cannot be listened for: nothing is read again");
            return;
        };
        while hangup.recv().await.is_some() {
            if let Some(cameras) = self.cameras() {
                let names: Vec<Arc<str>> =
                    cameras.keys().map(|name| name.as_str().into()).collect();
                if tell.send(cameras).await.is_err() {
                    return;
                }
                hub.retain_cameras(&names);
            }
            self.gallery(&show).await;
        }
    }

    fn cameras(&self) -> Option<CameraConfigs> {
        let (again, other) = match ServiceConfig::read(&self.path) {
            Ok(both) => both,
            Err(e) => {
                tracing::error!(error = %e, "the file of cameras is wrong; everything stays as it was");
                return None;
            }
        };
        if again.transport() != self.service.transport() {
            tracing::error!(
                "tcp or udp is chosen at the start for all cameras; everything stays as it was"
            );
            return None;
        }
        let same = ServiceConfig {
            cameras: self.service.cameras.clone(),
            ..again.clone()
        } == self.service
            && other == self.config;
        if !same {
            tracing::warn!(
                "only [cameras] can change while running; for the other changes start anew"
            );
        }
        tracing::warn!(
            cameras = again.cameras.len(),
            "the file of cameras has been read again"
        );
        Some(again.cameras)
    }

    /// Reads the gallery with an embedder of its own, beside the one at work.
    async fn gallery(&self, show: &watch::Sender<Vec<GalleryPerson>>) {
        let (Some(dir), config) = (self.gallery.clone(), self.config.clone()) else {
            return;
        };
        let read = tokio::task::spawn_blocking(move || -> Result<Vec<GalleryPerson>> {
            let embedder = Embedder::open(&Runtime::load()?, &config.embedder, config.session())?;
            Ok(GalleryReader::new(embedder, config).gallery(&dir)?)
        });
        match read.await.map_err(anyhow::Error::from).flatten() {
            Ok(people) => {
                tracing::warn!(people = people.len(), "the gallery has been read again");
                show.send_replace(people);
            }
            Err(e) => tracing::error!(error = %e, "the gallery is wrong; it stays as it was"),
        }
    }
}

/// One camera's line of the summary.
fn told(camera: &Member) -> String {
    let c = &camera.counts;
    let n = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let latency = |share| {
        c.latency(share)
            .map_or("-".into(), |s| format!("{:.0} ms", 1000.0 * s))
    };
    format!(
        "{}: {} frames read, {} tracked, {} dropped (decoded late), {} dropped (detector busy), {} left out (network failed), {} dropped (sink slow), {} people, latency {} (median) {} (p95), {} reconnects, {} failures",
        camera.name,
        n(&c.read),
        n(&c.tracked),
        camera.late(),
        n(&c.detector_busy),
        n(&c.network_failed),
        n(&c.sink_slow),
        n(&c.people),
        latency(0.5),
        latency(0.95),
        camera.reconnects(),
        camera.failures(),
    )
}
