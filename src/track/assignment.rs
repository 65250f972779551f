//! Optimal assignment of detections to tracks: the set of pairs with the least total cost.
//!
//! Pairs that cost at least the limit are not allowed. An unassigned row costs the limit. The
//! bipartite graph of allowed pairs decomposes into connected groups of people near each other.
//! Each group is solved by shortest augmenting paths (Jonker and Volgenant 1987, in the rectangular
//! form of Crouse 2016), so that the computing time depends on the sizes of the groups, not on the
//! number of people in the frame.

/// A candidate pair: row, column, cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// Row (a track).
    pub row: usize,
    /// Column (a detection).
    pub column: usize,
    /// Cost of the pair. A pair is ignored if its cost is at least the limit, NaN, or below
    /// -[`MAX_COST`].
    pub cost: f32,
}

/// Largest magnitude of a cost or limit. It keeps all sums finite, so that the search terminates on
/// any input.
pub const MAX_COST: f32 = 1e9;

impl Candidate {
    /// Whether the pair may be assigned if an unassigned row costs `limit`.
    pub(super) fn is_allowed(&self, limit: f32) -> bool {
        self.cost < limit && self.cost >= -MAX_COST
    }
}

/// Solver of assignment problems that reuses its buffers between frames.
#[derive(Debug, Default)]
pub struct Assignment {
    group_of_row: Vec<usize>,
    parent: Vec<usize>,
    number: Vec<usize>,
    order: Vec<usize>,
    members: Vec<Candidate>,
    rows: Vec<usize>,
    columns: Vec<usize>,
    matrix: Vec<f32>,
    solver: Solver,
}

const NONE: usize = usize::MAX;

impl Assignment {
    /// The pairs (row, column) of least total cost, sorted by row; an unassigned row costs `limit`.
    /// Candidates at or above the limit are ignored.
    pub fn solve(
        &mut self,
        rows: usize,
        columns: usize,
        candidates: &[Candidate],
        limit: f32,
    ) -> Vec<(usize, usize)> {
        let mut pairs = Vec::with_capacity(rows.min(columns));
        self.solve_into(&mut pairs, rows, columns, candidates, limit);
        pairs
    }

    /// As [`Assignment::solve`], but writes the pairs to a list, whose previous contents are
    /// removed.
    pub fn solve_into(
        &mut self,
        pairs: &mut Vec<(usize, usize)>,
        rows: usize,
        columns: usize,
        candidates: &[Candidate],
        limit: f32,
    ) {
        let limit = limit.min(MAX_COST);
        pairs.clear();
        let groups = self.connect(rows, columns, candidates, limit);
        self.order.clear();
        self.order
            .extend((0..candidates.len()).filter(|&i| candidates[i].is_allowed(limit)));
        let group_of_row = &self.group_of_row;
        self.order
            .sort_unstable_by_key(|&i| (group_of_row[candidates[i].row], i));
        let mut members = std::mem::take(&mut self.members);
        let mut at = 0;
        for group in 0..groups {
            let start = at;
            while at < self.order.len()
                && self.group_of_row[candidates[self.order[at]].row] == group
            {
                at += 1;
            }
            members.clear();
            members.extend(self.order[start..at].iter().map(|&i| candidates[i]));
            self.solve_group(&members, limit, pairs);
        }
        self.members = members;
        pairs.sort_unstable();
    }

    /// Numbers the connected groups of rows and returns the number of groups. A column without an
    /// allowed pair belongs to no group.
    fn connect(
        &mut self,
        rows: usize,
        columns: usize,
        candidates: &[Candidate],
        limit: f32,
    ) -> usize {
        let (parent, number) = (&mut self.parent, &mut self.number);
        parent.clear();
        parent.extend(0..rows + columns);
        fn root(parent: &mut [usize], mut i: usize) -> usize {
            while parent[i] != i {
                parent[i] = parent[parent[i]];
                i = parent[i];
            }
            i
        }
        for c in candidates.iter().filter(|c| c.is_allowed(limit)) {
            let (a, b) = (root(parent, c.row), root(parent, rows + c.column));
            parent[a.max(b)] = a.min(b);
        }
        number.clear();
        number.resize(rows + columns, NONE);
        let mut groups = 0;
        self.group_of_row.clear();
        for i in 0..rows {
            let r = root(parent, i);
            if number[r] == NONE {
                number[r] = groups;
                groups += 1;
            }
            self.group_of_row.push(number[r]);
        }
        groups
    }

    fn solve_group(&mut self, members: &[Candidate], limit: f32, pairs: &mut Vec<(usize, usize)>) {
        if let [only] = members {
            pairs.push((only.row, only.column));
            return;
        }
        if members.is_empty() {
            return;
        }
        for (list, pick) in [
            (&mut self.rows, (|c| c.row) as fn(&Candidate) -> usize),
            (&mut self.columns, |c: &Candidate| c.column),
        ] {
            list.clear();
            list.extend(members.iter().map(pick));
            list.sort_unstable();
            list.dedup();
        }
        // One additional column per row represents leaving the row unassigned, at the cost `limit`.
        let (n, m) = (self.rows.len(), self.columns.len());
        let width = m + n;
        self.matrix.clear();
        self.matrix.resize(n * width, f32::INFINITY);
        for c in members {
            let (r, k) = (
                position(&self.rows, c.row),
                position(&self.columns, c.column),
            );
            let cell = &mut self.matrix[r * width + k];
            *cell = cell.min(c.cost);
        }
        for r in 0..n {
            self.matrix[r * width + m + r] = limit;
        }
        self.solver.solve(n, width, &self.matrix);
        for (r, &k) in self.solver.column_of_row.iter().enumerate() {
            if k < m {
                pairs.push((self.rows[r], self.columns[k]));
            }
        }
    }
}

fn position(sorted: &[usize], value: usize) -> usize {
    sorted
        .binary_search(&value)
        .expect("the list contains every value looked up")
}

/// Shortest augmenting paths on a dense matrix. It needs at least as many columns as rows, and a
/// finite cost in every row.
#[derive(Debug, Default)]
struct Solver {
    column_of_row: Vec<usize>,
    row_of_column: Vec<usize>,
    row_price: Vec<f32>,
    column_price: Vec<f32>,
    distance: Vec<f32>,
    previous_row: Vec<usize>,
    done: Vec<bool>,
}

impl Solver {
    fn solve(&mut self, rows: usize, columns: usize, matrix: &[f32]) {
        fill(&mut self.column_of_row, rows, NONE);
        fill(&mut self.row_of_column, columns, NONE);
        fill(&mut self.row_price, rows, 0.0);
        fill(&mut self.column_price, columns, 0.0);
        for start in 0..rows {
            fill(&mut self.distance, columns, f32::INFINITY);
            fill(&mut self.previous_row, columns, NONE);
            fill(&mut self.done, columns, false);
            let (mut row, mut reached) = (start, 0.0f32);
            let sink = loop {
                let mut nearest = NONE;
                for k in (0..columns).filter(|&k| !self.done[k]) {
                    let d = reached + matrix[row * columns + k]
                        - self.row_price[row]
                        - self.column_price[k];
                    if d < self.distance[k] {
                        self.distance[k] = d;
                        self.previous_row[k] = row;
                    }
                }
                let mut least = f32::INFINITY;
                for k in (0..columns).filter(|&k| !self.done[k]) {
                    // At equal distances an unassigned column is preferred, because it ends the
                    // path.
                    if self.distance[k] < least
                        || (self.distance[k] == least
                            && nearest != NONE
                            && self.row_of_column[k] == NONE)
                    {
                        least = self.distance[k];
                        nearest = k;
                    }
                }
                self.done[nearest] = true;
                reached = least;
                match self.row_of_column[nearest] {
                    NONE => break nearest,
                    next => row = next,
                }
            };
            self.row_price[start] += reached;
            for k in (0..columns).filter(|&k| self.done[k] && k != sink) {
                let slack = reached - self.distance[k];
                self.column_price[k] -= slack;
                self.row_price[self.row_of_column[k]] += slack;
            }
            let mut k = sink;
            loop {
                let r = self.previous_row[k];
                self.row_of_column[k] = r;
                std::mem::swap(&mut self.column_of_row[r], &mut k);
                if r == start {
                    break;
                }
            }
        }
    }
}

fn fill<T: Clone>(list: &mut Vec<T>, len: usize, value: T) {
    list.clear();
    list.resize(len, value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn total(pairs: &[(usize, usize)], rows: usize, costs: &[Vec<Option<f32>>], limit: f32) -> f64 {
        let made: f64 = pairs
            .iter()
            .map(|&(r, k)| f64::from(costs[r][k].expect("only allowed pairs are made")))
            .sum();
        made + f64::from(limit) * (rows - pairs.len()) as f64
    }

    /// The least total cost, by exhaustive search.
    fn brute_force(
        row: usize,
        taken: &mut Vec<bool>,
        costs: &[Vec<Option<f32>>],
        limit: f32,
    ) -> f64 {
        let Some(line) = costs.get(row) else {
            return 0.0;
        };
        let mut best = f64::from(limit) + brute_force(row + 1, taken, costs, limit);
        for (k, c) in line.iter().enumerate() {
            if let (Some(c), false) = (c, taken[k]) {
                taken[k] = true;
                best = best.min(f64::from(*c) + brute_force(row + 1, taken, costs, limit));
                taken[k] = false;
            }
        }
        best
    }

    fn matrix() -> impl Strategy<Value = Vec<Vec<Option<f32>>>> {
        (1usize..6, 1usize..6).prop_flat_map(|(n, m)| {
            prop::collection::vec(
                prop::collection::vec(
                    prop::option::weighted(0.6, (0u8..100).prop_map(|v| f32::from(v) / 50.0)),
                    m,
                ),
                n,
            )
        })
    }

    proptest! {
        #[test]
        fn no_other_assignment_is_cheaper(costs in matrix(), limit in 0.1f32..2.0) {
            let (n, m) = (costs.len(), costs[0].len());
            let candidate = |(i, c): (usize, &Option<f32>)| {
                c.map(|cost| Candidate { row: i / m, column: i % m, cost })
            };
            let candidates: Vec<Candidate> =
                costs.iter().flatten().enumerate().filter_map(candidate).collect();
            let pairs = Assignment::default().solve(n, m, &candidates, limit);
            let mut columns: Vec<usize> = pairs.iter().map(|p| p.1).collect();
            columns.sort_unstable();
            columns.dedup();
            prop_assert_eq!(columns.len(), pairs.len(), "a column was used twice");
            let best = brute_force(0, &mut vec![false; m], &costs, limit);
            prop_assert!((total(&pairs, n, &costs, limit) - best).abs() < 1e-4);
        }

    }

    /// Any bit pattern of a float, including NaN, infinities and the extremes.
    fn any_costs() -> impl Strategy<Value = (usize, usize, Vec<f32>, f32)> {
        (1usize..6, 1usize..6).prop_flat_map(|(n, m)| {
            (
                Just(n),
                Just(m),
                prop::collection::vec(any::<u32>().prop_map(f32::from_bits), n * m),
                any::<f32>(),
            )
        })
    }

    proptest! {
        #[test]
        fn solvers_terminate_on_any_costs((n, m, costs, limit) in any_costs()) {
            let candidate = |(i, &cost): (usize, &f32)| Candidate { row: i / m, column: i % m, cost };
            let candidates: Vec<Candidate> = costs.iter().enumerate().map(candidate).collect();
            for pairs in [
                Assignment::default().solve(n, m, &candidates, limit),
                crate::track::flow::solve(n, m, &candidates, limit),
            ] {
                prop_assert!(pairs.iter().all(|&(r, k)| r < n && k < m));
                prop_assert!(pairs.iter().all(|&(r, k)| costs[r * m + k].is_finite()));
                prop_assert!(pairs.windows(2).all(|p| p[0].0 < p[1].0), "a row was used twice");
            }
        }
    }

    #[test]
    fn costs_that_are_not_finite_are_ignored() {
        let c = |row, column, cost| Candidate { row, column, cost };
        let pairs = Assignment::default().solve(
            2,
            2,
            &[
                c(0, 0, f32::NAN),
                c(0, 1, 0.2),
                c(1, 0, 0.4),
                c(1, 1, f32::NEG_INFINITY),
            ],
            1.0,
        );
        assert_eq!(pairs, [(0, 1), (1, 0)]);
    }

    #[test]
    fn a_pair_above_the_limit_is_not_assigned() {
        let c = [Candidate {
            row: 0,
            column: 0,
            cost: 0.9,
        }];
        assert!(Assignment::default().solve(1, 1, &c, 0.8).is_empty());
        assert_eq!(Assignment::default().solve(1, 1, &c, 1.0), [(0, 0)]);
    }

    #[test]
    fn the_total_cost_decides_not_the_best_single_pair() {
        let c = |row, column, cost| Candidate { row, column, cost };
        let pairs = Assignment::default().solve(
            2,
            2,
            &[c(0, 0, 0.1), c(0, 1, 0.2), c(1, 0, 0.15), c(1, 1, 0.9)],
            1.0,
        );
        assert_eq!(pairs, [(0, 1), (1, 0)]);
    }
}
