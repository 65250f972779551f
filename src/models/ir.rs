//! Parser of OpenVINO's intermediate representation (docs.openvino.ai, "OpenVINO IR format",
//! versions 10 and 11): an XML file of layers with attributes, ports and edges, and a .bin file
//! with their constants.

use std::collections::BTreeMap;

use roxmltree::{Document, Node};

/// A parsed network.
#[derive(Debug, Clone, PartialEq)]
pub struct IrNetwork {
    /// The layers in topological order.
    pub layers: Vec<IrLayer>,
}

/// Element type of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ElementType {
    /// float32.
    F32,
    /// float16.
    F16,
    /// int64.
    I64,
    /// int32.
    I32,
}

impl ElementType {
    fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "f32" | "fp32" => Some(ElementType::F32),
            "f16" | "fp16" => Some(ElementType::F16),
            "i64" => Some(ElementType::I64),
            "i32" => Some(ElementType::I32),
            _ => None,
        }
    }

    /// Size of one element in bytes.
    pub fn bytes(self) -> usize {
        match self {
            ElementType::I64 => 8,
            ElementType::F32 | ElementType::I32 => 4,
            ElementType::F16 => 2,
        }
    }
}

/// Output of a layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Value {
    /// Name, unique in the network.
    pub name: String,
    /// Shape.
    pub dims: Vec<usize>,
    /// Element type.
    pub element: ElementType,
}

/// One operation.
#[derive(Debug, Clone, PartialEq)]
pub struct IrLayer {
    /// Name of the layer.
    pub name: String,
    /// Operation, such as `Convolution`.
    pub kind: String,
    /// Attributes.
    pub data: BTreeMap<String, String>,
    /// Values read.
    pub inputs: Vec<Value>,
    /// Values computed.
    pub outputs: Vec<Value>,
}

impl IrNetwork {
    /// Parses the XML.
    ///
    /// # Errors
    /// Fails when the text is not XML, is not IR of version 10 or 11, or a layer lacks an
    /// attribute, has an input without an edge from an earlier layer, or has an output of an
    /// unsupported type or a dynamic shape; the message names the layer.
    pub fn parse(xml: &str) -> Result<Self, String> {
        let document = Document::parse(xml).map_err(|e| format!("not valid XML: {e}"))?;
        let net = document.root_element();
        if !net.has_tag_name("net") || !matches!(net.attribute("version"), Some("10" | "11")) {
            return Err(format!(
                "the root element is <{} version=\"{}\">, not OpenVINO IR of version 10 or 11",
                net.tag_name().name(),
                net.attribute("version").unwrap_or("")
            ));
        }
        let edges: BTreeMap<(&str, &str), (&str, &str)> = children(net, "edges")
            .filter_map(|e| {
                Some((
                    (e.attribute("to-layer")?, e.attribute("to-port")?),
                    (e.attribute("from-layer")?, e.attribute("from-port")?),
                ))
            })
            .collect();
        let mut made: BTreeMap<(&str, &str), Value> = BTreeMap::new();
        let mut layers = Vec::new();
        for node in children(net, "layers") {
            let attribute = |key| {
                node.attribute(key)
                    .ok_or_else(|| format!("a layer has no attribute '{key}'"))
            };
            let (id, name, kind) = (attribute("id")?, attribute("name")?, attribute("type")?);
            let data = child(node, "data")
                .into_iter()
                .flat_map(|d| d.attributes())
                .map(|a| (a.name().to_string(), a.value().to_string()))
                .collect();
            let mut inputs = Vec::new();
            for port in children(node, "input") {
                let to = (id, port.attribute("id").unwrap_or_default());
                let value = edges.get(&to).and_then(|from| made.get(from));
                inputs.push(value.cloned().ok_or_else(|| {
                    format!(
                        "no earlier layer is connected to the input {} of the layer '{name}'",
                        to.1
                    )
                })?);
            }
            let mut outputs = Vec::new();
            for port in children(node, "output") {
                let value = output(port, &format!("{name}_{id}"), outputs.len())
                    .map_err(|problem| format!("the layer '{name}' ({kind}): {problem}"))?;
                made.insert(
                    (id, port.attribute("id").unwrap_or_default()),
                    value.clone(),
                );
                outputs.push(value);
            }
            layers.push(IrLayer {
                name: name.into(),
                kind: kind.into(),
                data,
                inputs,
                outputs,
            });
        }
        Ok(IrNetwork { layers })
    }
}

/// The value of an output port. The names of a layer's second and later outputs have their number
/// appended.
fn output(port: Node<'_, '_>, layer: &str, place: usize) -> Result<Value, String> {
    let dims = port
        .children()
        .filter(|c| c.has_tag_name("dim"))
        .map(|d| d.text().unwrap_or_default().trim().parse());
    let dims = dims
        .collect::<Result<Vec<usize>, _>>()
        .map_err(|_| "its output has a side that is not a number (a dynamic shape?)".to_string())?;
    let precision = port.attribute("precision").unwrap_or_default();
    let element = ElementType::parse(precision)
        .ok_or_else(|| format!("elements of type '{precision}' are not supported"))?;
    Ok(Value {
        name: if place == 0 {
            layer.into()
        } else {
            format!("{layer}.{place}")
        },
        dims,
        element,
    })
}

fn child<'a, 'i>(node: Node<'a, 'i>, tag: &str) -> Option<Node<'a, 'i>> {
    node.children().find(|c| c.has_tag_name(tag))
}

/// Elements inside the child `tag`.
fn children<'a, 'i>(node: Node<'a, 'i>, tag: &str) -> impl Iterator<Item = Node<'a, 'i>> {
    child(node, tag)
        .into_iter()
        .flat_map(|c| c.children())
        .filter(|c| c.is_element())
}

impl IrLayer {
    /// Text of an attribute.
    ///
    /// # Errors
    /// Fails when it is absent.
    pub fn text(&self, key: &str) -> Result<&str, String> {
        self.data
            .get(key)
            .map(String::as_str)
            .ok_or_else(|| format!("attribute '{key}' is missing"))
    }

    /// Value of a boolean attribute; `default` if absent.
    pub fn flag(&self, key: &str, default: bool) -> bool {
        self.data
            .get(key)
            .map_or(default, |v| v == "true" || v == "1")
    }

    /// Value of an attribute of integers separated by commas.
    ///
    /// # Errors
    /// Fails when it is absent or malformed.
    pub fn numbers(&self, key: &str) -> Result<Vec<i64>, String> {
        let text = self.text(key)?;
        let parts = text.split(',').map(str::trim).filter(|p| !p.is_empty());
        parts
            .map(|p| {
                p.parse()
                    .map_err(|_| format!("attribute {key} = '{text}' is not a list of integers"))
            })
            .collect()
    }

    /// Value of an attribute that is an offset or length in the .bin file.
    ///
    /// # Errors
    /// Fails when it is absent or malformed.
    pub fn number_of_bytes(&self, key: &str) -> Result<usize, String> {
        let text = self.text(key)?;
        text.parse()
            .map_err(|_| format!("attribute {key} = '{text}' is not a number of bytes"))
    }

    /// Value of a numeric attribute.
    ///
    /// # Errors
    /// Fails when it is absent or malformed.
    pub fn number(&self, key: &str) -> Result<f32, String> {
        let text = self.text(key)?;
        text.parse()
            .map_err(|_| format!("attribute {key} = '{text}' is not a number"))
    }

    /// The input at index `place`.
    ///
    /// # Errors
    /// Fails when the layer has fewer inputs.
    pub fn input(&self, place: usize) -> Result<&Value, String> {
        self.inputs.get(place).ok_or_else(|| {
            format!(
                "it has {} inputs, but at least {} are needed",
                self.inputs.len(),
                place + 1
            )
        })
    }

    /// The first output.
    ///
    /// # Errors
    /// Fails when there is none.
    pub fn output(&self) -> Result<&Value, String> {
        self.outputs
            .first()
            .ok_or_else(|| "it has no output".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_xml_is_rejected() {
        assert!(
            IrNetwork::parse("<net")
                .unwrap_err()
                .contains("not valid XML")
        );
        assert!(
            IrNetwork::parse("<model version=\"11\"/>")
                .unwrap_err()
                .contains("<model version=\"11\">")
        );
        assert!(
            IrNetwork::parse("<net version=\"7\"/>")
                .unwrap_err()
                .contains("10 or 11")
        );
    }

    #[test]
    fn an_unconnected_input_is_rejected() {
        let xml = "<net version=\"11\"><layers><layer id=\"1\" name=\"r\" type=\"ReLU\">\
                   <input><port id=\"0\"/></input></layer></layers><edges/></net>";
        assert!(
            IrNetwork::parse(xml)
                .unwrap_err()
                .contains("input 0 of the layer 'r'")
        );
    }

    #[test]
    fn a_dynamic_shape_and_an_unknown_type_are_rejected() {
        let layer = |port: &str| {
            IrNetwork::parse(&format!(
                "<net version=\"11\"><layers><layer id=\"0\" name=\"x\" type=\"Parameter\">\
                 <output>{port}</output></layer></layers><edges/></net>"
            ))
        };
        assert!(
            layer("<port id=\"0\" precision=\"FP32\"><dim>-1</dim></port>")
                .unwrap_err()
                .contains("dynamic")
        );
        assert!(
            layer("<port id=\"0\" precision=\"BF16\"><dim>1</dim></port>")
                .unwrap_err()
                .contains("'BF16'")
        );
        assert_eq!(
            layer("<port id=\"0\" precision=\"FP32\"><dim>3</dim></port>")
                .expect("valid")
                .layers[0]
                .outputs[0]
                .dims,
            [3]
        );
    }
}
