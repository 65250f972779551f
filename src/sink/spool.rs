//! Events kept on disk until their receiver has them.
//!
//! A queue in an SQLite file (write-ahead log): what was put in survives the end of the process, however sudden; a loss of power may
//! cost the last moments. Bounded in size and age: then the oldest go, and are counted. What the
//! receiver refuses for good goes to a dead-letter file beside it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OptionalExtension as _, Transaction, params};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::range::{OutOfRange, within};
use crate::sink::dead_letter::DeadLetters;
use crate::sink::private;
use crate::sink::sink::SinkError;
use crate::trajectory::EventKind;

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpoolLimits {
    /// At most so many bytes of events.
    pub bytes: u64,
    /// At most so old, seconds.
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
    /// Refuses values outside their ranges.
    ///
    /// # Errors
    /// The first such value.
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

/// An event that waits.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    /// Its place in the queue.
    pub place: i64,
    /// Its kind.
    pub kind: EventKind,
    /// The camera.
    pub camera: String,
    /// The event, JSON.
    pub body: Vec<u8>,
}

/// What has become of the events.
#[derive(Debug, Default)]
pub struct SpoolCounts {
    /// Events that wait.
    pub events: AtomicU64,
    /// Their bytes.
    pub bytes: AtomicU64,
    /// Events that their receiver has.
    pub delivered: AtomicU64,
    /// Events lost: too many, too old, or the disk failed.
    pub dropped: AtomicU64,
    /// Events that their receiver refuses for good; they are in the dead-letter file.
    pub refused: AtomicU64,
    /// Attempts that failed.
    pub failures: AtomicU64,
    /// The receiver is reached.
    pub connected: AtomicBool,
}

/// The queue. Shared by who puts in and who takes out.
#[derive(Debug)]
pub struct Spool {
    name: String,
    path: PathBuf,
    db: Mutex<Db>,
    letters: Mutex<DeadLetters>,
    limits: SpoolLimits,
    news: Notify,
    /// What has become of the events.
    pub counts: SpoolCounts,
}

#[derive(Debug)]
struct Db {
    connection: Connection,
    looked: Instant,
    /// When a loss was last told.
    told: Option<Instant>,
    /// When a refusal was last told.
    told_refused: Option<Instant>,
}

/// Events and bytes that a change adds to the queue.
type Change = (i64, i64);

/// How often old events are looked for, and at most how often a failure is told.
const LOOK: Duration = Duration::from_secs(1);
const TELL: Duration = Duration::from_secs(10);

impl Spool {
    /// Opens the queue of the sink called `name` in the folder `state`; events that an earlier run
    /// has left are in it. Its files are readable by their owner only.
    ///
    /// # Errors
    /// When the file cannot be made, is none of ours, or another process has it open.
    pub fn open(state: &Path, name: &str, limits: SpoolLimits) -> Result<Arc<Spool>, SinkError> {
        let path = state.join(format!("{name}.spool"));
        let fail = |reason: String| SinkError::Spool {
            path: path.clone(),
            reason,
        };
        private::create_folder(state).map_err(|e| fail(e.to_string()))?;
        // SQLite gives the files that it makes beside this one its mode.
        private::own(&path).map_err(|e| fail(e.to_string()))?;
        let (connection, (events, bytes)) =
            open(&path).map_err(|e| match e.sqlite_error_code() {
                Some(rusqlite::ErrorCode::DatabaseBusy) => {
                    fail("another twintrack uses it; give each its own state folder".into())
                }
                Some(rusqlite::ErrorCode::NotADatabase | rusqlite::ErrorCode::DatabaseCorrupt) => {
                    fail(format!("{e}; move it away to begin anew"))
                }
                _ => fail(e.to_string()),
            })?;
        if events > 0 {
            tracing::warn!(
                sink = name,
                events,
                "events of an earlier run wait to be delivered"
            );
        }
        let counts = SpoolCounts {
            events: events.into(),
            bytes: bytes.into(),
            ..SpoolCounts::default()
        };
        let now = Instant::now();
        let letters = Mutex::new(DeadLetters::new(state, name));
        let db = Mutex::new(Db {
            connection,
            looked: now.checked_sub(LOOK).unwrap_or(now),
            told: None,
            told_refused: None,
        });
        Ok(Arc::new(Spool {
            name: name.into(),
            path,
            db,
            letters,
            limits,
            news: Notify::new(),
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

    /// Makes a change whole or not at all. The counts follow once it is committed; after an error
    /// they are read from the queue, so that they never tell of what did not happen.
    fn change(
        &self,
        db: &mut Db,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<Change>,
    ) -> rusqlite::Result<u64> {
        let changed = db.connection.transaction().and_then(|t| {
            let change = work(&t)?;
            t.commit().map(|()| change)
        });
        let (events, bytes) = (&self.counts.events, &self.counts.bytes);
        match changed {
            Ok((more, longer)) => {
                events.store(
                    events.load(Ordering::Relaxed).saturating_add_signed(more),
                    Ordering::Relaxed,
                );
                bytes.store(
                    bytes.load(Ordering::Relaxed).saturating_add_signed(longer),
                    Ordering::Relaxed,
                );
                Ok(more.unsigned_abs())
            }
            Err(e) => {
                if let Ok((n, length)) = sums(&db.connection) {
                    events.store(n, Ordering::Relaxed);
                    bytes.store(length, Ordering::Relaxed);
                }
                Err(e)
            }
        }
    }

    /// Puts an event in. A disk that fails loses it, and the loss is counted and told: cameras do not stop for it.
    pub fn push(&self, kind: EventKind, camera: &str, body: &[u8]) {
        let mut db = self.lock();
        let at = seconds_now();
        let put = self.change(&mut db, |t| {
            t.prepare_cached("INSERT INTO events (at, kind, camera, body) VALUES (?, ?, ?, ?)")?
                .execute(params![at, kind as u8, camera, body])?;
            Ok((1, body.len() as i64))
        });
        match put {
            Ok(_) => self.trim(&mut db, at),
            Err(e) => self.lost(&mut db, 1, &e.to_string()),
        }
        drop(db);
        self.news.notify_one();
    }

    fn lost(&self, db: &mut Db, events: u64, why: &str) {
        self.counts.dropped.fetch_add(events, Ordering::Relaxed);
        if db.told.is_none_or(|at| at.elapsed() > TELL) {
            db.told = Some(Instant::now());
            let dropped = self.counts.dropped.load(Ordering::Relaxed);
            tracing::error!(sink = %self.name, dropped, why, "events are lost");
        }
    }

    /// Lets the oldest go where there are too many, or they are too old.
    fn trim(&self, db: &mut Db, now: f64) {
        if db.looked.elapsed() >= LOOK {
            db.looked = Instant::now();
            let old = now - self.limits.age;
            let gone = self.change(db, |t| {
                remove(
                    t,
                    "DELETE FROM events WHERE at < ? RETURNING length(body)",
                    [old],
                )
            });
            self.tidied(db, gone, "they are too old");
        }
        while self.counts.bytes.load(Ordering::Relaxed) > self.limits.bytes {
            let oldest = "DELETE FROM events WHERE place IN (SELECT place FROM events ORDER BY place LIMIT 32) RETURNING length(body)";
            let gone = self.change(db, |t| remove(t, oldest, []));
            if self.tidied(
                db,
                gone,
                "the receiver has been away for so long that the spool is full",
            ) == 0
            {
                break;
            }
        }
    }

    fn tidied(&self, db: &mut Db, gone: rusqlite::Result<u64>, why: &str) -> u64 {
        let gone = gone.unwrap_or_else(|e| {
            tracing::error!(sink = %self.name, error = %e, "the spool cannot be tidied; this is tried again");
            0
        });
        if gone > 0 {
            self.lost(db, gone, why);
        }
        gone
    }

    /// The next events behind `place` (0 for the first), in the order in which they came: at most
    /// so many, and of at most so many bytes together, but one at least where there is one.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn after(&self, place: i64, most: usize, bytes: usize) -> Result<Vec<Kept>, SinkError> {
        let read = |connection: &Connection| -> rusqlite::Result<Vec<Kept>> {
            let mut select = connection.prepare_cached("SELECT place, kind, camera, body FROM events WHERE place > ? ORDER BY place LIMIT ?")?;
            let mut rows = select.query(params![place, most as i64])?;
            let (mut events, mut sum) = (Vec::new(), 0);
            while let Some(r) = rows.next()? {
                let kind = EventKind::ALL[usize::from(r.get::<_, u8>(1)?).min(2)];
                let event = Kept {
                    place: r.get(0)?,
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
        read(&self.lock().connection).map_err(|e| self.fail(&e))
    }

    /// The receiver has these events: they leave the queue, all or none.
    ///
    /// # Errors
    /// When the disk fails; the events are still there.
    pub fn acknowledge(&self, places: &[i64]) -> Result<(), SinkError> {
        let gone = self.change(&mut self.lock(), |t| {
            places.iter().try_fold((0, 0), |(events, bytes), place| {
                let (e, b) = remove(
                    t,
                    "DELETE FROM events WHERE place = ? RETURNING length(body)",
                    [place],
                )?;
                Ok((events + e, bytes + b))
            })
        });
        self.counts
            .delivered
            .fetch_add(gone.map_err(|e| self.fail(&e))?, Ordering::Relaxed);
        Ok(())
    }

    /// The receiver refuses this event for good: it goes to the dead-letter file, is counted and
    /// told. Where that file cannot be written the event is lost, and counted as such: it must not
    /// stand in the way of the others.
    ///
    /// # Errors
    /// When the disk fails; the event is still there.
    pub fn refuse(&self, place: i64, reason: &str) -> Result<(), SinkError> {
        let mut db = self.lock();
        let body = "SELECT body FROM events WHERE place = ?";
        let body: Option<Vec<u8>> = db
            .connection
            .query_row(body, [place], |r| r.get(0))
            .optional()
            .map_err(|e| self.fail(&e))?;
        let Some(body) = body else { return Ok(()) }; // too old meanwhile
        let mut letters = self.letters.lock().unwrap_or_else(PoisonError::into_inner);
        let mut written = Ok(());
        // The letter before the commit: a sudden end between the two leaves the event twice, not
        // lost.
        let gone = self.change(&mut db, |t| {
            let change = remove(
                t,
                "DELETE FROM events WHERE place = ? RETURNING length(body)",
                [place],
            )?;
            written = letters.keep(&self.name, reason, &body);
            Ok(change)
        });
        gone.map_err(|e| self.fail(&e))?;
        if let Err(e) = written {
            self.lost(
                &mut db,
                1,
                &format!(
                    "the receiver refuses them ({reason}), and {} cannot be written: {e}",
                    letters.path().display()
                ),
            );
            return Ok(());
        }
        let refused = 1 + self.counts.refused.fetch_add(1, Ordering::Relaxed);
        if db.told_refused.is_none_or(|at| at.elapsed() > TELL) {
            db.told_refused = Some(Instant::now());
            let file = letters.path().display();
            tracing::error!(sink = %self.name, refused, reason, %file, "the receiver refuses an event for good; it is kept in the dead-letter file");
        }
        Ok(())
    }

    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.counts.events.load(Ordering::Relaxed) == 0
    }

    /// Returns when an event has been put in since the last time it returned.
    pub async fn news(&self) {
        self.news.notified().await;
    }
}

fn open(path: &Path) -> rusqlite::Result<(Connection, (u64, u64))> {
    let connection = Connection::open(path)?;
    // In exclusive mode the lock comes with the first write and stays.
    connection.execute_batch(
        "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA journal_size_limit = 4194304;
         CREATE TABLE IF NOT EXISTS events (place INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, kind INTEGER NOT NULL, camera TEXT NOT NULL, body BLOB NOT NULL);
         BEGIN IMMEDIATE; COMMIT;",
    )?;
    let sums = sums(&connection)?;
    Ok((connection, sums))
}

/// Events in the queue, and their bytes.
fn sums(connection: &Connection) -> rusqlite::Result<(u64, u64)> {
    connection.query_row(
        "SELECT count(*), coalesce(sum(length(body)), 0) FROM events",
        [],
        |r| Ok((r.get(0)?, r.get(1)?)),
    )
}

/// Removes events; tells how many, and their bytes, as what is added.
fn remove(
    t: &Transaction<'_>,
    sql: &str,
    params: impl rusqlite::Params,
) -> rusqlite::Result<Change> {
    let mut delete = t.prepare_cached(sql)?;
    let mut rows = delete.query(params)?;
    let mut change = (0, 0);
    while let Some(r) = rows.next()? {
        change = (change.0 - 1, change.1 - r.get::<_, i64>(0)?);
    }
    Ok(change)
}

fn seconds_now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}

#[cfg(test)]
impl Spool {
    /// From now on a removal of this event fails when it is committed, as on a disk that fails;
    /// without an event none does.
    pub(crate) fn fail_removal_of(&self, place: Option<i64>) {
        let pins = "PRAGMA foreign_keys = ON; DROP TABLE IF EXISTS pins;
                    CREATE TABLE pins (place INTEGER REFERENCES events (place) DEFERRABLE INITIALLY DEFERRED);";
        let db = self.lock();
        db.connection.execute_batch(pins).expect("a table");
        if let Some(place) = place {
            db.connection
                .execute("INSERT INTO pins VALUES (?)", [place])
                .expect("a row");
        }
    }
}

#[cfg(test)]
mod tests;
