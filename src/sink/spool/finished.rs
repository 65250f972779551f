//! Removal of delivered and refused (finished) events, also from a full disk.

use std::sync::atomic::Ordering;
use std::time::Instant;

use rusqlite::Connection;

use crate::sink::spool::table::{self, remove};
use crate::sink::spool::{Change, Db, Spool, TRIM_INTERVAL};

impl Spool {
    /// Removes these events, and finished ones that could not be removed before. If the disk fails,
    /// they are marked as finished instead. `before_commit` runs once. Returns the number of
    /// removed or marked events that were not finished before.
    pub(super) fn finish(
        &self,
        db: &mut Db,
        positions: &[i64],
        before_commit: impl FnOnce(),
    ) -> u64 {
        let mut before_commit = Some(before_commit);
        if db.finished.is_empty() || db.last_removal.elapsed() >= TRIM_INTERVAL {
            db.last_removal = Instant::now();
            let earlier: Vec<i64> = db.finished.keys().copied().collect();
            let removed = self.transact(db, |t| {
                let mut change = Change::default();
                for position in earlier.iter().chain(positions) {
                    change.removed.extend(remove(t, "place = ?", [position])?);
                }
                if let Some(run) = before_commit.take() {
                    run();
                }
                Ok(change)
            });
            match removed {
                Ok(removed) => return removed,
                Err(e) => {
                    self.counts.failures.fetch_add(1, Ordering::Relaxed);
                    tracing::error!(
                        sink = %self.name, error = %e,
                        "cannot remove delivered events from the spool; delivery continues, and \
                         they are removed when the spool's disk works again"
                    );
                }
            }
        }
        if let Some(run) = before_commit {
            run();
        }
        let marked = positions.iter().filter(|p| self.mark(db, **p)).count() as u64;
        if self.is_empty() {
            self.replace_file(db);
        }
        marked
    }

    /// Marks an event as finished. Returns whether it was in the queue and not finished before.
    fn mark(&self, db: &mut Db, position: i64) -> bool {
        let length = "SELECT length(body) FROM events WHERE place = ?";
        let length = db
            .connection
            .query_row(length, [position], |r| r.get::<_, i64>(0));
        let Ok(bytes) = length else { return false };
        let marked = db.finished.insert(position, bytes).is_none();
        if marked {
            self.count(-1, -bytes);
        }
        marked
    }

    /// Replaces the file by an empty one. All of its events must be finished.
    fn replace_file(&self, db: &mut Db) {
        let Ok(placeholder) = Connection::open_in_memory() else {
            return;
        };
        drop(std::mem::replace(&mut db.connection, placeholder));
        db.closed = true;
        self.reopen(db);
    }

    /// Opens an empty file if none is open.
    pub(super) fn reopen(&self, db: &mut Db) {
        if !db.closed {
            return;
        }
        let last = db.finished.last_key_value().map_or(0, |(last, _)| *last);
        match table::replace(&self.path, last) {
            Ok(connection) => {
                db.connection = connection;
                db.closed = false;
                db.finished.clear();
                tracing::warn!(sink = %self.name, "the spool's file was replaced by an empty one");
            }
            Err(error) => tracing::error!(
                sink = %self.name, error,
                "cannot replace the spool's file; it is tried again at the next event"
            ),
        }
    }
}
