//! ONNX Runtime at arm's length: find and load it, open models, turn pixels into tensors.

mod batch;
pub mod metadata;
mod numbers;
pub mod pixels;
pub mod places;
pub mod runtime;
pub mod session;
pub mod size;
pub mod tensor;

pub use metadata::ModelMetadata;
pub use pixels::{ColorOrder, PixelFormat};
pub use runtime::{Device, InferError, Provider, Runtime};
pub use session::{Model, Output, SessionOptions};
pub use size::InputSize;
