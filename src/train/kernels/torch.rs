//! Training by LibTorch (feature `train-torch`).
//!
//! LibTorch differentiates a network, which is one operation for burn's automatic differentiation.
//! LibTorch computes the derivative of a grouped convolution or of a batch normalisation by a
//! single kernel, burn by many operations.

use burn::backend::Autodiff;
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::nn::BatchNorm;
use burn::tensor::ops::FloatTensor;
use burn::tensor::{Bool, FloatDType, Tensor, TensorData};
use burn_tch::{LibTorch, LibTorchDevice, TchTensor};

use crate::train::error::TrainError;
use crate::train::kernels::activation::Activation;
use crate::train::kernels::backend::{
    Kernels, MapNetwork, cast, normalise_by_averages, primitive, tensor,
};
use crate::train::kernels::shape::Shape;

/// Prepares the first GPU: makes cuDNN select its kernels by measurement when a shape first occurs,
/// because the shapes of training stay the same.
///
/// # Errors
/// Fails when LibTorch finds no GPU.
pub fn prepare_gpu() -> Result<(), TrainError> {
    if !tch::Cuda::is_available() {
        return Err(TrainError::Setting(
            "LibTorch finds no NVIDIA GPU: install NVIDIA's driver, and build with a PyTorch for \
             CUDA (make setup-train-torch); or train with --device cpu"
                .into(),
        ));
    }
    tch::Cuda::cudnn_set_benchmark(true);
    Ok(())
}

/// Copies from the CPU through pinned memory, without waiting for the device. A copy from other
/// memory would wait until all queued operations are done.
fn uploaded(values: TchTensor, device: &LibTorchDevice) -> TchTensor {
    let to = tch::Device::from(*device);
    if to == tch::Device::Cpu {
        return values;
    }
    let pinned = values.tensor.pin_memory(to);
    TchTensor::new(pinned.to_device_(to, pinned.kind(), true, false))
}

/// No operation below changes its inputs. burn-tch computes in place if it holds the only reference
/// to a tensor, but LibTorch's recorded operations refer to the tensor too.
impl Kernels for LibTorch {
    fn on_cpu(device: &Self::Device) -> bool {
        matches!(device, LibTorchDevice::Cpu)
    }

    fn upload<const D: usize>(values: TensorData, device: &Self::Device) -> Tensor<Self, D> {
        let values = primitive(Tensor::<Self, D>::from_data(values, &LibTorchDevice::Cpu));
        tensor(uploaded(values, device))
    }

    fn upload_mask<const D: usize>(
        values: TensorData,
        device: &Self::Device,
    ) -> Tensor<Self, D, Bool> {
        let values = Tensor::<Self, D, Bool>::from_data(values, &LibTorchDevice::Cpu);
        Tensor::from_primitive(uploaded(values.into_primitive(), device))
    }

    /// LibTorch records the operation in training only.
    fn batch_normalise(
        norm: &BatchNorm<Self>,
        maps: Tensor<Self, 4>,
        activation: Activation,
    ) -> Tensor<Self, 4> {
        let maps = primitive(maps);
        if !maps.tensor.requires_grad() {
            let maps: Tensor<Self, 4> = tensor(maps);
            let precision = FloatDType::from(maps.dtype());
            let maps = cast(maps, FloatDType::F32);
            return cast(normalise_by_averages(norm, maps, activation), precision);
        }
        let [gamma, beta, mean, variance] = [
            norm.gamma.val(),
            norm.beta.val(),
            norm.running_mean.value_sync(),
            norm.running_var.value_sync(),
        ]
        .map(|t| primitive(t).tensor);
        // Computes in float32 for any type of the maps; updates the running averages in place.
        let mut normalised = maps.tensor.batch_norm(
            Some(&gamma),
            Some(&beta),
            Some(&mean),
            Some(&variance),
            true,
            norm.momentum,
            norm.epsilon,
            true,
        );
        tensor(TchTensor::new(match activation {
            Activation::Linear => normalised,
            Activation::Relu => normalised.relu_(),
            Activation::Relu6 => normalised.relu6_(),
        }))
    }

    fn gate(x: Tensor<Self, 4>, gates: Tensor<Self, 2>) -> Tensor<Self, 4> {
        let (x, gates) = (primitive(x).tensor, primitive(gates).tensor);
        tensor(TchTensor::new(&x * gates.unsqueeze(-1).unsqueeze(-1)))
    }

    fn plane_mean(x: Tensor<Self, 4>) -> Tensor<Self, 2> {
        let x = primitive(x).tensor;
        tensor(TchTensor::new(x.mean_dim(
            [2i64, 3].as_slice(),
            false,
            None,
        )))
    }
}

/// The nodes of a network's weights, in the order of a visit; `None` for weights that are not
/// trained.
struct Nodes<C: CheckpointStrategy>(Vec<Option<FloatTensor<Autodiff<LibTorch, C>>>>);

impl<C: CheckpointStrategy> ModuleVisitor<Autodiff<LibTorch, C>> for Nodes<C> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<Autodiff<LibTorch, C>, D>>) {
        let value = param.val();
        let trained = value.is_require_grad();
        self.0.push(trained.then(|| primitive(value)));
    }
}

/// Replaces the trained weights by tensors on the same memory whose derivatives LibTorch records.
struct Leaves<'a> {
    trained: &'a [bool],
    seen: usize,
    leaves: Vec<TchTensor>,
}

impl ModuleMapper<LibTorch> for Leaves<'_> {
    fn map_float<const D: usize>(
        &mut self,
        param: Param<Tensor<LibTorch, D>>,
    ) -> Param<Tensor<LibTorch, D>> {
        self.seen += 1;
        if !self.trained[self.seen - 1] {
            return param;
        }
        let (id, value, mapper) = param.consume();
        let value = leaf(primitive(value));
        self.leaves.push(value.clone());
        Param::from_mapped_value(id, tensor(value), mapper)
    }
}

/// A tensor on the same memory whose derivative LibTorch records.
fn leaf(value: TchTensor) -> TchTensor {
    TchTensor {
        tensor: value.tensor.detach().set_requires_grad(true),
        storage: value.storage,
    }
}

/// A recorded computation: its output, the inputs that have derivatives, and their nodes.
#[derive(Debug, Clone)]
struct Recorded {
    maps: TchTensor,
    leaves: Vec<TchTensor>,
    nodes: Vec<NodeId>,
}

impl Recorded {
    /// The output for burn. A second reference to its memory prevents burn-tch from changing it in
    /// place.
    fn output(&self) -> TchTensor {
        TchTensor {
            tensor: self.maps.tensor.detach(),
            storage: self.maps.storage.clone(),
        }
    }
}

/// The derivatives of a recorded computation. Only the first of a network's weights is a parent in
/// burn's graph, so that all derivatives are computed at once, when the derivative with respect to
/// the maps is complete.
#[derive(Debug)]
struct RecordedRun;

impl<const N: usize> Backward<LibTorch, N> for RecordedRun {
    type State = Recorded;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let Recorded {
            maps,
            leaves,
            nodes,
        } = ops.state;
        let by_maps = grads.consume::<LibTorch>(&ops.node);
        // LibTorch differentiates a scalar, so the maps are multiplied by their derivative and
        // summed.
        let weighted = &maps.tensor * by_maps.tensor;
        let leaves: Vec<_> = leaves.iter().map(|leaf| &leaf.tensor).collect();
        let found = tch::Tensor::run_backward(&[weighted], &leaves, false, false);
        for (node, gradient) in nodes.into_iter().zip(found) {
            // The gradient is undefined if the maps do not depend on this weight.
            if gradient.defined() {
                grads.register::<LibTorch>(node, TchTensor::new(gradient));
            }
        }
    }
}

impl<C: CheckpointStrategy> Kernels for Autodiff<LibTorch, C> {
    fn on_cpu(device: &Self::Device) -> bool {
        LibTorch::on_cpu(device)
    }

    fn upload<const D: usize>(values: TensorData, device: &Self::Device) -> Tensor<Self, D> {
        Tensor::from_inner(LibTorch::upload(values, device))
    }

    fn upload_mask<const D: usize>(
        values: TensorData,
        device: &Self::Device,
    ) -> Tensor<Self, D, Bool> {
        Tensor::from_inner(LibTorch::upload_mask(values, device))
    }

    fn run<N: MapNetwork>(network: &N::On<Self>, crops: Tensor<Self, 4>) -> Tensor<Self, 4> {
        let mut nodes = Nodes::<C>(Vec::new());
        network.visit(&mut nodes);
        let trained: Vec<bool> = nodes.0.iter().map(Option::is_some).collect();
        let nodes: Vec<_> = nodes.0.into_iter().flatten().collect();
        let Some(first) = nodes.first().map(|n| n.node.clone()) else {
            return N::forward(network, crops);
        };
        let mut mapper = Leaves {
            trained: &trained,
            seen: 0,
            leaves: Vec::new(),
        };
        let inner = N::inner(network).map(&mut mapper);
        let recorded = Recorded {
            maps: primitive(N::forward(&inner, crops.inner())),
            leaves: mapper.leaves,
            nodes: nodes.iter().map(|n| n.node.id).collect(),
        };
        let output = recorded.output();
        tensor(
            match RecordedRun.prepare::<C>([first]).compute_bound().stateful() {
                OpsKind::Tracked(prepared) => prepared.finish(recorded, output),
                OpsKind::UnTracked(prepared) => prepared.finish(output),
            },
        )
    }

    /// Used for convolutions outside of [`Kernels::run`].
    fn convolve(x: Tensor<Self, 4>, weight: Tensor<Self, 4>, shape: Shape) -> Tensor<Self, 4> {
        let (x, weight) = (primitive(x), primitive(weight));
        let leaves = [x.primitive, weight.primitive].map(leaf);
        let [input, values] = leaves.clone().map(tensor);
        let recorded = Recorded {
            maps: primitive(LibTorch::convolve(input, values, shape)),
            leaves: leaves.into(),
            nodes: vec![x.node.id, weight.node.id],
        };
        let output = recorded.output();
        tensor(
            match RecordedRun
                .prepare::<C>([x.node, weight.node])
                .compute_bound()
                .stateful()
            {
                OpsKind::Tracked(prepared) => prepared.finish(recorded, output),
                OpsKind::UnTracked(prepared) => prepared.finish(output),
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::body::{Body, Network};
    use crate::train::rng_lock::RNG_LOCK;
    use burn::backend::Flex;
    use burn::module::AutodiffModule;
    use burn::optim::GradientsParams;
    use burn::record::{BinBytesRecorder, FullPrecisionSettings, Recorder};
    use burn::tensor::backend::{AutodiffBackend, Backend};

    /// The values of a network in the order of a visit.
    #[derive(Default)]
    struct Values(Vec<Vec<f32>>);

    impl<B: Backend> ModuleVisitor<B> for Values {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
            let data = param.val().into_data().convert::<f32>();
            self.0.push(data.to_vec().expect("float32"));
        }
    }

    /// The gradients of a network in the order of a visit.
    struct GradientValues(GradientsParams, Vec<Vec<f32>>);

    impl<B: AutodiffBackend> ModuleVisitor<B> for GradientValues {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
            if let Some(gradient) = self.0.remove::<B::InnerBackend, D>(param.id) {
                let data = gradient.into_data().convert::<f32>();
                self.1.push(data.to_vec().expect("float32"));
            }
        }
    }

    /// Gradients of all weights, then weights and running averages, after a step in training.
    fn step<B: AutodiffBackend<InnerBackend: Kernels> + Kernels>(
        network: Network,
        record: Vec<u8>,
        device: &B::Device,
    ) -> Vec<Vec<f32>> {
        let recorder = BinBytesRecorder::<FullPrecisionSettings>::default();
        let record = recorder.load(record, device).expect("a record");
        let body = Body::<B>::new(network, device).load_record(record);
        let crops: Vec<f32> = (0..4 * 3 * 64 * 32)
            .map(|i| ((i * 7919) % 1009) as f32 / 1009.0)
            .collect();
        let maps = body.forward(B::upload(TensorData::new(crops, [4, 3, 64, 32]), device));
        let loss = (maps.clone() * maps).mean();
        let gradients = GradientsParams::from_grads(loss.backward(), &body);
        let mut gradients = GradientValues(gradients, Vec::new());
        body.visit(&mut gradients);
        let mut values = Values::default();
        body.valid().visit(&mut values);
        gradients.1.into_iter().chain(values.0).collect()
    }

    #[test]
    fn a_step_is_that_of_the_cpus_kernels() {
        let _guard = RNG_LOCK.lock().unwrap_or_else(|e| e.into_inner());
        for network in [
            Network::Tiny,
            Network::Mobile,
            Network::Omni,
            Network::Residual,
        ] {
            let body = Body::<Autodiff<Flex>>::new(network, &Default::default());
            let recorder = BinBytesRecorder::<FullPrecisionSettings>::default();
            let record: Vec<u8> = recorder.record(body.into_record(), ()).expect("a record");
            let ours = step::<Autodiff<Flex>>(network, record.clone(), &Default::default());
            let theirs = step::<Autodiff<LibTorch>>(network, record, &LibTorchDevice::Cpu);
            assert_eq!(ours.len(), theirs.len(), "{network:?}");
            for (i, (a, b)) in ours.iter().zip(&theirs).enumerate() {
                let scale = a.iter().fold(1e-3, |m: f32, v| m.max(v.abs()));
                let off = a
                    .iter()
                    .zip(b)
                    .fold(0.0, |m: f32, (x, y)| m.max((x - y).abs()));
                assert!(
                    off < 0.02 * scale,
                    "{network:?}, value {i}: {off} of {scale}"
                );
            }
        }
    }
}
