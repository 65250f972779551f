//! Builds small networks in OpenVINO IR.
#![allow(dead_code, reason = "each test program uses a part of it")]

/// An output of a layer: its layer, port, shape and type.
pub struct Value {
    layer: usize,
    port: usize,
    dims: Vec<usize>,
    precision: &'static str,
}

/// A network under construction.
#[derive(Default)]
pub struct Ir {
    layers: String,
    edges: String,
    bin: Vec<u8>,
    count: usize,
}

/// Dimension of the embeddings of [`ir`].
pub const DIMENSION: usize = 4;

/// A small embedder of crops 16 pixels high and 8 wide; returns XML and binary.
pub fn ir() -> (String, Vec<u8>) {
    network(16, 8, |ir, x| {
        let (w, axes) = (
            ir.halves(
                &[DIMENSION, 3, 1, 1],
                &[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.5, -1.0, 0.5],
            ),
            ir.whole(&[2], &[2, 3]),
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

/// A network for crops of `height` by `width` pixels, whose output is flattened; returns XML and
/// binary.
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
        layers, edges, bin, ..
    } = ir;
    (
        format!(
            "<?xml version=\"1.0\"?><net name=\"fixture\" version=\"11\">\
             <layers>{layers}</layers><edges>{edges}</edges></net>"
        ),
        bin,
    )
}

impl Ir {
    /// Adds a layer with a float32 output.
    pub fn op(&mut self, kind: &str, data: &str, inputs: &[&Value], dims: &[usize]) -> Value {
        self.typed(kind, data, inputs, dims, "FP32")
    }

    /// Adds a layer with an output of the given type.
    pub fn typed(
        &mut self,
        kind: &str,
        data: &str,
        inputs: &[&Value],
        dims: &[usize],
        precision: &'static str,
    ) -> Value {
        self.layer(kind, data, inputs, Some((dims, precision)))
    }

    /// Flattens all dimensions but the first.
    pub fn flat(&mut self, x: &Value) -> Value {
        let shape = self.whole(&[2], &[0, -1]);
        self.op(
            "Reshape",
            "special_zero=\"true\"",
            &[x, &shape],
            &[1, x.dims.iter().product()],
        )
    }

    pub fn shape_of(&mut self, x: &Value) -> Value {
        self.typed(
            "ShapeOf",
            "output_type=\"i64\"",
            &[x],
            &[x.dims.len()],
            "I64",
        )
    }

    /// Adds a float16 constant followed by a conversion to float32, as OpenVINO's compression does.
    pub fn halves(&mut self, dims: &[usize], values: &[f32]) -> Value {
        let raw = self.constant(
            "f16",
            "FP16",
            dims,
            values.iter().flat_map(|v| half(*v).to_le_bytes()).collect(),
        );
        self.op("Convert", "destination_type=\"f32\"", &[&raw], dims)
    }

    pub fn whole(&mut self, dims: &[usize], values: &[i64]) -> Value {
        self.constant(
            "i64",
            "I64",
            dims,
            values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        )
    }

    pub fn whole32(&mut self, dims: &[usize], values: &[i32]) -> Value {
        self.constant(
            "i32",
            "I32",
            dims,
            values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        )
    }

    fn constant(
        &mut self,
        element: &str,
        precision: &'static str,
        dims: &[usize],
        raw: Vec<u8>,
    ) -> Value {
        let data = format!(
            "element_type=\"{element}\" offset=\"{}\" size=\"{}\"",
            self.bin.len(),
            raw.len()
        );
        self.bin.extend(raw);
        self.typed("Const", &data, &[], dims, precision)
    }

    fn layer(
        &mut self,
        kind: &str,
        data: &str,
        inputs: &[&Value],
        output: Option<(&[usize], &'static str)>,
    ) -> Value {
        let id = self.count;
        self.count += 1;
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
        self.layers += &format!(
            "<layer id=\"{id}\" name=\"layer{id}\" type=\"{kind}\" version=\"opset1\">\
             <data {data}/>{ins}{out}</layer>"
        );
        for (to, v) in inputs.iter().enumerate() {
            self.edges += &format!(
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

/// The bits of a float16, for numbers that it represents exactly.
fn half(v: f32) -> u16 {
    let bits = v.to_bits();
    let sign = (bits >> 16) as u16 & 0x8000;
    if v == 0.0 {
        sign
    } else {
        sign | (((bits >> 23 & 0xff) as u16 + 15 - 127) << 10) | (bits >> 13 & 0x3ff) as u16
    }
}
