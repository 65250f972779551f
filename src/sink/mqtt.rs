//! Events to an MQTT broker, version 3.1.1 or 5, at least once.
//!
//! Topics: `<topic>/<camera>/tracks`, `/events` (ends of tracks) and `/status` (retained), and `<topic>/status` (retained): `online`,
//! or `offline` by the last will when the connection breaks.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::time::Duration;

use rumqttc::{TlsConfiguration, Transport, v5};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::address::masked as without_password;
use crate::range::{OutOfRange, within};
use crate::secret::Secret;
use crate::sink::courier::{Errand, Spooled};
use crate::sink::sink::SinkError;
use crate::sink::spool::{Kept, Kind, Spool, SpoolLimits};

/// The protocol's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Version {
    /// MQTT 3.1.1.
    #[serde(rename = "3.1.1")]
    V3,
    /// MQTT 5.
    #[default]
    #[serde(rename = "5")]
    V5,
}

/// Which broker, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MqttConfig {
    /// The broker: mqtt://host:1883, or mqtts://host:8883 for TLS.
    pub broker: String,
    /// The protocol: "5" or "3.1.1".
    pub version: Version,
    /// What the broker knows this program by; two with one name throw each other out.
    pub client_id: String,
    /// User name, where the broker asks for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Password. Better kept in `password_env` or `password_file`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// Environment variable that holds the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_env: Option<String>,
    /// File whose first line is the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// Certificate (PEM) of who signed the broker's; the system's own when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Certificate (PEM) to show to the broker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_file: Option<PathBuf>,
    /// Its key (PEM).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// First part of every topic.
    pub topic: String,
    /// Which events: trajectory, track_ended, camera_status.
    pub events: Vec<Kind>,
    /// How much waits on disk while the broker is away.
    pub spool: SpoolLimits,
}

impl Default for MqttConfig {
    fn default() -> Self {
        MqttConfig {
            broker: String::new(),
            version: Version::V5,
            client_id: "twintrack".into(),
            user: None,
            password: None,
            password_env: None,
            password_file: None,
            ca_file: None,
            certificate_file: None,
            key_file: None,
            topic: "twintrack".into(),
            events: vec![Kind::Trajectory, Kind::TrackEnded, Kind::CameraStatus],
            spool: SpoolLimits::default(),
        }
    }
}

/// Everything a connection needs, read and checked once.
#[derive(Clone)]
struct Broker {
    config: MqttConfig,
    host: String,
    port: u16,
    password: Option<Secret>,
    transport: Transport,
}

/// At most so many events under way to the broker.
const WINDOW: usize = 64;
/// The broker may take so long to answer.
const ANSWER: Duration = Duration::from_secs(10);
const PAUSE: (f64, f64) = (0.5, 5.0);

impl MqttConfig {
    /// Refuses values outside their ranges.
    ///
    /// # Errors
    /// The first such value.
    pub fn validate(&self) -> Result<(), OutOfRange> {
        within("mqtt.events (how many)", self.events.len(), 1, 3)?;
        self.spool.validate("mqtt")
    }

    fn broker(&self) -> Result<Broker, SinkError> {
        let wrong = |reason: String| SinkError::Settings { sink: "mqtt", reason };
        let (scheme, rest) =
            self.broker.split_once("://").ok_or_else(|| wrong(format!("broker = \"{}\" is no address; write mqtt://host:1883", self.broker)))?;
        let tls = match scheme {
            "mqtt" | "tcp" => false,
            "mqtts" | "ssl" => true,
            _ => return Err(wrong(format!("broker = \"{scheme}://…\": mqtt:// and mqtts:// are known"))),
        };
        if rest.contains('@') {
            return Err(wrong("user and password have their own fields, beside the broker's address".into()));
        }
        if self.topic.is_empty() || self.topic.contains(['+', '#']) {
            return Err(wrong(format!("topic = \"{}\": it may not be empty, nor hold + or #", self.topic)));
        }
        let (host, port) = match rest.trim_end_matches('/').rsplit_once(':') {
            Some((host, port)) => (host, port.parse().map_err(|_| wrong(format!("{port} is no port")))?),
            None => (rest.trim_end_matches('/'), if tls { 8883 } else { 1883 }),
        };
        let read = |path: &PathBuf| std::fs::read(path).map_err(|e| wrong(format!("cannot read {}: {e}", path.display())));
        let client_auth = match (&self.certificate_file, &self.key_file) {
            (Some(certificate), Some(key)) => Some((read(certificate)?, read(key)?)),
            (None, None) => None,
            _ => return Err(wrong("certificate_file and key_file belong together".into())),
        };
        let transport = if !tls {
            Transport::Tcp
        } else {
            // Another part of the program may have been first: they want the same.
            let _ = rustls::crypto::ring::default_provider().install_default();
            match &self.ca_file {
                Some(ca) => Transport::Tls(TlsConfiguration::Simple { ca: read(ca)?, alpn: None, client_auth }),
                None if client_auth.is_some() => return Err(wrong("certificate_file needs ca_file beside it".into())),
                None => Transport::Tls(TlsConfiguration::default()),
            }
        };
        let password = Secret::find("password", &self.password, &self.password_env, &self.password_file).map_err(wrong)?;
        Ok(Broker { config: self.clone(), host: host.into(), port, password, transport })
    }

    /// The sink; its courier starts at once, and a broker that is away is waited for.
    ///
    /// # Errors
    /// When the settings are wrong.
    pub fn start(&self, spool: std::sync::Arc<Spool>, patience: Duration) -> Result<Spooled, SinkError> {
        let broker = self.broker()?;
        Spooled::start(spool, self.events.clone(), patience, move |errand| deliver(broker, errand))
    }
}

/// What the broker's side tells.
enum Signal {
    Connected,
    Sent(u16),
    Acknowledged(u16),
}

enum Client {
    V3(rumqttc::AsyncClient),
    V5(v5::AsyncClient),
}

type Signals = mpsc::UnboundedReceiver<Result<Signal, String>>;

impl Broker {
    /// Begins a connection; what comes of it is told by the signals.
    fn connect(&self) -> (Client, Signals, tokio::task::JoinHandle<()>) {
        let (tx, rx) = mpsc::unbounded_channel();
        let (will, user) = (format!("{}/status", self.config.topic), self.config.user.clone().unwrap_or_default());
        let password = self.password.as_ref().map_or("", Secret::expose);
        let credentials = self.config.user.is_some() || self.password.is_some();
        let (id, keep_alive, largest) = (&self.config.client_id, Duration::from_secs(10), 16 << 20);
        match self.config.version {
            Version::V3 => {
                let mut o = rumqttc::MqttOptions::new(id, &self.host, self.port);
                o.set_keep_alive(keep_alive).set_transport(self.transport.clone()).set_max_packet_size(largest, largest).set_inflight(2 * WINDOW as u16);
                o.set_last_will(rumqttc::LastWill::new(will, "offline", rumqttc::QoS::AtLeastOnce, true));
                if credentials {
                    o.set_credentials(user, password);
                }
                let (client, mut events) = rumqttc::AsyncClient::new(o, 2 * WINDOW);
                let task = tokio::spawn(async move {
                    use rumqttc::{Event, Outgoing, Packet};
                    loop {
                        let signal = match events.poll().await {
                            Ok(Event::Incoming(Packet::ConnAck(_))) => Ok(Signal::Connected),
                            Ok(Event::Incoming(Packet::PubAck(a))) => Ok(Signal::Acknowledged(a.pkid)),
                            Ok(Event::Outgoing(Outgoing::Publish(id))) => Ok(Signal::Sent(id)),
                            Ok(_) => continue,
                            Err(e) => Err(e.to_string()),
                        };
                        let failed = signal.is_err();
                        if tx.send(signal).is_err() || failed {
                            return;
                        }
                    }
                });
                (Client::V3(client), rx, task)
            }
            Version::V5 => {
                let mut o = v5::MqttOptions::new(id, &self.host, self.port);
                o.set_keep_alive(keep_alive).set_transport(self.transport.clone()).set_outgoing_inflight_upper_limit(2 * WINDOW as u16);
                o.set_last_will(v5::mqttbytes::v5::LastWill::new(will, "offline", v5::mqttbytes::QoS::AtLeastOnce, true, None));
                if credentials {
                    o.set_credentials(user, password);
                }
                let (client, mut events) = v5::AsyncClient::new(o, 2 * WINDOW);
                let task = tokio::spawn(async move {
                    use rumqttc::Outgoing;
                    use v5::mqttbytes::v5::{Packet, PubAckReason as Reason};
                    loop {
                        let signal = match events.poll().await {
                            Ok(v5::Event::Incoming(Packet::ConnAck(_))) => Ok(Signal::Connected),
                            Ok(v5::Event::Incoming(Packet::PubAck(a))) if matches!(a.reason, Reason::Success | Reason::NoMatchingSubscribers) => {
                                Ok(Signal::Acknowledged(a.pkid))
                            }
                            Ok(v5::Event::Incoming(Packet::PubAck(a))) => Err(format!("it refuses an event: {:?}", a.reason)),
                            Ok(v5::Event::Outgoing(Outgoing::Publish(id))) => Ok(Signal::Sent(id)),
                            Ok(_) => continue,
                            Err(e) => Err(e.to_string()),
                        };
                        let failed = signal.is_err();
                        if tx.send(signal).is_err() || failed {
                            return;
                        }
                    }
                });
                (Client::V5(client), rx, task)
            }
        }
    }

    fn topic(&self, event: &Kept) -> (String, bool) {
        let (last, retained) = match event.kind {
            Kind::Trajectory => ("tracks", false),
            Kind::TrackEnded => ("events", false),
            Kind::CameraStatus => ("status", true),
        };
        (format!("{}/{}/{last}", self.config.topic, event.camera), retained)
    }
}

impl Client {
    async fn publish(&self, topic: String, retained: bool, body: Vec<u8>) -> Result<(), String> {
        match self {
            Client::V3(c) => c.publish(topic, rumqttc::QoS::AtLeastOnce, retained, body).await.map_err(|e| e.to_string()),
            Client::V5(c) => c.publish(topic, v5::mqttbytes::QoS::AtLeastOnce, retained, body).await.map_err(|e| e.to_string()),
        }
    }

    async fn disconnect(&self) -> Result<(), String> {
        match self {
            Client::V3(c) => c.disconnect().await.map_err(|e| e.to_string()),
            Client::V5(c) => c.disconnect().await.map_err(|e| e.to_string()),
        }
    }
}

/// Delivers until the end, over as many connections as it takes.
async fn deliver(broker: Broker, errand: Errand) {
    let (mut pause, counts) = (PAUSE.0, &errand.spool.counts);
    loop {
        // Everything that was not acknowledged is sent again by a new client, from the first on: rumqttc itself forgets what was
        // under way when the broker has no session for it.
        let (client, signals, task) = broker.connect();
        let mut session = Session {
            broker: &broker,
            errand: &errand,
            client,
            signals,
            handed: VecDeque::new(),
            under_way: BTreeMap::new(),
            unsure: BTreeSet::new(),
            last: 0,
        };
        let ended = session.run().await;
        task.abort();
        let was = counts.connected.swap(false, std::sync::atomic::Ordering::Relaxed);
        match ended {
            Ok(()) => return,
            Err(e) => {
                counts.failures.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                pause = if was { PAUSE.0 } else { (2.0 * pause).min(PAUSE.1) };
                tracing::warn!(sink = "mqtt", broker = %without_password(&broker.config.broker), error = %e, "the broker is not reached; events wait on disk");
            }
        }
        tokio::time::sleep(Duration::from_secs_f64(pause * (0.8 + 0.4 * fastrand::f64()))).await;
    }
}

/// One connection.
struct Session<'a> {
    broker: &'a Broker,
    errand: &'a Errand,
    client: Client,
    signals: Signals,
    /// Handed to the client, not yet sent: their places in the spool, none for the program's own status.
    handed: VecDeque<Option<i64>>,
    /// Sent, by packet id.
    under_way: BTreeMap<u16, Option<i64>>,
    /// Events not acknowledged.
    unsure: BTreeSet<i64>,
    /// The last event handed over.
    last: i64,
}

impl Session<'_> {
    async fn run(&mut self) -> Result<(), String> {
        let connected = tokio::time::timeout(ANSWER, self.signals.recv()).await.map_err(|_| "no answer".to_string())?;
        match connected.ok_or("no connection")?? {
            Signal::Connected => {}
            Signal::Sent(_) | Signal::Acknowledged(_) => return Err("it did not begin with a connection".into()),
        }
        self.errand.spool.counts.connected.store(true, std::sync::atomic::Ordering::Relaxed);
        tracing::info!(sink = "mqtt", "the broker is reached");
        self.say("online").await?;
        let (spool, ending) = (&self.errand.spool, &self.errand.ending);
        loop {
            while self.unsure.len() < WINDOW {
                let events = spool.after(self.last, WINDOW - self.unsure.len());
                if events.is_empty() {
                    break;
                }
                for event in events {
                    let (topic, retained) = self.broker.topic(&event);
                    self.client.publish(topic, retained, event.body).await?;
                    self.handed.push_back(Some(event.place));
                    self.unsure.insert(event.place);
                    self.last = event.place;
                }
            }
            if ending.is_cancelled() && self.settled() {
                self.say("offline").await?;
                while !self.settled() {
                    self.signal().await?;
                }
                return self.leave().await;
            }
            tokio::select! {
                signal = self.signals.recv() => self.hear(signal.ok_or("the connection has ended")??),
                () = spool.news(), if self.unsure.len() < WINDOW => {}
                () = ending.cancelled(), if !ending.is_cancelled() => {}
            }
        }
    }

    fn settled(&self) -> bool {
        self.handed.is_empty() && self.under_way.is_empty()
    }

    async fn say(&mut self, status: &str) -> Result<(), String> {
        self.handed.push_back(None);
        self.client.publish(format!("{}/status", self.broker.config.topic), true, status.into()).await
    }

    async fn signal(&mut self) -> Result<(), String> {
        let signal = tokio::time::timeout(ANSWER, self.signals.recv()).await.map_err(|_| "no answer".to_string())?;
        self.hear(signal.ok_or("the connection has ended")??);
        Ok(())
    }

    /// Notes what the broker's side tells, and what else it has told meanwhile.
    fn hear(&mut self, first: Signal) {
        let mut delivered = Vec::new();
        let mut next = Some(first);
        while let Some(signal) = next {
            match signal {
                Signal::Sent(id) => {
                    if let Some(place) = self.handed.pop_front() {
                        self.under_way.insert(id, place);
                    }
                }
                Signal::Acknowledged(id) => delivered.extend(self.under_way.remove(&id).flatten()),
                Signal::Connected => {}
            }
            // An error stays for the next who asks: the channel's end.
            next = self.signals.try_recv().ok().and_then(Result::ok);
        }
        if !delivered.is_empty() {
            self.errand.spool.done(&delivered);
            delivered.iter().for_each(|place| {
                self.unsure.remove(place);
            });
        }
    }

    /// Takes leave, so that the broker does not execute the last will.
    async fn leave(&mut self) -> Result<(), String> {
        self.client.disconnect().await?;
        // The client ends with the connection.
        let _ = tokio::time::timeout(Duration::from_secs(1), async { while self.signals.recv().await.is_some_and(|s| s.is_ok()) {} }).await;
        Ok(())
    }
}
