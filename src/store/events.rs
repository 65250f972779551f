//! Reads events of zones and lines.

use serde_json::value::RawValue;

use crate::store::condition::Conditions;
use crate::store::database::{Database, Row};
use crate::store::error::StoreError;
use crate::store::query::{Cursor, EventFilter, Page, StoredEvent};
use crate::store::rows::{milliseconds, timestamp};
use crate::store::tracks::{camera_id, page, page_size};

fn stored(row: &Row) -> Result<StoredEvent, StoreError> {
    let event = RawValue::from_string(row.text(7)?);
    let track = row.int_if_any(6)?;
    Ok(StoredEvent {
        time: timestamp(row.int(1)?),
        camera: row.text(2)?,
        kind: row.text(3)?,
        name: row.text(4)?,
        action: row.text(5)?,
        track: track.and_then(|t| u64::try_from(t).ok()),
        event: event.map_err(|e| StoreError::Value(format!("an event: {e}")))?,
    })
}

/// Events, from new to old. `cursor`: where the page begins.
///
/// # Errors
/// When the limit is not from 1 to [`crate::store::query::MAX_PAGE`], or the database fails.
pub fn events(
    db: &mut dyn Database,
    filter: &EventFilter,
    cursor: Option<Cursor>,
    limit: usize,
) -> Result<Page<StoredEvent>, StoreError> {
    let limit = page_size(limit)?;
    let mut all = Conditions::default();
    if let Some(camera) = &filter.camera {
        let Some(id) = camera_id(db, camera)? else {
            return Ok(Page {
                items: Vec::new(),
                next: None,
            });
        };
        all.with("e.camera_id = ?", id);
    }
    if let Some(from) = filter.from {
        all.with("e.time >= ?", milliseconds(from));
    }
    if let Some(to) = filter.to {
        all.with("e.time < ?", milliseconds(to));
    }
    if let Some(kind) = filter.kind {
        all.with("e.kind = ?", kind.name());
    }
    if let Some(name) = &filter.name {
        all.with("e.name = ?", name.as_str());
    }
    if let Some(action) = &filter.action {
        all.with("e.action = ?", action.as_str());
    }
    if let Some(cursor) = cursor {
        all.with_two("(e.time, e.id) < (?, ?)", cursor.time, cursor.id);
    }
    let sql = format!(
        "SELECT e.id, e.time, c.name, e.kind, e.name, e.action, e.track, e.json
         FROM events e JOIN cameras c ON c.id = e.camera_id
         WHERE {} ORDER BY e.time DESC, e.id DESC LIMIT ?",
        all.text()
    );
    all.values.push((limit + 1).into());
    page(db.query(&sql, &all.values)?, limit, stored)
}
