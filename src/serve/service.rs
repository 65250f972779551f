//! The state that the handlers of the web server share.

use std::sync::Arc;

use axum::extract::FromRef;
use prometheus_client::registry::Registry;
use serde_json::Value;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::fleet::buckets::Fleet;
use crate::pipeline::cameras::Cameras;
use crate::serve::access::control::AccessControl;
use crate::serve::camera_settings::CameraSettings;
use crate::serve::health::HealthMonitor;
use crate::serve::hub::Hub;
use crate::serve::people::People;
use crate::store::History;
use crate::trajectory::RunId;

/// State of the handlers. Clones share it.
#[derive(Clone)]
pub struct Service {
    /// Id of the run.
    pub run: RunId,
    /// The cameras.
    pub cameras: Cameras,
    /// The cameras' settings, with drawn zones, lines and masks.
    pub settings: CameraSettings,
    /// Live events and pictures.
    pub hub: Hub,
    /// The history, if it is kept.
    pub history: Option<History>,
    /// Embeds people in pictures; absent without an embedder.
    pub people: Option<People>,
    /// Notified when enrolled identities have changed.
    pub identities: Arc<Notify>,
    /// The fleet, if the service is part of one.
    pub fleet: Option<Fleet>,
    /// The metrics.
    pub registry: Arc<Registry>,
    /// Liveness.
    pub health: HealthMonitor,
    /// Users, tokens, sessions, audit log.
    pub access: AccessControl,
    /// The OpenAPI document.
    pub openapi: Arc<Value>,
    /// Cancelled at shutdown.
    pub stop: CancellationToken,
}

impl Service {
    /// Notifies the pipeline that enrolled identities have changed.
    pub fn identities_changed(&self) {
        self.identities.notify_one();
    }
}

impl FromRef<Service> for AccessControl {
    fn from_ref(service: &Service) -> Self {
        service.access.clone()
    }
}
