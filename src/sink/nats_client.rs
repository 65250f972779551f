//! One connection to a NATS server: a client that publishes messages, and the server's answers and
//! notices as [`Signal`]s.

use async_nats::{
    Client, ConnectError, ConnectErrorKind, Event, HeaderMap, ServerError, StatusCode, Subscriber,
};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_stream::StreamExt as _;

use crate::sink::nats_config::Server;

/// An occurrence on a connection.
#[derive(Debug)]
pub(super) enum Signal {
    /// JetStream's answer to the event at this position of the spool.
    Answer(i64, Vec<u8>),
    /// No stream takes the subject of the event at this position.
    NoStream(i64),
    /// The server has processed everything that was published before the mark of this number.
    Mark(u64),
    Notice(Notice),
}

/// A notice about the connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// The server forbids to publish to this subject.
    Forbidden(String),
    /// The connection must not be used any more, with the reason.
    Ended(String),
}

/// What a user of the server needs besides the events' subjects.
const INBOX_PERMISSION: &str = "the server forbids the subjects _INBOX.>, by which it answers; allow twintrack's user to \
     subscribe to them (and, without nats.stream, to publish to them)";

impl Notice {
    /// The notice in an event of the client, if any.
    fn of(event: Event) -> Option<Self> {
        match event {
            Event::Disconnected | Event::Closed => {
                Some(Notice::Ended("the connection has ended".into()))
            }
            Event::ServerError(ServerError::Other(text)) => Some(Self::parse(&text)),
            Event::ServerError(e) => Some(Notice::Ended(e.to_string())),
            _ => None,
        }
    }

    /// Parses the text of an error, such as `Permissions Violation for Publish to "subject"`.
    fn parse(text: &str) -> Self {
        let lower = text.to_lowercase();
        let quoted = text.split('"').nth(1).unwrap_or_default();
        if lower.contains("permissions violation") {
            if quoted.starts_with("_INBOX.") {
                return Notice::Ended(INBOX_PERMISSION.into());
            }
            if lower.contains("publish to") && !quoted.is_empty() {
                return Notice::Forbidden(quoted.into());
            }
        }
        Notice::Ended(text.into())
    }
}

/// Runs the tasks of one client, on a thread of its own, and ends them when it is dropped:
/// otherwise the client would reconnect by itself, and would then send its queued messages out of
/// order.
struct ClientRuntime(Option<Runtime>);

impl ClientRuntime {
    fn start() -> Result<Self, String> {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("nats")
            .enable_all()
            .build()
            .map(|runtime| ClientRuntime(Some(runtime)))
            .map_err(|e| format!("cannot start an async runtime: {e}"))
    }
}

impl Drop for ClientRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// A connection.
pub(super) struct Connection {
    client: Client,
    /// Prefix of the subjects of answers.
    inbox: String,
    answers: Subscriber,
    notices: UnboundedReceiver<Notice>,
    /// Number of the last mark.
    mark: u64,
    _runtime: ClientRuntime,
}

impl Connection {
    /// Connects to one of the server's addresses, and logs in.
    ///
    /// # Errors
    /// The reason.
    pub async fn open(server: &Server) -> Result<Self, String> {
        let runtime = ClientRuntime::start()?;
        let (tx, notices) = unbounded_channel();
        let options = server
            .options()?
            .event_callback(move |event| forward(event, tx.clone()));
        let addresses = server.addresses.clone();
        let Some(handle) = runtime.0.as_ref().map(Runtime::handle) else {
            return Err("the async runtime has ended".into());
        };
        let connecting = handle.spawn(async move { options.connect(addresses).await });
        let client = connecting
            .await
            .map_err(|e| e.to_string())?
            .map_err(|e| explain(&e))?;
        let inbox = client.new_inbox();
        let answers = client.subscribe(format!("{inbox}.*")).await;
        Ok(Connection {
            answers: answers.map_err(|e| e.to_string())?,
            client,
            inbox,
            notices,
            mark: 0,
            _runtime: runtime,
        })
    }

    /// Maximum size in bytes of a message with its headers.
    pub fn max_payload(&self) -> usize {
        self.client.max_payload()
    }

    /// Publishes an event. If `position` is given, JetStream is asked for an answer, which becomes
    /// a [`Signal::Answer`] or [`Signal::NoStream`] with this position.
    ///
    /// # Errors
    /// When the client has ended.
    pub async fn publish(
        &self,
        subject: &str,
        headers: HeaderMap,
        body: Vec<u8>,
        position: Option<i64>,
    ) -> Result<(), String> {
        let subject = subject.to_string();
        let published = match position {
            Some(position) => {
                let reply = format!("{}.{position}", self.inbox);
                self.client
                    .publish_with_reply_and_headers(subject, reply, headers, body.into())
                    .await
            }
            None => self.client.publish(subject, body.into()).await,
        };
        published.map_err(|e| e.to_string())
    }

    /// Publishes a mark to this client itself, which results in [`Signal::Mark`] with the returned
    /// number when the server has processed everything that was published before.
    ///
    /// # Errors
    /// When the client has ended.
    pub async fn publish_mark(&mut self) -> Result<u64, String> {
        self.mark += 1;
        let subject = format!("{}.mark{}", self.inbox, self.mark);
        let published = self.client.publish(subject, Vec::new().into()).await;
        published.map_err(|e| e.to_string())?;
        Ok(self.mark)
    }

    /// Waits for the next signal. Cancel safe: no signal is lost.
    pub async fn next(&mut self) -> Signal {
        let ended = || Signal::Notice(Notice::Ended("the client has ended".into()));
        loop {
            let message = tokio::select! {
                biased;
                notice = self.notices.recv() => return notice.map_or_else(ended, Signal::Notice),
                message = self.answers.next() => message,
            };
            let Some(message) = message else {
                return ended();
            };
            let last = message.subject.rsplit('.').next().unwrap_or_default();
            if let Some(number) = last.strip_prefix("mark").and_then(|n| n.parse().ok()) {
                return Signal::Mark(number);
            }
            if let Ok(position) = last.parse() {
                return if message.status == Some(StatusCode::NO_RESPONDERS) {
                    Signal::NoStream(position)
                } else {
                    Signal::Answer(position, message.payload.to_vec())
                };
            }
        }
    }
}

/// The reason why a connection failed.
fn explain(error: &ConnectError) -> String {
    match error.kind() {
        ConnectErrorKind::AuthorizationViolation => {
            "the server refuses the login: check user and password, token, nkey or \
             credentials_file"
                .into()
        }
        ConnectErrorKind::Authentication => format!("the login is invalid: {error}"),
        _ => error.to_string(),
    }
}

async fn forward(event: Event, notices: UnboundedSender<Notice>) {
    if let Some(notice) = Notice::of(event) {
        let _ = notices.send(notice); // fails only if the connection has been dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forbidden_subject_is_distinguished_from_other_errors() {
        let publish = "Permissions Violation for Publish to \"twintrack.Gate-1.zone\"";
        assert_eq!(
            Notice::parse(publish),
            Notice::Forbidden("twintrack.Gate-1.zone".into())
        );
        for inbox in [
            "Permissions Violation for Publish to \"_INBOX.abc.mark1\"",
            "Permissions Violation for Subscription to \"_INBOX.abc.*\"",
        ] {
            assert_eq!(Notice::parse(inbox), Notice::Ended(INBOX_PERMISSION.into()));
        }
        let other = "User Authentication Expired";
        assert_eq!(Notice::parse(other), Notice::Ended(other.into()));
        assert_eq!(Notice::of(Event::Connected), None);
    }
}
