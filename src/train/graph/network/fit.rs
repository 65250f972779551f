//! Adapts the strides and kernels of a plan to a picture size.

use std::sync::Arc;

use burn::tensor::Tensor;

use super::{GraphNetwork, GraphOutputs, parameters};
use crate::train::error::TrainError;
use crate::train::graph::operation::Operation;
use crate::train::graph::plan::Plan;
use crate::train::kernels::backend::Kernels;
use crate::train::tensors::MapSize;

/// Sets the stride to 1 in convolutions whose output would be smaller than 1/`most` of the picture,
/// per side.
pub(super) fn limit_stride(plan: &mut Plan, most: usize) {
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

/// Adapts the plan to a picture size. If a depthwise kernel covers a whole map and the map is now
/// smaller by an integer factor, the kernel's weights are summed over blocks of that factor.
pub(super) fn fit_to_size<B: Kernels>(
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
