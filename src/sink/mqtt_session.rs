//! Delivery of a spool's events to an MQTT broker, with reconnects. [`BrokerHistory`] decides which
//! events the broker refuses.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::address::masked;
use crate::sink::backoff::Backoff;
use crate::sink::delivery::Delivery;
use crate::sink::home_assistant::{CameraShapes, discovery};
use crate::sink::mqtt_client::{Client, Failure, Signal, Signals, WINDOW, packet_size};
use crate::sink::mqtt_config::Broker;
use crate::sink::mqtt_history::{BrokerHistory, Message, Unacknowledged};
use crate::sink::outage_log::OutageLog;
use crate::sink::spool::QueuedEvent;
use crate::trajectory::EventKind;

/// Timeout for the broker to accept a connection or to acknowledge the status.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time without an acknowledgement while events are in flight.
const ACKNOWLEDGE_TIMEOUT: Duration = Duration::from_secs(30);
/// Back-off, in seconds, between connections: first and longest pause.
const BACKOFF: (f64, f64) = (0.5, 5.0);
/// Maximum size in bytes of the events that are read from the spool at once.
const READ_BYTES: usize = 4 << 20;

/// Delivers events until shutdown, and reconnects after errors.
pub(super) async fn deliver(
    broker: Broker,
    mut shapes: watch::Receiver<Vec<CameraShapes>>,
    delivery: Delivery,
) {
    let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
    let mut history = BrokerHistory::default();
    let mut log = OutageLog::default();
    let counts = &delivery.spool.counts;
    loop {
        // Each connection has a new client, which sends all unacknowledged events again, from the
        // oldest: rumqttc discards messages in flight when the broker has no session of the client.
        let (client, signals, task) = broker.connect();
        let mut session = Session::new(
            &broker,
            &delivery,
            &mut history,
            &mut shapes,
            client,
            signals,
        );
        let ended = session.run().await;
        task.abort();
        let (unacknowledged, was_connected) = (
            session.unacknowledged(),
            counts.connected.swap(false, Ordering::Relaxed),
        );
        let Err(Failure {
            reason: error,
            transient,
        }) = ended
        else {
            return;
        };
        counts.failures.fetch_add(1, Ordering::Relaxed);
        let address = masked(&broker.config.broker);
        if was_connected {
            log.succeeded(Instant::now());
            tracing::warn!(
                sink = "mqtt", broker = %address, error,
                "the connection to the broker broke; events wait on disk"
            );
            if !transient {
                history
                    .record_break(unacknowledged, &delivery, &error)
                    .await;
            }
            if !transient && history.suspect.is_none() {
                backoff.reset();
            }
        } else {
            if log.failed(&error, Instant::now()) {
                tracing::warn!(
                    sink = "mqtt", broker = %address, error,
                    "cannot connect to the broker; events wait on disk"
                );
            }
        }
        backoff.wait(None).await;
    }
}

/// One connection.
struct Session<'a> {
    broker: &'a Broker,
    delivery: &'a Delivery,
    history: &'a mut BrokerHistory,
    shapes: &'a mut watch::Receiver<Vec<CameraShapes>>,
    /// Topics of the discovery messages that this connection has published.
    discovered: BTreeSet<String>,
    client: Client,
    signals: Signals,
    /// The broker's packet size limit in bytes.
    max_packet: usize,
    /// Messages given to the client and not yet sent.
    unsent: VecDeque<Message>,
    /// Messages sent and not yet acknowledged, by packet id.
    in_flight: BTreeMap<u16, Message>,
    /// Positions and topics of the events that are not acknowledged, including unsent ones.
    pending: BTreeMap<i64, String>,
    /// The topic of the last event that the broker answered, if it refused that event.
    refused_topic: Option<String>,
    /// Position of the last event given to the client.
    last: i64,
    /// The last time at which the broker acknowledged or refused an event, or nothing was in
    /// flight.
    last_progress: Instant,
}

impl<'a> Session<'a> {
    fn new(
        broker: &'a Broker,
        delivery: &'a Delivery,
        history: &'a mut BrokerHistory,
        shapes: &'a mut watch::Receiver<Vec<CameraShapes>>,
        client: Client,
        signals: Signals,
    ) -> Self {
        Session {
            broker,
            delivery,
            history,
            shapes,
            discovered: BTreeSet::new(),
            client,
            signals,
            max_packet: usize::MAX,
            unsent: VecDeque::new(),
            in_flight: BTreeMap::new(),
            pending: BTreeMap::new(),
            refused_topic: None,
            last: 0,
            last_progress: Instant::now(),
        }
    }

    /// Delivers events until shutdown, or until the connection fails.
    async fn run(&mut self) -> Result<(), Failure> {
        let connected = tokio::time::timeout(RESPONSE_TIMEOUT, self.signals.recv())
            .await
            .map_err(|_| "no response in time")?;
        match connected.ok_or("no connection")?? {
            Signal::Connected(limit) => self.max_packet = limit.unwrap_or(usize::MAX),
            other => return Err(format!("expected CONNACK, got {other:?}").into()),
        }
        self.delivery
            .spool
            .counts
            .connected
            .store(true, Ordering::Relaxed);
        tracing::info!(sink = "mqtt", "connected to the broker");
        self.publish_status("online").await?;
        // The status is sent alone, so that no event is suspected if the status breaks the
        // connection.
        self.drain().await?;
        self.publish_discovery().await?;
        self.drain().await?;
        let (spool, shutdown) = (&self.delivery.spool, &self.delivery.shutdown);
        let mut shapes_changed = false;
        loop {
            // Events that keep coming must not delay the new shapes.
            if !shapes_changed {
                self.fill().await?;
            } else if self.is_idle() {
                self.publish_discovery().await?;
                self.drain().await?;
                shapes_changed = false;
                continue;
            }
            if shutdown.is_cancelled() && self.is_idle() {
                self.publish_status("offline").await?;
                self.drain().await?;
                return self.disconnect().await;
            }
            if self.is_idle() {
                self.last_progress = Instant::now();
            }
            let window = self.window();
            let overdue = self.last_progress + ACKNOWLEDGE_TIMEOUT;
            tokio::select! {
                signal = self.signals.recv() => {
                    self.handle(signal.ok_or("the connection has ended")??).await?;
                }
                // An error means that the shapes do not change any more; this branch is then
                // disabled.
                Ok(()) = self.shapes.changed(), if !shapes_changed => shapes_changed = true,
                () = spool.pushed(), if !shapes_changed && self.pending.len() < window => {}
                () = shutdown.cancelled(), if !shutdown.is_cancelled() => {}
                () = tokio::time::sleep_until(overdue.into()), if !self.is_idle() => {
                    let seconds = ACKNOWLEDGE_TIMEOUT.as_secs();
                    return Err(format!("no acknowledgement within {seconds} s").into());
                }
            }
        }
    }

    /// The number of events that may be in flight.
    fn window(&self) -> usize {
        let first = self
            .pending
            .keys()
            .next()
            .map_or(self.last + 1, |position| *position);
        if first <= self.history.serial_until {
            1
        } else {
            WINDOW
        }
    }

    /// Gives events to the client until the window is full. Events that the broker would refuse, by
    /// its packet size limit or [`BrokerHistory`], go to the dead-letter file instead.
    async fn fill(&mut self) -> Result<(), Failure> {
        while self.pending.len() < self.window() {
            let events = self
                .delivery
                .after(self.last, self.window() - self.pending.len(), READ_BYTES)
                .await;
            if events.is_empty() {
                break;
            }
            for event in events {
                self.last = event.position;
                let (topic, retained) = topic(&self.broker.config.topic, &event);
                let size = packet_size(&topic, &event.body);
                if size > self.max_packet {
                    self.delivery
                        .refuse(
                            event.position,
                            &format!(
                                "its packet has {size} bytes; the broker accepts at most {}",
                                self.max_packet
                            ),
                        )
                        .await;
                } else if self.history.denies(&topic) {
                    self.delivery
                        .refuse(
                            event.position,
                            &format!("the broker closes the connection after events of {topic}"),
                        )
                        .await;
                } else {
                    self.client
                        .publish(topic.clone(), retained, event.body)
                        .await?;
                    self.unsent.push_back(Message::Event(event.position));
                    self.pending.insert(event.position, topic);
                }
            }
        }
        Ok(())
    }

    /// Whether nothing is unsent or in flight.
    fn is_idle(&self) -> bool {
        self.unsent.is_empty() && self.in_flight.is_empty()
    }

    fn unacknowledged(&self) -> Unacknowledged {
        let mut messages = self.unsent.iter().chain(self.in_flight.values());
        let own = messages.find(|m| !matches!(m, Message::Event(_))).copied();
        let topic = self.pending.values().last().cloned().unwrap_or_default();
        Unacknowledged {
            events: self.pending.keys().copied().collect(),
            topic,
            own,
            refused_topic: self.refused_topic.clone(),
        }
    }

    /// Publishes the program's own status, unless the broker refuses it.
    async fn publish_status(&mut self, status: &str) -> Result<(), Failure> {
        if self.history.no_status {
            return Ok(());
        }
        self.unsent.push_back(Message::Status);
        self.client
            .publish(self.broker.status_topic(), true, status.into())
            .await
    }

    /// Publishes the messages of Home Assistant's discovery, if configured. Removes messages that
    /// this connection has published, of zones and lines that are gone.
    async fn publish_discovery(&mut self) -> Result<(), Failure> {
        let config = &self.broker.config;
        let Some(prefix) = config
            .home_assistant
            .as_ref()
            .filter(|_| !self.history.no_discovery)
        else {
            return Ok(());
        };
        let messages = discovery(prefix, &config.topic, &self.shapes.borrow_and_update());
        let current: BTreeSet<String> = messages.keys().cloned().collect();
        // An empty retained message removes the sensor.
        let gone = self.discovered.difference(&current).cloned();
        let removals: Vec<_> = gone.map(|topic| (topic, Vec::new())).collect();
        for (topic, body) in messages.into_iter().chain(removals) {
            self.unsent.push_back(Message::Discovery);
            let publish = self.client.publish(topic, true, body);
            let published = tokio::time::timeout(RESPONSE_TIMEOUT, publish).await;
            published.map_err(|_| "no response in time")??;
        }
        self.discovered = current;
        Ok(())
    }

    /// Waits until nothing is in flight.
    async fn drain(&mut self) -> Result<(), Failure> {
        while !self.is_idle() {
            let signal = tokio::time::timeout(RESPONSE_TIMEOUT, self.signals.recv())
                .await
                .map_err(|_| "no response in time")?;
            self.handle(signal.ok_or("the connection has ended")??)
                .await?;
        }
        Ok(())
    }

    /// Handles a signal, and all others that have arrived so far: removes acknowledged and refused
    /// events from the spool.
    ///
    /// # Errors
    /// The error that arrived after the signals, if any.
    async fn handle(&mut self, first: Signal) -> Result<(), Failure> {
        let (mut delivered, mut refused) = (BTreeSet::new(), Vec::new());
        let mut result = Ok(());
        let mut next = Some(first);
        while let Some(signal) = next {
            match signal {
                Signal::Sent(id) => {
                    if let Some(message) = self.unsent.pop_front() {
                        self.in_flight.insert(id, message);
                    }
                }
                Signal::Acknowledged(id) => {
                    self.refused_topic = None;
                    if let Some(Message::Event(position)) = self.in_flight.remove(&id) {
                        delivered.insert(position);
                    }
                }
                Signal::Refused(id, reason) => match self.in_flight.remove(&id) {
                    Some(Message::Event(position)) => {
                        self.refused_topic = self.pending.get(&position).cloned();
                        refused.push((position, reason));
                    }
                    Some(Message::Discovery) if self.history.no_discovery => {}
                    Some(own) => self.history.refuses_own(own, &reason),
                    None => {}
                },
                Signal::Connected(_) => {}
            }
            next = match self.signals.try_recv() {
                Ok(Ok(signal)) => Some(signal),
                Ok(Err(failure)) => {
                    result = Err(failure);
                    None
                }
                Err(_) => None,
            };
        }
        for (position, reason) in &refused {
            self.delivery.refuse(*position, reason).await;
            self.pending.remove(position);
        }
        if !delivered.is_empty() {
            self.delivery
                .acknowledge(&delivered.iter().copied().collect::<Vec<_>>());
            let topics: Vec<String> = delivered
                .iter()
                .filter_map(|position| self.pending.remove(position))
                .collect();
            topics.iter().for_each(|topic| self.history.accepts(topic));
        }
        if !(delivered.is_empty() && refused.is_empty()) {
            self.last_progress = Instant::now();
            self.history.suspect = None;
        }
        result
    }

    /// Sends DISCONNECT, so that the broker does not publish the last will, and waits up to 1 s for
    /// it to be sent.
    async fn disconnect(&mut self) -> Result<(), Failure> {
        self.client.disconnect().await?;
        // The client's task reports an error when the connection is closed.
        let _ = tokio::time::timeout(Duration::from_secs(1), async {
            while self.signals.recv().await.is_some_and(|s| s.is_ok()) {}
        })
        .await;
        Ok(())
    }
}

/// The topic of an event, and whether the message is retained.
fn topic(root: &str, event: &QueuedEvent) -> (String, bool) {
    let (last, retained) = match event.kind {
        EventKind::Trajectory => ("tracks", false),
        EventKind::TrackEnded => ("events", false),
        EventKind::Zone => return shape_topic(root, event, "zones", "zone"),
        EventKind::Line => return shape_topic(root, event, "lines", "line"),
        EventKind::CameraStatus => ("status", true),
    };
    (format!("{root}/{}/{last}", event.camera), retained)
}

/// The topic of an event of a zone or line, whose name is in the field `key`. The message is
/// retained, because it has the present counts.
fn shape_topic(root: &str, event: &QueuedEvent, level: &str, key: &str) -> (String, bool) {
    let body: serde_json::Value = serde_json::from_slice(&event.body).unwrap_or_default();
    let name = body[key].as_str().unwrap_or("unknown");
    (format!("{root}/{}/{level}/{name}", event.camera), true)
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::sink::mqtt_config::MqttConfig;
    use crate::sink::spool::{Spool, SpoolLimits};

    /// Regression: the error was discarded, so that a transient failure was treated like any other.
    #[tokio::test]
    async fn an_error_behind_other_signals_is_returned() {
        let dir = tempfile::tempdir().expect("a folder");
        let config = MqttConfig {
            broker: "mqtt://127.0.0.1:1".into(),
            ..MqttConfig::default()
        };
        let broker = config.broker().expect("valid settings");
        let delivery = Delivery {
            spool: Spool::open(dir.path(), "mqtt", SpoolLimits::default()).expect("a spool"),
            shutdown: CancellationToken::new(),
        };
        let (client, _, task) = broker.connect();
        task.abort();
        let (tx, signals) = tokio::sync::mpsc::unbounded_channel();
        let (mut history, mut shapes) = (BrokerHistory::default(), watch::channel(Vec::new()).1);
        let mut session = Session::new(
            &broker,
            &delivery,
            &mut history,
            &mut shapes,
            client,
            signals,
        );
        let transient = Failure {
            reason: "quota exceeded".into(),
            transient: true,
        };
        tx.send(Ok(Signal::Acknowledged(1))).expect("received");
        tx.send(Err(transient)).expect("received");
        let failure = session.handle(Signal::Sent(1)).await.unwrap_err();
        assert!(failure.transient, "{failure:?}");
    }
}
