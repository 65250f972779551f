//! The input of a model that takes pictures.

use ort::value::{Outlet, TensorElementType, ValueType};

use crate::infer::element_type;

/// The input that takes pictures.
pub(super) struct PictureInput {
    pub name: String,
    pub element: TensorElementType,
    /// N, C, H, W; `None` where free.
    pub dims: [Option<usize>; 4],
    /// Whether the model also has the input [`SIZES`], by which it scales its boxes (D-FINE,
    /// RT-DETR).
    pub wants_sizes: bool,
}

/// The second input of DETR-like exports: [N, 2] int64, width and height.
pub(super) const SIZES: &str = "orig_target_sizes";

/// The picture input among a model's inputs; the error says why there is none.
pub(super) fn picture_input(inputs: &[Outlet]) -> Result<PictureInput, String> {
    let (pictures, others): (Vec<&Outlet>, Vec<&Outlet>) =
        inputs.iter().partition(|i| i.name() != SIZES);
    let [input] = pictures.as_slice() else {
        let all: Vec<String> = pictures
            .iter()
            .map(|i| format!("'{}' {}", i.name(), i.dtype()))
            .collect();
        let all = all.join(", ");
        return Err(format!(
            "it has the inputs {all}, where one picture input [N, 3, H, W] is needed"
        ));
    };
    let wanted = "where [N, 3, H, W] of float32 or float16 is needed";
    let (element, shape) = match input.dtype() {
        ValueType::Tensor { ty, shape, .. } if element_type::takes_pictures(*ty) => (*ty, shape),
        other => return Err(format!("its input '{}' is {other}, {wanted}", input.name())),
    };
    let dims: Vec<Option<usize>> = shape
        .iter()
        .map(|&d| usize::try_from(d).ok().filter(|d| *d > 0))
        .collect();
    match <[Option<usize>; 4]>::try_from(dims) {
        Ok(dims) if dims[1].is_none_or(|c| c == 3) => {
            let name = input.name().to_string();
            Ok(PictureInput {
                name,
                element,
                dims,
                wants_sizes: !others.is_empty(),
            })
        }
        _ => Err(format!(
            "its input '{}' has shape {:?}, {wanted}",
            input.name(),
            shape.to_vec()
        )),
    }
}
