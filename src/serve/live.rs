//! Live events for web clients, over a WebSocket or as server-sent events:
//! `/api/v1/live?cameras=a,b&events=trajectory,track_ended`.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Extension, Query, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::serve::access::audit::AuditAction;
use crate::serve::access::client::Client;
use crate::serve::access::principal::Principal;
use crate::serve::hub::{Hub, LiveEvent};
use crate::serve::service::Service;
use crate::trajectory::EventKind;

/// Query parameters; by default all events are sent.
#[derive(Debug, Default, Deserialize)]
pub struct LiveQuery {
    /// Comma-separated names of cameras.
    cameras: Option<String>,
    /// Comma-separated kinds of events.
    events: Option<String>,
}

/// The events that a client receives; None means all.
struct EventFilter {
    cameras: Option<Vec<String>>,
    kinds: Option<Vec<EventKind>>,
}

impl LiveQuery {
    fn filter(&self) -> Result<EventFilter, String> {
        let list = |text: &Option<String>| {
            text.as_ref().map(|t| {
                t.split(',')
                    .map(|s| s.trim().to_string())
                    .collect::<Vec<_>>()
            })
        };
        let kind = |name: &String| {
            serde_json::from_value(name.as_str().into()).map_err(|_| {
                let all = EventKind::ALL.map(EventKind::name).join(", ");
                format!("unknown event '{name}'; use {all}\n")
            })
        };
        let kinds = list(&self.events)
            .map(|names| {
                names
                    .iter()
                    .map(kind)
                    .collect::<Result<Vec<EventKind>, _>>()
            })
            .transpose()?;
        Ok(EventFilter {
            cameras: list(&self.cameras),
            kinds,
        })
    }
}

/// Whether the address has a valid query for live events.
#[cfg(feature = "fuzzing")]
pub(crate) fn try_query(uri: &axum::http::Uri) -> bool {
    Query::<LiveQuery>::try_from_uri(uri).is_ok_and(|Query(query)| query.filter().is_ok())
}

impl EventFilter {
    fn matches(&self, event: &LiveEvent) -> bool {
        self.cameras
            .as_ref()
            .is_none_or(|c| c.iter().any(|c| **c == *event.camera))
            && self.kinds.as_ref().is_none_or(|k| k.contains(&event.kind))
    }
}

/// Timeout of sending an event to a client; after it the client is disconnected.
const SEND_TIMEOUT: Duration = Duration::from_secs(20);
/// If nothing was sent to a client for this long, a ping is sent; the client is disconnected if it
/// does not answer the ping within the same time.
const PING_INTERVAL: Duration = Duration::from_secs(15);

/// Handler of the route: a WebSocket if the client requests an upgrade, else server-sent events.
pub async fn live(
    State(service): State<Service>,
    Extension(principal): Extension<Principal>,
    Extension(client): Extension<Client>,
    Query(query): Query<LiveQuery>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let filter = match query.filter() {
        Ok(filter) => filter,
        Err(reason) => return (StatusCode::BAD_REQUEST, reason).into_response(),
    };
    let seen = |camera: &str| {
        let audit = service.access.audit();
        audit.seen(&principal, &client, AuditAction::LiveSeen, camera);
    };
    match &filter.cameras {
        None => seen("all cameras"),
        // Names of cameras that do not exist are the client's invention.
        Some(names) => {
            let all = service.cameras.all();
            let known = all.iter().filter(|m| names.iter().any(|n| **n == *m.name));
            known.for_each(|m| seen(&m.name));
        }
    }
    // The stream ends at shutdown, and when the session ends or the token becomes invalid.
    let stop = StreamEnd {
        shutdown: service.stop,
        principal,
    };
    match upgrade {
        Ok(upgrade) => upgrade
            .max_message_size(4096)
            .on_upgrade(move |socket| websocket(socket, service.hub, filter, stop)),
        Err(_) => sse(service.hub, filter, stop).into_response(),
    }
}

/// When a stream ends.
struct StreamEnd {
    shutdown: CancellationToken,
    /// Kept for as long as the stream is open, so that its session does not become idle.
    principal: Principal,
}

impl StreamEnd {
    async fn reached(&self) {
        tokio::select! {
            () = self.shutdown.cancelled() => {}
            () = self.principal.ended.cancelled() => {}
        }
    }
}

async fn websocket(mut socket: WebSocket, hub: Hub, filter: EventFilter, stop: StreamEnd) {
    let (mut subscription, statuses) = hub.subscribe();
    for event in statuses.into_iter().filter(|e| filter.matches(e)) {
        if !sent(&mut socket, Message::Text(event.text)).await {
            return;
        }
    }
    // The time is counted from the last message sent to this client, not from the last event,
    // because its filter may select few events.
    let (mut next_ping, mut awaiting_pong) = (Instant::now() + PING_INTERVAL, false);
    loop {
        let message = tokio::select! {
            () = stop.reached() => {
                let _ = socket.send(Message::Close(None)).await; // the client may have disconnected
                return;
            }
            event = subscription.events.recv() => match event {
                Ok(event) if filter.matches(&event) => Message::Text(event.text),
                Ok(_) => continue,
                Err(RecvError::Lagged(events)) => {
                    hub.count_missed(events);
                    continue;
                }
                Err(RecvError::Closed) => return,
            },
            received = socket.recv() => match received {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                // Any message shows that the client is connected; its content is ignored. axum
                // answers pings.
                Some(Ok(_)) => {
                    awaiting_pong = false;
                    continue;
                }
            },
            () = tokio::time::sleep_until(next_ping) => {
                if std::mem::replace(&mut awaiting_pong, true) {
                    return;
                }
                Message::Ping(Default::default())
            }
        };
        next_ping = Instant::now() + PING_INTERVAL;
        if !sent(&mut socket, message).await {
            return;
        }
    }
}

/// Sends a message; returns whether it was sent within [`SEND_TIMEOUT`].
async fn sent(socket: &mut WebSocket, message: Message) -> bool {
    matches!(
        tokio::time::timeout(SEND_TIMEOUT, socket.send(message)).await,
        Ok(Ok(()))
    )
}

fn sse(hub: Hub, filter: EventFilter, stop: StreamEnd) -> impl IntoResponse {
    let (subscription, statuses) = hub.subscribe();
    let (tx, rx) = tokio::sync::mpsc::channel::<Result<Event, Infallible>>(16);
    tokio::spawn(async move {
        let mut subscription = subscription;
        let mut statuses = statuses.into_iter();
        loop {
            let event = match statuses.next() {
                Some(event) => event,
                None => tokio::select! {
                    () = stop.reached() => return,
                    () = tx.closed() => return,
                    event = subscription.events.recv() => match event {
                        Ok(event) => event,
                        Err(RecvError::Lagged(events)) => {
                            hub.count_missed(events);
                            continue;
                        }
                        Err(RecvError::Closed) => return,
                    }
                },
            };
            if !filter.matches(&event) {
                continue;
            }
            let name = event.kind.name();
            let sent = tokio::time::timeout(
                SEND_TIMEOUT,
                tx.send(Ok(Event::default().event(name).data(event.text.as_str()))),
            );
            if !matches!(sent.await, Ok(Ok(()))) {
                return;
            }
        }
    });
    Sse::new(tokio_stream::wrappers::ReceiverStream::new(rx))
        .keep_alive(KeepAlive::new().interval(PING_INTERVAL))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::frame::CameraState;
    use crate::sink::Sink as _;
    use crate::trajectory::{RunId, StatusEvent};

    /// Regression: the first events were sent without a timeout, so that a client that read nothing
    /// stayed subscribed.
    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_the_first_events_is_disconnected() {
        let mut hub = Hub::default();
        // Larger than the buffers of a connection.
        let reason = "x".repeat(64 << 20).into();
        let (run, time) = (RunId::nil(), crate::clock::now());
        let status = StatusEvent::at(time, run, "gate".into(), CameraState::Offline, Some(reason));
        hub.status(&status.into()).expect("in memory");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let address = listener.local_addr().expect("bound");
        let shared = hub.clone();
        let open = move |upgrade: WebSocketUpgrade| async move {
            let filter = LiveQuery::default().filter().expect("no filter");
            let stop = StreamEnd {
                shutdown: CancellationToken::new(),
                principal: Principal::local(),
            };
            upgrade.on_upgrade(move |s| websocket(s, shared, filter, stop))
        };
        let app = axum::Router::new().route("/", axum::routing::get(open));
        tokio::spawn(axum::serve(listener, app).into_future());
        let mut client = std::net::TcpStream::connect(address).expect("listening");
        let request = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
                       Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        client.write_all(request.as_bytes()).expect("sent");
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        for wanted in [1, 0] {
            while hub.clients() != wanted {
                assert!(
                    std::time::Instant::now() < deadline,
                    "{} clients",
                    hub.clients()
                );
                tokio::time::advance(SEND_TIMEOUT / 10).await;
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}
