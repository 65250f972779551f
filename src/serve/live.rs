//! Live events for web clients, as a WebSocket or as server-sent events: `/api/v1/live?cameras=a,b&events=trajectory,track_ended`.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::serve::hub::{Hub, LiveEvent};
use crate::serve::server::Service;
use crate::trajectory::EventKind;

/// What a client wants to hear; everything by default.
#[derive(Debug, Default, Deserialize)]
pub struct LiveQuery {
    /// Names of cameras, with commas between.
    cameras: Option<String>,
    /// Kinds of events, with commas between.
    events: Option<String>,
}

/// The same, understood.
struct EventFilter {
    cameras: Option<Vec<String>>,
    kinds: Option<Vec<EventKind>>,
}

impl LiveQuery {
    fn understood(&self) -> Result<EventFilter, String> {
        let list = |text: &Option<String>| {
            text.as_ref().map(|t| {
                t.split(',')
                    .map(|s| s.trim().to_string())
                    .collect::<Vec<_>>()
            })
        };
        let kind = |name: &String| {
            serde_json::from_value(name.as_str().into()).map_err(|_| {
                format!(
                    "there is no event '{name}'; there are trajectory, track_ended, camera_status\n"
                )
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

/// Reads a query as the page of live events does.
#[cfg(feature = "fuzzing")]
pub(crate) fn try_query(uri: &axum::http::Uri) -> bool {
    Query::<LiveQuery>::try_from_uri(uri).is_ok_and(|Query(wishes)| wishes.understood().is_ok())
}

impl EventFilter {
    fn hear(&self, news: &LiveEvent) -> bool {
        self.cameras
            .as_ref()
            .is_none_or(|c| c.iter().any(|c| **c == *news.camera))
            && self.kinds.as_ref().is_none_or(|k| k.contains(&news.kind))
    }
}

/// A client that takes nothing for so long is let go.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often a client to whom nothing is sent is asked whether it is there; one that does not
/// answer until the next time is let go.
const PING: Duration = Duration::from_secs(15);

/// The events, in the way the client asks for.
pub async fn live(
    State(service): State<Service>,
    Query(wishes): Query<LiveQuery>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let ears = match wishes.understood() {
        Ok(ears) => ears,
        Err(reason) => return (StatusCode::BAD_REQUEST, reason).into_response(),
    };
    match upgrade {
        Ok(upgrade) => upgrade
            .max_message_size(4096)
            .on_upgrade(move |socket| talk(socket, service.hub, ears, service.stop)),
        Err(_) => sse(service.hub, ears, service.stop).into_response(),
    }
}

async fn talk(mut socket: WebSocket, hub: Hub, ears: EventFilter, stop: CancellationToken) {
    let (mut listener, first) = hub.listen();
    for news in first.into_iter().filter(|n| ears.hear(n)) {
        if socket.send(Message::Text(news.text)).await.is_err() {
            return;
        }
    }
    // Counted from what was last sent, not from what was last heard: a client may want little of
    // it.
    let (mut quiet_until, mut asked) = (Instant::now() + PING, false);
    loop {
        let message = tokio::select! {
            () = stop.cancelled() => {
                let _ = socket.send(Message::Close(None)).await; // it may be gone already
                return;
            }
            heard = listener.news.recv() => match heard {
                Ok(news) if ears.hear(&news) => Message::Text(news.text),
                Ok(_) => continue,
                Err(RecvError::Lagged(events)) => {
                    hub.miss(events);
                    continue;
                }
                Err(RecvError::Closed) => return,
            },
            said = socket.recv() => match said {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                // Clients have nothing to say but that they are there; their pings are answered by
                // the library.
                Some(Ok(_)) => {
                    asked = false;
                    continue;
                }
            },
            () = tokio::time::sleep_until(quiet_until) => {
                if std::mem::replace(&mut asked, true) {
                    return;
                }
                Message::Ping(Default::default())
            }
        };
        quiet_until = Instant::now() + PING;
        match tokio::time::timeout(PATIENCE, socket.send(message)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

fn sse(hub: Hub, ears: EventFilter, stop: CancellationToken) -> impl IntoResponse {
    let (listener, first) = hub.listen();
    let (tx, rx) = tokio::sync::mpsc::channel::<Result<Event, Infallible>>(16);
    tokio::spawn(async move {
        let mut listener = listener;
        let mut first = first.into_iter();
        loop {
            let news = match first.next() {
                Some(news) => news,
                None => tokio::select! {
                    () = stop.cancelled() => return,
                    () = tx.closed() => return,
                    heard = listener.news.recv() => match heard {
                        Ok(news) => news,
                        Err(RecvError::Lagged(events)) => {
                            hub.miss(events);
                            continue;
                        }
                        Err(RecvError::Closed) => return,
                    }
                },
            };
            if !ears.hear(&news) {
                continue;
            }
            let name = news.kind.name();
            let sent = tokio::time::timeout(
                PATIENCE,
                tx.send(Ok(Event::default().event(name).data(news.text.as_str()))),
            );
            if !matches!(sent.await, Ok(Ok(()))) {
                return;
            }
        }
    });
    Sse::new(tokio_stream::wrappers::ReceiverStream::new(rx))
        .keep_alive(KeepAlive::new().interval(PING))
}
