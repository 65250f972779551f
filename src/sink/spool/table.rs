//! The spool's SQLite file: one table of events, in order of insertion.

use std::path::Path;

use rusqlite::{Connection, Transaction};

/// An event that a statement has deleted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Removed {
    /// Position in the queue.
    pub position: i64,
    /// Length of the body in bytes.
    pub bytes: i64,
}

/// Opens or creates the file. Also returns the number of events in it, and their total size in
/// bytes.
pub(super) fn open(path: &Path) -> rusqlite::Result<(Connection, (u64, u64))> {
    let connection = Connection::open(path)?;
    // In exclusive mode the first write locks the file until it is closed.
    connection.execute_batch(
        "PRAGMA locking_mode = EXCLUSIVE;
         PRAGMA journal_mode = WAL;
         PRAGMA synchronous = NORMAL;
         PRAGMA journal_size_limit = 4194304;
         CREATE TABLE IF NOT EXISTS events (
             place INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, kind INTEGER NOT NULL,
             camera TEXT NOT NULL, body BLOB NOT NULL
         );
         BEGIN IMMEDIATE; COMMIT;",
    )?;
    let totals = totals(&connection)?;
    Ok((connection, totals))
}

/// Replaces a file by an empty one, whose positions continue after `last`. The old connection must
/// be closed.
pub(super) fn replace(path: &Path, last: i64) -> Result<Connection, String> {
    for suffix in ["", "-wal", "-shm"] {
        let mut file = path.as_os_str().to_os_string();
        file.push(suffix);
        match std::fs::remove_file(&file) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(format!("cannot remove {}: {e}", file.display()));
            }
            _ => {}
        }
    }
    crate::sink::private::restrict(path).map_err(|e| e.to_string())?;
    let (connection, _) = open(path).map_err(|e| e.to_string())?;
    connection
        .execute(
            "INSERT INTO sqlite_sequence (name, seq) VALUES ('events', ?)",
            [last],
        )
        .map_err(|e| e.to_string())?;
    Ok(connection)
}

/// The number of events in the file, and their total size in bytes.
pub(super) fn totals(connection: &Connection) -> rusqlite::Result<(u64, u64)> {
    connection.query_row(
        "SELECT count(*), coalesce(sum(length(body)), 0) FROM events",
        [],
        |r| Ok((r.get(0)?, r.get(1)?)),
    )
}

/// Deletes the events for which the SQL condition `which` holds; returns them.
pub(super) fn remove(
    t: &Transaction<'_>,
    which: &str,
    params: impl rusqlite::Params,
) -> rusqlite::Result<Vec<Removed>> {
    let sql = format!("DELETE FROM events WHERE {which} RETURNING place, length(body)");
    let mut delete = t.prepare_cached(&sql)?;
    let removed = delete.query_map(params, |r| {
        Ok(Removed {
            position: r.get(0)?,
            bytes: r.get(1)?,
        })
    })?;
    removed.collect()
}
