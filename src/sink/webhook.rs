//! Events to a web address: POST of JSON lines, signed.
//!
//! Header `X-Twintrack-Signature: v1=<hex>` is the HMAC-SHA256, with the shared secret, of the text of header
//! `X-Twintrack-Timestamp` (seconds since 1970), a full stop, and the body. A receiver answers 2xx when it has the events; anything
//! else, and they come again.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::address::masked as without_password;
use crate::range::{OutOfRange, within};
use crate::secret::Secret;
use crate::sink::courier::{Errand, Spooled};
use crate::sink::sink::SinkError;
use crate::sink::spool::{Kind, Spool, SpoolLimits};

/// Which address, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebhookConfig {
    /// Where to: http:// or https://.
    pub url: String,
    /// Secret to sign with; not signed when absent. Better kept in `secret_env` or `secret_file`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    /// Environment variable that holds the secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_env: Option<String>,
    /// File whose first line is the secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<PathBuf>,
    /// Certificate (PEM) of who signed the receiver's; those of Mozilla's list when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Which events: trajectory, track_ended, camera_status.
    pub events: Vec<Kind>,
    /// At most so many events in one POST.
    pub batch: usize,
    /// The receiver may take so long, seconds.
    pub timeout: f64,
    /// How much waits on disk while the receiver is away.
    pub spool: SpoolLimits,
}

impl Default for WebhookConfig {
    fn default() -> Self {
        WebhookConfig {
            url: String::new(),
            secret: None,
            secret_env: None,
            secret_file: None,
            ca_file: None,
            events: vec![Kind::TrackEnded, Kind::CameraStatus],
            batch: 100,
            timeout: 10.0,
            spool: SpoolLimits::default(),
        }
    }
}

/// Pauses between attempts, seconds: the first and the longest.
const PAUSE: (f64, f64) = (0.5, 10.0);

impl WebhookConfig {
    /// Refuses values outside their ranges.
    ///
    /// # Errors
    /// The first such value.
    pub fn validate(&self) -> Result<(), OutOfRange> {
        within("webhook.events (how many)", self.events.len(), 1, 3)?;
        within("webhook.batch", self.batch, 1, 10_000)?;
        within("webhook.timeout", self.timeout, 0.1, 600.0)?;
        self.spool.validate("webhook")
    }

    /// The sink; its courier starts at once, and a receiver that is away is waited for.
    ///
    /// # Errors
    /// When the settings are wrong.
    pub fn start(&self, spool: Arc<Spool>, patience: Duration) -> Result<Spooled, SinkError> {
        let wrong = |reason: String| SinkError::Settings { sink: "webhook", reason };
        if !(self.url.starts_with("http://") || self.url.starts_with("https://")) {
            return Err(wrong(format!("url = \"{}\": it begins with http:// or https://", without_password(&self.url))));
        }
        let secret = Secret::find_strong("secret", &self.secret, &self.secret_env, &self.secret_file).map_err(wrong)?;
        let mut agent = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs_f64(self.timeout))).http_status_as_error(false).max_redirects(0);
        if let Some(path) = &self.ca_file {
            let pem = std::fs::read(path).map_err(|e| wrong(format!("cannot read {}: {e}", path.display())))?;
            let certificate = ureq::tls::Certificate::from_pem(&pem).map_err(|e| wrong(format!("{}: {e}", path.display())))?;
            agent = agent.tls_config(ureq::tls::TlsConfig::builder().root_certs(ureq::tls::RootCerts::new_with_certs(&[certificate])).build());
        }
        let (config, agent) = (self.clone(), ureq::Agent::new_with_config(agent.build()));
        Spooled::start(spool, self.events.clone(), patience, move |errand| deliver(config, secret, agent, errand))
    }
}

/// The signature of a body at a time.
fn signature(secret: &Secret, timestamp: u64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()).expect("a key of any length will do");
    mac.update(format!("{timestamp}.").as_bytes());
    mac.update(body);
    mac.finalize().into_bytes().iter().fold("v1=".to_string(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // to a String: cannot fail
        text
    })
}

async fn deliver(config: WebhookConfig, secret: Option<Secret>, agent: ureq::Agent, errand: Errand) {
    let Errand { spool, ending } = errand;
    let mut pause = PAUSE.0;
    loop {
        let events = spool.after(0, config.batch);
        if events.is_empty() {
            if ending.is_cancelled() {
                return;
            }
            tokio::select! {
                () = spool.news() => {}
                () = ending.cancelled() => {}
            }
            // What comes at one moment goes in one POST.
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        }
        let mut body = Vec::new();
        for event in &events {
            body.extend_from_slice(&event.body);
            body.push(b'\n');
        }
        let timestamp = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut post = agent.post(&config.url).header("Content-Type", "application/x-ndjson").header("X-Twintrack-Timestamp", timestamp.to_string());
        if let Some(secret) = &secret {
            post = post.header("X-Twintrack-Signature", signature(secret, timestamp, &body));
        }
        // It blocks, on the courier's own thread where nothing else runs but the clock of the end.
        let answer = match post.send(&body[..]) {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => Err(format!("it answers {}", answer.status())),
            Err(e) => Err(e.to_string()),
        };
        spool.counts.connected.store(answer.is_ok(), Ordering::Relaxed);
        match answer {
            Ok(()) => {
                spool.done(&events.iter().map(|e| e.place).collect::<Vec<_>>());
                pause = PAUSE.0;
            }
            Err(e) => {
                spool.counts.failures.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(sink = "webhook", url = %without_password(&config.url), error = %e, "the receiver does not take the events; they wait on disk");
                tokio::time::sleep(Duration::from_secs_f64(pause * (0.8 + 0.4 * fastrand::f64()))).await;
                pause = (2.0 * pause).min(PAUSE.1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_hmac_sha256_of_time_and_body() {
        // printf '1700000000.{"a":1}\n' | openssl dgst -sha256 -hmac secret
        let want = "e2c33919390901334d6c0383710d62cf97b5e002a58fbc7de77185a8f50a22e1";
        assert_eq!(signature(&Secret::new("secret"), 1_700_000_000, b"{\"a\":1}\n"), format!("v1={want}"));
    }
}
