//! Search by embedding among the tracks of one embedder.
//!
//! PostgreSQL searches its HNSW index. For SQLite the embeddings are held in memory as int8
//! ([`crate::store::vectors`]); the best of them are read and compared exactly. Each search
//! first reads into memory the embeddings that are new in the table.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::store::database::{Database, Dialect, Value, transaction};
use crate::store::error::StoreError;
use crate::store::query::Found;
use crate::store::rows::milliseconds;
use crate::store::tracks::{by_ids, camera_id};
use crate::store::vectors::{Entry, EntryFilter, VectorIndex, bytes_each};
use crate::store::write::embedder_hash;
use crate::time::Timestamp;
use crate::track::appearance::cosine_distance;

/// Most tracks that a search finds.
pub const MAX_FOUND: usize = 1000;
/// Embeddings that are read into the memory at a time.
const READ: i64 = 5000;
/// Smallest `hnsw.ef_search`: the candidates that PostgreSQL keeps while it searches. Higher finds
/// more of the nearest and takes longer.
const EF_SEARCH: usize = 200;

/// Which tracks are searched; absent fields do not restrict.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SearchFilter {
    /// Name of the camera.
    pub camera: Option<String>,
    /// Tracks that were there at this time or later.
    pub from: Option<Timestamp>,
    /// Tracks that began before this time.
    pub to: Option<Timestamp>,
}

/// The indexes in memory, by key of the embedder.
#[derive(Debug)]
pub struct Search {
    memory: u64,
    indexes: Mutex<HashMap<i64, Arc<RwLock<VectorIndex>>>>,
}

impl Search {
    /// A search with at most `memory` bytes for each embedder.
    pub fn new(memory: u64) -> Self {
        Search {
            memory,
            indexes: Mutex::default(),
        }
    }

    /// Reads all embeddings into the memory, so that the first search does not wait for it. Does
    /// nothing with PostgreSQL.
    ///
    /// # Errors
    /// When the database fails.
    pub fn load(&self, db: &mut dyn Database) -> Result<(), StoreError> {
        if db.dialect() == Dialect::Sqlite {
            for row in db.query("SELECT id, dimension FROM embedders", &[])? {
                self.current(db, row.int(0)?, row.int(1)? as usize)?;
            }
        }
        Ok(())
    }

    /// Number of embeddings in memory.
    pub fn len(&self) -> usize {
        let indexes = self.indexes.lock().unwrap_or_else(PoisonError::into_inner);
        let each = indexes.values().map(|i| read(i).len());
        each.sum()
    }

    /// Whether no embedding is in memory.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Removes embeddings from the memory, by key.
    pub fn remove(&self, keys: &[i64]) {
        let indexes = self.indexes.lock().unwrap_or_else(PoisonError::into_inner);
        for index in indexes.values() {
            index
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(keys);
        }
    }

    /// The index of an embedder, after the embeddings that are new in the table have been added.
    fn current(
        &self,
        db: &mut dyn Database,
        embedder: i64,
        dimension: usize,
    ) -> Result<Arc<RwLock<VectorIndex>>, StoreError> {
        let index = self
            .indexes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(embedder)
            .or_insert_with(|| Arc::new(RwLock::new(VectorIndex::new(dimension, self.memory))))
            .clone();
        let mut last = read(&index).last();
        if last == 0 {
            // Of more embeddings than fit, only the newest are read.
            let most = self.memory as usize / bytes_each(dimension);
            let before = "SELECT id FROM embeddings WHERE embedder_id = ? ORDER BY id DESC \
                          LIMIT 1 OFFSET ?";
            let before = db.query(before, &[embedder.into(), (most as i64).into()])?;
            last = before.first().map_or(Ok(0), |row| row.int(0))?;
        }
        loop {
            let rows = db.query(
                "SELECT id, camera_id, first_time, last_time, embedding FROM embeddings
                 WHERE embedder_id = ? AND id > ? ORDER BY id LIMIT ?",
                &[embedder.into(), last.into(), READ.into()],
            )?;
            let mut index = index.write().unwrap_or_else(PoisonError::into_inner);
            for row in &rows {
                let entry = Entry {
                    id: row.int(0)?,
                    camera: row.int(1)?,
                    time: (row.int(2)?, row.int(3)?),
                };
                index.push(entry, &row.vector(4)?);
                last = last.max(entry.id);
            }
            if (rows.len() as i64) < READ {
                break;
            }
        }
        let first = "SELECT min(id) FROM embeddings WHERE embedder_id = ?";
        let first = db.query(first, &[embedder.into()])?;
        let first = first.first().map(|row| row.int_if_any(0)).transpose()?;
        index
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .drop_before(first.flatten().unwrap_or(i64::MAX));
        Ok(index)
    }

    /// The `k` tracks nearest to an embedding that `embedder` (name and hash) made, from the
    /// nearest. Embeddings of other networks are not searched.
    ///
    /// # Errors
    /// When `k` is not from 1 to [`MAX_FOUND`], the embedding is invalid or has another dimension
    /// than the embedder's, or the database fails.
    pub fn find(
        &self,
        db: &mut dyn Database,
        embedder: &str,
        embedding: &[f32],
        k: usize,
        filter: &SearchFilter,
    ) -> Result<Vec<Found>, StoreError> {
        let wrong = |argument, reason: String| StoreError::Argument { argument, reason };
        if !(1..=MAX_FOUND).contains(&k) {
            return Err(wrong("k", format!("it must be from 1 to {MAX_FOUND}")));
        }
        let length = embedding.iter().map(|v| v * v).sum::<f32>();
        if !length.is_finite() || length <= 0.0 {
            return Err(wrong("embedding", "it has no direction".into()));
        }
        let embedding: Vec<f32> = embedding.iter().map(|v| v / length.sqrt()).collect();
        let embedding = embedding.as_slice();
        let known = "SELECT id, dimension FROM embedders WHERE hash = ?
                     ORDER BY CASE dimension WHEN ? THEN 0 ELSE 1 END";
        let dimension = embedding.len() as i64;
        let rows = db.query(known, &[embedder_hash(embedder).into(), dimension.into()])?;
        let Some(row) = rows.first() else {
            return Ok(Vec::new());
        };
        if row.int(1)? != dimension {
            let reason = format!(
                "it has {dimension} dimensions, the stored have {}",
                row.int(1)?
            );
            return Err(wrong("embedding", reason));
        }
        let mut entries = EntryFilter {
            camera: None,
            from: filter.from.map(milliseconds),
            to: filter.to.map(milliseconds),
        };
        if let Some(camera) = &filter.camera {
            match camera_id(db, camera)? {
                Some(id) => entries.camera = Some(id),
                None => return Ok(Vec::new()),
            }
        }
        let embedder = row.int(0)?;
        let nearest = match db.dialect() {
            Dialect::Sqlite => self.in_memory(db, embedder, embedding, k, entries)?,
            Dialect::Postgres => transaction(db, |db| hnsw(db, embedder, embedding, k, entries))?,
        };
        let ids: Vec<i64> = nearest.iter().map(|(track, _)| *track).collect();
        let mut tracks = by_ids(db, &ids)?;
        let found = nearest.into_iter().filter_map(|(track, distance)| {
            let track = tracks.remove(&track)?;
            Some(Found { track, distance })
        });
        Ok(found.collect())
    }

    /// Keys of the nearest tracks with their distances, from SQLite.
    fn in_memory(
        &self,
        db: &mut dyn Database,
        embedder: i64,
        embedding: &[f32],
        k: usize,
        filter: EntryFilter,
    ) -> Result<Vec<(i64, f32)>, StoreError> {
        let index = self.current(db, embedder, embedding.len())?;
        let candidates = read(&index).nearest(embedding, 2 * k + 30, filter);
        let mut exact = Vec::with_capacity(candidates.len());
        let mut gone = Vec::new();
        for id in candidates {
            let sql = "SELECT track_id, embedding FROM embeddings WHERE id = ?";
            match db.query(sql, &[id.into()])?.first() {
                Some(row) => {
                    let distance = cosine_distance(embedding, &row.vector(1)?).unwrap_or(2.0);
                    exact.push((row.int(0)?, distance));
                }
                None => gone.push(id),
            }
        }
        if !gone.is_empty() {
            self.remove(&gone);
        }
        exact.sort_by(|a, b| a.1.total_cmp(&b.1));
        exact.truncate(k);
        Ok(exact)
    }
}

fn read(index: &RwLock<VectorIndex>) -> std::sync::RwLockReadGuard<'_, VectorIndex> {
    index.read().unwrap_or_else(PoisonError::into_inner)
}

/// Keys of the nearest tracks with their distances, from PostgreSQL.
fn hnsw(
    db: &mut dyn Database,
    embedder: i64,
    embedding: &[f32],
    k: usize,
    filter: EntryFilter,
) -> Result<Vec<(i64, f32)>, StoreError> {
    let mut settings = format!("SET LOCAL hnsw.ef_search = {}", EF_SEARCH.max(k).min(1000));
    let version = "SELECT extversion FROM pg_extension WHERE extname = 'vector'";
    let version = db.query(version, &[])?;
    let version = version.first().map(|row| row.text(0)).transpose()?;
    // From 0.8 on the search goes on until enough rows fulfil the filter.
    if has_iterative_scans(&version.unwrap_or_default()) {
        settings.push_str("; SET LOCAL hnsw.iterative_scan = strict_order");
    }
    db.batch(&settings)?;
    let mut conditions = format!("embedder_id = {embedder}");
    let mut values = Vec::new();
    let distance = format!("(embedding::vector({})) <=> ?", embedding.len());
    let filters = [
        ("camera_id = ?", filter.camera),
        ("last_time >= ?", filter.from),
        ("first_time < ?", filter.to),
    ];
    values.push(Value::Vector(embedding.to_vec()));
    for (condition, value) in filters {
        if let Some(value) = value {
            conditions.push_str(&format!(" AND {condition}"));
            values.push(value.into());
        }
    }
    values.push((k as i64).into());
    let sql = format!(
        "SELECT track_id, distance FROM (
             SELECT track_id, {distance} AS distance FROM embeddings WHERE {conditions}
             ORDER BY distance LIMIT ?
         ) AS nearest ORDER BY distance"
    );
    let rows = db.query(&sql, &values)?;
    rows.iter()
        .map(|row| Ok((row.int(0)?, row.real(1)? as f32)))
        .collect()
}

/// Whether pgvector of this version has iterative scans: 0.8 or later.
fn has_iterative_scans(version: &str) -> bool {
    let mut numbers = version.split('.').map(|n| n.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (0, 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Regression: versions before 0.7 were taken for newer ones, which know the setting.
    #[test]
    fn iterative_scans_need_pgvector_0_8() {
        assert!(
            ["0.8.0", "0.10.1", "1.0"]
                .iter()
                .all(|v| has_iterative_scans(v))
        );
        assert!(
            !["0.5.1", "0.6.0", "0.7.4", ""]
                .iter()
                .any(|v| has_iterative_scans(v))
        );
    }
}
