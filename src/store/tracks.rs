//! Reads cameras and tracks.

use crate::store::condition::Conditions;
use crate::store::database::{Database, Row, Value};
use crate::store::error::StoreError;
use crate::store::query::{
    CameraSummary, CropSummary, Cursor, MAX_PAGE, Page, StatusChange, TrackDetail, TrackFilter,
    TrackSummary,
};
use crate::store::rows::{milliseconds, timestamp};
use crate::track::identity::Identity;
use crate::trajectory::RunId;

/// Columns of [`summary`], of the tables tracks `t`, runs `r` and cameras `c`.
const SUMMARY: &str = "t.id, t.first_time, r.uuid, c.name, t.track, t.last_time, t.first_pts,
    t.last_pts, t.duration, t.clock, t.hits, t.ended, t.width, t.height, t.identity, t.similarity,
    (SELECT count(*) FROM crops p WHERE p.track_id = t.id),
    (SELECT p.id FROM crops p WHERE p.track_id = t.id ORDER BY p.score DESC, p.id LIMIT 1),
    t.person";

/// If fewer tracks than this have a filter's minimum duration, they are found by duration and then
/// sorted; otherwise a page is found sooner by reading the tracks in the order of time.
const FEW: i64 = 20_000;

/// The key of a camera.
///
/// # Errors
/// When the database fails.
pub fn camera_id(db: &mut dyn Database, name: &str) -> Result<Option<i64>, StoreError> {
    let rows = db.query("SELECT id FROM cameras WHERE name = ?", &[name.into()])?;
    rows.first().map(|row| row.int(0)).transpose()
}

fn whole<T: TryFrom<i64>>(row: &Row, column: usize) -> Result<T, StoreError> {
    let value = row.int(column)?;
    T::try_from(value).map_err(|_| StoreError::Value(format!("column {column} holds {value}")))
}

fn summary(row: &Row) -> Result<TrackSummary, StoreError> {
    let run = row.text(2)?;
    let identity = match (row.text_if_any(14)?, row.real_if_any(15)?) {
        (Some(name), similarity) => Some(Identity {
            name,
            similarity: similarity.unwrap_or(1.0),
        }),
        _ => None,
    };
    Ok(TrackSummary {
        run: run
            .parse()
            .map_err(|_| StoreError::Value(format!("the run {run}")))?,
        camera: row.text(3)?,
        id: whole(row, 4)?,
        first_time: timestamp(row.int(1)?),
        last_time: timestamp(row.int(5)?),
        first: row.real(6)?,
        last: row.real(7)?,
        duration: row.int(8)? as f64 / 1000.0,
        clock: row.text_if_any(9)?,
        hits: whole(row, 10)?,
        ended: row.int(11)? != 0,
        frame: [whole(row, 12)?, whole(row, 13)?],
        identity,
        crops: whole(row, 16)?,
        crop: row.int_if_any(17)?,
        person: row.int_if_any(18)?.map(|person| person as u64),
    })
}

/// All cameras, by name.
///
/// # Errors
/// When the database fails.
pub fn cameras(db: &mut dyn Database) -> Result<Vec<CameraSummary>, StoreError> {
    let rows = db.query(
        "SELECT c.name, c.first_seen, c.last_seen, s.state, s.reason, s.time,
             (SELECT count(*) FROM tracks t WHERE t.camera_id = c.id AND t.ended = 0)
         FROM cameras c LEFT JOIN camera_status s ON s.id = (
             SELECT l.id FROM camera_status l WHERE l.camera_id = c.id
             ORDER BY l.time DESC, l.id DESC LIMIT 1)
         ORDER BY c.name",
        &[],
    )?;
    let camera = |row: &Row| {
        Ok(CameraSummary {
            camera: row.text(0)?,
            first_seen: timestamp(row.int(1)?),
            last_seen: timestamp(row.int(2)?),
            state: row.text_if_any(3)?,
            reason: row.text_if_any(4)?,
            state_since: row.int_if_any(5)?.map(timestamp),
            tracks_present: whole(row, 6)?,
        })
    };
    rows.iter().map(camera).collect()
}

/// The changes of a camera's state, from new to old, at most `limit`.
///
/// # Errors
/// When the database fails.
pub fn camera_status(
    db: &mut dyn Database,
    camera: &str,
    limit: usize,
) -> Result<Vec<StatusChange>, StoreError> {
    let rows = db.query(
        "SELECT s.time, s.state, s.reason FROM camera_status s
         JOIN cameras c ON c.id = s.camera_id
         WHERE c.name = ? ORDER BY s.time DESC, s.id DESC LIMIT ?",
        &[camera.into(), (limit.min(MAX_PAGE) as i64).into()],
    )?;
    let change = |row: &Row| {
        Ok(StatusChange {
            time: timestamp(row.int(0)?),
            state: row.text(1)?,
            reason: row.text_if_any(2)?,
        })
    };
    rows.iter().map(change).collect()
}

/// Duration in milliseconds of the longest track: a track that was there at a time began at most
/// this long before it, which bounds the part of the index that is searched.
pub(super) fn longest(db: &mut dyn Database) -> Result<i64, StoreError> {
    let rows = db.query("SELECT max(duration) FROM tracks", &[])?;
    Ok(rows
        .first()
        .map(|row| row.int_if_any(0))
        .transpose()?
        .flatten()
        .unwrap_or(0))
}

/// How the tracks of a page are found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Plan {
    /// In the order of time.
    Time,
    /// By the duration, then sorted, because few tracks are so long.
    Duration,
    /// By the zone, in the order of time.
    Zone,
}

impl Plan {
    fn of(db: &mut dyn Database, filter: &TrackFilter) -> Result<Self, StoreError> {
        if filter.identity.is_some() {
            return Ok(Plan::Time); // the index of identities is in the order of time
        }
        if let Some(seconds) = filter.min_duration
            && are_few(db, &milliseconds_of(seconds)?)?
        {
            return Ok(Plan::Duration);
        }
        Ok(if filter.zone.is_some() {
            Plan::Zone
        } else {
            Plan::Time
        })
    }

    /// Text after the columns whose index the database must not use: it turns the column into an
    /// expression, for which no index is used. SQLite has no statistics here, and would choose a
    /// slow index.
    fn unindexed(self) -> &'static str {
        match self {
            Plan::Duration => "+ 0",
            _ => "",
        }
    }

    /// The tables, and the columns of first time and key.
    fn tables(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Plan::Zone => (
                "track_zones z JOIN tracks t ON t.id = z.track_id",
                "z.first_time",
                "z.track_id",
            ),
            _ => ("tracks t", "t.first_time", "t.id"),
        }
    }
}

fn milliseconds_of(seconds: f64) -> Result<Value, StoreError> {
    if seconds.is_finite() && seconds >= 0.0 {
        Ok(Value::Int((1000.0 * seconds).ceil() as i64))
    } else {
        Err(StoreError::Argument {
            argument: "min_duration",
            reason: "it must be a number of seconds, at least 0".into(),
        })
    }
}

/// The conditions of a filter on the tracks `t`; None if no track can fulfil them.
pub(super) fn conditions(
    db: &mut dyn Database,
    filter: &TrackFilter,
    plan: Plan,
) -> Result<Option<Conditions>, StoreError> {
    let mut all = Conditions::default();
    if let Some(camera) = &filter.camera {
        let Some(id) = camera_id(db, camera)? else {
            return Ok(None);
        };
        all.with(&format!("t.camera_id {} = ?", plan.unindexed()), id);
    }
    let (_, first, _) = plan.tables();
    if let Some(zone) = &filter.zone {
        let zone = zone.as_str();
        match plan {
            Plan::Zone => all.with("z.zone = ?", zone),
            _ => all.with(
                "EXISTS (SELECT 1 FROM track_zones z WHERE z.zone = ?
                     AND z.first_time = t.first_time AND z.track_id = t.id)",
                zone,
            ),
        }
    }
    if let Some(from) = filter.from.map(milliseconds) {
        // A duration is a difference of presentation times, which can differ a little from that of
        // the wall-clock times.
        let margin = longest(db)? + 60_000;
        let begin = format!("{first} {} >= ?", plan.unindexed());
        all.with(&begin, from.saturating_sub(margin));
        all.with("t.last_time >= ?", from);
    }
    if let Some(to) = filter.to {
        all.with(
            &format!("{first} {} < ?", plan.unindexed()),
            milliseconds(to),
        );
    }
    if let Some(run) = filter.run {
        let run = run.to_string();
        all.with(
            "t.run_id = (SELECT id FROM runs WHERE uuid = ?)",
            run.as_str(),
        );
    }
    if let Some(person) = filter.person {
        let person = i64::try_from(person).unwrap_or(-1);
        all.with("t.person = ?", person);
    }
    if let Some(identity) = &filter.identity {
        all.with("t.identity = ?", identity.as_str());
    }
    if let Some(seconds) = filter.min_duration {
        all.with("t.duration >= ?", milliseconds_of(seconds)?);
    }
    Ok(Some(all))
}

/// Checks the number of rows of a page.
pub(super) fn page_size(limit: usize) -> Result<i64, StoreError> {
    if (1..=MAX_PAGE).contains(&limit) {
        Ok(limit as i64)
    } else {
        Err(StoreError::Argument {
            argument: "limit",
            reason: format!("it must be from 1 to {MAX_PAGE}"),
        })
    }
}

/// Whether fewer than [`FEW`] tracks have at least this duration in milliseconds.
fn are_few(db: &mut dyn Database, duration: &Value) -> Result<bool, StoreError> {
    let rows = db.query(
        "SELECT count(*) FROM (SELECT 1 FROM tracks WHERE duration >= ? LIMIT ?) AS part",
        &[duration.clone(), FEW.into()],
    )?;
    Ok(rows.first().map_or(Ok(0), |row| row.int(0))? < FEW)
}

/// Tracks, from those that began last. `cursor`: where the page begins.
///
/// # Errors
/// When the limit is not from 1 to [`MAX_PAGE`], or the database fails.
pub fn tracks(
    db: &mut dyn Database,
    filter: &TrackFilter,
    cursor: Option<Cursor>,
    limit: usize,
) -> Result<Page<TrackSummary>, StoreError> {
    let limit = page_size(limit)?;
    let none = Page {
        items: Vec::new(),
        next: None,
    };
    let plan = Plan::of(db, filter)?;
    let Some(mut all) = conditions(db, filter, plan)? else {
        return Ok(none);
    };
    let (from, first, id) = plan.tables();
    let first = format!("{first} {}", plan.unindexed());
    if let Some(cursor) = cursor {
        all.with_two(&format!("({first}, {id}) < (?, ?)"), cursor.time, cursor.id);
    }
    let order = format!("{first} DESC, {id} DESC");
    // The rows of the page are chosen before anything else is read about them.
    let sql = format!(
        "SELECT {SUMMARY} FROM (
             SELECT {id} AS id FROM {from} WHERE {} ORDER BY {order} LIMIT ?
         ) AS chosen JOIN tracks t ON t.id = chosen.id
         JOIN runs r ON r.id = t.run_id JOIN cameras c ON c.id = t.camera_id
         ORDER BY t.first_time DESC, t.id DESC",
        all.text()
    );
    all.values.push((limit + 1).into());
    page(db.query(&sql, &all.values)?, limit, summary)
}

/// The page of at most `limit` rows, whose first two columns are key and time; `item` makes an
/// element of a row. A row beyond the limit says that there is a next page.
pub(super) fn page<T>(
    mut rows: Vec<Row>,
    limit: i64,
    item: impl Fn(&Row) -> Result<T, StoreError>,
) -> Result<Page<T>, StoreError> {
    let more = rows.len() as i64 > limit;
    rows.truncate(limit as usize);
    let next = match rows.last() {
        Some(last) if more => Some(Cursor {
            time: last.int(1)?,
            id: last.int(0)?,
        }),
        _ => None,
    };
    Ok(Page {
        items: rows.iter().map(item).collect::<Result<_, _>>()?,
        next,
    })
}

/// The summaries of tracks, by their keys; those that are gone are left out.
pub(super) fn by_ids(
    db: &mut dyn Database,
    ids: &[i64],
) -> Result<std::collections::HashMap<i64, TrackSummary>, StoreError> {
    let sql = format!(
        "SELECT {SUMMARY} FROM tracks t JOIN runs r ON r.id = t.run_id
         JOIN cameras c ON c.id = t.camera_id WHERE t.id = ?"
    );
    let mut found = std::collections::HashMap::new();
    for id in ids {
        if let Some(row) = db.query(&sql, &[(*id).into()])?.first() {
            found.insert(*id, summary(row)?);
        }
    }
    Ok(found)
}

/// Parses a JSON list of points or boxes.
pub(super) fn numbers<const N: usize>(text: &str) -> Result<Vec<[f64; N]>, StoreError>
where
    [f64; N]: serde::de::DeserializeOwned,
{
    serde_json::from_str(text).map_err(|e| StoreError::Value(format!("a path: {e}")))
}

/// The key of a track.
fn track_id(
    db: &mut dyn Database,
    run: RunId,
    camera: &str,
    track: u64,
) -> Result<Option<i64>, StoreError> {
    let rows = db.query(
        "SELECT t.id FROM tracks t JOIN runs r ON r.id = t.run_id
         JOIN cameras c ON c.id = t.camera_id
         WHERE r.uuid = ? AND c.name = ? AND t.track = ?",
        &[
            run.to_string().as_str().into(),
            camera.into(),
            i64::try_from(track).unwrap_or(-1).into(),
        ],
    )?;
    rows.first().map(|row| row.int(0)).transpose()
}

/// A track with its path and the list of its crops; None if it is not in the history.
///
/// # Errors
/// When the database fails.
pub fn track(
    db: &mut dyn Database,
    run: RunId,
    camera: &str,
    track: u64,
) -> Result<Option<TrackDetail>, StoreError> {
    let Some(id) = track_id(db, run, camera, track)? else {
        return Ok(None);
    };
    let Some(summary) = by_ids(db, &[id])?.remove(&id) else {
        return Ok(None);
    };
    let key = [Value::Int(id)];
    let sql = "SELECT path, error, boxes FROM paths WHERE track_id = ?";
    let paths = db.query(sql, &key)?;
    let (path, path_error, boxes) = match paths.first() {
        Some(row) => (
            numbers(&row.text(0)?)?,
            row.real_if_any(1)?,
            row.text_if_any(2)?
                .map_or(Ok(Vec::new()), |b| numbers(&b))?,
        ),
        None => (Vec::new(), None, Vec::new()),
    };
    let zones = db.query(
        "SELECT zone FROM track_zones WHERE track_id = ? ORDER BY zone",
        &key,
    )?;
    let embedder = db.query(
        "SELECT n.name FROM embeddings e JOIN embedders n ON n.id = e.embedder_id
         WHERE e.track_id = ?",
        &key,
    )?;
    let views = db.query(
        "SELECT id, time, pts, width, height FROM crops WHERE track_id = ? ORDER BY score DESC, id",
        &key,
    )?;
    let view = |row: &Row| {
        Ok(CropSummary {
            id: row.int(0)?,
            time: timestamp(row.int(1)?),
            pts: row.real(2)?,
            size: [whole(row, 3)?, whole(row, 4)?],
        })
    };
    Ok(Some(TrackDetail {
        summary,
        path,
        path_error,
        boxes,
        zones: zones
            .iter()
            .map(|row| row.text(0))
            .collect::<Result<_, _>>()?,
        embedder: embedder.first().map(|row| row.text(0)).transpose()?,
        views: views.iter().map(view).collect::<Result<_, _>>()?,
    }))
}

/// The stored embedding of a track, with the embedder (name and hash); None if there is none.
///
/// # Errors
/// When the database fails.
pub fn embedding(
    db: &mut dyn Database,
    run: RunId,
    camera: &str,
    track: u64,
) -> Result<Option<(String, Vec<f32>)>, StoreError> {
    let Some(id) = track_id(db, run, camera, track)? else {
        return Ok(None);
    };
    let rows = db.query(
        "SELECT n.name, e.embedding FROM embeddings e JOIN embedders n ON n.id = e.embedder_id
         WHERE e.track_id = ?",
        &[id.into()],
    )?;
    rows.first()
        .map(|row| Ok((row.text(0)?, row.vector(1)?)))
        .transpose()
}

/// The JPEG of a crop; None if it is not in the history.
///
/// # Errors
/// When the database fails.
pub fn crop(db: &mut dyn Database, id: i64) -> Result<Option<Vec<u8>>, StoreError> {
    let rows = db.query("SELECT jpeg FROM crops WHERE id = ?", &[id.into()])?;
    rows.first().map(|row| row.bytes(0)).transpose()
}
