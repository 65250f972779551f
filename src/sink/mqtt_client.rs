//! One connection to an MQTT broker, of either version of the protocol: what is sent, and what the
//! broker tells.

use std::time::Duration;

use rumqttc::v5::mqttbytes::v5::PubAckReason as Reason;
use rumqttc::{Outgoing, v5};
use tokio::sync::mpsc;

use crate::secret::Secret;
use crate::sink::mqtt::{Broker, Version};

/// At most so many events under way to the broker.
pub(super) const WINDOW: usize = 64;
/// Longest packet taken or sent where the broker does not say, bytes.
const LONGEST: usize = 16 << 20;

/// What the broker's side tells. Packets are named by their ids.
#[derive(Debug)]
pub(super) enum Signal {
    /// The connection has begun; the longest packet that the broker takes, where it says so, bytes.
    Connected(Option<usize>),
    /// A packet has been handed to the network; they go in the order in which they were published.
    Sent(u16),
    /// The broker has it.
    Acknowledged(u16),
    /// The broker refuses it for good: why.
    Refused(u16, String),
}

/// Why a connection has ended.
#[derive(Debug)]
pub(super) struct Failure {
    pub reason: String,
    /// The broker has said that it would take the events later: none of them is to blame.
    pub passes: bool,
}

impl<T: Into<String>> From<T> for Failure {
    fn from(reason: T) -> Self {
        Failure {
            reason: reason.into(),
            passes: false,
        }
    }
}

pub(super) type Signals = mpsc::UnboundedReceiver<Result<Signal, Failure>>;

/// The side that publishes.
pub(super) enum Client {
    V3(rumqttc::AsyncClient),
    V5(v5::AsyncClient),
}

impl Broker {
    /// Begins a connection; what comes of it is told by the signals. After an error there are no
    /// more.
    pub fn connect(&self) -> (Client, Signals, tokio::task::JoinHandle<()>) {
        let (tx, rx) = mpsc::unbounded_channel();
        let (client, task) = match self.config.version {
            Version::V3 => {
                let (client, mut events) = rumqttc::AsyncClient::new(self.options_v3(), 2 * WINDOW);
                let task = tokio::spawn(async move {
                    while tell(
                        &tx,
                        events
                            .poll()
                            .await
                            .map_or_else(|e| Some(Err(e.to_string().into())), signal_v3),
                    ) {}
                });
                (Client::V3(client), task)
            }
            Version::V5 => {
                let (client, mut events) = v5::AsyncClient::new(self.options_v5(), 2 * WINDOW);
                let task = tokio::spawn(async move {
                    while tell(
                        &tx,
                        events
                            .poll()
                            .await
                            .map_or_else(|e| Some(Err(e.to_string().into())), signal_v5),
                    ) {}
                });
                (Client::V5(client), task)
            }
        };
        (client, rx, task)
    }

    /// The topic of the program's own state, which the last will also goes to.
    pub fn status_topic(&self) -> String {
        format!("{}/status", self.config.topic)
    }

    /// User and password, where the broker asks for them.
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
            .set_max_packet_size(LONGEST, LONGEST)
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

/// Hands a signal on; whether another may follow.
fn tell(
    tx: &mpsc::UnboundedSender<Result<Signal, Failure>>,
    signal: Option<Result<Signal, Failure>>,
) -> bool {
    let Some(signal) = signal else { return true };
    let goes_on = signal.is_ok();
    tx.send(signal).is_ok() && goes_on
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
            // These pass: the event is sent again over another connection, after a pause.
            Reason::QuotaExceeded | Reason::PacketIdentifierInUse => Err(Failure {
                reason: format!("the broker does not take events at present: {:?}", a.reason),
                passes: true,
            }),
            reason => {
                let said = a
                    .properties
                    .and_then(|p| p.reason_string)
                    .map_or(String::new(), |text| format!(" ({text})"));
                Ok(Signal::Refused(
                    a.pkid,
                    format!("the broker refuses it: {reason:?}{said}"),
                ))
            }
        }),
        v5::Event::Outgoing(Outgoing::Publish(id)) => Some(Ok(Signal::Sent(id))),
        _ => None,
    }
}

impl Client {
    /// Hands a message over for sending.
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

/// Bytes of a packet that publishes, at most: fixed header, topic, packet id, no properties, body.
pub(super) fn packet_size(topic: &str, body: &[u8]) -> usize {
    5 + 2 + topic.len() + 2 + 1 + body.len()
}
