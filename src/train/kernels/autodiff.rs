//! Registers the CPU kernels with burn's automatic differentiation.

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::{Autodiff, Flex};
use burn::tensor::ops::FloatTensor;
use burn::tensor::{DType, Tensor, TensorMetadata};

use crate::train::kernels::backend::{
    self, Kernels, Normalised, contiguous, of, primitive, tensor,
};
use crate::train::kernels::normalisation::{Activation, Norm};
use crate::train::kernels::shape::{ConvOutput, Epilogue, Shape};
use crate::train::kernels::{convolution, depthwise, normalisation, plane_ops};

/// A contiguous CPU tensor.
type Dense = FloatTensor<Flex>;

/// Registers the derivatives of a convolution with respect to input and weights; returns the
/// derivative with respect to the bias.
fn register_convolution(
    grads: &mut Gradients,
    [x, weight, grad]: [&Dense; 3],
    shape: Shape,
    output: Option<ConvOutput<'_>>,
    [of_x, of_weight]: [Option<NodeId>; 2],
) -> Vec<f32> {
    let backward = if shape.depthwise {
        depthwise::backward
    } else {
        convolution::backward
    };
    let found = backward(
        x.storage(),
        weight.storage(),
        grad.storage(),
        &backend::geometry_of(x, shape),
        of_x.is_some(),
        output,
    );
    if let (Some(node), Some(values)) = (of_x, found.by_x) {
        grads.register::<Flex>(node, of(values, x.shape().dims::<4>()));
    }
    if let Some(node) = of_weight {
        grads.register::<Flex>(node, of(found.by_weight, weight.shape().dims::<4>()));
    }
    found.by_bias
}

#[derive(Debug)]
struct Convolution;

impl Backward<Flex, 2> for Convolution {
    type State = (Dense, Dense, Shape);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (x, weight, shape) = ops.state;
        let grad = contiguous(grads.consume::<Flex>(&ops.node));
        register_convolution(
            grads,
            [&x, &weight, &grad],
            shape,
            None,
            ops.parents.map(|p| p.map(|node| node.id)),
        );
    }
}

#[derive(Debug)]
struct ConvolutionWithBias;

impl Backward<Flex, 3> for ConvolutionWithBias {
    /// Input, weights and output; shape; activation.
    type State = ([Dense; 3], Shape, Activation);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let ([x, weight, maps], shape, activation) = ops.state;
        let grad = contiguous(grads.consume::<Flex>(&ops.node));
        let [of_x, of_weight, of_bias] = ops.parents.map(|p| p.map(|node| node.id));
        let output = Some(ConvOutput {
            maps: maps.storage(),
            activation,
        });
        let by_bias = register_convolution(
            grads,
            [&x, &weight, &grad],
            shape,
            output,
            [of_x, of_weight],
        );
        if let Some(node) = of_bias {
            grads.register::<Flex>(node, of(by_bias, [shape.channels.1]));
        }
    }
}

#[derive(Debug)]
struct Normalisation;

impl Backward<Flex, 3> for Normalisation {
    type State = (Dense, Norm);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (x, norm) = ops.state;
        let grad = contiguous(grads.consume::<Flex>(&ops.node));
        let dims = x.shape().dims::<4>();
        let [by_x, by_gamma, by_beta] =
            norm.backward(x.storage(), grad.storage(), dims[2] * dims[3]);
        let channels = [dims[1]];
        let [of_x, of_gamma, of_beta] = ops.parents;
        if let Some(node) = of_x {
            grads.register::<Flex>(node.id, of(by_x, dims));
        }
        for (node, values) in [(of_gamma, by_gamma), (of_beta, by_beta)] {
            if let Some(node) = node {
                grads.register::<Flex>(node.id, of(values, channels));
            }
        }
    }
}

#[derive(Debug)]
struct Scaling;

impl Backward<Flex, 3> for Scaling {
    type State = (Dense, Dense, Dense, Activation);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (x, factor, offset, activation) = ops.state;
        let grad = contiguous(grads.consume::<Flex>(&ops.node));
        let dims = x.shape().dims::<4>();
        let pixels = dims[2] * dims[3];
        let [by_x, by_factor, by_offset] = normalisation::scale_backward(
            x.storage(),
            grad.storage(),
            pixels,
            factor.storage(),
            offset.storage(),
            activation,
        );
        let [of_x, of_factor, of_offset] = ops.parents;
        if let Some(node) = of_x {
            grads.register::<Flex>(node.id, of(by_x, dims));
        }
        for (node, values) in [(of_factor, by_factor), (of_offset, by_offset)] {
            if let Some(node) = node {
                grads.register::<Flex>(node.id, of(values, [dims[1]]));
            }
        }
    }
}

#[derive(Debug)]
struct Gating;

impl Backward<Flex, 2> for Gating {
    type State = (Dense, Dense);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let ((x, gates), [of_x, of_gates]) = (ops.state, ops.parents);
        let grad = contiguous(grads.consume::<Flex>(&ops.node));
        let [n, c, h, w] = x.shape().dims::<4>();
        let (by_x, by_gates) =
            plane_ops::gate_backward(x.storage(), gates.storage(), grad.storage(), h * w);
        if let Some(node) = of_x {
            grads.register::<Flex>(node.id, of(by_x, [n, c, h, w]));
        }
        if let Some(node) = of_gates {
            grads.register::<Flex>(node.id, of(by_gates, [n, c]));
        }
    }
}

#[derive(Debug)]
struct PlaneMean;

impl Backward<Flex, 1> for PlaneMean {
    type State = [usize; 4];

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = contiguous(grads.consume::<Flex>(&ops.node));
        let dims = ops.state;
        if let [Some(node)] = ops.parents {
            grads.register::<Flex>(
                node.id,
                of(
                    plane_ops::mean_backward(grad.storage(), dims[2] * dims[3]),
                    dims,
                ),
            );
        }
    }
}

#[derive(Debug)]
struct ReadOut;

impl Backward<Flex, 2> for ReadOut {
    type State = (Dense, Dense);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let ((x, weights), [of_x, of_weights]) = (ops.state, ops.parents);
        let grad = contiguous(grads.consume::<Flex>(&ops.node));
        let [n, c, h, w] = x.shape().dims::<4>();
        let (by_x, by_weights) =
            plane_ops::read_out_backward(x.storage(), weights.storage(), grad.storage(), h * w);
        if let Some(node) = of_x {
            grads.register::<Flex>(node.id, of(by_x, [n, c, h, w]));
        }
        if let Some(node) = of_weights {
            grads.register::<Flex>(node.id, of(by_weights, [c, h * w]));
        }
    }
}

impl<C: CheckpointStrategy> Kernels for Autodiff<Flex, C> {
    fn on_cpu(_: &Self::Device) -> bool {
        true
    }

    fn convolve(x: Tensor<Self, 4>, weight: Tensor<Self, 4>, shape: Shape) -> Tensor<Self, 4> {
        if x.dtype() != DType::F32 {
            return backend::composed_convolve(x, weight, shape);
        }
        let (x, weight) = (primitive(x), primitive(weight));
        let [input, values] = [x.primitive, weight.primitive].map(contiguous);
        let output = backend::convolve(&input, &values, shape, None);
        tensor(
            match Convolution
                .prepare::<C>([x.node, weight.node])
                .compute_bound()
                .stateful()
            {
                OpsKind::Tracked(prepared) => prepared.finish((input, values, shape), output),
                OpsKind::UnTracked(prepared) => prepared.finish(output),
            },
        )
    }

    fn convolve_with_bias(
        x: Tensor<Self, 4>,
        weight: Tensor<Self, 4>,
        bias: Tensor<Self, 1>,
        shape: Shape,
        activation: Activation,
    ) -> Tensor<Self, 4> {
        if x.dtype() != DType::F32 {
            return backend::composed_convolve_with_bias(x, weight, bias, shape, activation);
        }
        let (x, weight, bias) = (primitive(x), primitive(weight), primitive(bias));
        let [input, values, biases] =
            [x.primitive, weight.primitive, bias.primitive].map(contiguous);
        let output = backend::convolve(
            &input,
            &values,
            shape,
            Some(Epilogue {
                bias: biases.storage(),
                activation,
            }),
        );
        tensor(
            match ConvolutionWithBias
                .prepare::<C>([x.node, weight.node, bias.node])
                .compute_bound()
                .stateful()
            {
                OpsKind::Tracked(prepared) => {
                    prepared.finish(([input, values, output.clone()], shape, activation), output)
                }
                OpsKind::UnTracked(prepared) => prepared.finish(output),
            },
        )
    }

    fn normalise(
        x: Tensor<Self, 4>,
        gamma: Tensor<Self, 1>,
        beta: Tensor<Self, 1>,
        epsilon: f32,
        activation: Activation,
    ) -> Normalised<Self> {
        if x.dtype() != DType::F32 {
            return backend::composed_normalise(x, gamma, beta, epsilon, activation);
        }
        let (dims, device) = (x.dims(), x.device());
        let (x, gamma, beta) = (primitive(x), primitive(gamma), primitive(beta));
        let input = contiguous(x.primitive);
        let moments = backend::moments(&input);
        let averages =
            [&moments.mean, &moments.variance].map(|v| Tensor::from_floats(v.as_slice(), &device));
        let values = |t: Dense| contiguous(t).storage().to_vec();
        let norm = Norm {
            moments,
            gamma: values(gamma.primitive),
            beta: values(beta.primitive),
            epsilon,
            activation,
        };
        let output = of(norm.forward(input.storage(), dims[2] * dims[3]), dims);
        let maps = match Normalisation
            .prepare::<C>([x.node, gamma.node, beta.node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prepared) => prepared.finish((input, norm), output),
            OpsKind::UnTracked(prepared) => prepared.finish(output),
        };
        Normalised {
            maps: tensor(maps),
            moments: averages,
        }
    }

    fn scale(
        x: Tensor<Self, 4>,
        factor: Tensor<Self, 1>,
        offset: Tensor<Self, 1>,
        activation: Activation,
    ) -> Tensor<Self, 4> {
        if x.dtype() != DType::F32 {
            return backend::composed_scale(x, factor, offset, activation);
        }
        let (x, factor, offset) = (primitive(x), primitive(factor), primitive(offset));
        let [input, factors, offsets] =
            [x.primitive, factor.primitive, offset.primitive].map(contiguous);
        let output = backend::scale(&input, &factors, &offsets, activation);
        tensor(
            match Scaling
                .prepare::<C>([x.node, factor.node, offset.node])
                .compute_bound()
                .stateful()
            {
                OpsKind::Tracked(prepared) => {
                    prepared.finish((input, factors, offsets, activation), output)
                }
                OpsKind::UnTracked(prepared) => prepared.finish(output),
            },
        )
    }

    fn gate(x: Tensor<Self, 4>, gates: Tensor<Self, 2>) -> Tensor<Self, 4> {
        if x.dtype() != DType::F32 {
            return backend::composed_gate(x, gates);
        }
        let (x, gates) = (primitive(x), primitive(gates));
        let [input, values] = [x.primitive, gates.primitive].map(contiguous);
        let output = backend::gate(&input, &values);
        tensor(
            match Gating
                .prepare::<C>([x.node, gates.node])
                .compute_bound()
                .stateful()
            {
                OpsKind::Tracked(prepared) => prepared.finish((input, values), output),
                OpsKind::UnTracked(prepared) => prepared.finish(output),
            },
        )
    }

    fn plane_mean(x: Tensor<Self, 4>) -> Tensor<Self, 2> {
        if x.dtype() != DType::F32 {
            return backend::composed_plane_mean(x);
        }
        let (dims, x) = (x.dims(), primitive(x));
        let output = backend::plane_mean(&contiguous(x.primitive));
        tensor(
            match PlaneMean.prepare::<C>([x.node]).compute_bound().stateful() {
                OpsKind::Tracked(prepared) => prepared.finish(dims, output),
                OpsKind::UnTracked(prepared) => prepared.finish(output),
            },
        )
    }

    fn read_out(x: Tensor<Self, 4>, weights: Tensor<Self, 2>) -> Tensor<Self, 2> {
        if x.dtype() != DType::F32 {
            return backend::composed_read_out(x, weights);
        }
        let (x, weights) = (primitive(x), primitive(weights));
        let [input, values] = [x.primitive, weights.primitive].map(contiguous);
        let output = backend::read_out(&input, &values);
        tensor(
            match ReadOut
                .prepare::<C>([x.node, weights.node])
                .compute_bound()
                .stateful()
            {
                OpsKind::Tracked(prepared) => prepared.finish((input, values), output),
                OpsKind::UnTracked(prepared) => prepared.finish(output),
            },
        )
    }
}

#[cfg(test)]
mod tests;
