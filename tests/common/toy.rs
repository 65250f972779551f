//! Toy networks: ONNX files whose outputs are constants, or a linear function of an image's mean
//! colour.
#![allow(dead_code, reason = "each test program uses a part")]

use std::path::{Path, PathBuf};

use prost::Message as _;
use twintrack::onnx::proto::{
    Dimension, FLOAT, ModelProto, TensorShapeProto, TensorType, TypeProto, ValueInfoProto,
};
use twintrack::onnx::{Attribute, Graph};

/// An output that is the same for every image: name, shape, element type, values.
pub struct Constant<'a>(pub &'a str, pub &'a [usize], pub i32, pub Vec<f32>);

/// Shape and type of the input.
#[derive(Clone, Copy)]
pub struct Input {
    /// N, C, H, W; None for dynamic dimensions.
    pub dims: [Option<i64>; 4],
    /// FLOAT or FLOAT16.
    pub element: i32,
}

/// A float32 input with batch size `n`.
pub fn input(n: Option<i64>, width: i64, height: i64) -> Input {
    Input {
        dims: [n, Some(3), Some(height), Some(width)],
        element: FLOAT,
    }
}

fn value(name: &str, element: i32, dims: Option<&[Option<i64>]>) -> ValueInfoProto {
    let side = |(i, d): (usize, &Option<i64>)| Dimension {
        dim_value: *d,
        dim_param: d.is_none().then(|| format!("d{i}")),
    };
    let shape = dims.map(|dims| TensorShapeProto {
        dim: dims.iter().enumerate().map(side).collect(),
    });
    ValueInfoProto {
        name: name.into(),
        kind: Some(TypeProto {
            tensor_type: Some(TensorType {
                elem_type: element,
                shape,
            }),
        }),
    }
}

/// Writes a graph as an ONNX file with these inputs, outputs and metadata.
fn write(
    path: PathBuf,
    graph: Graph,
    inputs: Vec<ValueInfoProto>,
    outputs: Vec<ValueInfoProto>,
    metadata: &[(&str, &str)],
) -> PathBuf {
    let mut model = ModelProto::decode(
        graph
            .finish("toy", ("x", [3, 8, 8]), ("y", 3), &[])
            .as_slice(),
    )
    .expect("just written");
    let of = |(key, value): &(&str, &str)| twintrack::onnx::proto::StringStringEntryProto {
        key: key.to_string(),
        value: value.to_string(),
    };
    model.metadata_props = metadata.iter().map(of).collect();
    let proto = model.graph.as_mut().expect("it has a graph");
    (proto.input, proto.output) = (inputs, outputs);
    std::fs::write(&path, model.encode_to_vec()).expect("written");
    path
}

fn cast(graph: &mut Graph, from: &str, to: &str, element: i32) {
    graph.node(
        "Cast",
        &[from],
        to,
        &[("to", Attribute::Int(i64::from(element)))],
    );
}

/// A network for batches of one image with constant outputs. The keys of `metadata` are written
/// without a prefix.
pub fn constants(
    path: PathBuf,
    input: Input,
    outputs: &[Constant<'_>],
    metadata: &[(&str, &str)],
) -> PathBuf {
    let mut graph = Graph::default();
    let mut values = Vec::new();
    for Constant(name, shape, element, numbers) in outputs {
        graph.constant(&format!("{name}.value"), shape, numbers);
        cast(&mut graph, &format!("{name}.value"), name, *element);
        let dims: Vec<Option<i64>> = shape.iter().map(|d| Some(*d as i64)).collect();
        values.push(value(name, *element, Some(&dims)));
    }
    write(
        path,
        graph,
        vec![value("x", input.element, Some(&input.dims))],
        values,
        metadata,
    )
}

/// A detector of the layout `boxes` that detects one person in every image, at a box that is a
/// linear function of the mean colour: three rows of `weights`, and `bias`. With `alone` the graph
/// fails for batches of more than one image, also if the input's shape declares a free batch size.
pub fn one_person(
    path: PathBuf,
    input: Input,
    weights: [[f32; 5]; 3],
    bias: [f32; 5],
    alone: bool,
) -> PathBuf {
    let mut graph = Graph::default();
    cast(&mut graph, "x", "pixels", FLOAT);
    graph.node("GlobalAveragePool", &["pixels"], "means", &[]);
    graph.node(
        "Flatten",
        &["means"],
        "flat",
        &[("axis", Attribute::Int(1))],
    );
    graph.constant("weights", &[3, 5], weights.as_flattened());
    graph.constant("bias", &[5], &bias);
    graph.node("Gemm", &["flat", "weights", "bias"], "row", &[]);
    graph.integers("shape", &[if alone { 1 } else { -1 }, 1, 5]);
    graph.node("Reshape", &["row", "shape"], "table", &[]);
    cast(&mut graph, "table", "boxes", input.element);
    let output = value("boxes", input.element, None);
    write(
        path,
        graph,
        vec![value("x", input.element, Some(&input.dims))],
        vec![output],
        &[],
    )
}

/// The path of a toy network in a folder.
pub fn toy(dir: &Path) -> PathBuf {
    dir.join("toy.onnx")
}

/// An embedder whose vectors, [N, 3], are the mean colours of the crops, at each of these outputs.
/// With `alone` the graph fails for batches of more than one image, also if the input's shape
/// declares a free batch size.
pub fn mean_colour(path: PathBuf, input: Input, outputs: &[&str], alone: bool) -> PathBuf {
    let mut graph = Graph::default();
    cast(&mut graph, "x", "pixels", FLOAT);
    graph.node("GlobalAveragePool", &["pixels"], "means", &[]);
    graph.integers("shape", &[if alone { 1 } else { -1 }, 3]);
    graph.node("Reshape", &["means", "shape"], "flat", &[]);
    outputs
        .iter()
        .for_each(|name| cast(&mut graph, "flat", name, input.element));
    let values = outputs
        .iter()
        .map(|name| value(name, input.element, None))
        .collect();
    write(
        path,
        graph,
        vec![value("x", input.element, Some(&input.dims))],
        values,
        &[],
    )
}
