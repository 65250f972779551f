//! Decodes the outputs of NanoDet, whose distances are distributions (generalised focal loss, Li et
//! al. 2020).

use ndarray::{ArrayView3, ArrayViewD, Axis, Ix2, Ix3};

use crate::geometry::BBox;
use crate::infer::Output;

/// The required outputs, for error messages.
pub(super) const WANTED: &str =
    "pairs of [N, P, C] and [N, P, 32 or 44] for the strides 8, 16, 32 and possibly 64";
/// Numbers of distance columns: four sides of 8 or 11 bins.
const DISTANCES: [usize; 2] = [32, 44];

/// The outputs of one stride.
pub(super) struct Level<'a> {
    /// [n, places, classes].
    scores: ArrayView3<'a, f32>,
    /// [n, places, 4 bins].
    distances: ArrayView3<'a, f32>,
    /// Side of a cell in pixels.
    stride: usize,
    /// Number of cells in a row.
    columns: usize,
}

/// Pairs the outputs by their number of places, in any order. `None` when a stride other than 64
/// lacks its pair, or an output belongs to no stride.
pub(super) fn levels<'a>(
    outputs: &'a [Output],
    class: usize,
    n: usize,
    input: (usize, usize),
) -> Option<Vec<Level<'a>>> {
    let views: Vec<ArrayView3<'a, f32>> = outputs
        .iter()
        .map(|o| batched(o.values.view(), n))
        .collect::<Option<_>>()?;
    let mut levels = Vec::new();
    for stride in [8, 16, 32, 64] {
        let (columns, rows) = (input.0.div_ceil(stride), input.1.div_ceil(stride));
        let of_stride: Vec<_> = views
            .iter()
            .filter(|v| v.dim().1 == columns * rows)
            .collect();
        let level = |scores: &ArrayView3<'a, f32>, distances: &ArrayView3<'a, f32>| {
            let fits = scores.dim().2 > class && DISTANCES.contains(&distances.dim().2);
            fits.then_some(Level {
                scores: *scores,
                distances: *distances,
                stride,
                columns,
            })
        };
        match of_stride.as_slice() {
            [a, b] => levels.push(level(a, b).or_else(|| level(b, a))?),
            [] if stride == 64 => {}
            _ => return None,
        }
    }
    (2 * levels.len() == views.len()).then_some(levels)
}

/// Views an output as [n, P, x]; for a single picture [P, x] is accepted as well.
fn batched(values: ArrayViewD<'_, f32>, n: usize) -> Option<ArrayView3<'_, f32>> {
    let view = match values.ndim() {
        2 if n == 1 => values
            .into_dimensionality::<Ix2>()
            .ok()?
            .insert_axis(Axis(0)),
        _ => values.into_dimensionality::<Ix3>().ok()?,
    };
    (view.dim().0 == n).then_some(view)
}

impl Level<'_> {
    /// Boxes (pixels of the input) and scores of one picture's places with a score of at least
    /// `threshold`.
    pub(super) fn boxes(
        &self,
        picture: usize,
        class: usize,
        threshold: f32,
    ) -> impl Iterator<Item = (BBox, f32)> {
        let (scores, distances) = (
            self.scores.index_axis(Axis(0), picture),
            self.distances.index_axis(Axis(0), picture),
        );
        let bins = distances.ncols() / 4;
        (0..scores.nrows())
            .filter(move |&place| scores[[place, class]] >= threshold)
            .map(move |place| {
                let centre = |cell: usize| (cell as f32 + 0.5) * self.stride as f32;
                let (x, y) = (centre(place % self.columns), centre(place / self.columns));
                let [left, top, right, bottom] = std::array::from_fn(|side| {
                    self.stride as f32
                        * expectation(
                            distances
                                .row(place)
                                .iter()
                                .skip(side * bins)
                                .take(bins)
                                .copied(),
                        )
                });
                (
                    BBox::from_edges(x - left, y - top, x + right, y + bottom),
                    scores[[place, class]],
                )
            })
    }
}

/// Mean of the distribution over 0, 1, 2, … with the given logits.
fn expectation(logits: impl Iterator<Item = f32> + Clone) -> f32 {
    let highest = logits.clone().fold(f32::NEG_INFINITY, f32::max);
    let (mut sum, mut weighted) = (0.0, 0.0);
    for (i, logit) in logits.enumerate() {
        let weight = (logit - highest).exp();
        sum += weight;
        weighted += weight * i as f32;
    }
    weighted / sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::Layout;
    use crate::detect::batch_outputs::BatchOutputs;
    use crate::detect::decode;
    use crate::detection::Detection;
    use ndarray::{ArrayD, IxDyn};

    fn decode(outputs: &[Output]) -> Result<Vec<Vec<Detection>>, String> {
        decode::decode(
            &BatchOutputs {
                outputs,
                n: 1,
                input: (416, 416),
                class: 0,
                threshold: 0.5,
            },
            Layout::Nanodet,
        )
    }

    /// Outputs for an input of 416x416, in the order of strides or all scores first.
    fn outputs(bins: usize, strides: &[usize], scores_first: bool) -> Vec<Output> {
        let side = |s: &usize| 416usize.div_ceil(*s);
        let of = |s: &usize, width: usize| Output {
            name: format!("out_{s}_{width}"),
            values: ArrayD::zeros(IxDyn(&[1, side(s) * side(s), width])),
        };
        if scores_first {
            strides
                .iter()
                .map(|s| of(s, 80))
                .chain(strides.iter().map(|s| of(s, 4 * bins)))
                .collect()
        } else {
            strides
                .iter()
                .flat_map(|s| [of(s, 80), of(s, 4 * bins)])
                .collect()
        }
    }

    #[test]
    fn distances_are_expectations_in_cells_from_the_centre() {
        for (bins, strides, scores_first) in [
            (8, &[8, 16, 32, 64][..], false),
            (11, &[8, 16, 32][..], true),
        ] {
            let mut outputs = outputs(bins, strides, scores_first);
            // Cell (3, 2) of stride 16: centre (56, 40). All sides are 2 cells with certainty,
            // except the right one: 3 or 4 with equal probability.
            let place = 2 * 26 + 3;
            for o in outputs.iter_mut().filter(|o| o.name.starts_with("out_16_")) {
                if o.name.ends_with("_80") {
                    o.values[[0, place, 0]] = 0.75;
                } else {
                    [2, bins + 2, 3 * bins + 2]
                        .into_iter()
                        .for_each(|k| o.values[[0, place, k]] = 40.0);
                    [2 * bins + 3, 2 * bins + 4]
                        .into_iter()
                        .for_each(|k| o.values[[0, place, k]] = 40.0);
                }
            }
            let found = decode(&outputs).expect("fits");
            let [d] = found[0].as_slice() else {
                panic!("one person expected: {found:?}")
            };
            assert_eq!(d.confidence, 0.75);
            let want = [56.0 - 32.0, 40.0 - 32.0, 32.0 + 56.0, 32.0 + 32.0];
            for (a, b) in <[f32; 4]>::from(d.bbox).into_iter().zip(want) {
                assert!((a - b).abs() < 1e-3, "{bins} bins: {d:?}, not {want:?}");
            }
        }
    }

    #[test]
    fn a_missing_stride_or_another_width_is_rejected() {
        let e = decode(&outputs(8, &[8, 16], false)).unwrap_err();
        assert!(e.contains("'nanodet'") && e.contains("8, 16, 32"), "{e}");
        assert!(decode(&outputs(9, &[8, 16, 32], false)).is_err());
    }
}
