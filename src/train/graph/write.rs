//! Converts a trained graph to ONNX: the file's nodes with the trained constants.

use crate::infer::ColorOrder;
use crate::infer::PixelFormat;
use crate::onnx::proto::{Dimension, FLOAT, GraphProto, TensorProto, ValueInfoProto};
use crate::train::graph::network::GraphNetwork;
use crate::train::graph::operation::Operation;
use crate::train::graph::plan::label;
use crate::train::kernels::backend::Kernels;

/// The file's graph with the current weights and the input [N, 3, height, width].
pub fn graph<B: Kernels>(network: &GraphNetwork<B>, (height, width): (usize, usize)) -> GraphProto {
    let plan = network.plan();
    let mut graph = plan.graph.clone();
    for tensor in &mut graph.initializer {
        if let Some(number) = plan.weights.iter().position(|w| w.name == tensor.name) {
            *tensor = TensorProto {
                dims: plan.weights[number]
                    .dims
                    .iter()
                    .map(|d| *d as i64)
                    .collect(),
                data_type: FLOAT,
                name: tensor.name.clone(),
                raw_data: network
                    .values(number)
                    .iter()
                    .flat_map(|v| v.to_le_bytes())
                    .collect(),
                ..TensorProto::default()
            };
        }
    }
    // Kernels and strides may have been adapted to another input size.
    for step in &plan.steps {
        if let Operation::Conv { window, .. } = &step.operation {
            for node in graph
                .node
                .iter_mut()
                .filter(|n| n.op_type == "Conv" && label(n) == step.name)
            {
                for (name, values) in [("kernel_shape", window.kernel), ("strides", window.stride)]
                {
                    if let Some(a) = node.attribute.iter_mut().find(|a| a.name == name) {
                        a.ints = values.map(|v| v as i64).to_vec();
                    }
                }
            }
        }
    }
    let initial: Vec<String> = graph.initializer.iter().map(|t| t.name.clone()).collect();
    graph.input.retain(|i| !initial.contains(&i.name));
    for input in &mut graph.input {
        resize(input, [None, Some(3), Some(height), Some(width)]);
    }
    graph
}

/// Prefixes every name in a graph; the graph's input is renamed to `input`. Returns the new name of
/// `end`.
pub fn rename(graph: &mut GraphProto, prefix: &str, input: &str, end: &str) -> String {
    let own = graph
        .input
        .first()
        .map(|i| i.name.clone())
        .unwrap_or_default();
    let renamed = |name: &str| match name {
        "" => String::new(),
        n if n == own => input.to_string(),
        n => format!("{prefix}{n}"),
    };
    for node in &mut graph.node {
        node.input
            .iter_mut()
            .chain(&mut node.output)
            .for_each(|n| *n = renamed(n));
        node.name = renamed(&node.name);
    }
    graph
        .initializer
        .iter_mut()
        .for_each(|t| t.name = renamed(&t.name));
    renamed(end)
}

fn resize(value: &mut ValueInfoProto, dims: [Option<usize>; 4]) {
    if let Some(shape) = value
        .kind
        .as_mut()
        .and_then(|k| k.tensor_type.as_mut())
        .and_then(|t| t.shape.as_mut())
    {
        let free = || Dimension {
            dim_value: None,
            dim_param: Some("N".into()),
        };
        shape.dim = dims
            .map(|d| {
                d.map_or_else(free, |d| Dimension {
                    dim_value: Some(d as i64),
                    dim_param: None,
                })
            })
            .to_vec();
    }
}

/// The metadata entries of a pixel format.
pub fn pixel_format_entries(format: &PixelFormat) -> [(String, String); 3] {
    let numbers = |v: [f32; 3]| v.map(|n| n.to_string()).join(",");
    let color = if format.color == ColorOrder::Bgr {
        "bgr"
    } else {
        "rgb"
    };
    [
        ("color".into(), color.into()),
        ("mean".into(), numbers(format.mean)),
        ("std".into(), numbers(format.std)),
    ]
}
