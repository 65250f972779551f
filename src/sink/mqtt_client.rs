//! One connection to an MQTT broker: a client to publish with and a channel of [`Signal`]s, the
//! same for both versions of the protocol.

use std::time::Duration;

use rumqttc::v5::mqttbytes::v5::PubAckReason as Reason;
use rumqttc::{Outgoing, v5};
use tokio::sync::mpsc;

use crate::secret::Secret;
use crate::sink::mqtt_config::{Broker, Version};

/// Most events in flight: published, but not acknowledged.
pub(super) const WINDOW: usize = 64;
/// Packet size limit, bytes, for brokers that do not state one.
const MAX_PACKET: usize = 16 << 20;

/// What happens on a connection. Packets are identified by their packet ids.
#[derive(Debug)]
pub(super) enum Signal {
    /// The connection is established. The broker's packet size limit, bytes, if it states one.
    Connected(Option<usize>),
    /// A packet has been handed to the network, in the order of publishing.
    Sent(u16),
    /// The broker has acknowledged a packet.
    Acknowledged(u16),
    /// The broker refuses a packet for good, with the reason.
    Refused(u16, String),
}

/// Why a connection has ended.
#[derive(Debug)]
pub(super) struct Failure {
    pub reason: String,
    /// The broker has asked for a retry later, so no event is suspected of having broken the
    /// connection.
    pub transient: bool,
}

impl<T: Into<String>> From<T> for Failure {
    fn from(reason: T) -> Self {
        Failure {
            reason: reason.into(),
            transient: false,
        }
    }
}

pub(super) type Signals = mpsc::UnboundedReceiver<Result<Signal, Failure>>;

/// Publishes messages.
pub(super) enum Client {
    V3(rumqttc::AsyncClient),
    V5(v5::AsyncClient),
}

impl Broker {
    /// Starts a connection on a task of its own, which the caller aborts when it is done. The
    /// channel reports its progress; it closes after an error.
    pub fn connect(&self) -> (Client, Signals, tokio::task::JoinHandle<()>) {
        let (tx, rx) = mpsc::unbounded_channel();
        let (client, task) = match self.config.version {
            Version::V3 => {
                let (client, mut events) = rumqttc::AsyncClient::new(self.options_v3(), 2 * WINDOW);
                let task = tokio::spawn(async move {
                    let error = loop {
                        match events.poll().await {
                            Ok(event) => {
                                if !forward(&tx, signal_v3(event)) {
                                    return;
                                }
                            }
                            Err(e) => break e.to_string(),
                        }
                    };
                    // Packets that arrived before the error are still queued: an acknowledgement
                    // among them says why the broker closed the connection.
                    let queued = events.state.events.drain(..).filter_map(signal_v3);
                    forward_last(&tx, queued, error);
                });
                (Client::V3(client), task)
            }
            Version::V5 => {
                let (client, mut events) = v5::AsyncClient::new(self.options_v5(), 2 * WINDOW);
                let task = tokio::spawn(async move {
                    let error = loop {
                        match events.poll().await {
                            Ok(event) => {
                                if !forward(&tx, signal_v5(event)) {
                                    return;
                                }
                            }
                            Err(e) => break e.to_string(),
                        }
                    };
                    // Packets that arrived before the error are still queued: an acknowledgement
                    // among them says why the broker closed the connection.
                    let queued = events.state.events.drain(..).filter_map(signal_v5);
                    forward_last(&tx, queued, error);
                });
                (Client::V5(client), task)
            }
        };
        (client, rx, task)
    }

    /// The topic of the program's own status, to which the last will is published too.
    pub fn status_topic(&self) -> String {
        format!("{}/status", self.config.topic)
    }

    /// User name and password, if at least one is configured.
    fn login(&self) -> Option<(&str, &str)> {
        let (user, password) = (
            self.config.user.as_deref(),
            self.password.as_ref().map(Secret::expose),
        );
        (user.is_some() || password.is_some())
            .then(|| (user.unwrap_or_default(), password.unwrap_or_default()))
    }

    fn options_v3(&self) -> rumqttc::MqttOptions {
        let mut o = rumqttc::MqttOptions::new(&self.config.client_id, &self.host, self.port);
        o.set_keep_alive(KEEP_ALIVE)
            .set_transport(self.transport.clone())
            .set_max_packet_size(MAX_PACKET, MAX_PACKET)
            .set_inflight(2 * WINDOW as u16);
        o.set_last_will(rumqttc::LastWill::new(
            self.status_topic(),
            "offline",
            rumqttc::QoS::AtLeastOnce,
            true,
        ));
        if let Some((user, password)) = self.login() {
            o.set_credentials(user, password);
        }
        o
    }

    fn options_v5(&self) -> v5::MqttOptions {
        let mut o = v5::MqttOptions::new(&self.config.client_id, &self.host, self.port);
        o.set_keep_alive(KEEP_ALIVE)
            .set_transport(self.transport.clone())
            .set_outgoing_inflight_upper_limit(2 * WINDOW as u16);
        o.set_last_will(v5::mqttbytes::v5::LastWill::new(
            self.status_topic(),
            "offline",
            v5::mqttbytes::QoS::AtLeastOnce,
            true,
            None,
        ));
        if let Some((user, password)) = self.login() {
            o.set_credentials(user, password);
        }
        o
    }
}

const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Sends a signal to the session. Returns whether more may follow: not after an error.
fn forward(
    tx: &mpsc::UnboundedSender<Result<Signal, Failure>>,
    signal: Option<Result<Signal, Failure>>,
) -> bool {
    let Some(signal) = signal else { return true };
    let ok = signal.is_ok();
    tx.send(signal).is_ok() && ok
}

/// Forwards the signals that precede an error, then the error.
fn forward_last(
    tx: &mpsc::UnboundedSender<Result<Signal, Failure>>,
    queued: impl Iterator<Item = Result<Signal, Failure>>,
    error: String,
) {
    for signal in queued.chain([Err(error.into())]) {
        if !forward(tx, Some(signal)) {
            return;
        }
    }
}

fn signal_v3(event: rumqttc::Event) -> Option<Result<Signal, Failure>> {
    use rumqttc::{Event, Packet};
    match event {
        Event::Incoming(Packet::ConnAck(_)) => Some(Ok(Signal::Connected(None))),
        Event::Incoming(Packet::PubAck(a)) => Some(Ok(Signal::Acknowledged(a.pkid))),
        Event::Outgoing(Outgoing::Publish(id)) => Some(Ok(Signal::Sent(id))),
        _ => None,
    }
}

fn signal_v5(event: v5::Event) -> Option<Result<Signal, Failure>> {
    use v5::mqttbytes::v5::Packet;
    match event {
        v5::Event::Incoming(Packet::ConnAck(a)) => Some(Ok(Signal::Connected(
            a.properties
                .and_then(|p| p.max_packet_size)
                .map(|n| n as usize),
        ))),
        v5::Event::Incoming(Packet::PubAck(a)) => Some(match a.reason {
            Reason::Success | Reason::NoMatchingSubscribers => Ok(Signal::Acknowledged(a.pkid)),
            // Transient: events are sent again over another connection, after a pause.
            Reason::QuotaExceeded | Reason::PacketIdentifierInUse => Err(Failure {
                reason: format!(
                    "the broker does not accept events at present: {:?}",
                    a.reason
                ),
                transient: true,
            }),
            reason => {
                let detail = a
                    .properties
                    .and_then(|p| p.reason_string)
                    .map_or(String::new(), |text| format!(" ({text})"));
                Ok(Signal::Refused(
                    a.pkid,
                    format!("the broker refuses it: {reason:?}{detail}"),
                ))
            }
        }),
        v5::Event::Outgoing(Outgoing::Publish(id)) => Some(Ok(Signal::Sent(id))),
        _ => None,
    }
}

impl Client {
    /// Queues a message for sending with QoS 1 (at least once).
    pub async fn publish(
        &self,
        topic: String,
        retained: bool,
        body: Vec<u8>,
    ) -> Result<(), Failure> {
        match self {
            Client::V3(c) => c
                .publish(topic, rumqttc::QoS::AtLeastOnce, retained, body)
                .await
                .map_err(|e| e.to_string().into()),
            Client::V5(c) => c
                .publish(topic, v5::mqttbytes::QoS::AtLeastOnce, retained, body)
                .await
                .map_err(|e| e.to_string().into()),
        }
    }

    /// Sends DISCONNECT, after which the broker does not publish the last will.
    pub async fn disconnect(&self) -> Result<(), Failure> {
        match self {
            Client::V3(c) => c.disconnect().await.map_err(|e| e.to_string().into()),
            Client::V5(c) => c.disconnect().await.map_err(|e| e.to_string().into()),
        }
    }
}

/// Largest possible size of a PUBLISH packet, bytes: fixed header, topic, packet id, no properties,
/// body.
pub(super) fn packet_size(topic: &str, body: &[u8]) -> usize {
    5 + 2 + topic.len() + 2 + 1 + body.len()
}
