//! A sink that keeps the present counts of zones and lines.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::analytics::ZoneKind;
use crate::sink::sink::{FrameResult, Sink, SinkError};
use crate::trajectory::{AnalyticsEvent, LineEvent, WithJson, ZoneEvent};

/// A camera's name, and the name of its zone or line.
pub type ShapeKey = (Arc<str>, Arc<str>);

/// The counts of a zone since the start of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ZoneCounts {
    /// Number of people in it.
    pub occupancy: u64,
    /// Number of entries.
    pub entered: u64,
    /// Number of exits.
    pub left: u64,
    /// Number of stays that reached the zone's dwell time.
    pub dwelled: u64,
    /// Number of times that there were more people than the limit.
    pub over_limit: u64,
}

/// The counts of a line since the start of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LineCounts {
    /// Number of crossings in.
    pub inwards: u64,
    /// Number of crossings out.
    pub outwards: u64,
    /// Number of crossings in the line's wrong direction.
    pub wrong: u64,
}

#[derive(Debug, Default)]
struct All {
    zones: BTreeMap<ShapeKey, ZoneCounts>,
    lines: BTreeMap<ShapeKey, LineCounts>,
}

/// Keeps the counts of every zone and line that was declared or had an event. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Counts(Arc<Mutex<All>>);

impl Counts {
    fn all(&self) -> MutexGuard<'_, All> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the zones and lines of a camera, so that they have counts before their first event.
    pub fn declare<'a>(
        &self,
        camera: &Arc<str>,
        zones: impl Iterator<Item = &'a String>,
        lines: impl Iterator<Item = &'a String>,
    ) {
        let mut all = self.all();
        for zone in zones {
            let key = (camera.clone(), zone.as_str().into());
            all.zones.entry(key).or_default();
        }
        for line in lines {
            let key = (camera.clone(), line.as_str().into());
            all.lines.entry(key).or_default();
        }
    }

    /// The counts of the zones, by camera and name.
    pub fn zones(&self) -> Vec<(ShapeKey, ZoneCounts)> {
        let all = self.all();
        all.zones.iter().map(|(k, c)| (k.clone(), *c)).collect()
    }

    /// The counts of the lines, by camera and name.
    pub fn lines(&self) -> Vec<(ShapeKey, LineCounts)> {
        let all = self.all();
        all.lines.iter().map(|(k, c)| (k.clone(), *c)).collect()
    }
}

impl All {
    fn zone(&mut self, event: &ZoneEvent) {
        let key = (event.camera.clone(), event.zone.clone());
        let counts = self.zones.entry(key).or_default();
        counts.occupancy = event.occupancy;
        (counts.entered, counts.left) = (event.entered, event.left);
        match event.kind {
            ZoneKind::Dwell => counts.dwelled += 1,
            ZoneKind::OverLimit => counts.over_limit += 1,
            ZoneKind::Enter | ZoneKind::Leave | ZoneKind::WithinLimit => {}
        }
    }

    fn line(&mut self, event: &LineEvent) {
        let key = (event.camera.clone(), event.line.clone());
        let counts = self.lines.entry(key).or_default();
        (counts.inwards, counts.outwards) = (event.inwards, event.outwards);
        counts.wrong += u64::from(event.wrong);
    }
}

impl Sink for Counts {
    fn needs_pixels(&self) -> bool {
        false
    }

    fn frame(&mut self, _: &FrameResult) -> Result<(), SinkError> {
        Ok(())
    }

    fn analytics(&mut self, event: &WithJson<AnalyticsEvent>) -> Result<(), SinkError> {
        match &**event {
            AnalyticsEvent::Zone(e) => self.all().zone(e),
            AnalyticsEvent::Line(e) => self.all().line(e),
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}
