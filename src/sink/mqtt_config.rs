//! Settings of the MQTT sink, and their validation.

use std::path::PathBuf;

use derive_setters::Setters;
use rumqttc::{TlsConfiguration, Transport};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::range::OutOfRange;
use crate::secret::Secret;
use crate::sink::client_tls::{ClientTls, install_provider};
use crate::sink::delivery::check_events;
use crate::sink::sink::SinkError;
use crate::sink::spool::SpoolLimits;
use crate::trajectory::EventKind;

/// Protocol version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub enum Version {
    /// MQTT 3.1.1.
    #[serde(rename = "3.1.1")]
    V3,
    /// MQTT 5.
    #[default]
    #[serde(rename = "5")]
    V5,
}

/// Settings of the MQTT sink.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Setters)]
#[serde(deny_unknown_fields, default)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct MqttConfig {
    /// Address of the broker: mqtt://host:1883, or mqtts://host:8883 for TLS. Required.
    pub broker: String,
    /// Protocol version: "5" or "3.1.1".
    pub version: Version,
    /// MQTT client id. Must be unique at the broker, which disconnects the older of two clients
    /// with the same id.
    pub client_id: String,
    /// User name, if the broker requires one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Password. Prefer `password_env` or `password_file`, which keep the password out of this
    /// file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// Environment variable that holds the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_env: Option<String>,
    /// File whose first line is the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// CA certificate (PEM) with which the broker's certificate is verified. Absent: the system's
    /// certificates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Client certificate (PEM).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_file: Option<PathBuf>,
    /// Key (PEM) of the client certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// Prefix of every topic, without wildcards (+ and #).
    pub topic: String,
    /// Kinds of events to send: trajectory, track_ended, zone, line, camera_status.
    pub events: Vec<EventKind>,
    /// Prefix of the topics of Home Assistant's MQTT discovery, usually "homeassistant". Absent: no
    /// discovery. With it, `events` must contain camera_status, zone and line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub home_assistant: Option<String>,
    /// Limits of the spool that holds events until the broker acknowledges them.
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
            events: EventKind::ALL.to_vec(),
            home_assistant: None,
            spool: SpoolLimits::default(),
        }
    }
}

/// Validated settings of the connection, with the contents of secrets and certificates.
#[derive(Clone)]
pub(super) struct Broker {
    pub config: MqttConfig,
    pub host: String,
    pub port: u16,
    pub password: Option<Secret>,
    pub transport: Transport,
}

fn settings_error(reason: String) -> SinkError {
    SinkError::Settings {
        sink: "mqtt",
        reason,
    }
}

impl MqttConfig {
    /// Checks that every value is in its range.
    ///
    /// # Errors
    /// The first value outside its range.
    pub fn validate(&self) -> Result<(), OutOfRange> {
        check_events("mqtt", &self.events)?;
        self.spool.validate("mqtt")
    }

    /// Checks the settings, and that the secret and the files can be read, without connecting.
    ///
    /// # Errors
    /// The first invalid setting, or a secret or file that cannot be read.
    pub fn check(&self) -> Result<(), SinkError> {
        self.broker().map(drop)
    }

    /// Validates the settings, and reads the files that they name.
    pub(super) fn broker(&self) -> Result<Broker, SinkError> {
        let (scheme, rest) = self.broker.split_once("://").ok_or_else(|| {
            settings_error(format!(
                "broker = \"{}\" is not an address; write mqtt://host:1883",
                self.broker
            ))
        })?;
        let tls = match scheme {
            "mqtt" | "tcp" => false,
            "mqtts" | "ssl" => true,
            _ => {
                return Err(settings_error(format!(
                    "broker = \"{scheme}://…\": the scheme must be mqtt:// or mqtts://"
                )));
            }
        };
        if rest.contains('@') {
            return Err(settings_error(
                "broker holds credentials: write them in user and password (or password_file)"
                    .into(),
            ));
        }
        if self.topic.is_empty() || self.topic.contains(['+', '#']) {
            return Err(settings_error(format!(
                "topic = \"{}\": it must not be empty and must not contain + or #",
                self.topic
            )));
        }
        self.check_home_assistant()?;
        let (host, port) = match rest.trim_end_matches('/').rsplit_once(':') {
            Some((host, port)) => (
                host,
                port.parse()
                    .map_err(|_| settings_error(format!("broker: {port} is not a port number")))?,
            ),
            None => (rest.trim_end_matches('/'), if tls { 8883 } else { 1883 }),
        };
        let transport = self.transport(tls)?;
        let password = Secret::find(
            "password",
            &self.password,
            &self.password_env,
            &self.password_file,
        )
        .map_err(settings_error)?;
        Ok(Broker {
            config: self.clone(),
            host: host.into(),
            port,
            password,
            transport,
        })
    }

    fn check_home_assistant(&self) -> Result<(), SinkError> {
        let Some(prefix) = &self.home_assistant else {
            return Ok(());
        };
        if prefix.is_empty() || prefix.contains(['+', '#']) {
            return Err(settings_error(format!(
                "home_assistant = \"{prefix}\": it must not be empty and must not contain + or #"
            )));
        }
        let needed = [EventKind::CameraStatus, EventKind::Zone, EventKind::Line];
        match needed.iter().find(|kind| !self.events.contains(kind)) {
            Some(kind) => Err(settings_error(format!(
                "home_assistant needs events of the kind {}: add it to events",
                kind.name()
            ))),
            None => Ok(()),
        }
    }

    /// Plain TCP, or TLS with the configured certificates.
    fn transport(&self, tls: bool) -> Result<Transport, SinkError> {
        let files = ClientTls::read(&self.ca_file, &self.certificate_file, &self.key_file)
            .map_err(settings_error)?;
        if !tls {
            return Ok(Transport::Tcp);
        }
        install_provider();
        match (files.ca, files.client) {
            (Some(ca), client_auth) => Ok(Transport::Tls(TlsConfiguration::Simple {
                ca,
                alpn: None,
                client_auth,
            })),
            (None, Some(_)) => Err(settings_error("certificate_file requires ca_file".into())),
            (None, None) => Ok(Transport::Tls(TlsConfiguration::default())),
        }
    }
}
