//! The NATS sink: delivery at least once, to subscribers or into a stream of JetStream.
//!
//! The subject of an event is `<subject>.<camera>.<kind>`, such as `twintrack.gate-1.trajectory`.
//! Into a stream (`stream`), events are published with the header `Nats-Msg-Id`, by which JetStream
//! recognises repetitions, and leave the spool when the stream has stored them. Without a stream
//! they leave the spool when the server has processed them, and only those who have subscribed at
//! that time receive them.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Client;

use crate::sink::delivery::SpoolSink;
pub use crate::sink::nats_config::NatsConfig;
use crate::sink::nats_session::deliver;
use crate::sink::sink::SinkError;
use crate::sink::spool::Spool;

impl NatsConfig {
    /// Opens a client of the server, which reconnects by itself. The inner error says why the
    /// server cannot be reached.
    ///
    /// # Errors
    /// When the settings are invalid, or a file that they name cannot be read.
    pub(crate) async fn connect(&self) -> Result<Result<Client, String>, SinkError> {
        let server = self.server()?;
        let options = server.options().map_err(|reason| SinkError::Settings {
            sink: "nats",
            reason,
        })?;
        let client = options.connect(&server.addresses[..]).await;
        Ok(client.map_err(|e| e.to_string()))
    }

    /// Starts the sink. Returns at once; the delivery thread connects, and reconnects, to the
    /// server.
    ///
    /// # Errors
    /// When the settings are invalid, or a file that they name cannot be read.
    pub fn start(
        &self,
        spool: Arc<Spool>,
        shutdown_timeout: Duration,
    ) -> Result<SpoolSink, SinkError> {
        let server = self.server()?;
        SpoolSink::start(
            spool,
            self.events.clone(),
            shutdown_timeout,
            move |delivery| deliver(server, delivery),
        )
    }
}
