//! A trainable network that executes a [`Plan`].

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::backend::Backend;
use burn::tensor::module::{avg_pool2d, conv2d, max_pool2d};
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Int, Tensor, TensorData, activation};

use crate::train::error::TrainError;
use crate::train::graph::operation::{Arithmetic, Elementwise, Operand, Operation, Window};
use crate::train::graph::plan::{Plan, PlanStep};
use crate::train::kernels::backend::{Kernels, Normalised};
use crate::train::kernels::normalisation::After;
use crate::train::kernels::shape::Shape;
use crate::train::tensors::{MapSize, normalise};

/// A value padded with trailing dimensions of 1 to four, and its actual number of dimensions.
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
    /// The last earlier value that is a feature map wider and higher than one pixel.
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
    /// that cover a whole map are adapted to that size. Convolutions that would reduce maps below
    /// 1/`stride` of the picture keep the size; `stride` 0 disables this.
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

    /// Runs the network on pictures [n, 3, h, w] in the file's pixel format.
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
            // Released as soon as no later step reads it.
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

    /// A weight as four dimensions for a value with `rank` dimensions. ONNX aligns dimensions at
    /// the last one.
    fn broadcast(&self, weight: usize, rank: usize) -> Result<Tensor<B, 4>, String> {
        let own = &self.plan.weights[weight].dims;
        let missing = rank
            .checked_sub(own.len())
            .ok_or("a constant has more dimensions than the value")?;
        let mut dims = [1; 4];
        dims[missing..rank].copy_from_slice(own);
        Ok(self.weight(weight, dims))
    }

    fn step(
        &self,
        step: &PlanStep,
        values: &[Option<RankedTensor<B>>],
    ) -> Result<RankedTensor<B>, String>
    where
        B: Kernels,
    {
        let value = |v: usize| {
            values[v]
                .clone()
                .ok_or_else(|| "it reads a value that is not computed".to_string())
        };
        let map = |x| Ok(RankedTensor { x, rank: 4 });
        match &step.operation {
            Operation::Conv {
                x,
                weight,
                bias,
                window,
                groups,
            } => {
                let bias = bias.map(|b| (b, step.after));
                map(self.convolve(value(*x)?.x, (*weight, bias), window, *groups)?)
            }
            Operation::BatchNorm {
                x,
                scale,
                offset,
                mean,
                variance,
                epsilon,
            } => {
                let x = value(*x)?.x;
                let channels = [x.dims()[1]];
                // The moments are those of the file and are not trained.
                let [mean, variance] = [mean, variance].map(|w| self.weight(*w, channels).detach());
                let factor = self.weight(*scale, channels) / (variance + *epsilon).sqrt();
                let offset = self.weight(*offset, channels) - mean * factor.clone();
                map(B::scale(x, factor, offset, step.after))
            }
            Operation::InstanceNorm {
                x,
                scale,
                offset,
                epsilon,
            } => {
                let RankedTensor { x, rank } = value(*x)?;
                let [n, c, h, w] = x.dims();
                // Treats each picture's channels as channels of a single picture.
                let [gamma, beta] = [scale, offset]
                    .map(|p| self.weight(*p, [1, c]).repeat_dim(0, n).reshape([n * c]));
                let Normalised { maps, .. } = B::normalise(
                    x.reshape([1, n * c, h, w]),
                    gamma,
                    beta,
                    *epsilon,
                    After::Linear,
                );
                Ok(RankedTensor {
                    x: maps.reshape([n, c, h, w]),
                    rank,
                })
            }
            Operation::Elementwise { x, function } => {
                let RankedTensor { x, rank } = value(*x)?;
                let [_, channels, h, w] = x.dims();
                let x = match function.fusible().filter(|_| h * w > 1) {
                    None => elementwise(x, *function),
                    Some(after) => {
                        let device = x.device();
                        B::scale(
                            x,
                            Tensor::ones([channels], &device),
                            Tensor::zeros([channels], &device),
                            after,
                        )
                    }
                };
                Ok(RankedTensor { x, rank })
            }
            Operation::PRelu { x, slope } => {
                let RankedTensor { x, rank } = value(*x)?;
                let slope = self.broadcast(*slope, rank)?;
                Ok(RankedTensor {
                    x: activation::relu(x.clone()) - activation::relu(x.neg()) * slope,
                    rank,
                })
            }
            Operation::Arithmetic { a, b, kind } => {
                self.arithmetic(*a, *b, *kind, step.after, values)
            }
            Operation::MaxPool { x, window: w } => map(max_pool2d(
                value(*x)?.x,
                w.kernel,
                w.stride,
                w.padding,
                [1, 1],
                false,
            )),
            Operation::AveragePool { x, window: w } => map(avg_pool2d(
                value(*x)?.x,
                w.kernel,
                w.stride,
                w.padding,
                false,
                false,
            )),
            Operation::PlaneMean { x } => {
                let x = value(*x)?.x;
                let [n, c, ..] = x.dims();
                map(B::plane_mean(x).reshape([n, c, 1, 1]))
            }
            Operation::Reshape { x, dims } => reshape_value(value(*x)?, dims),
            Operation::Flatten { x } => {
                let x = value(*x)?.x;
                let [n, c, h, w] = x.dims();
                Ok(RankedTensor {
                    x: x.reshape([n, c * h * w, 1, 1]),
                    rank: 2,
                })
            }
            Operation::Concat { xs } => {
                let parts = xs
                    .iter()
                    .map(|x| value(*x))
                    .collect::<Result<Vec<_>, _>>()?;
                let rank = parts.first().map_or(4, |v| v.rank);
                Ok(RankedTensor {
                    x: Tensor::cat(parts.into_iter().map(|v| v.x).collect(), 1),
                    rank,
                })
            }
            Operation::Channels { x, which } => {
                let RankedTensor { x, rank } = value(*x)?;
                let channels = x.dims()[1] as i64;
                let which: Vec<i64> = which
                    .iter()
                    .map(|w| if *w < 0 { w + channels } else { *w })
                    .collect();
                let index = Tensor::<B, 1, Int>::from_data(
                    TensorData::new(which.clone(), [which.len()]),
                    &x.device(),
                );
                Ok(RankedTensor {
                    x: x.select(1, index),
                    rank,
                })
            }
            Operation::Linear {
                x,
                weight,
                bias,
                transposed,
            } => {
                let RankedTensor { x, rank } = value(*x)?;
                let [n, c, h, w] = x.dims();
                let [rows, columns] = self.plan.weights[*weight].dims[..] else {
                    return Err("its weight is not a matrix".into());
                };
                let matrix = self.weight(*weight, [rows, columns]);
                let (matrix, to, from) = if *transposed {
                    (matrix.transpose(), rows, columns)
                } else {
                    (matrix, columns, rows)
                };
                if rank != 2 || c * h * w != from {
                    return Err(format!(
                        "rows of {} numbers do not match a matrix for {from}; does the file need \
                         another input size?",
                        c * h * w
                    ));
                }
                let mut out = x.reshape([n, from]).matmul(matrix);
                if let Some(bias) = bias {
                    out = out + self.weight(*bias, [1, to]);
                }
                Ok(RankedTensor {
                    x: out.reshape([n, to, 1, 1]),
                    rank: 2,
                })
            }
            Operation::UnitRows { x } => {
                let RankedTensor { x, rank } = value(*x)?;
                let [n, c, h, w] = x.dims();
                Ok(RankedTensor {
                    x: normalise(x.reshape([n, c * h * w])).reshape([n, c, h, w]),
                    rank,
                })
            }
        }
    }

    /// A convolution; a following activation is fused if there is a bias.
    fn convolve(
        &self,
        x: Tensor<B, 4>,
        (weight, bias): (usize, Option<(usize, After)>),
        w: &Window,
        groups: usize,
    ) -> Result<Tensor<B, 4>, String>
    where
        B: Kernels,
    {
        let [n, from, height, width] = x.dims();
        let [to, by_group, kh, kw] = self.plan.weights[weight].dims[..] else {
            return Err("its weight does not have four dimensions".into());
        };
        if by_group * groups != from
            || kh > height + 2 * w.padding[0]
            || kw > width + 2 * w.padding[1]
        {
            return Err(format!(
                "a kernel {kh}x{kw} over {} channels does not match {from} maps of {height}x{width}",
                by_group * groups
            ));
        }
        let depthwise = groups == from && to == from;
        let values = self.weight(weight, [to, by_group, kh, kw]);
        let bias = bias.map(|(bias, after)| (self.weight(bias, [to]), after));
        let whole = depthwise && [kh, kw] == [height, width] && w.padding == [0, 0];
        let alike = kh == kw
            && w.stride[0] == w.stride[1]
            && w.padding == [kh / 2; 2]
            && (groups == 1 || depthwise && kh % 2 == 1);
        if alike && !whole {
            let shape = Shape {
                channels: (from, to),
                kernel: kh,
                stride: w.stride[0],
                depthwise: groups > 1,
            };
            return Ok(match bias {
                None => B::convolve(x, values, shape),
                Some((bias, after)) => B::convolve_with_bias(x, values, bias, shape, after),
            });
        }
        let maps = match whole {
            true => B::read_out(x, values.reshape([to, kh * kw])).reshape([n, to, 1, 1]),
            false => conv2d(
                x,
                values,
                None,
                ConvOptions::new(w.stride, w.padding, [1, 1], groups),
            ),
        };
        Ok(match bias {
            None => maps,
            Some((bias, after)) => B::scale(maps, Tensor::ones_like(&bias), bias, after),
        })
    }

    fn arithmetic(
        &self,
        a: Operand,
        b: Operand,
        kind: Arithmetic,
        after: After,
        values: &[Option<RankedTensor<B>>],
    ) -> Result<RankedTensor<B>, String>
    where
        B: Kernels,
    {
        let value = |v: usize| {
            values[v]
                .clone()
                .ok_or_else(|| "it reads a value that is not computed".to_string())
        };
        let by_channel = |w: usize, x: &RankedTensor<B>| {
            let dims = &self.plan.weights[w].dims;
            x.rank == 4
                && dims.len() >= 3
                && dims[dims.len() - 3] == x.x.dims()[1]
                && dims.iter().product::<usize>() == x.x.dims()[1]
        };
        match (a, b) {
            (Operand::Value(a), Operand::Weight(w)) | (Operand::Weight(w), Operand::Value(a))
                if matches!(kind, Arithmetic::Add | Arithmetic::Mul) =>
            {
                let x = value(a)?;
                if by_channel(w, &x) {
                    let channels = [x.x.dims()[1]];
                    let (weight, device) = (self.weight(w, channels), x.x.device());
                    let scaled = match kind {
                        Arithmetic::Add => {
                            B::scale(x.x, Tensor::ones(channels, &device), weight, after)
                        }
                        _ => B::scale(x.x, weight, Tensor::zeros(channels, &device), after),
                    };
                    return Ok(RankedTensor { x: scaled, rank: 4 });
                }
                let sum = apply(x.x, self.broadcast(w, x.rank)?, kind);
                let fuse_activations = match after {
                    After::Linear => sum,
                    After::Relu => activation::relu(sum),
                    After::Relu6 => sum.clamp(0.0, 6.0),
                };
                Ok(RankedTensor {
                    x: fuse_activations,
                    rank: x.rank,
                })
            }
            (Operand::Value(a), Operand::Weight(w)) => {
                let x = value(a)?;
                Ok(RankedTensor {
                    x: apply(x.x, self.broadcast(w, x.rank)?, kind),
                    rank: x.rank,
                })
            }
            (Operand::Weight(w), Operand::Value(b)) => {
                let x = value(b)?;
                Ok(RankedTensor {
                    x: apply(self.broadcast(w, x.rank)?, x.x, kind),
                    rank: x.rank,
                })
            }
            (Operand::Value(a), Operand::Value(b)) => {
                let (a, b) = (value(a)?, value(b)?);
                let ([n, c, h, w], [_, _, bh, bw]) = (a.x.dims(), b.x.dims());
                let rank = a.rank.max(b.rank);
                if kind == Arithmetic::Mul && h * w > 1 && bh * bw == 1 {
                    return Ok(RankedTensor {
                        x: B::gate(a.x, b.x.reshape([n, c])),
                        rank,
                    });
                }
                if kind == Arithmetic::Mul && bh * bw > 1 && h * w == 1 {
                    return Ok(RankedTensor {
                        x: B::gate(b.x, a.x.reshape([n, c])),
                        rank,
                    });
                }
                Ok(RankedTensor {
                    x: apply(a.x, b.x, kind),
                    rank,
                })
            }
            (Operand::Weight(_), Operand::Weight(_)) => Err("arithmetic of two constants".into()),
        }
    }
}

fn apply<B: Backend>(a: Tensor<B, 4>, b: Tensor<B, 4>, kind: Arithmetic) -> Tensor<B, 4> {
    match kind {
        Arithmetic::Add => a + b,
        Arithmetic::Sub => a - b,
        Arithmetic::Mul => a * b,
        Arithmetic::Div => a / b,
    }
}

fn elementwise<B: Backend>(x: Tensor<B, 4>, function: Elementwise) -> Tensor<B, 4> {
    match function {
        Elementwise::Relu => activation::relu(x),
        Elementwise::Clip(low, high) => x.clamp(low.max(f32::MIN), high.min(f32::MAX)),
        Elementwise::LeakyRelu(slope) => activation::leaky_relu(x, f64::from(slope)),
        Elementwise::Sigmoid => activation::sigmoid(x),
        Elementwise::HardSigmoid(alpha, beta) => (x * alpha + beta).clamp(0.0, 1.0),
        Elementwise::HardSwish => x.clone() * (x / 6.0 + 0.5).clamp(0.0, 1.0),
    }
}

fn reshape_value<B: Backend>(
    value: RankedTensor<B>,
    dims: &[i64],
) -> Result<RankedTensor<B>, String> {
    let own = value.x.dims();
    let total: usize = own.iter().product();
    let mut to = [1usize; 4];
    if dims.is_empty() || dims.len() > 4 {
        return Err(format!("{} dimensions are not supported", dims.len()));
    }
    for (i, d) in dims.iter().enumerate() {
        to[i] = match *d {
            0 => own[i],
            d if d > 0 => d as usize,
            _ => 1,
        };
    }
    // A constant batch size of 1 stands for any batch size.
    if dims[0] == 1 && !dims.contains(&-1) {
        to[0] = own[0];
    }
    if let Some(free) = dims.iter().position(|d| *d == -1) {
        let rest: usize = to
            .iter()
            .enumerate()
            .filter(|(i, _)| *i != free)
            .map(|(_, d)| d)
            .product();
        to[free] = total / rest.max(1);
    }
    if to.iter().product::<usize>() != total {
        return Err(format!("{own:?} cannot become {dims:?}"));
    }
    Ok(RankedTensor {
        x: value.x.reshape(to),
        rank: dims.len(),
    })
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

/// For each step, the values that it is the last to read.
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

/// Removes the strides of convolutions whose output would be smaller than 1/`most` of the picture.
fn limit_stride(plan: &mut Plan, most: usize) {
    let mut divided = vec![1; plan.values];
    for step in &mut plan.steps {
        let before = step
            .operation
            .inputs()
            .iter()
            .map(|v| divided[*v])
            .max()
            .unwrap_or(1);
        divided[step.output] = match &mut step.operation {
            Operation::Conv { window, .. } => {
                if before * window.stride[0] > most {
                    window.stride = [1, 1];
                }
                before * window.stride[0]
            }
            Operation::MaxPool { window, .. } | Operation::AveragePool { window, .. } => {
                before * window.stride[0]
            }
            _ => before,
        };
    }
}

/// Adapts the plan to a picture size: where a depthwise kernel covers a whole map and the maps are
/// now smaller by an integer factor, its weights are summed over blocks of that factor.
fn fit_to_size<B: Kernels>(
    plan: &Plan,
    size: (usize, usize),
    device: &B::Device,
) -> Result<(Plan, [MapSize; 2]), TrainError> {
    let mut plan = plan.clone();
    loop {
        let network = GraphNetwork::<B> {
            weights: parameters(&plan, device),
            plan: Arc::new(plan.clone()),
            sizes: [[0; 3]; 2],
        };
        let mut seen: Vec<(usize, [usize; 2])> = Vec::new();
        let pictures = Tensor::zeros([1, 3, size.0, size.1], device);
        let done = network.run(pictures, |step, x| {
            seen.push((step, [x.dims()[2], x.dims()[3]]))
        });
        let problem = match done {
            Err(problem) => problem,
            Ok(GraphOutputs { end, map }) => {
                let size = |x: &Tensor<B, 4>| [x.dims()[1], x.dims()[2], x.dims()[3]];
                return Ok((
                    plan,
                    [size(&end), map.as_ref().map_or_else(|| size(&end), size)],
                ));
            }
        };
        let misfit = || {
            TrainError::Setting(format!(
                "the network cannot process pictures of {}x{}: {problem}",
                size.1, size.0
            ))
        };
        let Some(&(step, map)) = seen.last() else {
            return Err(misfit());
        };
        let Operation::Conv {
            weight,
            window,
            groups,
            ..
        } = &mut plan.steps[step].operation
        else {
            return Err(misfit());
        };
        let [to, by_group, kh, kw] = plan.weights[*weight].dims[..] else {
            return Err(misfit());
        };
        let whole =
            by_group == 1 && *groups == to && window.padding == [0, 0] && map[0] > 0 && map[1] > 0;
        if !whole || kh % map[0] != 0 || kw % map[1] != 0 || [kh, kw] == map {
            return Err(misfit());
        }
        let (fy, fx) = (kh / map[0], kw / map[1]);
        let old = std::mem::take(&mut plan.weights[*weight].values);
        let mut new = vec![0.0; to * map[0] * map[1]];
        for (i, v) in old.iter().enumerate() {
            let (c, y, x) = (i / (kh * kw), i / kw % kh, i % kw);
            new[(c * map[0] + y / fy) * map[1] + x / fx] += v;
        }
        plan.weights[*weight].values = new;
        plan.weights[*weight].dims = vec![to, 1, map[0], map[1]];
        window.kernel = map;
    }
}

#[cfg(test)]
mod tests;
