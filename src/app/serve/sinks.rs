//! The sinks of `twintrack serve`.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::Result;
use tokio::sync::watch;

use twintrack::config::Config;
use twintrack::fleet::tenure::{Tenure, WhileTenured};
use twintrack::serve::config::{ServeConfig, ServiceConfig};
use twintrack::serve::hub::Hub;
use twintrack::sink::Sink;
use twintrack::sink::counts::Counts;
use twintrack::sink::home_assistant::CameraShapes;
use twintrack::sink::rotating::Rotating;
use twintrack::sink::spool::Spool;
use twintrack::sink::stdout::StdoutSink;
use twintrack::sink::without_embeddings::WithoutEmbeddings;
use twintrack::store::{History, HistorySink};
use twintrack::trajectory::RunId;

/// The sinks, and their counters for the metrics.
pub(super) struct Outputs {
    pub sinks: Vec<Box<dyn Sink>>,
    pub spools: Vec<Arc<Spool>>,
    /// The spool of the NATS sink among them, if there is one.
    pub nats_spool: Option<Arc<Spool>>,
    /// Number of events dropped because they could not be written to the file or standard output.
    pub dropped: Arc<AtomicU64>,
    /// Numbers of people in zones and over lines.
    pub counts: Counts,
    pub history: Option<History>,
}

impl Outputs {
    /// Creates the file `output`, and starts the deliveries and the history. `hub` is `None` if
    /// there is no web server; `tenure` is `None` if the service is no worker of a fleet.
    pub fn open(
        output: &Path,
        service: &ServiceConfig,
        config: &Config,
        hub: Option<&Hub>,
        shapes: watch::Receiver<Vec<CameraShapes>>,
        run: RunId,
        tenure: Option<&Tenure>,
    ) -> Result<Self> {
        let ServeConfig {
            output_bytes,
            output_keep,
            stop_within,
            ..
        } = service.serve;
        // The hub keeps each camera's latest frame.
        let mut sinks: Vec<Box<dyn Sink>> = Vec::new();
        sinks.extend(hub.map(|hub| Box::new(hub.clone()) as Box<dyn Sink>));
        let counts = Counts::default();
        sinks.push(Box::new(counts.clone()));
        let (mut spools, mut nats_spool) = (Vec::new(), None);
        let (state, shutdown) = (service.serve.state(), Duration::from_secs_f64(stop_within));
        if let Some(mqtt) = &service.mqtt {
            let spool = Spool::open(&state, "mqtt", mqtt.spool)?;
            spools.push(spool.clone());
            sinks.push(Box::new(mqtt.start(spool, shutdown, shapes)?));
        }
        if let Some(nats) = service.event_stream() {
            let spool = Spool::open(&state, "nats", nats.spool)?;
            spools.push(spool.clone());
            nats_spool = Some(spool.clone());
            sinks.push(Box::new(nats.start(spool, shutdown)?));
        }
        if let Some(webhook) = &service.webhook {
            let spool = Spool::open(&state, "webhook", webhook.spool)?;
            spools.push(spool.clone());
            sinks.push(Box::new(webhook.start(spool, shutdown)?));
        }
        let dropped = if output == Path::new("-") {
            let (stdout, dropped) = StdoutSink::stdout(config.output.ended, shutdown)?;
            sinks.push(Box::new(stdout));
            dropped
        } else {
            let (file, dropped) =
                Rotating::open(output, output_bytes, output_keep, config.output.ended)?;
            sinks.push(Box::new(file));
            dropped
        };
        let history = match &service.history {
            Some(history) => Some(History::open(history, &state, run)?),
            None => None,
        };
        if let Some(history) = &history {
            if history.config().embeddings && !config.output.embeddings {
                sinks = vec![Box::new(WithoutEmbeddings::new(sinks))];
            }
            sinks.push(Box::new(HistorySink::new(history.clone(), shutdown)));
        }
        if let Some(tenure) = tenure {
            sinks = vec![Box::new(WhileTenured::new(sinks, tenure.clone()))];
        }
        Ok(Outputs {
            sinks,
            spools,
            nats_spool,
            dropped,
            counts,
            history,
        })
    }
}
