//! What training minimises, on embeddings of unit length.

use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Int, Tensor, TensorData, activation};

/// Euclidean distances between all rows, [n, n]. On unit vectors this is sqrt(2 - 2 cos). The root is kept off zero, where
/// its slope is infinite.
pub fn pairwise_distances<B: Backend>(x: Tensor<B, 2>) -> Tensor<B, 2> {
    let squares = x.clone().powi_scalar(2).sum_dim(1);
    let distances = squares.clone() + squares.transpose() - x.clone().matmul(x.transpose()) * 2.0;
    (distances.clamp_min(0.0) + 1e-6).sqrt()
}

/// Distances between row i of `a` and row i of `b`, [n].
fn distances<B: Backend>(a: Tensor<B, 2>, b: Tensor<B, 2>) -> Tensor<B, 1> {
    ((a - b).powi_scalar(2).sum_dim(1) + 1e-6).sqrt().squeeze_dim(1)
}

/// Triplet loss (Schroff et al. 2015): mean of max(d(a, p) - d(a, n) + margin, 0) over the rows.
pub fn triplet<B: Backend>(anchor: Tensor<B, 2>, positive: Tensor<B, 2>, negative: Tensor<B, 2>, margin: f32) -> Tensor<B, 1> {
    activation::relu(distances(anchor.clone(), positive) - distances(anchor, negative) + margin).mean()
}

/// Contrastive loss (Hadsell et al. 2006): mean of d^2 / 2 for pairs of one person, max(margin - d, 0)^2 / 2 for others.
/// `same` [n] is 1 for one person, 0 for two.
pub fn contrastive<B: Backend>(a: Tensor<B, 2>, b: Tensor<B, 2>, same: Tensor<B, 1>, margin: f32) -> Tensor<B, 1> {
    let d = distances(a, b);
    let apart = activation::relu(d.clone().neg() + margin).powi_scalar(2);
    ((same.clone() * d.powi_scalar(2) + (same.neg() + 1.0) * apart) * 0.5).mean()
}

/// Which pairs of a batch are of one person, and which are certainly of two. What is neither is not used: two tracklets of
/// one video that were never seen together may be one person.
#[derive(Debug, Clone, PartialEq)]
pub struct Relations {
    /// Rows of the batch.
    pub count: usize,
    /// Row-major [n, n]: one person (and not the same picture).
    pub same: Vec<bool>,
    /// Row-major [n, n]: certainly two people.
    pub different: Vec<bool>,
}

impl Relations {
    fn mask<B: Backend>(&self, which: &[bool], device: &B::Device) -> Tensor<B, 2, Bool> {
        Tensor::from_data(TensorData::new(which.to_vec(), [self.count, self.count]), device)
    }
}

/// Batch-hard triplet loss (Hermans et al. 2017): for every picture its farthest view of the same person and its nearest
/// of another; mean of max(d(a, p) - d(a, n) + margin, 0). Also returns how many triplets are active (above zero), [1].
pub fn batch_hard<B: Backend>(embeddings: Tensor<B, 2>, relations: &Relations, margin: f32) -> (Tensor<B, 1>, Tensor<B, 1, Int>) {
    let device = embeddings.device();
    let d = pairwise_distances(embeddings);
    // Unit vectors are at most 2 apart: 4 never is the nearest, -4 never the farthest.
    let farthest = d.clone().mask_fill(relations.mask::<B>(&relations.same, &device).bool_not(), -4.0).max_dim(1);
    let nearest = d.mask_fill(relations.mask::<B>(&relations.different, &device).bool_not(), 4.0).min_dim(1);
    let terms = activation::relu(farthest - nearest + margin);
    let active = terms.clone().greater_elem(0.0).int().sum();
    (terms.mean(), active)
}

/// The same for pairs: the mean contrastive loss over all pairs of one person plus that over all pairs of two, so that the
/// many pairs of strangers do not drown the few of one person.
pub fn contrastive_all<B: Backend>(embeddings: Tensor<B, 2>, relations: &Relations, margin: f32) -> Tensor<B, 1> {
    let device = embeddings.device();
    let d = pairwise_distances(embeddings);
    let mean = |terms: Tensor<B, 2>, which: &[bool]| {
        let count = which.iter().filter(|w| **w).count().max(1) as f32;
        terms.mask_fill(relations.mask::<B>(which, &device).bool_not(), 0.0).sum() / count
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
        Tensor::from_data(TensorData::new(values.as_flattened().to_vec(), [values.len(), 2]), &Default::default())
    }

    fn close(got: Tensor<B, 1>, want: f32) {
        let got: f32 = got.into_scalar();
        assert!((got - want).abs() < 1e-4, "{got} instead of {want}");
    }

    /// Two pictures each of two people.
    fn two_by_two() -> Relations {
        let pair = |f: fn(usize, usize) -> bool| (0..16).map(|k| f(k / 4, k % 4)).collect();
        Relations { count: 4, same: pair(|i, j| i != j && i / 2 == j / 2), different: pair(|i, j| i / 2 != j / 2) }
    }

    const FOUR: [[f32; 2]; 4] = [[0.0, 0.0], [3.0, 4.0], [0.0, 1.0], [0.0, 3.0]];

    #[test]
    fn triplet_by_hand() {
        // d(a, p) = 5, d(a, n) = 3; and 1 and 5, which is satisfied.
        let l = triplet(rows(&[[0.0, 0.0], [0.0, 0.0]]), rows(&[[3.0, 4.0], [0.0, 1.0]]), rows(&[[0.0, 3.0], [5.0, 0.0]]), 0.5);
        close(l, (5.0 - 3.0 + 0.5) / 2.0);
    }

    #[test]
    fn contrastive_by_hand() {
        let same = Tensor::from_floats([1.0, 0.0, 0.0], &Default::default());
        let l = contrastive(rows(&[[0.0, 0.0]; 3]), rows(&[[3.0, 4.0], [0.0, 0.5], [0.0, 7.0]]), same, 2.0);
        close(l, (12.5 + 0.5 * 1.5 * 1.5 + 0.0) / 3.0);
    }

    #[test]
    fn batch_hard_by_hand() {
        // Distances: 01 = 5, 02 = 1, 03 = 3, 12 = sqrt(18), 13 = sqrt(10), 23 = 2.
        let (l, active) = batch_hard(rows(&FOUR), &two_by_two(), 0.5);
        close(l, ((5.0 - 1.0 + 0.5) + (5.0 - 10f32.sqrt() + 0.5) + (2.0 - 1.0 + 0.5) + 0.0) / 4.0);
        assert_eq!(active.into_scalar(), 3);
    }

    #[test]
    fn who_may_be_the_same_is_no_negative() {
        let mut unknown = two_by_two();
        for (i, j) in [(0, 2), (2, 0)] {
            unknown.different[4 * i + j] = false;
        }
        let (l, _) = batch_hard(rows(&FOUR), &unknown, 0.5);
        close(l, ((5.0 - 3.0 + 0.5) + (5.0 - 10f32.sqrt() + 0.5) + 0.0 + 0.0) / 4.0);
    }

    #[test]
    fn contrastive_over_a_batch_by_hand() {
        let l = contrastive_all(rows(&FOUR), &two_by_two(), 2.0);
        close(l, 0.5 * ((25.0 + 4.0) / 2.0 + 2.0 * 1.0 / 8.0));
    }

    #[test]
    fn slopes_agree_with_differences() {
        let losses: [Loss; 2] = [|x| batch_hard(x, &two_by_two(), 0.5).0, |x| contrastive_all(x, &two_by_two(), 2.0)];
        for loss in losses {
            let x = rows(&FOUR).require_grad();
            let gradients = loss(x.clone()).backward();
            let slope: Vec<f32> = x.grad(&gradients).expect("a gradient").into_data().to_vec().expect("floats");
            for k in 0..8 {
                let at = |step: f32| {
                    let mut moved = FOUR;
                    moved[k / 2][k % 2] += step;
                    loss(rows(&moved)).into_scalar()
                };
                let difference = (at(1e-2) - at(-1e-2)) / 2e-2;
                assert!((difference - slope[k]).abs() < 5e-3, "component {k}: {} against {difference}", slope[k]);
            }
        }
    }
}
