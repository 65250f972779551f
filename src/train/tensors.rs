//! Small operations on burn tensors that the networks share.

use burn::nn::Linear;
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use crate::train::onnx::Graph;

/// Channels, height and width of feature maps.
pub type MapSize = [usize; 3];

/// Scales rows to unit length.
pub fn normalise<B: Backend>(x: Tensor<B, 2>) -> Tensor<B, 2> {
    let length = (x.clone().powi_scalar(2).sum_dim(1) + 1e-12).sqrt();
    x / length
}

/// Values of a vector.
pub(super) fn values<B: Backend>(x: Tensor<B, 1>) -> Vec<f32> {
    x.into_data()
        .convert::<f32>()
        .to_vec::<f32>()
        .expect("converted to float32")
}

/// Adds a linear map to the graph; returns its output.
pub(super) fn export_linear<B: Backend>(
    g: &mut Graph,
    l: &Linear<B>,
    input: &str,
    name: &str,
) -> String {
    let w = values(l.weight.val().reshape([-1]));
    let w = g.constant(&format!("{name}.weight"), &l.weight.dims(), &w);
    let Some(bias) = &l.bias else {
        return g.node("MatMul", &[input, &w], name, &[]);
    };
    let b = values(bias.val());
    let b = g.constant(&format!("{name}.bias"), &bias.dims(), &b);
    g.node("Gemm", &[input, &w, &b], name, &[])
}
