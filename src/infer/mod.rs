//! ONNX Runtime: finding and loading the library, opening models, turning pixels into tensors.

mod batch;
mod element_type;
pub mod error;
pub mod metadata;
pub mod paths;
pub mod pixels;
pub mod runtime;
pub mod session;
pub mod size;
pub mod tensor;

pub use error::InferError;
pub use metadata::ModelMetadata;
pub use pixels::{ColorOrder, PixelFormat};
pub use runtime::{Device, Provider, Runtime};
pub use session::{Model, Output, SessionOptions};
pub use size::InputSize;
