//! Tests of the webhook.

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

/// An HTTP receiver. `answer` maps a POST's length and lines to the status line of the response.
/// Returns the receiver's address, and a channel of the lines of every POST.
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
fn delivering(dir: &std::path::Path, url: Address, events: &[String]) -> (Arc<Spool>, SpoolSink) {
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

/// Regression: if events could not be removed from the spool after a 2xx, they were sent again
/// without a pause. The first fix had a bug of its own: no event was sent until the removal
/// succeeded.
#[test]
fn accepted_events_are_sent_once_and_later_ones_too_while_the_disk_fails() {
    let dir = tempfile::tempdir().expect("a folder");
    let (url, posts) = receiver(|_, _| "200 OK");
    let spool = Spool::open(dir.path(), "webhook", SpoolLimits::default()).expect("a spool");
    spool.push(EventKind::TrackEnded, "cam", b"1");
    let first = spool.after(0, 1, 1).expect("read")[0].position;
    spool.fail_removal_of(Some(first));
    // Two events are still queued when the first one is acknowledged. If the queue were empty then,
    // the spool would start a new file, and the removal that fails would not matter.
    (2..=3).for_each(|i| spool.push(EventKind::TrackEnded, "cam", i.to_string().as_bytes()));
    let config = WebhookConfig {
        url,
        batch: 1,
        ..WebhookConfig::default()
    };
    let _sink = config
        .start(spool.clone(), Duration::ZERO)
        .expect("settings");
    assert!(until(|| spool.is_empty()));
    assert_eq!(posts.try_iter().count(), 3);
}

#[test]
fn a_retry_after_header_is_respected() {
    let dir = tempfile::tempdir().expect("a folder");
    let (post, times) = std::sync::mpsc::channel();
    let first = std::sync::atomic::AtomicBool::new(true);
    let (url, _posts) = receiver(move |_, _| {
        post.send(std::time::Instant::now())
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
    // Without the header the second POST would follow after at most 0.6 s.
    assert!(two - one >= Duration::from_secs(3), "{:?}", two - one);
    assert!(until(|| spool.is_empty()));
}
