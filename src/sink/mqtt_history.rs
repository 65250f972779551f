//! Decides, from the course of earlier connections, which events an MQTT broker refuses.
//!
//! A broker refuses an event in one of three ways: by its acknowledgement (MQTT 5, reason code 0x80
//! and above), by stating a packet size limit (MQTT 5), or by closing the connection whenever it
//! receives the event (MQTT 3.1.1, and some brokers for a forbidden topic). A closed connection can
//! also be the fault of the network. Therefore events are sent one at a time after a connection
//! broke, and an event counts as refused if [`MAX_BREAKS`] connections in a row broke while it was
//! alone in flight. If a broker refuses an event by its acknowledgement and then closes the
//! connection, the refused event is the cause, and events in flight are not suspected. Refused
//! events go to the dead-letter file.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::sink::delivery::Delivery;

/// An event counts as refused when this many connections in a row broke while it was alone in
/// flight.
const MAX_BREAKS: u32 = 3;
/// A topic counts as refused when the broker has closed connections because of this many of its
/// events in a row. For [`TOPIC_DENIED_FOR`], events of the topic then go to the dead-letter file
/// unsent.
const TOPIC_DENIED_AFTER: u32 = 2;
/// Time for which the events of a refused topic are not sent.
const TOPIC_DENIED_FOR: Duration = Duration::from_secs(300);
/// A message to the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Message {
    /// The program's own status.
    Status,
    /// A message of Home Assistant's discovery.
    Discovery,
    /// The event at this position in the spool.
    Event(i64),
}

/// Record of earlier connections to the broker.
#[derive(Debug, Default)]
pub(super) struct BrokerHistory {
    /// Events up to this position are sent one at a time, because one of them may have broken a
    /// connection.
    pub serial_until: i64,
    /// The message that was alone in flight when the last connections broke, and the number of
    /// these connections.
    pub suspect: Option<(Message, u32)>,
    /// Whether the broker refuses the program's own status.
    pub no_status: bool,
    /// Whether the broker refuses the messages of Home Assistant's discovery.
    pub no_discovery: bool,
    /// Topics because of whose events the broker closed connections: the number of such events in a
    /// row, and the time of the last.
    denied_topics: BTreeMap<String, (u32, Instant)>,
}

impl BrokerHistory {
    pub fn denies(&self, topic: &str) -> bool {
        self.denied_topics
            .get(topic)
            .is_some_and(|(n, at)| *n >= TOPIC_DENIED_AFTER && at.elapsed() < TOPIC_DENIED_FOR)
    }

    /// Records that the broker has accepted an event of this topic.
    pub fn accepts(&mut self, topic: &str) {
        self.denied_topics.remove(topic);
    }

    /// Records that the broker closed a connection because of an event of this topic, which counts
    /// as refused.
    fn closed_at(&mut self, topic: String) {
        let (n, at) = self
            .denied_topics
            .entry(topic)
            .or_insert((0, Instant::now()));
        (*n, *at) = (*n + 1, Instant::now());
    }

    /// Records that a connection broke while only `message` was in flight. Returns whether it now
    /// counts as refused.
    fn broke_at(&mut self, message: Message) -> bool {
        let before = self
            .suspect
            .filter(|(suspect, _)| *suspect == message)
            .map_or(0, |(_, n)| n);
        let refused = before + 1 >= MAX_BREAKS;
        self.suspect = (!refused).then_some((message, before + 1));
        refused
    }

    /// Records that the broker refuses a message of the program itself, which is not published any
    /// more.
    pub fn refuses_own(&mut self, own: Message, error: &str) {
        let what = if own == Message::Discovery {
            self.no_discovery = true;
            "the messages of Home Assistant's discovery (mqtt.home_assistant)"
        } else {
            self.no_status = true;
            "the program's own status, TOPIC/status"
        };
        tracing::error!(
            sink = "mqtt",
            error,
            "the broker refuses {what}; not published any more"
        );
    }

    /// Records a broken connection. If the broker's last answer was a refusal, the refused event is
    /// the cause. Otherwise, if several messages were in flight, the next connections send them one
    /// at a time. A message that was alone in flight becomes the suspect, and counts as refused
    /// after [`MAX_BREAKS`] broken connections.
    pub async fn record_break(
        &mut self,
        unacknowledged: Unacknowledged,
        delivery: &Delivery,
        error: &str,
    ) {
        let Unacknowledged {
            events,
            topic,
            own,
            refused_topic,
        } = unacknowledged;
        if let Some(topic) = refused_topic {
            self.closed_at(topic);
            self.suspect = None;
            return;
        }
        match (events.as_slice(), own) {
            ([], Some(own)) => {
                if self.broke_at(own) {
                    self.refuses_own(own, error);
                }
            }
            ([], None) => self.suspect = None,
            (&[alone], None) => {
                self.serial_until = self.serial_until.max(alone);
                if self.broke_at(Message::Event(alone)) {
                    self.closed_at(topic);
                    delivery
                        .refuse(
                            alone,
                            &format!(
                                "the broker closed the connection after this event {MAX_BREAKS} \
                                 times: {error}"
                            ),
                        )
                        .await;
                }
            }
            (several, _) => {
                self.serial_until = several.iter().copied().fold(self.serial_until, i64::max)
            }
        }
    }
}

/// The messages that were not acknowledged when a connection ended.
pub(super) struct Unacknowledged {
    /// Positions of events in the spool.
    pub events: Vec<i64>,
    /// The topic of the last event.
    pub topic: String,
    /// A message of the program itself among them: its status, or of the discovery.
    pub own: Option<Message>,
    /// The topic of the last answered event, if the answer was a refusal.
    pub refused_topic: Option<String>,
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::sink::spool::{Spool, SpoolLimits};

    /// Regression: the event after the refused one was suspected, so that an event of an allowed
    /// topic could be refused, and the refused topic was never counted as refused.
    #[tokio::test]
    async fn a_break_after_a_refusal_is_attributed_to_the_refused_topic() {
        let dir = tempfile::tempdir().expect("a folder");
        let delivery = Delivery {
            spool: Spool::open(dir.path(), "mqtt", SpoolLimits::default()).expect("a spool"),
            shutdown: CancellationToken::new(),
        };
        let mut history = BrokerHistory::default();
        for breaks in 1..=TOPIC_DENIED_AFTER {
            assert!(!history.denies("forbidden"));
            let unacknowledged = Unacknowledged {
                events: vec![4],
                topic: "allowed".into(),
                own: None,
                refused_topic: Some("forbidden".into()),
            };
            history
                .record_break(unacknowledged, &delivery, "closed")
                .await;
            assert!(history.suspect.is_none(), "after {breaks} breaks");
        }
        assert!(history.denies("forbidden") && !history.denies("allowed"));
    }
}
