//! Changes while the service runs: of the configuration and the gallery on SIGHUP, of drawn zones
//! and enrolled people by clients.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::sync::{Notify, mpsc, watch};

use twintrack::config::Config;
use twintrack::embed::Embedder;
use twintrack::gallery::GalleryReader;
use twintrack::infer::Runtime;
use twintrack::pipeline::CameraConfigs;
use twintrack::serve::camera_settings::CameraSettings;
use twintrack::serve::config::ServiceConfig;
use twintrack::serve::hub::Hub;
use twintrack::sink::counts::Counts;
use twintrack::sink::home_assistant::CameraShapes;
use twintrack::source::CameraConfig;
use twintrack::store::History;
use twintrack::track::appearance::mean_direction;
use twintrack::track::identity::GalleryPerson;

/// The names of the cameras' zones and lines.
pub(super) fn shapes_of(cameras: &CameraConfigs) -> Vec<CameraShapes> {
    let of = |(name, camera): (&String, &CameraConfig)| CameraShapes {
        camera: name.clone(),
        zones: camera.zones.keys().cloned().collect(),
        lines: camera.lines.keys().cloned().collect(),
    };
    cameras.iter().map(of).collect()
}

/// Adds the cameras' zones and lines to the counts.
pub(super) fn declare(counts: &Counts, cameras: &CameraConfigs) {
    for (name, camera) in cameras {
        let name: Arc<str> = name.as_str().into();
        counts.declare(&name, camera.zones.keys(), camera.lines.keys());
    }
}

/// Applies changes of the cameras' settings to the running service.
pub(super) struct Applying {
    /// The settings; those of the start have been seen.
    pub used: watch::Receiver<CameraConfigs>,
    /// Receives the names of the cameras' zones and lines.
    pub shapes: watch::Sender<Vec<CameraShapes>>,
    pub counts: Counts,
    pub hub: Hub,
    /// Receives the cameras.
    pub cameras: mpsc::Sender<CameraConfigs>,
}

impl Applying {
    /// Applies each change, until the pipeline has ended.
    pub async fn run(mut self) {
        while self.used.changed().await.is_ok() {
            let configs = self.used.borrow_and_update().clone();
            let names: Vec<Arc<str>> = configs.keys().map(|name| name.as_str().into()).collect();
            self.shapes.send_replace(shapes_of(&configs));
            declare(&self.counts, &configs);
            if self.cameras.send(configs).await.is_err() {
                return;
            }
            self.hub.retain_cameras(&names);
        }
    }
}

/// Pause before the enrolled people are read again after a failure.
const RETRY: Duration = Duration::from_secs(30);

/// The people that the pipeline recognises: those of the gallery folder, and enrolled ones.
pub(super) struct GalleryInUse {
    /// The people of the folder.
    pub folder: Vec<GalleryPerson>,
    pub history: Option<History>,
    /// Name and hash of the embedder; absent without one.
    pub embedder: Option<String>,
    pub send: watch::Sender<Vec<GalleryPerson>>,
}

impl GalleryInUse {
    /// Reads the enrolled people, and sends all to the pipeline. A person who is in the folder and
    /// enrolled has the mean of the embeddings. False if the enrolled people cannot be read.
    async fn update(&self) -> bool {
        let mut views: BTreeMap<String, Vec<Vec<f32>>> = BTreeMap::new();
        for person in &self.folder {
            let own = views.entry(person.name.clone()).or_default();
            own.push(person.embedding.clone());
        }
        match self.enrolled().await {
            Ok(enrolled) => {
                for (name, embedding) in enrolled {
                    views.entry(name).or_default().push(embedding);
                }
            }
            Err(error) => {
                tracing::error!(%error, "cannot read the enrolled people; those known before stay in \
                    use, and it is tried again");
                return false;
            }
        }
        let person = |(name, views): (String, Vec<Vec<f32>>)| GalleryPerson {
            name,
            embedding: mean_direction(views.iter().map(|v| (v.as_slice(), 1.0))),
        };
        self.send
            .send_replace(views.into_iter().map(person).collect());
        true
    }

    async fn enrolled(&self) -> Result<Vec<(String, Vec<f32>)>> {
        let (Some(history), Some(embedder)) = (self.history.clone(), self.embedder.clone()) else {
            return Ok(Vec::new());
        };
        let read = move || history.identity_embeddings(&embedder);
        Ok(tokio::task::spawn_blocking(read).await??)
    }
}

/// Reads the configuration and the gallery again on SIGHUP, and the enrolled people when they have
/// changed.
pub(super) struct Reload {
    /// The configuration file.
    pub path: PathBuf,
    /// The settings with which the run began.
    pub service: ServiceConfig,
    pub config: Config,
    /// Folder of the gallery, if any.
    pub gallery: Option<PathBuf>,
    pub settings: CameraSettings,
    /// Notified when enrolled people have changed.
    pub enrolled: Arc<Notify>,
}

impl Reload {
    /// Works until it is aborted. If the configuration is invalid, the cameras stay unchanged; if
    /// the gallery is invalid, the previous gallery stays in use.
    pub async fn run(self, mut people: GalleryInUse) {
        use tokio::signal::unix::{SignalKind, signal};
        let Ok(mut hangup) = signal(SignalKind::hangup()) else {
            tracing::error!(
                "cannot listen for SIGHUP: configuration and gallery cannot be reloaded"
            );
            return;
        };
        let mut is_current = people.update().await;
        loop {
            tokio::select! {
                received = hangup.recv() => {
                    if received.is_none() {
                        return;
                    }
                    if let Some(configs) = self.cameras() {
                        self.settings.set_configured(configs);
                    }
                    if let Some(folder) = self.gallery().await {
                        people.folder = folder;
                        is_current = people.update().await;
                    }
                }
                () = self.enrolled.notified() => is_current = people.update().await,
                () = tokio::time::sleep(RETRY), if !is_current => {
                    is_current = people.update().await;
                }
            }
        }
    }

    fn cameras(&self) -> Option<CameraConfigs> {
        let (again, other) = match ServiceConfig::read(&self.path) {
            Ok(both) => both,
            Err(e) => {
                tracing::error!(error = %e,
                    "cannot read the configuration again; the cameras stay unchanged");
                return None;
            }
        };
        if again.transport() != self.service.transport() {
            tracing::error!(
                "the transport (tcp or udp) can only change at a restart of the service; the \
                 cameras stay unchanged"
            );
            return None;
        }
        let same = again.clone().with_cameras(self.service.cameras.clone()) == self.service
            && other == self.config;
        if !same {
            tracing::warn!(
                "only [cameras] can change while the service runs; restart it for the other changes"
            );
        }
        if again.fleet.is_some() {
            return None; // a worker's cameras are the fleet's
        }
        tracing::warn!(
            cameras = again.cameras.len(),
            "the configuration has been read again"
        );
        Some(again.cameras)
    }

    /// Reads the gallery with a second instance of the embedder, because the pipeline owns the
    /// first. None if there is no gallery, or the gallery cannot be read.
    async fn gallery(&self) -> Option<Vec<GalleryPerson>> {
        let (dir, config) = (self.gallery.clone()?, self.config.clone());
        let read = tokio::task::spawn_blocking(move || -> Result<Vec<GalleryPerson>> {
            let embedder = Embedder::open(&Runtime::load()?, &config.embedder, config.session())?;
            Ok(GalleryReader::new(embedder, config).gallery(&dir)?)
        });
        match read.await.map_err(anyhow::Error::from).flatten() {
            Ok(people) => {
                tracing::warn!(people = people.len(), "the gallery has been read again");
                Some(people)
            }
            Err(e) => {
                tracing::error!(error = %e,
                    "cannot read the gallery again; the previous one stays in use");
                None
            }
        }
    }
}
