//! ONNX Runtime: finding and loading the library, opening models, turning pixels into tensors.

mod batch;
mod device;
mod element_type;
pub mod error;
pub mod metadata;
mod output;
pub mod paths;
pub mod pixels;
pub mod runtime;
pub mod session;
pub mod size;
pub mod tensor;

pub use device::{Device, Provider};
pub use error::InferError;
pub use metadata::ModelMetadata;
pub use output::Output;
pub use pixels::{ColorOrder, PixelFormat};
pub use runtime::Runtime;
pub use session::{Model, SessionOptions};
pub use size::InputSize;
