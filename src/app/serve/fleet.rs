//! `twintrack serve` as a worker of a fleet.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use twintrack::detect::Detector;
use twintrack::fleet::FleetConfig;
use twintrack::fleet::buckets::{Fleet, WORKER_REQUEST};
use twintrack::fleet::capacity::Capacity;
use twintrack::fleet::records::WorkerRecord;
use twintrack::fleet::tenure::Tenure;
use twintrack::fleet::worker::Worker;
use twintrack::frame::Image;
use twintrack::pipeline::{CameraConfigs, Cameras};
use twintrack::serve::camera_settings::CameraSettings;
use twintrack::serve::config::ServiceConfig;
use twintrack::sink::spool::Spool;

/// Width and height in pixels of the frame with which the detector's speed is measured.
const FRAME: (u32, u32) = (1280, 720);
/// Duration of that measurement.
const MEASURED_FOR: Duration = Duration::from_secs(1);
/// Share of the detector's frames per second that a worker offers: the rest of the time is for
/// decoding, embeddings and association.
const OFFERED: f64 = 0.7;
/// Pause between two attempts to connect.
const RETRY: Duration = Duration::from_secs(2);

/// The membership of a fleet.
pub(super) struct Membership {
    config: FleetConfig,
    pub fleet: Fleet,
    about: WorkerRecord,
    capacity: Capacity,
    pub tenure: Tenure,
}

impl Membership {
    /// Connects to the fleet, if the service is a worker; waits for the server until `stop`.
    ///
    /// # Errors
    /// When the settings are invalid, or `stop` comes before the server can be reached.
    pub async fn join(
        service: &ServiceConfig,
        detector: &mut Detector,
        stop: &CancellationToken,
    ) -> Result<Option<Self>> {
        let Some(config) = &service.fleet else {
            return Ok(None);
        };
        let name = config.worker_name().map_err(anyhow::Error::msg)?;
        service.event_stream().iter().try_for_each(|n| n.check())?;
        let capacity = match config.capacity {
            Some(capacity) => capacity,
            None => frames_per_second(detector)?,
        };
        let listen = &service.serve.listen;
        let about = WorkerRecord {
            name,
            labels: config.label_set(),
            gpu: detector.model().provider().is_gpu(),
            version: env!("CARGO_PKG_VERSION").into(),
            page: (!listen.is_empty()).then(|| listen.clone()),
            ..WorkerRecord::default()
        };
        Ok(Some(Membership {
            fleet: connect(config, service, WORKER_REQUEST, stop).await?,
            config: config.clone(),
            about,
            capacity: Capacity::new(capacity),
            tenure: Tenure::default(),
        }))
    }

    /// Starts the worker; `spool` is that of the fleet's stream. The worker's cameras become those
    /// of `settings`. The worker ends after `ended`. If it ends before, because of a panic, it
    /// cancels `stop`, so that the program ends and can be started again. The result is whether no
    /// task of the worker has panicked.
    pub fn start(
        self,
        cameras: Cameras,
        spool: Arc<Spool>,
        settings: CameraSettings,
        stop: CancellationToken,
        ended: CancellationToken,
    ) -> JoinHandle<bool> {
        let (assigned, mut changes) = watch::channel(CameraConfigs::new());
        let worker = Worker {
            fleet: self.fleet,
            times: self.config.times(),
            about: self.about,
            capacity: self.capacity,
            spool,
            tenure: self.tenure,
            cameras,
            assigned,
        };
        tokio::spawn(async move {
            while changes.changed().await.is_ok() {
                settings.set_configured(changes.borrow_and_update().clone());
            }
        });
        tokio::spawn(async move {
            let _stop = stop.clone().drop_guard();
            worker.run(stop, ended).await
        })
    }
}

/// Connects, and tries again until it succeeds. `request` is the timeout of later requests.
///
/// # Errors
/// When `stop` comes first.
pub async fn connect(
    config: &FleetConfig,
    service: &ServiceConfig,
    request: Duration,
    stop: &CancellationToken,
) -> Result<Fleet> {
    let mut is_logged = false;
    loop {
        let error = match Fleet::connect(config, service.nats.as_ref(), request).await {
            Ok(fleet) => return Ok(fleet),
            Err(error) => error,
        };
        if !is_logged {
            tracing::warn!(%error, "cannot join the fleet; it is tried again");
            is_logged = true;
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            () = stop.cancelled() => return Err(error).context("stopped before it joined the fleet"),
        }
    }
}

/// Frames per second that this worker offers: the share [`OFFERED`] of what the detector alone can
/// process.
///
/// # Errors
/// When the detector fails.
fn frames_per_second(detector: &mut Detector) -> Result<f64> {
    let (width, height) = FRAME;
    let grey = vec![128; 3 * width as usize * height as usize];
    let image = Image::packed(width, height, grey.into());
    detector.detect_image(&image)?; // the first inference allocates
    let (start, mut frames) = (Instant::now(), 0.0);
    while start.elapsed() < MEASURED_FOR {
        detector.detect_image(&image)?;
        frames += 1.0;
    }
    Ok(OFFERED * frames / start.elapsed().as_secs_f64())
}
