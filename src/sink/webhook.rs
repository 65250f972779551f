//! Webhook: events are sent as signed POST requests of JSON lines.
//!
//! The header `X-Twintrack-Signature: v1=<hex>` is the HMAC-SHA256, with the shared secret, of the
//! value of the header `X-Twintrack-Timestamp` (seconds since 1970), a full stop, and the body. A
//! 2xx response acknowledges the events. 400, 413 or 422 refuses them: the batch is then sent in
//! smaller parts, and an event that is refused when sent alone goes to the dead-letter file. After
//! any other response, or none, the events are sent again.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use derive_setters::Setters;
use hmac::{Hmac, KeyInit, Mac};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::address::Address;
use crate::range::{OutOfRange, within};
use crate::secret::Secret;
use crate::sink::backoff::Backoff;
use crate::sink::delivery::{Delivery, SpoolSink, check_events};
use crate::sink::outage_log::OutageLog;
use crate::sink::sink::SinkError;
use crate::sink::spool::{Spool, SpoolLimits};
use crate::trajectory::EventKind;

/// Settings of the webhook.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Setters)]
#[serde(deny_unknown_fields, default)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct WebhookConfig {
    /// Address of the receiver, http:// or https://. Required.
    pub url: Address,
    /// Secret for the signature; requests are not signed when absent. Prefer `secret_env` or
    /// `secret_file`, which keep the secret out of this file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    /// Environment variable that holds the secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_env: Option<String>,
    /// File whose first line is the secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<PathBuf>,
    /// CA certificate (PEM) with which the receiver's certificate is verified. Absent: Mozilla's
    /// list of CAs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Kinds of events to send: trajectory, track_ended, zone, line, camera_status.
    pub events: Vec<EventKind>,
    /// Maximum number, 1 to 10000, of events in one POST.
    pub batch: usize,
    /// Maximum size in bytes of one POST; a longer event is sent alone.
    pub batch_bytes: usize,
    /// Timeout of a POST in seconds.
    pub timeout: f64,
    /// Limits of the spool that holds events until the receiver acknowledges them.
    pub spool: SpoolLimits,
}

impl Default for WebhookConfig {
    fn default() -> Self {
        WebhookConfig {
            url: Address::default(),
            secret: None,
            secret_env: None,
            secret_file: None,
            ca_file: None,
            events: vec![
                EventKind::TrackEnded,
                EventKind::CameraStatus,
                EventKind::Zone,
                EventKind::Line,
            ],
            batch: 100,
            batch_bytes: 1_000_000,
            timeout: 10.0,
            spool: SpoolLimits::default(),
        }
    }
}

/// Back-off, in seconds, between attempts: first and longest pause.
const BACKOFF: (f64, f64) = (0.5, 10.0);
/// Longest pause that a receiver can request by Retry-After.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

impl WebhookConfig {
    /// Checks that every value is in its range.
    ///
    /// # Errors
    /// The first value outside its range.
    pub fn validate(&self) -> Result<(), OutOfRange> {
        check_events("webhook", &self.events)?;
        within("webhook.batch", self.batch, 1, 10_000)?;
        within("webhook.batch_bytes", self.batch_bytes, 1, 1_000_000_000)?;
        within("webhook.timeout", self.timeout, 0.1, 600.0)?;
        self.spool.validate("webhook")
    }

    /// Checks the settings, and that the secret and the files can be read, without connecting.
    ///
    /// # Errors
    /// The first invalid setting, or a secret or file that cannot be read.
    pub fn check(&self) -> Result<(), SinkError> {
        self.client().map(drop)
    }

    /// Starts the sink. Returns at once; the delivery thread retries while the receiver cannot be
    /// reached.
    ///
    /// # Errors
    /// When the settings are invalid, or a file that they name cannot be read.
    pub fn start(
        &self,
        spool: Arc<Spool>,
        shutdown_timeout: Duration,
    ) -> Result<SpoolSink, SinkError> {
        let webhook = self.client()?;
        SpoolSink::start(
            spool,
            self.events.clone(),
            shutdown_timeout,
            move |delivery| deliver(webhook, delivery),
        )
    }

    /// Validates the settings, and reads the files that they name.
    fn client(&self) -> Result<Webhook, SinkError> {
        let wrong = |reason: String| SinkError::Settings {
            sink: "webhook",
            reason,
        };
        if !["http://", "https://"]
            .iter()
            .any(|scheme| self.url.expose().starts_with(scheme))
        {
            return Err(wrong(format!(
                "url = \"{}\": must begin with http:// or https://",
                self.url.origin()
            )));
        }
        let secret =
            Secret::find_strong("secret", &self.secret, &self.secret_env, &self.secret_file)
                .map_err(wrong)?;
        let mut agent = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs_f64(self.timeout)))
            .http_status_as_error(false)
            .max_redirects(0);
        if let Some(path) = &self.ca_file {
            let pem = std::fs::read(path)
                .map_err(|e| wrong(format!("cannot read {}: {e}", path.display())))?;
            let certificate = ureq::tls::Certificate::from_pem(&pem)
                .map_err(|e| wrong(format!("{}: {e}", path.display())))?;
            agent = agent.tls_config(
                ureq::tls::TlsConfig::builder()
                    .root_certs(ureq::tls::RootCerts::new_with_certs(&[certificate]))
                    .build(),
            );
        }
        Ok(Webhook {
            config: self.clone(),
            secret,
            agent: ureq::Agent::new_with_config(agent.build()),
        })
    }
}

/// The value of the signature header for a body sent at `timestamp` (in seconds since 1970).
fn signature(secret: &Secret, timestamp: u64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes())
        .expect("HMAC accepts keys of any length");
    mac.update(format!("{timestamp}.").as_bytes());
    mac.update(body);
    format!("v1={}", hex::encode(mac.finalize().into_bytes()))
}

/// Meaning of a response for the events that were sent.
#[derive(Debug, Clone, PartialEq)]
enum Answer {
    /// The events are acknowledged.
    Accepted,
    /// The POST is refused because it is too large, with the reason.
    TooLarge(String),
    /// At least one of the events is refused, with the reason.
    Refused(String),
    /// The events must be sent again, with the reason and the pause that the receiver requests, if
    /// any.
    Retry(String, Option<Duration>),
}

impl Answer {
    /// Classifies an HTTP status. Statuses about the events (400, 413, 422) are refusals; statuses
    /// about the address, the secret or the receiver's state (401, 404, 429, 5xx) are reasons to
    /// retry.
    fn of(status: u16, retry_after: Option<&str>, now: SystemTime) -> Self {
        let reason = format!("HTTP status {status}");
        match status {
            200..300 => Answer::Accepted,
            413 => Answer::TooLarge(reason),
            400 | 422 => Answer::Refused(reason),
            _ => Answer::Retry(
                reason,
                retry_after.and_then(|text| parse_retry_after(text, now)),
            ),
        }
    }
}

/// The pause that a Retry-After header requests, in seconds or as an HTTP date; at most
/// [`MAX_RETRY_AFTER`].
fn parse_retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    let seconds = text.trim().parse::<u64>().ok().map(Duration::from_secs);
    let until = || {
        let date = httpdate::parse_http_date(text.trim()).ok()?;
        Some(date.duration_since(now).unwrap_or_default())
    };
    seconds
        .or_else(until)
        .map(|pause| pause.min(MAX_RETRY_AFTER))
}

/// Limits of the next POST.
#[derive(Debug, Clone, Copy, PartialEq)]
struct BatchLimits {
    events: usize,
    bytes: usize,
}

impl BatchLimits {
    /// Adapts the limits after the answer to a POST of `sent` events and bytes. If several events
    /// together are too large, the limit of bytes becomes half of the bytes sent; if several events
    /// are refused for another reason, the limit of events becomes half of the events sent. A
    /// refused single event changes nothing. After an accepted batch the limit of events doubles,
    /// up to `max_events`. The limit of bytes never increases, because a receiver's limit is fixed.
    fn adapt(&mut self, answer: &Answer, sent: BatchLimits, max_events: usize) {
        match answer {
            Answer::Accepted => self.events = (2 * self.events).min(max_events),
            Answer::TooLarge(_) if sent.events > 1 => self.bytes = (sent.bytes / 2).max(1),
            Answer::Refused(_) if sent.events > 1 => self.events = (sent.events / 2).max(1),
            Answer::TooLarge(_) | Answer::Refused(_) | Answer::Retry(..) => {}
        }
    }
}

/// The HTTP client of the webhook.
struct Webhook {
    config: WebhookConfig,
    secret: Option<Secret>,
    agent: ureq::Agent,
}

impl Webhook {
    /// Posts the events and returns the receiver's answer; a failed request returns
    /// [`Answer::Retry`]. Blocks the delivery thread; the only other task on that thread is the
    /// shutdown timer.
    fn post(&self, body: &[u8]) -> Answer {
        let now = SystemTime::now();
        let timestamp = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut post = self
            .agent
            .post(self.config.url.expose())
            .header("Content-Type", "application/x-ndjson")
            .header("X-Twintrack-Timestamp", timestamp.to_string());
        if let Some(secret) = &self.secret {
            post = post.header("X-Twintrack-Signature", signature(secret, timestamp, body));
        }
        match post.send(body) {
            Ok(response) => Answer::of(
                response.status().as_u16(),
                response
                    .headers()
                    .get("retry-after")
                    .and_then(|v| v.to_str().ok()),
                now,
            ),
            Err(e) => Answer::Retry(e.to_string(), None),
        }
    }
}

/// Delivers events until shutdown.
async fn deliver(webhook: Webhook, delivery: Delivery) {
    let (spool, shutdown) = (&delivery.spool, &delivery.shutdown);
    let max_events = webhook.config.batch;
    let mut limits = BatchLimits {
        events: max_events,
        bytes: webhook.config.batch_bytes,
    };
    let (mut backoff, mut log) = (Backoff::new(BACKOFF.0, BACKOFF.1), OutageLog::default());
    loop {
        let events = delivery.after(0, limits.events, limits.bytes).await;
        if events.is_empty() {
            if shutdown.is_cancelled() {
                return;
            }
            tokio::select! {
                () = spool.pushed() => {}
                () = shutdown.cancelled() => {}
            }
            // Wait a little, so that events of the same time share one POST.
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        }
        let body: Vec<u8> = events
            .iter()
            .flat_map(|e| e.body.iter().chain(b"\n"))
            .copied()
            .collect();
        let answer = webhook.post(&body);
        limits.adapt(
            &answer,
            BatchLimits {
                events: events.len(),
                bytes: body.len(),
            },
            max_events,
        );
        spool
            .counts
            .connected
            .store(!matches!(answer, Answer::Retry(..)), Ordering::Relaxed);
        let mut retry = None;
        match (answer, events.as_slice()) {
            (Answer::Accepted, _) => {
                delivery.acknowledge(&events.iter().map(|e| e.position).collect::<Vec<_>>());
            }
            (Answer::TooLarge(reason) | Answer::Refused(reason), [event]) => {
                delivery.refuse(event.position, &reason).await
            }
            (Answer::TooLarge(reason) | Answer::Refused(reason), _) => {
                tracing::info!(
                    sink = "webhook",
                    events = events.len(),
                    bytes = body.len(),
                    reason,
                    "the receiver refuses the batch; it is sent again in smaller parts"
                );
            }
            (Answer::Retry(reason, after), _) => retry = Some((reason, after)),
        }
        let url = webhook.config.url.origin();
        let Some((reason, after)) = retry else {
            if let Some(outage) = log.succeeded(Instant::now()) {
                let seconds = outage.as_secs();
                tracing::info!(sink = "webhook", %url, seconds, "the receiver accepts events again");
            }
            backoff.reset();
            continue;
        };
        spool.counts.failures.fetch_add(1, Ordering::Relaxed);
        if log.failed(&reason, Instant::now()) {
            tracing::warn!(
                sink = "webhook", %url, error = reason,
                "the receiver does not accept the events; they wait on disk"
            );
        }
        backoff.wait(after).await;
    }
}

#[cfg(test)]
mod tests;
