//! Webhook: events are sent as signed POST requests of JSON lines.
//!
//! Header `X-Twintrack-Signature: v1=<hex>` is the HMAC-SHA256, with the shared secret, of the text
//! of header `X-Twintrack-Timestamp` (seconds since 1970), a full stop, and the body. A 2xx
//! response acknowledges the events. 400, 413 or 422 refuses them: the batch is then sent in
//! smaller parts, and an event that is refused alone goes to the dead-letter file. After any other
//! response the events are sent again.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::address::Address;
use crate::range::{OutOfRange, within};
use crate::secret::Secret;
use crate::sink::delivery::{Delivery, SpoolSink};
use crate::sink::sink::SinkError;
use crate::sink::spool::{Spool, SpoolLimits};
use crate::trajectory::EventKind;

/// Settings of the webhook.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebhookConfig {
    /// Address of the receiver, http:// or https://.
    pub url: Address,
    /// Secret for the signature; requests are not signed when absent. Better kept in `secret_env`
    /// or `secret_file`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    /// Environment variable that holds the secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_env: Option<String>,
    /// File whose first line is the secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<PathBuf>,
    /// CA certificate (PEM) that the receiver's certificate is verified with; Mozilla's list of CAs
    /// when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Kinds of events to send: trajectory, track_ended, camera_status.
    pub events: Vec<EventKind>,
    /// Most events in one POST.
    pub batch: usize,
    /// Most bytes in one POST; a longer event is sent alone.
    pub batch_bytes: usize,
    /// Timeout of a POST, seconds.
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
            events: vec![EventKind::TrackEnded, EventKind::CameraStatus],
            batch: 100,
            batch_bytes: 1_000_000,
            timeout: 10.0,
            spool: SpoolLimits::default(),
        }
    }
}

/// Back-off between attempts, seconds: first and longest pause.
const BACKOFF: (f64, f64) = (0.5, 10.0);
/// Longest pause that a receiver can ask for by Retry-After.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

impl WebhookConfig {
    /// Refuses values outside their ranges.
    ///
    /// # Errors
    /// The first such value.
    pub fn validate(&self) -> Result<(), OutOfRange> {
        within("webhook.events (how many)", self.events.len(), 1, 3)?;
        within("webhook.batch", self.batch, 1, 10_000)?;
        within("webhook.batch_bytes", self.batch_bytes, 1, 1_000_000_000)?;
        within("webhook.timeout", self.timeout, 0.1, 600.0)?;
        self.spool.validate("webhook")
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
        let webhook = Webhook {
            config: self.clone(),
            secret,
            agent: ureq::Agent::new_with_config(agent.build()),
        };
        SpoolSink::start(
            spool,
            self.events.clone(),
            shutdown_timeout,
            move |delivery| deliver(webhook, delivery),
        )
    }
}

/// The value of the signature header for a body sent at `timestamp`, seconds since 1970.
fn signature(secret: &Secret, timestamp: u64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes())
        .expect("HMAC accepts keys of any length");
    mac.update(format!("{timestamp}.").as_bytes());
    mac.update(body);
    mac.finalize()
        .into_bytes()
        .iter()
        .fold("v1=".to_string(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}"); // to a String: cannot fail
            text
        })
}

/// What a response means for the events that were sent.
#[derive(Debug, Clone, PartialEq)]
enum Answer {
    /// The receiver has them.
    Accepted,
    /// Refused: they have too many bytes together. With the reason.
    TooLarge(String),
    /// At least one of them is refused for good. With the reason.
    Refused(String),
    /// Send them again, after the pause that the receiver asked for, if it did. With the reason.
    Retry(String, Option<Duration>),
}

impl Answer {
    /// Classifies an HTTP status. Statuses about the events themselves (400, 413, 422) are
    /// refusals; those about the address, the secret or the receiver's state (401, 404, 429, 5xx)
    /// are reasons to retry.
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

/// The pause that a Retry-After header asks for, as seconds or as an HTTP date; at most
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
    /// Adapts the limits to the answer to a POST of `sent` events and bytes. Refused batches are
    /// halved until a refused event is alone; after an accepted batch the number of events doubles
    /// again, up to `max_events`. The limit of bytes does not grow again, because a receiver's
    /// limit is fixed.
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
    /// Posts the events and returns the receiver's answer; a failed request counts as
    /// [`Answer::Retry`]. Blocks the delivery thread, on which only the shutdown timer runs
    /// besides.
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
    let mut pause = BACKOFF.0;
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
            // Events of the same moment are collected into one POST.
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
                delivery
                    .acknowledge(&events.iter().map(|e| e.position).collect::<Vec<_>>())
                    .await
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
        let Some((reason, after)) = retry else {
            pause = BACKOFF.0;
            continue;
        };
        spool.counts.failures.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(
            sink = "webhook", url = %webhook.config.url.origin(), error = reason,
            "the receiver does not accept the events; they wait on disk"
        );
        tokio::time::sleep(
            after.unwrap_or_else(|| Duration::from_secs_f64(pause * (0.8 + 0.4 * fastrand::f64()))),
        )
        .await;
        pause = (2.0 * pause).min(BACKOFF.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_hmac_sha256_of_time_and_body() {
        // printf '1700000000.{"a":1}\n' | openssl dgst -sha256 -hmac secret
        let want = "e2c33919390901334d6c0383710d62cf97b5e002a58fbc7de77185a8f50a22e1";
        assert_eq!(
            signature(&Secret::new("secret"), 1_700_000_000, b"{\"a\":1}\n"),
            format!("v1={want}")
        );
    }

    #[test]
    fn statuses_are_classified_as_accepted_refused_or_retry() {
        let now = UNIX_EPOCH + Duration::from_secs(784_111_770); // 1994-11-06 08:49:30 UTC
        let of = |status, header| Answer::of(status, header, now);
        let retry = |status: u16, pause: Option<u64>| {
            Answer::Retry(
                format!("HTTP status {status}"),
                pause.map(Duration::from_secs),
            )
        };
        assert_eq!(
            (of(200, None), of(204, None)),
            (Answer::Accepted, Answer::Accepted)
        );
        assert!(
            [400, 422]
                .iter()
                .all(|s| matches!(of(*s, None), Answer::Refused(_)))
                && matches!(of(413, None), Answer::TooLarge(_))
        );
        for status in [301, 401, 403, 404, 408, 429, 500, 502, 503] {
            assert_eq!(of(status, None), retry(status, None));
        }
        assert_eq!(
            (of(429, Some("7")), of(503, Some(" 120 "))),
            (retry(429, Some(7)), retry(503, Some(120)))
        );
        assert_eq!(
            of(429, Some("Sun, 06 Nov 1994 08:49:37 GMT")),
            retry(429, Some(7))
        );
        assert_eq!(
            of(503, Some("Sun, 06 Nov 1994 08:00:00 GMT")),
            retry(503, Some(0))
        );
        assert_eq!(
            (of(429, Some("86400")), of(429, Some("soon"))),
            (retry(429, Some(3600)), retry(429, None))
        );
    }

    /// An HTTP receiver that responds with the status line that `answer` makes of a POST's length
    /// and lines. Returns its address, and a channel of the lines of every POST.
    fn receiver(
        answer: impl Fn(usize, &[String]) -> &'static str + Send + 'static,
    ) -> (Address, std::sync::mpsc::Receiver<Vec<String>>) {
        use std::io::{BufRead as _, Read as _, Write as _};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/", listener.local_addr().expect("bound"));
        let (tx, posts) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut reader = std::io::BufReader::new(stream);
                let (mut line, mut length) = (String::new(), 0);
                while reader.read_line(&mut line).is_ok_and(|n| n > 0) && !line.trim().is_empty() {
                    if let Some(n) = line.to_lowercase().strip_prefix("content-length:") {
                        length = n.trim().parse().expect("a number");
                    }
                    line.clear();
                }
                let mut body = vec![0; length];
                if reader.read_exact(&mut body).is_err() {
                    continue;
                }
                let lines: Vec<String> = String::from_utf8(body)
                    .expect("text")
                    .lines()
                    .map(Into::into)
                    .collect();
                let head = answer(length, &lines);
                let _ = tx.send(lines);
                let _ = write!(
                    reader.get_mut(),
                    "HTTP/1.1 {head}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                );
            }
        });
        (Address::new(url), posts)
    }

    /// A spool with these events, and a sink that delivers them.
    fn delivering(
        dir: &std::path::Path,
        url: Address,
        events: &[String],
    ) -> (Arc<Spool>, SpoolSink) {
        let spool = Spool::open(dir, "webhook", SpoolLimits::default()).expect("a spool");
        events
            .iter()
            .for_each(|e| spool.push(EventKind::TrackEnded, "cam", e.as_bytes()));
        let config = WebhookConfig {
            url,
            ..WebhookConfig::default()
        };
        let sink = config
            .start(spool.clone(), Duration::from_secs(30))
            .expect("settings");
        (spool, sink)
    }

    fn until(what: impl Fn() -> bool) -> bool {
        let end = std::time::Instant::now() + Duration::from_secs(60);
        while !what() && std::time::Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        what()
    }

    fn number(event: &serde_json::Value) -> u64 {
        event["seq"].as_u64().expect("a number")
    }

    fn refused(dir: &std::path::Path) -> Vec<u64> {
        let text = std::fs::read_to_string(dir.join("webhook.refused.jsonl")).unwrap_or_default();
        text.lines()
            .map(|l| number(&serde_json::from_str::<serde_json::Value>(l).expect("JSON")["event"]))
            .collect()
    }

    fn numbers<'a>(lines: impl Iterator<Item = &'a String>) -> Vec<u64> {
        lines
            .map(|l| number(&serde_json::from_str(l).expect("JSON")))
            .collect()
    }

    /// Regression: a receiver that answered 413 above 6,000 bytes was sent the same batch forever.
    #[test]
    fn a_batch_that_is_too_large_is_split_and_an_event_that_is_too_large_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let (url, posts) = receiver(|length, _| {
            if length > 6000 {
                "413 Too Large"
            } else {
                "204 No Content"
            }
        });
        let mut events: Vec<String> = (0..90)
            .map(|i| format!("{{\"seq\":{i},\"path\":\"{}\"}}", "x".repeat(300)))
            .collect();
        events[40] = format!("{{\"seq\":40,\"path\":\"{}\"}}", "x".repeat(7000));
        let (spool, _sink) = delivering(dir.path(), url, &events);
        assert!(
            until(|| spool.is_empty()),
            "{} are queued",
            spool.counts.events.load(Ordering::Relaxed)
        );
        let accepted: Vec<String> = posts
            .try_iter()
            .filter(|p| p.iter().map(|l| l.len() + 1).sum::<usize>() <= 6000)
            .flatten()
            .collect();
        assert_eq!(refused(dir.path()), [40]);
        assert_eq!(
            numbers(accepted.iter()),
            (0..90).filter(|n| *n != 40).collect::<Vec<u64>>()
        );
        let count = |n: &std::sync::atomic::AtomicU64| n.load(Ordering::Relaxed);
        assert_eq!(
            (
                count(&spool.counts.delivered),
                count(&spool.counts.refused),
                count(&spool.counts.dropped)
            ),
            (89, 1, 0)
        );
    }

    #[test]
    fn a_refused_event_goes_to_the_dead_letter_file_and_the_others_arrive() {
        for status in ["400 Bad Request", "422 Unprocessable Content"] {
            let dir = tempfile::tempdir().expect("a folder");
            let (url, posts) = receiver(move |_, lines| {
                if lines.iter().any(|l| l.contains("bad")) {
                    status
                } else {
                    "200 OK"
                }
            });
            let events: Vec<String> = (0..70)
                .map(|i| {
                    format!(
                        "{{\"seq\":{i},\"is\":\"{}\"}}",
                        if i % 23 == 7 { "bad" } else { "good" }
                    )
                })
                .collect();
            let (spool, _sink) = delivering(dir.path(), url, &events);
            assert!(
                until(|| spool.is_empty()),
                "{} are queued",
                spool.counts.events.load(Ordering::Relaxed)
            );
            let good = |e: &&String| !e.contains("bad");
            let accepted: Vec<String> = posts
                .try_iter()
                .filter(|p| p.iter().all(|l| good(&l)))
                .flatten()
                .collect();
            assert_eq!(
                numbers(accepted.iter()),
                numbers(events.iter().filter(good))
            );
            assert_eq!(
                refused(dir.path()),
                numbers(events.iter().filter(|e| !good(e)))
            );
        }
    }

    /// Regression: events were sent again in a tight loop after a 2xx when removing them from the
    /// spool failed.
    #[test]
    fn accepted_events_are_not_sent_again_while_the_disk_fails() {
        let dir = tempfile::tempdir().expect("a folder");
        let spool = Spool::open(dir.path(), "webhook", SpoolLimits::default()).expect("a spool");
        spool.push(EventKind::TrackEnded, "cam", b"{}");
        spool.fail_removal_of(Some(spool.after(0, 1, 1).expect("read")[0].position));
        let (url, posts) = receiver(|_, _| "200 OK");
        let sink = WebhookConfig {
            url,
            ..WebhookConfig::default()
        }
        .start(spool.clone(), Duration::ZERO)
        .expect("settings");
        assert!(until(|| spool.counts.failures.load(Ordering::Relaxed) >= 3));
        assert_eq!(
            (
                posts.try_iter().count(),
                spool.counts.events.load(Ordering::Relaxed)
            ),
            (1, 1)
        );
        spool.fail_removal_of(None);
        assert!(until(|| spool.is_empty()));
        assert_eq!(posts.try_iter().count(), 0);
        drop(sink);
    }

    #[test]
    fn a_retry_after_header_is_respected() {
        let dir = tempfile::tempdir().expect("a folder");
        let (asked, times) = std::sync::mpsc::channel();
        let first = std::sync::atomic::AtomicBool::new(true);
        let (url, _posts) = receiver(move |_, _| {
            asked
                .send(std::time::Instant::now())
                .expect("the test receives");
            if first.swap(false, Ordering::Relaxed) {
                "429 Slow\r\nRetry-After: 3"
            } else {
                "200 OK"
            }
        });
        let (spool, _sink) = delivering(dir.path(), url, &["{}".into()]);
        let next = || times.recv_timeout(Duration::from_secs(60)).expect("a POST");
        let (one, two) = (next(), next());
        // Without the header the second POST would come after at most 0.6 s.
        assert!(two - one >= Duration::from_secs(3), "{:?}", two - one);
        assert!(until(|| spool.is_empty()));
    }
}
