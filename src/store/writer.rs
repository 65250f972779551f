//! The thread that writes the history: batches of changes in one transaction each, and the
//! deletion of old data between them.
//!
//! An unavailable database is tried again with growing pauses; meanwhile changes wait in the queue,
//! and those for which it has no room are dropped and counted.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::clock;
use crate::sink::outage_log::OutageLog;
use crate::store::config::{HistoryConfig, Location};
use crate::store::counts::HistoryCounts;
use crate::store::database::{Database, Dialect, empty_log, lock, transaction};
use crate::store::error::StoreError;
use crate::store::queue::Queue;
use crate::store::retention::Retention;
use crate::store::rows::{Change, Picture};
use crate::store::write::{NameChanges, Rows, end_abandoned};
use crate::store::{jpeg, lease_order};
use crate::time::Seconds;
use crate::trajectory::RunId;

/// Most changes in a transaction.
const MOST: usize = 512;
/// How long the writer waits for more changes after the first.
const GATHER: Duration = Duration::from_secs(1);
/// Back-off between attempts: first and longest pause.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// Interval of the run's heartbeat.
const ALIVE: Duration = Duration::from_secs(10);
/// A run of another process without a heartbeat for this long, in seconds, counts as ended.
const DEAD: f64 = 60.0;
/// Interval between checks of age.
const CHECK: Duration = Duration::from_secs(60);
/// Interval between attempts to empty the write-ahead log.
const EMPTY_LOG: Duration = Duration::from_secs(10);
/// Interval between checks of size: of SQLite, and of PostgreSQL, whose check reads all tables.
const CHECK_SIZE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(600));

/// What the writer shares with the sink and the readers.
#[derive(Debug)]
pub(super) struct Shared {
    pub location: Location,
    pub config: HistoryConfig,
    pub run: RunId,
    pub queue: Queue,
    pub counts: HistoryCounts,
    /// Locked by the writer during a transaction, and while an identity is renamed or deleted. So
    /// a track is either in the tables before the change, or written with regard to it.
    pub names: Mutex<NameChanges>,
    /// Whether the write-ahead log of SQLite may hold rows of a deleted identity. The writer then
    /// empties it, when no reader prevents it. True at first, because of a killed run.
    pub log_to_empty: AtomicBool,
    /// The shutdown, if it has begun.
    pub shutdown: Mutex<Option<Shutdown>>,
}

/// When to give up at shutdown.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shutdown {
    pub deadline: Instant,
    /// Duration from the start of the shutdown to the deadline.
    pub timeout: Duration,
}

impl Shared {
    fn is_overdue(&self) -> bool {
        let shutdown = *self.shutdown.lock().unwrap_or_else(PoisonError::into_inner);
        shutdown.is_some_and(|s| Instant::now() >= s.deadline)
    }
}

/// The writer's state.
pub(super) struct Writer {
    shared: Arc<Shared>,
    db: Option<Box<dyn Database>>,
    /// Whether the tracks of earlier runs have been marked as ended. Done once: after an outage of
    /// the database, other processes may not have written their heartbeat yet.
    begun: bool,
    rows: Rows,
    retention: Retention,
    log: OutageLog,
    pause: Duration,
    last_alive: Option<Instant>,
    /// When the database failed last.
    last_failure: Option<Instant>,
    last_check: Option<Instant>,
    last_size: Option<Instant>,
    /// When the writer last tried to empty the write-ahead log.
    last_emptying: Option<Instant>,
}

impl Writer {
    /// A writer; `db` is a prepared connection, if there is one yet.
    pub fn new(shared: Arc<Shared>, db: Option<Box<dyn Database>>) -> Self {
        Writer {
            retention: Retention::new(&shared.config),
            shared,
            db,
            begun: false,
            rows: Rows::default(),
            log: OutageLog::default(),
            pause: BACKOFF.0,
            last_alive: None,
            last_failure: None,
            last_check: None,
            last_size: None,
            last_emptying: None,
        }
    }

    /// Writes until the queue is closed and empty.
    pub fn run(mut self) {
        let shared = self.shared.clone();
        while !shared.queue.is_over() {
            let mut batch = shared.queue.take(MOST, GATHER, self.idle());
            batch.iter_mut().for_each(encode);
            if !batch.is_empty() {
                self.write(&batch);
            }
            self.maintain();
            self.empty_log();
        }
    }

    /// How long to wait for a first change: not at all while there are rows to delete.
    fn idle(&self) -> Duration {
        if self.retention.is_pending() && self.db.is_some() {
            Duration::ZERO
        } else {
            GATHER
        }
    }

    /// Writes a batch, until it is committed or must be given up, and settles it.
    fn write(&mut self, batch: &[Change]) {
        loop {
            let error = match self.attempt(batch) {
                Ok(()) => {
                    let n = batch.len() as u64;
                    self.shared.counts.stored.fetch_add(n, Ordering::Relaxed);
                    break;
                }
                Err(e) => e,
            };
            if !error.is_transient() {
                // A change of the batch is refused. The batch is halved until that change is alone,
                // so that the others are written.
                if let [_] = batch {
                    self.shared.counts.refused.fetch_add(1, Ordering::Relaxed);
                    tracing::error!(%error, "the history refuses a change, which is dropped");
                    break;
                }
                batch
                    .chunks(batch.len().div_ceil(2))
                    .for_each(|half| self.write(half));
                return;
            }
            self.failed(&error);
            if !self.rest() {
                let n = batch.len() as u64;
                self.shared.counts.shutdown.fetch_add(n, Ordering::Relaxed);
                break;
            }
        }
        self.shared.queue.settle(batch.len());
    }

    /// Opens the database if necessary, and commits the batch.
    fn attempt(&mut self, batch: &[Change]) -> Result<(), StoreError> {
        if self.db.is_none() {
            // Every error counts as temporary: its cause may be repaired while the program runs.
            let opened = self.shared.location.prepare();
            self.db = Some(opened.map_err(|e| StoreError::Unavailable(e.to_string()))?);
            self.last_alive = None;
        }
        let Some(db) = &mut self.db else {
            return Err(StoreError::Unavailable("it is not open".into()));
        };
        if !self.begun {
            begin(&mut **db, self.shared.run)?;
            self.begun = true;
        }
        let alive = is_due(self.last_alive, ALIVE);
        let (rows, run) = (&mut self.rows, self.shared.run);
        let names = self.shared.names.lock();
        let names = names.unwrap_or_else(PoisonError::into_inner);
        let written = transaction(&mut **db, |db| {
            // First, so that no row is locked while this waits.
            if batch.iter().any(Change::needs_turn) {
                lock(db, lease_order::LOCK)?;
            }
            if alive {
                rows.alive(db, run, clock::now())?;
            }
            batch
                .iter()
                .try_for_each(|change| rows.apply(db, change, &names))
        });
        drop(names);
        if let Err(e) = written {
            self.rows.forget();
            return Err(e);
        }
        if alive {
            self.last_alive = Some(Instant::now());
        }
        self.pause = BACKOFF.0;
        let counts = &self.shared.counts;
        counts
            .outdated
            .store(self.rows.outdated(), Ordering::Relaxed);
        counts.commits.fetch_add(1, Ordering::Relaxed);
        counts.connected.store(true, Ordering::Relaxed);
        if let Some(outage) = self.log.succeeded(Instant::now()) {
            tracing::info!(seconds = outage.as_secs(), "the history is written again");
        }
        Ok(())
    }

    /// Counts and logs a failure, and closes the connection; the next attempt opens a new one.
    fn failed(&mut self, error: &StoreError) {
        let counts = &self.shared.counts;
        counts.failures.fetch_add(1, Ordering::Relaxed);
        counts.connected.store(false, Ordering::Relaxed);
        if self.log.failed(&error.to_string(), Instant::now()) {
            let database = self.shared.location.shown();
            tracing::warn!(%database, %error, "the history cannot be written; changes wait in memory");
        }
        self.last_failure = Some(Instant::now());
        self.db = None;
        self.rows.forget();
    }

    /// Pauses before the next attempt; false if the shutdown's timeout is over.
    fn rest(&mut self) -> bool {
        let until = Instant::now() + self.pause.mul_f64(0.8 + 0.4 * fastrand::f64());
        self.pause = (2 * self.pause).min(BACKOFF.1);
        while Instant::now() < until {
            if self.shared.is_overdue() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        !self.shared.is_overdue()
    }

    /// Records that the run is alive, and deletes a little of what is too old. Opens the database
    /// again after a failure, also while there is nothing to write.
    fn maintain(&mut self) {
        if is_due(self.last_alive, ALIVE)
            && is_due(self.last_failure, ALIVE)
            && let Err(e) = self.attempt(&[])
        {
            self.failed(&e);
        }
        let Some(db) = &mut self.db else { return };
        if !self.retention.is_pending() && !is_due(self.last_check, CHECK) {
            return;
        }
        self.last_check = Some(Instant::now());
        let interval = match db.dialect() {
            Dialect::Sqlite => CHECK_SIZE.0,
            Dialect::Postgres => CHECK_SIZE.1,
        };
        let check_size = is_due(self.last_size, interval);
        if check_size {
            self.last_size = Some(Instant::now());
        }
        match self.retention.step(&mut **db, clock::now(), check_size) {
            Ok(removed) => self.shared.counts.add_removed(removed),
            Err(e) => self.failed(&e),
        }
    }

    /// Tries to empty the write-ahead log, if that is to be done.
    fn empty_log(&mut self) {
        let Some(db) = &mut self.db else { return };
        let to_empty = &self.shared.log_to_empty;
        if !is_due(self.last_emptying, EMPTY_LOG) || !to_empty.swap(false, Ordering::Relaxed) {
            return;
        }
        self.last_emptying = Some(Instant::now());
        let emptied = empty_log(&mut **db);
        if !matches!(emptied, Ok(true)) {
            to_empty.store(true, Ordering::Relaxed);
        }
        if let Err(e) = emptied {
            self.failed(&e);
        }
    }
}

/// Whether `last` is at least `interval` ago.
fn is_due(last: Option<Instant>, interval: Duration) -> bool {
    last.is_none_or(|at| at.elapsed() >= interval)
}

/// Ends the tracks of earlier runs that were killed. An SQLite file has one writer, so that all
/// earlier runs are over.
fn begin(db: &mut dyn Database, own: RunId) -> Result<(), StoreError> {
    let now = clock::now();
    let since = match db.dialect() {
        Dialect::Sqlite => now,
        Dialect::Postgres => now.plus(Seconds(-DEAD)),
    };
    let ended = transaction(db, |db| end_abandoned(db, own, since))?;
    if ended > 0 {
        tracing::info!(
            tracks = ended,
            "tracks of an earlier run that was killed are ended"
        );
    }
    Ok(())
}

/// Encodes the crops of a track. One that cannot be encoded is left out.
fn encode(change: &mut Change) {
    let Change::Track(track) = change else { return };
    track.crops.retain_mut(|crop| {
        let Picture::Pixels(image) = &crop.picture else {
            return true;
        };
        match jpeg::encode(image) {
            Ok(bytes) => {
                crop.picture = Picture::Jpeg(bytes);
                true
            }
            Err(reason) => {
                tracing::error!(reason, "cannot encode a crop, which is dropped");
                false
            }
        }
    });
}
