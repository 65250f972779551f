//! OpenVINO's intermediate representation as it lies on disk: layers with attributes, ports and edges in XML, constants in a
//! binary beside it (docs.openvino.ai, "OpenVINO IR format", versions 10 and 11).

use std::collections::BTreeMap;

use roxmltree::{Document, Node};

/// A network.
#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    /// Its layers, each after those whose values it reads.
    pub layers: Vec<Layer>,
}

/// Type of a value's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// float32.
    F32,
    /// float16.
    F16,
    /// int64.
    I64,
    /// int32.
    I32,
}

impl Element {
    fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "f32" | "fp32" => Some(Element::F32),
            "f16" | "fp16" => Some(Element::F16),
            "i64" => Some(Element::I64),
            "i32" => Some(Element::I32),
            _ => None,
        }
    }

    /// Bytes of one.
    pub fn bytes(self) -> usize {
        match self {
            Element::I64 => 8,
            Element::F32 | Element::I32 => 4,
            Element::F16 => 2,
        }
    }
}

/// A value that a layer makes.
#[derive(Debug, Clone, PartialEq)]
pub struct Value {
    /// Name, unique in the network.
    pub name: String,
    /// Shape.
    pub dims: Vec<usize>,
    /// Type of its elements.
    pub element: Element,
}

/// One operation.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// Name of the layer.
    pub name: String,
    /// Operation, as `Convolution`.
    pub kind: String,
    /// Attributes.
    pub data: BTreeMap<String, String>,
    /// What it reads.
    pub inputs: Vec<Value>,
    /// What it makes.
    pub outputs: Vec<Value>,
}

impl Network {
    /// Reads the XML.
    ///
    /// # Errors
    /// When it is no XML, no IR of version 10 or 11, or its edges lead nowhere; says which.
    pub fn parse(xml: &str) -> Result<Self, String> {
        let document = Document::parse(xml).map_err(|e| format!("it is no XML: {e}"))?;
        let net = document.root_element();
        if !net.has_tag_name("net") || !matches!(net.attribute("version"), Some("10" | "11")) {
            return Err(format!(
                "it is <{} version=\"{}\">, not OpenVINO IR of version 10 or 11",
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
                        "nothing before it leads to the input {} of the layer '{name}'",
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
            layers.push(Layer {
                name: name.into(),
                kind: kind.into(),
                data,
                inputs,
                outputs,
            });
        }
        Ok(Network { layers })
    }
}

/// The value of an output port; a layer's second and later ones have their number behind the name.
fn output(port: Node<'_, '_>, layer: &str, place: usize) -> Result<Value, String> {
    let dims = port
        .children()
        .filter(|c| c.has_tag_name("dim"))
        .map(|d| d.text().unwrap_or_default().trim().parse());
    let dims = dims
        .collect::<Result<Vec<usize>, _>>()
        .map_err(|_| "its output has sides that are no numbers (a dynamic shape?)".to_string())?;
    let precision = port.attribute("precision").unwrap_or_default();
    let element = Element::parse(precision)
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

impl Layer {
    /// An attribute.
    ///
    /// # Errors
    /// When it is not there.
    pub fn text(&self, key: &str) -> Result<&str, String> {
        self.data
            .get(key)
            .map(String::as_str)
            .ok_or_else(|| format!("it has no attribute '{key}'"))
    }

    /// Whether a yes-or-no attribute is yes; `default` where it is absent.
    pub fn flag(&self, key: &str, default: bool) -> bool {
        self.data
            .get(key)
            .map_or(default, |v| v == "true" || v == "1")
    }

    /// Whole numbers separated by commas.
    ///
    /// # Errors
    /// When they are not there, or no numbers.
    pub fn numbers(&self, key: &str) -> Result<Vec<i64>, String> {
        let text = self.text(key)?;
        let parts = text.split(',').map(str::trim).filter(|p| !p.is_empty());
        parts
            .map(|p| {
                p.parse()
                    .map_err(|_| format!("its attribute {key} = '{text}' is not whole numbers"))
            })
            .collect()
    }

    /// An offset or length in the binary.
    ///
    /// # Errors
    /// When it is not there, or no such number.
    pub fn number_of_bytes(&self, key: &str) -> Result<usize, String> {
        let text = self.text(key)?;
        text.parse()
            .map_err(|_| format!("its attribute {key} = '{text}' is no number of bytes"))
    }

    /// A number.
    ///
    /// # Errors
    /// When it is not there, or none.
    pub fn number(&self, key: &str) -> Result<f32, String> {
        let text = self.text(key)?;
        text.parse()
            .map_err(|_| format!("its attribute {key} = '{text}' is no number"))
    }

    /// What it reads at a place.
    ///
    /// # Errors
    /// When it has fewer inputs.
    pub fn input(&self, place: usize) -> Result<&Value, String> {
        self.inputs.get(place).ok_or_else(|| {
            format!(
                "it has {} inputs where at least {} are needed",
                self.inputs.len(),
                place + 1
            )
        })
    }

    /// The first value it makes.
    ///
    /// # Errors
    /// When it makes none.
    pub fn output(&self) -> Result<&Value, String> {
        self.outputs
            .first()
            .ok_or_else(|| "it makes no value".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_ir_is_told() {
        assert!(Network::parse("<net").unwrap_err().contains("no XML"));
        assert!(
            Network::parse("<model version=\"11\"/>")
                .unwrap_err()
                .contains("<model version=\"11\">")
        );
        assert!(
            Network::parse("<net version=\"7\"/>")
                .unwrap_err()
                .contains("10 or 11")
        );
    }

    #[test]
    fn an_edge_from_nowhere_is_told() {
        let xml = "<net version=\"11\"><layers><layer id=\"1\" name=\"r\" type=\"ReLU\"><input><port id=\"0\"/></input></layer></layers><edges/></net>";
        assert!(
            Network::parse(xml)
                .unwrap_err()
                .contains("input 0 of the layer 'r'")
        );
    }

    #[test]
    fn a_free_side_and_an_unknown_type_are_told() {
        let layer = |port: &str| {
            Network::parse(&format!(
                "<net version=\"11\"><layers><layer id=\"0\" name=\"x\" type=\"Parameter\"><output>{port}</output></layer></layers><edges/></net>"
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
                .expect("right")
                .layers[0]
                .outputs[0]
                .dims,
            [3]
        );
    }
}
