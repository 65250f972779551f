//! A builder of ONNX graphs with named values.

use prost::Message;

use crate::onnx::proto::{
    AttributeProto, Dimension, FLOAT, GraphProto, INT64, ModelProto, NodeProto, OPSET,
    OperatorSetIdProto, StringStringEntryProto, TensorProto, TensorShapeProto, TensorType,
    TypeProto, ValueInfoProto,
};

/// An attribute of a node.
#[derive(Debug, Clone)]
pub enum Attribute {
    /// A floating-point number.
    Float(f32),
    /// An integer.
    Int(i64),
    /// A list of integers.
    Ints(Vec<i64>),
    /// A text.
    Text(&'static str),
}

/// A graph under construction. Every node is named after its first output.
#[derive(Debug, Default)]
pub struct Graph {
    proto: GraphProto,
    /// Operator set version, if an adopted graph needs a newer one than [`OPSET`].
    opset: i64,
}

impl Graph {
    /// Adds a float32 constant.
    ///
    /// # Panics
    /// When the number of values does not match the shape.
    pub fn constant(&mut self, name: &str, shape: &[usize], values: &[f32]) -> String {
        assert_eq!(
            shape.iter().product::<usize>(),
            values.len(),
            "the constant {name}"
        );
        self.tensor(
            name,
            shape,
            FLOAT,
            values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        )
    }

    /// Adds a vector of int64.
    pub fn integers(&mut self, name: &str, values: &[i64]) -> String {
        self.proto.initializer.push(integers_of(name, values));
        name.into()
    }

    /// Adds a constant of any element type from its little-endian bytes.
    pub fn tensor(
        &mut self,
        name: &str,
        shape: &[usize],
        data_type: i32,
        raw_data: Vec<u8>,
    ) -> String {
        let tensor = tensor_of(name, shape, data_type, raw_data);
        self.proto.initializer.push(tensor);
        name.into()
    }

    /// Adds a node with one output; the node and its output have the same name.
    pub fn node(
        &mut self,
        op: &str,
        inputs: &[&str],
        name: &str,
        attributes: &[(&str, Attribute)],
    ) -> String {
        self.node_of(op, inputs, &[name], attributes);
        name.into()
    }

    /// Adds a node with several outputs.
    pub fn node_of(
        &mut self,
        op: &str,
        inputs: &[&str],
        outputs: &[&str],
        attributes: &[(&str, Attribute)],
    ) {
        self.proto
            .node
            .push(node_of(op, inputs, outputs, attributes));
    }

    /// Appends the nodes and constants of another graph, which uses operator set `opset`.
    pub fn adopt(&mut self, part: GraphProto, opset: i64) {
        self.proto.node.extend(part.node);
        self.proto.initializer.extend(part.initializer);
        self.opset = self.opset.max(opset);
    }

    /// Finishes a graph with these inputs and outputs, each given by its name, element type and
    /// shape, in which 0 is a free dimension.
    pub fn finish_with(
        mut self,
        name: &str,
        inputs: &[(&str, i32, &[usize])],
        outputs: &[(&str, i32, &[usize])],
    ) -> Vec<u8> {
        let values = |all: &[(&str, i32, &[usize])]| {
            all.iter()
                .map(|&(name, element, shape)| value_of(name, element, shape))
                .collect()
        };
        self.proto.name = name.into();
        self.proto.input = values(inputs);
        self.proto.output = values(outputs);
        encode_graph(self.proto, OPSET.max(self.opset), &[])
    }

    /// Finishes a graph with one `input` [N, 3, H, W] and one `output` [N, D], both float32 with N
    /// free, and returns the bytes of its file. `metadata` is written under `twintrack.*`.
    pub fn finish(
        mut self,
        name: &str,
        input: (&str, [usize; 3]),
        output: (&str, usize),
        metadata: &[(String, String)],
    ) -> Vec<u8> {
        self.proto.name = name.into();
        self.proto.input = vec![value(input.0, &input.1)];
        self.proto.output = vec![value(output.0, &[output.1])];
        encode_graph(self.proto, OPSET.max(self.opset), metadata)
    }
}

/// Encodes a finished graph with operator set `opset`. `metadata` is written under `twintrack.*`.
pub fn encode_graph(graph: GraphProto, opset: i64, metadata: &[(String, String)]) -> Vec<u8> {
    let model = ModelProto {
        ir_version: 8,
        producer_name: "twintrack".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        graph: Some(graph),
        opset_import: vec![OperatorSetIdProto {
            domain: String::new(),
            version: opset,
        }],
        metadata_props: entries(metadata),
    };
    model.encode_to_vec()
}

/// Metadata under `twintrack.*`.
fn entries(metadata: &[(String, String)]) -> Vec<StringStringEntryProto> {
    metadata
        .iter()
        .map(|(k, v)| StringStringEntryProto {
            key: format!("twintrack.{k}"),
            value: v.clone(),
        })
        .collect()
}

/// Bytes that add metadata under `twintrack.*` when they are appended to an ONNX file, because
/// concatenated protocol buffers merge.
pub fn metadata_suffix(metadata: &[(String, String)]) -> Vec<u8> {
    ModelProto {
        metadata_props: entries(metadata),
        ..ModelProto::default()
    }
    .encode_to_vec()
}

/// Builds a constant of any element type from its little-endian bytes.
fn tensor_of(name: &str, shape: &[usize], data_type: i32, raw_data: Vec<u8>) -> TensorProto {
    TensorProto {
        dims: shape.iter().map(|&d| d as i64).collect(),
        data_type,
        name: name.into(),
        raw_data,
        ..TensorProto::default()
    }
}

/// Builds a vector of int64.
pub fn integers_of(name: &str, values: &[i64]) -> TensorProto {
    let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    tensor_of(name, &[values.len()], INT64, bytes)
}

/// Builds a node.
pub fn node_of(
    op: &str,
    inputs: &[&str],
    outputs: &[&str],
    attributes: &[(&str, Attribute)],
) -> NodeProto {
    let texts = |v: &[&str]| v.iter().map(ToString::to_string).collect();
    let attribute = |(name, value): &(&str, Attribute)| {
        let mut a = AttributeProto {
            name: name.to_string(),
            ..AttributeProto::default()
        };
        match value {
            Attribute::Float(v) => (a.f, a.kind) = (Some(*v), 1),
            Attribute::Int(v) => (a.i, a.kind) = (Some(*v), 2),
            Attribute::Ints(v) => (a.ints, a.kind) = (v.clone(), 7),
            Attribute::Text(v) => (a.s, a.kind) = (Some(v.as_bytes().to_vec()), 3),
        }
        a
    };
    let name = outputs.first().copied().unwrap_or(op).into();
    let attribute = attributes.iter().map(attribute).collect();
    NodeProto {
        input: texts(inputs),
        output: texts(outputs),
        name,
        op_type: op.into(),
        attribute,
        domain: String::new(),
    }
}

/// The float32 values in a constant's `raw_data`.
pub fn floats(t: &TensorProto) -> Vec<f32> {
    t.raw_data
        .as_chunks::<4>()
        .0
        .iter()
        .map(|b| f32::from_le_bytes(*b))
        .collect()
}

/// A float32 output of unspecified shape.
pub fn untyped(name: &str) -> ValueInfoProto {
    ValueInfoProto {
        name: name.into(),
        kind: Some(TypeProto {
            tensor_type: Some(TensorType {
                elem_type: FLOAT,
                shape: None,
            }),
        }),
    }
}

/// A value; in its shape 0 is a free dimension.
fn value_of(name: &str, element: i32, shape: &[usize]) -> ValueInfoProto {
    let dimension = |(axis, &size): (usize, &usize)| Dimension {
        dim_value: (size > 0).then_some(size as i64),
        dim_param: (size == 0).then(|| match axis {
            0 => "N".to_string(),
            _ => format!("{name}_{axis}"),
        }),
    };
    let shape = TensorShapeProto {
        dim: shape.iter().enumerate().map(dimension).collect(),
    };
    ValueInfoProto {
        name: name.into(),
        kind: Some(TypeProto {
            tensor_type: Some(TensorType {
                elem_type: element,
                shape: Some(shape),
            }),
        }),
    }
}

/// A float32 value [N, shape], with N free.
fn value(name: &str, shape: &[usize]) -> ValueInfoProto {
    let shape: Vec<usize> = std::iter::once(0).chain(shape.iter().copied()).collect();
    value_of(name, FLOAT, &shape)
}
