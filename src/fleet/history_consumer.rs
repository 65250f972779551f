//! Stores a fleet's events in the history: consumers of its stream, whose work any number of
//! processes can share.
//!
//! Each kind of event has a durable consumer of JetStream. An event is acknowledged when the
//! history has committed it; what is not acknowledged is delivered again, to this or another
//! process, and storing it twice changes nothing. Trajectories are not read: an ended track has
//! what the history keeps of them.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, Consumer, pull};
use async_nats::jetstream::{AckKind, Message};
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::fleet::buckets::Fleet;
use crate::fleet::error::FleetError;
use crate::sink::outage_log::OutageLog;
use crate::store::History;
use crate::store::live::{LiveSettings, LiveTracks};
use crate::store::rows::{Change, EventRow, Published};
use crate::trajectory::{Event, EventKind};

/// The kinds that are stored, each by a consumer of its own.
const KINDS: [EventKind; 4] = [
    EventKind::TrackEnded,
    EventKind::Zone,
    EventKind::Line,
    EventKind::CameraStatus,
];
/// Most events that are stored together.
const BATCH: usize = 256;
/// Longest time that a request for events waits for the first one.
const WAIT: Duration = Duration::from_secs(2);
/// Time without an acknowledgement after which an event is delivered again.
const ACK_WAIT: Duration = Duration::from_secs(60);
/// Interval at which the server is told that events are still worked on.
const PROGRESS: Duration = Duration::from_secs(15);
/// Pause after an error.
const RETRY: Duration = Duration::from_secs(1);

/// Reads a fleet's stream into a history.
#[derive(Clone)]
pub struct HistoryConsumer {
    fleet: Fleet,
    /// The stream, and the prefix of its subjects.
    stream: String,
    subject: String,
    history: History,
}

impl HistoryConsumer {
    /// Stores the events of a stream, whose subjects are `<subject>.<camera>.<kind>`.
    pub fn new(fleet: Fleet, stream: &str, subject: &str, history: History) -> Self {
        HistoryConsumer {
            fleet,
            stream: stream.into(),
            subject: subject.into(),
            history,
        }
    }

    /// Works until `stop`. Errors are logged, and tried again.
    pub async fn run(self, stop: CancellationToken) {
        let mut tasks = tokio::task::JoinSet::new();
        for kind in KINDS {
            tasks.spawn(self.clone().consume(kind, stop.clone()));
        }
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a reader of the fleet's events has failed");
            }
        }
    }

    async fn consume(self, kind: EventKind, stop: CancellationToken) {
        let mut log = OutageLog::default();
        while !stop.is_cancelled() {
            let error = tokio::select! {
                () = stop.cancelled() => return,
                ended = self.read(kind, &mut log, &stop) => match ended {
                    Ok(()) => return,
                    Err(error) => error,
                },
            };
            if log.failed(&error.to_string(), std::time::Instant::now()) {
                tracing::warn!(kind = kind.name(), %error, "cannot read the fleet's events");
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Reads events until `stop`.
    async fn read(
        &self,
        kind: EventKind,
        log: &mut OutageLog,
        stop: &CancellationToken,
    ) -> Result<(), FleetError> {
        let consumer = self.consumer(kind).await?;
        loop {
            let fetched = consumer
                .fetch()
                .max_messages(BATCH)
                .expires(WAIT)
                .messages();
            let fetched = fetched.await;
            let mut fetched = fetched.map_err(|e| FleetError::request("deliver events", e))?;
            let mut messages = Vec::new();
            while let Some(message) = fetched.next().await {
                messages.push(message.map_err(|e| FleetError::request("deliver events", e))?);
            }
            log.succeeded(std::time::Instant::now());
            self.store(&messages).await?;
            if stop.is_cancelled() {
                return Ok(());
            }
        }
    }

    async fn consumer(&self, kind: EventKind) -> Result<Consumer<pull::Config>, FleetError> {
        let fail = |e: String| FleetError::request("read the stream of events", e);
        let stream = self.fleet.context().get_stream(&self.stream).await;
        let stream = stream.map_err(|e| fail(e.to_string()))?;
        let name = format!("history-{}", kind.name());
        let config = pull::Config {
            durable_name: Some(name.clone()),
            description: Some("Stores events in twintrack's history".into()),
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            filter_subject: format!("{}.*.{}", self.subject, kind.name()),
            ..pull::Config::default()
        };
        let consumer = stream.get_or_create_consumer(&name, config).await;
        consumer.map_err(|e| fail(e.to_string()))
    }

    /// Hands events to the history, and acknowledges them when they are committed.
    async fn store(&self, messages: &[Message]) -> Result<(), FleetError> {
        let (mut committed, lost_before) = (0, lost(&self.history));
        for (n, message) in messages.iter().enumerate() {
            let Some(change) = change(message, self.history.config().embeddings) else {
                continue; // acknowledged with the others: it would be invalid the next time too
            };
            // A full queue: what is in it is committed first.
            while !self.history.has_room() {
                self.commit(&messages[committed..n], lost_before).await?;
                committed = n;
            }
            push(&self.history, change)?;
        }
        self.commit(&messages[committed..], lost_before).await
    }

    /// Waits until what was handed to the history is committed, and acknowledges it. `lost_before`:
    /// what [`lost`] returned before it was handed over.
    async fn commit(&self, messages: &[Message], lost_before: u64) -> Result<(), FleetError> {
        loop {
            let history = self.history.clone();
            let flush = tokio::task::spawn_blocking(move || history.flush(PROGRESS));
            match flush.await {
                Ok(Ok(())) => break,
                Ok(Err(_)) => {
                    for message in messages {
                        acknowledge(message, AckKind::Progress).await?;
                    }
                }
                Err(e) => return Err(FleetError::History(e.to_string())),
            }
        }
        if lost(&self.history) > lost_before {
            let reason = "it was closed before they were committed";
            return Err(FleetError::History(reason.into()));
        }
        for message in messages {
            acknowledge(message, AckKind::Ack).await?;
        }
        Ok(())
    }
}

/// Hands a change to the history.
///
/// # Errors
/// When the history does not accept it, so that the event must not be acknowledged.
fn push(history: &History, change: Change) -> Result<(), FleetError> {
    if history.push(change) {
        Ok(())
    } else {
        Err(FleetError::History("it is closed, or has no room".into()))
    }
}

/// Number of changes that the history accepted and did not commit before its end.
fn lost(history: &History) -> u64 {
    let count = &history.counts().shutdown;
    count.load(std::sync::atomic::Ordering::Relaxed)
}

async fn acknowledge(message: &Message, kind: AckKind) -> Result<(), FleetError> {
    let acknowledged = message.ack_with(kind).await;
    acknowledged.map_err(|e| FleetError::request("take an acknowledgement", e))
}

/// The change of the history by the event in a message; None, with a log message, if the event is
/// invalid. `embeddings`: whether the history may have them.
fn change(message: &Message, embeddings: bool) -> Option<Change> {
    let invalid = |reason: &dyn std::fmt::Display| {
        tracing::error!(subject = %message.subject, %reason, "an event of the fleet is not stored");
    };
    let text = std::str::from_utf8(&message.payload);
    let text = text.inspect_err(|e| invalid(e)).ok()?;
    let event = Event::parse(text.trim_end());
    let event = event.inspect_err(|e| invalid(e)).ok()?;
    let position = message.info().inspect_err(|e| invalid(e)).ok()?;
    let position = position.stream_sequence;
    let now = clock::now();
    let (camera, lease) = (event.camera().clone(), event.lease());
    let change = match event {
        Event::Ended(ended) => {
            let settings = LiveSettings {
                update_every: 0.0,
                embeddings,
                crop_height: None,
            };
            let row = LiveTracks::default().ended(&ended, settings, now);
            Change::Track(Box::new(row))
        }
        Event::Status(status) => Change::Status(status),
        Event::Analytics(_) => {
            let row = EventRow::parse(text.trim_end(), now);
            let row = row.inspect_err(|e| invalid(e)).ok()?;
            Change::Event(row)
        }
        Event::Frame(_) => return None,
    };
    Some(match lease {
        None => change,
        Some(lease) => Change::Published(Box::new(Published {
            camera,
            lease,
            position,
            change,
        })),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::CameraState;
    use crate::store::HistoryConfig;
    use crate::trajectory::{RunId, StatusEvent};

    #[test]
    fn an_event_that_the_history_does_not_accept_is_an_error() {
        let dir = tempfile::tempdir().expect("a folder");
        let history = History::open(&HistoryConfig::default(), dir.path(), RunId::nil());
        let history = history.expect("opened");
        let change = || {
            let (run, camera) = (RunId::nil(), "gate".into());
            let state = CameraState::Online;
            Change::Status(StatusEvent::at(clock::now(), run, camera, state, None))
        };
        push(&history, change()).expect("accepted");
        history.close(Duration::from_secs(60));
        // Regression: the event was acknowledged, and so never delivered again.
        push(&history, change()).expect_err("closed");
    }
}
