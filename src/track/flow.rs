//! Sparse assignment for offline linking: data association as a min-cost flow.
//!
//! Zhang et al. 2008 and Leal-Taixé et al. 2016 formulate tracking as a flow of unit capacity
//! through detections. Since every tracklet can begin and end a trajectory, the flow is an
//! assignment of ends (rows) to beginnings (columns) with a cost for each unassigned row. It is
//! solved exactly by successive shortest augmenting paths with prices (Jonker and Volgenant 1987)
//! on the sparse graph. Memory is linear in the number of pairs. Paths are short, because at each
//! row the path can end by leaving that row unassigned.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::track::assignment::{Candidate, MAX_COST};

const NONE: usize = usize::MAX;

/// Entry of the search heap, which returns the nearest column first. Equal distances are ordered by
/// column, so that the result is deterministic.
#[derive(PartialEq)]
struct Reached {
    distance: f64,
    column: usize,
}

impl Eq for Reached {}

impl Ord for Reached {
    fn cmp(&self, other: &Self) -> Ordering {
        other
            .distance
            .total_cmp(&self.distance)
            .then_with(|| other.column.cmp(&self.column))
    }
}

impl PartialOrd for Reached {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The pairs (row, column) of least total cost, sorted by row; an unassigned row costs `alone`.
/// Gives the same total as [`crate::track::assignment::Assignment`], for graphs too large for a
/// dense matrix.
pub fn solve(
    rows: usize,
    columns: usize,
    candidates: &[Candidate],
    alone: f32,
) -> Vec<(usize, usize)> {
    let alone = alone.min(MAX_COST);
    // One additional column per row represents leaving the row unassigned; these columns follow the
    // real ones.
    let mut edges: Vec<Vec<(usize, f64)>> = vec![Vec::new(); rows];
    for c in candidates.iter().filter(|c| c.is_allowed(alone)) {
        edges[c.row].push((c.column, f64::from(c.cost)));
    }
    for (row, list) in edges.iter_mut().enumerate() {
        list.push((columns + row, f64::from(alone)));
        list.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
        list.dedup_by_key(|e| e.0);
    }
    let mut search = Search::new(edges, columns + rows);
    (0..rows).for_each(|row| search.augment(row));
    search
        .column_of_row
        .iter()
        .enumerate()
        .filter(|(_, c)| **c < columns)
        .map(|(r, c)| (r, *c))
        .collect()
}

struct Search {
    edges: Vec<Vec<(usize, f64)>>,
    column_of_row: Vec<usize>,
    row_of_column: Vec<usize>,
    row_price: Vec<f64>,
    column_price: Vec<f64>,
    distance: Vec<f64>,
    came_from: Vec<usize>,
    /// Columns whose distance is finite; emptied after each search.
    touched: Vec<usize>,
    /// Columns whose shortest path is known; emptied after each search.
    finished: Vec<usize>,
    /// Whether a column is in `finished`. By rounding, a later path to such a column can seem
    /// shorter; to follow it would create a cycle.
    is_finished: Vec<bool>,
}

impl Search {
    fn new(edges: Vec<Vec<(usize, f64)>>, columns: usize) -> Self {
        let rows = edges.len();
        Search {
            edges,
            column_of_row: vec![NONE; rows],
            row_of_column: vec![NONE; columns],
            row_price: vec![0.0; rows],
            column_price: vec![0.0; columns],
            distance: vec![f64::INFINITY; columns],
            came_from: vec![NONE; columns],
            touched: Vec::new(),
            finished: Vec::new(),
            is_finished: vec![false; columns],
        }
    }

    /// Assigns the row `start`, and reassigns other rows where this reduces the total cost.
    fn augment(&mut self, start: usize) {
        let mut heap = BinaryHeap::new();
        let (mut row, mut reached) = (start, 0.0);
        let sink = loop {
            for &(column, cost) in self.edges[row].iter().filter(|e| !self.is_finished[e.0]) {
                let d = reached + cost - self.row_price[row] - self.column_price[column];
                if d < self.distance[column] {
                    if self.distance[column].is_infinite() {
                        self.touched.push(column);
                    }
                    self.distance[column] = d;
                    self.came_from[column] = row;
                    heap.push(Reached {
                        distance: d,
                        column,
                    });
                }
            }
            // Each row can be left unassigned, so the search ends at a row's additional column at
            // the latest.
            let Some(next) = heap.pop() else { break NONE };
            if self.is_finished[next.column] || next.distance > self.distance[next.column] {
                continue; // an outdated, longer path to this column
            }
            reached = next.distance;
            match self.row_of_column[next.column] {
                NONE => break next.column,
                taken_by => {
                    self.finished.push(next.column);
                    self.is_finished[next.column] = true;
                    row = taken_by;
                }
            }
        };
        self.row_price[start] += reached;
        for &column in &self.finished {
            let slack = reached - self.distance[column];
            self.column_price[column] -= slack;
            self.row_price[self.row_of_column[column]] += slack;
        }
        let mut column = sink;
        while column != NONE {
            let r = self.came_from[column];
            self.row_of_column[column] = r;
            column = std::mem::replace(&mut self.column_of_row[r], column);
        }
        for column in self.touched.drain(..) {
            self.distance[column] = f64::INFINITY;
        }
        for column in self.finished.drain(..) {
            self.is_finished[column] = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::track::assignment::Assignment;
    use proptest::prelude::*;

    fn total(pairs: &[(usize, usize)], rows: usize, candidates: &[Candidate], alone: f32) -> f64 {
        let cost = |&(r, c): &(usize, usize)| {
            let of_pair = candidates
                .iter()
                .filter(|k| (k.row, k.column) == (r, c))
                .map(|k| f64::from(k.cost));
            of_pair.fold(f64::INFINITY, f64::min)
        };
        pairs.iter().map(cost).sum::<f64>() + f64::from(alone) * (rows - pairs.len()) as f64
    }

    proptest! {
        #[test]
        fn total_cost_equals_the_dense_solvers(
            list in prop::collection::vec((0usize..12, 0usize..12, -100i8..100), 0..60),
            alone in 0.1f32..2.0,
        ) {
            let candidate = |&(row, column, c): &(usize, usize, i8)| {
                Candidate { row, column, cost: f32::from(c) / 50.0 }
            };
            let candidates: Vec<Candidate> = list.iter().map(candidate).collect();
            let sparse = solve(12, 12, &candidates, alone);
            let dense = Assignment::default().solve(12, 12, &candidates, alone);
            let mut columns: Vec<usize> = sparse.iter().map(|p| p.1).collect();
            columns.sort_unstable();
            columns.dedup();
            prop_assert_eq!(columns.len(), sparse.len(), "a column was used twice");
            let cost = |pairs: &[(usize, usize)]| total(pairs, 12, &candidates, alone);
            prop_assert!((cost(&sparse) - cost(&dense)).abs() < 1e-4);
        }
    }

    #[test]
    fn a_long_chain_of_rows_is_reassigned() {
        // Row r prefers column r, but the last row can only take column 0: every other row must
        // take the next column.
        let n = 2000;
        let mut candidates: Vec<Candidate> = (0..n - 1)
            .flat_map(|r| {
                [(r, 0.0), (r + 1, 0.1)].map(|(column, cost)| Candidate {
                    row: r,
                    column,
                    cost,
                })
            })
            .collect();
        candidates.push(Candidate {
            row: n - 1,
            column: 0,
            cost: 0.0,
        });
        let pairs = solve(n, n, &candidates, 1000.0);
        assert_eq!(pairs.len(), n);
        assert!(pairs[..n - 1].iter().all(|&(r, c)| c == r + 1) && pairs[n - 1] == (n - 1, 0));
    }
}
