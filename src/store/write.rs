//! Applies changes to the tables. Each statement can be repeated without a change of the result, so
//! that a transaction whose commit is in doubt is applied again.

use std::collections::HashMap;
use std::sync::Arc;

use crate::store::database::{Database, Dialect, Value};
use crate::store::error::StoreError;
use crate::store::event_names;
use crate::store::lease_order::Place;
use crate::store::rows::{
    Change, CropRow, EventKind, EventRow, Picture, Published, TrackRow, milliseconds,
};
use crate::time::{Clock, Timestamp};
use crate::trajectory::{RunId, StatusEvent};

/// Most dimensions of which pgvector makes an index.
const MAX_INDEXED: usize = 2000;

/// Writes changes, and remembers the keys of runs, cameras and embedders.
#[derive(Debug, Default)]
pub struct Rows {
    runs: HashMap<RunId, i64>,
    cameras: HashMap<Arc<str>, i64>,
    embedders: HashMap<(Arc<str>, usize), i64>,
    outdated: u64,
}

/// Renamed and deleted identities since the program started, by the old name. The tracker reports a
/// track under the old name until the track ends.
pub type NameChanges = HashMap<String, NameChange>;

/// A change of an identity.
#[derive(Debug, Clone, PartialEq)]
pub struct NameChange {
    /// The new name; None if the identity was deleted.
    pub name: Option<String>,
    /// The change applies to tracks that began before this time. A later track with the old name
    /// belongs to a new enrolment.
    pub at: Timestamp,
}

/// The hash in an embedder's name and hash: the text after the last space.
pub fn embedder_hash(embedder: &str) -> &str {
    embedder.rsplit(' ').next().unwrap_or(embedder)
}

fn clock_name(clock: Clock) -> &'static str {
    match clock {
        Clock::Arrival => "arrival",
        Clock::Rtcp => "rtcp",
        Clock::Recording => "recording",
    }
}

/// Inserts a track, or updates the columns that its later rows change.
const UPSERT_TRACK: &str = "
    INSERT INTO tracks (run_id, camera_id, track, first_time, last_time, duration, first_pts,
        last_pts, clock, hits, ended, identity, similarity, width, height)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (run_id, camera_id, track) DO UPDATE SET
        last_time = excluded.last_time, duration = excluded.duration,
        last_pts = excluded.last_pts, hits = excluded.hits, ended = excluded.ended,
        identity = excluded.identity, similarity = excluded.similarity
    WHERE excluded.ended >= tracks.ended
    RETURNING id, first_time";

/// Stores the zones of a track. To be run after its row and after each of its events of zones,
/// because either can come first.
const ADD_ZONES: &str = "
    INSERT INTO track_zones (zone, first_time, track_id)
    SELECT DISTINCT e.name, t.first_time, t.id FROM tracks t
    JOIN events e ON e.run_id = t.run_id AND e.camera_id = t.camera_id AND e.track = t.track
    WHERE t.run_id = ? AND t.camera_id = ? AND t.track = ? AND e.kind = 'zone'
    ON CONFLICT (zone, first_time, track_id) DO NOTHING";

impl Rows {
    /// Forgets the remembered keys; to be called after a transaction that was undone.
    pub fn forget(&mut self) {
        *self = Rows {
            outdated: self.outdated,
            ..Rows::default()
        };
    }

    /// Applies a change. Of a track whose identity was deleted, neither name nor embedding nor
    /// crops are stored.
    ///
    /// # Errors
    /// When a statement fails.
    pub fn apply(
        &mut self,
        db: &mut dyn Database,
        change: &Change,
        names: &NameChanges,
    ) -> Result<(), StoreError> {
        let track = match change {
            Change::Status(status) => return self.status(db, status),
            Change::Event(event) => {
                let renamed = self.renamed(db, event, names)?;
                return self.event(db, renamed.as_ref().unwrap_or(event));
            }
            Change::Published(published) => return self.published(db, published, names),
            Change::Track(track) => track,
        };
        let changed = |(name, similarity): &(String, f64)| {
            let change = names.get(name).filter(|c| track.began < c.at)?;
            Some((&change.name, *similarity))
        };
        match track.identity.as_ref().and_then(changed) {
            None => self.track(db, track),
            Some((new, similarity)) => {
                let mut track = TrackRow::clone(track);
                track.identity = new.clone().map(|name| (name, similarity));
                if new.is_none() {
                    track.embedding = None;
                    track.crops.clear();
                }
                self.track(db, &track)
            }
        }
    }

    /// The event with the new name of its person, or without a person who was deleted; None if
    /// nothing changes.
    fn renamed(
        &mut self,
        db: &mut dyn Database,
        event: &EventRow,
        names: &NameChanges,
    ) -> Result<Option<EventRow>, StoreError> {
        let name = (!names.is_empty()).then(|| event_names::name_in(&event.json));
        let Some(name) = name.flatten() else {
            return Ok(None);
        };
        let Some(change) = names.get(&name) else {
            return Ok(None);
        };
        // When the track began, as far as it is known.
        let run = self.run(db, event.run, event.time)?;
        let camera = self.camera(db, &event.camera, event.time)?;
        let track = event.track.unwrap_or_default() as i64;
        let began = db.query(
            "SELECT first_time FROM tracks WHERE run_id = ? AND camera_id = ? AND track = ?",
            &[run.into(), camera.into(), track.into()],
        )?;
        let began = began
            .first()
            .map_or(Ok(milliseconds(event.time)), |row| row.int(0))?;
        if began >= milliseconds(change.at) {
            return Ok(None);
        }
        let json = event_names::with_name(&event.json, &name, change.name.as_deref());
        Ok(json.map(|json| EventRow {
            json,
            ..event.clone()
        }))
    }

    /// Applies a change of a fleet's stream, if its lease still counts at its place.
    fn published(
        &mut self,
        db: &mut dyn Database,
        published: &Published,
        names: &NameChanges,
    ) -> Result<(), StoreError> {
        let Published {
            camera,
            lease,
            position,
            change,
        } = published;
        let (run, at) = match change {
            Change::Status(s) => (s.run, s.time),
            Change::Event(e) => (e.run, e.time),
            Change::Track(t) => (t.run, t.time.0),
            Change::Published(_) => return Ok(()), // never nested
        };
        let camera = self.camera(db, camera, at)?;
        let place = Place {
            camera,
            lease: *lease as i64,
            position: *position as i64,
        };
        if !place.counts(db)? {
            self.outdated += 1;
            return Ok(());
        }
        self.apply(db, change, names)?;
        let run = self.run(db, run, at)?;
        match change {
            Change::Track(t) => place.mark(db, "tracks", run, ("track", t.track as i64)),
            Change::Event(e) => place.mark(db, "events", run, ("seq", e.seq as i64)),
            Change::Status(s) => {
                place.mark(db, "camera_status", run, ("time", milliseconds(s.time)))
            }
            Change::Published(_) => Ok(()),
        }
    }

    /// Number of changes so far that were left out because a newer lease stands before them.
    pub fn outdated(&self) -> u64 {
        self.outdated
    }

    /// Records that the run is alive at `now`.
    ///
    /// # Errors
    /// When a statement fails.
    pub fn alive(
        &mut self,
        db: &mut dyn Database,
        run: RunId,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let id = self.run(db, run, now)?;
        let values = [
            milliseconds(now).into(),
            id.into(),
            milliseconds(now).into(),
        ];
        db.execute(
            "UPDATE runs SET alive = ? WHERE id = ? AND alive < ?",
            &values,
        )?;
        Ok(())
    }

    fn run(&mut self, db: &mut dyn Database, run: RunId, at: Timestamp) -> Result<i64, StoreError> {
        if let Some(id) = self.runs.get(&run) {
            return Ok(*id);
        }
        let at = milliseconds(at);
        let rows = db.query(
            "INSERT INTO runs (uuid, began, alive, version) VALUES (?, ?, ?, ?)
             ON CONFLICT (uuid) DO UPDATE SET uuid = excluded.uuid RETURNING id",
            &[
                run.to_string().as_str().into(),
                at.into(),
                at.into(),
                env!("CARGO_PKG_VERSION").into(),
            ],
        )?;
        let id = only(&rows)?;
        self.runs.insert(run, id);
        Ok(id)
    }

    fn camera(
        &mut self,
        db: &mut dyn Database,
        camera: &Arc<str>,
        at: Timestamp,
    ) -> Result<i64, StoreError> {
        if let Some(id) = self.cameras.get(camera) {
            return Ok(*id);
        }
        let at = milliseconds(at);
        let rows = db.query(
            "INSERT INTO cameras (name, first_seen, last_seen) VALUES (?, ?, ?)
             ON CONFLICT (name) DO UPDATE SET name = excluded.name RETURNING id",
            &[(&**camera).into(), at.into(), at.into()],
        )?;
        let id = only(&rows)?;
        self.cameras.insert(camera.clone(), id);
        Ok(id)
    }

    /// The key of an embedder. With PostgreSQL, creates the index of its embeddings.
    ///
    /// # Errors
    /// When a statement fails.
    pub fn embedder(
        &mut self,
        db: &mut dyn Database,
        embedder: &Arc<str>,
        dimension: usize,
    ) -> Result<i64, StoreError> {
        let key = (embedder.clone(), dimension);
        if let Some(id) = self.embedders.get(&key) {
            return Ok(*id);
        }
        let rows = db.query(
            "INSERT INTO embedders (hash, dimension, name) VALUES (?, ?, ?)
             ON CONFLICT (hash, dimension) DO UPDATE SET name = excluded.name RETURNING id",
            &[
                embedder_hash(embedder).into(),
                (dimension as i64).into(),
                (&**embedder).into(),
            ],
        )?;
        let id = only(&rows)?;
        if db.dialect() == Dialect::Postgres && dimension <= MAX_INDEXED {
            db.batch(&hnsw_index(id, dimension))?;
        }
        self.embedders.insert(key, id);
        Ok(id)
    }

    fn status(&mut self, db: &mut dyn Database, status: &StatusEvent) -> Result<(), StoreError> {
        let run = self.run(db, status.run, status.time)?;
        let camera = self.camera(db, &status.camera, status.time)?;
        let state = serde_json::to_value(status.state).unwrap_or_default();
        let time = milliseconds(status.time);
        db.execute(
            "INSERT INTO camera_status (run_id, camera_id, time, state, reason)
             VALUES (?, ?, ?, ?, ?) ON CONFLICT (camera_id, time, state) DO NOTHING",
            &[
                run.into(),
                camera.into(),
                time.into(),
                state.as_str().unwrap_or_default().into(),
                status.reason.as_deref().into(),
            ],
        )?;
        seen(db, camera, time)
    }

    fn event(&mut self, db: &mut dyn Database, event: &EventRow) -> Result<(), StoreError> {
        let run = self.run(db, event.run, event.time)?;
        let camera = self.camera(db, &event.camera, event.time)?;
        let track = event.track.map(|t| t as i64);
        db.execute(
            "INSERT INTO events (run_id, camera_id, seq, kind, name, action, track, time, pts,
                 occupancy, json)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
             ON CONFLICT (run_id, camera_id, seq) DO NOTHING",
            &[
                run.into(),
                camera.into(),
                (event.seq as i64).into(),
                event.kind.name().into(),
                event.name.as_str().into(),
                event.action.as_str().into(),
                track.into(),
                milliseconds(event.time).into(),
                event.pts.into(),
                event.occupancy.map(i64::from).into(),
                event.json.as_str().into(),
            ],
        )?;
        if let (EventKind::Zone, Some(track)) = (event.kind, track) {
            db.execute(ADD_ZONES, &[run.into(), camera.into(), track.into()])?;
        }
        Ok(())
    }

    fn track(&mut self, db: &mut dyn Database, t: &TrackRow) -> Result<(), StoreError> {
        let run = self.run(db, t.run, t.time.0)?;
        let camera = self.camera(db, &t.camera, t.time.0)?;
        let track = t.track as i64;
        let (first, last) = (milliseconds(t.time.0), milliseconds(t.time.1));
        let rows = db.query(
            UPSERT_TRACK,
            &[
                run.into(),
                camera.into(),
                track.into(),
                first.into(),
                last.into(),
                ((1000.0 * (t.pts.1 - t.pts.0)).round() as i64).into(),
                t.pts.0.into(),
                t.pts.1.into(),
                t.clock.map(clock_name).into(),
                i64::from(t.hits).into(),
                i64::from(t.ended).into(),
                t.identity.as_ref().map(|(name, _)| name.as_str()).into(),
                t.identity
                    .as_ref()
                    .map(|(_, similarity)| *similarity)
                    .into(),
                i64::from(t.frame.0).into(),
                i64::from(t.frame.1).into(),
            ],
        )?;
        // No row: the track has ended, and this is an older row of it.
        let Some(row) = rows.first() else {
            return Ok(());
        };
        let (id, first) = (row.int(0)?, row.int(1)?);
        db.execute(ADD_ZONES, &[run.into(), camera.into(), track.into()])?;
        if t.ended {
            seen(db, camera, last)?;
        }
        if let Some(path) = &t.path {
            let text = serde_json::to_string(path).unwrap_or_default();
            let boxes = (!t.boxes.is_empty()).then(|| serde_json::to_string(&t.boxes));
            let boxes = boxes.and_then(Result::ok);
            db.execute(
                "INSERT INTO paths (track_id, path, error, boxes) VALUES (?, ?, ?, ?)
                 ON CONFLICT (track_id) DO UPDATE SET path = excluded.path, error = excluded.error,
                     boxes = excluded.boxes",
                &[
                    id.into(),
                    text.as_str().into(),
                    t.path_error.into(),
                    boxes.as_deref().into(),
                ],
            )?;
        }
        if let (Some(embedder), Some(embedding)) = (&t.embedder, &t.embedding) {
            let embedder = self.embedder(db, embedder, embedding.len())?;
            db.execute(
                "INSERT INTO embeddings (track_id, embedder_id, camera_id, first_time, last_time,
                     embedding)
                 VALUES (?, ?, ?, ?, ?, ?)
                 ON CONFLICT (track_id) DO UPDATE SET embedding = excluded.embedding",
                &[
                    id.into(),
                    embedder.into(),
                    camera.into(),
                    first.into(),
                    last.into(),
                    Value::Vector(embedding.clone()),
                ],
            )?;
        }
        crops(db, id, &t.crops)
    }
}

/// The statement that creates the index of an embedder's embeddings in PostgreSQL.
pub fn hnsw_index(embedder: i64, dimension: usize) -> String {
    format!(
        "CREATE INDEX IF NOT EXISTS embeddings_hnsw_{embedder} ON embeddings
         USING hnsw ((embedding::vector({dimension})) vector_cosine_ops)
         WHERE embedder_id = {embedder}"
    )
}

/// Replaces the crops of a track, if there are new ones.
fn crops(db: &mut dyn Database, track: i64, crops: &[CropRow]) -> Result<(), StoreError> {
    if !crops.is_empty() {
        db.execute("DELETE FROM crops WHERE track_id = ?", &[track.into()])?;
    }
    for crop in crops {
        let Picture::Jpeg(jpeg) = &crop.picture else {
            continue; // the writer encodes them before; one that cannot be encoded is left out
        };
        db.execute(
            "INSERT INTO crops (track_id, time, pts, width, height, score, jpeg)
             VALUES (?, ?, ?, ?, ?, ?, ?)",
            &[
                track.into(),
                milliseconds(crop.time).into(),
                crop.pts.into(),
                i64::from(crop.size.0).into(),
                i64::from(crop.size.1).into(),
                crop.score.into(),
                Value::Bytes(jpeg.clone()),
            ],
        )?;
    }
    Ok(())
}

fn seen(db: &mut dyn Database, camera: i64, at: i64) -> Result<(), StoreError> {
    db.execute(
        "UPDATE cameras SET last_seen = ? WHERE id = ? AND last_seen < ?",
        &[at.into(), camera.into(), at.into()],
    )?;
    Ok(())
}

fn only(rows: &[crate::store::database::Row]) -> Result<i64, StoreError> {
    rows.first().map_or_else(
        || Err(StoreError::Value("an insertion returned no key".into())),
        |row| row.int(0),
    )
}

/// Marks as ended the tracks of killed runs: of all runs except `own` that were last alive before
/// `alive_since`. Returns the number of tracks.
///
/// # Errors
/// When a statement fails.
pub fn end_abandoned(
    db: &mut dyn Database,
    own: RunId,
    alive_since: Timestamp,
) -> Result<u64, StoreError> {
    db.execute(
        "UPDATE tracks SET ended = 1
         WHERE ended = 0 AND run_id IN (SELECT id FROM runs WHERE alive < ? AND uuid <> ?)",
        &[
            milliseconds(alive_since).into(),
            own.to_string().as_str().into(),
        ],
    )
}
