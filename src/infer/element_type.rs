//! Element types of tensors: converts between float32, which the program uses, and the types of a
//! file.

use half::f16;
use ndarray::{ArrayD, ArrayView4};
use ort::session::SessionInputValue;
use ort::value::{DynValueRef, Outlet, Tensor, TensorElementType, TensorRef, ValueType};

/// Element types that a picture input may have.
const PICTURES: [TensorElementType; 2] = [TensorElementType::Float32, TensorElementType::Float16];
/// Element types that an output may have.
const OUTPUTS: [TensorElementType; 5] = [
    TensorElementType::Float32,
    TensorElementType::Float16,
    TensorElementType::Int64,
    TensorElementType::Int32,
    TensorElementType::Float64,
];

/// Whether an input of this type accepts pictures.
pub(super) fn takes_pictures(element: TensorElementType) -> bool {
    PICTURES.contains(&element)
}

/// Whether an output can be converted to float32; strings, sequences and booleans cannot.
pub(super) fn is_readable(output: &Outlet) -> bool {
    matches!(output.dtype(), ValueType::Tensor { ty, .. } if OUTPUTS.contains(ty))
}

/// Converts pictures to `element`, one of the types that [`takes_pictures`] accepts.
pub(super) fn pictures<'a>(
    batch: ArrayView4<'a, f32>,
    element: TensorElementType,
) -> ort::Result<SessionInputValue<'a>> {
    if element == TensorElementType::Float16 {
        return Ok(Tensor::from_array(batch.mapv(f16::from_f32))?.into());
    }
    Ok(TensorRef::from_array_view(batch)?.into())
}

/// Converts an output's values to float32.
pub(super) fn floats(value: DynValueRef<'_>) -> ort::Result<ArrayD<f32>> {
    let element = match value.dtype() {
        ValueType::Tensor { ty, .. } => *ty,
        _ => TensorElementType::Float32,
    };
    match element {
        TensorElementType::Float16 => value
            .try_extract_array::<f16>()
            .map(|a| a.mapv(f16::to_f32)),
        TensorElementType::Int64 => value
            .try_extract_array::<i64>()
            .map(|a| a.mapv(|v| v as f32)),
        TensorElementType::Int32 => value
            .try_extract_array::<i32>()
            .map(|a| a.mapv(|v| v as f32)),
        TensorElementType::Float64 => value
            .try_extract_array::<f64>()
            .map(|a| a.mapv(|v| v as f32)),
        _ => value.try_extract_array::<f32>().map(|a| a.to_owned()),
    }
}
