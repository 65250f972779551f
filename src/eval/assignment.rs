//! Assignment of largest total weight, on dense matrices.
//!
//! The evaluation does not use the tracker's solver, because the evaluation needs f64: ties and
//! rounding errors are then resolved as in the reference implementation.

/// Largest magnitude of a weight. It keeps all sums finite, so that the search terminates on any
/// input.
const MAX_WEIGHT: f64 = 1e9;

/// The assignment of largest total weight on a dense [rows, columns] matrix, as pairs sorted by
/// row. Only pairs with a finite weight above zero are returned. Weights that are not finite count
/// as zero; finite ones are clamped to [-1e9, 1e9].
pub fn max_weight_assignment(rows: usize, columns: usize, weight: &[f64]) -> Vec<(usize, usize)> {
    let flip = columns < rows;
    let (n, m) = if flip {
        (columns, rows)
    } else {
        (rows, columns)
    };
    let usable = |w: f64| {
        if w.is_finite() {
            w.clamp(-MAX_WEIGHT, MAX_WEIGHT)
        } else {
            0.0
        }
    };
    let at = |r: usize, k: usize| {
        -usable(if flip {
            weight[k * columns + r]
        } else {
            weight[r * columns + k]
        })
    };
    // Kuhn-Munkres by shortest augmenting paths with potentials; indices start at 1, 0 is a
    // sentinel.
    let (mut u, mut v) = (vec![0.0f64; n + 1], vec![0.0f64; m + 1]);
    let (mut row_of, mut way) = (vec![0usize; m + 1], vec![0usize; m + 1]);
    for r in 1..=n {
        row_of[0] = r;
        let (mut k0, mut least, mut used) = (0, vec![f64::INFINITY; m + 1], vec![false; m + 1]);
        while row_of[k0] != 0 {
            used[k0] = true;
            let (r0, mut delta, mut k1) = (row_of[k0], f64::INFINITY, 0);
            for k in (1..=m).filter(|&k| !used[k]) {
                let reduced = at(r0 - 1, k - 1) - u[r0] - v[k];
                if reduced < least[k] {
                    least[k] = reduced;
                    way[k] = k0;
                }
                if least[k] < delta {
                    delta = least[k];
                    k1 = k;
                }
            }
            for k in 0..=m {
                if used[k] {
                    u[row_of[k]] += delta;
                    v[k] -= delta;
                } else {
                    least[k] -= delta;
                }
            }
            k0 = k1;
        }
        while k0 != 0 {
            row_of[k0] = row_of[way[k0]];
            k0 = way[k0];
        }
    }
    let mut pairs: Vec<_> = (1..=m)
        .filter(|&k| row_of[k] != 0)
        .map(|k| {
            if flip {
                (k - 1, row_of[k] - 1)
            } else {
                (row_of[k] - 1, k - 1)
            }
        })
        .collect();
    pairs.retain(|&(r, k)| usable(weight[r * columns + k]) > 0.0);
    pairs.sort_unstable();
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The largest total weight, by exhaustive search.
    fn brute_force(row: usize, taken: &mut Vec<bool>, weight: &[f64]) -> f64 {
        let columns = taken.len();
        let Some(line) = weight.get(row * columns..(row + 1) * columns) else {
            return 0.0;
        };
        let mut best = brute_force(row + 1, taken, weight);
        for (k, w) in line.iter().enumerate() {
            if !taken[k] {
                taken[k] = true;
                best = best.max(w + brute_force(row + 1, taken, weight));
                taken[k] = false;
            }
        }
        best
    }

    fn matrix(
        weight: impl Strategy<Value = f64> + Clone,
    ) -> impl Strategy<Value = (usize, usize, Vec<f64>)> {
        (1usize..6, 1usize..6).prop_flat_map(move |(n, m)| {
            (
                Just(n),
                Just(m),
                prop::collection::vec(weight.clone(), n * m),
            )
        })
    }

    proptest! {
        #[test]
        fn no_other_assignment_has_a_larger_weight(
            (n, m, weight) in matrix((0u8..100).prop_map(|v| (f64::from(v) / 50.0 - 0.8).max(0.0)))
        ) {
            let pairs = max_weight_assignment(n, m, &weight);
            let total: f64 = pairs.iter().map(|&(r, k)| weight[r * m + k]).sum();
            prop_assert!((total - brute_force(0, &mut vec![false; m], &weight)).abs() < 1e-9);
        }

        /// Any bit pattern of a float, including NaN, infinities and the extremes.
        #[test]
        fn terminates_on_any_weights(
            (n, m, weight) in matrix(any::<u32>().prop_map(|bits| f64::from(f32::from_bits(bits))))
        ) {
            let pairs = max_weight_assignment(n, m, &weight);
            prop_assert!(pairs.iter().all(|&(r, k)| r < n && k < m));
            prop_assert!(pairs.iter().all(|&(r, k)| weight[r * m + k].is_finite()));
            prop_assert!(pairs.windows(2).all(|p| p[0].0 < p[1].0), "a row was used twice");
        }
    }

    #[test]
    fn weights_that_are_not_finite_are_ignored() {
        assert_eq!(
            max_weight_assignment(2, 2, &[f64::NAN, 0.5, 0.7, f64::INFINITY]),
            [(0, 1), (1, 0)]
        );
    }
}
