//! Counters and state of the history, for metrics and the summary.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::store::retention::Removed;

/// Counters since the start, and the current state.
#[derive(Debug, Default)]
pub struct HistoryCounts {
    /// Changes committed.
    pub stored: AtomicU64,
    /// Transactions committed.
    pub commits: AtomicU64,
    /// Changes dropped because the queue was full: the database is too slow or not available.
    pub queue_full: AtomicU64,
    /// Changes dropped because the database refuses them.
    pub refused: AtomicU64,
    /// Changes dropped because they were not committed before the shutdown's timeout.
    pub shutdown: AtomicU64,
    /// Changes of a fleet's stream left out, because a newer lease of the camera stands before
    /// them.
    pub outdated: AtomicU64,
    /// Failed attempts to open the database or to commit.
    pub failures: AtomicU64,
    /// Whether the last attempt succeeded.
    pub connected: AtomicBool,
    /// Tracks deleted by age or size.
    pub removed_tracks: AtomicU64,
    /// Events deleted by age or size.
    pub removed_events: AtomicU64,
    /// Crops deleted by age.
    pub removed_crops: AtomicU64,
    /// Embeddings deleted by age.
    pub removed_embeddings: AtomicU64,
}

impl HistoryCounts {
    /// Changes dropped, by cause.
    pub fn dropped(&self) -> [(&'static str, u64); 3] {
        let n = |count: &AtomicU64| count.load(Ordering::Relaxed);
        [
            ("queue_full", n(&self.queue_full)),
            ("refused", n(&self.refused)),
            ("shutdown", n(&self.shutdown)),
        ]
    }

    /// Rows deleted by age or size, by kind.
    pub fn removed(&self) -> [(&'static str, u64); 4] {
        let n = |count: &AtomicU64| count.load(Ordering::Relaxed);
        [
            ("tracks", n(&self.removed_tracks)),
            ("events", n(&self.removed_events)),
            ("crops", n(&self.removed_crops)),
            ("embeddings", n(&self.removed_embeddings)),
        ]
    }

    /// Adds what a step of the retention has deleted.
    pub(super) fn add_removed(&self, removed: Removed) {
        for (count, n) in [
            (&self.removed_tracks, removed.tracks),
            (&self.removed_events, removed.events),
            (&self.removed_crops, removed.crops),
            (&self.removed_embeddings, removed.embeddings),
        ] {
            count.fetch_add(n, Ordering::Relaxed);
        }
    }
}
