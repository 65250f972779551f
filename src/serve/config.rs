//! The configuration file of `twintrack serve`: the sections of the service, and any section of
//! [`Config`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use derive_setters::Setters;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml::Spanned;
use toml::de::DeTable;

use crate::config::{self, Config, ConfigError};
use crate::fleet::FleetConfig;
use crate::multi_camera::MultiCameraConfig;
use crate::pipeline::BatchConfig;
use crate::range::{OutOfRange, within};
use crate::secret::Secret;
use crate::serve::access::accounts_file::AccountsFile;
use crate::serve::access::base_path::BasePath;
use crate::serve::access::client::TrustedProxies;
use crate::serve::replay::ReplayLimits;
use crate::serve::tls::TlsFiles;
use crate::sink::mqtt::MqttConfig;
use crate::sink::nats::NatsConfig;
use crate::sink::webhook::WebhookConfig;
use crate::source::{CameraConfig, Transport};
use crate::store::HistoryConfig;

/// Section `[serve]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Setters)]
#[serde(deny_unknown_fields, default)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct ServeConfig {
    /// Maximum number, 0 to 128, of frames in a batch of the detector; 0: 2 on a CPU, 32 on a GPU.
    pub batch: usize,
    /// Maximum time in seconds, 0 to 1, that a frame waits for others to share its batch.
    pub batch_wait: f64,
    /// Address and port of the web server (page, live events, metrics, health). An empty string
    /// disables it; port 0 takes any free port.
    pub listen: String,
    /// Maximum number, 4 to 65536, of connections to the web server; further ones wait. Each live
    /// client holds one.
    pub max_connections: usize,
    /// Token that clients may send, with the role admin; without users and tokens only clients on
    /// this machine are allowed. Prefer `token_env` or `token_file`, which keep the token out of this
    /// file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
    /// Environment variable that holds the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_env: Option<String>,
    /// File whose first line is the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// Size in bytes at which the file of --output is rotated; 0 disables rotation.
    pub output_bytes: u64,
    /// Number of rotated files to keep; older ones are deleted.
    pub output_keep: u32,
    /// Folder of the spools, dead-letter files, the history, drawn zones, users and the audit log.
    /// Absent: the value of the environment variable STATE_DIRECTORY, which systemd sets, else
    /// `twintrack-state` in the working folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_dir: Option<PathBuf>,
    /// Path below which a reverse proxy serves twintrack, such as `/twintrack`; the proxy must not
    /// remove it. Empty: none.
    pub base_path: String,
    /// Addresses and networks, such as `127.0.0.1` and `10.0.0.0/8`, of reverse proxies whose
    /// headers X-Forwarded-For, -Proto and -Host are believed.
    pub trusted_proxies: Vec<String>,
    /// File of the certificate for TLS (PEM, with the certificates of its issuers). Read again when
    /// it changes and on SIGHUP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_certificate: Option<PathBuf>,
    /// File of the certificate's private key (PEM).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_key: Option<PathBuf>,
    /// Time in seconds, 60 to 2592000, after which a session without requests and open live streams
    /// ends.
    pub session_idle: f64,
    /// Time in seconds, 60 to 31536000, after which a session ends in any case.
    pub session_lifetime: f64,
    /// Maximum age in seconds, 0 to 3600, of the live events that are kept in memory for clients
    /// that reconnect; 0: none are kept.
    pub live_age: f64,
    /// Maximum size in bytes, up to 4294967296, of these events together.
    pub live_bytes: u64,
    /// Size in bytes, 4096 to 1073741824, at which the audit log is rotated; 0 disables rotation.
    pub audit_bytes: u64,
    /// Number, 0 to 1000, of rotated audit logs to keep; older ones are deleted.
    pub audit_keep: u32,
    /// Timeout of the shutdown in seconds, 0 to 600. Spooled events are delivered until then; the
    /// rest stays on disk for the next run.
    pub stop_within: f64,
}

impl Default for ServeConfig {
    fn default() -> Self {
        ServeConfig {
            batch: 0,
            batch_wait: 0.01,
            listen: "127.0.0.1:8090".into(),
            max_connections: 256,
            token: None,
            token_env: None,
            token_file: None,
            output_bytes: 256 << 20,
            output_keep: 16,
            state_dir: None,
            base_path: String::new(),
            trusted_proxies: Vec::new(),
            tls_certificate: None,
            tls_key: None,
            session_idle: 3600.0,
            session_lifetime: 43_200.0,
            live_age: 120.0,
            live_bytes: 32 << 20,
            audit_bytes: 8 << 20,
            audit_keep: 16,
            stop_within: 5.0,
        }
    }
}

/// Minimum length of the token in characters, if the server listens on another address than
/// loopback.
const MIN_TOKEN: usize = 16;

impl ServeConfig {
    /// Checks that every value is in its range.
    ///
    /// # Errors
    /// The first value outside its range.
    fn validate(&self) -> Result<(), OutOfRange> {
        within("serve.batch", self.batch, 0, 128)?;
        within("serve.batch_wait", self.batch_wait, 0.0, 1.0)?;
        within("serve.max_connections", self.max_connections, 4, 65_536)?;
        within(
            "serve.output_keep",
            f64::from(self.output_keep),
            0.0,
            100_000.0,
        )?;
        within("serve.session_idle", self.session_idle, 60.0, 2_592_000.0)?;
        within(
            "serve.session_lifetime",
            self.session_lifetime,
            60.0,
            31_536_000.0,
        )?;
        within("serve.live_age", self.live_age, 0.0, 3600.0)?;
        within("serve.live_bytes", self.live_bytes, 0, 1_u64 << 32)?;
        if self.audit_bytes > 0 {
            within("serve.audit_bytes", self.audit_bytes, 4096, 1 << 30)?;
        }
        within("serve.audit_keep", self.audit_keep, 0, 1000)?;
        within("serve.stop_within", self.stop_within, 0.0, 600.0)
    }

    /// Which live events are kept for clients that reconnect.
    pub fn replay(&self) -> ReplayLimits {
        ReplayLimits {
            age: Duration::from_secs_f64(self.live_age),
            bytes: usize::try_from(self.live_bytes).unwrap_or(usize::MAX),
        }
    }

    /// The files of the certificate; None without TLS.
    ///
    /// # Errors
    /// When only one of the two is set.
    pub fn tls_files(&self) -> Result<Option<TlsFiles>, String> {
        match (&self.tls_certificate, &self.tls_key) {
            (Some(certificate), Some(key)) => Ok(Some(TlsFiles {
                certificate: certificate.clone(),
                key: key.clone(),
            })),
            (None, None) => Ok(None),
            _ => Err("TLS needs both serve.tls_certificate and serve.tls_key".into()),
        }
    }

    /// The address to listen on and the token to require, if any. None if the web server is
    /// disabled.
    ///
    /// # Errors
    /// When the address, the base path or a trusted proxy is invalid, only one of the TLS files is
    /// set, or the token or the users cannot be read. When the token has other characters than
    /// printable ASCII. When the address is not a loopback address, and the token is shorter than
    /// `MIN_TOKEN` or, without a token, there are neither users nor named tokens.
    pub fn listen_address(&self) -> Result<Option<(SocketAddr, Option<Secret>)>, String> {
        if self.listen.is_empty() {
            return Ok(None);
        }
        let address: SocketAddr = self.listen.parse().map_err(|_| {
            format!(
                "serve.listen = \"{}\" is not an address with a port, such as 127.0.0.1:8090",
                self.listen
            )
        })?;
        BasePath::parse(&self.base_path)?;
        TrustedProxies::parse(&self.trusted_proxies)?;
        self.tls_files()?;
        let token = Secret::find_strong("token", &self.token, &self.token_env, &self.token_file)?;
        let is_sendable = |t: &Secret| t.expose().bytes().all(|b| b.is_ascii_graphic());
        if token.as_ref().is_some_and(|t| !is_sendable(t)) {
            return Err(
                "serve.token must consist of printable ASCII characters without spaces: clients \
                 could not send it (`openssl rand -hex 24` makes one)"
                    .into(),
            );
        }
        let protected = match &token {
            _ if address.ip().is_loopback() => true,
            Some(token) => token.expose().len() >= MIN_TOKEN,
            None => self.has_accounts()?,
        };
        if !protected {
            return Err(format!(
                "serve.listen = \"{}\" is open to other machines, which requires users (`twintrack \
                 user add`), or a token of at least {MIN_TOKEN} characters: set serve.token_file \
                 (`openssl rand -hex 24` makes one)",
                self.listen
            ));
        }
        Ok(Some((address, token)))
    }

    /// Whether there are users or named tokens.
    fn has_accounts(&self) -> Result<bool, String> {
        let accounts = AccountsFile::in_folder(&self.state()).read();
        accounts.map(|a| !a.is_empty()).map_err(|e| e.to_string())
    }

    /// The folder of spools, dead-letter files, the history, users and the audit log.
    pub fn state(&self) -> PathBuf {
        let systemd = || std::env::var_os("STATE_DIRECTORY").map(PathBuf::from);
        self.state_dir
            .clone()
            .or_else(systemd)
            .unwrap_or_else(|| "twintrack-state".into())
    }
}

/// The sections of the file that are not sections of [`Config`].
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema, Setters)]
#[serde(deny_unknown_fields, default)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct ServiceConfig {
    /// The service.
    pub serve: ServeConfig,
    /// The cameras by name.
    pub cameras: BTreeMap<String, CameraConfig>,
    /// The MQTT sink.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mqtt: Option<MqttConfig>,
    /// The NATS sink.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nats: Option<NatsConfig>,
    /// The webhook sink.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook: Option<WebhookConfig>,
    /// The history of tracks and events. Absent: none is stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history: Option<HistoryConfig>,
    /// Who is who across cameras, decided on the tracks in the history. Absent: it is not decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub multi_camera: Option<MultiCameraConfig>,
    /// The fleet of which the service is a worker. Absent: it has its own cameras.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fleet: Option<FleetConfig>,
}

impl ServiceConfig {
    /// Reads a service's file: `[serve]`, `[cameras.NAME]`, `[mqtt]`, `[nats]`, `[webhook]`,
    /// `[history]`, `[multi_camera]`, `[fleet]`, and the sections of [`Config`].
    ///
    /// # Errors
    /// When the file cannot be read, is not TOML, has no camera, or has an unknown key or a value
    /// out of range, and when the token cannot be read.
    pub fn read(path: &Path) -> Result<(Self, Config), ConfigError> {
        Self::from_toml(&Config::text(path)?, path)
    }

    /// Parses the TOML `text` of the file `path`.
    ///
    /// # Errors
    /// As [`ServiceConfig::read`].
    pub fn from_toml(text: &str, path: &Path) -> Result<(Self, Config), ConfigError> {
        let (service, config) = Self::parse_partial(text, path)?;
        service
            .serve
            .listen_address()
            .map_err(|e| ConfigError::invalid(path, e))?;
        if service.cameras.is_empty() && service.fleet.is_none() {
            return Err(ConfigError::invalid(
                path,
                "it has no camera; add a section [cameras.NAME] with url = \"rtsp://…\"",
            ));
        }
        Ok((service, config))
    }

    /// As [`ServiceConfig::read`], but the file may lack cameras and the token, for commands that
    /// run no service.
    ///
    /// # Errors
    /// When the file cannot be read, is not TOML, or has an unknown key or a value out of range.
    pub fn read_partial(path: &Path) -> Result<(Self, Config), ConfigError> {
        Self::parse_partial(&Config::text(path)?, path)
    }

    /// Parses and validates the file, except for the presence of cameras and the token.
    fn parse_partial(text: &str, path: &Path) -> Result<(Self, Config), ConfigError> {
        let whole = config::parse_table(text, path)?;
        let span = whole.span();
        let own = [
            "serve",
            "cameras",
            "mqtt",
            "nats",
            "webhook",
            "history",
            "fleet",
            "multi_camera",
        ];
        let is_own = |key: &str| own.contains(&key);
        let (own, other): (DeTable<'_>, DeTable<'_>) = whole
            .into_inner()
            .into_iter()
            .partition(|(key, _)| is_own(key.get_ref()));
        if own
            .get("serve")
            .and_then(|s| s.get_ref().get("cameras"))
            .is_some()
        {
            return Err(ConfigError::invalid(
                path,
                "cameras are sections of their own: write [cameras.NAME], not [serve.cameras.NAME]",
            ));
        }
        let mut service: ServiceConfig =
            config::deserialize_table(Spanned::new(span.clone(), own), text, path)?;
        service.validate(path)?;
        let config = Config::from_table(Spanned::new(span, other), text, path)?;
        if let Some(history) = &mut service.history {
            history.crops &= config.privacy.crops;
            history.embeddings &= config.privacy.embeddings;
        }
        Ok((service, config))
    }

    fn validate(&self, path: &Path) -> Result<(), ConfigError> {
        self.serve.validate()?;
        self.cameras
            .iter()
            .try_for_each(|(name, camera)| camera.validate(name))?;
        for (name, camera) in &self.cameras {
            camera.scene().validate(&format!("cameras.{name}."))?;
        }
        self.mqtt.iter().try_for_each(MqttConfig::validate)?;
        self.nats.iter().try_for_each(NatsConfig::validate)?;
        self.webhook.iter().try_for_each(WebhookConfig::validate)?;
        self.history.iter().try_for_each(HistoryConfig::validate)?;
        self.fleet.iter().try_for_each(FleetConfig::validate)?;
        self.multi_camera
            .iter()
            .try_for_each(MultiCameraConfig::validate)?;
        if let Some(fleet) = &self.fleet {
            self.check_fleet(fleet)
                .map_err(|reason| ConfigError::invalid(path, reason))?;
        }
        for (name, camera) in &self.cameras {
            if name.is_empty()
                || !name
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            {
                return Err(ConfigError::invalid(
                    path,
                    format!(
                        "the camera name '{name}' may contain only letters, digits, '-', '_' and \
                         '.': it becomes part of addresses and topics"
                    ),
                ));
            }
            if camera.url.is_empty() {
                return Err(ConfigError::invalid(
                    path,
                    format!("cameras.{name} has no url"),
                ));
            }
        }
        if let Some((name, _)) = self
            .rtsp()
            .find(|(_, camera)| camera.transport != self.transport())
        {
            let other = self.rtsp().next().map_or("", |(name, _)| name.as_str());
            return Err(ConfigError::invalid(
                path,
                format!(
                    "cameras.{name}.transport differs from that of {other}: FFmpeg has one setting \
                     for all RTSP cameras of a process; choose one transport, or run two processes"
                ),
            ));
        }
        Ok(())
    }

    /// Checks what a worker of a fleet needs.
    fn check_fleet(&self, fleet: &FleetConfig) -> Result<(), String> {
        if let Some(name) = self.cameras.keys().next() {
            return Err(format!(
                "[fleet]: a worker gets its cameras from the fleet; write cameras.{name} into a file of \
                 its own and add it with `twintrack fleet apply FILE`"
            ));
        }
        if fleet.nats.is_empty() {
            return Err("[fleet]: set nats to the NATS server, such as nats://host:4222".into());
        }
        fleet.worker_name().map(drop)
    }

    /// Settings of the NATS sink: those of `[nats]`; for a worker of a fleet, see
    /// [`FleetConfig::events`].
    pub fn event_stream(&self) -> Option<NatsConfig> {
        match &self.fleet {
            Some(fleet) => Some(fleet.events(self.nats.as_ref())),
            None => self.nats.clone(),
        }
    }

    fn rtsp(&self) -> impl Iterator<Item = (&String, &CameraConfig)> {
        self.cameras
            .iter()
            .filter(|(_, camera)| camera.url.expose().starts_with("rtsp"))
    }

    /// RTSP transport of all cameras.
    pub fn transport(&self) -> Transport {
        self.rtsp()
            .next()
            .map(|(_, camera)| camera.transport)
            .unwrap_or_default()
    }

    /// Batch settings of the detector. `on_gpu`: whether the detector runs on a GPU.
    pub fn batch(&self, on_gpu: bool) -> BatchConfig {
        let (size, per_recording) = if on_gpu { (32, 2) } else { (2, 1) };
        BatchConfig::default()
            .with_size(if self.serve.batch == 0 {
                size
            } else {
                self.serve.batch
            })
            .with_wait(Duration::from_secs_f64(self.serve.batch_wait))
            .with_per_recording(per_recording)
    }
}

#[cfg(test)]
mod tests;
