//! Identities: enrolled people with their embeddings, and the names of tracks.

use std::sync::Arc;

use crate::store::database::{Database, Row, Value, transaction};
use crate::store::error::StoreError;
use crate::store::event_names;
use crate::store::query::StoredIdentity;
use crate::store::rows::{milliseconds, timestamp};
use crate::store::write::{Rows, embedder_hash};
use crate::time::Timestamp;

/// Longest name of an identity, in characters.
const MAX_NAME: usize = 200;

/// What deleting an identity has removed.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
#[cfg_attr(feature = "serve", derive(schemars::JsonSchema))]
pub struct Deleted {
    /// Tracks that had the name.
    pub tracks: u64,
    /// Crops of these tracks.
    pub crops: u64,
    /// Embeddings of these tracks and of the identity.
    pub embeddings: u64,
    /// Keys of the tracks' embeddings, which the search holds in memory.
    #[serde(skip)]
    pub keys: Vec<i64>,
}

/// Checks the name of an identity.
///
/// # Errors
/// When it is empty or too long, or has characters or white space that are not allowed.
pub fn check_name(name: &str) -> Result<(), StoreError> {
    let wrong = |reason: &str| {
        Err(StoreError::Argument {
            argument: "name",
            reason: reason.into(),
        })
    };
    if name.trim().is_empty() || name.trim() != name {
        wrong("it must not be empty, and must not begin or end with white space")
    } else if name.chars().count() > MAX_NAME {
        wrong("it must have at most 200 characters")
    } else if name.chars().any(|c| c.is_control() || is_invisible(c)) {
        wrong(
            "it must have no control characters and none that are invisible or turn the text round",
        )
    } else if name == "." || name == ".." {
        wrong("it must not be . or .., which browsers remove from addresses")
    } else {
        Ok(())
    }
}

/// Whether a character has no width or changes the direction of the text, so that two different
/// names could look the same.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{2069}' | '\u{FEFF}')
}

/// The enrolled identities, by name.
///
/// # Errors
/// When the database fails.
pub fn list(db: &mut dyn Database) -> Result<Vec<StoredIdentity>, StoreError> {
    let rows = db.query(
        "SELECT i.name, i.created,
             (SELECT count(*) FROM identity_embeddings e WHERE e.identity_id = i.id),
             (SELECT count(*) FROM tracks t WHERE t.identity = i.name)
         FROM identities i ORDER BY i.name",
        &[],
    )?;
    let identity = |row: &Row| {
        Ok(StoredIdentity {
            name: row.text(0)?,
            created: timestamp(row.int(1)?),
            embeddings: row.int(2)? as u64,
            tracks: row.int(3)? as u64,
        })
    };
    rows.iter().map(identity).collect()
}

/// The embeddings of enrolled identities that this embedder (name and hash) made, by name.
///
/// # Errors
/// When the database fails.
pub fn embeddings(
    db: &mut dyn Database,
    embedder: &str,
) -> Result<Vec<(String, Vec<f32>)>, StoreError> {
    let rows = db.query(
        "SELECT i.name, e.embedding FROM identity_embeddings e
         JOIN identities i ON i.id = e.identity_id JOIN embedders n ON n.id = e.embedder_id
         WHERE n.hash = ? ORDER BY i.name, e.id",
        &[embedder_hash(embedder).into()],
    )?;
    rows.iter()
        .map(|r| Ok((r.text(0)?, r.vector(1)?)))
        .collect()
}

/// Enrols an identity with embeddings (unit length) of `embedder` (name and hash); adds them if the
/// name is enrolled already.
///
/// # Errors
/// When the name or an embedding is invalid, or the database fails.
pub fn enrol(
    db: &mut dyn Database,
    name: &str,
    embedder: &Arc<str>,
    embeddings: &[Vec<f32>],
    now: Timestamp,
) -> Result<(), StoreError> {
    check_name(name)?;
    let valid = |e: &Vec<f32>| !e.is_empty() && e.iter().all(|v| v.is_finite());
    if embeddings.is_empty() || !embeddings.iter().all(valid) {
        return Err(StoreError::Argument {
            argument: "embeddings",
            reason: "there must be at least one, of finite numbers".into(),
        });
    }
    transaction(db, |db| {
        let rows = db.query(
            "INSERT INTO identities (name, created) VALUES (?, ?)
             ON CONFLICT (name) DO UPDATE SET name = excluded.name RETURNING id",
            &[name.into(), milliseconds(now).into()],
        )?;
        let id = rows.first().map_or(Ok(0), |row| row.int(0))?;
        for embedding in embeddings {
            let embedder = Rows::default().embedder(db, embedder, embedding.len())?;
            db.execute(
                "INSERT INTO identity_embeddings (identity_id, embedder_id, embedding)
                 VALUES (?, ?, ?)",
                &[id.into(), embedder.into(), Value::Vector(embedding.clone())],
            )?;
        }
        Ok(())
    })
}

/// Renames an identity, and the tracks and events that have its name.
///
/// # Errors
/// When the new name is invalid or in use, no identity and no track has the old one, or the
/// database fails.
pub fn rename(db: &mut dyn Database, old: &str, new: &str) -> Result<(), StoreError> {
    check_name(new)?;
    if old == new {
        return Ok(());
    }
    transaction(db, |db| {
        let used = db.query(
            "SELECT 1 FROM identities WHERE name = ?
             UNION ALL SELECT 1 FROM (SELECT 1 FROM tracks WHERE identity = ? LIMIT 1) AS named",
            &[new.into(), new.into()],
        )?;
        if !used.is_empty() {
            return Err(StoreError::Exists(new.into()));
        }
        let values = [new.into(), old.into()];
        let identities = db.execute("UPDATE identities SET name = ? WHERE name = ?", &values)?;
        let tracks = db.execute("UPDATE tracks SET identity = ? WHERE identity = ?", &values)?;
        if identities + tracks == 0 {
            return Err(StoreError::Missing(format!("identity '{old}'")));
        }
        event_names::change(db, old, Some(new))
    })
}

/// Deletes an identity with everything about the person: its embeddings, and the crops, the
/// embeddings and the name of the tracks that have its name. The tracks' times, paths and events
/// stay, without a name.
///
/// # Errors
/// When no identity and no track has the name, or the database fails.
pub fn delete(db: &mut dyn Database, name: &str) -> Result<Deleted, StoreError> {
    transaction(db, |db| {
        let by_name = [Value::from(name)];
        let of_tracks = "(SELECT id FROM tracks WHERE identity = ?)";
        let crops = format!("DELETE FROM crops WHERE track_id IN {of_tracks}");
        let crops = db.execute(&crops, &by_name)?;
        let keys = format!("DELETE FROM embeddings WHERE track_id IN {of_tracks} RETURNING id");
        let keys = db.query(&keys, &by_name)?;
        let keys: Vec<i64> = keys.iter().map(|r| r.int(0)).collect::<Result<_, _>>()?;
        let own = db.execute(
            "DELETE FROM identity_embeddings
             WHERE identity_id IN (SELECT id FROM identities WHERE name = ?)",
            &by_name,
        )?;
        let identities = db.execute("DELETE FROM identities WHERE name = ?", &by_name)?;
        let tracks = db.execute(
            "UPDATE tracks SET identity = NULL, similarity = NULL WHERE identity = ?",
            &by_name,
        )?;
        if identities + tracks == 0 {
            return Err(StoreError::Missing(format!("identity '{name}'")));
        }
        event_names::change(db, name, None)?;
        Ok(Deleted {
            tracks,
            crops,
            embeddings: own + keys.len() as u64,
            keys,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_cannot_be_told_apart_or_addressed_are_refused() {
        for name in [
            "",
            " a",
            "a ",
            ".",
            "..",
            "\u{200B}",
            "Anna\u{202E}x",
            "a\nb",
        ] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
        for name in ["Anna", "J. R.", "Ána María", "...", "東"] {
            assert!(check_name(name).is_ok(), "{name:?}");
        }
    }
}
