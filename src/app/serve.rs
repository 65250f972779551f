//! `twintrack serve`: tracks many cameras in one process, as a service.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::app::signals::Signals;
use crate::app::{identities, networks, outputs, people as persons, show};
use twintrack::config::Config;
use twintrack::embed::Embedder;
use twintrack::frame::CameraState;
use twintrack::pipeline::{Cameras, DetectionSource, Inputs, Member, Pipeline, PipelineError};
use twintrack::serve::access::control::AccessControl;
use twintrack::serve::camera_settings::CameraSettings;
use twintrack::serve::config::ServiceConfig;
use twintrack::serve::health::HealthMonitor;
use twintrack::serve::hub::Hub;
use twintrack::serve::metrics;
use twintrack::serve::people::People;
use twintrack::serve::server;
use twintrack::serve::service::Service;
use twintrack::serve::stage_metrics::StageMetrics;
use twintrack::sink::mqtt::MqttConfig;
use twintrack::sink::nats::NatsConfig;
use twintrack::sink::webhook::WebhookConfig;
use twintrack::source::{self, Hardware, Transport, playback};
use twintrack::store::{History, HistoryConfig};

pub(super) mod fleet;
mod reload;
mod sinks;

use fleet::Membership;
use reload::{Applying, GalleryInUse, Reload, declare, shapes_of};
use sinks::Outputs;

/// Track many cameras at once, with one detector for all.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The cameras and all other settings (TOML): [cameras.NAME] with a `url` each, see
    /// docs/reference/cameras.md.
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// File for the events of all cameras, one JSON object per line; `-` is standard output.
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    output: PathBuf,
    /// Identify the people of a gallery: a folder with one picture per person, named after the
    /// person, or with a subfolder of pictures for each person. Read again on SIGHUP.
    #[arg(long, value_name = "DIR")]
    gallery: Option<PathBuf>,
    /// Check the configuration, its secrets, the networks and the gallery, without opening a
    /// camera, a port or a connection; then exit.
    #[arg(long)]
    check: bool,
    /// Print no summary.
    #[arg(short, long)]
    quiet: bool,
}

impl ServeArgs {
    /// RTSP transport and hardware decoder of the cameras; the defaults if the configuration is
    /// invalid, which [`run`] reports.
    pub fn decoding(&self) -> (Transport, Hardware) {
        ServiceConfig::read(&self.config)
            .map(|(service, config)| (service.transport(), config.source.hardware))
            .unwrap_or_default()
    }
}

/// Runs the command. The exit code after SIGINT (Ctrl-C) is 130; after SIGTERM it is 0, or 143 if
/// the shutdown timed out or changes of the history were not stored in time. Without a signal it is
/// 1 if an error ended a camera, a camera failed and delivered no frame, a network failed on frames
/// of a camera and no frame of it was tracked, the shutdown timed out, or changes of the history
/// were not stored in time; else 0.
///
/// # Errors
/// If the configuration, a network, the gallery, an output or the port cannot be used, or an error
/// ends the run for all cameras.
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
    check_addresses(&service)?;
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

/// Checks the addresses of the cameras.
///
/// # Errors
/// The first invalid address.
fn check_addresses(service: &ServiceConfig) -> Result<()> {
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
    Ok(())
}

/// Checks settings, secrets, networks and gallery, without opening cameras, receivers or ports.
///
/// # Errors
/// The first invalid setting, secret, network or gallery.
fn check(args: &ServeArgs, service: &ServiceConfig, config: &Config) -> Result<ExitCode> {
    if let Some((address, token)) = service.serve.listen_address().map_err(anyhow::Error::msg)? {
        AccessControl::open(&service.serve, address, token).map_err(anyhow::Error::msg)?;
    }
    CameraSettings::open(service.cameras.clone(), &service.serve.state())?;
    service.mqtt.iter().try_for_each(MqttConfig::check)?;
    service
        .event_stream()
        .iter()
        .try_for_each(NatsConfig::check)?;
    service.webhook.iter().try_for_each(WebhookConfig::check)?;
    service.history.iter().try_for_each(HistoryConfig::check)?;
    show::detector(&networks::detector(config)?);
    let mut embedder = networks::embedder(config)?;
    embedder.iter().for_each(show::embedder);
    persons::matching(service, embedder.as_ref())?;
    identities::registry(
        args.gallery.as_deref(),
        false,
        config,
        &mut embedder,
        args.quiet,
    )?;
    if !args.quiet {
        let (file, cameras) = (args.config.display(), service.cameras.len());
        eprintln!("{file}: the settings, the networks and {cameras} cameras are valid");
    }
    Ok(ExitCode::SUCCESS)
}

/// Address of the dashboard, for messages.
pub(super) fn url_of(listener: &TcpListener, access: &AccessControl) -> String {
    let address = listener.local_addr();
    let address = address.map_or_else(|e| e.to_string(), |a| a.to_string());
    let scheme = access.certificate().map_or("http", |_| "https");
    format!("{scheme}://{address}{}", access.base_path().as_str())
}

/// Opens the port of the web server; None if it is switched off.
///
/// # Errors
/// When the address, the accounts or the certificate are invalid, or the port cannot be opened.
pub(super) async fn listen(
    service: &ServiceConfig,
) -> Result<Option<(TcpListener, AccessControl)>> {
    let listen = service.serve.listen_address().map_err(anyhow::Error::msg)?;
    let Some((address, token)) = listen else {
        return Ok(None);
    };
    let access = AccessControl::open(&service.serve, address, token);
    let access = access.map_err(anyhow::Error::msg)?;
    Ok(Some((server::listen(address).await?, access)))
}

async fn serve(args: &ServeArgs, service: ServiceConfig, config: Config) -> Result<ExitCode> {
    let server = listen(&service).await?;
    let mut detector = networks::detector(&config)?;
    let signals = Signals::listen();
    let membership = Membership::join(&service, &mut detector, &signals.stop()).await?;
    let is_worker = membership.is_some();
    let batch = service.batch(detector.model().provider().is_gpu());
    let mut embedder = networks::embedder(&config)?;
    show::detector(&detector);
    embedder.iter().for_each(show::embedder);
    let matching = persons::matching(&service, embedder.as_ref())?;
    // People can be enrolled by their stored embeddings.
    let enrolling = service.history.as_ref().is_some_and(|h| h.embeddings);
    let identities = identities::registry(
        args.gallery.as_deref(),
        enrolling,
        &config,
        &mut embedder,
        args.quiet,
    )?;
    let hub = Hub::new(service.serve.replay());
    let (cameras, metrics) = (Cameras::default(), StageMetrics::default());
    let state = service.serve.state();
    let settings = match is_worker {
        true => CameraSettings::of_fleet(&state),
        false => CameraSettings::open(service.cameras.clone(), &state)?,
    };
    // Subscribed before clients are served, so that none of their changes is missed.
    let mut used = settings.used();
    let configs = used.borrow_and_update().clone();
    let (send_shapes, shapes) = watch::channel(shapes_of(&configs));
    let run = uuid::Uuid::now_v7();
    let live = server.is_some().then_some(&hub);
    let tenure = membership.as_ref().map(|m| &m.tenure);
    let outputs = Outputs::open(&args.output, &service, &config, live, shapes, run, tenure)?;
    declare(&outputs.counts, &configs);
    let may_embed = |_: &&Embedder| config.privacy.embeddings;
    let people = embedder.as_ref().filter(may_embed).map(|e| {
        let calibration = e.calibration();
        People::new(config.clone(), e.identity(), calibration)
    });
    let counts = outputs.counts.clone();
    let stored = service.history.as_ref();
    let matching = matching.zip(outputs.history.as_ref());
    let matching = matching.map(|(m, history)| m.start(history)).transpose()?;
    let enrolled = Arc::new(Notify::new());
    // Cancelled when the pipeline has ended; the web server runs until then.
    let ended = CancellationToken::new();
    let health = HealthMonitor::default();
    let monitoring = tokio::spawn(health.clone().run(cameras.clone(), ended.clone()));
    let max_connections = service.serve.max_connections;
    let serving = server.map(|(listener, access)| {
        if !args.quiet {
            let url = url_of(&listener, &access);
            eprintln!("page, live events and metrics: {url}");
        }
        let registry = metrics::registry(
            &metrics,
            cameras.clone(),
            hub.clone(),
            outputs.spools,
            Some(outputs.dropped),
            outputs.counts,
            outputs.history.clone(),
        );
        let service = Service {
            run,
            cameras: cameras.clone(),
            hub: hub.clone(),
            settings: settings.clone(),
            history: outputs.history.clone(),
            people: people.clone(),
            identities: enrolled.clone(),
            fleet: membership.as_ref().map(|m| m.fleet.clone()),
            registry: Arc::new(registry),
            health,
            openapi: Arc::new(server::openapi(access.base_path().as_str())),
            access,
            stop: ended.clone(),
        };
        tokio::spawn(server::run(listener, service, max_connections))
    });
    let (send_changes, changes) = mpsc::channel(1);
    let applying = Applying {
        used,
        shapes: send_shapes,
        counts: counts.clone(),
        hub,
        cameras: send_changes,
    };
    let applying = tokio::spawn(applying.run());
    let (send_gallery, gallery) = watch::channel(Vec::new());
    let people = GalleryInUse {
        folder: identities
            .as_ref()
            .map_or_else(Vec::new, |r| r.gallery().to_vec()),
        history: outputs.history.clone(),
        embedder: people.map(|p| p.embedder().to_string()),
        send: send_gallery,
    };
    let left = CancellationToken::new(); // the worker leaves its fleet
    // A worker always has a NATS sink.
    let worker = membership
        .zip(outputs.nats_spool)
        .map(|(membership, spool)| {
            membership.start(
                cameras.clone(),
                spool,
                settings.clone(),
                signals.stop(),
                left.clone(),
            )
        });
    let reload = Reload {
        path: args.config.clone(),
        service: service.clone(),
        config: config.clone(),
        gallery: args.gallery.clone(),
        settings,
        enrolled,
    };
    let reloading = tokio::spawn(reload.run(people));
    notify_systemd(sd_notify::NotifyState::Ready);
    let stopping = signals.stop();
    tokio::spawn(async move {
        stopping.cancelled().await;
        notify_systemd(sd_notify::NotifyState::Stopping);
    });

    let decoding = config.source;
    let inputs = Inputs::Many {
        waits: is_worker,
        configs,
        changes,
        open: Arc::new(move |camera, options| {
            playback::open(camera, &options.clone().with_decoding(decoding))
        }),
    };
    let detections = DetectionSource::Network(Box::new(detector));
    let pipeline = Pipeline {
        embed_policy: networks::embed_policy(&config, embedder.as_ref()),
        cadence: networks::cadence(&config, &detections),
        embedder,
        tracker: config.tracker(false),
        embeddings: config.output.embeddings || stored.is_some_and(|h| h.embeddings),
        identities,
        gallery,
        run,
        sinks: outputs.sinks,
        output: config.output.clone(),
        blur: config.privacy.blur,
        counting: config.counting.clone(),
        batch,
        observer: Arc::new(metrics),
        cameras: cameras.clone(),
        stop: signals.stop(),
        finish_within: Some(Duration::from_secs_f64(service.serve.stop_within)),
        ..Pipeline::new(inputs, detections)
    };
    let result = pipeline.run().await;
    drop(matching);
    left.cancel();
    let is_worker_sound = match worker {
        Some(worker) => worker.await.unwrap_or(false), // it has logged its errors
        None => true,
    };
    ended.cancel();
    reloading.abort();
    applying.abort();
    if let Some(serving) = serving {
        let _ = serving.await; // the server has logged its errors
    }
    let _ = monitoring.await; // it returns no errors
    let finished = match result {
        Err(e @ PipelineError::ShutdownTimeout { .. }) => {
            tracing::error!("{e}");
            false
        }
        result => result.map(|_| true)?,
    };
    let lost = |h: &History| h.counts().shutdown.load(Ordering::Relaxed) > 0;
    let finished = finished && is_worker_sound && !outputs.history.as_ref().is_some_and(lost);
    if !args.quiet {
        eprint!("{}", show::counts(&counts, true));
    }
    if let Some(history) = outputs.history.filter(|_| !args.quiet) {
        eprintln!("{}", history_summary(&history));
    }
    Ok(conclude(args, &cameras.all(), finished, &signals))
}

/// Prints the summary, and decides the exit code.
fn conclude(args: &ServeArgs, cameras: &[Member], finished: bool, signals: &Signals) -> ExitCode {
    if !args.quiet {
        cameras.iter().for_each(|c| eprintln!("{}", summary(c)));
        eprint!("{}", show::written(&[("events", Some(&args.output))]));
    }
    let n = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let failed = cameras.iter().any(|m| {
        // An error ended the camera, or it failed and delivered no frame, or a network failed and
        // no frame was tracked.
        (m.state() == CameraState::Ended && m.link.reason().is_some())
            || (m.failures() > 0 && n(&m.counts.read) == 0)
            || (n(&m.counts.network_failed) > 0 && n(&m.counts.tracked) == 0)
    });
    let code = if failed || !finished {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    };
    signals.code(finished).unwrap_or(code)
}

/// Notifies systemd, if systemd started the service with a notification socket.
fn notify_systemd(state: sd_notify::NotifyState<'_>) {
    if let Err(e) = sd_notify::notify(&[state]) {
        tracing::warn!(error = %e, "cannot notify systemd");
    }
}

/// One camera's line of the summary.
fn summary(camera: &Member) -> String {
    let c = &camera.counts;
    let n = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let latency = |share| {
        c.latency(share)
            .map_or("-".into(), |s| format!("{:.0} ms", 1000.0 * s))
    };
    format!(
        "{}: {} frames read, {} tracked, {} skipped, {} dropped (decoded late), \
         {} dropped (detector busy), {} dropped (network failed), {} dropped (sink slow), {} people, latency {} (median) {} \
         (p95), {} reconnects, {} failures",
        camera.name,
        n(&c.read),
        n(&c.tracked),
        n(&c.skipped),
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

/// The history's line of the summary.
fn history_summary(history: &History) -> String {
    let counts = history.counts();
    let [(_, queue_full), (_, refused), (_, shutdown)] = counts.dropped();
    format!(
        "history: {} changes stored, {queue_full} dropped (database slow), {refused} dropped \
         (refused), {shutdown} dropped (shutdown)",
        counts.stored.load(Ordering::Relaxed)
    )
}
