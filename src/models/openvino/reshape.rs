//! Layers that compute, change or join shapes.

use super::Importer;
use crate::models::ir::{ElementType, IrLayer};
use crate::onnx::Attribute;
use crate::onnx::proto::INT64;

impl Importer<'_> {
    pub(super) fn reshape(&mut self, layer: &IrLayer) -> Result<(), String> {
        let (data, shape, name) = (layer.input(0)?, layer.input(1)?, &layer.output()?.name);
        let zeros = [(
            "allowzero",
            Attribute::Int(i64::from(!layer.flag("special_zero", false))),
        )];
        let shape = if shape.element == ElementType::I64 {
            shape.name.clone()
        } else {
            self.graph.node(
                "Cast",
                &[&shape.name],
                &format!("{name}.shape"),
                &[("to", Attribute::Int(i64::from(INT64)))],
            )
        };
        self.graph
            .node("Reshape", &[&data.name, &shape], name, &zeros);
        Ok(())
    }

    pub(super) fn shape_of(&mut self, layer: &IrLayer) -> Result<(), String> {
        if layer.output()?.element != ElementType::I64 {
            return Err("only an output of int64 is supported".into());
        }
        self.unary("Shape", layer)
    }

    pub(super) fn gather(&mut self, layer: &IrLayer) -> Result<(), String> {
        if layer.data.get("batch_dims").is_some_and(|b| b != "0") {
            return Err("batch_dims other than 0 are not supported".into());
        }
        let [axis] = *self.integers_at(layer, 2, "axes")? else {
            return Err("it needs one axis".into());
        };
        self.node("Gather", layer, 2, &[("axis", Attribute::Int(axis))])
    }

    pub(super) fn concat(&mut self, layer: &IrLayer) -> Result<(), String> {
        let axis = layer
            .numbers("axis")?
            .first()
            .copied()
            .ok_or("it needs an axis")?;
        self.node(
            "Concat",
            layer,
            layer.inputs.len(),
            &[("axis", Attribute::Int(axis))],
        )
    }

    pub(super) fn transpose(&mut self, layer: &IrLayer) -> Result<(), String> {
        let order = self.integers_at(layer, 1, "axes")?.to_vec();
        self.node("Transpose", layer, 1, &[("perm", Attribute::Ints(order))])
    }
}
