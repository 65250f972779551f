//! Reloading of the configuration and the gallery on SIGHUP.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use tokio::sync::{mpsc, watch};

use twintrack::config::Config;
use twintrack::embed::Embedder;
use twintrack::gallery::GalleryReader;
use twintrack::infer::Runtime;
use twintrack::pipeline::CameraConfigs;
use twintrack::serve::config::ServiceConfig;
use twintrack::serve::hub::Hub;
use twintrack::sink::home_assistant::CameraShapes;
use twintrack::source::CameraConfig;
use twintrack::track::identity::GalleryPerson;

/// Reads the configuration and the gallery again on SIGHUP.
pub(super) struct Reload {
    /// The configuration file.
    pub path: PathBuf,
    /// The settings with which the run began.
    pub service: ServiceConfig,
    pub config: Config,
    /// Folder of the gallery, if any.
    pub gallery: Option<PathBuf>,
    /// Receives the names of the cameras' zones and lines.
    pub shapes: watch::Sender<Vec<CameraShapes>>,
}

/// The names of the cameras' zones and lines.
pub(super) fn shapes_of(cameras: &CameraConfigs) -> Vec<CameraShapes> {
    let of = |(name, camera): (&String, &CameraConfig)| CameraShapes {
        camera: name.clone(),
        zones: camera.zones.keys().cloned().collect(),
        lines: camera.lines.keys().cloned().collect(),
    };
    cameras.iter().map(of).collect()
}

impl Reload {
    /// Reads the cameras and the gallery again on each SIGHUP, until the pipeline has ended. If the
    /// configuration is invalid, the cameras stay unchanged; if the gallery is invalid, the
    /// previous gallery stays in use.
    pub async fn on_signal(
        self,
        hub: Hub,
        cameras: mpsc::Sender<CameraConfigs>,
        gallery: watch::Sender<Vec<GalleryPerson>>,
    ) {
        use tokio::signal::unix::{SignalKind, signal};
        let Ok(mut hangup) = signal(SignalKind::hangup()) else {
            tracing::error!(
                "cannot listen for SIGHUP: configuration and gallery cannot be reloaded"
            );
            return;
        };
        while hangup.recv().await.is_some() {
            if let Some(configs) = self.cameras() {
                let names: Vec<Arc<str>> =
                    configs.keys().map(|name| name.as_str().into()).collect();
                self.shapes.send_replace(shapes_of(&configs));
                if cameras.send(configs).await.is_err() {
                    return;
                }
                hub.retain_cameras(&names);
            }
            self.gallery(&gallery).await;
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
        tracing::warn!(
            cameras = again.cameras.len(),
            "the configuration has been read again"
        );
        Some(again.cameras)
    }

    /// Reads the gallery with a second instance of the embedder, because the pipeline owns the
    /// first.
    async fn gallery(&self, gallery: &watch::Sender<Vec<GalleryPerson>>) {
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
                gallery.send_replace(people);
            }
            Err(e) => {
                tracing::error!(error = %e,
                    "cannot read the gallery again; the previous one stays in use");
            }
        }
    }
}
