//! Live events for web clients, over a WebSocket or as server-sent events:
//! `/api/v1/live?cameras=a,b&events=trajectory,track_ended`.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Extension, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

use crate::serve::access::audit::AuditAction;
use crate::serve::access::client::Client;
use crate::serve::access::principal::Principal;
use crate::serve::hub::{Hub, Subscription};
use crate::serve::live_event::LiveEvent;
use crate::serve::problem::Problem;
use crate::serve::query::QueryOf;
use crate::serve::replay::{ResumeToken, missed_message, resume_message};
use crate::serve::service::Service;
use crate::serve::stream_end::{PING_INTERVAL, SEND_TIMEOUT, StreamEnd, send};
use crate::trajectory::EventKind;

/// The query of live events; by default all events are sent.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LiveQuery {
    /// Comma-separated names of cameras.
    cameras: Option<String>,
    /// Comma-separated kinds of events: trajectory, track_ended, camera_status, zone, line.
    events: Option<String>,
    /// Asks for messages with the schema `twintrack.resume/1`, whose `token` is given here at the
    /// next connection, which then begins after the events of this one. Empty: from now on.
    resume: Option<String>,
}

/// The events that a client receives; None means all.
struct EventFilter {
    cameras: Option<Vec<String>>,
    kinds: Option<Vec<EventKind>>,
}

impl LiveQuery {
    fn filter(&self) -> Result<EventFilter, Problem> {
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
                let name: String = name.chars().take(100).collect();
                Problem::field("events", format!("unknown event '{name}'; use {all}"))
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

    /// The place to resume at: None if the client does not resume.
    fn token(&self, headers: &HeaderMap) -> Result<Option<ResumeToken>, Problem> {
        let last = headers.get("last-event-id").and_then(|v| v.to_str().ok());
        let token = self.resume.as_deref().filter(|t| !t.is_empty()).or(last);
        let token = token.map(str::parse).transpose();
        token.map_err(|reason| Problem::field("resume", reason))
    }
}

/// Whether the address has a valid query for live events.
#[cfg(feature = "fuzzing")]
pub(crate) fn try_query(uri: &axum::http::Uri) -> bool {
    crate::serve::query::parse::<LiveQuery>(uri.query().unwrap_or_default())
        .is_ok_and(|query| query.filter().is_ok() && query.token(&HeaderMap::new()).is_ok())
}

impl EventFilter {
    fn matches(&self, event: &LiveEvent) -> bool {
        self.cameras
            .as_ref()
            .is_none_or(|c| c.iter().any(|c| **c == *event.camera))
            && self.kinds.as_ref().is_none_or(|k| k.contains(&event.kind))
    }
}

/// `GET /api/v1/live`: a WebSocket if the client requests an upgrade, else server-sent events.
///
/// # Errors
/// 400 and 422 for an invalid query.
pub async fn live(
    State(service): State<Service>,
    Extension(principal): Extension<Principal>,
    Extension(client): Extension<Client>,
    QueryOf(query): QueryOf<LiveQuery>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let filter = query.filter()?;
    let token = query.token(&headers)?;
    let seen = |camera: &str| {
        let audit = service.access.audit();
        audit.seen(&principal, &client, AuditAction::LiveSeen, camera);
    };
    match &filter.cameras {
        None => seen("all cameras"),
        // Names of cameras that do not exist are not logged: a client may send any text.
        Some(names) => {
            let all = service.cameras.all();
            let known = all.iter().filter(|m| names.iter().any(|n| **n == *m.name));
            known.for_each(|m| seen(&m.name));
        }
    }
    let end = StreamEnd {
        shutdown: service.stop,
        principal,
    };
    let stream = LiveStream::new(service.hub, filter, token, query.resume.is_some(), end);
    Ok(match upgrade {
        Ok(upgrade) => upgrade
            .max_message_size(4096)
            .on_upgrade(move |socket| websocket(socket, stream)),
        Err(_) => sse(stream).into_response(),
    })
}

/// Least time between two tokens sent to a client; each is that of the last event.
const TOKEN_INTERVAL: Duration = Duration::from_secs(1);

/// What a client receives.
enum Outgoing {
    Event(LiveEvent),
    /// The client can resume here.
    Token(ResumeToken),
    /// Events are missing; their number, if it is known.
    Missed(Option<u64>),
}

/// The events for one client.
struct LiveStream {
    hub: Hub,
    filter: EventFilter,
    end: StreamEnd,
    subscription: Subscription,
    /// What is sent before new events.
    first: VecDeque<Outgoing>,
    /// Whether the client wants tokens.
    tokens: bool,
    /// Position of the last event, and of the last token.
    last: u64,
    told: u64,
    next_token: Instant,
}

impl LiveStream {
    /// A subscription, which begins with the state of every camera and, with a token, with the
    /// events since.
    fn new(
        hub: Hub,
        filter: EventFilter,
        resume: Option<ResumeToken>,
        tokens: bool,
        end: StreamEnd,
    ) -> Self {
        let (subscription, resumed) = hub.subscribe(resume);
        let mut first = VecDeque::new();
        first.extend(resumed.missed.then_some(Outgoing::Missed(None)));
        let events = resumed.events.into_iter().filter(|e| filter.matches(e));
        first.extend(events.map(Outgoing::Event));
        first.extend(tokens.then_some(Outgoing::Token(subscription.start)));
        LiveStream {
            filter,
            end,
            first,
            tokens,
            last: subscription.start.position(),
            told: subscription.start.position(),
            next_token: Instant::now() + TOKEN_INTERVAL,
            subscription,
            hub,
        }
    }

    /// Waits for the next message; None at the end of the stream. Nothing is lost if the future is
    /// dropped.
    async fn next(&mut self) -> Option<Outgoing> {
        if let Some(first) = self.first.pop_front() {
            return Some(first);
        }
        loop {
            tokio::select! {
                () = self.end.reached() => return None,
                event = self.subscription.events.recv() => match event {
                    Ok(event) => {
                        self.last = event.position;
                        if self.filter.matches(&event) {
                            return Some(Outgoing::Event(event));
                        }
                    }
                    Err(RecvError::Lagged(events)) => {
                        self.hub.count_missed(events);
                        if self.tokens {
                            return Some(Outgoing::Missed(Some(events)));
                        }
                    }
                    Err(RecvError::Closed) => return None,
                },
                () = tokio::time::sleep_until(self.next_token), if self.tokens => {
                    self.next_token = Instant::now() + TOKEN_INTERVAL;
                    if self.told != self.last {
                        self.told = self.last;
                        return Some(Outgoing::Token(self.subscription.token(self.last)));
                    }
                }
            }
        }
    }
}

async fn websocket(mut socket: WebSocket, mut stream: LiveStream) {
    // The time is counted from the last message sent to this client, not from the last event,
    // because its filter may select few events.
    let (mut next_ping, mut awaiting_pong) = (Instant::now() + PING_INTERVAL, false);
    loop {
        let message = tokio::select! {
            outgoing = stream.next() => match outgoing {
                Some(Outgoing::Event(event)) => Message::Text(event.text),
                Some(Outgoing::Token(token)) => Message::Text(resume_message(token)),
                Some(Outgoing::Missed(events)) => Message::Text(missed_message(events)),
                None => {
                    send(&mut socket, Message::Close(None)).await; // the client may be gone
                    return;
                }
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
        if !send(&mut socket, message).await {
            return;
        }
    }
}

fn sse(mut stream: LiveStream) -> impl IntoResponse {
    let (tx, rx) = tokio::sync::mpsc::channel::<Result<Event, Infallible>>(16);
    tokio::spawn(async move {
        loop {
            let outgoing = tokio::select! {
                outgoing = stream.next() => outgoing,
                () = tx.closed() => return,
            };
            let event = match outgoing {
                Some(Outgoing::Event(event)) => {
                    let token = stream.subscription.token(event.position).to_string();
                    let named = Event::default().event(event.kind.name()).id(token);
                    named.data(event.text.as_str())
                }
                Some(Outgoing::Token(token)) => {
                    let named = Event::default().event("resume").id(token.to_string());
                    named.data(resume_message(token).as_str())
                }
                Some(Outgoing::Missed(events)) => {
                    let named = Event::default().event("missed");
                    named.data(missed_message(events).as_str())
                }
                None => return,
            };
            let sent = tokio::time::timeout(SEND_TIMEOUT, tx.send(Ok(event)));
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

    use tokio_util::sync::CancellationToken;

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
            let end = StreamEnd {
                shutdown: CancellationToken::new(),
                principal: Principal::local(),
            };
            let stream = LiveStream::new(shared, filter, None, false, end);
            upgrade.on_upgrade(move |s| websocket(s, stream))
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
