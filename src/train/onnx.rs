//! Writing ONNX: the messages of `onnx.proto` that a feed-forward network needs, and a builder that names the edges.
//!
//! The field numbers are those of the ONNX specification (IR version 8). Parts a network has no use for are left out;
//! protocol buffers allow that.

use std::path::Path;

use prost::Message;

use crate::train::dataset::TrainError;

/// Opset that is written.
pub const OPSET: i64 = 17;
pub(super) const FLOAT: i32 = 1;
pub(super) const UINT8: i32 = 2;
pub(super) const INT8: i32 = 3;
pub(super) const INT32: i32 = 6;
const INT64: i32 = 7;
pub(super) const FLOAT16: i32 = 10;

#[derive(Clone, PartialEq, Message)]
pub(super) struct AttributeProto {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(int64, optional, tag = "3")]
    pub(super) i: Option<i64>,
    #[prost(int64, repeated, packed = "false", tag = "8")]
    pub(super) ints: Vec<i64>,
    #[prost(int32, tag = "20")]
    pub(super) kind: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct NodeProto {
    #[prost(string, repeated, tag = "1")]
    pub(super) input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub(super) output: Vec<String>,
    #[prost(string, tag = "3")]
    pub(super) name: String,
    #[prost(string, tag = "4")]
    pub(super) op_type: String,
    #[prost(message, repeated, tag = "5")]
    pub(super) attribute: Vec<AttributeProto>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TensorProto {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    pub(super) dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    pub(super) data_type: i32,
    #[prost(string, tag = "8")]
    pub(super) name: String,
    #[prost(bytes = "vec", tag = "9")]
    pub(super) raw_data: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct StringStringEntryProto {
    #[prost(string, tag = "1")]
    pub(super) key: String,
    #[prost(string, tag = "2")]
    pub(super) value: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Dimension {
    #[prost(int64, optional, tag = "1")]
    pub(super) dim_value: Option<i64>,
    #[prost(string, optional, tag = "2")]
    pub(super) dim_param: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TensorShapeProto {
    #[prost(message, repeated, tag = "1")]
    pub(super) dim: Vec<Dimension>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TensorType {
    #[prost(int32, tag = "1")]
    pub(super) elem_type: i32,
    #[prost(message, optional, tag = "2")]
    pub(super) shape: Option<TensorShapeProto>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TypeProto {
    #[prost(message, optional, tag = "1")]
    pub(super) tensor_type: Option<TensorType>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ValueInfoProto {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(message, optional, tag = "2")]
    pub(super) kind: Option<TypeProto>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct GraphProto {
    #[prost(message, repeated, tag = "1")]
    pub(super) node: Vec<NodeProto>,
    #[prost(string, tag = "2")]
    pub(super) name: String,
    #[prost(message, repeated, tag = "5")]
    pub(super) initializer: Vec<TensorProto>,
    #[prost(message, repeated, tag = "11")]
    pub(super) input: Vec<ValueInfoProto>,
    #[prost(message, repeated, tag = "12")]
    pub(super) output: Vec<ValueInfoProto>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct OperatorSetIdProto {
    #[prost(string, tag = "1")]
    pub(super) domain: String,
    #[prost(int64, tag = "2")]
    pub(super) version: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ModelProto {
    #[prost(int64, tag = "1")]
    pub(super) ir_version: i64,
    #[prost(string, tag = "2")]
    pub(super) producer_name: String,
    #[prost(string, tag = "3")]
    pub(super) producer_version: String,
    #[prost(message, optional, tag = "7")]
    pub(super) graph: Option<GraphProto>,
    #[prost(message, repeated, tag = "8")]
    pub(super) opset_import: Vec<OperatorSetIdProto>,
    #[prost(message, repeated, tag = "14")]
    pub(super) metadata_props: Vec<StringStringEntryProto>,
}

/// An attribute of a node.
#[derive(Debug, Clone)]
pub enum Attribute {
    /// A whole number.
    Int(i64),
    /// Whole numbers.
    Ints(Vec<i64>),
}

/// A graph under construction. Every node is named after its one output.
#[derive(Debug, Default)]
pub struct Graph {
    proto: GraphProto,
}

impl Graph {
    /// A constant of the shape given.
    ///
    /// # Panics
    /// When the shape does not hold as many values.
    pub fn constant(&mut self, name: &str, shape: &[usize], values: &[f32]) -> String {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "the constant {name}");
        self.tensor(name, shape, FLOAT, values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    /// A vector of whole numbers.
    pub fn integers(&mut self, name: &str, values: &[i64]) -> String {
        self.tensor(name, &[values.len()], INT64, values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    fn tensor(&mut self, name: &str, shape: &[usize], data_type: i32, raw_data: Vec<u8>) -> String {
        let dims = shape.iter().map(|&d| d as i64).collect();
        self.proto.initializer.push(TensorProto { dims, data_type, name: name.into(), raw_data });
        name.into()
    }

    /// A node with one output, which has the node's name.
    pub fn node(&mut self, op: &str, inputs: &[&str], name: &str, attributes: &[(&str, Attribute)]) -> String {
        self.node_of(op, inputs, &[name], attributes);
        name.into()
    }

    /// A node with several outputs.
    pub fn node_of(&mut self, op: &str, inputs: &[&str], outputs: &[&str], attributes: &[(&str, Attribute)]) {
        self.proto.node.push(node_of(op, inputs, outputs, attributes));
    }

    /// The finished file: `input` [N, 3, H, W] and `output` [N, D], both float32 with N free.
    pub fn finish(mut self, name: &str, input: (&str, [usize; 3]), output: (&str, usize), metadata: &[(String, String)]) -> Vec<u8> {
        self.proto.name = name.into();
        self.proto.input = vec![value(input.0, &input.1)];
        self.proto.output = vec![value(output.0, &[output.1])];
        let model = ModelProto {
            ir_version: 8,
            producer_name: "twintrack-train".into(),
            producer_version: env!("CARGO_PKG_VERSION").into(),
            graph: Some(self.proto),
            opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OPSET }],
            metadata_props: metadata.iter().map(|(k, v)| StringStringEntryProto { key: format!("twintrack.{k}"), value: v.clone() }).collect(),
        };
        model.encode_to_vec()
    }
}

/// A node of a graph.
pub(super) fn node_of(op: &str, inputs: &[&str], outputs: &[&str], attributes: &[(&str, Attribute)]) -> NodeProto {
    let texts = |v: &[&str]| v.iter().map(ToString::to_string).collect();
    let attribute = |(name, value): &(&str, Attribute)| {
        let mut a = AttributeProto { name: name.to_string(), ..AttributeProto::default() };
        match value {
            Attribute::Int(v) => (a.i, a.kind) = (Some(*v), 2),
            Attribute::Ints(v) => (a.ints, a.kind) = (v.clone(), 7),
        }
        a
    };
    let name = outputs.first().copied().unwrap_or(op).into();
    NodeProto { input: texts(inputs), output: texts(outputs), name, op_type: op.into(), attribute: attributes.iter().map(attribute).collect() }
}

/// The float32 values of a constant.
pub(super) fn floats(t: &TensorProto) -> Vec<f32> {
    t.raw_data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

/// Reads a file.
///
/// # Errors
/// When it cannot be read or is no ONNX file.
pub(super) fn read(path: &Path) -> Result<ModelProto, TrainError> {
    let bytes = std::fs::read(path).map_err(|source| TrainError::Read { path: path.into(), source })?;
    ModelProto::decode(bytes.as_slice()).map_err(|e| TrainError::Data { name: path.display().to_string(), problem: format!("it is no ONNX file ({e})") })
}

/// A convolution of a file: its weight and bias.
#[derive(Debug, Clone, PartialEq)]
pub struct Convolution {
    /// Out, in by group, height, width.
    pub shape: [usize; 4],
    /// Row-major weights.
    pub weight: Vec<f32>,
    /// A bias for each channel out.
    pub bias: Vec<f32>,
}

/// The float32 convolutions of a file, in the order of its nodes; those without a bias have zeros.
///
/// # Errors
/// When it cannot be read or is no ONNX file.
pub fn convolutions(path: &Path) -> Result<Vec<Convolution>, TrainError> {
    let misfit = |problem: String| TrainError::Data { name: path.display().to_string(), problem };
    let graph = read(path)?.graph.unwrap_or_default();
    let floats = |name: &String| {
        let t = graph.initializer.iter().find(|t| t.name == *name && t.data_type == FLOAT)?;
        Some((t.dims.iter().map(|&d| d as usize).collect::<Vec<_>>(), floats(t)))
    };
    let convolution = |node: &NodeProto| {
        let (dims, weight) = node.input.get(1).and_then(floats)?;
        let shape: [usize; 4] = dims.try_into().ok().filter(|s: &[usize; 4]| s.iter().product::<usize>() == weight.len())?;
        let bias = node.input.get(2).map_or_else(|| Some(vec![0.0; shape[0]]), |b| floats(b).map(|(_, v)| v))?;
        (bias.len() == shape[0]).then_some(Convolution { shape, weight, bias })
    };
    let nodes = graph.node.iter().filter(|n| n.op_type == "Conv");
    nodes.map(|n| convolution(n).ok_or_else(|| misfit(format!("the convolution {} has no float32 weights of its own", n.name)))).collect()
}

/// An output of which nothing is said but its name and that it is float32.
pub(super) fn untyped(name: &str) -> ValueInfoProto {
    ValueInfoProto { name: name.into(), kind: Some(TypeProto { tensor_type: Some(TensorType { elem_type: FLOAT, shape: None }) }) }
}

fn value(name: &str, shape: &[usize]) -> ValueInfoProto {
    let free = Dimension { dim_value: None, dim_param: Some("N".into()) };
    let fixed = shape.iter().map(|&d| Dimension { dim_value: Some(d as i64), dim_param: None });
    let shape = TensorShapeProto { dim: std::iter::once(free).chain(fixed).collect() };
    ValueInfoProto { name: name.into(), kind: Some(TypeProto { tensor_type: Some(TensorType { elem_type: FLOAT, shape: Some(shape) }) }) }
}
