//! Events that an MQTT broker refuses go to the dead-letter file, and other events are delivered.
#![cfg(feature = "serve")]
#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::broker::{broker, received, subscriber};
use common::{free_port, until};
use serde_json::{Value, json};
use twintrack::sink::Sink as _;
use twintrack::sink::mqtt::{MqttConfig, Version};
use twintrack::sink::spool::{Spool, SpoolLimits};
use twintrack::trajectory::EventKind;

/// An event of about `bytes` bytes.
fn event(seq: u64, bytes: usize) -> Vec<u8> {
    json!({"seq": seq, "filler": "x".repeat(bytes)})
        .to_string()
        .into_bytes()
}

/// The dead letters: sequence number of the event, and reason.
fn dead_letters(dir: &Path) -> Vec<(u64, String)> {
    let text = std::fs::read_to_string(dir.join("mqtt.refused.jsonl")).unwrap_or_default();
    let lines = text
        .lines()
        .map(|l| serde_json::from_str::<Value>(l).unwrap());
    lines
        .map(|l| {
            (
                l["event"]["seq"].as_u64().unwrap(),
                l["reason"].as_str().unwrap().to_string(),
            )
        })
        .collect()
}

struct Outcome {
    /// Topics and sequence numbers of the events that the subscriber received.
    received: Vec<(String, u64)>,
    /// The values of the program's own status that the subscriber received.
    states: Vec<String>,
    /// Sequence numbers of the refused events, and the reasons.
    refused: Vec<(u64, String)>,
    spool: Arc<Spool>,
}

/// Delivers events to a broker with these settings, and waits until `expected` of them have
/// arrived. None without mosquitto.
fn deliver(
    version: Version,
    settings: &str,
    events: &[(EventKind, Vec<u8>)],
    expected: usize,
) -> Option<Outcome> {
    let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
    let dir = dir.path();
    std::fs::write(
        dir.join("acl"),
        "topic readwrite #\ntopic deny twintrack/+/tracks\n",
    )
    .unwrap();
    let settings = settings.replace("ACL", &dir.join("acl").display().to_string());
    let _broker = broker(dir, port, &format!("allow_anonymous true\n{settings}"))?;
    let _subscriber = subscriber(dir, port, &[]);
    let spool = Spool::open(dir, "mqtt", SpoolLimits::default()).unwrap();
    events
        .iter()
        .for_each(|(kind, body)| spool.push(*kind, "gate", body));
    let config = MqttConfig::default()
        .with_broker(format!("mqtt://127.0.0.1:{port}"))
        .with_version(version);
    let shapes = tokio::sync::watch::channel(Vec::new()).1;
    let mut sink = config
        .start(spool.clone(), Duration::from_secs(30), shapes)
        .unwrap();
    assert!(
        until(60, || spool.is_empty()),
        "{:?}; refused {:?}",
        spool.counts,
        dead_letters(dir)
    );
    sink.finish().unwrap();
    let numbers = || {
        received(dir)
            .iter()
            .filter_map(|(_, t, p)| {
                Some((
                    t.clone(),
                    serde_json::from_str::<Value>(p).ok()?["seq"].as_u64()?,
                ))
            })
            .collect::<Vec<_>>()
    };
    assert!(
        until(30, || numbers().len() >= expected
            && received(dir).last().is_some_and(|m| m.2 == "offline")),
        "{:?}",
        received(dir)
    );
    let states = received(dir)
        .into_iter()
        .filter(|(_, t, _)| t == "twintrack/status")
        .map(|(_, _, p)| p)
        .collect();
    Some(Outcome {
        received: numbers(),
        states,
        refused: dead_letters(dir),
        spool,
    })
}

fn count(n: &AtomicU64) -> u64 {
    n.load(Ordering::Relaxed)
}

/// The broker's access control forbids one topic; the broker's acknowledgement reports this.
#[test]
fn a_topic_refused_by_acknowledgement_does_not_block_others() {
    let kinds = [
        EventKind::Trajectory,
        EventKind::TrackEnded,
        EventKind::Trajectory,
        EventKind::CameraStatus,
    ];
    let events: Vec<_> = (0..100)
        .map(|i| (kinds[i % 4], event(i as u64, 50)))
        .collect();
    let Some(d) = deliver(Version::V5, "acl_file ACL", &events, 50) else {
        return;
    };
    assert_eq!(
        d.received.iter().map(|m| m.1).collect::<Vec<_>>(),
        (0..100).filter(|i| i % 2 == 1).collect::<Vec<u64>>()
    );
    assert_eq!(
        d.refused.iter().map(|r| r.0).collect::<Vec<_>>(),
        (0..100).filter(|i| i % 2 == 0).collect::<Vec<u64>>()
    );
    assert!(
        d.refused.iter().all(|r| r.1.contains("NotAuthorized")),
        "{:?}",
        d.refused
    );
    assert_eq!(d.states, ["online", "offline"]);
    assert_eq!(
        (
            count(&d.spool.counts.refused),
            count(&d.spool.counts.delivered),
            count(&d.spool.counts.failures)
        ),
        (50, 50, 0)
    );
}

/// The broker closes the connection at an event of a forbidden topic, as mosquitto does with this
/// setting. When it is known that the broker refuses the topic, no further events of the topic are
/// sent.
#[test]
fn a_topic_refused_by_closing_the_connection_does_not_block_others() {
    let kinds = [EventKind::TrackEnded, EventKind::Trajectory];
    let events: Vec<_> = (0..100)
        .map(|i| (kinds[i % 2], event(i as u64, 50)))
        .collect();
    let Some(d) = deliver(
        Version::V5,
        "acl_file ACL\nmax_queued_messages 0",
        &events,
        50,
    ) else {
        return;
    };
    let arrived: std::collections::BTreeSet<u64> = d.received.iter().map(|m| m.1).collect();
    assert_eq!(
        arrived.into_iter().collect::<Vec<_>>(),
        (0..100).filter(|i| i % 2 == 0).collect::<Vec<u64>>()
    );
    assert_eq!(
        d.refused.iter().map(|r| r.0).collect::<Vec<_>>(),
        (0..100).filter(|i| i % 2 == 1).collect::<Vec<u64>>()
    );
    let connections = d.states.iter().filter(|s| *s == "online").count();
    assert!(
        connections <= 10,
        "{connections} connections for 50 events of one topic: {:?}",
        d.states
    );
}

/// With MQTT 5 the broker states its packet size limit, and longer packets are never sent.
#[test]
fn an_event_above_the_packet_size_limit_is_refused_without_sending_it() {
    let events: Vec<_> = (0..40)
        .map(|i| {
            (
                EventKind::TrackEnded,
                event(i, if i == 20 { 3000 } else { 50 }),
            )
        })
        .collect();
    let Some(d) = deliver(Version::V5, "max_packet_size 2000", &events, 39) else {
        return;
    };
    assert_eq!(
        d.received.iter().map(|m| m.1).collect::<Vec<_>>(),
        (0..40).filter(|i| *i != 20).collect::<Vec<u64>>()
    );
    assert!(
        d.refused.len() == 1 && d.refused[0].0 == 20 && d.refused[0].1.contains("2000"),
        "{:?}",
        d.refused
    );
    assert_eq!(
        (d.states, count(&d.spool.counts.failures)),
        (vec!["online".to_string(), "offline".into()], 0)
    );
}

/// MQTT 3.1.1 has no reason codes, so the broker closes the connection when it receives the event.
#[test]
fn an_event_refused_by_closing_the_connection_is_found_and_the_others_arrive() {
    let events: Vec<_> = (0..40)
        .map(|i| {
            (
                EventKind::TrackEnded,
                event(i, if i == 20 { 3000 } else { 50 }),
            )
        })
        .collect();
    let Some(d) = deliver(Version::V3, "max_packet_size 2000", &events, 39) else {
        return;
    };
    let mut arrived: Vec<u64> = d.received.iter().map(|m| m.1).collect();
    arrived.dedup(); // delivery is at least once
    arrived.sort_unstable();
    arrived.dedup();
    assert_eq!(arrived, (0..40).filter(|i| *i != 20).collect::<Vec<u64>>());
    assert!(
        d.refused.len() == 1
            && d.refused[0].0 == 20
            && d.refused[0].1.contains("closed the connection"),
        "{:?}",
        d.refused
    );
    assert!(count(&d.spool.counts.failures) >= 3);
}
