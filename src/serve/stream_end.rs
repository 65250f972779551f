//! When a stream of events or pictures ends.

use std::time::Duration;

use axum::extract::ws::{Message, WebSocket};
use tokio_util::sync::CancellationToken;

use crate::serve::access::principal::Principal;

/// Timeout of sending to a client; after it the client is disconnected.
pub const SEND_TIMEOUT: Duration = Duration::from_secs(20);
/// If nothing was sent to a client for this long, a ping is sent.
pub const PING_INTERVAL: Duration = Duration::from_secs(15);

/// Sends a message. Returns whether the client has accepted it in time; if not, the stream ends.
pub async fn send(socket: &mut WebSocket, message: Message) -> bool {
    let sent = tokio::time::timeout(SEND_TIMEOUT, socket.send(message));
    matches!(sent.await, Ok(Ok(())))
}

/// A stream ends at shutdown, and when the session ends or the token becomes invalid.
pub struct StreamEnd {
    /// Cancelled at shutdown.
    pub shutdown: CancellationToken,
    /// Kept for as long as the stream is open, so that its session does not become idle.
    pub principal: Principal,
}

impl StreamEnd {
    /// Waits until the stream has to end.
    pub async fn reached(&self) {
        tokio::select! {
            () = self.shutdown.cancelled() => {}
            () = self.principal.ended.cancelled() => {}
        }
    }
}
