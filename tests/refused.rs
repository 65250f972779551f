//! Events that an MQTT broker refuses for good: they are set aside, and the rest arrives over the
//! same connection.
#![cfg(feature = "serve")]
#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::broker::{broker, heard, subscriber};
use common::{free_port, until};
use serde_json::{Value, json};
use twintrack::sink::Sink as _;
use twintrack::sink::mqtt::{MqttConfig, Version};
use twintrack::sink::spool::{Spool, SpoolLimits};
use twintrack::trajectory::EventKind;

/// An event of so many bytes more or less.
fn event(seq: u64, bytes: usize) -> Vec<u8> {
    json!({"seq": seq, "filler": "x".repeat(bytes)})
        .to_string()
        .into_bytes()
}

/// What the dead-letter file holds: the number of the event, and the reason.
fn refused(dir: &Path) -> Vec<(u64, String)> {
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

struct Delivered {
    /// Topics and numbers of the events that a subscriber has heard.
    heard: Vec<(String, u64)>,
    /// What it has heard of the program's own state.
    states: Vec<String>,
    refused: Vec<(u64, String)>,
    spool: Arc<Spool>,
}

/// Delivers these events, each of a kind, to a broker with these settings; `expected` of them
/// arrive.
fn delivered(
    version: Version,
    settings: &str,
    events: &[(EventKind, Vec<u8>)],
    expected: usize,
) -> Option<Delivered> {
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
    let config = MqttConfig {
        broker: format!("mqtt://127.0.0.1:{port}"),
        version,
        ..MqttConfig::default()
    };
    let mut sink = config
        .start(spool.clone(), Duration::from_secs(30))
        .unwrap();
    assert!(
        until(60, || spool.is_empty()),
        "{:?} wait; refused {:?}",
        spool.counts,
        refused(dir)
    );
    sink.finish().unwrap();
    let numbers = || {
        heard(dir)
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
            && heard(dir).last().is_some_and(|h| h.2 == "offline")),
        "{:?}",
        heard(dir)
    );
    let states = heard(dir)
        .into_iter()
        .filter(|(_, t, _)| t == "twintrack/status")
        .map(|(_, _, p)| p)
        .collect();
    Some(Delivered {
        heard: numbers(),
        states,
        refused: refused(dir),
        spool,
    })
}

fn count(n: &AtomicU64) -> u64 {
    n.load(Ordering::Relaxed)
}

/// The broker's list of rights forbids one topic: the connection holds, and the other topics
/// arrive.
#[test]
fn a_topic_that_the_broker_forbids_blocks_no_other() {
    let kinds = [
        EventKind::Trajectory,
        EventKind::TrackEnded,
        EventKind::Trajectory,
        EventKind::CameraStatus,
    ];
    let events: Vec<_> = (0..100)
        .map(|i| (kinds[i % 4], event(i as u64, 50)))
        .collect();
    let Some(d) = delivered(Version::V5, "acl_file ACL", &events, 50) else {
        return;
    };
    assert_eq!(
        d.heard.iter().map(|h| h.1).collect::<Vec<_>>(),
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

/// A broker that answers a forbidden topic by breaking off the connection (mosquitto does with this
/// setting): the topic is found, and after that none of it is sent, so that the connection holds.
#[test]
fn a_topic_at_which_the_broker_breaks_off_blocks_no_other() {
    let kinds = [EventKind::TrackEnded, EventKind::Trajectory];
    let events: Vec<_> = (0..100)
        .map(|i| (kinds[i % 2], event(i as u64, 50)))
        .collect();
    let Some(d) = delivered(
        Version::V5,
        "acl_file ACL\nmax_queued_messages 0",
        &events,
        50,
    ) else {
        return;
    };
    let arrived: std::collections::BTreeSet<u64> = d.heard.iter().map(|h| h.1).collect();
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

/// MQTT 5: the broker states its longest packet, and what is longer is never sent.
#[test]
fn an_event_longer_than_the_broker_s_longest_packet_is_set_aside() {
    let events: Vec<_> = (0..40)
        .map(|i| {
            (
                EventKind::TrackEnded,
                event(i, if i == 20 { 3000 } else { 50 }),
            )
        })
        .collect();
    let Some(d) = delivered(Version::V5, "max_packet_size 2000", &events, 39) else {
        return;
    };
    assert_eq!(
        d.heard.iter().map(|h| h.1).collect::<Vec<_>>(),
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

/// MQTT 3.1.1 has no word for a refusal: the broker breaks off the connection at the event.
#[test]
fn an_event_at_which_the_broker_breaks_off_is_found_and_set_aside() {
    let events: Vec<_> = (0..40)
        .map(|i| {
            (
                EventKind::TrackEnded,
                event(i, if i == 20 { 3000 } else { 50 }),
            )
        })
        .collect();
    let Some(d) = delivered(Version::V3, "max_packet_size 2000", &events, 39) else {
        return;
    };
    let mut arrived: Vec<u64> = d.heard.iter().map(|h| h.1).collect();
    arrived.dedup(); // at least once
    arrived.sort_unstable();
    arrived.dedup();
    assert_eq!(arrived, (0..40).filter(|i| *i != 20).collect::<Vec<u64>>());
    assert!(
        d.refused.len() == 1 && d.refused[0].0 == 20 && d.refused[0].1.contains("breaks off"),
        "{:?}",
        d.refused
    );
    assert!(count(&d.spool.counts.failures) >= 3);
}
