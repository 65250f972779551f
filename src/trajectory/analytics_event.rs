//! The events of zones and lines.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::analytics::{Direction, SceneView, ZoneKind};
use crate::time::Timestamp;
use crate::track::identity::Identity;
use crate::trajectory::{EventKind, RunId};

/// Schema of the event of a change in a zone.
pub const ZONE_SCHEMA: &str = "twintrack.zone/1";
/// Schema of the event of a line's crossing.
pub const LINE_SCHEMA: &str = "twintrack.line/1";

/// Something has changed in a zone or at a line.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum AnalyticsEvent {
    /// In a zone.
    Zone(ZoneEvent),
    /// At a line.
    Line(LineEvent),
}

impl AnalyticsEvent {
    /// The kind of event.
    pub fn kind(&self) -> EventKind {
        match self {
            AnalyticsEvent::Zone(_) => EventKind::Zone,
            AnalyticsEvent::Line(_) => EventKind::Line,
        }
    }

    /// Name of the camera.
    pub fn camera(&self) -> &Arc<str> {
        match self {
            AnalyticsEvent::Zone(e) => &e.camera,
            AnalyticsEvent::Line(e) => &e.camera,
        }
    }

    /// Sequence number of the event.
    pub fn seq(&self) -> u64 {
        match self {
            AnalyticsEvent::Zone(e) => e.seq,
            AnalyticsEvent::Line(e) => e.seq,
        }
    }

    /// Revision of the lease of a fleet's worker; see [`crate::trajectory::FrameEvent::lease`].
    pub fn lease(&self) -> Option<u64> {
        match self {
            AnalyticsEvent::Zone(e) => e.lease,
            AnalyticsEvent::Line(e) => e.lease,
        }
    }

    /// Sets the counts of the zone or line in `view` to those of this event.
    pub fn update(&self, view: &mut SceneView) {
        match self {
            AnalyticsEvent::Zone(e) => {
                for zone in view.zones.iter_mut().filter(|z| z.name == e.zone) {
                    zone.occupancy = e.occupancy;
                    (zone.entered, zone.left) = (e.entered, e.left);
                    match e.kind {
                        ZoneKind::OverLimit => zone.over = true,
                        ZoneKind::WithinLimit => zone.over = false,
                        ZoneKind::Enter | ZoneKind::Leave | ZoneKind::Dwell => {}
                    }
                }
            }
            AnalyticsEvent::Line(e) => {
                for line in view.lines.iter_mut().filter(|l| l.name == e.line) {
                    (line.inwards, line.outwards) = (e.inwards, e.outwards);
                }
            }
        }
    }

    /// Number of the frame with which the change or the crossing was decided.
    pub fn frame(&self) -> u64 {
        match self {
            AnalyticsEvent::Zone(e) => e.frame,
            AnalyticsEvent::Line(e) => e.frame,
        }
    }
}

/// Something has changed in a zone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ZoneEvent {
    /// [`ZONE_SCHEMA`].
    pub schema: String,
    /// The run.
    pub run: RunId,
    /// Name of the camera.
    pub camera: Arc<str>,
    /// Sequence number; see [`crate::trajectory::FrameEvent::seq`].
    pub seq: u64,
    /// See [`crate::trajectory::FrameEvent::lease`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lease: Option<u64>,
    /// Number of the frame with which the change was decided. It is later than the change by at
    /// least `counting.hold`, unless the end of the track or a new scene decided the change.
    pub frame: u64,
    /// Presentation time in seconds of the change.
    pub pts: f64,
    /// Wall-clock time of the change, if it is known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub time: Option<Timestamp>,
    /// Name of the zone.
    pub zone: Arc<str>,
    /// What has changed.
    pub kind: ZoneKind,
    /// Id of the track; absent for changes of the limit.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub track: Option<u64>,
    /// The person's identity, if known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub identity: Option<Identity>,
    /// Where the border was crossed, [x, y] in pixels; absent if the track began or ended in the
    /// zone.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub point: Option<[f64; 2]>,
    /// Seconds in the zone so far, of `leave` and `dwell`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stay: Option<f64>,
    /// Number of people in the zone after the change.
    pub occupancy: u64,
    /// Number of entries so far in this run, this event included.
    pub entered: u64,
    /// Number of exits so far in this run, this event included.
    pub left: u64,
    /// The zone's limit, of `over_limit` and `within_limit`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub limit: Option<u32>,
}

/// A person has crossed a line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LineEvent {
    /// [`LINE_SCHEMA`].
    pub schema: String,
    /// The run.
    pub run: RunId,
    /// Name of the camera.
    pub camera: Arc<str>,
    /// Sequence number; see [`crate::trajectory::FrameEvent::seq`].
    pub seq: u64,
    /// See [`crate::trajectory::FrameEvent::lease`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lease: Option<u64>,
    /// Number of the frame with which the crossing was decided. It is later than the crossing by at
    /// least `counting.hold`, unless the end of the track or a new scene decided the crossing.
    pub frame: u64,
    /// Presentation time in seconds of the crossing.
    pub pts: f64,
    /// Wall-clock time of the crossing, if it is known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub time: Option<Timestamp>,
    /// Name of the line.
    pub line: Arc<str>,
    /// The direction.
    pub direction: Direction,
    /// Whether it is the line's wrong direction.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub wrong: bool,
    /// Id of the track.
    pub track: u64,
    /// The person's identity, if known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub identity: Option<Identity>,
    /// Where the line was crossed, [x, y] in pixels.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub point: Option<[f64; 2]>,
    /// Number of crossings in so far in this run, this one included.
    #[serde(rename = "in")]
    pub inwards: u64,
    /// Number of crossings out so far in this run, this one included.
    #[serde(rename = "out")]
    pub outwards: u64,
}
