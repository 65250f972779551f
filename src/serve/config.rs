//! The file that `twintrack serve` runs by: the service's own sections, and beside them any section of a configuration.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use toml::Spanned;
use toml::de::DeTable;

use crate::config::{self, Config, ConfigError};
use crate::pipeline::BatchConfig;
use crate::range::{OutOfRange, within};
use crate::secret::Secret;
use crate::sink::mqtt::MqttConfig;
use crate::sink::webhook::WebhookConfig;
use crate::source::{CameraConfig, Transport};

/// `[serve]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServeConfig {
    /// At most this many frames go to the detector at once.
    pub batch: usize,
    /// A frame waits at most this long for others to share its batch, seconds.
    pub batch_wait: f64,
    /// Address and port of the page, the live events and the metrics; empty for none. Port 0 takes any that is free.
    pub listen: String,
    /// What a client must show; without it only this machine itself is let in. Better kept in `token_env` or `token_file`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
    /// Environment variable that holds the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_env: Option<String>,
    /// File whose first line is the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// The file of events is put aside when it has so many bytes; 0: never.
    pub output_bytes: u64,
    /// So many files put aside are kept.
    pub output_keep: u32,
    /// Folder for the events that wait for a receiver. Systemd's STATE_DIRECTORY, or `twintrack-state`, when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_dir: Option<PathBuf>,
    /// At the end the receivers get what is left for at most so long, seconds; the rest waits for the next run.
    pub stop_within: f64,
}

impl Default for ServeConfig {
    fn default() -> Self {
        ServeConfig {
            batch: 4,
            batch_wait: 0.01,
            listen: "127.0.0.1:8090".into(),
            token: None,
            token_env: None,
            token_file: None,
            output_bytes: 256 << 20,
            output_keep: 16,
            state_dir: None,
            stop_within: 5.0,
        }
    }
}

/// Shortest token that is let pass beyond this machine.
const SHORTEST_TOKEN: usize = 16;

impl ServeConfig {
    /// Checks every value against its range.
    ///
    /// # Errors
    /// The first value outside its range.
    fn validate(&self) -> Result<(), OutOfRange> {
        within("serve.batch", self.batch, 1, 256)?;
        within("serve.batch_wait", self.batch_wait, 0.0, 1.0)?;
        within(
            "serve.output_keep",
            f64::from(self.output_keep),
            0.0,
            100_000.0,
        )?;
        within("serve.stop_within", self.stop_within, 0.0, 600.0)
    }

    /// Where to listen, and the token to ask for.
    ///
    /// # Errors
    /// When the address is none, the token is missing where it was named, or an address beyond this machine has none.
    pub fn door(&self) -> Result<Option<(SocketAddr, Option<Secret>)>, String> {
        if self.listen.is_empty() {
            return Ok(None);
        }
        let address: SocketAddr = self.listen.parse().map_err(|_| {
            format!(
                "serve.listen = \"{}\" is no address with a port, as 127.0.0.1:8090 is",
                self.listen
            )
        })?;
        let token = Secret::find_strong("token", &self.token, &self.token_env, &self.token_file)?;
        let long = token
            .as_ref()
            .is_some_and(|t| t.expose().len() >= SHORTEST_TOKEN);
        if !address.ip().is_loopback() && !long {
            return Err(format!(
                "serve.listen = \"{}\" lets other machines in, which needs a token of at least {SHORTEST_TOKEN} characters: set serve.token_file (`openssl rand -hex 24` makes one)",
                self.listen
            ));
        }
        Ok(Some((address, token)))
    }

    /// The folder for what must outlive the run.
    pub fn state(&self) -> PathBuf {
        let systemd = || std::env::var_os("STATE_DIRECTORY").map(PathBuf::from);
        self.state_dir
            .clone()
            .or_else(systemd)
            .unwrap_or_else(|| "twintrack-state".into())
    }
}

/// The whole file, but for the sections of [`Config`].
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServiceConfig {
    /// The service.
    pub serve: ServeConfig,
    /// The cameras by their short names.
    pub cameras: BTreeMap<String, CameraConfig>,
    /// An MQTT broker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mqtt: Option<MqttConfig>,
    /// A web address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook: Option<WebhookConfig>,
}

impl ServiceConfig {
    /// Reads a file of cameras: `[serve]`, `[cameras.NAME]`, `[mqtt]`, `[webhook]`, and beside them the sections of any configuration.
    ///
    /// # Errors
    /// When it cannot be read, is not TOML, names no camera, or has an unknown key or a value out of range.
    pub fn read(path: &Path) -> Result<(Self, Config), ConfigError> {
        Self::from_toml(&Config::text(path)?, path)
    }

    /// Takes the TOML `text` of the file `path`.
    ///
    /// # Errors
    /// As [`ServiceConfig::read`].
    pub fn from_toml(text: &str, path: &Path) -> Result<(Self, Config), ConfigError> {
        let (me, config) = Self::of_sections(text, path)?;
        me.serve.door().map_err(|e| ConfigError::wrong(path, e))?;
        if me.cameras.is_empty() {
            return Err(ConfigError::wrong(
                path,
                "it names no camera; add a section [cameras.NAME] with url = \"rtsp://…\"",
            ));
        }
        Ok((me, config))
    }

    /// The same of a file that need not be complete: for commands that run no service. No secret is looked for.
    ///
    /// # Errors
    /// When it cannot be read, is not TOML, or has an unknown key or a value out of range.
    pub fn sections(path: &Path) -> Result<(Self, Config), ConfigError> {
        Self::of_sections(&Config::text(path)?, path)
    }

    fn of_sections(text: &str, path: &Path) -> Result<(Self, Config), ConfigError> {
        let whole = config::table(text, path)?;
        let span = whole.span();
        let is_own = |key: &str| ["serve", "cameras", "mqtt", "webhook"].contains(&key);
        let (own, other): (DeTable<'_>, DeTable<'_>) = whole
            .into_inner()
            .into_iter()
            .partition(|(key, _)| is_own(key.get_ref()));
        if own
            .get("serve")
            .and_then(|s| s.get_ref().get("cameras"))
            .is_some()
        {
            return Err(ConfigError::wrong(
                path,
                "cameras stand at the top: write [cameras.NAME], not [serve.cameras.NAME]",
            ));
        }
        let me: ServiceConfig = config::of_table(Spanned::new(span.clone(), own), text, path)?;
        me.serve.validate()?;
        me.cameras
            .iter()
            .try_for_each(|(name, camera)| camera.validate(name))?;
        me.mqtt.iter().try_for_each(MqttConfig::validate)?;
        me.webhook.iter().try_for_each(WebhookConfig::validate)?;
        for (name, camera) in &me.cameras {
            if name.is_empty()
                || !name
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            {
                return Err(ConfigError::wrong(
                    path,
                    format!(
                        "the camera's name '{name}' may have letters, digits, '-', '_' and '.' only: it becomes a part of addresses"
                    ),
                ));
            }
            if camera.url.is_empty() {
                return Err(ConfigError::wrong(
                    path,
                    format!("cameras.{name} has no url"),
                ));
            }
        }
        if let Some((name, _)) = me
            .rtsp()
            .find(|(_, camera)| camera.transport != me.transport())
        {
            let other = me.rtsp().next().map_or("", |(name, _)| name.as_str());
            return Err(ConfigError::wrong(
                path,
                format!(
                    "cameras.{name}.transport differs from that of {other}: FFmpeg takes one order for all RTSP cameras of a process; run two, or choose one"
                ),
            ));
        }
        Ok((
            me,
            Config::from_table(Spanned::new(span, other), text, path)?,
        ))
    }

    fn rtsp(&self) -> impl Iterator<Item = (&String, &CameraConfig)> {
        self.cameras
            .iter()
            .filter(|(_, camera)| camera.url.expose().starts_with("rtsp"))
    }

    /// How RTSP carries pictures, for all cameras.
    pub fn transport(&self) -> Transport {
        self.rtsp()
            .next()
            .map(|(_, camera)| camera.transport)
            .unwrap_or_default()
    }

    /// How the cameras' frames share the networks.
    pub fn batch(&self) -> BatchConfig {
        BatchConfig {
            size: self.serve.batch,
            wait: Duration::from_secs_f64(self.serve.batch_wait),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_machines_are_let_in_by_a_long_token_only() {
        let with = |listen: &str, token: Option<&str>| {
            ServeConfig {
                listen: listen.into(),
                token: token.map(Secret::new),
                ..ServeConfig::default()
            }
            .door()
        };
        assert!(
            with("127.0.0.1:0", None).is_ok_and(|d| d.is_some_and(|(_, token)| token.is_none()))
        );
        assert!(with("[::1]:8090", None).is_ok());
        assert!(
            with("0.0.0.0:8090", None)
                .expect_err("open to all")
                .contains("token")
        );
        assert!(with("0.0.0.0:8090", Some("short")).is_err());
        assert!(with("0.0.0.0:8090", Some("0123456789abcdef")).is_ok());
        assert!(with("", None).is_ok_and(|d| d.is_none()));
        assert!(with("localhost", None).is_err());
    }
}
