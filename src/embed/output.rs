//! Finds and reads the output that holds an embedder's vectors.

use ndarray::{Array2, ArrayD};

use crate::infer::Output;

/// Name and dimension of the output that holds the vectors, chosen among the outputs for one crop.
/// If there are several candidates, such as the class scores of a classifier, the names of the
/// outputs decide.
pub(super) fn vectors(outputs: &[Output]) -> Result<(String, usize), String> {
    let dimension = |o: &Output| Some((o.name.clone(), flatten(o.values.clone(), 1)?.ncols()));
    let fitting: Vec<(String, usize)> = outputs.iter().filter_map(dimension).collect();
    let named = |(name, _): &&(String, usize)| {
        let name = name.to_lowercase();
        name.contains("embed") || name.contains("feat")
    };
    match fitting.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(format!(
            "its outputs are {}, where [N, D] or [N, D, 1, 1] is needed for N crops",
            shapes(outputs)
        )),
        several => match several.iter().filter(named).collect::<Vec<_>>().as_slice() {
            [one] => Ok((*one).clone()),
            _ => Err(format!(
                "its outputs {} could all be embeddings; export it with one output",
                shapes(outputs)
            )),
        },
    }
}

/// Names and shapes of outputs, for messages.
pub(super) fn shapes(outputs: &[Output]) -> String {
    outputs
        .iter()
        .map(|o| format!("{} {:?}", o.name, o.values.shape()))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Reshapes an output of one vector per crop, [n, D] or [n, D, 1, …], to [n, D]; otherwise `None`.
pub(super) fn flatten(values: ArrayD<f32>, n: usize) -> Option<Array2<f32>> {
    let fits = values.ndim() >= 2
        && values.shape()[0] == n
        && values.shape()[1] > 0
        && values.shape()[2..].iter().all(|&side| side == 1);
    let dimension = *values.shape().get(1)?;
    if fits {
        values.into_shape_with_order((n, dimension)).ok()
    } else {
        None
    }
}
