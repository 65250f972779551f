//! ONNX Runtime at arm's length: find and load it, open models, turn pixels into tensors.

pub mod metadata;
pub mod places;
pub mod runtime;
pub mod session;
pub mod size;
pub mod tensor;

pub use metadata::ModelMetadata;
pub use runtime::{Device, InferError, Provider, Runtime};
pub use session::{Model, Output, SessionOptions};
pub use size::InputSize;
pub use tensor::{ColorOrder, PixelFormat};
