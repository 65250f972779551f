//! Builds small networks in OpenVINO IR.
#![allow(dead_code, reason = "each test program uses a part of it")]

/// An output port of a layer: the layer's id, the port's number, the shape and the element type
/// (`FP32`, `FP16`, `I64` or `I32`).
pub struct Value {
    layer: usize,
    port: usize,
    dims: Vec<usize>,
    precision: &'static str,
}

/// A network under construction.
#[derive(Default)]
pub struct Ir {
    layers_xml: String,
    edges_xml: String,
    /// Contents of the .bin file.
    bin: Vec<u8>,
    layer_count: usize,
}

/// Dimension of the embeddings of [`embedder_files`].
pub const DIMENSION: usize = 4;

/// A small embedder for crops of 8x16 pixels (width x height). Returns the contents of its .xml and
/// .bin files.
pub fn embedder_files() -> (String, Vec<u8>) {
    network(16, 8, |ir, x| {
        let (w, axes) = (
            ir.f16_constant(
                &[DIMENSION, 3, 1, 1],
                &[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.5, -1.0, 0.5],
            ),
            ir.i64_constant(&[2], &[2, 3]),
        );
        let window = "auto_pad=\"explicit\" dilations=\"1, 1\" strides=\"1, 1\" \
                      pads_begin=\"0, 0\" pads_end=\"0, 0\"";
        let y = ir.op("Convolution", window, &[x, &w], &[1, DIMENSION, 16, 8]);
        ir.op(
            "ReduceMean",
            "keep_dims=\"true\"",
            &[&y, &axes],
            &[1, DIMENSION, 1, 1],
        )
    })
}

/// A network with one float32 input [1, 3, `height`, `width`]. `build` gets that input, adds
/// layers, and returns the last layer's output, which is flattened to [1, D]. Returns the contents
/// of the .xml and .bin files.
pub fn network(
    height: usize,
    width: usize,
    build: impl Fn(&mut Ir, &Value) -> Value,
) -> (String, Vec<u8>) {
    let mut ir = Ir::default();
    let input = ir.op(
        "Parameter",
        &format!("shape=\"1,3,{height},{width}\" element_type=\"f32\""),
        &[],
        &[1, 3, height, width],
    );
    let made = build(&mut ir, &input);
    let flat = ir.flat(&made);
    ir.layer("Result", "", &[&flat], None);
    let Ir {
        layers_xml,
        edges_xml,
        bin,
        ..
    } = ir;
    (
        format!(
            "<?xml version=\"1.0\"?><net name=\"fixture\" version=\"11\">\
             <layers>{layers_xml}</layers><edges>{edges_xml}</edges></net>"
        ),
        bin,
    )
}

impl Ir {
    /// Adds a layer of operation `kind` with a float32 output of shape `dims`, which is not
    /// checked. `attributes`: the attributes of the `<data>` element, as XML.
    pub fn op(&mut self, kind: &str, attributes: &str, inputs: &[&Value], dims: &[usize]) -> Value {
        self.op_of_type(kind, attributes, inputs, dims, "FP32")
    }

    /// As [`Ir::op`], with an output of element type `precision`.
    pub fn op_of_type(
        &mut self,
        kind: &str,
        attributes: &str,
        inputs: &[&Value],
        dims: &[usize],
        precision: &'static str,
    ) -> Value {
        self.layer(kind, attributes, inputs, Some((dims, precision)))
    }

    /// Flattens [1, ...] to [1, D].
    pub fn flat(&mut self, x: &Value) -> Value {
        let shape = self.i64_constant(&[2], &[0, -1]);
        self.op(
            "Reshape",
            "special_zero=\"true\"",
            &[x, &shape],
            &[1, x.dims.iter().product()],
        )
    }

    pub fn shape_of(&mut self, x: &Value) -> Value {
        self.op_of_type(
            "ShapeOf",
            "output_type=\"i64\"",
            &[x],
            &[x.dims.len()],
            "I64",
        )
    }

    /// Adds a float16 constant and its conversion to float32, as in a network that OpenVINO has
    /// compressed to float16. The values must meet the condition of [`float16_bits`].
    pub fn f16_constant(&mut self, dims: &[usize], values: &[f32]) -> Value {
        let raw = self.constant(
            "f16",
            "FP16",
            dims,
            values
                .iter()
                .flat_map(|v| float16_bits(*v).to_le_bytes())
                .collect(),
        );
        self.op("Convert", "destination_type=\"f32\"", &[&raw], dims)
    }

    pub fn i64_constant(&mut self, dims: &[usize], values: &[i64]) -> Value {
        self.constant(
            "i64",
            "I64",
            dims,
            values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        )
    }

    pub fn i32_constant(&mut self, dims: &[usize], values: &[i32]) -> Value {
        self.constant(
            "i32",
            "I32",
            dims,
            values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        )
    }

    /// Adds a constant. `data_type` and `precision` are the two spellings of its element type in
    /// the IR, such as `f16` and `FP16`; `raw` holds its bytes.
    fn constant(
        &mut self,
        data_type: &str,
        precision: &'static str,
        dims: &[usize],
        raw: Vec<u8>,
    ) -> Value {
        let attributes = format!(
            "element_type=\"{data_type}\" offset=\"{}\" size=\"{}\"",
            self.bin.len(),
            raw.len()
        );
        self.bin.extend(raw);
        self.op_of_type("Const", &attributes, &[], dims, precision)
    }

    /// Adds a layer, whose output has the given shape and element type. Without `output` (operation
    /// `Result`) the returned value must not be used.
    fn layer(
        &mut self,
        kind: &str,
        attributes: &str,
        inputs: &[&Value],
        output: Option<(&[usize], &'static str)>,
    ) -> Value {
        let id = self.layer_count;
        self.layer_count += 1;
        let port = |id: usize, dims: &[usize], precision: &str| {
            let dims: String = dims.iter().map(|d| format!("<dim>{d}</dim>")).collect();
            format!("<port id=\"{id}\" precision=\"{precision}\">{dims}</port>")
        };
        let ins: String = inputs
            .iter()
            .enumerate()
            .map(|(i, v)| port(i, &v.dims, v.precision))
            .collect();
        let out = output.map_or(String::new(), |(dims, precision)| {
            format!("<output>{}</output>", port(inputs.len(), dims, precision))
        });
        let ins = if ins.is_empty() {
            ins
        } else {
            format!("<input>{ins}</input>")
        };
        self.layers_xml += &format!(
            "<layer id=\"{id}\" name=\"layer{id}\" type=\"{kind}\" version=\"opset1\">\
             <data {attributes}/>{ins}{out}</layer>"
        );
        for (to, v) in inputs.iter().enumerate() {
            self.edges_xml += &format!(
                "<edge from-layer=\"{}\" from-port=\"{}\" to-layer=\"{id}\" to-port=\"{to}\"/>",
                v.layer, v.port
            );
        }
        let (dims, precision) = output.unwrap_or((&[], "FP32"));
        Value {
            layer: id,
            port: inputs.len(),
            dims: dims.to_vec(),
            precision,
        }
    }
}

/// The bits of `v` as float16. `v` must be 0 or a number that a normal float16 represents exactly.
fn float16_bits(v: f32) -> u16 {
    let bits = v.to_bits();
    let sign = (bits >> 16) as u16 & 0x8000;
    if v == 0.0 {
        sign
    } else {
        sign | (((bits >> 23 & 0xff) as u16 + 15 - 127) << 10) | (bits >> 13 & 0x3ff) as u16
    }
}
