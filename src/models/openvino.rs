//! Converts an embedder from OpenVINO IR to ONNX: translates each operation, makes the batch
//! dimension dynamic, and scales the embeddings to unit length.

mod reshape;

use std::collections::BTreeMap;
use std::path::Path;

use crate::models::error::ModelsError;
use crate::models::ir::{ElementType, IrLayer, IrNetwork, Value};
use crate::onnx::proto::{FLOAT, FLOAT16, INT32, INT64};
use crate::onnx::{Attribute, Graph};
use crate::text_file;

/// Converts the embedder in the files `xml` and `bin`. It must have one float32 input [1, 3, H, W]
/// and one output [1, D], which may have further dimensions of 1. `name`: the graph's name;
/// `metadata`: keys and values, written under `twintrack.*`. Returns the contents of an ONNX file
/// with input `image` [N, 3, H, W] and output `embedding` [N, D] of unit length.
///
/// # Errors
/// Fails when a file cannot be read, is malformed, or contains something unsupported. The message
/// names the file and, if one layer is the cause, that layer.
pub fn import(
    xml: &Path,
    bin: &Path,
    name: &str,
    metadata: &[(String, String)],
) -> Result<Vec<u8>, ModelsError> {
    let text = text_file::read(xml).map_err(|e| ModelsError::read(xml, e))?;
    let constants = std::fs::read(bin).map_err(|e| ModelsError::read(bin, e))?;
    convert(&text, &constants, name, metadata).map_err(|reason| ModelsError::Import {
        path: xml.into(),
        reason,
    })
}

fn convert(
    xml: &str,
    constants: &[u8],
    name: &str,
    metadata: &[(String, String)],
) -> Result<Vec<u8>, String> {
    let network = IrNetwork::parse(xml)?;
    let mut importer = Importer {
        graph: Graph::default(),
        constants,
        integer_constants: BTreeMap::new(),
        input: None,
        output: None,
    };
    for layer in &network.layers {
        importer
            .layer(layer)
            .map_err(|problem| format!("the layer '{}' ({}): {problem}", layer.name, layer.kind))?;
    }
    let size = importer.input.ok_or(NO_INPUT)?;
    let output = importer.output.ok_or(NO_OUTPUT)?;
    let dimension: usize = output.dims.iter().product();
    let flat = importer.graph.node(
        "Flatten",
        &[&output.name],
        "flat",
        &[("axis", Attribute::Int(1))],
    );
    importer.graph.node(
        "LpNormalization",
        &[&flat],
        OUTPUT,
        &[("axis", Attribute::Int(1)), ("p", Attribute::Int(2))],
    );
    Ok(importer
        .graph
        .finish(name, (INPUT, size), (OUTPUT, dimension), metadata))
}

const INPUT: &str = "image";
const OUTPUT: &str = "embedding";
const UNSUPPORTED: &str = "the operation is not supported; export the network to ONNX from its \
                           original framework and use that file";
const NO_INPUT: &str = "it has no Parameter layer; one float32 input [1, 3, H, W] is needed";
const NO_OUTPUT: &str = "it has no Result layer; one output [1, D] is needed";

struct Importer<'a> {
    graph: Graph,
    /// Contents of the .bin file.
    constants: &'a [u8],
    /// Values of the integer constants by name. They are needed because some inputs of IR layers
    /// are attributes in ONNX.
    integer_constants: BTreeMap<String, Vec<i64>>,
    /// Shape of the input [3, H, W], once its layer was read.
    input: Option<[usize; 3]>,
    /// The network's output, once its layer was read.
    output: Option<Value>,
}

fn data_type(element: ElementType) -> i32 {
    match element {
        ElementType::F32 => FLOAT,
        ElementType::F16 => FLOAT16,
        ElementType::I64 => INT64,
        ElementType::I32 => INT32,
    }
}

impl Importer<'_> {
    fn layer(&mut self, layer: &IrLayer) -> Result<(), String> {
        match layer.kind.as_str() {
            "Parameter" => self.parameter(layer),
            "Result" => self.result(layer),
            "Const" => self.constant(layer),
            "Convert" => self.convert(layer, layer.output()?.element),
            "Add" | "Subtract" | "Multiply" | "Divide" => self.elementwise(layer),
            "ReLU" => self.unary("Relu", layer),
            "Sigmoid" | "Tanh" | "Sqrt" => self.unary(&layer.kind, layer),
            "Clamp" => self.clamp(layer),
            "PReLU" => self.prelu(layer),
            "Convolution" => self.convolution(layer, None),
            "GroupConvolution" => self.group_convolution(layer),
            "MaxPool" | "AvgPool" => self.pool(layer),
            "MVN" => self.mvn(layer),
            "ReduceMean" => self.reduce_mean(layer),
            "MatMul" => self.matmul(layer),
            "Reshape" => self.reshape(layer),
            "ShapeOf" => self.shape_of(layer),
            "Gather" => self.gather(layer),
            "Concat" => self.concat(layer),
            "Transpose" => self.transpose(layer),
            _ => Err(UNSUPPORTED.into()),
        }
    }

    /// Adds a node with the layer's first `count` inputs. Further inputs are ignored; if the ONNX
    /// operator needs their values, the caller passes them in `attributes`.
    fn node(
        &mut self,
        op: &str,
        layer: &IrLayer,
        count: usize,
        attributes: &[(&str, Attribute)],
    ) -> Result<(), String> {
        let names = (0..count)
            .map(|i| Ok(layer.input(i)?.name.as_str()))
            .collect::<Result<Vec<_>, String>>()?;
        self.graph
            .node(op, &names, &layer.output()?.name, attributes);
        Ok(())
    }

    /// Adds a node with one input and no attributes.
    fn unary(&mut self, op: &str, layer: &IrLayer) -> Result<(), String> {
        self.node(op, layer, 1, &[])
    }

    fn parameter(&mut self, layer: &IrLayer) -> Result<(), String> {
        let value = layer.output()?;
        let [1, 3, h, w] = value.dims[..] else {
            return Err(format!(
                "its shape is {:?}, but [1, 3, H, W] is needed",
                value.dims
            ));
        };
        if value.element != ElementType::F32 {
            return Err(format!(
                "its elements are {:?}; float32 is needed",
                value.element
            ));
        }
        if self.input.replace([3, h, w]).is_some() {
            return Err("it is a second input; an embedder has one".into());
        }
        self.graph.node("Identity", &[INPUT], &value.name, &[]);
        Ok(())
    }

    fn result(&mut self, layer: &IrLayer) -> Result<(), String> {
        let value = layer.input(0)?.clone();
        if value.dims.len() < 2
            || value.dims[0] != 1
            || value.dims[2..].iter().any(|side| *side != 1)
        {
            return Err(format!(
                "its shape is {:?}, but [1, D] or [1, D, 1, 1] is needed",
                value.dims
            ));
        }
        if self.output.replace(value).is_some() {
            Err("it is a second output; an embedder has one".into())
        } else {
            Ok(())
        }
    }

    fn constant(&mut self, layer: &IrLayer) -> Result<(), String> {
        let value = layer.output()?;
        let (offset, bytes) = (
            layer.number_of_bytes("offset")?,
            layer.number_of_bytes("size")?,
        );
        let raw = offset
            .checked_add(bytes)
            .and_then(|end| self.constants.get(offset..end));
        let raw = raw.ok_or_else(|| {
            format!(
                "its {bytes} bytes at offset {offset} lie outside the .bin file of {} bytes; the \
                 .xml and .bin files must be complete and of the same network",
                self.constants.len()
            )
        })?;
        if value
            .dims
            .iter()
            .product::<usize>()
            .checked_mul(value.element.bytes())
            != Some(bytes)
        {
            return Err(format!(
                "it has {bytes} bytes, which is not the size of shape {:?} of {:?}",
                value.dims, value.element
            ));
        }
        let integers: Option<Vec<i64>> = match value.element {
            ElementType::I64 => Some(
                raw.as_chunks::<8>()
                    .0
                    .iter()
                    .map(|b| i64::from_le_bytes(*b))
                    .collect(),
            ),
            ElementType::I32 => Some(
                raw.as_chunks::<4>()
                    .0
                    .iter()
                    .map(|b| i64::from(i32::from_le_bytes(*b)))
                    .collect(),
            ),
            _ => None,
        };
        if let Some(integers) = integers {
            self.integer_constants.insert(value.name.clone(), integers);
        }
        self.graph.tensor(
            &value.name,
            &value.dims,
            data_type(value.element),
            raw.to_vec(),
        );
        Ok(())
    }

    /// The values of the integer constant at input `index` of the layer.
    fn integers_at(&self, layer: &IrLayer, index: usize, what: &str) -> Result<&[i64], String> {
        let value = layer.input(index)?;
        self.integer_constants
            .get(&value.name)
            .map(Vec::as_slice)
            .ok_or_else(|| format!("its {what} are not an int32 or int64 constant"))
    }

    fn convert(&mut self, layer: &IrLayer, to: ElementType) -> Result<(), String> {
        self.node(
            "Cast",
            layer,
            1,
            &[("to", Attribute::Int(i64::from(data_type(to))))],
        )
    }

    fn elementwise(&mut self, layer: &IrLayer) -> Result<(), String> {
        let rule = layer
            .data
            .get("auto_broadcast")
            .map_or("numpy", String::as_str);
        if rule != "numpy" {
            return Err(format!(
                "auto_broadcast = '{rule}' is not supported; only 'numpy' is"
            ));
        }
        let op = match layer.kind.as_str() {
            "Add" => "Add",
            "Subtract" => "Sub",
            "Multiply" => "Mul",
            _ => "Div",
        };
        self.node(op, layer, 2, &[])
    }

    fn clamp(&mut self, layer: &IrLayer) -> Result<(), String> {
        let name = &layer.output()?.name;
        let low = self
            .graph
            .constant(&format!("{name}.min"), &[], &[layer.number("min")?]);
        let high = self
            .graph
            .constant(&format!("{name}.max"), &[], &[layer.number("max")?]);
        self.graph
            .node("Clip", &[&layer.input(0)?.name, &low, &high], name, &[]);
        Ok(())
    }

    /// In OpenVINO a one-dimensional slope is per channel. ONNX broadcasts from the last axis, so
    /// such a slope is reshaped to [C, 1, ..., 1].
    fn prelu(&mut self, layer: &IrLayer) -> Result<(), String> {
        let (data, slope) = (layer.input(0)?, layer.input(1)?);
        if slope.dims.len() != 1 || data.dims.len() <= 2 {
            return self.node("PRelu", layer, 2, &[]);
        }
        let name = &layer.output()?.name;
        let shape: Vec<i64> = std::iter::once(slope.dims[0] as i64)
            .chain(std::iter::repeat_n(1, data.dims.len() - 2))
            .collect();
        let slope = self.reshaped(&format!("{name}.slope"), &slope.name, &shape);
        self.graph.node("PRelu", &[&data.name, &slope], name, &[]);
        Ok(())
    }

    fn reshaped(&mut self, name: &str, value: &str, shape: &[i64]) -> String {
        let shape = self.graph.integers(&format!("{name}.shape"), shape);
        self.graph.node("Reshape", &[value, &shape], name, &[])
    }

    /// Strides, padding and dilations of a convolution or pooling.
    fn strides_pads_dilations(layer: &IrLayer) -> Result<Vec<(&'static str, Attribute)>, String> {
        let mut pads = vec![0; 2 * layer.numbers("strides")?.len()];
        match layer
            .data
            .get("auto_pad")
            .map_or("explicit", String::as_str)
        {
            "explicit" | "notset" => {
                pads = [layer.numbers("pads_begin")?, layer.numbers("pads_end")?].concat()
            }
            "valid" => {}
            other => {
                return Err(format!(
                    "auto_pad = '{other}' is not supported; only 'explicit', 'notset' and 'valid' \
                     are"
                ));
            }
        }
        let mut window = vec![
            ("strides", Attribute::Ints(layer.numbers("strides")?)),
            ("pads", Attribute::Ints(pads)),
        ];
        if layer.data.contains_key("dilations") {
            window.push(("dilations", Attribute::Ints(layer.numbers("dilations")?)));
        }
        Ok(window)
    }

    /// Adds a convolution. `grouped`: the name of reshaped weights, and the number of groups.
    fn convolution(
        &mut self,
        layer: &IrLayer,
        grouped: Option<(String, usize)>,
    ) -> Result<(), String> {
        let mut attributes = Self::strides_pads_dilations(layer)?;
        let weight = match grouped {
            Some((weight, groups)) => {
                attributes.push(("group", Attribute::Int(groups as i64)));
                weight
            }
            None => layer.input(1)?.name.clone(),
        };
        self.graph.node(
            "Conv",
            &[&layer.input(0)?.name, &weight],
            &layer.output()?.name,
            &attributes,
        );
        Ok(())
    }

    /// Adds a grouped convolution. Its weights [G, O, I, H, W] are reshaped to ONNX's
    /// [G * O, I, H, W].
    fn group_convolution(&mut self, layer: &IrLayer) -> Result<(), String> {
        let weight = layer.input(1)?;
        let [groups, out, rest @ ..] = &weight.dims[..] else {
            return Err(format!(
                "its weights have the shape {:?}; [groups, out, in, ...] is needed",
                weight.dims
            ));
        };
        let shape: Vec<i64> = std::iter::once(groups * out)
            .chain(rest.iter().copied())
            .map(|d| d as i64)
            .collect();
        let name = format!("{}.weight", layer.output()?.name);
        let reshaped = self.reshaped(&name, &weight.name, &shape);
        self.convolution(layer, Some((reshaped, *groups)))
    }

    fn pool(&mut self, layer: &IrLayer) -> Result<(), String> {
        let mut attributes = Self::strides_pads_dilations(layer)?;
        attributes.push(("kernel_shape", Attribute::Ints(layer.numbers("kernel")?)));
        match layer
            .data
            .get("rounding_type")
            .map_or("floor", String::as_str)
        {
            "floor" => {}
            "ceil" => attributes.push(("ceil_mode", Attribute::Int(1))),
            other => {
                return Err(format!(
                    "rounding_type = '{other}' is not supported; only 'floor' and 'ceil' are"
                ));
            }
        }
        if layer.kind == "AvgPool" {
            attributes.push((
                "count_include_pad",
                Attribute::Int(i64::from(!layer.flag("exclude-pad", false))),
            ));
            return self.node("AveragePool", layer, 1, &attributes);
        }
        self.node("MaxPool", layer, 1, &attributes)
    }

    /// Mean-variance normalisation over all axes after the channels: instance normalisation without
    /// scale and offset.
    fn mvn(&mut self, layer: &IrLayer) -> Result<(), String> {
        let (data, name) = (layer.input(0)?, &layer.output()?.name);
        let rank = data.dims.len() as i64;
        let mut axes: Vec<i64> = self
            .integers_at(layer, 1, "axes")?
            .iter()
            .map(|a| if *a < 0 { a + rank } else { *a })
            .collect();
        axes.sort_unstable();
        let variance = layer.flag("normalize_variance", true);
        let mode = layer
            .data
            .get("eps_mode")
            .map_or("INSIDE_SQRT", String::as_str)
            .to_ascii_uppercase();
        if rank < 3 || axes != (2..rank).collect::<Vec<_>>() || !variance || mode != "INSIDE_SQRT" {
            return Err(format!(
                "only normalize_variance = true, eps_mode = inside_sqrt and all axes from 2 on are \
                 supported; it has normalize_variance = {variance}, eps_mode = {mode}, axes \
                 {axes:?} of {rank} dimensions"
            ));
        }
        let channels = data.dims[1];
        let scale =
            self.graph
                .constant(&format!("{name}.scale"), &[channels], &vec![1.0; channels]);
        let offset =
            self.graph
                .constant(&format!("{name}.offset"), &[channels], &vec![0.0; channels]);
        self.graph.node(
            "InstanceNormalization",
            &[&data.name, &scale, &offset],
            name,
            &[("epsilon", Attribute::Float(layer.number("eps")?))],
        );
        Ok(())
    }

    fn reduce_mean(&mut self, layer: &IrLayer) -> Result<(), String> {
        let axes = self.integers_at(layer, 1, "axes")?.to_vec();
        let keep = i64::from(layer.flag("keep_dims", false));
        self.node(
            "ReduceMean",
            layer,
            1,
            &[
                ("axes", Attribute::Ints(axes)),
                ("keepdims", Attribute::Int(keep)),
            ],
        )
    }

    fn matmul(&mut self, layer: &IrLayer) -> Result<(), String> {
        let name = &layer.output()?.name;
        let mut operands = Vec::new();
        for (index, key) in ["transpose_a", "transpose_b"].into_iter().enumerate() {
            let value = layer.input(index)?;
            let rank = value.dims.len();
            if layer.flag(key, false) && rank >= 2 {
                let mut order: Vec<i64> = (0..rank as i64).collect();
                order.swap(rank - 2, rank - 1);
                operands.push(self.graph.node(
                    "Transpose",
                    &[&value.name],
                    &format!("{name}.{key}"),
                    &[("perm", Attribute::Ints(order))],
                ));
            } else {
                operands.push(value.name.clone());
            }
        }
        self.graph
            .node("MatMul", &[&operands[0], &operands[1]], name, &[]);
        Ok(())
    }
}
