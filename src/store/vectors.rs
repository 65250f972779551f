//! Search among embeddings in memory: int8 copies are scanned by all cores, and the best are then
//! compared exactly by the caller.
//!
//! A scan reads one byte per dimension of each embedding, so its time is that of reading the
//! memory: 128 MB for a million of 128 dimensions.

use std::sync::atomic::{AtomicUsize, Ordering};

use pulp::{Arch, Simd, WithSimd};

/// Embeddings in a block.
const BLOCK: usize = 1 << 15;
/// Embeddings whose products are computed before they are compared.
const CHUNK: usize = 256;

/// What is known about an embedding besides its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Key of the embedding.
    pub id: i64,
    /// Key of the camera.
    pub camera: i64,
    /// Times of the track's first and last detection, in milliseconds since 1970.
    pub time: (i64, i64),
}

/// Which embeddings are searched; absent fields do not restrict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EntryFilter {
    /// Key of the camera.
    pub camera: Option<i64>,
    /// Tracks that were there at this time or later, in milliseconds since 1970.
    pub from: Option<i64>,
    /// Tracks that began before this time.
    pub to: Option<i64>,
}

impl EntryFilter {
    fn admits(self, entry: &Entry) -> bool {
        self.camera.is_none_or(|c| c == entry.camera)
            && self.from.is_none_or(|t| entry.time.1 >= t)
            && self.to.is_none_or(|t| entry.time.0 < t)
    }
}

/// Consecutive embeddings.
#[derive(Debug, Default)]
struct Block {
    /// In ascending order of id.
    entries: Vec<Entry>,
    /// Factor by which the numbers of an embedding were divided; 0: removed.
    scales: Vec<f32>,
    /// The numbers, [entries, dimension].
    numbers: Vec<i8>,
}

/// The embeddings of one embedder.
#[derive(Debug)]
pub struct VectorIndex {
    dimension: usize,
    /// Most embeddings; the oldest blocks beyond it are dropped.
    most: usize,
    blocks: Vec<Block>,
}

/// Bytes in memory of an embedding of `dimension`.
pub fn bytes_each(dimension: usize) -> usize {
    dimension + size_of::<Entry>() + size_of::<f32>()
}

/// An embedding as int8 and the factor of its numbers. A vector of zeros gets the factor 1.
fn quantised(embedding: &[f32]) -> (f32, impl Iterator<Item = i8> + '_) {
    let largest = embedding.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    let scale = if largest > 0.0 { largest / 127.0 } else { 1.0 };
    (
        scale,
        embedding.iter().map(move |v| (v / scale).round() as i8),
    )
}

/// Approximate cosines of embeddings to a query, up to the query's factor.
struct Scores<'a> {
    /// [rows, dimension].
    numbers: &'a [i8],
    scales: &'a [f32],
    /// [dimension]. Two bytes each, so that a product of two needs no further conversion.
    query: &'a [i16],
    scores: &'a mut [f32],
}

impl WithSimd for Scores<'_> {
    type Output = ();

    // The loops become vector instructions only where they are inlined into the function of the
    // processor's instruction set; a closure is not.
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let rows = self.numbers.chunks_exact(self.query.len());
        for ((row, scale), score) in rows.zip(self.scales).zip(self.scores) {
            let mut sum = 0i32;
            for (x, y) in row.iter().zip(self.query) {
                sum += i32::from(*x) * i32::from(*y);
            }
            *score = sum as f32 * scale;
        }
    }
}

impl VectorIndex {
    /// An empty index for embeddings of `dimension`, with at most `memory` bytes.
    pub fn new(dimension: usize, memory: u64) -> Self {
        let most = memory as usize / bytes_each(dimension);
        VectorIndex {
            dimension,
            most: most.max(1),
            blocks: Vec::new(),
        }
    }

    /// Number of embeddings, including those that have been removed.
    pub fn len(&self) -> usize {
        self.blocks.iter().map(|b| b.entries.len()).sum()
    }

    /// Whether it holds no embedding.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Key of the last embedding; 0 if there is none.
    pub fn last(&self) -> i64 {
        let entry = self.blocks.last().and_then(|b| b.entries.last());
        entry.map_or(0, |e| e.id)
    }

    /// Adds an embedding. It is left out if its key is not higher than all before, or its dimension
    /// is not that of the index.
    pub fn push(&mut self, entry: Entry, embedding: &[f32]) {
        if embedding.len() != self.dimension || entry.id <= self.last() {
            return;
        }
        let capacity = BLOCK.min(self.most);
        if self
            .blocks
            .last()
            .is_none_or(|b| b.entries.len() >= capacity)
        {
            while !self.blocks.is_empty() && self.len() + capacity > self.most {
                self.blocks.remove(0);
            }
            self.blocks.push(Block {
                numbers: Vec::with_capacity(capacity * self.dimension),
                ..Block::default()
            });
        }
        if let Some(block) = self.blocks.last_mut() {
            let (scale, numbers) = quantised(embedding);
            block.entries.push(entry);
            block.scales.push(scale);
            block.numbers.extend(numbers);
        }
    }

    /// Removes embeddings, by key, and overwrites their numbers.
    pub fn remove(&mut self, ids: &[i64]) {
        for id in ids {
            let after = |b: &Block| b.entries.last().is_some_and(|e| e.id < *id);
            let at = self.blocks.partition_point(after);
            let Some(block) = self.blocks.get_mut(at) else {
                continue;
            };
            if let Ok(n) = block.entries.binary_search_by_key(id, |e| e.id) {
                block.scales[n] = 0.0;
                block.numbers[n * self.dimension..][..self.dimension].fill(0);
            }
        }
    }

    /// Drops the blocks that only hold keys below `id`.
    pub fn drop_before(&mut self, id: i64) {
        self.blocks
            .retain(|b| b.entries.last().is_some_and(|e| e.id >= id));
    }

    /// The keys of about the `count` embeddings with the greatest approximate cosine to `query`,
    /// from the greatest. The error of the approximation is that of rounding to 8 bits.
    pub fn nearest(&self, query: &[f32], count: usize, filter: EntryFilter) -> Vec<i64> {
        if query.len() != self.dimension || count == 0 {
            return Vec::new();
        }
        let (_, numbers) = quantised(query);
        let query: Vec<i16> = numbers.map(i16::from).collect();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = cores.min(self.blocks.len()).min(8);
        let next = AtomicUsize::new(0);
        // Asks the processor for its instruction sets, which takes long in a virtual machine.
        let arch = Arch::new();
        let scan = || {
            let mut best = Best::new(count);
            while let Some(block) = self.blocks.get(next.fetch_add(1, Ordering::Relaxed)) {
                block.scan(arch, &query, filter, &mut best);
            }
            best.scores
        };
        let mut all: Vec<(f32, i64)> = if threads <= 1 {
            scan()
        } else {
            std::thread::scope(|scope| {
                let others: Vec<_> = (1..threads).map(|_| scope.spawn(scan)).collect();
                let mut all = scan();
                for other in others {
                    all.extend(other.join().unwrap_or_default());
                }
                all
            })
        };
        all.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)));
        all.truncate(count);
        all.into_iter().map(|(_, id)| id).collect()
    }
}

impl Block {
    fn scan(&self, arch: Arch, query: &[i16], filter: EntryFilter, best: &mut Best) {
        let dimension = query.len();
        let mut scores = [0.0f32; CHUNK];
        let chunks = self.numbers.chunks(CHUNK * dimension);
        for (chunk, numbers) in chunks.enumerate() {
            let from = chunk * CHUNK;
            let rows = numbers.len() / dimension;
            let scales = &self.scales[from..from + rows];
            arch.dispatch(Scores {
                numbers,
                scales,
                query,
                scores: &mut scores,
            });
            for (n, score) in scores[..rows].iter().enumerate() {
                if *score > best.least && scales[n] > 0.0 && filter.admits(&self.entries[from + n])
                {
                    best.add(*score, self.entries[from + n].id);
                }
            }
        }
    }
}

/// The greatest scores so far.
struct Best {
    count: usize,
    /// A score that is not greater than this cannot be among the `count` greatest.
    least: f32,
    scores: Vec<(f32, i64)>,
}

impl Best {
    fn new(count: usize) -> Self {
        Best {
            count,
            least: f32::NEG_INFINITY,
            scores: Vec::with_capacity(4 * count),
        }
    }

    fn add(&mut self, score: f32, id: i64) {
        self.scores.push((score, id));
        if self.scores.len() >= 4 * self.count {
            let order = |a: &(f32, i64), b: &(f32, i64)| b.0.total_cmp(&a.0);
            self.scores.select_nth_unstable_by(self.count - 1, order);
            self.scores.truncate(self.count);
            self.least = self.scores[self.count - 1].0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: i64) -> Entry {
        Entry {
            id,
            camera: id % 3,
            time: (1000 * id, 1000 * id + 500),
        }
    }

    fn random(random: &mut fastrand::Rng, dimension: usize) -> Vec<f32> {
        let v: Vec<f32> = (0..dimension).map(|_| random.f32() - 0.5).collect();
        let length = v.iter().map(|x| x * x).sum::<f32>().sqrt();
        v.iter().map(|x| x / length).collect()
    }

    fn cosine(a: &[f32], b: &[f32]) -> f32 {
        a.iter().zip(b).map(|(x, y)| x * y).sum()
    }

    #[test]
    fn the_nearest_of_several_blocks_are_among_those_found() {
        let mut rng = fastrand::Rng::with_seed(3);
        let rows: Vec<Vec<f32>> = (0..70_000).map(|_| random(&mut rng, 24)).collect();
        let mut index = VectorIndex::new(24, 1 << 30);
        for (n, row) in rows.iter().enumerate() {
            index.push(entry(n as i64 + 1), row);
        }
        assert!(index.blocks.len() > 2);
        for _ in 0..20 {
            let query = random(&mut rng, 24);
            let mut exact: Vec<(f32, i64)> = (1..)
                .zip(&rows)
                .map(|(id, r)| (cosine(r, &query), id))
                .collect();
            exact.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
            let found = index.nearest(&query, 60, EntryFilter::default());
            assert_eq!(found.len(), 60);
            for (_, id) in &exact[..10] {
                assert!(found.contains(id), "{id} is not in {found:?}");
            }
        }
    }

    #[test]
    fn filters_removal_and_the_limit_of_memory_are_obeyed() {
        let mut rng = fastrand::Rng::with_seed(4);
        let query = random(&mut rng, 8);
        let mut index = VectorIndex::new(8, (50 * bytes_each(8)) as u64);
        for id in 1..=40 {
            index.push(entry(id), &query);
        }
        index.push(entry(40), &query);
        index.push(entry(41), &query[..7]);
        assert_eq!(
            (index.len(), index.last()),
            (40, 40),
            "a repetition, another dimension"
        );
        let of = |index: &VectorIndex, filter| {
            let mut ids = index.nearest(&query, 100, filter);
            ids.sort_unstable();
            ids
        };
        let filter = EntryFilter {
            camera: Some(1),
            from: Some(10_000),
            to: Some(20_000),
        };
        assert_eq!(of(&index, filter), [10, 13, 16, 19]);
        index.remove(&[13, 99, -1]);
        assert_eq!(of(&index, filter), [10, 16, 19]);
        for id in 41..=120 {
            index.push(entry(id), &query);
        }
        assert!(index.len() <= 50, "{} embeddings", index.len());
        assert_eq!(index.last(), 120);
        assert!(
            !of(&index, EntryFilter::default()).contains(&1),
            "the oldest is dropped"
        );
        index.drop_before(1000);
        assert!(index.is_empty());
    }
}
