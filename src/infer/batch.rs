//! Batches for files that fix how many pictures a run takes: outputs of several runs become those
//! of one, without what was read out of padding.

use ndarray::{Array4, ArrayView4, Axis, Slice, concatenate};

use crate::infer::session::Output;

/// `part` [n, 3, h, w] with black pictures behind it, `size` in all.
pub(super) fn padded(part: ArrayView4<'_, f32>, size: usize) -> Array4<f32> {
    let (n, c, h, w) = part.dim();
    let mut whole = Array4::zeros((size, c, h, w));
    whole
        .slice_axis_mut(Axis(0), Slice::from(..n))
        .assign(&part);
    whole
}

/// Of the outputs of a run of `size` pictures those of the first `n`. Files for a single picture
/// may leave out the axis of pictures; it is added. An output that has no such axis is left out.
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

/// The outputs of several runs, one behind the other along the axis of pictures.
///
/// # Errors
/// When an output has other sides in one run than in another, so that it cannot be joined: a
/// network whose number of places depends on what it sees. Names the output.
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
    use ndarray::{ArrayD, IxDyn};

    fn output(name: &str, shape: &[usize], value: f32) -> Output {
        Output {
            name: name.into(),
            values: ArrayD::from_elem(IxDyn(shape), value),
        }
    }

    #[test]
    fn padding_is_black_and_cut_off_again() {
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
    fn a_file_for_one_picture_may_leave_out_the_axis_of_pictures() {
        let runs =
            [1.0, 2.0].map(|v| first(vec![output("a", &[7, 5], v), output("b", &[1, 4], v)], 1, 1));
        let both = joined(runs.to_vec()).expect("they fit");
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
    fn outputs_of_different_shapes_are_told() {
        let runs = vec![
            vec![output("found", &[1, 7, 6], 0.0)],
            vec![output("found", &[1, 8, 6], 0.0)],
        ];
        let e = joined(runs).unwrap_err();
        assert!(e.contains("'found'") && e.contains("[1, 8, 6]"), "{e}");
    }
}
