//! One connection to an MQTT broker: a client that publishes messages, and a channel of
//! [`Signal`]s. Both are the same for both versions of the protocol.

use std::future::Future;
use std::time::Duration;

use rumqttc::v5::mqttbytes::v5::PubAckReason as Reason;
use rumqttc::{Outgoing, v5};
use tokio::sync::mpsc;

use crate::secret::Secret;
use crate::sink::mqtt_config::{Broker, Version};

/// Maximum number of events in flight.
pub(super) const WINDOW: usize = 64;
/// Maximum packet size in bytes, in both directions, with protocol 3.1.1, in which a broker cannot
/// state a limit.
const MAX_PACKET: usize = 16 << 20;

/// An occurrence on a connection. Packets are identified by their packet ids.
#[derive(Debug)]
pub(super) enum Signal {
    /// The connection is established. The broker's packet size limit in bytes, if the broker states
    /// one.
    Connected(Option<usize>),
    /// A packet has been written to the network; packets are written in the order of publishing.
    Sent(u16),
    /// The broker has acknowledged a packet.
    Acknowledged(u16),
    /// The broker refuses a packet, with the reason.
    Refused(u16, String),
}

/// Why a connection has ended.
#[derive(Debug)]
pub(super) struct Failure {
    pub reason: String,
    /// Whether the broker has requested a retry later. If so, no event is suspected of having
    /// broken the connection.
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

/// A signal, or the reason why the connection has ended.
type Received = Result<Signal, Failure>;

pub(super) type Signals = mpsc::UnboundedReceiver<Received>;

/// Publishes messages.
pub(super) enum Client {
    V3(rumqttc::AsyncClient),
    V5(v5::AsyncClient),
}

impl Broker {
    /// Starts a connection on its own task, which the caller must abort after use. The channel
    /// delivers the connection's signals, and closes after an error.
    pub fn connect(&self) -> (Client, Signals, tokio::task::JoinHandle<()>) {
        let (tx, rx) = mpsc::unbounded_channel();
        let (client, task) = match self.config.version {
            Version::V3 => {
                let (client, events) = rumqttc::AsyncClient::new(self.options_v3(), 2 * WINDOW);
                (Client::V3(client), tokio::spawn(forward(events, tx)))
            }
            Version::V5 => {
                let (client, events) = v5::AsyncClient::new(self.options_v5(), 2 * WINDOW);
                (Client::V5(client), tokio::spawn(forward(events, tx)))
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

/// The event loop of a client, for either version of the protocol.
trait Events: Send + 'static {
    /// Waits for the next event of the client; `None` if it is not a signal.
    fn next(&mut self) -> impl Future<Output = Result<Option<Received>, String>> + Send;

    /// After an error of `next`: the signals, of received and of sent packets, that are still
    /// queued in the client.
    fn queued(&mut self) -> impl Iterator<Item = Received> + Send;
}

impl Events for rumqttc::EventLoop {
    async fn next(&mut self) -> Result<Option<Received>, String> {
        self.poll().await.map(signal_v3).map_err(|e| e.to_string())
    }

    fn queued(&mut self) -> impl Iterator<Item = Received> + Send {
        self.state.events.drain(..).filter_map(signal_v3)
    }
}

impl Events for v5::EventLoop {
    async fn next(&mut self) -> Result<Option<Received>, String> {
        self.poll().await.map(signal_v5).map_err(|e| e.to_string())
    }

    fn queued(&mut self) -> impl Iterator<Item = Received> + Send {
        self.state.events.drain(..).filter_map(signal_v5)
    }
}

/// Forwards signals to the session, up to and including an error.
async fn forward(mut events: impl Events, tx: mpsc::UnboundedSender<Received>) {
    let send = |signal: Received| {
        let more = signal.is_ok();
        tx.send(signal).is_ok() && more
    };
    let error = loop {
        match events.next().await {
            Ok(signal) => {
                if !signal.is_none_or(send) {
                    return;
                }
            }
            Err(e) => break e,
        }
    };
    // An acknowledgement among the queued packets may contain the reason why the broker closed the
    // connection.
    let _ = events.queued().chain([Err(error.into())]).all(send);
}

fn signal_v3(event: rumqttc::Event) -> Option<Received> {
    use rumqttc::{Event, Packet};
    match event {
        Event::Incoming(Packet::ConnAck(_)) => Some(Ok(Signal::Connected(None))),
        Event::Incoming(Packet::PubAck(a)) => Some(Ok(Signal::Acknowledged(a.pkid))),
        Event::Outgoing(Outgoing::Publish(id)) => Some(Ok(Signal::Sent(id))),
        _ => None,
    }
}

fn signal_v5(event: v5::Event) -> Option<Received> {
    use v5::mqttbytes::v5::Packet;
    match event {
        v5::Event::Incoming(Packet::ConnAck(a)) => Some(Ok(Signal::Connected(
            a.properties
                .and_then(|p| p.max_packet_size)
                .map(|n| n as usize),
        ))),
        v5::Event::Incoming(Packet::PubAck(a)) => Some(match a.reason {
            Reason::Success | Reason::NoMatchingSubscribers => Ok(Signal::Acknowledged(a.pkid)),
            // Transient: after a pause, events are sent again over another connection.
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

    /// Queues DISCONNECT for sending. Once the broker has received it, it does not publish the last
    /// will.
    pub async fn disconnect(&self) -> Result<(), Failure> {
        match self {
            Client::V3(c) => c.disconnect().await.map_err(|e| e.to_string().into()),
            Client::V5(c) => c.disconnect().await.map_err(|e| e.to_string().into()),
        }
    }
}

/// Largest possible size of a PUBLISH packet in bytes: fixed header, topic, packet id, no
/// properties, body.
pub(super) fn packet_size(topic: &str, body: &[u8]) -> usize {
    5 + 2 + topic.len() + 2 + 1 + body.len()
}
