//! Loss functions on embeddings of unit length.

use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Int, Tensor, TensorData, activation};
use fastrand::Rng;
use serde::{Deserialize, Serialize};

use crate::train::kernels::backend::Kernels;

/// Distance between two embeddings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// sqrt(2 - 2 cos) on unit vectors, in [0, 2].
    Euclidean,
    /// 1 - cos, in [0, 2]; as used by the tracker.
    Cosine,
}

impl Metric {
    /// Distances between all rows, [n, n]. The argument of the Euclidean distances' root has a
    /// minimum above zero, because the root's derivative at zero is infinite.
    pub fn between_all<B: Backend>(self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let products = x.clone().matmul(x.clone().transpose());
        match self {
            Metric::Euclidean => {
                let squares = x.powi_scalar(2).sum_dim(1);
                ((squares.clone() + squares.transpose() - products * 2.0).clamp_min(0.0) + 1e-6)
                    .sqrt()
            }
            Metric::Cosine => products.neg() + 1.0,
        }
    }

    /// Distances between row i of `a` and row i of `b`, [n].
    fn by_row<B: Backend>(self, a: Tensor<B, 2>, b: Tensor<B, 2>) -> Tensor<B, 1> {
        match self {
            Metric::Euclidean => ((a - b).powi_scalar(2).sum_dim(1) + 1e-6)
                .sqrt()
                .squeeze_dim(1),
            Metric::Cosine => ((a * b).sum_dim(1).neg() + 1.0).squeeze_dim(1),
        }
    }
}

/// Triplet loss (Schroff et al. 2015): mean of max(d(a, p) - d(a, n) + margin, 0) over the rows.
pub fn triplet<B: Backend>(
    metric: Metric,
    anchor: Tensor<B, 2>,
    positive: Tensor<B, 2>,
    negative: Tensor<B, 2>,
    margin: f32,
) -> Tensor<B, 1> {
    activation::relu(
        metric.by_row(anchor.clone(), positive) - metric.by_row(anchor, negative) + margin,
    )
    .mean()
}

/// Contrastive loss (Hadsell et al. 2006): mean of d^2 / 2 for pairs of the same person, max(margin
/// - d, 0)^2 / 2 for others. `same`, `[n]`, is 1 for the same person, 0 otherwise.
pub fn contrastive<B: Backend>(
    a: Tensor<B, 2>,
    b: Tensor<B, 2>,
    same: Tensor<B, 1>,
    margin: f32,
) -> Tensor<B, 1> {
    let d = Metric::Euclidean.by_row(a, b);
    let apart = activation::relu(d.clone().neg() + margin).powi_scalar(2);
    ((same.clone() * d.powi_scalar(2) + (same.neg() + 1.0) * apart) * 0.5).mean()
}

/// Pairs of a batch that show the same person, and pairs that certainly do not. Other pairs are not
/// used: two tracks of a video that never occur together may be one person.
#[derive(Debug, Clone, PartialEq)]
pub struct Relations {
    /// Rows of the batch.
    pub count: usize,
    /// Row-major [n, n]: the same person (and not the same picture).
    pub same: Vec<bool>,
    /// Row-major [n, n]: certainly different people.
    pub different: Vec<bool>,
}

impl Relations {
    fn mask<B: Kernels>(&self, which: &[bool], device: &B::Device) -> Tensor<B, 2, Bool> {
        B::upload_mask(
            TensorData::new(which.to_vec(), [self.count, self.count]),
            device,
        )
    }
}

/// Random triplets of a batch: for every picture another picture of the same person and one of
/// another person, as rows [a, p, n]. A picture for which one of these does not exist is skipped.
pub fn random_triplets(relations: &Relations, rng: &mut Rng) -> [Vec<usize>; 3] {
    let n = relations.count;
    let mut rows: [Vec<usize>; 3] = Default::default();
    for a in 0..n {
        let mut draw = |which: &[bool]| {
            let candidates: Vec<usize> = (0..n).filter(|b| which[a * n + b]).collect();
            (!candidates.is_empty()).then(|| candidates[rng.usize(..candidates.len())])
        };
        if let (Some(p), Some(n)) = (draw(&relations.same), draw(&relations.different)) {
            rows.iter_mut().zip([a, p, n]).for_each(|(r, v)| r.push(v));
        }
    }
    rows
}

/// Triplet loss of random triplets.
pub fn random_triplet<B: Kernels>(
    metric: Metric,
    embeddings: Tensor<B, 2>,
    relations: &Relations,
    margin: f32,
    rng: &mut Rng,
) -> Tensor<B, 1> {
    let device = embeddings.device();
    let [a, p, n] = random_triplets(relations, rng).map(|rows| {
        let rows: Vec<i64> = rows.into_iter().map(|r| r as i64).collect();
        let count = rows.len();
        embeddings.clone().select(
            0,
            Tensor::<B, 1, Int>::from_data(TensorData::new(rows, [count]), &device),
        )
    });
    triplet(metric, a, p, n, margin)
}

/// Mean loss of all triplets with a loss above zero ("batch all", Hermans et al. 2017). Unlike the
/// hardest triplets, these do not make an untrained network collapse to one point (Schroff et al.
/// 2015, section 3.2).
pub fn batch_all<B: Kernels>(
    metric: Metric,
    embeddings: Tensor<B, 2>,
    relations: &Relations,
    margin: f32,
) -> Tensor<B, 1> {
    let (device, n) = (embeddings.device(), relations.count);
    let d = metric.between_all(embeddings);
    // One row per pair of the same person: its distance, compared with the distances from the
    // anchor to all others.
    let pairs: Vec<usize> = (0..n * n).filter(|&k| relations.same[k]).collect();
    let rows = |of: &dyn Fn(usize) -> usize| {
        let values: Vec<i64> = pairs.iter().map(|&k| of(k) as i64).collect();
        Tensor::<B, 1, Int>::from_data(TensorData::new(values, [pairs.len()]), &device)
    };
    let to_positive = d
        .clone()
        .reshape([n * n])
        .select(0, rows(&|k| k))
        .reshape([pairs.len(), 1]);
    let to_all = d.select(0, rows(&|k| k / n));
    let valid: Vec<f32> = pairs
        .iter()
        .flat_map(|k| &relations.different[k / n * n..][..n])
        .map(|&d| f32::from(u8::from(d)))
        .collect();
    let terms = activation::relu(to_positive - to_all + margin)
        * B::upload(TensorData::new(valid, [pairs.len(), n]), &device);
    let active = terms
        .clone()
        .detach()
        .greater_elem(0.0)
        .float()
        .sum()
        .clamp_min(1.0);
    terms.sum() / active
}

/// Cross-entropy with label smoothing (Szegedy et al. 2016): logits [n, classes], the class of each
/// row. Rows without a class (identities that may be the same person) are ignored.
pub fn classification<B: Kernels>(
    logits: Tensor<B, 2>,
    classes: &[Option<usize>],
    smoothing: f32,
) -> Tensor<B, 1> {
    let (device, [n, count]) = (logits.device(), logits.dims());
    let target = |row: usize, class: usize| match classes[row] {
        None => 0.0,
        Some(c) => smoothing / count as f32 + if c == class { 1.0 - smoothing } else { 0.0 },
    };
    let targets: Vec<f32> = (0..n * count)
        .map(|k| target(k / count, k % count))
        .collect();
    let known = classes.iter().flatten().count().max(1) as f32;
    (activation::log_softmax(logits, 1) * B::upload(TensorData::new(targets, [n, count]), &device))
        .sum()
        .neg()
        / known
}

/// Batch-hard triplet loss (Hermans et al. 2017): for every picture, the farthest picture of the
/// same person and the nearest picture of another person form a triplet; the mean of max(d(a, p) -
/// d(a, n) + margin, 0). Also returns the number of active triplets (above zero), `[1]`.
pub fn batch_hard<B: Kernels>(
    metric: Metric,
    embeddings: Tensor<B, 2>,
    relations: &Relations,
    margin: f32,
) -> (Tensor<B, 1>, Tensor<B, 1, Int>) {
    let device = embeddings.device();
    let d = metric.between_all(embeddings);
    // Distances are in [0, 2], so 4 is never the smallest and -4 never the largest.
    let farthest = d
        .clone()
        .mask_fill(
            relations.mask::<B>(&relations.same, &device).bool_not(),
            -4.0,
        )
        .max_dim(1);
    let nearest = d
        .mask_fill(
            relations
                .mask::<B>(&relations.different, &device)
                .bool_not(),
            4.0,
        )
        .min_dim(1);
    let terms = activation::relu(farthest - nearest + margin);
    let active = terms.clone().greater_elem(0.0).int().sum();
    (terms.mean(), active)
}

/// Contrastive loss of all pairs: the mean over pairs of the same person plus the mean over pairs
/// of different people, so that the latter, which are more numerous, do not dominate.
pub fn contrastive_all<B: Kernels>(
    embeddings: Tensor<B, 2>,
    relations: &Relations,
    margin: f32,
) -> Tensor<B, 1> {
    let device = embeddings.device();
    let d = Metric::Euclidean.between_all(embeddings);
    let mean = |terms: Tensor<B, 2>, which: &[bool]| {
        let count = which.iter().filter(|w| **w).count().max(1) as f32;
        terms
            .mask_fill(relations.mask::<B>(which, &device).bool_not(), 0.0)
            .sum()
            / count
    };
    let apart = activation::relu(d.clone().neg() + margin).powi_scalar(2);
    (mean(d.powi_scalar(2), &relations.same) + mean(apart, &relations.different)) * 0.5
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::{Autodiff, Flex};

    type B = Autodiff<Flex>;
    type Loss = fn(Tensor<B, 2>) -> Tensor<B, 1>;

    fn rows(values: &[[f32; 2]]) -> Tensor<B, 2> {
        Tensor::from_data(
            TensorData::new(values.as_flattened().to_vec(), [values.len(), 2]),
            &Default::default(),
        )
    }

    fn close(got: Tensor<B, 1>, want: f32) {
        let got: f32 = got.into_scalar();
        assert!((got - want).abs() < 1e-4, "{got} instead of {want}");
    }

    /// Two pictures each of two people.
    fn two_by_two() -> Relations {
        let pair = |f: fn(usize, usize) -> bool| (0..16).map(|k| f(k / 4, k % 4)).collect();
        Relations {
            count: 4,
            same: pair(|i, j| i != j && i / 2 == j / 2),
            different: pair(|i, j| i / 2 != j / 2),
        }
    }

    const FOUR: [[f32; 2]; 4] = [[0.0, 0.0], [3.0, 4.0], [0.0, 1.0], [0.0, 3.0]];

    #[test]
    fn triplet_matches_a_value_computed_by_hand() {
        // First row: d(a, p) = 5, d(a, n) = 3. Second row: 1 and 5, which satisfies the margin.
        let l = triplet(
            Metric::Euclidean,
            rows(&[[0.0, 0.0], [0.0, 0.0]]),
            rows(&[[3.0, 4.0], [0.0, 1.0]]),
            rows(&[[0.0, 3.0], [5.0, 0.0]]),
            0.5,
        );
        close(l, (5.0 - 3.0 + 0.5) / 2.0);
    }

    #[test]
    fn contrastive_matches_a_value_computed_by_hand() {
        let same = Tensor::from_floats([1.0, 0.0, 0.0], &Default::default());
        let l = contrastive(
            rows(&[[0.0, 0.0]; 3]),
            rows(&[[3.0, 4.0], [0.0, 0.5], [0.0, 7.0]]),
            same,
            2.0,
        );
        close(l, (12.5 + 0.5 * 1.5 * 1.5 + 0.0) / 3.0);
    }

    #[test]
    fn batch_hard_matches_a_value_computed_by_hand() {
        // Distances: 01 = 5, 02 = 1, 03 = 3, 12 = sqrt(18), 13 = sqrt(10), 23 = 2.
        let (l, active) = batch_hard(Metric::Euclidean, rows(&FOUR), &two_by_two(), 0.5);
        close(
            l,
            ((5.0 - 1.0 + 0.5) + (5.0 - 10f32.sqrt() + 0.5) + (2.0 - 1.0 + 0.5) + 0.0) / 4.0,
        );
        assert_eq!(active.into_scalar(), 3);
    }

    #[test]
    fn people_who_may_be_the_same_are_no_negatives() {
        let mut unknown = two_by_two();
        for (i, j) in [(0, 2), (2, 0)] {
            unknown.different[4 * i + j] = false;
        }
        let (l, _) = batch_hard(Metric::Euclidean, rows(&FOUR), &unknown, 0.5);
        close(
            l,
            ((5.0 - 3.0 + 0.5) + (5.0 - 10f32.sqrt() + 0.5) + 0.0 + 0.0) / 4.0,
        );
    }

    #[test]
    fn contrastive_over_a_batch_matches_a_value_computed_by_hand() {
        let l = contrastive_all(rows(&FOUR), &two_by_two(), 2.0);
        close(l, 0.5 * ((25.0 + 4.0) / 2.0 + 2.0 * 1.0 / 8.0));
    }

    #[test]
    fn batch_all_matches_a_value_computed_by_hand() {
        // Active triplets of anchor 0: 5 - 1, 5 - 3; of 1: 5 - sqrt(18), 5 - sqrt(10); of 2: 2 - 1.
        // Not active: 2 - sqrt(18), 2 - 3, 2 - sqrt(10).
        let l = batch_all(Metric::Euclidean, rows(&FOUR), &two_by_two(), 0.5);
        close(
            l,
            (4.5 + 2.5 + (5.5 - 18f32.sqrt()) + (5.5 - 10f32.sqrt()) + 1.5) / 5.0,
        );
    }

    #[test]
    fn cosine_distance_matches_values_computed_by_hand() {
        let x = [[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]];
        let d: Vec<f32> = Metric::Cosine
            .between_all(rows(&x))
            .into_data()
            .to_vec()
            .expect("floats");
        [0.0, 0.4, 1.0, 0.4, 0.0, 0.2]
            .iter()
            .zip(d)
            .for_each(|(want, got)| assert!((want - got).abs() < 1e-6, "{got}"));
        close(
            triplet(
                Metric::Cosine,
                rows(&x[..1]),
                rows(&x[2..]),
                rows(&x[1..2]),
                0.3,
            ),
            1.0 - 0.4 + 0.3,
        );
    }

    #[test]
    fn a_random_triplet_has_two_pictures_of_one_person_and_one_of_another() {
        let (relations, mut rng) = (two_by_two(), Rng::with_seed(1));
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..20 {
            let [a, p, n] = random_triplets(&relations, &mut rng);
            assert_eq!(a, [0, 1, 2, 3]);
            for i in 0..4 {
                assert!(relations.same[4 * a[i] + p[i]] && relations.different[4 * a[i] + n[i]]);
                seen.insert((a[i], n[i]));
            }
        }
        assert_eq!(seen.len(), 8, "every negative is drawn at times");
    }

    #[test]
    fn classification_matches_a_value_computed_by_hand() {
        // The logits ln 3 and 0 are the probabilities 3/4 and 1/4; the smoothing of 0.2 gives the
        // targets 0.9 and 0.1. The second row has no class.
        let l = classification(
            rows(&[[3f32.ln(), 0.0], [7.0, -7.0]]),
            &[Some(0), None],
            0.2,
        );
        close(l, -(0.9 * 0.75f32.ln() + 0.1 * 0.25f32.ln()));
    }

    #[test]
    fn gradients_match_finite_differences() {
        let losses: [Loss; 8] = [
            |x| batch_hard(Metric::Euclidean, x, &two_by_two(), 0.5).0,
            |x| batch_hard(Metric::Cosine, x, &two_by_two(), 0.5).0,
            |x| batch_all(Metric::Euclidean, x, &two_by_two(), 0.4),
            |x| contrastive_all(x, &two_by_two(), 2.0),
            |x| {
                random_triplet(
                    Metric::Euclidean,
                    x,
                    &two_by_two(),
                    0.5,
                    &mut Rng::with_seed(3),
                )
            },
            |x| {
                triplet(
                    Metric::Euclidean,
                    x.clone().narrow(0, 0, 1),
                    x.clone().narrow(0, 1, 1),
                    x.narrow(0, 2, 1),
                    0.5,
                )
            },
            |x| {
                contrastive(
                    x.clone().narrow(0, 0, 2),
                    x.narrow(0, 2, 2),
                    Tensor::from_floats([1.0, 0.0], &Default::default()),
                    4.0,
                )
            },
            |x| classification(x, &[Some(0), Some(1), None, Some(1)], 0.1),
        ];
        // All distances differ, so that small changes do not change which triplet is the hardest.
        let points = [[0.2, -0.3], [1.0, 1.4], [0.4, 1.1], [-0.3, 0.9]];
        for (which, loss) in losses.iter().enumerate() {
            let x = rows(&points).require_grad();
            let gradients = loss(x.clone()).backward();
            let slope: Vec<f32> = x
                .grad(&gradients)
                .expect("a gradient")
                .into_data()
                .to_vec()
                .expect("floats");
            for k in 0..8 {
                let at = |step: f32| {
                    let mut moved = points;
                    moved[k / 2][k % 2] += step;
                    loss(rows(&moved)).into_scalar()
                };
                let difference = (at(1e-2) - at(-1e-2)) / 2e-2;
                assert!(
                    (difference - slope[k]).abs() < 5e-3,
                    "loss {which}, component {k}: {} against {difference}",
                    slope[k]
                );
            }
        }
    }
}
