//! State of planning: the kind of each value, while a graph's nodes are parsed in order.

use std::collections::BTreeMap;

use crate::onnx::proto::{FLOAT, INT32, INT64, NodeProto, TensorProto};

/// A trainable constant of the file.
#[derive(Debug, Clone)]
pub struct Weight {
    /// Name in the file.
    pub name: String,
    /// Dimensions.
    pub dims: Vec<usize>,
    /// Values in the file.
    pub values: Vec<f32>,
}

/// Kind of a value during planning.
#[derive(Debug, Clone)]
pub enum KnownValue {
    /// Computed at run time; the number of the value.
    Computed(usize),
    /// A trainable constant; the number of the weight.
    Weight(usize),
    /// A constant of integers.
    Integers(Vec<i64>),
    /// No supported operation can use the value.
    Nothing,
}

/// State of planning while the nodes are parsed in order.
pub struct Planner {
    /// Kind of each value, by its name in the file.
    pub known: BTreeMap<String, KnownValue>,
    /// The weights found so far.
    pub weights: Vec<Weight>,
    /// Number of values so far.
    pub values: usize,
}

impl Planner {
    /// Kind of a node's input; [`KnownValue::Nothing`] for an omitted optional input.
    pub fn input(&self, node: &NodeProto, place: usize) -> KnownValue {
        node.input
            .get(place)
            .filter(|n| !n.is_empty())
            .and_then(|n| self.known.get(n))
            .cloned()
            .unwrap_or(KnownValue::Nothing)
    }

    /// The value at an input.
    ///
    /// # Errors
    /// Fails when the input is a constant or missing.
    pub fn value(&self, node: &NodeProto, place: usize) -> Result<usize, String> {
        match self.input(node, place) {
            KnownValue::Computed(v) => Ok(v),
            _ => Err(format!("input {place} must depend on the picture")),
        }
    }

    /// The weight at an input.
    ///
    /// # Errors
    /// Fails when the input is not a float32 constant.
    pub fn weight(&self, node: &NodeProto, place: usize) -> Result<usize, String> {
        match self.input(node, place) {
            KnownValue::Weight(w) => Ok(w),
            _ => Err(format!(
                "input {place} must be a float32 constant of the file"
            )),
        }
    }

    /// The weight at an optional input.
    ///
    /// # Errors
    /// Fails when the input is present but not a float32 constant.
    pub fn optional_weight(&self, node: &NodeProto, place: usize) -> Result<Option<usize>, String> {
        match self.input(node, place) {
            KnownValue::Nothing => Ok(None),
            _ => self.weight(node, place).map(Some),
        }
    }

    /// The constant integers at an input.
    ///
    /// # Errors
    /// Fails when the input is anything else.
    pub fn integers(&self, node: &NodeProto, place: usize) -> Result<Vec<i64>, String> {
        match self.input(node, place) {
            KnownValue::Integers(v) => Ok(v),
            _ => Err(format!("input {place} must be constant integers")),
        }
    }

    /// Registers a constant of the file.
    ///
    /// # Errors
    /// Fails when the number of its values does not match its dimensions.
    pub fn constant(&mut self, tensor: &TensorProto) -> Result<KnownValue, String> {
        let dims: Vec<usize> = tensor.dims.iter().map(|d| *d as usize).collect();
        match tensor.data_type {
            FLOAT => {
                let values = if tensor.raw_data.is_empty() {
                    tensor.float_data.clone()
                } else {
                    crate::onnx::graph::floats(tensor)
                };
                if values.len() != dims.iter().product::<usize>() {
                    return Err(format!(
                        "the number of values of the constant '{}' does not match its dimensions",
                        tensor.name
                    ));
                }
                self.weights.push(Weight {
                    name: tensor.name.clone(),
                    dims,
                    values,
                });
                Ok(KnownValue::Weight(self.weights.len() - 1))
            }
            INT64 if tensor.raw_data.is_empty() => {
                Ok(KnownValue::Integers(tensor.int64_data.clone()))
            }
            INT64 => Ok(KnownValue::Integers(
                tensor
                    .raw_data
                    .as_chunks::<8>()
                    .0
                    .iter()
                    .map(|b| i64::from_le_bytes(*b))
                    .collect(),
            )),
            INT32 => Ok(KnownValue::Integers(
                tensor
                    .raw_data
                    .as_chunks::<4>()
                    .0
                    .iter()
                    .map(|b| i64::from(i32::from_le_bytes(*b)))
                    .collect(),
            )),
            _ => Ok(KnownValue::Nothing),
        }
    }
}
