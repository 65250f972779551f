//! The output of a network.

use ndarray::ArrayD;

/// One output of a run, as float32.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// The output's name in the model.
    pub name: String,
    /// The output's values.
    pub values: ArrayD<f32>,
}
