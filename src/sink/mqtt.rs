//! Events to an MQTT broker, version 3.1.1 or 5, at least once.
//!
//! Topics: `<topic>/<camera>/tracks`, `/events` (ends of tracks) and `/status` (retained), and `<topic>/status` (retained): `online`,
//! or `offline` by the last will when the connection breaks.

use std::path::PathBuf;
use std::time::Duration;

use rumqttc::{TlsConfiguration, Transport};
use serde::{Deserialize, Serialize};

use crate::range::{OutOfRange, within};
use crate::secret::Secret;
use crate::sink::delivery::SpoolSink;
use crate::sink::mqtt_session::deliver;
use crate::sink::sink::SinkError;
use crate::sink::spool::{Spool, SpoolLimits};
use crate::trajectory::EventKind;

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
    pub events: Vec<EventKind>,
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
            events: vec![
                EventKind::Trajectory,
                EventKind::TrackEnded,
                EventKind::CameraStatus,
            ],
            spool: SpoolLimits::default(),
        }
    }
}

/// Everything a connection needs, read and checked once.
#[derive(Clone)]
pub(super) struct Broker {
    pub config: MqttConfig,
    pub host: String,
    pub port: u16,
    pub password: Option<Secret>,
    pub transport: Transport,
}

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
        let wrong = |reason: String| SinkError::Settings {
            sink: "mqtt",
            reason,
        };
        let (scheme, rest) = self.broker.split_once("://").ok_or_else(|| {
            wrong(format!(
                "broker = \"{}\" is no address; write mqtt://host:1883",
                self.broker
            ))
        })?;
        let tls = match scheme {
            "mqtt" | "tcp" => false,
            "mqtts" | "ssl" => true,
            _ => {
                return Err(wrong(format!(
                    "broker = \"{scheme}://…\": mqtt:// and mqtts:// are known"
                )));
            }
        };
        if rest.contains('@') {
            return Err(wrong(
                "user and password have their own fields, beside the broker's address".into(),
            ));
        }
        if self.topic.is_empty() || self.topic.contains(['+', '#']) {
            return Err(wrong(format!(
                "topic = \"{}\": it may not be empty, nor hold + or #",
                self.topic
            )));
        }
        let (host, port) = match rest.trim_end_matches('/').rsplit_once(':') {
            Some((host, port)) => (
                host,
                port.parse()
                    .map_err(|_| wrong(format!("{port} is no port")))?,
            ),
            None => (rest.trim_end_matches('/'), if tls { 8883 } else { 1883 }),
        };
        let read = |path: &PathBuf| {
            std::fs::read(path).map_err(|e| wrong(format!("cannot read {}: {e}", path.display())))
        };
        let client_auth = match (&self.certificate_file, &self.key_file) {
            (Some(certificate), Some(key)) => Some((read(certificate)?, read(key)?)),
            (None, None) => None,
            _ => {
                return Err(wrong(
                    "certificate_file and key_file belong together".into(),
                ));
            }
        };
        let transport = if !tls {
            Transport::Tcp
        } else {
            // Another part of the program may have been first: they want the same.
            let _ = rustls::crypto::ring::default_provider().install_default();
            match &self.ca_file {
                Some(ca) => Transport::Tls(TlsConfiguration::Simple {
                    ca: read(ca)?,
                    alpn: None,
                    client_auth,
                }),
                None if client_auth.is_some() => {
                    return Err(wrong("certificate_file needs ca_file beside it".into()));
                }
                None => Transport::Tls(TlsConfiguration::default()),
            }
        };
        let password = Secret::find(
            "password",
            &self.password,
            &self.password_env,
            &self.password_file,
        )
        .map_err(wrong)?;
        Ok(Broker {
            config: self.clone(),
            host: host.into(),
            port,
            password,
            transport,
        })
    }

    /// The sink; its courier starts at once, and a broker that is away is waited for.
    ///
    /// # Errors
    /// When the settings are wrong.
    pub fn start(
        &self,
        spool: std::sync::Arc<Spool>,
        patience: Duration,
    ) -> Result<SpoolSink, SinkError> {
        let broker = self.broker()?;
        SpoolSink::start(spool, self.events.clone(), patience, move |errand| {
            deliver(broker, errand)
        })
    }
}
