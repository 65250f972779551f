//! ONNX Runtime: finding and loading the library, opening and running models, converting pixels to
//! tensors.

mod batch;
mod bound;
mod device;
mod element_type;
pub mod error;
pub mod frame_loader;
mod graphs;
pub mod metadata;
mod open;
pub mod options;
mod output;
pub mod paths;
mod picture_input;
pub mod pixels;
pub mod runtime;
pub mod session;
mod shapes;
pub mod size;
pub mod tensor;

pub use device::{Device, Preprocessing, Provider};
pub use error::InferError;
pub use frame_loader::{Cropper, DeviceFrames, DevicePictures, FrameLoader, Placement};
pub use metadata::ModelMetadata;
pub use options::SessionOptions;
pub use output::Output;
pub use pixels::{ColorOrder, PixelFormat};
pub use runtime::Runtime;
pub use session::Model;
pub use size::InputSize;
