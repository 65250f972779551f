//! Writing ONNX: the messages of `onnx.proto` that a feed-forward network needs, and a builder that names the edges.
//!
//! The field numbers are those of the ONNX specification (IR version 8). Parts a network has no use for are left out;
//! protocol buffers allow that.

use prost::Message;

/// Opset that is written.
pub const OPSET: i64 = 17;
const FLOAT: i32 = 1;
const INT64: i32 = 7;

#[derive(Clone, PartialEq, Message)]
struct AttributeProto {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int64, optional, tag = "3")]
    i: Option<i64>,
    #[prost(int64, repeated, packed = "false", tag = "8")]
    ints: Vec<i64>,
    #[prost(int32, tag = "20")]
    kind: i32,
}

#[derive(Clone, PartialEq, Message)]
struct NodeProto {
    #[prost(string, repeated, tag = "1")]
    input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    output: Vec<String>,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(string, tag = "4")]
    op_type: String,
    #[prost(message, repeated, tag = "5")]
    attribute: Vec<AttributeProto>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorProto {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(string, tag = "8")]
    name: String,
    #[prost(bytes = "vec", tag = "9")]
    raw_data: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct StringStringEntryProto {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct Dimension {
    #[prost(int64, optional, tag = "1")]
    dim_value: Option<i64>,
    #[prost(string, optional, tag = "2")]
    dim_param: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorShapeProto {
    #[prost(message, repeated, tag = "1")]
    dim: Vec<Dimension>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorType {
    #[prost(int32, tag = "1")]
    elem_type: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<TensorShapeProto>,
}

#[derive(Clone, PartialEq, Message)]
struct TypeProto {
    #[prost(message, optional, tag = "1")]
    tensor_type: Option<TensorType>,
}

#[derive(Clone, PartialEq, Message)]
struct ValueInfoProto {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    kind: Option<TypeProto>,
}

#[derive(Clone, PartialEq, Message)]
struct GraphProto {
    #[prost(message, repeated, tag = "1")]
    node: Vec<NodeProto>,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<TensorProto>,
    #[prost(message, repeated, tag = "11")]
    input: Vec<ValueInfoProto>,
    #[prost(message, repeated, tag = "12")]
    output: Vec<ValueInfoProto>,
}

#[derive(Clone, PartialEq, Message)]
struct OperatorSetIdProto {
    #[prost(string, tag = "1")]
    domain: String,
    #[prost(int64, tag = "2")]
    version: i64,
}

#[derive(Clone, PartialEq, Message)]
struct ModelProto {
    #[prost(int64, tag = "1")]
    ir_version: i64,
    #[prost(string, tag = "2")]
    producer_name: String,
    #[prost(string, tag = "3")]
    producer_version: String,
    #[prost(message, optional, tag = "7")]
    graph: Option<GraphProto>,
    #[prost(message, repeated, tag = "8")]
    opset_import: Vec<OperatorSetIdProto>,
    #[prost(message, repeated, tag = "14")]
    metadata_props: Vec<StringStringEntryProto>,
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
        let attribute = attributes.iter().map(attribute).collect();
        self.proto.node.push(NodeProto { input: texts(inputs), output: texts(outputs), name, op_type: op.into(), attribute });
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

fn value(name: &str, shape: &[usize]) -> ValueInfoProto {
    let free = Dimension { dim_value: None, dim_param: Some("N".into()) };
    let fixed = shape.iter().map(|&d| Dimension { dim_value: Some(d as i64), dim_param: None });
    let shape = TensorShapeProto { dim: std::iter::once(free).chain(fixed).collect() };
    ValueInfoProto { name: name.into(), kind: Some(TypeProto { tensor_type: Some(TensorType { elem_type: FLOAT, shape: Some(shape) }) }) }
}
