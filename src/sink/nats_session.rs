//! Delivery of a spool's events to a NATS server, with reconnects.
//!
//! Events are sent in batches; the next batch is sent when every event of the one before is
//! answered. After an error, all events that are not acknowledged are sent again over a new
//! connection, from the oldest, so that their order is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::sink::backoff::Backoff;
use crate::sink::delivery::Delivery;
use crate::sink::nats_client::{Connection, Notice, Signal};
use crate::sink::nats_config::Server;
use crate::sink::outage_log::OutageLog;
use crate::sink::spool::QueuedEvent;

/// Maximum number of events in a batch, and of their bytes.
const BATCH: (usize, usize) = (64, 4 << 20);
/// Longest time without an answer while events are not acknowledged.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Back-off, in seconds, between connections: first and longest pause.
const BACKOFF: (f64, f64) = (0.5, 5.0);
/// Time for which events of a subject that the server forbids go to the dead-letter file unsent.
const DENIED_FOR: Duration = Duration::from_secs(300);
/// Header by which JetStream recognises repetitions.
const MESSAGE_ID: &str = "Nats-Msg-Id";
/// Header with the name of the stream that must store the event.
const EXPECTED_STREAM: &str = "Nats-Expected-Stream";

/// Delivers events until shutdown, and reconnects after errors.
pub(super) async fn deliver(server: Server, delivery: Delivery) {
    let mut state = State {
        backoff: Backoff::new(BACKOFF.0, BACKOFF.1),
        log: OutageLog::default(),
        denied: BTreeMap::new(),
    };
    let counts = &delivery.spool.counts;
    loop {
        let ended = run(&server, &delivery, &mut state).await;
        counts.connected.store(false, Ordering::Relaxed);
        let Err(error) = ended else { return };
        counts.failures.fetch_add(1, Ordering::Relaxed);
        if state.log.failed(&error, Instant::now()) {
            tracing::warn!(
                sink = "nats", server = %server.display(), error,
                "the NATS server does not accept events; they wait on disk"
            );
        }
        state.backoff.wait(None).await;
    }
}

/// What outlasts a connection.
struct State {
    backoff: Backoff,
    log: OutageLog,
    /// Subjects that the server forbids, with the time of its last refusal.
    denied: BTreeMap<String, Instant>,
}

impl State {
    /// Records that the server accepts events.
    fn succeeded(&mut self, server: &Server) {
        self.backoff.reset();
        if let Some(outage) = self.log.succeeded(Instant::now()) {
            let seconds = outage.as_secs();
            tracing::info!(
                sink = "nats", server = %server.display(), seconds,
                "the NATS server accepts events again"
            );
        }
    }

    fn forbid(&mut self, subjects: BTreeSet<String>) {
        let now = Instant::now();
        let denied = subjects.into_iter().map(|subject| (subject, now));
        self.denied.extend(denied);
    }

    fn denies(&self, subject: &str) -> bool {
        let at = self.denied.get(subject);
        at.is_some_and(|at| at.elapsed() < DENIED_FOR)
    }
}

/// Delivers events over one connection until shutdown, or until it fails.
async fn run(server: &Server, delivery: &Delivery, state: &mut State) -> Result<(), String> {
    let mut connection = Connection::open(server).await?;
    let (spool, shutdown) = (&delivery.spool, &delivery.shutdown);
    spool.counts.connected.store(true, Ordering::Relaxed);
    tracing::info!(sink = "nats", "connected to the NATS server");
    loop {
        let events = delivery.after(0, BATCH.0, BATCH.1).await;
        if !events.is_empty() {
            send(server, delivery, state, &mut connection, events).await?;
            state.succeeded(server);
            continue;
        }
        state.succeeded(server);
        if shutdown.is_cancelled() {
            return Ok(());
        }
        tokio::select! {
            () = spool.pushed() => {}
            () = shutdown.cancelled() => {}
            signal = connection.next() => if let Signal::Notice(notice) = signal {
                let mut none = Batch::default();
                none.handle(notice)?;
                state.forbid(none.forbidden);
            },
        }
    }
}

/// Sends a batch, waits until the server has answered every event of the batch, and removes the
/// answered events from the spool.
///
/// # Errors
/// When the connection breaks, or the server cannot accept events at present. The events that are
/// not answered stay on the spool.
async fn send(
    server: &Server,
    delivery: &Delivery,
    state: &mut State,
    connection: &mut Connection,
    events: Vec<QueuedEvent>,
) -> Result<(), String> {
    let mut batch = Batch::default();
    let result = match batch.publish(server, state, connection, events).await {
        Ok(()) => batch.settle(connection).await,
        Err(e) => Err(e),
    };
    if !batch.delivered.is_empty() {
        delivery.acknowledge(&batch.delivered);
    }
    for (position, reason) in &batch.refused {
        delivery.refuse(*position, reason).await;
    }
    state.forbid(batch.forbidden);
    result
}

/// The events of a batch, by their positions in the spool.
#[derive(Debug, Default)]
struct Batch {
    /// Events without an answer, with their subjects.
    waiting: BTreeMap<i64, String>,
    delivered: Vec<i64>,
    /// Refused events, with the reasons.
    refused: Vec<(i64, String)>,
    /// Subjects that the server forbids.
    forbidden: BTreeSet<String>,
    /// The mark that is awaited, without a stream.
    mark: Option<AwaitedMark>,
}

/// A mark behind a batch's events. The server reports a forbidden subject before the first mark
/// arrives; the client passes the report on by another task, which has run when the second mark
/// arrives.
#[derive(Debug, Clone, Copy, PartialEq)]
enum AwaitedMark {
    First(u64),
    Second(u64),
}

impl Batch {
    async fn publish(
        &mut self,
        server: &Server,
        state: &State,
        connection: &mut Connection,
        events: Vec<QueuedEvent>,
    ) -> Result<(), String> {
        let limit = connection.max_payload();
        for event in events {
            let subject = subject(&server.config.subject, &event);
            let mut headers = HeaderMap::new();
            if let Some(stream) = &server.config.stream {
                headers.insert(MESSAGE_ID, message_id(&event));
                headers.insert(EXPECTED_STREAM, stream.as_str());
            }
            let size = event.body.len() + header_size(&headers);
            let refusal = if state.denies(&subject) {
                Some(format!("the server forbids the subject {subject}"))
            } else if size > limit {
                Some(format!(
                    "its message has {size} bytes; the server accepts at most {limit}"
                ))
            } else {
                None
            };
            if let Some(reason) = refusal {
                self.refused.push((event.position, reason));
                continue;
            }
            let stored = server.config.stream.is_some().then_some(event.position);
            connection
                .publish(&subject, headers, event.body, stored)
                .await?;
            self.waiting.insert(event.position, subject);
        }
        if server.config.stream.is_none() && !self.waiting.is_empty() {
            self.mark = Some(AwaitedMark::First(connection.publish_mark().await?));
        }
        Ok(())
    }

    /// Waits until every event has an answer.
    async fn settle(&mut self, connection: &mut Connection) -> Result<(), String> {
        while !self.waiting.is_empty() {
            let next = tokio::time::timeout(ANSWER_TIMEOUT, connection.next());
            let signal = next.await.map_err(|_| {
                let seconds = ANSWER_TIMEOUT.as_secs();
                format!("no answer within {seconds} s")
            })?;
            match signal {
                Signal::Notice(notice) => self.handle(notice)?,
                Signal::Answer(position, text) => self.answered(position, &text)?,
                Signal::Mark(number) => {
                    if self.marked(number) {
                        self.mark = Some(AwaitedMark::Second(connection.publish_mark().await?));
                    }
                }
                Signal::NoStream(position) => {
                    let subject = self.waiting.get(&position).map_or("", String::as_str);
                    return Err(format!(
                        "no stream of JetStream takes the subject {subject}; create one, or \
                         remove nats.stream"
                    ));
                }
            }
        }
        Ok(())
    }

    /// Handles a mark; returns whether the second mark is to be published. Behind the second mark
    /// all events are delivered. Marks of earlier batches, which ended without them, are ignored.
    fn marked(&mut self, number: u64) -> bool {
        if self.mark == Some(AwaitedMark::Second(number)) {
            let all = std::mem::take(&mut self.waiting);
            self.delivered.extend(all.into_keys());
        }
        self.mark == Some(AwaitedMark::First(number))
    }

    /// Handles JetStream's answer to an event.
    fn answered(&mut self, position: i64, text: &[u8]) -> Result<(), String> {
        if !self.waiting.contains_key(&position) {
            return Ok(());
        }
        match Answer::parse(text)? {
            Answer::Stored => self.delivered.push(position),
            Answer::Refused(reason) => self.refused.push((position, reason)),
        }
        self.waiting.remove(&position);
        Ok(())
    }

    /// Handles a notice of the server: events of a forbidden subject count as refused.
    ///
    /// # Errors
    /// When the connection is not to be used any more.
    fn handle(&mut self, notice: Notice) -> Result<(), String> {
        match notice {
            Notice::Ended(reason) => Err(reason),
            Notice::Forbidden(subject) => {
                let reason = format!("the server forbids the subject {subject}");
                let of_it: Vec<i64> = (self.waiting.iter())
                    .filter(|(_, s)| **s == subject)
                    .map(|(position, _)| *position)
                    .collect();
                for position in of_it {
                    self.waiting.remove(&position);
                    self.refused.push((position, reason.clone()));
                }
                self.forbidden.insert(subject);
                Ok(())
            }
        }
    }
}

/// JetStream's answer to an event.
#[derive(Debug, PartialEq)]
enum Answer {
    /// The stream has stored the event, or had stored it before.
    Stored,
    /// The stream will never store the event.
    Refused(String),
}

/// JetStream's error codes of messages that a stream can never store: the message is larger than
/// the stream's limit, or its headers are.
const REFUSALS: [u64; 2] = [10_054, 10_097];

impl Answer {
    /// Parses an answer.
    ///
    /// # Errors
    /// When the stream cannot store the event at present.
    fn parse(text: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Json {
            stream: Option<String>,
            error: Option<JsonError>,
        }
        #[derive(Deserialize)]
        struct JsonError {
            #[serde(default)]
            err_code: u64,
            #[serde(default)]
            description: String,
        }
        let json: Json = serde_json::from_slice(text)
            .map_err(|_| "the answer to an event is not JetStream's".to_string())?;
        match (json.error, json.stream) {
            (Some(e), _) if REFUSALS.contains(&e.err_code) => {
                Ok(Answer::Refused(format!("JetStream: {}", e.description)))
            }
            (Some(e), _) => Err(format!("JetStream: {} ({})", e.description, e.err_code)),
            (None, Some(_)) => Ok(Answer::Stored),
            (None, None) => Err("the answer to an event names no stream".into()),
        }
    }
}

/// Characters that are percent-encoded in a camera's name: those that have a meaning in subjects.
const IN_SUBJECT: &AsciiSet = &CONTROLS.add(b' ').add(b'.').add(b'*').add(b'>').add(b'%');

/// The subject of an event.
fn subject(root: &str, event: &QueuedEvent) -> String {
    let camera = utf8_percent_encode(&event.camera, IN_SUBJECT);
    format!("{root}.{camera}.{}", event.kind.name())
}

/// Identifies an event: run, camera, kind and sequence number; for events without a sequence number
/// (`camera_status`), the event's SHA-256 instead of it.
fn message_id(event: &QueuedEvent) -> String {
    #[derive(Default, Deserialize)]
    struct Ids {
        #[serde(default)]
        run: String,
        seq: Option<u64>,
    }
    let ids: Ids = serde_json::from_slice(&event.body).unwrap_or_default();
    let last = match ids.seq {
        Some(seq) => seq.to_string(),
        None => hex::encode(Sha256::digest(&event.body)),
    };
    format!("{}.{}.{}.{last}", ids.run, event.camera, event.kind.name())
}

/// Bytes of the headers in a message.
fn header_size(headers: &HeaderMap) -> usize {
    if headers.is_empty() {
        return 0;
    }
    let lines = headers.iter().flat_map(|(name, values)| {
        let name: &str = name.as_ref();
        let length = name.len();
        (values.iter()).map(move |value| length + value.as_str().len() + ": \r\n".len())
    });
    "NATS/1.0\r\n\r\n".len() + lines.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trajectory::EventKind;

    fn event(kind: EventKind, camera: &str, body: &str) -> QueuedEvent {
        QueuedEvent {
            position: 1,
            kind,
            camera: camera.into(),
            body: body.into(),
        }
    }

    #[test]
    fn different_cameras_have_different_subjects_of_three_words() {
        let of = |camera| subject("twintrack", &event(EventKind::TrackEnded, camera, "{}"));
        assert_eq!(of("gate-1"), "twintrack.gate-1.track_ended");
        let names = ["a.b", "a_b", "a*b", "a>b", "a b", "a%2Eb", "a\tb", "Tür"];
        let subjects: BTreeSet<String> = names.iter().map(|name| of(name)).collect();
        assert_eq!(subjects.len(), names.len());
        for s in &subjects {
            assert_eq!(s.split('.').count(), 3, "{s}");
            assert!(!s.contains([' ', '\t', '*', '>']), "{s}");
        }
        assert!(subjects.contains("twintrack.a%2Eb.track_ended"));
    }

    #[test]
    fn message_ids_differ_exactly_if_the_events_differ() {
        let id = |kind, camera, body| message_id(&event(kind, camera, body));
        use EventKind::{CameraStatus, TrackEnded, Zone};
        let one = id(
            TrackEnded,
            "gate",
            r#"{"run":"r1","camera":"gate","seq":7}"#,
        );
        assert_eq!(one, "r1.gate.track_ended.7");
        assert_ne!(
            one,
            id(Zone, "gate", r#"{"run":"r1","camera":"gate","seq":7}"#)
        );
        let online = r#"{"run":"r1","camera":"gate","state":"online","time":"a"}"#;
        let offline = r#"{"run":"r1","camera":"gate","state":"offline","time":"b"}"#;
        let status = |body| id(CameraStatus, "gate", body);
        assert_eq!(status(online), status(online));
        assert_ne!(status(online), status(offline));
    }

    #[test]
    fn answers_are_stored_refused_or_a_reason_to_retry() {
        let stored = br#"{"stream":"EVENTS","seq":3}"#;
        assert_eq!(Answer::parse(stored), Ok(Answer::Stored));
        let repeated = br#"{"stream":"EVENTS","seq":3,"duplicate":true}"#;
        assert_eq!(Answer::parse(repeated), Ok(Answer::Stored));
        let large = br#"{"type":"x","error":{"code":400,"err_code":10054,"description":"message size exceeds maximum allowed"},"stream":"EVENTS","seq":0}"#;
        assert!(
            matches!(Answer::parse(large), Ok(Answer::Refused(why)) if why.contains("maximum"))
        );
        let full = br#"{"error":{"code":503,"err_code":10077,"description":"maximum messages exceeded"},"stream":"EVENTS","seq":0}"#;
        assert!(Answer::parse(full).is_err_and(|e| e.contains("maximum messages exceeded")));
        assert!(Answer::parse(b"hello").is_err() && Answer::parse(b"{}").is_err());
    }

    #[test]
    fn events_of_a_forbidden_subject_are_refused_and_the_others_wait() {
        let mut batch = Batch::default();
        for (position, subject) in [(1, "a"), (2, "b"), (3, "a")] {
            batch.waiting.insert(position, subject.into());
        }
        batch
            .handle(Notice::Forbidden("a".into()))
            .expect("goes on");
        let refused: Vec<i64> = batch.refused.iter().map(|(p, _)| *p).collect();
        assert_eq!(refused, [1, 3]);
        assert!(batch.waiting.contains_key(&2) && batch.forbidden.contains("a"));
        assert!(batch.handle(Notice::Ended("gone".into())).is_err());
    }

    /// Regression: if all events of a batch were refused before its mark arrived, the next batch
    /// took that mark for its own.
    #[test]
    fn events_are_delivered_by_the_marks_of_their_own_batch() {
        let mut batch = Batch {
            waiting: BTreeMap::from([(1, "a".into())]),
            mark: Some(AwaitedMark::First(2)),
            ..Batch::default()
        };
        assert!(!batch.marked(1) && batch.marked(2));
        batch.mark = Some(AwaitedMark::Second(3));
        assert!(!batch.marked(1) && batch.delivered.is_empty());
        assert!(!batch.marked(3));
        assert_eq!(batch.delivered, [1]);
    }

    #[test]
    fn the_size_of_headers_is_that_of_the_protocol() {
        let mut headers = HeaderMap::new();
        assert_eq!(header_size(&headers), 0);
        headers.insert(MESSAGE_ID, "abc");
        assert_eq!(
            header_size(&headers),
            "NATS/1.0\r\nNats-Msg-Id: abc\r\n\r\n".len()
        );
    }
}
