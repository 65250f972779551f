//! Training by burn's CUDA kernels (feature `train-cuda`). burn's own operations are used, except
//! for the derivative of the depthwise convolution by its weights, which burn computes by five
//! operations per channel.

use burn::backend::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::tensor::backend::Backend;
use burn::tensor::ops::{ConvOptions, FloatTensor};
use burn::tensor::{Tensor, module};

#[cfg(feature = "train-cuda")]
use crate::train::kernels::backend::{Kernels, composed_convolve};
use crate::train::kernels::backend::{primitive, tensor};
use crate::train::kernels::shape::Shape;

#[cfg(feature = "train-cuda")]
impl Kernels for burn::backend::Cuda {}

#[cfg(feature = "train-cuda")]
impl<C: CheckpointStrategy> Kernels for Autodiff<burn::backend::Cuda, C> {
    fn convolve(x: Tensor<Self, 4>, weight: Tensor<Self, 4>, shape: Shape) -> Tensor<Self, 4> {
        if shape.depthwise {
            convolve(x, weight, shape)
        } else {
            composed_convolve(x, weight, shape)
        }
    }
}

fn options(shape: Shape) -> ConvOptions<2> {
    ConvOptions::new(
        [shape.stride; 2],
        [shape.padding(); 2],
        [1; 2],
        shape.groups(),
    )
}

/// The derivative by the weights, [channels, 1, k, k]: each plane of the input is convolved with
/// the same plane of the output's derivative, and the results are summed over the pictures.
fn by_weight<B: Backend>(x: Tensor<B, 4>, grad: Tensor<B, 4>, shape: Shape) -> Tensor<B, 4> {
    let ([n, c, h, w], [_, _, out_h, out_w], k) = (x.dims(), grad.dims(), shape.kernel);
    let planes = n * c;
    let taps = module::conv2d(
        x.reshape([1, planes, h, w]),
        grad.reshape([planes, 1, out_h, out_w]),
        None,
        ConvOptions::new([1; 2], [shape.padding(); 2], [shape.stride; 2], planes),
    );
    // With a stride the result may be larger than the kernel.
    taps.slice([0..1, 0..planes, 0..k, 0..k])
        .reshape([n, c, k * k])
        .sum_dim(0)
        .reshape([c, 1, k, k])
}

#[derive(Debug)]
struct DepthwiseConvolution;

impl<B: Backend> Backward<B, 2> for DepthwiseConvolution {
    type State = (FloatTensor<B>, FloatTensor<B>, Shape);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let ((x, weight, shape), [of_x, of_weight]) = (ops.state, ops.parents);
        let grad = grads.consume::<B>(&ops.node);
        if let Some(node) = of_x {
            let by_x = B::conv2d_x_backward(x.clone(), weight, grad.clone(), options(shape));
            grads.register::<B>(node.id, by_x);
        }
        if let Some(node) = of_weight {
            let found = by_weight::<B>(tensor(x), tensor(grad), shape);
            grads.register::<B>(node.id, primitive(found));
        }
    }
}

/// The convolution [n, c, h, w] with weights [c, 1, k, k].
fn convolve<B: Backend, C: CheckpointStrategy>(
    x: Tensor<Autodiff<B, C>, 4>,
    weight: Tensor<Autodiff<B, C>, 4>,
    shape: Shape,
) -> Tensor<Autodiff<B, C>, 4> {
    let (x, weight) = (primitive(x), primitive(weight));
    let [input, values] = [x.primitive, weight.primitive];
    let output = B::conv2d(input.clone(), values.clone(), None, options(shape));
    tensor(
        match DepthwiseConvolution
            .prepare::<C>([x.node, weight.node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prepared) => prepared.finish((input, values, shape), output),
            OpsKind::UnTracked(prepared) => prepared.finish(output),
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::kernels::backend::composed_convolve;
    use burn::backend::Flex;
    use burn::tensor::TensorData;

    type B = Autodiff<Flex>;

    #[test]
    fn derivatives_are_those_of_burns_own_convolution() {
        let values = |count: usize, dims: [usize; 4]| {
            let values: Vec<f32> = (0..count)
                .map(|i| ((i * 7919) % 97) as f32 / 97.0)
                .collect();
            Tensor::<B, 4>::from_data(TensorData::new(values, dims), &Default::default())
        };
        for (stride, size) in [(1, (6, 5)), (2, (6, 8)), (2, (7, 5))] {
            let shape = Shape::depthwise(3, stride);
            let derivatives = |ours: bool| {
                let x = values(2 * 3 * size.0 * size.1, [2, 3, size.0, size.1]).require_grad();
                let weight = values(27, [3, 1, 3, 3]).require_grad();
                let y = if ours {
                    convolve(x.clone(), weight.clone(), shape)
                } else {
                    composed_convolve(x.clone(), weight.clone(), shape)
                };
                let grads = (y.clone() * y).sum().backward();
                [x, weight].map(|t| t.grad(&grads).expect("tracked").into_data())
            };
            for (ours, theirs) in derivatives(true).iter().zip(derivatives(false)) {
                ours.assert_approx_eq::<f32>(&theirs, burn::tensor::Tolerance::default());
            }
        }
    }
}
