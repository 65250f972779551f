//! The state that the handlers of the web server share.

use std::sync::Arc;

use axum::extract::FromRef;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use crate::pipeline::cameras::Cameras;
use crate::serve::access::control::AccessControl;
use crate::serve::health::HealthMonitor;
use crate::serve::hub::Hub;
use crate::trajectory::RunId;

/// State of the handlers. Clones share it.
#[derive(Clone)]
pub struct Service {
    /// Id of the run.
    pub run: RunId,
    /// The cameras.
    pub cameras: Cameras,
    /// Live events and pictures.
    pub hub: Hub,
    /// The metrics.
    pub registry: Arc<Registry>,
    /// Liveness.
    pub health: HealthMonitor,
    /// Users, tokens, sessions, audit log.
    pub access: AccessControl,
    /// Cancelled at shutdown.
    pub stop: CancellationToken,
}

impl FromRef<Service> for AccessControl {
    fn from_ref(service: &Service) -> Self {
        service.access.clone()
    }
}
