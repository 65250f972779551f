//! Computes one step of a plan.

use burn::tensor::backend::Backend;
use burn::tensor::module::{avg_pool2d, conv2d, max_pool2d};
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Int, Tensor, TensorData, activation};

use super::{GraphNetwork, RankedTensor};
use crate::train::graph::operation::{Arithmetic, Elementwise, Operand, Operation, Window};
use crate::train::graph::plan::PlanStep;
use crate::train::kernels::backend::{Kernels, Normalised};
use crate::train::kernels::normalisation::Activation;
use crate::train::kernels::shape::Shape;
use crate::train::tensors::normalise;

impl<B: Backend> GraphNetwork<B> {
    /// Computes the output of a step from the earlier values.
    ///
    /// # Errors
    /// Fails when the values do not fit the operation.
    pub(super) fn step(
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
                let bias = bias.map(|b| (b, step.activation));
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
                // The file's moments are used; they are not trained.
                let [mean, variance] = [mean, variance].map(|w| self.weight(*w, channels).detach());
                let factor = self.weight(*scale, channels) / (variance + *epsilon).sqrt();
                let offset = self.weight(*offset, channels) - mean * factor.clone();
                map(B::scale(x, factor, offset, step.activation))
            }
            Operation::InstanceNorm {
                x,
                scale,
                offset,
                epsilon,
            } => {
                let RankedTensor { x, rank } = value(*x)?;
                let [n, c, h, w] = x.dims();
                // All channels of the batch are treated as channels of a single picture.
                let [gamma, beta] = [scale, offset]
                    .map(|p| self.weight(*p, [1, c]).repeat_dim(0, n).reshape([n * c]));
                let Normalised { maps, .. } = B::normalise(
                    x.reshape([1, n * c, h, w]),
                    gamma,
                    beta,
                    *epsilon,
                    Activation::Linear,
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
                    Some(activation) => {
                        let device = x.device();
                        B::scale(
                            x,
                            Tensor::ones([channels], &device),
                            Tensor::zeros([channels], &device),
                            activation,
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
                self.arithmetic(*a, *b, *kind, step.activation, values)
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
        (weight, bias): (usize, Option<(usize, Activation)>),
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
        let bias = bias.map(|(bias, activation)| (self.weight(bias, [to]), activation));
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
                Some((bias, activation)) => {
                    B::convolve_with_bias(x, values, bias, shape, activation)
                }
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
            Some((bias, activation)) => B::scale(maps, Tensor::ones_like(&bias), bias, activation),
        })
    }

    fn arithmetic(
        &self,
        a: Operand,
        b: Operand,
        kind: Arithmetic,
        activation: Activation,
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
                            B::scale(x.x, Tensor::ones(channels, &device), weight, activation)
                        }
                        _ => B::scale(x.x, weight, Tensor::zeros(channels, &device), activation),
                    };
                    return Ok(RankedTensor { x: scaled, rank: 4 });
                }
                let sum = apply(x.x, self.broadcast(w, x.rank)?, kind);
                let fuse_activations = match activation {
                    Activation::Linear => sum,
                    Activation::Relu => activation::relu(sum),
                    Activation::Relu6 => sum.clamp(0.0, 6.0),
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
    // A constant batch size of 1 is replaced by the actual batch size.
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
