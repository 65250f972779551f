//! Decodes the outputs of ATSS (Zhang et al. 2020) for one class, as in Intel's
//! person-detection-0301 to -0303, whose graphs are cut before box decoding.

use ndarray::{ArrayView3, ArrayView4, Axis, Ix4};

use crate::detect::batch_outputs::BatchOutputs;
use crate::geometry::BBox;

/// The required outputs, for error messages.
pub(super) const WANTED: &str = "[N, 5, H / s, W / s] (score, dx, dy, dw, dh) for the strides \
                                 s = 8, 16, 32 and on, in this order";
/// Side of an anchor, in strides.
const ANCHOR: f32 = 8.0;
/// Standard deviations by which the network's centre offsets and log sizes are scaled.
const DEVIATIONS: (f32, f32) = (0.1, 0.2);
/// Upper limit of the logarithm of a side over the anchor's side.
const GREATEST: f32 = 4.1;
/// Allowed number of strides.
const STRIDES: std::ops::RangeInclusive<usize> = 3..=5;

/// The output maps of one stride.
pub(super) struct Level<'a> {
    /// [n, 5, rows, columns].
    maps: ArrayView4<'a, f32>,
    /// Side of a cell in pixels.
    stride: usize,
}

/// Pairs each output with its stride. `None` when the number of outputs is not in [`STRIDES`], or
/// an output has another shape.
pub(super) fn levels<'a>(batch: &'a BatchOutputs<'_>) -> Option<Vec<Level<'a>>> {
    let level = |(i, o): (usize, &'a crate::infer::Output)| {
        let (maps, stride) = (o.values.view().into_dimensionality::<Ix4>().ok()?, 8 << i);
        let size = (
            batch.n,
            5,
            batch.input.1.div_ceil(stride),
            batch.input.0.div_ceil(stride),
        );
        (maps.dim() == size).then_some(Level { maps, stride })
    };
    let fits = STRIDES.contains(&batch.outputs.len());
    fits.then(|| batch.outputs.iter().enumerate().map(level).collect())
        .flatten()
}

impl Level<'_> {
    /// Boxes (pixels of the input) and scores of one picture's cells with a score of at least
    /// `threshold`.
    pub(super) fn boxes(
        &self,
        picture: usize,
        threshold: f32,
    ) -> impl Iterator<Item = (BBox, f32)> {
        let maps: ArrayView3<'_, f32> = self.maps.index_axis(Axis(0), picture);
        let (s, side) = (self.stride as f32, ANCHOR * self.stride as f32);
        let (_, rows, columns) = maps.dim();
        let cells = (0..rows).flat_map(move |y| (0..columns).map(move |x| (y, x)));
        cells
            .filter(move |&(y, x)| maps[[0, y, x]] >= threshold)
            .map(move |(y, x)| {
                let [score, dx, dy, dw, dh] = std::array::from_fn(|k| maps[[k, y, x]]);
                let center =
                    |cell: usize, offset: f32| cell as f32 * s + DEVIATIONS.0 * side * offset;
                let length = |d: f32| side * (DEVIATIONS.1 * d).min(GREATEST).exp();
                (
                    BBox::from_center(center(x, dx), center(y, dy), length(dw), length(dh)),
                    score,
                )
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::Layout;
    use crate::detect::decode::decode;
    use crate::infer::Output;
    use ndarray::{ArrayD, IxDyn};

    #[test]
    fn offsets_are_scaled_by_the_anchor_size() {
        let of = |s: usize| Output {
            name: format!("det_s{s}"),
            values: ArrayD::zeros(IxDyn(&[2, 5, 96usize.div_ceil(s), 160usize.div_ceil(s)])),
        };
        let mut outputs = [8, 16, 32, 64, 128].map(of);
        // Cell (column 3, row 2) of stride 16 in the second picture: its anchor is 128 pixels wide.
        let values: [f32; 5] = [0.75, 0.5, -1.0, 5.0 * 0.25f32.ln(), 5.0 * 0.5f32.ln()];
        values
            .into_iter()
            .enumerate()
            .for_each(|(k, v)| outputs[1].values[[1, k, 2, 3]] = v);
        let found = decode(
            &BatchOutputs {
                outputs: &outputs,
                n: 2,
                input: (160, 96),
                class: 0,
                threshold: 0.5,
            },
            Layout::Atss,
        )
        .expect("fits");
        let ([], [d]) = (found[0].as_slice(), found[1].as_slice()) else {
            panic!("one person expected: {found:?}")
        };
        let want = [48.0 + 6.4 - 16.0, 32.0 - 12.8 - 32.0, 32.0, 64.0];
        for (a, b) in <[f32; 4]>::from(d.bbox).into_iter().zip(want) {
            assert!((a - b).abs() < 1e-3, "{d:?}, not {want:?}");
        }
        assert_eq!(d.confidence, 0.75);
        let e = decode(
            &BatchOutputs {
                outputs: &outputs[..2],
                n: 2,
                input: (160, 96),
                class: 0,
                threshold: 0.5,
            },
            Layout::Atss,
        )
        .unwrap_err();
        assert!(
            e.contains("'atss'") && e.contains("det_s16 [2, 5, 6, 10]"),
            "{e}"
        );
    }
}
