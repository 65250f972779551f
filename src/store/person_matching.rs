//! Gives ended tracks the number of their person across cameras ([`crate::multi_camera`]).
//!
//! The tables are authoritative: the matcher in memory is built from the decided tracks of the last
//! `remember` seconds, and rebuilt after an error, so that a number, once given, never changes. One
//! process at a time does this for a database.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::clock;
use crate::multi_camera::{CameraTrack, Decision, Matcher, MultiCameraConfig, Topology};
use crate::sink::outage_log::OutageLog;
use crate::store::config::Location;
use crate::store::database::{Database, Dialect, Row, Value, transaction};
use crate::store::error::StoreError;
use crate::store::rows::milliseconds;
use crate::time::{Seconds, Timestamp};
use crate::track::similarity::Calibration;

/// Hash and calibration of an embedder.
pub type CalibratedEmbedder = (Arc<str>, Calibration);

/// Pause when there is no new track, and after an error.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));
/// Most tracks that are read at once.
const MOST: i64 = 500;
/// Interval at which the learned topology is stored.
const SAVE_EVERY: Duration = Duration::from_secs(60);
/// Key of the lock of the process that matches, in PostgreSQL; an SQLite file has one process.
const LOCK: i64 = 0x7477_7065_6f70_6c65;
/// Columns of [`NewTrack`], of the tables embeddings `e`, tracks `t`, cameras `c`, embedders `b`.
const COLUMNS: &str = "e.id, t.id, c.name, t.first_time, t.last_time, b.hash, e.embedding, t.person
    FROM embeddings e JOIN tracks t ON t.id = e.track_id JOIN cameras c ON c.id = t.camera_id
    JOIN embedders b ON b.id = e.embedder_id";

/// The thread that matches. It ends when this is dropped.
#[derive(Debug)]
pub struct PersonMatching {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl PersonMatching {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the settings are invalid, or the thread cannot be started.
    pub(super) fn start(
        location: Location,
        config: MultiCameraConfig,
        embedders: Vec<CalibratedEmbedder>,
    ) -> Result<Self, StoreError> {
        config
            .validate()
            .map_err(|e| StoreError::Settings(e.to_string()))?;
        let stop = Arc::<AtomicBool>::default();
        let work = Work {
            location,
            config,
            embedders,
            stop: stop.clone(),
        };
        let thread = std::thread::Builder::new().name("people".into());
        let thread = thread.spawn(move || work.run());
        let thread = thread.map_err(|e| StoreError::Settings(format!("no thread: {e}")))?;
        Ok(PersonMatching {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for PersonMatching {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // it has logged its errors
        }
    }
}

struct Work {
    location: Location,
    config: MultiCameraConfig,
    embedders: Vec<CalibratedEmbedder>,
    stop: Arc<AtomicBool>,
}

impl Work {
    fn run(self) {
        let mut log = OutageLog::default();
        while !self.stopped() {
            let Err(error) = self.work(&mut log) else {
                return;
            };
            if log.failed(&error.to_string(), Instant::now()) {
                let database = self.location.shown();
                tracing::warn!(%database, %error, "cannot match people across cameras");
            }
            self.pause(PAUSE.1);
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn pause(&self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until && !self.stopped() {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Works over one connection, until the stop.
    fn work(&self, log: &mut OutageLog) -> Result<(), StoreError> {
        let mut db = self.location.prepare()?;
        while !lock(&mut *db)? {
            self.pause(PAUSE.1); // another process matches
            if self.stopped() {
                return Ok(());
            }
        }
        let mut matching = Matching::load(
            &mut *db,
            self.config.clone(),
            self.embedders.clone(),
            clock::now(),
        )?;
        while !self.stopped() {
            let read = matching.step(&mut *db, clock::now())?;
            log.succeeded(Instant::now());
            if read < MOST as usize {
                self.pause(PAUSE.0);
            }
        }
        matching.save(&mut *db)
    }
}

/// Takes the lock until the connection ends; false if another process has it.
fn lock(db: &mut dyn Database) -> Result<bool, StoreError> {
    match db.dialect() {
        Dialect::Sqlite => Ok(true),
        Dialect::Postgres => {
            let sql = "SELECT CAST(pg_try_advisory_lock(CAST(? AS BIGINT)) AS INT)";
            let rows = db.query(sql, &[LOCK.into()])?;
            rows.first().map_or(Ok(false), |row| Ok(row.int(0)? != 0))
        }
    }
}

/// The matcher, and what it has read.
struct Matching {
    matcher: Matcher,
    config: MultiCameraConfig,
    /// Key of the last embedding that was read. Embeddings are committed in the order of their keys
    /// ([`crate::store::rows::Change::needs_turn`]).
    cursor: i64,
    saved: Instant,
}

/// A track with its embedding.
struct NewTrack {
    cursor: i64,
    track: CameraTrack,
    /// The person, if it was decided before.
    person: Option<i64>,
}

fn new_track(row: &Row) -> Result<NewTrack, StoreError> {
    let seconds = |milliseconds: i64| Seconds(milliseconds as f64 / 1000.0);
    Ok(NewTrack {
        cursor: row.int(0)?,
        track: CameraTrack {
            key: row.int(1)? as u64,
            camera: row.text(2)?.into(),
            first: seconds(row.int(3)?),
            last: seconds(row.int(4)?),
            embedder: row.text(5)?.into(),
            embedding: row.vector(6)?,
        },
        person: row.int_if_any(7)?,
    })
}

impl Matching {
    /// Reads the learned topology, and the tracks of the last `remember` seconds that have a person
    /// number.
    fn load(
        db: &mut dyn Database,
        config: MultiCameraConfig,
        embedders: Vec<CalibratedEmbedder>,
        now: Timestamp,
    ) -> Result<Self, StoreError> {
        let learned = db.query("SELECT state FROM matching", &[])?;
        let topology: Topology = match learned.first() {
            Some(row) => serde_json::from_str(&row.text(0)?)
                .inspect_err(|error| {
                    tracing::warn!(%error, "what was learned about the cameras cannot be read");
                })
                .unwrap_or_default(),
            None => Topology::default(),
        };
        let highest = db.query("SELECT coalesce(max(person), 0) FROM tracks", &[])?;
        let highest = highest.first().map_or(Ok(0), |row| row.int(0))?;
        let mut matcher = Matcher::new(config.clone(), embedders)
            .with_topology(topology)
            .with_people_after(highest as u64);
        let oldest = milliseconds(now.plus(Seconds(-config.remember)));
        let sql = format!(
            "SELECT {COLUMNS} WHERE t.person IS NOT NULL AND t.last_time >= ?
             ORDER BY t.last_time, t.id"
        );
        for row in db.query(&sql, &[oldest.into()])? {
            let NewTrack { track, person, .. } = new_track(&row)?;
            // A track of an embedder that is not in use is not compared.
            if let Some(person) = person {
                let _ = matcher.remember(&track, person as u64);
            }
        }
        Ok(Matching {
            matcher,
            config,
            cursor: 0,
            saved: Instant::now(),
        })
    }

    /// Reads new tracks, and stores the decisions that are due. Returns the number of tracks read.
    fn step(&mut self, db: &mut dyn Database, now: Timestamp) -> Result<usize, StoreError> {
        let margin = self.config.remember + self.config.delay;
        let oldest = milliseconds(now.plus(Seconds(-margin)));
        let sql = format!(
            "SELECT {COLUMNS} WHERE e.id > ? AND t.person IS NULL AND t.ended = 1
             AND t.last_time >= ? ORDER BY e.id LIMIT ?"
        );
        let rows = db.query(&sql, &[self.cursor.into(), oldest.into(), MOST.into()])?;
        let mut decisions = Vec::new();
        for row in &rows {
            let NewTrack { cursor, track, .. } = new_track(row)?;
            self.cursor = cursor;
            match self.matcher.push(track) {
                Ok(due) => decisions.extend(due),
                Err(reason) => tracing::debug!(%reason, "a track gets no person"),
            }
        }
        let seconds = milliseconds(now) as f64 / 1000.0;
        decisions.extend(self.matcher.advance(Seconds(seconds)));
        self.store(db, &decisions)?;
        if self.saved.elapsed() >= SAVE_EVERY {
            self.save(db)?;
        }
        Ok(rows.len())
    }

    fn store(&self, db: &mut dyn Database, decisions: &[Decision]) -> Result<(), StoreError> {
        if decisions.is_empty() {
            return Ok(());
        }
        transaction(db, |db| {
            decisions.iter().try_for_each(|d| {
                db.execute(
                    "UPDATE tracks SET person = ?, person_probability = ? WHERE id = ?",
                    &[
                        (d.person as i64).into(),
                        f64::from(d.probability).into(),
                        (d.key as i64).into(),
                    ],
                )
                .map(drop)
            })
        })
    }

    /// Stores the learned topology.
    fn save(&mut self, db: &mut dyn Database) -> Result<(), StoreError> {
        self.saved = Instant::now();
        let text = serde_json::to_string(self.matcher.topology())
            .map_err(|e| StoreError::Value(format!("what was learned: {e}")))?;
        db.execute(
            "INSERT INTO matching (id, state) VALUES (1, ?)
             ON CONFLICT (id) DO UPDATE SET state = excluded.state",
            &[Value::Text(text)],
        )?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::migrations;
    use crate::store::rows::{Change, TrackRow, timestamp};
    use crate::store::sqlite::Sqlite;
    use crate::store::write::{NameChanges, Rows};
    use crate::trajectory::RunId;

    const START: i64 = 1_800_000_000_000;

    fn at(seconds: f64) -> Timestamp {
        timestamp(START + (1000.0 * seconds) as i64)
    }

    /// A track of a person, whose embedding points in a direction of its own.
    fn track(camera: &str, id: u64, times: (f64, f64), person: usize) -> Change {
        let mut embedding = vec![0.0; 8];
        embedding[person] = 1.0;
        Change::Track(Box::new(TrackRow {
            began: at(times.0),
            run: RunId::nil(),
            camera: camera.into(),
            track: id,
            pts: times,
            time: (at(times.0), at(times.1)),
            clock: None,
            hits: 9,
            ended: true,
            frame: (640, 480),
            path: None,
            path_error: None,
            boxes: Vec::new(),
            identity: None,
            embedder: Some("net 0123abcd".into()),
            embedding: Some(embedding),
            crops: Vec::new(),
        }))
    }

    fn write(db: &mut dyn Database, changes: &[Change]) {
        let mut rows = Rows::default();
        for change in changes {
            rows.apply(db, change, &NameChanges::new())
                .expect("written");
        }
    }

    fn matching(db: &mut dyn Database, now: f64) -> Matching {
        let embedders = vec![(
            "0123abcd".into(),
            Calibration {
                slope: 20.0,
                threshold: 0.5,
            },
        )];
        let config = MultiCameraConfig::default().with_delay(5.0);
        Matching::load(db, config, embedders, at(now)).expect("loaded")
    }

    /// The persons of all tracks, by their key.
    fn persons(db: &mut dyn Database) -> Vec<Option<i64>> {
        let rows = db.query("SELECT person FROM tracks ORDER BY id", &[]);
        let rows = rows.expect("readable");
        rows.iter()
            .map(|r| r.int_if_any(0).expect("a number"))
            .collect()
    }

    #[test]
    fn tracks_get_persons_that_never_change_also_after_a_restart() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let mut db = Sqlite::open(file.path()).expect("opened");
        migrations::apply(&mut db).expect("migrated");
        let first = [
            track("a", 1, (0.0, 10.0), 0),
            track("a", 2, (1.0, 11.0), 1),
            track("b", 3, (20.0, 30.0), 0),
        ];
        write(&mut db, &first);
        let mut running = matching(&mut db, 32.0);
        assert_eq!(running.step(&mut db, at(32.0)).expect("read"), 3);
        let early = persons(&mut db);
        assert_eq!(early[2], None, "not decided yet");
        running.step(&mut db, at(60.0)).expect("decided");
        let decided = persons(&mut db);
        assert!(
            decided[0].is_some() && decided[0] == decided[2],
            "{decided:?}"
        );
        assert_ne!(decided[0], decided[1]);
        running.save(&mut db).expect("saved");

        // After a restart the same people are known, and others get new numbers.
        let more = [
            track("b", 4, (70.0, 80.0), 1),
            track("a", 5, (71.0, 81.0), 2),
        ];
        write(&mut db, &more);
        let mut again = matching(&mut db, 82.0);
        assert_eq!(again.step(&mut db, at(200.0)).expect("read"), 2);
        let all = persons(&mut db);
        assert_eq!(all[..3], decided[..]);
        assert_eq!(all[3], decided[1]);
        let known: Vec<_> = decided.iter().flatten().collect();
        assert!(all[4].is_some_and(|p| !known.contains(&&p)), "{all:?}");
        assert_eq!(
            again.step(&mut db, at(201.0)).expect("read"),
            0,
            "each once"
        );
    }
}
