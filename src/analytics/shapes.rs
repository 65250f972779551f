//! A zone and a line with their counts.

use std::sync::Arc;

use crate::analytics::boundary::Boundary;
use crate::analytics::change::{Change, LineView, ZoneChange, ZoneKind, ZoneView};
use crate::analytics::config::{LineConfig, ZoneConfig};

#[derive(Debug)]
pub(super) struct Zone {
    pub name: Arc<str>,
    pub config: ZoneConfig,
    pub boundary: Boundary,
    pub entered: u64,
    pub left: u64,
    /// Presentation time in seconds since which there have been more people than the limit.
    pub over_since: Option<f64>,
    /// Whether the present excess over the limit has been reported (`over_limit`).
    pub over_told: bool,
}

#[derive(Debug)]
pub(super) struct Line {
    pub name: Arc<str>,
    pub config: LineConfig,
    pub boundary: Boundary,
    /// Numbers of crossings.
    pub inwards: u64,
    pub outwards: u64,
}

impl Zone {
    /// Number of people inside.
    pub fn occupancy(&self) -> u64 {
        self.entered - self.left
    }

    pub fn is_over(&self) -> bool {
        let limit = self.config.limit.map_or(u64::MAX, u64::from);
        self.occupancy() > limit
    }

    pub fn entered_at(&mut self, at: f64) {
        if self.is_over() {
            self.over_since.get_or_insert(at);
        }
    }

    /// The change [`ZoneKind::WithinLimit`], if the number of people was reported to be over the
    /// limit and no longer is.
    pub fn left_at(&mut self, at: f64) -> Option<Change> {
        if self.is_over() {
            return None;
        }
        self.over_since = None;
        std::mem::take(&mut self.over_told).then(|| self.limit_change(ZoneKind::WithinLimit, at))
    }

    pub fn limit_change(&self, kind: ZoneKind, at: f64) -> Change {
        Change::Zone(ZoneChange {
            zone: self.name.clone(),
            kind,
            track: None,
            at,
            point: None,
            stay: None,
            occupancy: self.occupancy(),
            entered: self.entered,
            left: self.left,
            limit: self.config.limit,
        })
    }

    pub fn view(&self) -> ZoneView {
        ZoneView {
            name: self.name.clone(),
            points: self.boundary.points().into(),
            occupancy: self.occupancy(),
            entered: self.entered,
            left: self.left,
            over: self.over_told,
        }
    }
}

impl Line {
    pub fn view(&self) -> LineView {
        LineView {
            name: self.name.clone(),
            points: self.boundary.points().into(),
            inwards: self.inwards,
            outwards: self.outwards,
        }
    }
}
