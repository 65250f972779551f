//! What a scene reports: changes in zones and at lines, and the counts so far.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::analytics::boundary::Point;
use crate::analytics::config::Direction;

/// A change in a zone or at a line.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// In a zone.
    Zone(ZoneChange),
    /// At a line.
    Line(LineChange),
}

/// What has changed in a zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ZoneKind {
    /// A person has entered it, or a track has begun in it.
    Enter,
    /// A person has left it, or a track has ended in it.
    Leave,
    /// A person has been in it for `dwell` seconds.
    Dwell,
    /// There are more people in it than its limit.
    OverLimit,
    /// There are no longer more people in it than its limit.
    WithinLimit,
}

/// A change in a zone.
#[derive(Debug, Clone, PartialEq)]
pub struct ZoneChange {
    /// The zone.
    pub zone: Arc<str>,
    /// What has changed.
    pub kind: ZoneKind,
    /// The track; absent for `over_limit` and `within_limit`.
    pub track: Option<u64>,
    /// Presentation time in seconds of the change.
    pub at: f64,
    /// `enter` and `leave`: where the border was crossed, in pixels. Absent if the track entered by
    /// beginning in the zone or left by ending in it, and for all other kinds.
    pub point: Option<Point>,
    /// Seconds in the zone so far, of `leave` and `dwell`.
    pub stay: Option<f64>,
    /// Number of people in the zone after the change.
    pub occupancy: u64,
    /// Number of entries so far, this change included.
    pub entered: u64,
    /// Number of exits so far, this change included.
    pub left: u64,
    /// The limit; present for `over_limit` and `within_limit` only.
    pub limit: Option<u32>,
}

/// A person has crossed a line.
#[derive(Debug, Clone, PartialEq)]
pub struct LineChange {
    /// The line.
    pub line: Arc<str>,
    /// The direction.
    pub direction: Direction,
    /// The track.
    pub track: u64,
    /// Presentation time in seconds of the crossing.
    pub at: f64,
    /// Where, in pixels.
    pub point: Option<Point>,
    /// Whether it is the line's wrong direction.
    pub wrong: bool,
    /// Number of crossings in the direction `in`, up to and including this change.
    pub inwards: u64,
    /// Number of crossings in the direction `out`, up to and including this change.
    pub outwards: u64,
}

/// A zone and its counts.
#[derive(Debug, Clone, PartialEq)]
pub struct ZoneView {
    /// The name.
    pub name: Arc<str>,
    /// The corners in pixels.
    pub points: Vec<Point>,
    /// Number of people in it.
    pub occupancy: u64,
    /// Number of entries so far.
    pub entered: u64,
    /// Number of exits so far.
    pub left: u64,
    /// Whether an `over_limit` change was reported and no `within_limit` change since.
    pub over: bool,
}

/// A line and its counts.
#[derive(Debug, Clone, PartialEq)]
pub struct LineView {
    /// The name.
    pub name: Arc<str>,
    /// The points in pixels.
    pub points: Vec<Point>,
    /// Number of crossings in.
    pub inwards: u64,
    /// Number of crossings out.
    pub outwards: u64,
}

/// The shapes of a scene, in pixels, and their counts.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SceneView {
    /// The zones, by name.
    pub zones: Vec<ZoneView>,
    /// The lines, by name.
    pub lines: Vec<LineView>,
    /// The corners of the masks, in pixels.
    pub masks: Vec<Vec<Point>>,
}
