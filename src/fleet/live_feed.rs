//! A fleet's live events, for a process that has no cameras of its own, such as the web server of
//! `twintrack history`.
//!
//! Events are received without JetStream: those during an interruption are missed here, and are in
//! the history all the same. Those of a lease that is older than the newest one seen are dropped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;

use crate::fleet::buckets::{Fleet, Versioned};
use crate::fleet::error::FleetError;
use crate::pipeline::{CameraConfigs, Cameras};
use crate::refine::frame_of;
use crate::sink::{FrameResult, Sink};
use crate::source::CameraConfig;
use crate::trajectory::{Event, FrameEvent};

/// Pause after an error.
const RETRY: Duration = Duration::from_secs(2);

/// Passes a fleet's events to sinks, and keeps a list of its cameras with their states.
pub struct LiveFeed {
    /// The connection.
    pub fleet: Fleet,
    /// Prefix of the events' subjects.
    pub subject: String,
    /// Receive the events; frames have no pixels.
    pub sinks: Vec<Box<dyn Sink>>,
    /// Kept in step with the records of the cameras.
    pub cameras: Cameras,
    /// Receives the cameras' settings.
    pub configs: watch::Sender<CameraConfigs>,
    /// Newest lease of each camera.
    pub leases: BTreeMap<Arc<str>, u64>,
}

impl LiveFeed {
    /// Runs until `stop`, then closes the sinks. After an error of the connection, which is logged,
    /// the subscriptions are opened again; an event that is invalid or that a sink fails on is
    /// logged and left out.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let error = tokio::select! {
                () = stop.cancelled() => break,
                ended = self.follow() => match ended {
                    Ok(()) => break,
                    Err(error) => error,
                },
            };
            tracing::warn!(%error, "cannot follow the fleet's events; it is tried again");
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(RETRY) => {}
            }
        }
        self.sinks.iter_mut().for_each(|sink| sink.close());
        for sink in &mut self.sinks {
            if let Err(error) = sink.finish() {
                tracing::error!(%error, "a sink of the live events has failed");
            }
        }
    }

    async fn follow(&mut self) -> Result<(), FleetError> {
        let (mut records, mut changes) = self.fleet.cameras.watch(">").await?;
        let mut events = self.fleet.subscribe(&format!("{}.>", self.subject)).await?;
        self.take_cameras(&records);
        loop {
            tokio::select! {
                change = changes.next() => {
                    let change = change?;
                    match change.record {
                        Some(record) => records.insert(change.key, record),
                        None => records.remove(&change.key),
                    };
                    self.take_cameras(&records);
                }
                message = events.next() => {
                    let ended = || FleetError::request("deliver events", "the connection is closed");
                    let message = message.ok_or_else(ended)?;
                    self.take(&message.payload);
                }
            }
        }
    }

    fn take_cameras(&mut self, records: &BTreeMap<String, Versioned<CameraConfig>>) {
        let config = |(name, record): (&String, &Versioned<CameraConfig>)| {
            (name.clone(), record.record.clone())
        };
        let configs: CameraConfigs = records.iter().map(config).collect();
        self.cameras.set_remote(&configs);
        self.configs.send_replace(configs);
    }

    /// Passes an event on. An invalid one is logged and left out.
    fn take(&mut self, payload: &[u8]) {
        let text = String::from_utf8_lossy(payload);
        let event = match Event::parse(text.trim_end()) {
            Ok(event) => event,
            Err(error) => {
                tracing::warn!(%error, "an event of the fleet is invalid");
                return;
            }
        };
        if let Some(lease) = event.lease() {
            let newest = self.leases.entry(event.camera().clone()).or_default();
            if lease < *newest {
                return;
            }
            *newest = lease;
        }
        if let Event::Status(status) = &event {
            self.cameras.set_state(&status.camera, status.state);
        }
        for sink in &mut self.sinks {
            let passed = match event.clone() {
                Event::Frame(e) => sink.frame(&without_pixels(e)),
                Event::Ended(e) => sink.ended(&e.into()),
                Event::Status(e) => sink.status(&e.into()),
                Event::Analytics(e) => sink.analytics(&e.into()),
            };
            if let Err(error) = passed {
                tracing::warn!(%error, "a sink does not take a live event");
            }
        }
    }
}

/// The frame of an event, without pixels and detections.
fn without_pixels(event: FrameEvent) -> FrameResult {
    FrameResult {
        frame: frame_of(&event),
        detections: Vec::new(),
        event: event.into(),
        people: Vec::new(),
        scene: None,
    }
}
