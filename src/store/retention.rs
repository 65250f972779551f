//! Deletes data older than the retention of their kind, and the oldest data beyond the limit of
//! size, in small steps so that the writer does not wait long.

use crate::store::config::{HistoryConfig, KeepDays};
use crate::store::database::{Database, Dialect, transaction};
use crate::store::error::StoreError;
use crate::store::rows::milliseconds;
use crate::time::Timestamp;

/// Maximum number of rows of each kind that a step deletes.
const STEP: i64 = 200;
/// Milliseconds in a day.
const DAY: f64 = 86_400_000.0;

/// Number of rows that a step has deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Removed {
    /// Tracks, with all about them.
    pub tracks: u64,
    /// Events, and changes of cameras' states.
    pub events: u64,
    /// Crops of tracks that are kept.
    pub crops: u64,
    /// Embeddings of tracks that are kept.
    pub embeddings: u64,
}

impl Removed {
    /// All together.
    pub fn total(self) -> u64 {
        self.tracks + self.events + self.crops + self.embeddings
    }

    fn has_full_kind(self) -> bool {
        [self.tracks, self.events, self.crops, self.embeddings]
            .iter()
            .any(|n| *n >= STEP as u64)
    }
}

/// What is deleted, and the state of the deletion.
#[derive(Debug)]
pub struct Retention {
    keep: KeepDays,
    max_bytes: u64,
    /// Tracks that are still to be deleted because of the size.
    beyond: i64,
    /// Whether the size is to be checked again, because these tracks have been deleted.
    recheck: bool,
    /// Whether the last step left something to delete.
    pending: bool,
}

impl Retention {
    /// The retention of these settings.
    pub fn new(config: &HistoryConfig) -> Self {
        Retention {
            keep: config.keep_days,
            max_bytes: config.max_bytes,
            beyond: 0,
            recheck: false,
            pending: false,
        }
    }

    /// Whether the last step left something to delete, so that the next is due.
    pub fn is_pending(&self) -> bool {
        self.pending
    }

    /// Deletes some of what is too old at `now`, and of what is beyond the limit of size if
    /// `check_size`, and gives the space of the deleted rows back.
    ///
    /// # Errors
    /// When the database fails; what was deleted before is not restored.
    pub fn step(
        &mut self,
        db: &mut dyn Database,
        now: Timestamp,
        check_size: bool,
    ) -> Result<Removed, StoreError> {
        let mut removed = transaction(db, |db| self.too_old(db, now))?;
        if (check_size || self.recheck) && self.max_bytes > 0 && self.beyond == 0 {
            self.beyond = self.measure(db)?;
            self.recheck = false;
        }
        self.pending = removed.has_full_kind();
        if self.beyond > 0 {
            let (tracks, events) = transaction(db, |db| oldest(db, self.beyond.min(STEP)))?;
            removed.tracks += tracks;
            removed.events += events;
            let done = tracks.max(events) as i64;
            // Without a row to delete the size cannot be reduced.
            self.beyond = if done == 0 {
                0
            } else {
                (self.beyond - done).max(0)
            };
            self.recheck = done > 0 && self.beyond == 0;
            self.pending |= done > 0;
        }
        if removed.total() > 0 && db.dialect() == Dialect::Sqlite {
            // Moves free pages to the end of the file and cuts them off: one page each time that
            // the statement is stepped, so that it must be run as a query.
            db.query("PRAGMA incremental_vacuum(1000)", &[])?;
        }
        Ok(removed)
    }

    fn too_old(&self, db: &mut dyn Database, now: Timestamp) -> Result<Removed, StoreError> {
        let mut delete = |table: &str, time: &str, more: &str, days: f64| {
            if days <= 0.0 {
                return Ok(0);
            }
            let before = milliseconds(now).saturating_sub((days * DAY) as i64);
            let sql = format!(
                "DELETE FROM {table} WHERE id IN (
                     SELECT id FROM {table} WHERE {time} < ? {more} ORDER BY {time} LIMIT ?)"
            );
            db.execute(&sql, &[before.into(), STEP.into()])
        };
        let keep = self.keep;
        let statuses = delete("camera_status", "time", "", keep.events)?;
        Ok(Removed {
            crops: delete("crops", "time", "", keep.crops)?,
            embeddings: delete("embeddings", "last_time", "", keep.embeddings)?,
            events: delete("events", "time", "", keep.events)? + statuses,
            tracks: delete("tracks", "last_time", "AND ended = 1", keep.tracks)?,
        })
    }

    /// Number of the oldest tracks to delete to get below the limit of size; of the oldest events,
    /// if there are no tracks.
    fn measure(&self, db: &mut dyn Database) -> Result<i64, StoreError> {
        let used = used_bytes(db)?;
        if used <= self.max_bytes {
            return Ok(0);
        }
        let count = |db: &mut dyn Database, table: &str| {
            let rows = db.query(&format!("SELECT count(*) FROM {table}"), &[])?;
            rows.first().map_or(Ok(0), |row| row.int(0))
        };
        let rows = match count(db, "tracks")? {
            0 => count(db, "events")?,
            tracks => tracks,
        };
        // Five per cent more, so that the next check finds enough room.
        let share = 1.0 - 0.95 * self.max_bytes as f64 / used as f64;
        Ok(((rows as f64 * share).ceil() as i64).max(1))
    }
}

/// Deletes the `count` tracks that ended first, and events older than the remaining tracks. If no
/// track has ended, deletes the `count` oldest events. Returns the numbers of tracks and events.
fn oldest(db: &mut dyn Database, count: i64) -> Result<(u64, u64), StoreError> {
    let tracks = db.execute(
        "DELETE FROM tracks WHERE id IN (
             SELECT id FROM tracks WHERE ended = 1 ORDER BY last_time LIMIT ?)",
        &[count.into()],
    )?;
    let events = if tracks > 0 {
        db.execute(
            "DELETE FROM events WHERE id IN (
                 SELECT id FROM events WHERE time < (SELECT min(last_time) FROM tracks)
                 ORDER BY time LIMIT ?)",
            &[(5 * STEP).into()],
        )?
    } else {
        db.execute(
            "DELETE FROM events WHERE id IN (SELECT id FROM events ORDER BY time LIMIT ?)",
            &[count.into()],
        )?
    };
    Ok((tracks, events))
}

/// Bytes that the history uses. SQLite: the file without free pages. PostgreSQL: the values and 300
/// bytes for each row with its indexes, because its files keep the space of deleted rows.
///
/// # Errors
/// When the database fails.
pub fn used_bytes(db: &mut dyn Database) -> Result<u64, StoreError> {
    let sum = |db: &mut dyn Database, sql: &str| -> Result<i64, StoreError> {
        let rows = db.query(sql, &[])?;
        rows.first().map_or(Ok(0), |row| row.int(0))
    };
    Ok(match db.dialect() {
        Dialect::Sqlite => {
            let pages = sum(db, "PRAGMA page_count")? - sum(db, "PRAGMA freelist_count")?;
            pages * sum(db, "PRAGMA page_size")?
        }
        Dialect::Postgres => {
            let each = |value: &str, table: &str| {
                format!("SELECT CAST(coalesce(sum(300 + {value}), 0) AS BIGINT) FROM {table}",)
            };
            sum(db, &each("0", "tracks"))?
                + sum(db, &each("octet_length(path)", "paths"))?
                + sum(db, &each("octet_length(jpeg)", "crops"))?
                + sum(db, &each("octet_length(json)", "events"))?
                + sum(db, &each("2 * pg_column_size(embedding)", "embeddings"))?
        }
    } as u64)
}
