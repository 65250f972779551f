//! A queue on disk that keeps events until their receiver acknowledges them.
//!
//! The queue is an SQLite file with a write-ahead log. Queued events survive a crash of the
//! process; a power failure may lose the events queued since the last checkpoint. Size and age are
//! limited: beyond the limits the oldest events are dropped and counted. Events that the receiver
//! refuses go to a dead-letter file beside the spool.
//!
//! Removing an event needs space on the disk, for the log. While the disk is full, delivered events
//! are only marked in memory, so that delivery continues; when all events are delivered, the file
//! is replaced by an empty one, which frees its space. If the process crashes before the file is
//! replaced, the marked events are delivered again.

mod finished;
mod table;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use derive_setters::Setters;
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::range::{OutOfRange, within};
use crate::sink::dead_letter::DeadLetters;
use crate::sink::private;
use crate::sink::sink::SinkError;
use crate::sink::spool::table::{Removed, remove};
use crate::trajectory::EventKind;

/// Limits of a spool.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema, Setters)]
#[serde(deny_unknown_fields, default)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct SpoolLimits {
    /// Maximum total size in bytes, at least 65536, of the queued events; the oldest events beyond
    /// it are dropped.
    pub bytes: u64,
    /// Maximum age in seconds, at least 1, of a queued event; older events are dropped.
    pub age: f64,
}

impl Default for SpoolLimits {
    fn default() -> Self {
        SpoolLimits {
            bytes: 256 << 20,
            age: 86400.0,
        }
    }
}

impl SpoolLimits {
    /// Checks that every value is in its range.
    ///
    /// # Errors
    /// The first value outside its range.
    pub fn validate(&self, section: &str) -> Result<(), OutOfRange> {
        within(
            &format!("{section}.spool.bytes"),
            self.bytes as f64,
            65536.0,
            1e15,
        )?;
        within(&format!("{section}.spool.age"), self.age, 1.0, 1e9)
    }
}

/// An event in the queue.
#[derive(Debug, Clone, PartialEq)]
pub struct QueuedEvent {
    /// Position in the queue; later events have higher positions.
    pub position: i64,
    /// Kind of the event.
    pub kind: EventKind,
    /// Name of the camera.
    pub camera: String,
    /// The event, JSON.
    pub body: Vec<u8>,
}

/// Counters and state of a spool, for metrics.
#[derive(Debug, Default)]
pub struct SpoolCounts {
    /// Events in the queue.
    pub events: AtomicU64,
    /// Bytes of the events in the queue.
    pub bytes: AtomicU64,
    /// Events acknowledged by the receiver.
    pub delivered: AtomicU64,
    /// Events dropped because of the limits of size and age, or because the disk failed.
    pub dropped: AtomicU64,
    /// Refused events, which are in the dead-letter file.
    pub refused: AtomicU64,
    /// Failed attempts to deliver events, or to read or remove them on the disk.
    pub failures: AtomicU64,
    /// Whether the receiver is connected (MQTT, NATS) or answered the last attempt (webhook).
    pub connected: AtomicBool,
}

/// The queue, shared by the sink that pushes events and the worker that delivers them.
#[derive(Debug)]
pub struct Spool {
    name: String,
    path: PathBuf,
    db: Mutex<Db>,
    dead_letters: Mutex<DeadLetters>,
    limits: SpoolLimits,
    pushed: Notify,
    /// Counters and state.
    pub counts: SpoolCounts,
}

#[derive(Debug)]
struct Db {
    connection: Connection,
    /// Events that were delivered or refused but could not be removed, with their bytes.
    finished: BTreeMap<i64, i64>,
    /// Whether the file is closed, because it could not be replaced by an empty one.
    closed: bool,
    /// Time of the last attempt to remove finished events.
    last_removal: Instant,
    /// Time at which the age of events was last checked.
    last_trim: Instant,
    /// Time at which dropped events were last logged.
    last_drop_log: Option<Instant>,
    /// Time at which a refused event was last logged.
    last_refusal_log: Option<Instant>,
}

/// Changes made by a transaction.
#[derive(Default)]
struct Change {
    /// Bytes of the event that it has added, if any.
    added: Option<i64>,
    removed: Vec<Removed>,
}

/// Interval between checks for events that are too old, and between attempts to remove finished
/// events after the disk has failed.
const TRIM_INTERVAL: Duration = Duration::from_secs(1);
/// Shortest time between two log messages about dropped events, and between two about refused
/// events.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

impl Spool {
    /// Opens the queue of the sink `name` in the folder `state`, with the events that an earlier
    /// run has left in it. Its files are readable by their owner only.
    ///
    /// # Errors
    /// When the file cannot be created, is not a spool, or another process has it open.
    pub fn open(state: &Path, name: &str, limits: SpoolLimits) -> Result<Arc<Spool>, SinkError> {
        let path = state.join(format!("{name}.spool"));
        let fail = |reason: String| SinkError::Spool {
            path: path.clone(),
            reason,
        };
        private::create_folder(state).map_err(|e| fail(e.to_string()))?;
        // SQLite creates its auxiliary files with the mode of this file.
        private::restrict(&path).map_err(|e| fail(e.to_string()))?;
        let (connection, (events, bytes)) =
            table::open(&path).map_err(|e| match e.sqlite_error_code() {
                Some(rusqlite::ErrorCode::DatabaseBusy) => {
                    fail("another twintrack uses it; give each its own state_dir".into())
                }
                Some(rusqlite::ErrorCode::NotADatabase | rusqlite::ErrorCode::DatabaseCorrupt) => {
                    fail(format!(
                        "{e}; move the file away to start with an empty one"
                    ))
                }
                _ => fail(e.to_string()),
            })?;
        if events > 0 {
            tracing::warn!(
                sink = name,
                events,
                "undelivered events of an earlier run are in the spool"
            );
        }
        let counts = SpoolCounts {
            events: events.into(),
            bytes: bytes.into(),
            ..SpoolCounts::default()
        };
        let now = Instant::now();
        let dead_letters = Mutex::new(DeadLetters::new(state, name));
        let db = Mutex::new(Db {
            connection,
            finished: BTreeMap::new(),
            closed: false,
            last_removal: now,
            last_trim: now.checked_sub(TRIM_INTERVAL).unwrap_or(now),
            last_drop_log: None,
            last_refusal_log: None,
        });
        Ok(Arc::new(Spool {
            name: name.into(),
            path,
            db,
            dead_letters,
            limits,
            pushed: Notify::new(),
            counts,
        }))
    }

    /// The sink's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn lock(&self) -> MutexGuard<'_, Db> {
        self.db.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, e: &rusqlite::Error) -> SinkError {
        SinkError::Spool {
            path: self.path.clone(),
            reason: e.to_string(),
        }
    }

    /// Runs `work` in a transaction. The counts, which exclude finished events, are updated after
    /// the commit. After an error they are read from the queue, so that they never include a change
    /// that was rolled back. Returns the number of unfinished events removed.
    fn transact(
        &self,
        db: &mut Db,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<Change>,
    ) -> rusqlite::Result<u64> {
        let changed = db.connection.transaction().and_then(|t| {
            let change = work(&t)?;
            t.commit().map(|()| change)
        });
        match changed {
            Ok(Change { added, mut removed }) => {
                removed.retain(|r| db.finished.remove(&r.position).is_none());
                let bytes = removed.iter().map(|r| r.bytes).sum::<i64>();
                self.count(
                    i64::from(added.is_some()) - removed.len() as i64,
                    added.unwrap_or(0) - bytes,
                );
                Ok(removed.len() as u64)
            }
            Err(e) => {
                if let Ok((events, bytes)) = table::totals(&db.connection) {
                    let finished = db.finished.values().sum::<i64>();
                    let events = events.saturating_sub(db.finished.len() as u64);
                    self.counts.events.store(events, Ordering::Relaxed);
                    let bytes = bytes.saturating_add_signed(-finished);
                    self.counts.bytes.store(bytes, Ordering::Relaxed);
                }
                Err(e)
            }
        }
    }

    /// Changes the counts of queued events and bytes. The caller holds the lock.
    fn count(&self, events: i64, bytes: i64) {
        for (count, change) in [(&self.counts.events, events), (&self.counts.bytes, bytes)] {
            let now = count.load(Ordering::Relaxed).saturating_add_signed(change);
            count.store(now, Ordering::Relaxed);
        }
    }

    /// Appends an event, and drops old ones beyond the limits. If the disk fails, the event is
    /// dropped, counted and logged, so that the pipeline does not stop.
    pub fn push(&self, kind: EventKind, camera: &str, body: &[u8]) {
        let mut db = self.lock();
        self.reopen(&mut db);
        let at = seconds_now();
        let added = self.transact(&mut db, |t| {
            t.prepare_cached("INSERT INTO events (at, kind, camera, body) VALUES (?, ?, ?, ?)")?
                .execute(params![at, kind as u8, camera, body])?;
            Ok(Change {
                added: Some(body.len() as i64),
                ..Change::default()
            })
        });
        match added {
            Ok(_) => self.trim(&mut db, at),
            Err(e) => self.count_dropped(&mut db, 1, &e.to_string()),
        }
        drop(db);
        self.pushed.notify_one();
    }

    /// Counts dropped events, and logs them at most every [`LOG_INTERVAL`].
    fn count_dropped(&self, db: &mut Db, events: u64, why: &str) {
        self.counts.dropped.fetch_add(events, Ordering::Relaxed);
        if db
            .last_drop_log
            .is_none_or(|at| at.elapsed() > LOG_INTERVAL)
        {
            db.last_drop_log = Some(Instant::now());
            let dropped = self.counts.dropped.load(Ordering::Relaxed);
            tracing::error!(sink = %self.name, dropped, why, "events are dropped");
        }
    }

    /// Drops the oldest events beyond the limits of age and size.
    fn trim(&self, db: &mut Db, now: f64) {
        if db.last_trim.elapsed() >= TRIM_INTERVAL {
            db.last_trim = Instant::now();
            let old = now - self.limits.age;
            let removed = self.transact(db, |t| removal(remove(t, "at < ?", [old])));
            self.count_trimmed(db, removed, "they are older than spool.age");
        }
        while self.counts.bytes.load(Ordering::Relaxed) > self.limits.bytes {
            let oldest = "place IN (SELECT place FROM events ORDER BY place LIMIT 32)";
            let removed = self.transact(db, |t| removal(remove(t, oldest, [])));
            let why = "the spool is full, because the receiver has been unreachable for too long";
            if self.count_trimmed(db, removed, why) == 0 {
                break;
            }
        }
    }

    fn count_trimmed(&self, db: &mut Db, removed: rusqlite::Result<u64>, why: &str) -> u64 {
        let removed = removed.unwrap_or_else(|e| {
            tracing::error!(
                sink = %self.name, error = %e,
                "cannot remove old events from the spool; it is tried again at the next event"
            );
            0
        });
        if removed > 0 {
            self.count_dropped(db, removed, why);
        }
        removed
    }

    /// The events after `position` (0: from the first), in order of insertion: at most `count`, and
    /// of at most `bytes` bytes together, but at least one if there is any.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn after(
        &self,
        position: i64,
        count: usize,
        bytes: usize,
    ) -> Result<Vec<QueuedEvent>, SinkError> {
        let db = self.lock();
        let read = || -> rusqlite::Result<Vec<QueuedEvent>> {
            let mut select = db.connection.prepare_cached(
                "SELECT place, kind, camera, body FROM events WHERE place > ? ORDER BY place",
            )?;
            let mut rows = select.query([position])?;
            let (mut events, mut sum) = (Vec::new(), 0);
            while events.len() < count
                && let Some(r) = rows.next()?
            {
                if db.finished.contains_key(&r.get(0)?) {
                    continue;
                }
                let kind =
                    EventKind::ALL[usize::from(r.get::<_, u8>(1)?).min(EventKind::ALL.len() - 1)];
                let event = QueuedEvent {
                    position: r.get(0)?,
                    kind,
                    camera: r.get(2)?,
                    body: r.get(3)?,
                };
                sum += event.body.len();
                if sum > bytes && !events.is_empty() {
                    break;
                }
                events.push(event);
            }
            Ok(events)
        };
        read().map_err(|e| self.fail(&e))
    }

    /// Removes delivered events. If the disk fails, they are removed later; [`Spool::after`] does
    /// not return them again.
    pub fn acknowledge(&self, positions: &[i64]) {
        let removed = self.finish(&mut self.lock(), positions, || {});
        self.counts.delivered.fetch_add(removed, Ordering::Relaxed);
    }

    /// Moves a refused event to the dead-letter file, counts and logs it. If the dead-letter file
    /// cannot be written, the event is dropped and counted as dropped, so that it does not block
    /// others.
    ///
    /// # Errors
    /// When the event cannot be read from the disk.
    pub fn refuse(&self, position: i64, reason: &str) -> Result<(), SinkError> {
        let mut db = self.lock();
        let body = "SELECT body FROM events WHERE place = ?";
        let body: Option<Vec<u8>> = db
            .connection
            .query_row(body, [position], |r| r.get(0))
            .optional()
            .map_err(|e| self.fail(&e))?;
        let Some(body) = body else { return Ok(()) }; // dropped in the meantime, beyond a limit
        let mut dead_letters = self
            .dead_letters
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut written = Ok(());
        // The dead letter is written before the commit. After a crash between the two, the event is
        // in both files; in the other order it would be lost.
        self.finish(&mut db, &[position], || {
            written = dead_letters.append(&self.name, reason, &body);
        });
        if let Err(e) = written {
            let file = dead_letters.path().display();
            let why = format!("the receiver refuses them ({reason}); cannot write {file}: {e}");
            self.count_dropped(&mut db, 1, &why);
            return Ok(());
        }
        let refused = 1 + self.counts.refused.fetch_add(1, Ordering::Relaxed);
        if db
            .last_refusal_log
            .is_none_or(|at| at.elapsed() > LOG_INTERVAL)
        {
            db.last_refusal_log = Some(Instant::now());
            let file = dead_letters.path().display();
            tracing::error!(
                sink = %self.name, refused, reason, %file,
                "the receiver refuses an event for good; it is moved to the dead-letter file"
            );
        }
        Ok(())
    }

    /// Whether the queue is empty.
    pub fn is_empty(&self) -> bool {
        self.counts.events.load(Ordering::Relaxed) == 0
    }

    /// Whether events of a camera are in the queue. If the disk fails, it says no, because then
    /// they cannot be delivered.
    pub fn has_events_of(&self, camera: &str) -> bool {
        let db = self.lock();
        let waits = || -> rusqlite::Result<bool> {
            let sql = "SELECT place FROM events WHERE camera = ?";
            let mut select = db.connection.prepare_cached(sql)?;
            let mut rows = select.query([camera])?;
            while let Some(row) = rows.next()? {
                if !db.finished.contains_key(&row.get(0)?) {
                    return Ok(true);
                }
            }
            Ok(false)
        };
        waits().unwrap_or(false)
    }

    /// Waits until an event has been pushed since this method last returned.
    pub async fn pushed(&self) {
        self.pushed.notified().await;
    }
}

/// A change that only removes events.
fn removal(removed: rusqlite::Result<Vec<Removed>>) -> rusqlite::Result<Change> {
    Ok(Change {
        added: None,
        removed: removed?,
    })
}

fn seconds_now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}

#[cfg(test)]
impl Spool {
    /// Makes the commit of this event's removal fail, as on a failing disk; None removes the
    /// failure.
    pub(crate) fn fail_removal_of(&self, position: Option<i64>) {
        let pins = "PRAGMA foreign_keys = ON;
                    DROP TABLE IF EXISTS pins;
                    CREATE TABLE pins (
                        place INTEGER REFERENCES events (place) DEFERRABLE INITIALLY DEFERRED
                    );";
        let db = self.lock();
        db.connection.execute_batch(pins).expect("a table");
        if let Some(position) = position {
            db.connection
                .execute("INSERT INTO pins VALUES (?)", [position])
                .expect("a row");
        }
    }
}

#[cfg(test)]
mod tests;
