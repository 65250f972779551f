//! Events kept on disk until their receiver has them.
//!
//! A queue in an SQLite file (write-ahead log): what was put in survives the end of the process, however sudden; a loss of power may
//! cost the last moments. Bounded in size and age: then the oldest go, and are counted.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::range::{OutOfRange, within};
use crate::sink::sink::SinkError;

/// What kind of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Where everybody is in a frame.
    Trajectory,
    /// A track has ended.
    TrackEnded,
    /// A camera has come or gone.
    CameraStatus,
}

const KINDS: [Kind; 3] = [Kind::Trajectory, Kind::TrackEnded, Kind::CameraStatus];

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
        SpoolLimits { bytes: 256 << 20, age: 86400.0 }
    }
}

impl SpoolLimits {
    /// Refuses values outside their ranges.
    ///
    /// # Errors
    /// The first such value.
    pub fn validate(&self, section: &str) -> Result<(), OutOfRange> {
        within(&format!("{section}.spool.bytes"), self.bytes as f64, 65536.0, 1e15)?;
        within(&format!("{section}.spool.age"), self.age, 1.0, 1e9)
    }
}

/// An event that waits.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    /// Its place in the queue.
    pub place: i64,
    /// Its kind.
    pub kind: Kind,
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
    /// Attempts that failed.
    pub failures: AtomicU64,
    /// The receiver is reached.
    pub connected: AtomicBool,
}

/// The queue. Shared by who puts in and who takes out.
#[derive(Debug)]
pub struct Spool {
    name: String,
    db: Mutex<Db>,
    limits: SpoolLimits,
    news: Notify,
    /// What has become of the events.
    pub counts: SpoolCounts,
}

#[derive(Debug)]
struct Db {
    connection: Connection,
    looked: Instant,
    /// When a failure was last told.
    told: Option<Instant>,
}

/// How often old events are looked for, and at most how often a failure is told.
const LOOK: Duration = Duration::from_secs(1);
const TELL: Duration = Duration::from_secs(10);

impl Spool {
    /// Opens the queue of the sink called `name` in the folder `state`; events that an earlier run has left are in it.
    ///
    /// # Errors
    /// When the file cannot be made, is none of ours, or another process has it open.
    pub fn open(state: &Path, name: &str, limits: SpoolLimits) -> Result<Arc<Spool>, SinkError> {
        let path = state.join(format!("{name}.spool"));
        let fail = |reason: String| SinkError::Spool { path: path.clone(), reason };
        std::fs::create_dir_all(state).map_err(|e| fail(e.to_string()))?;
        let open = || -> Result<(Connection, (u64, u64)), rusqlite::Error> {
            let connection = Connection::open(&path)?;
            // In exclusive mode the lock comes with the first write and stays.
            connection.execute_batch(
                "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA journal_size_limit = 4194304;
                 CREATE TABLE IF NOT EXISTS events (place INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, kind INTEGER NOT NULL, camera TEXT NOT NULL, body BLOB NOT NULL);
                 BEGIN IMMEDIATE; COMMIT;",
            )?;
            let sums = connection.query_row("SELECT count(*), coalesce(sum(length(body)), 0) FROM events", [], |r| Ok((r.get(0)?, r.get(1)?)))?;
            Ok((connection, sums))
        };
        let (connection, (events, bytes)) = open().map_err(|e| match e.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DatabaseBusy) => fail("another twintrack uses it; give each its own state folder".into()),
            Some(rusqlite::ErrorCode::NotADatabase | rusqlite::ErrorCode::DatabaseCorrupt) => fail(format!("{e}; move it away to begin anew")),
            _ => fail(e.to_string()),
        })?;
        if events > 0 {
            tracing::warn!(sink = name, events, "events of an earlier run wait to be delivered");
        }
        let counts = SpoolCounts { events: events.into(), bytes: bytes.into(), ..SpoolCounts::default() };
        let now = Instant::now();
        let db = Mutex::new(Db { connection, looked: now.checked_sub(LOOK).unwrap_or(now), told: None });
        Ok(Arc::new(Spool { name: name.into(), db, limits, news: Notify::new(), counts }))
    }

    /// The sink's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn lock(&self) -> MutexGuard<'_, Db> {
        self.db.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts an event in. A disk that fails loses it, and the loss is counted and told: cameras do not stop for it.
    pub fn push(&self, kind: Kind, camera: &str, body: &[u8]) {
        let mut db = self.lock();
        let at = seconds_now();
        let put = db
            .connection
            .prepare_cached("INSERT INTO events (at, kind, camera, body) VALUES (?, ?, ?, ?)")
            .and_then(|mut s| s.execute(params![at, kind as u8, camera, body]));
        match put {
            Ok(_) => {
                self.counts.events.fetch_add(1, Ordering::Relaxed);
                self.counts.bytes.fetch_add(body.len() as u64, Ordering::Relaxed);
                self.trim(&mut db, at);
            }
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
            let old = self.remove(db, "DELETE FROM events WHERE at < ? RETURNING length(body)", params![now - self.limits.age]);
            if old > 0 {
                self.lost(db, old, "they are too old");
            }
        }
        while self.counts.bytes.load(Ordering::Relaxed) > self.limits.bytes {
            let oldest = "DELETE FROM events WHERE place IN (SELECT place FROM events ORDER BY place LIMIT 32) RETURNING length(body)";
            match self.remove(db, oldest, []) {
                0 => break,
                n => self.lost(db, n, "the receiver has been away for so long that the spool is full"),
            }
        }
    }

    /// Removes events; tells how many.
    fn remove(&self, db: &Db, sql: &str, params: impl rusqlite::Params) -> u64 {
        let lengths = db.connection.prepare_cached(sql).and_then(|mut s| s.query_map(params, |r| r.get::<_, u64>(0))?.collect::<Result<Vec<_>, _>>());
        let lengths = lengths.unwrap_or_else(|e| {
            tracing::error!(sink = %self.name, error = %e, "the spool cannot be tidied");
            Vec::new()
        });
        self.counts.events.fetch_sub(lengths.len() as u64, Ordering::Relaxed);
        self.counts.bytes.fetch_sub(lengths.iter().sum(), Ordering::Relaxed);
        lengths.len() as u64
    }

    /// The next events behind `place` (0 for the first), at most so many, in the order in which they came.
    pub fn after(&self, place: i64, most: usize) -> Vec<Kept> {
        let db = self.lock();
        let kept = |r: &rusqlite::Row<'_>| {
            let kind = KINDS[usize::from(r.get::<_, u8>(1)?).min(2)];
            Ok(Kept { place: r.get(0)?, kind, camera: r.get(2)?, body: r.get(3)? })
        };
        let rows = db
            .connection
            .prepare_cached("SELECT place, kind, camera, body FROM events WHERE place > ? ORDER BY place LIMIT ?")
            .and_then(|mut s| s.query_map(params![place, most as i64], kept)?.collect::<Result<Vec<_>, _>>());
        rows.unwrap_or_else(|e| {
            tracing::error!(sink = %self.name, error = %e, "the spool cannot be read");
            Vec::new()
        })
    }

    /// The receiver has these events.
    pub fn done(&self, places: &[i64]) {
        let db = self.lock();
        let removed = db.connection.unchecked_transaction().map(|t| {
            let n: u64 = places.iter().map(|p| self.remove(&db, "DELETE FROM events WHERE place = ? RETURNING length(body)", [p])).sum();
            t.commit().map(|()| n)
        });
        match removed.and_then(|n| n) {
            Ok(n) => {
                self.counts.delivered.fetch_add(n, Ordering::Relaxed);
            }
            Err(e) => tracing::error!(sink = %self.name, error = %e, "the spool cannot be tidied; events may come twice"),
        }
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

fn seconds_now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &Path, limits: SpoolLimits) -> Arc<Spool> {
        Spool::open(dir, "test", limits).expect("a spool")
    }

    fn texts(kept: &[Kept]) -> Vec<String> {
        kept.iter().map(|k| String::from_utf8_lossy(&k.body).into_owned()).collect()
    }

    #[test]
    fn what_was_not_delivered_is_there_after_a_new_start_in_its_order() {
        let dir = tempfile::tempdir().expect("a folder");
        let spool = open(dir.path(), SpoolLimits::default());
        (0..10).for_each(|i| spool.push(Kind::TrackEnded, "cam", format!("event {i}").as_bytes()));
        let first = spool.after(0, 4);
        assert_eq!(texts(&first), ["event 0", "event 1", "event 2", "event 3"]);
        spool.done(&[first[0].place, first[2].place]);
        assert_eq!((spool.counts.events.load(Ordering::Relaxed), spool.counts.delivered.load(Ordering::Relaxed)), (8, 2));
        drop(spool);
        let spool = open(dir.path(), SpoolLimits::default());
        let rest = spool.after(0, 100);
        assert_eq!(texts(&rest), [1, 3, 4, 5, 6, 7, 8, 9].map(|i| format!("event {i}")));
        assert!(rest.iter().all(|k| k.kind == Kind::TrackEnded && k.camera == "cam"));
        spool.push(Kind::Trajectory, "cam", b"new");
        assert_eq!(texts(&spool.after(rest[7].place, 5)), ["new"]);
        spool.done(&spool.after(0, 100).iter().map(|k| k.place).collect::<Vec<_>>());
        assert!(spool.is_empty() && spool.counts.bytes.load(Ordering::Relaxed) == 0);
    }

    #[test]
    fn beyond_its_size_the_oldest_go_and_are_counted() {
        let dir = tempfile::tempdir().expect("a folder");
        let spool = open(dir.path(), SpoolLimits { bytes: 65536, age: 1000.0 });
        (0..200).for_each(|i| spool.push(Kind::Trajectory, "cam", format!("{i:0>1000}").as_bytes()));
        let (events, dropped) = (spool.counts.events.load(Ordering::Relaxed), spool.counts.dropped.load(Ordering::Relaxed));
        assert!((33..=65).contains(&events) && events + dropped == 200, "{events} and {dropped}");
        let left = spool.after(0, 1000);
        assert_eq!((left.len() as u64, texts(&left).last().map(|t| t.trim_start_matches('0').to_string())), (events, Some("199".into())));
    }

    #[test]
    fn what_is_too_old_goes() {
        let dir = tempfile::tempdir().expect("a folder");
        let spool = open(dir.path(), SpoolLimits { bytes: 1 << 20, age: 1.0 });
        spool.push(Kind::Trajectory, "cam", b"old");
        std::thread::sleep(Duration::from_millis(1200));
        spool.push(Kind::Trajectory, "cam", b"new");
        assert_eq!((texts(&spool.after(0, 9)), spool.counts.dropped.load(Ordering::Relaxed)), (vec!["new".into()], 1));
    }

    #[test]
    fn a_spool_in_use_or_no_spool_is_told() {
        let dir = tempfile::tempdir().expect("a folder");
        let _held = open(dir.path(), SpoolLimits::default());
        let e = Spool::open(dir.path(), "test", SpoolLimits::default()).expect_err("in use").to_string();
        assert!(e.contains("another twintrack"), "{e}");
        std::fs::write(dir.path().join("other.spool"), vec![b'x'; 4096]).expect("written");
        let e = Spool::open(dir.path(), "other", SpoolLimits::default()).expect_err("no spool").to_string();
        assert!(e.contains("move it away"), "{e}");
    }
}
