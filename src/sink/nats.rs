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

/// Interval of pings of a client that reconnects by itself: after two to three of them without an
/// answer it turns to another server.
const LIVE_PING: Duration = Duration::from_secs(1);
/// Timeout of such a client for connecting to one address.
const LIVE_CONNECT: Duration = Duration::from_secs(2);

impl NatsConfig {
    /// Opens a client of the server. The client reconnects by itself. The inner error says why the
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
        // A server that falls silent must be left before what depends on the connection runs out,
        // such as the leases of a fleet.
        let options = options
            .ping_interval(LIVE_PING)
            .connection_timeout(LIVE_CONNECT);
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

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::TcpListener;
    use std::sync::mpsc;

    use super::*;

    /// A server that accepts a login and says nothing more. It tells `logins` its address.
    fn silent_server(logins: mpsc::Sender<String>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = listener.local_addr().expect("bound").to_string();
        let own = address.clone();
        std::thread::spawn(move || {
            let mut open = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.expect("accepted");
                let info = r#"INFO {"server_id":"a","version":"2.9.0","max_payload":1000,"proto":1,"headers":true}"#;
                stream
                    .write_all(format!("{info}\r\n").as_bytes())
                    .expect("written");
                let mut lines = BufReader::new(stream.try_clone().expect("cloned")).lines();
                while lines.next().expect("a line").expect("text") != "PING" {}
                stream.write_all(b"PONG\r\n").expect("written");
                open.push(stream);
                logins.send(own.clone()).expect("received");
            }
        });
        address
    }

    #[test]
    fn a_client_leaves_a_server_that_falls_silent_in_time_for_a_lease() {
        let (logins, login) = mpsc::channel();
        let servers = [silent_server(logins.clone()), silent_server(logins)];
        let url = servers.each_ref().map(|a| format!("nats://{a}")).join(",");
        let config = NatsConfig::default().with_url(url);
        let runtime = tokio::runtime::Runtime::new().expect("started");
        let client = runtime.block_on(config.connect()).expect("valid");
        let _client = client.expect("connected");
        let first = login.recv().expect("a login");
        // Two to three pings and a connection; a busy machine takes longer.
        const { assert!(3 * LIVE_PING.as_secs() + LIVE_CONNECT.as_secs() <= 5) };
        let next = login.recv_timeout(Duration::from_secs(60));
        assert!(
            next.is_ok_and(|next| servers.contains(&next)),
            "{first} is kept"
        );
    }
}
