//! The state that the handlers of the web server share.

use std::sync::Arc;

use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use crate::pipeline::cameras::Cameras;
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
    /// Cancelled at shutdown.
    pub stop: CancellationToken,
}
