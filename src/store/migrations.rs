//! The migrations, which create the tables and update those of earlier versions of the program.
//!
//! Each migration is applied once, in order. All that are due and the new version number are one
//! transaction: if one fails, none is applied. A released migration is never changed; a change of
//! the tables is a new migration.

use crate::store::database::{Database, Dialect, lock, transaction};
use crate::store::error::StoreError;

/// The migrations. Version n of the tables is reached by the first n of them. Types in braces are
/// those of the database: see [`for_dialect`].
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE runs (
        id {id}, uuid TEXT NOT NULL UNIQUE, began {int} NOT NULL, alive {int} NOT NULL,
        version TEXT NOT NULL
    );
    CREATE TABLE cameras (
        id {id}, name TEXT NOT NULL UNIQUE, first_seen {int} NOT NULL, last_seen {int} NOT NULL
    );
    CREATE TABLE camera_status (
        id {id}, run_id {int} NOT NULL REFERENCES runs (id),
        camera_id {int} NOT NULL REFERENCES cameras (id),
        time {int} NOT NULL, state TEXT NOT NULL, reason TEXT,
        UNIQUE (camera_id, time, state)
    );
    CREATE INDEX camera_status_time ON camera_status (time);

    CREATE TABLE tracks (
        id {id}, run_id {int} NOT NULL REFERENCES runs (id),
        camera_id {int} NOT NULL REFERENCES cameras (id), track {int} NOT NULL,
        first_time {int} NOT NULL, last_time {int} NOT NULL, duration {int} NOT NULL,
        first_pts {real} NOT NULL, last_pts {real} NOT NULL, clock TEXT, hits {int} NOT NULL,
        ended {int} NOT NULL, identity TEXT, similarity {real},
        width {int} NOT NULL, height {int} NOT NULL,
        UNIQUE (run_id, camera_id, track)
    );
    CREATE INDEX tracks_first ON tracks (first_time, id);
    CREATE INDEX tracks_camera ON tracks (camera_id, first_time, id);
    CREATE INDEX tracks_identity ON tracks (identity, first_time, id);
    CREATE INDEX tracks_duration ON tracks (duration, camera_id, first_time, last_time, id);
    CREATE INDEX tracks_last ON tracks (last_time);
    CREATE INDEX tracks_open ON tracks (camera_id, run_id) WHERE ended = 0;
    CREATE TABLE paths (
        track_id {int} PRIMARY KEY REFERENCES tracks (id) ON DELETE CASCADE,
        path TEXT NOT NULL, error {real}
    );
    CREATE TABLE crops (
        id {id}, track_id {int} NOT NULL REFERENCES tracks (id) ON DELETE CASCADE,
        time {int} NOT NULL, pts {real} NOT NULL, width {int} NOT NULL, height {int} NOT NULL,
        score {real} NOT NULL, jpeg {bytes} NOT NULL
    );
    CREATE INDEX crops_track ON crops (track_id);
    CREATE INDEX crops_time ON crops (time);

    CREATE TABLE events (
        id {id}, run_id {int} NOT NULL REFERENCES runs (id),
        camera_id {int} NOT NULL REFERENCES cameras (id), seq {int} NOT NULL,
        kind TEXT NOT NULL, name TEXT NOT NULL, action TEXT NOT NULL, track {int},
        time {int} NOT NULL, pts {real} NOT NULL, occupancy {int}, json TEXT NOT NULL,
        UNIQUE (run_id, camera_id, seq)
    );
    CREATE INDEX events_time ON events (time, id);
    CREATE INDEX events_camera ON events (camera_id, time, id);
    CREATE INDEX events_name ON events (name, time, id);
    CREATE TABLE track_zones (
        zone TEXT NOT NULL, first_time {int} NOT NULL,
        track_id {int} NOT NULL REFERENCES tracks (id) ON DELETE CASCADE,
        PRIMARY KEY (zone, first_time, track_id)
    );
    CREATE INDEX track_zones_track ON track_zones (track_id);

    CREATE TABLE embedders (
        id {id}, hash TEXT NOT NULL, dimension {int} NOT NULL, name TEXT NOT NULL,
        UNIQUE (hash, dimension)
    );
    CREATE TABLE embeddings (
        id {id}, track_id {int} NOT NULL UNIQUE REFERENCES tracks (id) ON DELETE CASCADE,
        embedder_id {int} NOT NULL REFERENCES embedders (id), camera_id {int} NOT NULL,
        first_time {int} NOT NULL, last_time {int} NOT NULL, embedding {vector} NOT NULL
    );
    CREATE INDEX embeddings_embedder ON embeddings (embedder_id, id);
    CREATE INDEX embeddings_time ON embeddings (last_time);
    CREATE TABLE identities (id {id}, name TEXT NOT NULL UNIQUE, created {int} NOT NULL);
    CREATE TABLE identity_embeddings (
        id {id}, identity_id {int} NOT NULL REFERENCES identities (id) ON DELETE CASCADE,
        embedder_id {int} NOT NULL REFERENCES embedders (id), embedding {vector} NOT NULL
    );
    CREATE INDEX identity_embeddings_identity ON identity_embeddings (identity_id);
",
    "ALTER TABLE paths ADD COLUMN boxes TEXT",
    "
    CREATE TABLE leases (
        camera_id {int} NOT NULL REFERENCES cameras (id), lease {int} NOT NULL,
        position {int} NOT NULL, PRIMARY KEY (camera_id, lease)
    );
    ALTER TABLE tracks ADD COLUMN lease {int};
    ALTER TABLE tracks ADD COLUMN position {int};
    CREATE INDEX tracks_position ON tracks (camera_id, position) WHERE position IS NOT NULL;
    ALTER TABLE events ADD COLUMN lease {int};
    ALTER TABLE events ADD COLUMN position {int};
    CREATE INDEX events_position ON events (camera_id, position) WHERE position IS NOT NULL;
    ALTER TABLE camera_status ADD COLUMN lease {int};
    ALTER TABLE camera_status ADD COLUMN position {int};
    CREATE INDEX camera_status_position ON camera_status (camera_id, position)
        WHERE position IS NOT NULL;
",
    "
    ALTER TABLE tracks ADD COLUMN person {int};
    ALTER TABLE tracks ADD COLUMN person_probability {real};
    CREATE INDEX tracks_person ON tracks (person, first_time, id) WHERE person IS NOT NULL;
    CREATE TABLE matching (id {int} PRIMARY KEY, state TEXT NOT NULL);
",
    "CREATE INDEX events_of_track ON events (run_id, camera_id, track) WHERE kind = 'zone'",
];

/// Key of the lock that keeps two programs from migrating a PostgreSQL database at once.
const MIGRATION_LOCK: i64 = 0x7477_696e_7472_636b;

/// The statements with the types of the database. Ids are never reused, because cursors and the
/// search hold them.
fn for_dialect(sql: &str, dialect: Dialect) -> String {
    let types = match dialect {
        Dialect::Sqlite => [
            ("{id}", "INTEGER PRIMARY KEY AUTOINCREMENT"),
            ("{int}", "INTEGER"),
            ("{real}", "REAL"),
            ("{bytes}", "BLOB"),
            ("{vector}", "BLOB"),
        ],
        Dialect::Postgres => [
            (
                "{id}",
                "BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY",
            ),
            ("{int}", "BIGINT"),
            ("{real}", "DOUBLE PRECISION"),
            ("{bytes}", "BYTEA"),
            ("{vector}", "vector"),
        ],
    };
    types
        .iter()
        .fold(sql.to_string(), |sql, (name, ty)| sql.replace(name, ty))
}

/// Brings the tables up to date.
///
/// # Errors
/// When they are of a newer version of the program, or the database fails; nothing is changed then.
pub fn apply(db: &mut dyn Database) -> Result<(), StoreError> {
    apply_list(db, MIGRATIONS)
}

fn apply_list(db: &mut dyn Database, migrations: &[&str]) -> Result<(), StoreError> {
    let known = migrations.len() as i64;
    transaction(db, |db| {
        let dialect = db.dialect();
        lock(db, MIGRATION_LOCK)?;
        let version = "CREATE TABLE IF NOT EXISTS twintrack_version (version {int} NOT NULL)";
        db.batch(&for_dialect(version, dialect))?;
        let rows = db.query("SELECT version FROM twintrack_version", &[])?;
        let found = rows.first().map_or(Ok(0), |row| row.int(0))?;
        if found > known {
            return Err(StoreError::Newer { found, known });
        }
        if found == known {
            return Ok(());
        }
        for migration in migrations.iter().skip(found as usize) {
            db.batch(&for_dialect(migration, dialect))?;
        }
        db.execute("DELETE FROM twintrack_version", &[])?;
        db.execute("INSERT INTO twintrack_version VALUES (?)", &[known.into()])?;
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::Sqlite;

    fn tables(db: &mut dyn Database) -> Vec<String> {
        let sql = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name";
        let rows = db.query(sql, &[]).expect("readable");
        rows.iter().map(|r| r.text(0).expect("a name")).collect()
    }

    #[test]
    fn migrations_are_applied_once_in_order_and_a_failed_one_changes_nothing() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let mut db = Sqlite::open(file.path()).expect("opened");
        let all = [
            "CREATE TABLE a (x {int})",
            "ALTER TABLE a RENAME TO b; INSERT INTO b VALUES (7)",
            "CREATE TABLE c (x {int}); INSERT INTO missing VALUES (1)",
        ];
        apply_list(&mut db, &all[..1]).expect("version 1");
        apply_list(&mut db, &all[..2]).expect("version 2");
        apply_list(&mut db, &all[..2]).expect("nothing to do");
        let b = ["b", "twintrack_version"];
        assert_eq!(tables(&mut db), b);
        assert!(apply_list(&mut db, &all).is_err(), "the third fails");
        assert_eq!(tables(&mut db), b, "its first statement is undone");
        let rows = db.query("SELECT x FROM b", &[]).expect("readable");
        assert_eq!(rows.len(), 1, "the second was applied once");
        let newer = apply_list(&mut db, &all[..1]).expect_err("of version 2");
        assert!(
            matches!(newer, StoreError::Newer { found: 2, known: 1 }),
            "{newer}"
        );
    }
}
