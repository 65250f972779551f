//! `twintrack history`: stores a fleet's events, and serves API and dashboard for the whole fleet.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::app::serve::fleet::connect;
use crate::app::serve::{listen, url_of};
use crate::app::signals::Signals;
use crate::app::{networks, people};
use twintrack::config::Config;
use twintrack::embed::Embedder;
use twintrack::fleet::buckets::{Fleet, REQUEST};
use twintrack::fleet::history_consumer::HistoryConsumer;
use twintrack::fleet::live_feed::LiveFeed;
use twintrack::pipeline::{CameraConfigs, Cameras};
use twintrack::serve::access::control::AccessControl;
use twintrack::serve::camera_settings::CameraSettings;
use twintrack::serve::config::ServiceConfig;
use twintrack::serve::health::HealthMonitor;
use twintrack::serve::hub::Hub;
use twintrack::serve::people::People;
use twintrack::serve::service::Service;
use twintrack::serve::stage_metrics::StageMetrics;
use twintrack::serve::{metrics, server};
use twintrack::sink::counts::Counts;
use twintrack::store::{History, HistoryConfig};

/// Store the events of a fleet in the history, and serve API and dashboard for all its cameras. Any
/// number of these processes share the work; workers need no history of their own.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// Configuration (TOML): [fleet] with the NATS server, [history] with the database, [serve]
    /// with the address of API and dashboard (listen = "" for none), see docs/guide/fleet.md.
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Address of the fleet's NATS server; overrides `fleet.nats`.
    #[arg(long, value_name = "URL")]
    nats: Option<String>,
    /// Print no summary.
    #[arg(short, long)]
    quiet: bool,
}

/// Runs the command until SIGTERM or SIGINT.
///
/// # Errors
/// When the configuration is invalid or has no history, the database cannot be used, or the port
/// cannot be opened.
pub fn run(args: &HistoryArgs) -> Result<ExitCode> {
    let (mut service, config) = ServiceConfig::read_partial(&args.config)?;
    if let Some(url) = &args.nats {
        let fleet = service.fleet.take().unwrap_or_default();
        service.fleet = Some(fleet.with_nats(url.clone()));
    }
    let file = args.config.display();
    if service.fleet.is_none() {
        bail!("{file}: which fleet? Add [fleet] with nats = \"nats://HOST:4222\", or give --nats");
    }
    let Some(history) = service.history.clone() else {
        bail!("{file}: where to store? Add a section [history]");
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    runtime.block_on(store(args, service, config, history))
}

async fn store(
    args: &HistoryArgs,
    service: ServiceConfig,
    config: Config,
    history: HistoryConfig,
) -> Result<ExitCode> {
    let (Some(fleet), Some(events)) = (&service.fleet, service.event_stream()) else {
        bail!("there is no fleet");
    };
    let signals = Signals::listen();
    let server = listen(&service).await?;
    let run = uuid::Uuid::now_v7();
    let history = History::open(&history, &service.serve.state(), run)?;
    let stop = signals.stop();
    let fleet = connect(fleet, &service, REQUEST, &stop).await?;
    let embedder = networks::embedder(&config)?.filter(|_| config.privacy.embeddings);
    let matching = people::matching(&service, embedder.as_ref())?;
    let matching = matching.map(|m| m.start(&history)).transpose()?;
    let stream = events.stream.clone().unwrap_or_default();
    let consumer = HistoryConsumer::new(fleet.clone(), &stream, &events.subject, history.clone());
    let storing = tokio::spawn(consumer.run(stop.clone()));
    let ended = CancellationToken::new();
    let serving = server.map(|(listener, access)| {
        if !args.quiet {
            let url = url_of(&listener, &access);
            eprintln!("API and dashboard of the fleet: {url}");
        }
        let web = Web {
            fleet,
            subject: events.subject,
            history: history.clone(),
            run,
        };
        web.serve(listener, access, &service, &config, embedder, &ended)
    });
    let serving = serving.transpose()?;
    let _ = storing.await; // it has logged its errors
    drop(matching);
    ended.cancel();
    for task in serving.into_iter().flatten() {
        let _ = task.await;
    }
    history.close(Duration::from_secs_f64(service.serve.stop_within));
    let closed = history.clone();
    let finished = tokio::task::spawn_blocking(move || closed.finish()).await;
    let finished = matches!(finished, Ok(Ok(())));
    if !args.quiet {
        let counts = history.counts();
        eprintln!(
            "history: {} changes stored, {} left out (of an older lease), {} refused",
            counts.stored.load(Ordering::Relaxed),
            counts.outdated.load(Ordering::Relaxed),
            counts.refused.load(Ordering::Relaxed),
        );
    }
    let code = if finished {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    };
    Ok(signals.code(finished).unwrap_or(code))
}

/// The web server of a fleet.
struct Web {
    fleet: Fleet,
    subject: String,
    history: History,
    run: uuid::Uuid,
}

impl Web {
    /// Starts the web server and what feeds it.
    fn serve(
        self,
        listener: tokio::net::TcpListener,
        access: AccessControl,
        service: &ServiceConfig,
        config: &Config,
        embedder: Option<Embedder>,
        ended: &CancellationToken,
    ) -> Result<Vec<tokio::task::JoinHandle<()>>> {
        let (cameras, hub) = (Cameras::default(), Hub::new(service.serve.replay()));
        let counts = Counts::default();
        let settings = CameraSettings::of_fleet(&service.serve.state());
        let (configs, mut changes) = watch::channel(CameraConfigs::new());
        let feed = LiveFeed {
            fleet: self.fleet.clone(),
            subject: self.subject,
            sinks: vec![Box::new(hub.clone()), Box::new(counts.clone())],
            cameras: cameras.clone(),
            configs,
            leases: BTreeMap::new(),
        };
        let (updated, seen) = (settings.clone(), hub.clone());
        let updating = tokio::spawn(async move {
            while changes.changed().await.is_ok() {
                let configs = changes.borrow_and_update().clone();
                let names: Vec<Arc<str>> = configs.keys().map(|n| n.as_str().into()).collect();
                updated.set_configured(configs);
                seen.retain_cameras(&names);
            }
        });
        let people = embedder.map(|e| People::new(config.clone(), e.identity(), e.calibration()));
        let (stages, health) = (StageMetrics::default(), HealthMonitor::default());
        let registry = metrics::registry(
            &stages,
            cameras.clone(),
            hub.clone(),
            Vec::new(),
            None,
            counts,
            Some(self.history.clone()),
        );
        let monitoring = tokio::spawn(health.clone().run(cameras.clone(), ended.clone()));
        let web = Service {
            run: self.run,
            cameras,
            hub,
            settings,
            history: Some(self.history),
            people,
            identities: Arc::new(Notify::new()),
            fleet: Some(self.fleet.clone()),
            registry: Arc::new(registry),
            health,
            openapi: Arc::new(server::openapi(access.base_path().as_str())),
            access,
            stop: ended.clone(),
        };
        let max_connections = service.serve.max_connections;
        Ok(vec![
            tokio::spawn(server::run(listener, web, max_connections)),
            monitoring,
            tokio::spawn(feed.run(ended.clone())),
            updating,
        ])
    }
}
