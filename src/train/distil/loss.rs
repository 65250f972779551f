//! Distillation losses: differences between student and teacher per picture and per pair of
//! pictures.

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use burn::tensor::module::avg_pool2d;

/// Factor that brings the relational loss to about the scale of the other losses; without it that
/// loss is small, because for a pair of pictures the student's cosine and the teacher's cosine
/// differ little.
const RELATION_SCALE: f32 = 10.0;

/// Mean cosine distance between the rows of two matrices of unit rows [n, d], in [0, 2].
pub fn cosine<B: Backend>(student: Tensor<B, 2>, teacher: Tensor<B, 2>) -> Tensor<B, 1> {
    (student * teacher).sum_dim(1).mean().neg() + 1.0
}

/// Mean squared difference between the batch's cosine matrices, times ten (relational distillation,
/// Park et al. 2019). The embeddings' dimensions may differ.
pub fn relations<B: Backend>(student: Tensor<B, 2>, teacher: Tensor<B, 2>) -> Tensor<B, 1> {
    let products = |x: Tensor<B, 2>| x.clone().matmul(x.transpose());
    (products(student) - products(teacher))
        .powi_scalar(2)
        .mean()
        * RELATION_SCALE
}

/// Mean squared difference of two feature maps [n, c, h, w], divided by the teacher's mean square.
/// The larger map is reduced to the size of the smaller one by averaging; `None` if the sizes do
/// not allow this (see [`common_size`]).
pub fn maps<B: Backend>(student: Tensor<B, 4>, teacher: Tensor<B, 4>) -> Option<Tensor<B, 1>> {
    let ([_, _, sh, sw], [_, _, th, tw]) = (student.dims(), teacher.dims());
    let size = common_size((sh, sw), (th, tw))?;
    let (student, teacher) = (shrunk(student, size), shrunk(teacher, size));
    let scale = teacher.clone().powi_scalar(2).mean() + 1e-12;
    Some((student - teacher).powi_scalar(2).mean() / scale)
}

fn shrunk<B: Backend>(x: Tensor<B, 4>, (h, w): (usize, usize)) -> Tensor<B, 4> {
    let [_, _, from_h, from_w] = x.dims();
    let by = [from_h / h, from_w / w];
    if by == [1, 1] {
        x
    } else {
        avg_pool2d(x, by, by, [0, 0], false, false)
    }
}

/// The size (height, width) at which maps of two sizes can be compared; `None` unless one height
/// is a multiple of the other, and one width is a multiple of the other.
pub fn common_size(a: (usize, usize), b: (usize, usize)) -> Option<(usize, usize)> {
    let side = |a: usize, b: usize| a.max(b).is_multiple_of(a.min(b)).then_some(a.min(b));
    Some((side(a.0, b.0)?, side(a.1, b.1)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::backend::{Autodiff, Flex};
    use burn::tensor::TensorData;

    type B = Autodiff<Flex>;

    fn rows<const N: usize>(values: [[f32; 2]; N]) -> Tensor<B, 2> {
        Tensor::from_data(
            TensorData::new(values.as_flattened().to_vec(), [N, 2]),
            &Default::default(),
        )
    }

    fn close(got: Tensor<B, 1>, want: f32) {
        let got: f32 = got.into_scalar();
        assert!((got - want).abs() < 1e-5, "{got} instead of {want}");
    }

    #[test]
    fn cosine_matches_a_value_computed_by_hand() {
        close(
            cosine(
                rows([[1.0, 0.0], [0.6, 0.8]]),
                rows([[0.0, 1.0], [0.6, 0.8]]),
            ),
            0.5,
        );
    }

    #[test]
    fn relations_match_by_hand_and_ignore_rotations() {
        // The cosines are 0.6 and 0; the diagonals are equal. Two of four entries differ by 0.6.
        close(
            relations(
                rows([[1.0, 0.0], [0.6, 0.8]]),
                rows([[1.0, 0.0], [0.0, 1.0]]),
            ),
            10.0 * 2.0 * 0.36 / 4.0,
        );
        close(
            relations(
                rows([[1.0, 0.0], [0.6, 0.8]]),
                rows([[0.0, 1.0], [-0.8, 0.6]]),
            ),
            0.0,
        );
    }

    #[test]
    fn maps_match_by_hand_for_equal_and_different_sizes() {
        let map = |values: &[f32], dims: [usize; 4]| {
            Tensor::<B, 4>::from_data(TensorData::new(values.to_vec(), dims), &Default::default())
        };
        let teacher = map(&[2.0, 0.0], [1, 1, 2, 1]);
        close(
            maps(map(&[1.0, 0.0], [1, 1, 2, 1]), teacher.clone()).expect("one size"),
            0.5 / 2.0,
        );
        // Averages of pairs of rows: 1 and 0.
        close(
            maps(map(&[2.0, 0.0, 1.0, -1.0], [1, 1, 4, 1]), teacher.clone())
                .expect("twice the height"),
            0.5 / 2.0,
        );
        assert!(
            maps(map(&[0.0; 3], [1, 1, 3, 1]), teacher).is_none(),
            "three rows do not make two"
        );
        assert_eq!(common_size((16, 8), (8, 4)), Some((8, 4)));
        assert_eq!(common_size((16, 8), (7, 4)), None);
    }

    #[test]
    fn gradients_match_finite_differences() {
        let losses: [fn(Tensor<B, 2>) -> Tensor<B, 1>; 2] = [
            |x| cosine(x, rows([[0.3, 0.2], [-0.5, 0.9]])),
            |x| relations(x, rows([[0.3, 0.2], [-0.5, 0.9]])),
        ];
        let points = [[0.2, -0.3], [1.0, 1.4]];
        for loss in losses {
            let x = rows(points).require_grad();
            let slope: Vec<f32> = x
                .grad(&loss(x.clone()).backward())
                .expect("a gradient")
                .into_data()
                .to_vec()
                .expect("floats");
            for k in 0..4 {
                let at = |step: f32| {
                    let mut moved = points;
                    moved[k / 2][k % 2] += step;
                    loss(rows(moved)).into_scalar()
                };
                let difference = (at(1e-2) - at(-1e-2)) / 2e-2;
                assert!(
                    (difference - slope[k]).abs() < 2e-2 * slope[k].abs().max(0.5),
                    "{difference} against {}",
                    slope[k]
                );
            }
        }
    }
}
