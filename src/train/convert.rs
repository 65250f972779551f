//! Converts the body of an exported network to float16, or to int8 with ranges measured on crops.
//! The colour layout and the last linear maps stay in float32, because they take little time and
//! their logarithms and norms need the precision.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use half::f16;
use ndarray::{Array4, Axis};
use prost::Message;

use crate::infer::{Device, Model, PixelFormat, Runtime, SessionOptions, tensor};
use crate::train::dataset::Crop;
use crate::train::error::TrainError;
use crate::train::onnx::{
    self, Attribute, FLOAT, FLOAT16, GraphProto, INT8, INT32, ModelProto, NodeProto,
    StringStringEntryProto, TensorProto, UINT8,
};

/// The last value of the body in graphs written by [`crate::train::network::Tower::to_onnx`], by
/// head.
const BODY_ENDS: [&str; 2] = ["texture_flat", "read_out_flat"];
const INPUT: &str = "crops";

/// Number format of the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Precision {
    /// IEEE half precision.
    Fp16,
    /// 8 bits: activations per tensor, weights per channel (QDQ).
    Int8,
}

/// Converts the float32 file `from`, written by `twintrack-train`, to another number format and
/// writes it to `to`. The ranges of activations are measured on `crops` (int8 only).
///
/// # Errors
/// Fails when `from` was not written by `twintrack-train` or cannot be run, and when `to` cannot be
/// written.
pub fn convert(
    from: &Path,
    to: &Path,
    precision: Precision,
    crops: &[Crop],
) -> Result<(), TrainError> {
    let mut model = onnx::read(from)?;
    let misfit = |problem: &str| TrainError::Data {
        name: from.display().to_string(),
        problem: problem.into(),
    };
    let probe = model.clone();
    let graph = model
        .graph
        .as_mut()
        .ok_or_else(|| misfit("it has no graph"))?;
    let end = BODY_ENDS
        .into_iter()
        .find(|end| graph.node.iter().any(|n| n.output.iter().any(|o| o == end)));
    let end = end.ok_or_else(|| {
        misfit(
            "it does not end in a head of twintrack-train; only networks with such a head can be \
             converted",
        )
    })?;
    let body = body(graph, end);
    let name = match precision {
        Precision::Fp16 => {
            halve(graph, &body, end);
            "fp16"
        }
        Precision::Int8 => {
            let ranges = ranges(from, probe, &edges(graph, &body), crops)?;
            quantise(graph, &body, &ranges);
            "int8"
        }
    };
    label(&mut model, name);
    std::fs::write(to, model.encode_to_vec()).map_err(|e| TrainError::Write {
        path: to.into(),
        reason: e.to_string(),
    })
}

fn label(model: &mut ModelProto, precision: &str) {
    model
        .metadata_props
        .retain(|p| p.key != "twintrack.precision");
    model.metadata_props.push(StringStringEntryProto {
        key: "twintrack.precision".into(),
        value: precision.into(),
    });
}

/// Indices of the nodes on which the value `end` depends.
fn body(graph: &GraphProto, end: &str) -> BTreeSet<usize> {
    let maker: BTreeMap<&str, usize> = graph
        .node
        .iter()
        .enumerate()
        .flat_map(|(i, n)| n.output.iter().map(move |o| (o.as_str(), i)))
        .collect();
    let mut found = BTreeSet::new();
    let mut open: Vec<usize> = maker.get(end).copied().into_iter().collect();
    while let Some(i) = open.pop() {
        if found.insert(i) {
            open.extend(
                graph.node[i]
                    .input
                    .iter()
                    .filter_map(|x| maker.get(x.as_str())),
            );
        }
    }
    found
}

fn halve(graph: &mut GraphProto, body: &BTreeSet<usize>, end: &str) {
    let used: BTreeSet<String> = body
        .iter()
        .flat_map(|&i| graph.node[i].input.iter().cloned())
        .collect();
    for t in graph
        .initializer
        .iter_mut()
        .filter(|t| t.data_type == FLOAT && used.contains(&t.name))
    {
        t.raw_data = onnx::floats(t)
            .into_iter()
            .flat_map(|v| f16::from_f32(v).to_le_bytes())
            .collect();
        t.data_type = FLOAT16;
    }
    let (inside, outside) = (format!("{INPUT}.half"), format!("{end}.half"));
    for &i in body {
        let node = &mut graph.node[i];
        node.input
            .iter_mut()
            .filter(|x| *x == INPUT)
            .for_each(|x| x.clone_from(&inside));
        if node.output[0] == end {
            node.output[0].clone_from(&outside);
            node.name.clone_from(&outside);
        }
    }
    let cast = |from: &str, to: &str, kind: i32| {
        onnx::node_of(
            "Cast",
            &[from],
            &[to],
            &[("to", Attribute::Int(i64::from(kind)))],
        )
    };
    let last = body.last().copied().unwrap_or_default();
    graph.node.insert(last + 1, cast(&outside, end, FLOAT));
    graph.node.insert(0, cast(INPUT, &inside, FLOAT16));
}

/// The values to quantise: inputs of the body's convolutions, and their outputs after the
/// activation.
fn edges(graph: &GraphProto, body: &BTreeSet<usize>) -> BTreeSet<String> {
    let rectified = |edge: &str| {
        body.iter()
            .map(|&i| &graph.node[i])
            .find(|n| matches!(n.op_type.as_str(), "Relu" | "Clip") && n.input[0] == edge)
    };
    let convolutions = body
        .iter()
        .map(|&i| &graph.node[i])
        .filter(|n| n.op_type == "Conv");
    convolutions
        .flat_map(|n| {
            [
                n.input[0].clone(),
                rectified(&n.output[0])
                    .map_or_else(|| n.output[0].clone(), |r| r.output[0].clone()),
            ]
        })
        .collect()
}

/// Minimum and maximum of each value in `edges` over the crops. The range of an intermediate value
/// always includes 0.
fn ranges(
    path: &Path,
    mut probe: ModelProto,
    edges: &BTreeSet<String>,
    crops: &[Crop],
) -> Result<BTreeMap<String, (f32, f32)>, TrainError> {
    let shown = edges.iter().filter(|e| *e != INPUT);
    probe
        .graph
        .get_or_insert_default()
        .output
        .extend(shown.map(|e| onnx::untyped(e)));
    let format = onnx::metadata(path)?
        .pixel_format()
        .unwrap_or(PixelFormat::UNIT_RGB);
    let file = path.with_extension("onnx.probe");
    std::fs::write(&file, probe.encode_to_vec()).map_err(|e| TrainError::Write {
        path: file.clone(),
        reason: e.to_string(),
    })?;
    let opened =
        Runtime::load().and_then(|r| Model::open(&r, &file, SessionOptions::new(Device::Cpu, 2)));
    // The opened file is not needed any more; an error of deleting it is ignored.
    let _ = std::fs::remove_file(&file);
    let mut model = opened?;
    let (height, width) = match model.dims() {
        [_, _, Some(h), Some(w)] => (h, w),
        _ => (128, 64),
    };
    // The range of the input follows from the range of bytes.
    let ends = (0..3).flat_map(|c| [0.0, 255.0].map(|v| (v - format.mean[c]) / format.std[c]));
    let pixels = ends.fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), v| {
        (low.min(v), high.max(v))
    });
    let mut ranges = BTreeMap::from([(INPUT.to_string(), pixels)]);
    for part in crops.chunks(32) {
        let mut batch = Array4::zeros((part.len(), 3, height, width));
        batch
            .axis_iter_mut(Axis(0))
            .zip(part)
            .for_each(|(out, c)| tensor::write_crop(&c.image, &c.person, &format, out));
        for output in model
            .run(batch.view())?
            .into_iter()
            .filter(|o| edges.contains(&o.name))
        {
            let range = ranges.entry(output.name).or_insert((0.0, 0.0));
            *range = output
                .values
                .iter()
                .fold(*range, |(low, high), &v| (low.min(v), high.max(v)));
        }
    }
    Ok(ranges)
}

fn quantise(graph: &mut GraphProto, body: &BTreeSet<usize>, ranges: &BTreeMap<String, (f32, f32)>) {
    let constants: BTreeMap<String, TensorProto> = graph
        .initializer
        .iter()
        .map(|t| (t.name.clone(), t.clone()))
        .collect();
    let scale_of = |edge: &str| {
        ranges
            .get(edge)
            .map(|(low, high)| ((high - low).max(1e-6) / 255.0, *low))
    };
    let mut made: Vec<TensorProto> = Vec::new();
    let mut constant = |name: String, kind: i32, dims: Vec<i64>, raw_data: Vec<u8>| {
        made.push(TensorProto {
            dims,
            data_type: kind,
            name: name.clone(),
            raw_data,
            ..TensorProto::default()
        });
        name
    };
    let le = |values: &[f32]| {
        values
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect::<Vec<u8>>()
    };
    let mut nodes: Vec<NodeProto> = Vec::new();
    let rounded = |nodes: &mut Vec<NodeProto>,
                   constant: &mut dyn FnMut(String, i32, Vec<i64>, Vec<u8>) -> String,
                   edge: &str| {
        let Some((scale, low)) = scale_of(edge) else {
            return;
        };
        let zero = (-low / scale).round().clamp(0.0, 255.0) as u8;
        let (s, z) = (
            constant(format!("{edge}.scale"), FLOAT, vec![], le(&[scale])),
            constant(format!("{edge}.zero"), UINT8, vec![], vec![zero]),
        );
        nodes.push(onnx::node_of(
            "QuantizeLinear",
            &[edge, &s, &z],
            &[&format!("{edge}.q")],
            &[],
        ));
        nodes.push(onnx::node_of(
            "DequantizeLinear",
            &[&format!("{edge}.q"), &s, &z],
            &[&format!("{edge}.dq")],
            &[],
        ));
    };
    rounded(&mut nodes, &mut constant, INPUT);
    for (i, mut node) in std::mem::take(&mut graph.node).into_iter().enumerate() {
        if body.contains(&i) {
            let input = node.input[0].clone();
            // A read-out, which is a convolution without bias, stays in float32, because it is a
            // single product per channel.
            let quantised = node.op_type == "Conv" && node.input.len() > 2;
            if let (true, Some((scale, _))) = (quantised, scale_of(&input)) {
                let (weight, bias) = (&constants[&node.input[1]], &constants[&node.input[2]]);
                let (values, channels) = (onnx::floats(weight), weight.dims[0]);
                let each = values.len() / channels as usize;
                let scales: Vec<f32> = values
                    .chunks(each)
                    .map(|c| c.iter().fold(1e-8f32, |m, v| m.max(v.abs())) / 127.0)
                    .collect();
                let bytes = values
                    .iter()
                    .enumerate()
                    .map(|(k, v)| (v / scales[k / each]).round().clamp(-127.0, 127.0) as i8 as u8)
                    .collect();
                let both: Vec<f32> = scales.iter().map(|s| s * scale).collect();
                let whole = onnx::floats(bias)
                    .iter()
                    .zip(&both)
                    .flat_map(|(b, s)| ((b / s).round() as i32).to_le_bytes())
                    .collect();
                let axis = [("axis", Attribute::Int(0))];
                let w = constant(
                    format!("{}.q", weight.name),
                    INT8,
                    weight.dims.clone(),
                    bytes,
                );
                let (ws, wz) = (
                    constant(format!("{w}.scale"), FLOAT, vec![channels], le(&scales)),
                    constant(
                        format!("{w}.zero"),
                        INT8,
                        vec![channels],
                        vec![0; channels as usize],
                    ),
                );
                nodes.push(onnx::node_of(
                    "DequantizeLinear",
                    &[&w, &ws, &wz],
                    &[&format!("{}.dq", weight.name)],
                    &axis,
                ));
                let b = constant(format!("{}.q", bias.name), INT32, bias.dims.clone(), whole);
                let bs = constant(format!("{b}.scale"), FLOAT, vec![channels], le(&both));
                let bz = constant(
                    format!("{b}.zero"),
                    INT32,
                    vec![channels],
                    vec![0; 4 * channels as usize],
                );
                nodes.push(onnx::node_of(
                    "DequantizeLinear",
                    &[&b, &bs, &bz],
                    &[&format!("{}.dq", bias.name)],
                    &axis,
                ));
                node.input[1] = format!("{}.dq", weight.name);
                node.input[2] = format!("{}.dq", bias.name);
            }
            node.input
                .iter_mut()
                .filter(|x| ranges.contains_key(*x))
                .for_each(|x| *x = format!("{x}.dq"));
        }
        let outputs = node.output.clone();
        nodes.push(node);
        outputs
            .iter()
            .filter(|_| body.contains(&i))
            .for_each(|o| rounded(&mut nodes, &mut constant, o));
    }
    graph.node = nodes;
    graph.initializer.extend(made);
    let used: BTreeSet<&String> = graph.node.iter().flat_map(|n| &n.input).collect();
    let kept: Vec<TensorProto> = graph
        .initializer
        .iter()
        .filter(|t| used.contains(&t.name))
        .cloned()
        .collect();
    graph.initializer = kept;
}
