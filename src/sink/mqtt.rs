//! The MQTT sink: protocol 3.1.1 or 5, delivery at least once.
//!
//! Topics of a camera's events: `<topic>/<camera>/tracks` (`trajectory`), `<topic>/<camera>/events`
//! (`track_ended`), `<topic>/<camera>/zones/<zone>` and `<topic>/<camera>/lines/<line>` (`zone` and
//! `line`, retained: the last event has the present counts), and `<topic>/<camera>/status`
//! (`camera_status`, retained). Topic of the
//! program's own status: `<topic>/status` (retained), which is `online` while connected, and
//! `offline` after shutdown or, by the last will, after the connection broke.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::sink::delivery::SpoolSink;
use crate::sink::home_assistant::CameraShapes;
pub use crate::sink::mqtt_config::{MqttConfig, Version};
use crate::sink::mqtt_session::deliver;
use crate::sink::sink::SinkError;
use crate::sink::spool::Spool;

impl MqttConfig {
    /// Starts the sink. Returns at once; the delivery thread connects, and reconnects, to the
    /// broker. `shapes` has the cameras' zones and lines for Home Assistant.
    ///
    /// # Errors
    /// When the settings are invalid, or a file that they name cannot be read.
    pub fn start(
        &self,
        spool: Arc<Spool>,
        shutdown_timeout: Duration,
        shapes: watch::Receiver<Vec<CameraShapes>>,
    ) -> Result<SpoolSink, SinkError> {
        let broker = self.broker()?;
        SpoolSink::start(
            spool,
            self.events.clone(),
            shutdown_timeout,
            move |delivery| deliver(broker, shapes, delivery),
        )
    }
}
