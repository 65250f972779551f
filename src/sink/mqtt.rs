//! The MQTT sink: protocol 3.1.1 or 5, delivery at least once.
//!
//! Topics: `<topic>/<camera>/tracks` (trajectory events), `<topic>/<camera>/events` (ends of
//! tracks) and `<topic>/<camera>/status` (retained); and the program's own `<topic>/status`
//! (retained): `online` while connected, `offline` after shutdown or, by the last will, when the
//! connection breaks.

use std::sync::Arc;
use std::time::Duration;

use crate::sink::delivery::SpoolSink;
pub use crate::sink::mqtt_config::{MqttConfig, Version};
use crate::sink::mqtt_session::deliver;
use crate::sink::sink::SinkError;
use crate::sink::spool::Spool;

impl MqttConfig {
    /// Starts the sink. Returns at once; the delivery thread connects, and reconnects, to the
    /// broker.
    ///
    /// # Errors
    /// When the settings are invalid, or a file that they name cannot be read.
    pub fn start(
        &self,
        spool: Arc<Spool>,
        shutdown_timeout: Duration,
    ) -> Result<SpoolSink, SinkError> {
        let broker = self.broker()?;
        SpoolSink::start(
            spool,
            self.events.clone(),
            shutdown_timeout,
            move |delivery| deliver(broker, delivery),
        )
    }
}
