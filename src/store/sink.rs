//! The sink that hands events to the history's writer. It never waits for the database.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::clock;
use crate::sink::{FrameResult, Sink, SinkError};
use crate::store::history::History;
use crate::store::live::{LiveSettings, LiveTracks};
use crate::store::rows::{Change, EventRow, TrackRow};
use crate::trajectory::{AnalyticsEvent, EndedEvent, StatusEvent, WithJson};

/// The sink of a [`History`].
pub struct HistorySink {
    history: History,
    config: LiveSettings,
    cameras: BTreeMap<Arc<str>, LiveTracks>,
    /// How long [`Sink::finish`] waits for the last commit.
    shutdown_timeout: Duration,
}

impl HistorySink {
    /// A sink that waits at most `shutdown_timeout` for its last commit.
    pub fn new(history: History, shutdown_timeout: Duration) -> Self {
        let config = history.config();
        HistorySink {
            config: LiveSettings {
                update_every: config.update_every,
                embeddings: config.embeddings,
                crop_height: config.crops.then_some(config.crop_height),
            },
            history,
            cameras: BTreeMap::new(),
            shutdown_timeout,
        }
    }

    /// Takes an event of a zone or a line, as JSON of the schemas `twintrack.zone/1` and
    /// `twintrack.line/1`. An invalid one is logged and left out.
    pub fn event(&mut self, json: &str) {
        match EventRow::parse(json, clock::now()) {
            Ok(mut event) => {
                self.camera(&event.camera.clone()).complete(&mut event);
                self.history.push(Change::Event(event));
            }
            Err(reason) => {
                tracing::error!(reason, "an event of a zone or line is not stored");
            }
        }
    }

    fn camera(&mut self, camera: &Arc<str>) -> &mut LiveTracks {
        self.cameras.entry(camera.clone()).or_default()
    }

    fn push(&self, row: TrackRow) {
        self.history.push(Change::Track(Box::new(row)));
    }
}

impl Sink for HistorySink {
    fn frame(&mut self, finished: &FrameResult) -> Result<(), SinkError> {
        let (event, config) = (&finished.event, self.config);
        let image = finished.frame.image.as_ref();
        let live = self.camera(&event.camera);
        for row in live.frame(event, image, config, clock::now()) {
            self.push(row);
        }
        Ok(())
    }

    fn needs_pixels(&self) -> bool {
        self.config.crop_height.is_some()
    }

    fn ended(&mut self, event: &WithJson<EndedEvent>) -> Result<(), SinkError> {
        let config = self.config;
        let row = self
            .camera(&event.camera)
            .ended(event, config, clock::now());
        self.push(row);
        Ok(())
    }

    fn analytics(&mut self, event: &WithJson<AnalyticsEvent>) -> Result<(), SinkError> {
        self.event(event.json());
        Ok(())
    }

    fn status(&mut self, event: &WithJson<StatusEvent>) -> Result<(), SinkError> {
        self.history.push(Change::Status(StatusEvent::clone(event)));
        Ok(())
    }

    fn close(&mut self) {
        let cameras = std::mem::take(&mut self.cameras);
        for mut live in cameras.into_values() {
            live.finish().into_iter().for_each(|row| self.push(row));
        }
        self.history.close(self.shutdown_timeout);
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        if let Err(e) = self.history.finish() {
            tracing::error!(error = %e, "the last changes are not in the history");
        }
        Ok(())
    }
}
