//! Section `[fleet]`.

use std::collections::BTreeSet;
use std::time::Duration;

use derive_setters::Setters;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::range::{OutOfRange, within};
use crate::sink::nats::NatsConfig;

/// Stream that holds the events of a fleet.
pub const EVENT_STREAM: &str = "twintrack-events";
/// Prefix of the subjects of a fleet's events: `twintrack.events.CAMERA.KIND`.
pub const EVENT_SUBJECT: &str = "twintrack.events";

/// Settings of a fleet: `twintrack serve` becomes one of its workers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Setters)]
#[serde(deny_unknown_fields, default)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct FleetConfig {
    /// Address of the NATS server, nats://host:4222 or tls://host:4222; several servers of a
    /// cluster are separated by commas. The login and the TLS files are those of section `[nats]`.
    pub nats: String,
    /// Name of this worker, of letters, digits, '-' and '_'; absent: the host's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Labels of this worker, such as `site=north`. It gets cameras all of whose labels it has,
    /// and cameras without labels.
    pub labels: Vec<String>,
    /// Frames per second, 0.1 to 1000000, that this worker can process; absent: measured at the
    /// start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity: Option<f64>,
    /// Time in seconds, 4 to 600, after which the cameras of a worker that does not report are
    /// given to others; the same for all workers of a fleet. A worker that cannot report stops its
    /// cameras after three quarters of this time. With less than 8, cameras stop whenever a NATS
    /// cluster elects a leader.
    pub lease: f64,
    /// Number of NATS servers, 1 to 5, on which each record and event is stored: 3 for a cluster. A
    /// program that starts with a higher value raises the number; no program lowers it.
    pub replicas: usize,
    /// Time in seconds, 60 to 31536000, for which the stream keeps events. Used by the first
    /// program that connects to the server; later values are ignored.
    pub keep_events: f64,
}

impl Default for FleetConfig {
    fn default() -> Self {
        FleetConfig {
            nats: String::new(),
            name: None,
            labels: Vec::new(),
            capacity: None,
            lease: 8.0,
            replicas: 1,
            keep_events: 604_800.0,
        }
    }
}

impl FleetConfig {
    /// Checks that every value is in its range.
    ///
    /// # Errors
    /// The first value outside its range.
    pub fn validate(&self) -> Result<(), OutOfRange> {
        within("fleet.lease", self.lease, 4.0, 600.0)?;
        within("fleet.replicas", self.replicas, 1, 5)?;
        within("fleet.keep_events", self.keep_events, 60.0, 31_536_000.0)?;
        self.capacity.map_or(Ok(()), |capacity| {
            within("fleet.capacity", capacity, 0.1, 1e6)
        })
    }

    /// The worker's name.
    ///
    /// # Errors
    /// When the name, or the host's name, has other characters than letters, digits, '-' and '_'.
    pub fn worker_name(&self) -> Result<String, String> {
        let host = || {
            let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            let name = name.trim().replace('.', "-");
            if name.is_empty() {
                "worker".into()
            } else {
                name
            }
        };
        let name = self.name.clone().unwrap_or_else(host);
        let is_valid = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || !name.chars().all(is_valid) {
            return Err(format!(
                "fleet.name = \"{name}\" may contain only letters, digits, '-' and '_'"
            ));
        }
        Ok(name)
    }

    /// The labels as a set.
    pub fn label_set(&self) -> BTreeSet<String> {
        self.labels.iter().cloned().collect()
    }

    /// The settings of a connection: address of `[fleet]`, login and TLS of `[nats]`.
    pub fn connection(&self, nats: Option<&NatsConfig>) -> NatsConfig {
        nats.cloned()
            .unwrap_or_default()
            .with_url(self.nats.clone())
    }

    /// The settings of the sink that publishes a worker's events: those of `[nats]`, into the
    /// fleet's stream unless they name another one.
    pub fn events(&self, nats: Option<&NatsConfig>) -> NatsConfig {
        let own = self.connection(nats);
        if own.stream.is_some() {
            return own;
        }
        own.with_stream(Some(EVENT_STREAM.into()))
            .with_subject(EVENT_SUBJECT.into())
    }

    /// The times that follow from the lease.
    pub fn times(&self) -> LeaseTimes {
        LeaseTimes::of(Duration::from_secs_f64(self.lease))
    }
}

/// Times after a worker's last successful report, in their order: its cameras are stopped, its
/// events count no more, its cameras are given to others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LeaseTimes {
    /// A worker stops its cameras.
    pub stop: Duration,
    /// A worker passes on no more events.
    pub end: Duration,
    /// The coordinator gives its cameras to others.
    pub lost: Duration,
    /// Interval between two reports.
    pub report: Duration,
}

impl LeaseTimes {
    /// The times of a lease.
    pub fn of(lease: Duration) -> Self {
        LeaseTimes {
            stop: lease.mul_f64(0.75),
            end: lease.mul_f64(0.875),
            lost: lease,
            report: lease / 8,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_of_a_lease_leave_room_between_stop_and_loss() {
        let times = FleetConfig::default().times();
        let seconds = [times.report, times.stop, times.end, times.lost];
        assert_eq!(seconds.map(|t| t.as_secs_f64()), [1.0, 6.0, 7.0, 8.0]);
    }

    #[test]
    fn names_and_settings_out_of_range_are_refused() {
        let config = FleetConfig::default();
        for name in ["", "a.b", "a b", "ä", "a/b"] {
            let named = config.clone().with_name(Some(name.into()));
            assert!(named.worker_name().is_err(), "{name}");
        }
        let named = config.clone().with_name(Some("cam-room_2".into()));
        assert_eq!(named.worker_name().as_deref(), Ok("cam-room_2"));
        assert!(config.worker_name().is_ok(), "the host's name");
        for wrong in [
            config.clone().with_lease(3.9),
            config.clone().with_replicas(0),
            config.clone().with_capacity(Some(0.0)),
        ] {
            assert!(wrong.validate().is_err(), "{wrong:?}");
        }
        assert!(config.validate().is_ok());
    }

    #[test]
    fn events_go_into_the_fleets_stream_unless_another_is_named() {
        let config = FleetConfig::default().with_nats("nats://a:4222".into());
        let events = config.events(None);
        assert_eq!(events.url, "nats://a:4222");
        assert_eq!(events.subject, "twintrack.events");
        assert_eq!(events.stream.as_deref(), Some(EVENT_STREAM));
        let own = NatsConfig::default()
            .with_user(Some("worker".into()))
            .with_subject("site".into())
            .with_stream(Some("SITE".into()));
        let events = config.events(Some(&own));
        assert_eq!(
            (events.subject.as_str(), events.user.as_deref()),
            ("site", Some("worker"))
        );
    }
}
