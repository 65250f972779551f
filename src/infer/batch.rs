//! Batch sizes: pads batches if the model runs only some sizes, removes the outputs of the padding,
//! and joins the outputs of several runs.

use ndarray::{Array4, ArrayView4, Axis, Slice, concatenate};

use crate::infer::output::Output;

/// Largest number of pictures in one run on a GPU.
const LARGEST_ON_GPU: usize = 128;

/// The numbers of pictures that a model runs at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BatchSizes {
    /// Any number.
    Any,
    /// The number that the file fixes.
    Fixed(usize),
    /// Powers of two up to 128. On a GPU every size needs a session of its own.
    Powers,
}

impl BatchSizes {
    /// The size of the smallest batch that holds `n` pictures, or of the largest if none does.
    pub fn padded(self, n: usize) -> usize {
        match self {
            BatchSizes::Any => n,
            BatchSizes::Fixed(size) => size,
            BatchSizes::Powers => n.next_power_of_two().min(LARGEST_ON_GPU),
        }
    }

    /// Splits `n` pictures into batches. Returns for each batch the number of pictures and the
    /// padded size.
    pub fn parts(self, n: usize) -> Vec<(usize, usize)> {
        let mut parts = Vec::new();
        let mut left = n;
        while left > 0 {
            let size = self.padded(left);
            parts.push((left.min(size), size));
            left -= left.min(size);
        }
        parts
    }
}

/// Appends black pictures to `part` [n, 3, h, w], up to `size` in all.
pub(super) fn padded(part: ArrayView4<'_, f32>, size: usize) -> Array4<f32> {
    let (n, c, h, w) = part.dim();
    let mut whole = Array4::zeros((size, c, h, w));
    whole
        .slice_axis_mut(Axis(0), Slice::from(..n))
        .assign(&part);
    whole
}

/// Keeps the outputs of the first `n` of `size` pictures. For a file with a batch size of 1, whose
/// outputs may lack the batch axis, the axis is inserted. For other files an output without a batch
/// axis is removed.
pub(super) fn first(outputs: Vec<Output>, size: usize, n: usize) -> Vec<Output> {
    let own = |Output { name, mut values }: Output| {
        if size == 1 && values.shape().first() != Some(&1) {
            values.insert_axis_inplace(Axis(0));
        }
        if values.shape().first() != Some(&size) {
            return None;
        }
        values.slice_axis_inplace(Axis(0), Slice::from(..n));
        Some(Output { name, values })
    };
    outputs.into_iter().filter_map(own).collect()
}

/// Concatenates the outputs of several runs along the batch axis.
///
/// # Errors
/// Fails when an output's other axes differ between runs, as in networks whose number of boxes
/// depends on the picture. The message names the output.
pub(super) fn joined(mut runs: Vec<Vec<Output>>) -> Result<Vec<Output>, String> {
    if runs.len() < 2 {
        return Ok(runs.pop().unwrap_or_default());
    }
    let one = |i: usize| {
        let parts: Option<Vec<_>> = runs
            .iter()
            .map(|run| run.get(i).map(|o| o.values.view()))
            .collect();
        let values = parts.and_then(|parts| concatenate(Axis(0), &parts).ok());
        let name = runs[0][i].name.clone();
        match values {
            Some(values) => Ok(Output { name, values }),
            None => {
                let shape = |run: &Vec<Output>| run.get(i).map(|o| o.values.shape().to_vec());
                let shapes: Vec<_> = runs.iter().filter_map(shape).collect();
                Err(format!(
                    "its output '{name}' has different shapes in runs of one batch, {shapes:?}; \
                     export it with a free batch (dynamic=True)"
                ))
            }
        }
    };
    (0..runs[0].len()).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_split_into_batches_of_the_sizes_that_are_run() {
        assert_eq!(BatchSizes::Any.parts(7), [(7, 7)]);
        assert_eq!(BatchSizes::Fixed(3).parts(7), [(3, 3), (3, 3), (1, 3)]);
        assert_eq!(BatchSizes::Powers.parts(7), [(7, 8)]);
        assert_eq!(BatchSizes::Powers.parts(128), [(128, 128)]);
        assert_eq!(
            BatchSizes::Powers.parts(300),
            [(128, 128), (128, 128), (44, 64)]
        );
        assert_eq!(BatchSizes::Powers.parts(0), []);
    }

    use ndarray::{ArrayD, IxDyn};

    fn output(name: &str, shape: &[usize], value: f32) -> Output {
        Output {
            name: name.into(),
            values: ArrayD::from_elem(IxDyn(shape), value),
        }
    }

    #[test]
    fn padding_is_black_and_removed_from_the_outputs() {
        let whole = padded(Array4::ones((3, 3, 2, 2)).view(), 4);
        assert_eq!((whole.dim(), whole.sum()), ((4, 3, 2, 2), 36.0));
        let kept = first(
            vec![output("boxes", &[4, 7, 5], 1.0), output("number", &[], 1.0)],
            4,
            3,
        );
        assert_eq!(
            kept.iter().map(|o| o.values.shape()).collect::<Vec<_>>(),
            [[3, 7, 5]]
        );
    }

    #[test]
    fn a_missing_batch_axis_is_inserted_for_single_picture_files() {
        let runs =
            [1.0, 2.0].map(|v| first(vec![output("a", &[7, 5], v), output("b", &[1, 4], v)], 1, 1));
        let both = joined(runs.to_vec()).expect("shapes agree");
        assert_eq!(
            (both[0].values.shape(), both[1].values.shape()),
            (&[2, 7, 5][..], &[2, 4][..])
        );
        assert_eq!(
            (both[0].values[[0, 0, 0]], both[1].values[[1, 0]]),
            (1.0, 2.0)
        );
    }

    #[test]
    fn outputs_of_different_shapes_are_an_error() {
        let runs = vec![
            vec![output("found", &[1, 7, 6], 0.0)],
            vec![output("found", &[1, 8, 6], 0.0)],
        ];
        let e = joined(runs).unwrap_err();
        assert!(e.contains("'found'") && e.contains("[1, 8, 6]"), "{e}");
    }
}
