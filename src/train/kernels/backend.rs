//! The operations that networks use: on the CPU the kernels of this folder, on other backends
//! burn's.

use burn::backend::Flex;
use burn::module::Module;
use burn::nn::BatchNorm;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::ops::{ConvOptions, FloatTensor};
use burn::tensor::{
    Bool, DType, FloatDType, Tensor, TensorData, TensorMetadata, TensorPrimitive, activation,
    module,
};

use crate::train::kernels::normalisation::{self, Activation, Moments};
use crate::train::kernels::shape::{ConvGeometry, Epilogue, Shape};
use crate::train::kernels::{convolution, depthwise, plane_ops};

/// A normalised batch with the mean and variance `[channels]` of its input.
#[derive(Debug)]
pub struct Normalised<B: Backend> {
    /// The batch [n, channels, height, width].
    pub maps: Tensor<B, 4>,
    /// Mean and variance, without derivatives.
    pub moments: [Tensor<B, 1>; 2],
}

/// A network from crops to feature maps, on any backend.
pub trait MapNetwork {
    /// The network's module.
    type On<B: Backend>: Module<B>;

    /// Maps crops [n, 3, h, w] to feature maps [n, c, h', w'].
    fn forward<B: Kernels>(network: &Self::On<B>, crops: Tensor<B, 4>) -> Tensor<B, 4>;

    /// The same network, with the same weights in memory, without burn's differentiation.
    fn inner<B: AutodiffBackend>(network: &Self::On<B>) -> Self::On<B::InnerBackend>;
}

/// A backend on which networks can be trained.
pub trait Kernels: Backend {
    /// Whether a device is the CPU. On other devices operations are queued, and reading a result
    /// waits until the device has computed it.
    fn on_cpu(_: &Self::Device) -> bool {
        false
    }

    /// Copies values to a device. If the backend supports it, does not wait for operations that are
    /// queued on the device.
    fn upload<const D: usize>(values: TensorData, device: &Self::Device) -> Tensor<Self, D> {
        Tensor::from_data(values, device)
    }

    /// As [`Kernels::upload`].
    fn upload_mask<const D: usize>(
        values: TensorData,
        device: &Self::Device,
    ) -> Tensor<Self, D, Bool> {
        Tensor::from_data(values, device)
    }

    /// Runs a network. A backend may record the derivatives of all its operations at once.
    fn run<N: MapNetwork>(network: &N::On<Self>, crops: Tensor<Self, 4>) -> Tensor<Self, 4> {
        N::forward(network, crops)
    }

    /// Applies batch normalisation, then the activation, to feature maps [n, channels, height,
    /// width]. It computes in float32; the result has the element type of the maps. In training it
    /// uses the batch's mean and variance, and updates the running averages with `norm.momentum`.
    /// Otherwise it uses the running averages.
    fn batch_normalise(
        norm: &BatchNorm<Self>,
        maps: Tensor<Self, 4>,
        activation: Activation,
    ) -> Tensor<Self, 4> {
        let precision = FloatDType::from(maps.dtype());
        let maps = cast(maps, FloatDType::F32);
        let normalised = if Self::ad_enabled(&maps.device()) {
            normalise_by_batch(norm, maps, activation)
        } else {
            normalise_by_averages(norm, maps, activation)
        };
        cast(normalised, precision)
    }

    /// Convolution without bias: [n, from, h, w] with weights [to, from per group, k, k].
    fn convolve(x: Tensor<Self, 4>, weight: Tensor<Self, 4>, shape: Shape) -> Tensor<Self, 4> {
        composed_convolve(x, weight, shape)
    }

    /// Convolution, then addition of `bias` `[to]` to each channel, then the activation.
    fn convolve_with_bias(
        x: Tensor<Self, 4>,
        weight: Tensor<Self, 4>,
        bias: Tensor<Self, 1>,
        shape: Shape,
        activation: Activation,
    ) -> Tensor<Self, 4> {
        composed_convolve_with_bias(x, weight, bias, shape, activation)
    }

    /// Normalises by the batch's moments, multiplies by `gamma` and adds `beta`, each `[channels]`,
    /// then applies the activation.
    fn normalise(
        x: Tensor<Self, 4>,
        gamma: Tensor<Self, 1>,
        beta: Tensor<Self, 1>,
        epsilon: f32,
        activation: Activation,
    ) -> Normalised<Self> {
        composed_normalise(x, gamma, beta, epsilon, activation)
    }

    /// Multiplies each channel by `factor` and adds `offset`, each `[channels]`, then applies the
    /// activation.
    fn scale(
        x: Tensor<Self, 4>,
        factor: Tensor<Self, 1>,
        offset: Tensor<Self, 1>,
        activation: Activation,
    ) -> Tensor<Self, 4> {
        composed_scale(x, factor, offset, activation)
    }

    /// Multiplies each plane of [n, channels, h, w] by its gate [n, channels].
    fn gate(x: Tensor<Self, 4>, gates: Tensor<Self, 2>) -> Tensor<Self, 4> {
        composed_gate(x, gates)
    }

    /// The mean, [n, channels], of each plane of [n, channels, h, w].
    fn plane_mean(x: Tensor<Self, 4>) -> Tensor<Self, 2> {
        composed_plane_mean(x)
    }

    /// The sum, [n, channels], of each plane of [n, channels, h, w], weighted by `weights`
    /// [channels, h * w].
    fn read_out(x: Tensor<Self, 4>, weights: Tensor<Self, 2>) -> Tensor<Self, 2> {
        composed_read_out(x, weights)
    }
}

/// [`Kernels::batch_normalise`] in training.
fn normalise_by_batch<B: Kernels>(
    norm: &BatchNorm<B>,
    maps: Tensor<B, 4>,
    activation: Activation,
) -> Tensor<B, 4> {
    let (gamma, beta) = (norm.gamma.val(), norm.beta.val());
    let Normalised {
        maps,
        moments: [mean, variance],
    } = B::normalise(maps, gamma, beta, norm.epsilon as f32, activation);
    for (running, of_batch) in [(&norm.running_mean, mean), (&norm.running_var, variance)] {
        running.update(running.value_sync() * (1.0 - norm.momentum) + of_batch * norm.momentum);
    }
    maps
}

/// [`Kernels::batch_normalise`] in inference.
pub(super) fn normalise_by_averages<B: Kernels>(
    norm: &BatchNorm<B>,
    maps: Tensor<B, 4>,
    activation: Activation,
) -> Tensor<B, 4> {
    let factor = norm.gamma.val() / (norm.running_var.value() + norm.epsilon).sqrt();
    let offset = norm.beta.val() - norm.running_mean.value() * factor.clone();
    B::scale(maps, factor, offset, activation)
}

pub(super) fn composed_gate<B: Backend>(x: Tensor<B, 4>, gates: Tensor<B, 2>) -> Tensor<B, 4> {
    let [n, c, _, _] = x.dims();
    x * gates.reshape([n, c, 1, 1])
}

pub(super) fn composed_plane_mean<B: Backend>(x: Tensor<B, 4>) -> Tensor<B, 2> {
    let [n, c, ..] = x.dims();
    x.mean_dim(3).mean_dim(2).reshape([n, c])
}

pub(super) fn composed_read_out<B: Backend>(
    x: Tensor<B, 4>,
    weights: Tensor<B, 2>,
) -> Tensor<B, 2> {
    let [n, c, h, w] = x.dims();
    (x.reshape([n, c, h * w]) * weights.reshape([1, c, h * w]))
        .sum_dim(2)
        .reshape([n, c])
}

pub(super) fn composed_convolve<B: Backend>(
    x: Tensor<B, 4>,
    weight: Tensor<B, 4>,
    shape: Shape,
) -> Tensor<B, 4> {
    let pad = shape.padding();
    module::conv2d(
        x,
        weight,
        None,
        ConvOptions::new([shape.stride; 2], [pad; 2], [1; 2], shape.groups()),
    )
}

pub(super) fn composed_convolve_with_bias<B: Backend>(
    x: Tensor<B, 4>,
    weight: Tensor<B, 4>,
    bias: Tensor<B, 1>,
    shape: Shape,
    activation: Activation,
) -> Tensor<B, 4> {
    composed_scale(
        composed_convolve(x, weight, shape),
        Tensor::ones_like(&bias),
        bias,
        activation,
    )
}

pub(super) fn composed_normalise<B: Backend>(
    x: Tensor<B, 4>,
    gamma: Tensor<B, 1>,
    beta: Tensor<B, 1>,
    epsilon: f32,
    activation: Activation,
) -> Normalised<B> {
    let channels = [x.dims()[1]];
    // The mean is computed over one dimension after the other, first over the pictures, so that no
    // copy in another layout is needed.
    let mean_of = |x: Tensor<B, 4>| x.mean_dim(0).mean_dim(3).mean_dim(2);
    let mean = mean_of(x.clone());
    let variance = mean_of((x.clone() - mean.clone()).square());
    let moments = [mean.clone(), variance.clone()].map(|m| m.detach().reshape(channels));
    let unit = (x - mean) / (variance + epsilon).sqrt();
    Normalised {
        maps: composed_scale(unit, gamma, beta, activation),
        moments,
    }
}

pub(super) fn composed_scale<B: Backend>(
    x: Tensor<B, 4>,
    factor: Tensor<B, 1>,
    offset: Tensor<B, 1>,
    activation: Activation,
) -> Tensor<B, 4> {
    let shape = [1, x.dims()[1], 1, 1];
    let y = x * factor.reshape(shape) + offset.reshape(shape);
    match activation {
        Activation::Linear => y,
        Activation::Relu => activation::relu(y),
        Activation::Relu6 => y.clamp(0.0, 6.0),
    }
}

/// Converts a tensor to a precision, if it has another.
pub fn cast<B: Backend, const D: usize>(x: Tensor<B, D>, precision: FloatDType) -> Tensor<B, D> {
    if x.dtype() == DType::from(precision) {
        x
    } else {
        x.cast(precision)
    }
}

/// The primitive of a float tensor.
pub(super) fn primitive<B: Backend, const D: usize>(x: Tensor<B, D>) -> FloatTensor<B> {
    x.into_primitive().tensor()
}

/// The tensor of a primitive.
pub(super) fn tensor<B: Backend, const D: usize>(x: FloatTensor<B>) -> Tensor<B, D> {
    Tensor::from_primitive(TensorPrimitive::Float(x))
}

/// Makes a tensor contiguous.
pub(super) fn contiguous(x: FloatTensor<Flex>) -> FloatTensor<Flex> {
    x.to_contiguous()
}

/// Creates a tensor from values.
pub(super) fn of<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> FloatTensor<Flex> {
    FloatTensor::<Flex>::from_data(TensorData::new(values, shape))
}

/// Geometry of a convolution on the maps `x`.
pub(super) fn geometry_of(x: &FloatTensor<Flex>, shape: Shape) -> ConvGeometry {
    let [_, _, h, w] = x.shape().dims::<4>();
    shape.on((h, w))
}

/// Convolution of contiguous tensors on the CPU.
pub(super) fn convolve(
    x: &FloatTensor<Flex>,
    weight: &FloatTensor<Flex>,
    shape: Shape,
    epilogue: Option<Epilogue<'_>>,
) -> FloatTensor<Flex> {
    let (s, n) = (geometry_of(x, shape), x.shape().dims::<4>()[0]);
    let forward = if shape.depthwise {
        depthwise::forward
    } else {
        convolution::forward
    };
    of(
        forward(x.storage(), weight.storage(), &s, epilogue),
        [n, shape.channels.1, s.out.0, s.out.1],
    )
}

/// Moments of contiguous maps.
pub(super) fn moments(x: &FloatTensor<Flex>) -> Moments {
    let [_, c, h, w] = x.shape().dims::<4>();
    Moments::of(x.storage(), c, h * w)
}

impl Kernels for Flex {
    fn on_cpu(_: &Self::Device) -> bool {
        true
    }

    fn convolve(x: Tensor<Self, 4>, weight: Tensor<Self, 4>, shape: Shape) -> Tensor<Self, 4> {
        if x.dtype() != DType::F32 {
            return composed_convolve(x, weight, shape);
        }
        tensor(convolve(
            &contiguous(primitive(x)),
            &contiguous(primitive(weight)),
            shape,
            None,
        ))
    }

    fn convolve_with_bias(
        x: Tensor<Self, 4>,
        weight: Tensor<Self, 4>,
        bias: Tensor<Self, 1>,
        shape: Shape,
        activation: Activation,
    ) -> Tensor<Self, 4> {
        if x.dtype() != DType::F32 {
            return composed_convolve_with_bias(x, weight, bias, shape, activation);
        }
        let [x, weight, bias] = [primitive(x), primitive(weight), primitive(bias)].map(contiguous);
        tensor(convolve(
            &x,
            &weight,
            shape,
            Some(Epilogue {
                bias: bias.storage(),
                activation,
            }),
        ))
    }

    fn scale(
        x: Tensor<Self, 4>,
        factor: Tensor<Self, 1>,
        offset: Tensor<Self, 1>,
        activation: Activation,
    ) -> Tensor<Self, 4> {
        if x.dtype() != DType::F32 {
            return composed_scale(x, factor, offset, activation);
        }
        let [x, factor, offset] =
            [primitive(x), primitive(factor), primitive(offset)].map(contiguous);
        tensor(scale(&x, &factor, &offset, activation))
    }

    fn gate(x: Tensor<Self, 4>, gates: Tensor<Self, 2>) -> Tensor<Self, 4> {
        if x.dtype() != DType::F32 {
            return composed_gate(x, gates);
        }
        tensor(gate(
            &contiguous(primitive(x)),
            &contiguous(primitive(gates)),
        ))
    }

    fn plane_mean(x: Tensor<Self, 4>) -> Tensor<Self, 2> {
        if x.dtype() != DType::F32 {
            return composed_plane_mean(x);
        }
        tensor(plane_mean(&contiguous(primitive(x))))
    }

    fn read_out(x: Tensor<Self, 4>, weights: Tensor<Self, 2>) -> Tensor<Self, 2> {
        if x.dtype() != DType::F32 {
            return composed_read_out(x, weights);
        }
        tensor(read_out(
            &contiguous(primitive(x)),
            &contiguous(primitive(weights)),
        ))
    }
}

/// [`Kernels::scale`] of contiguous tensors.
pub(super) fn scale(
    x: &FloatTensor<Flex>,
    factor: &FloatTensor<Flex>,
    offset: &FloatTensor<Flex>,
    activation: Activation,
) -> FloatTensor<Flex> {
    let [n, c, h, w] = x.shape().dims::<4>();
    of(
        normalisation::scale(
            x.storage(),
            h * w,
            factor.storage(),
            offset.storage(),
            activation,
        ),
        [n, c, h, w],
    )
}

/// [`Kernels::gate`] of contiguous tensors.
pub(super) fn gate(x: &FloatTensor<Flex>, gates: &FloatTensor<Flex>) -> FloatTensor<Flex> {
    let [n, c, h, w] = x.shape().dims::<4>();
    of(
        plane_ops::gate(x.storage(), gates.storage(), h * w),
        [n, c, h, w],
    )
}

/// [`Kernels::plane_mean`] of a contiguous tensor.
pub(super) fn plane_mean(x: &FloatTensor<Flex>) -> FloatTensor<Flex> {
    let [n, c, h, w] = x.shape().dims::<4>();
    of(plane_ops::mean(x.storage(), h * w), [n, c])
}

/// [`Kernels::read_out`] of contiguous tensors.
pub(super) fn read_out(x: &FloatTensor<Flex>, weights: &FloatTensor<Flex>) -> FloatTensor<Flex> {
    let [n, c, h, w] = x.shape().dims::<4>();
    of(
        plane_ops::read_out(x.storage(), weights.storage(), h * w),
        [n, c],
    )
}
