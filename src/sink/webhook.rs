//! Events to a web address: POST of JSON lines, signed.
//!
//! Header `X-Twintrack-Signature: v1=<hex>` is the HMAC-SHA256, with the shared secret, of the text of header
//! `X-Twintrack-Timestamp` (seconds since 1970), a full stop, and the body. A receiver answers 2xx
//! when it has the events. It refuses them by 400, 413 or 422: then they are sent in smaller parts,
//! and one that is refused alone is set aside. Anything else, and they come again.

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

/// Which address, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebhookConfig {
    /// Where to: http:// or https://.
    pub url: Address,
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
    pub events: Vec<EventKind>,
    /// At most so many events in one POST.
    pub batch: usize,
    /// At most so many bytes in one POST; an event that is longer goes alone.
    pub batch_bytes: usize,
    /// The receiver may take so long, seconds.
    pub timeout: f64,
    /// How much waits on disk while the receiver is away.
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

/// Pauses between attempts, seconds: the first and the longest.
const PAUSE: (f64, f64) = (0.5, 10.0);
/// A receiver that asks for a longer pause (Retry-After) is asked again after this one.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

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

    /// The sink; its courier starts at once, and a receiver that is away is waited for.
    ///
    /// # Errors
    /// When the settings are wrong.
    pub fn start(&self, spool: Arc<Spool>, patience: Duration) -> Result<SpoolSink, SinkError> {
        let wrong = |reason: String| SinkError::Settings {
            sink: "webhook",
            reason,
        };
        if !["http://", "https://"]
            .iter()
            .any(|scheme| self.url.expose().starts_with(scheme))
        {
            return Err(wrong(format!(
                "url = \"{}\": it begins with http:// or https://",
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
        let hook = Hook {
            config: self.clone(),
            secret,
            agent: ureq::Agent::new_with_config(agent.build()),
        };
        SpoolSink::start(spool, self.events.clone(), patience, move |errand| {
            deliver(hook, errand)
        })
    }
}

/// The signature of a body at a time.
fn signature(secret: &Secret, timestamp: u64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes())
        .expect("a key of any length will do");
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

/// What an answer means for the events that were sent.
#[derive(Debug, Clone, PartialEq)]
enum Answer {
    /// The receiver has them.
    Taken,
    /// They are too many bytes for it.
    TooLarge(String),
    /// It never takes one of them.
    Refused(String),
    /// They are to come again, after the pause that it asks for.
    Later(String, Option<Duration>),
}

impl Answer {
    /// The meaning of an HTTP status. A refusal is what tells of the events themselves (400, 413,
    /// 422); what tells of the address, the secret or the receiver's state (401, 404, 429, 5xx) is
    /// a reason to wait.
    fn of(status: u16, retry_after: Option<&str>, now: SystemTime) -> Self {
        let reason = format!("it answers {status}");
        match status {
            200..300 => Answer::Taken,
            413 => Answer::TooLarge(reason),
            400 | 422 => Answer::Refused(reason),
            _ => Answer::Later(reason, retry_after.and_then(|text| wait(text, now))),
        }
    }
}

/// The pause that a Retry-After header asks for: seconds, or a date of HTTP; [`LONGEST_WAIT`] at
/// most.
fn wait(text: &str, now: SystemTime) -> Option<Duration> {
    let seconds = text.trim().parse::<u64>().ok().map(Duration::from_secs);
    let until = || {
        let date = httpdate::parse_http_date(text.trim()).ok()?;
        Some(date.duration_since(now).unwrap_or_default())
    };
    seconds.or_else(until).map(|pause| pause.min(LONGEST_WAIT))
}

/// How much goes into the next POST at most.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Portion {
    events: usize,
    bytes: usize,
}

impl Portion {
    /// After an answer to a POST of several events: fewer of them, until those that are refused are
    /// alone. What was too large once stays a limit, for a receiver's limit does not change by
    /// itself; the number grows again.
    fn follow(&mut self, answer: &Answer, sent: Portion, most: usize) {
        match answer {
            Answer::Taken => self.events = (2 * self.events).min(most),
            Answer::TooLarge(_) if sent.events > 1 => self.bytes = (sent.bytes / 2).max(1),
            Answer::Refused(_) if sent.events > 1 => self.events = (sent.events / 2).max(1),
            Answer::TooLarge(_) | Answer::Refused(_) | Answer::Later(..) => {}
        }
    }
}

/// What posts.
struct Hook {
    config: WebhookConfig,
    secret: Option<Secret>,
    agent: ureq::Agent,
}

impl Hook {
    /// Posts the events; says what the receiver made of them. Blocks the courier's own thread, on
    /// which nothing else runs but the timer of the deadline at the end.
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
            Ok(answer) => Answer::of(
                answer.status().as_u16(),
                answer
                    .headers()
                    .get("retry-after")
                    .and_then(|v| v.to_str().ok()),
                now,
            ),
            Err(e) => Answer::Later(e.to_string(), None),
        }
    }
}

async fn deliver(hook: Hook, errand: Delivery) {
    let (spool, ending, most) = (&errand.spool, &errand.ending, hook.config.batch);
    let mut portion = Portion {
        events: most,
        bytes: hook.config.batch_bytes,
    };
    let mut pause = PAUSE.0;
    loop {
        let events = errand.after(0, portion.events, portion.bytes).await;
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
        let body: Vec<u8> = events
            .iter()
            .flat_map(|e| e.body.iter().chain(b"\n"))
            .copied()
            .collect();
        let answer = hook.post(&body);
        portion.follow(
            &answer,
            Portion {
                events: events.len(),
                bytes: body.len(),
            },
            most,
        );
        spool
            .counts
            .connected
            .store(!matches!(answer, Answer::Later(..)), Ordering::Relaxed);
        let mut wait = None;
        match (answer, events.as_slice()) {
            (Answer::Taken, _) => {
                errand
                    .acknowledge(&events.iter().map(|e| e.place).collect::<Vec<_>>())
                    .await
            }
            (Answer::TooLarge(reason) | Answer::Refused(reason), [alone]) => {
                errand.refuse(alone.place, &reason).await
            }
            (Answer::TooLarge(reason) | Answer::Refused(reason), _) => {
                tracing::info!(
                    sink = "webhook",
                    events = events.len(),
                    bytes = body.len(),
                    reason,
                    "sent again in smaller parts"
                );
            }
            (Answer::Later(reason, asked), _) => wait = Some((reason, asked)),
        }
        let Some((reason, asked)) = wait else {
            pause = PAUSE.0;
            continue;
        };
        spool.counts.failures.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(sink = "webhook", url = %hook.config.url.origin(), error = reason, "the receiver does not take the events; they wait on disk");
        tokio::time::sleep(
            asked.unwrap_or_else(|| Duration::from_secs_f64(pause * (0.8 + 0.4 * fastrand::f64()))),
        )
        .await;
        pause = (2.0 * pause).min(PAUSE.1);
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
    fn an_answer_is_read_as_taken_refused_or_later() {
        let now = UNIX_EPOCH + Duration::from_secs(784_111_770); // 1994-11-06 08:49:30 UTC
        let of = |status, header| Answer::of(status, header, now);
        let later = |status: u16, pause: Option<u64>| {
            Answer::Later(
                format!("it answers {status}"),
                pause.map(Duration::from_secs),
            )
        };
        assert_eq!(
            (of(200, None), of(204, None)),
            (Answer::Taken, Answer::Taken)
        );
        assert!(
            [400, 422]
                .iter()
                .all(|s| matches!(of(*s, None), Answer::Refused(_)))
                && matches!(of(413, None), Answer::TooLarge(_))
        );
        for status in [301, 401, 403, 404, 408, 429, 500, 502, 503] {
            assert_eq!(of(status, None), later(status, None));
        }
        assert_eq!(
            (of(429, Some("7")), of(503, Some(" 120 "))),
            (later(429, Some(7)), later(503, Some(120)))
        );
        assert_eq!(
            of(429, Some("Sun, 06 Nov 1994 08:49:37 GMT")),
            later(429, Some(7))
        );
        assert_eq!(
            of(503, Some("Sun, 06 Nov 1994 08:00:00 GMT")),
            later(503, Some(0))
        );
        assert_eq!(
            (of(429, Some("86400")), of(429, Some("soon"))),
            (later(429, Some(3600)), later(429, None))
        );
    }

    /// A receiver in memory: takes what `answer` takes of a POST's lines. Returns its address, and
    /// the lines of every POST.
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

    /// A spool with these events, and a courier at work on it.
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

    /// A receiver that answered 413 above 6,000 bytes got the same batch until the end.
    #[test]
    fn what_is_too_large_together_goes_in_parts_and_what_is_too_large_alone_is_set_aside() {
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
            "{} wait",
            spool.counts.events.load(Ordering::Relaxed)
        );
        let taken: Vec<String> = posts
            .try_iter()
            .filter(|p| p.iter().map(|l| l.len() + 1).sum::<usize>() <= 6000)
            .flatten()
            .collect();
        assert_eq!(refused(dir.path()), [40]);
        assert_eq!(
            numbers(taken.iter()),
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
    fn an_event_that_is_refused_for_good_is_set_aside_and_the_rest_arrives() {
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
                "{} wait",
                spool.counts.events.load(Ordering::Relaxed)
            );
            let good = |e: &&String| !e.contains("bad");
            let taken: Vec<String> = posts
                .try_iter()
                .filter(|p| p.iter().all(|l| good(&l)))
                .flatten()
                .collect();
            assert_eq!(numbers(taken.iter()), numbers(events.iter().filter(good)));
            assert_eq!(
                refused(dir.path()),
                numbers(events.iter().filter(|e| !good(e)))
            );
        }
    }

    /// A 2xx whose acknowledgement failed was sent again in a tight loop.
    #[test]
    fn what_was_taken_is_not_sent_again_while_the_disk_fails() {
        let dir = tempfile::tempdir().expect("a folder");
        let spool = Spool::open(dir.path(), "webhook", SpoolLimits::default()).expect("a spool");
        spool.push(EventKind::TrackEnded, "cam", b"{}");
        spool.fail_removal_of(Some(spool.after(0, 1, 1).expect("read")[0].place));
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
    fn the_pause_that_a_receiver_asks_for_is_kept() {
        let dir = tempfile::tempdir().expect("a folder");
        let (asked, times) = std::sync::mpsc::channel();
        let first = std::sync::atomic::AtomicBool::new(true);
        let (url, _posts) = receiver(move |_, _| {
            asked
                .send(std::time::Instant::now())
                .expect("the test listens");
            if first.swap(false, Ordering::Relaxed) {
                "429 Slow\r\nRetry-After: 3"
            } else {
                "200 OK"
            }
        });
        let (spool, _sink) = delivering(dir.path(), url, &["{}".into()]);
        let next = || times.recv_timeout(Duration::from_secs(60)).expect("a POST");
        let (one, two) = (next(), next());
        // Without the header it comes after 0.6 s at the latest.
        assert!(two - one >= Duration::from_secs(3), "{:?}", two - one);
        assert!(until(|| spool.is_empty()));
    }
}
