//! Which changes of a fleet's stream count: a change counts unless a change of a newer lease of the
//! same camera stands before it in the stream.
//!
//! Several programs may read the stream at once and store what they read in any order. For each
//! lease of a camera, the history therefore keeps the lowest known place in the stream. A change of
//! an older lease that stands behind it is not stored, and is deleted if it was stored before the
//! newer lease was known. The lock keeps two programs from doing this at the same time.

use crate::store::database::Database;
use crate::store::error::StoreError;

/// Key of the lock of transactions with changes that need a turn in PostgreSQL
/// ([`crate::store::rows::Change::needs_turn`]); an SQLite file has one writer.
pub(super) const LOCK: i64 = 0x7477_6c65_6173_6573;

/// Tables with places in a stream.
const TABLES: [&str; 3] = ["tracks", "events", "camera_status"];

/// The place of a change in a stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// Key of the camera.
    pub camera: i64,
    pub lease: i64,
    /// Sequence number in the stream.
    pub position: i64,
}

impl Place {
    /// Records the lease's place, and deletes the stored changes of older leases that stand behind
    /// it. Returns whether the change counts.
    ///
    /// # Errors
    /// When a statement fails.
    pub fn counts(&self, db: &mut dyn Database) -> Result<bool, StoreError> {
        let newer = db.query(
            "SELECT 1 FROM leases WHERE camera_id = ? AND lease > ? AND position < ? LIMIT 1",
            &[self.camera.into(), self.lease.into(), self.position.into()],
        )?;
        if !newer.is_empty() {
            return Ok(false);
        }
        let lowered = db.query(
            "INSERT INTO leases (camera_id, lease, position) VALUES (?, ?, ?)
             ON CONFLICT (camera_id, lease) DO UPDATE SET position = excluded.position
             WHERE excluded.position < leases.position RETURNING lease",
            &[self.camera.into(), self.lease.into(), self.position.into()],
        )?;
        if !lowered.is_empty() {
            for table in TABLES {
                let sql = format!(
                    "DELETE FROM {table} WHERE camera_id = ? AND position > ? AND lease < ?"
                );
                let values = [self.camera.into(), self.position.into(), self.lease.into()];
                db.execute(&sql, &values)?;
            }
        }
        Ok(true)
    }

    /// Stores lease and position in the row of `table` that has this run, this camera, and `value`
    /// in `column`.
    ///
    /// # Errors
    /// When the statement fails.
    pub fn mark(
        &self,
        db: &mut dyn Database,
        table: &str,
        run: i64,
        (column, value): (&str, i64),
    ) -> Result<(), StoreError> {
        let sql = format!(
            "UPDATE {table} SET lease = ?, position = ?
             WHERE run_id = ? AND camera_id = ? AND {column} = ?"
        );
        let values = [
            self.lease.into(),
            self.position.into(),
            run.into(),
            self.camera.into(),
            value.into(),
        ];
        db.execute(&sql, &values).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::CameraState;
    use crate::store::migrations;
    use crate::store::rows::{Change, Published, timestamp};
    use crate::store::sqlite::Sqlite;
    use crate::store::write::{NameChanges, Rows};
    use crate::trajectory::{RunId, StatusEvent};

    /// A change of state at a place in the stream; its time in milliseconds is its position.
    fn status(lease: u64, position: u64) -> Change {
        let (run, at) = (RunId::nil(), timestamp(position as i64));
        let status = StatusEvent::at(at, run, "gate".into(), CameraState::Online, None);
        Change::Published(Box::new(Published {
            camera: "gate".into(),
            lease,
            position,
            change: Change::Status(status),
        }))
    }

    /// Applies changes, (lease, position) in the order of reading. Returns the positions of those
    /// that are stored at the end, and the number of outdated ones.
    fn stored(order: &[(u64, u64)]) -> (Vec<i64>, u64) {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let mut db = Sqlite::open(file.path()).expect("opened");
        migrations::apply(&mut db).expect("migrated");
        let mut rows = Rows::default();
        for &(lease, position) in order {
            let change = status(lease, position);
            rows.apply(&mut db, &change, &NameChanges::new())
                .expect("applied");
        }
        let sql = "SELECT position FROM camera_status ORDER BY position";
        let found = db.query(sql, &[]).expect("readable");
        let places = found.iter().map(|r| r.int(0).expect("a place")).collect();
        (places, rows.outdated())
    }

    #[test]
    fn what_an_older_lease_wrote_behind_a_newer_one_does_not_count_in_any_order_of_reading() {
        // In the stream: lease 5 at 1 and 2, lease 9 at 3, a late write of lease 5 at 4, lease 9 at
        // 5.
        let stream = [(5, 1), (5, 2), (9, 3), (5, 4), (9, 5)];
        assert_eq!(stored(&stream), (vec![1, 2, 3, 5], 1));
        let reversed: Vec<_> = stream.iter().rev().copied().collect();
        assert_eq!(stored(&reversed).0, [1, 2, 3, 5]);
        let zombie_first = [(5, 4), (5, 1), (9, 5), (9, 3), (5, 2)];
        assert_eq!(stored(&zombie_first).0, [1, 2, 3, 5]);
        // A repetition changes nothing.
        let twice: Vec<_> = stream.iter().chain(&stream).copied().collect();
        assert_eq!(stored(&twice).0, [1, 2, 3, 5]);
    }
}
