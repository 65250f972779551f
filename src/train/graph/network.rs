//! A trainable network that executes a [`Plan`].

mod compute;
mod fit;

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::backend::Backend;
use burn::tensor::{Tensor, TensorData};

use crate::train::error::TrainError;
use crate::train::graph::network::fit::{fit_to_size, limit_stride};
use crate::train::graph::operation::Operation;
use crate::train::graph::plan::Plan;
use crate::train::kernels::backend::Kernels;
use crate::train::tensors::MapSize;

/// A value, padded to four dimensions by trailing ones of size 1, with its actual number of
/// dimensions.
#[derive(Debug, Clone)]
struct RankedTensor<B: Backend> {
    x: Tensor<B, 4>,
    rank: usize,
}

/// Result of running a graph.
#[derive(Debug)]
pub struct GraphOutputs<B: Backend> {
    /// The value at the graph's end, [n, c, h, w].
    pub end: Tensor<B, 4>,
    /// The last value before the end that is a feature map larger than one pixel in both
    /// directions.
    pub map: Option<Tensor<B, 4>>,
}

/// A graph with its weights.
#[derive(Module, Debug)]
pub struct GraphNetwork<B: Backend> {
    weights: Vec<Param<Tensor<B, 1>>>,
    #[module(skip)]
    plan: Arc<Plan>,
    /// Sizes of the value at the graph's end and of the last feature map before it.
    #[module(skip)]
    sizes: [MapSize; 2],
}

impl<B: Backend> GraphNetwork<B> {
    /// Creates the network of a plan for pictures of `size` (height, width). Convolution kernels
    /// that cover a whole map are adapted to that size. A convolution whose output would be smaller
    /// than 1/`stride` of the picture, per side, gets stride 1; with `stride` 0 there is no limit.
    ///
    /// # Errors
    /// Fails when the graph cannot process pictures of that size.
    pub fn new(
        mut plan: Plan,
        size: (usize, usize),
        stride: usize,
        device: &B::Device,
    ) -> Result<Self, TrainError>
    where
        B: Kernels,
    {
        if stride > 0 {
            limit_stride(&mut plan, stride);
        }
        let (plan, sizes) = fit_to_size::<B>(&plan, size, device)?;
        Ok(GraphNetwork {
            weights: parameters(&plan, device),
            plan: Arc::new(plan),
            sizes,
        })
    }

    /// Channels, height and width of the value at the graph's end.
    pub fn end_size(&self) -> MapSize {
        self.sizes[0]
    }

    /// Size of the last feature map before the end, or of the end if there is none.
    pub fn map_size(&self) -> MapSize {
        self.sizes[1]
    }

    /// The plan that the network executes.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Current values of a weight.
    pub fn values(&self, weight: usize) -> Vec<f32> {
        self.weights[weight]
            .val()
            .into_data()
            .convert::<f32>()
            .to_vec::<f32>()
            .expect("converted to float32")
    }

    /// Runs the network on pictures [n, 3, h, w] in the pixel format of the ONNX file from which
    /// the plan was read.
    ///
    /// # Panics
    /// When a step does not fit its input, which [`GraphNetwork::new`] excludes.
    pub fn forward(&self, pictures: Tensor<B, 4>) -> GraphOutputs<B>
    where
        B: Kernels,
    {
        self.run(pictures, |_, _| ())
            .expect("the constructor has run all steps")
    }

    /// Runs the network; `show` receives the input of each step.
    fn run(
        &self,
        pictures: Tensor<B, 4>,
        mut show: impl FnMut(usize, &Tensor<B, 4>),
    ) -> Result<GraphOutputs<B>, String>
    where
        B: Kernels,
    {
        let mut values: Vec<Option<RankedTensor<B>>> = vec![None; self.plan.values];
        values[0] = Some(RankedTensor {
            x: pictures,
            rank: 4,
        });
        let mut map = None;
        let uses = last_reads(&self.plan);
        for (number, step) in self.plan.steps.iter().enumerate() {
            if let Some(x) = first_input(&step.operation).and_then(|v| values[v].as_ref()) {
                show(number, &x.x);
            }
            let value = self
                .step(step, &values)
                .map_err(|problem| format!("node '{}': {problem}", step.name))?;
            if value.rank == 4
                && value.x.dims()[2] > 1
                && value.x.dims()[3] > 1
                && step.output != self.plan.output
            {
                map = Some(value.x.clone());
            }
            values[step.output] = Some(value);
            // A value is released when no later step reads it.
            uses[number].iter().for_each(|v| values[*v] = None);
        }
        let end = values[self.plan.output]
            .take()
            .ok_or("the end of the graph is not computed")?;
        Ok(GraphOutputs { end: end.x, map })
    }

    fn weight<const D: usize>(&self, weight: usize, dims: [usize; D]) -> Tensor<B, D> {
        self.weights[weight].val().reshape(dims)
    }

    /// A weight with four dimensions, to combine with a value of `rank` dimensions. ONNX aligns the
    /// last dimensions of both.
    fn broadcast(&self, weight: usize, rank: usize) -> Result<Tensor<B, 4>, String> {
        let own = &self.plan.weights[weight].dims;
        let missing = rank
            .checked_sub(own.len())
            .ok_or("a constant has more dimensions than the value")?;
        let mut dims = [1; 4];
        dims[missing..rank].copy_from_slice(own);
        Ok(self.weight(weight, dims))
    }
}

fn parameters<B: Backend>(plan: &Plan, device: &B::Device) -> Vec<Param<Tensor<B, 1>>> {
    let parameter = |values: &Vec<f32>| {
        Param::from_tensor(Tensor::from_data(
            TensorData::new(values.clone(), [values.len()]),
            device,
        ))
    };
    plan.weights.iter().map(|w| parameter(&w.values)).collect()
}

fn first_input(operation: &Operation) -> Option<usize> {
    operation.inputs().first().copied()
}

/// For each step, those of its inputs that no later step reads; the plan's output is never among
/// them.
fn last_reads(plan: &Plan) -> Vec<Vec<usize>> {
    let mut seen = std::collections::BTreeSet::from([plan.output]);
    let mut uses: Vec<Vec<usize>> = plan
        .steps
        .iter()
        .rev()
        .map(|s| {
            s.operation
                .inputs()
                .into_iter()
                .filter(|v| seen.insert(*v))
                .collect()
        })
        .collect();
    uses.reverse();
    uses
}

#[cfg(test)]
mod tests;
