//! Person detection: scaling frames, running the network, decoding its outputs by their layout,
//! non-maximum suppression.

mod atss;
pub(crate) mod batch_outputs;
pub(crate) mod decode;
pub mod detector;
pub(crate) mod infer_format;
pub mod layout;
pub mod letterbox;
mod nanodet;
pub mod nms;
pub mod precision;

pub use detector::{Detector, DetectorConfig, DetectorFormat};
pub use infer_format::Decision;
pub use layout::Layout;
pub use letterbox::Letterbox;
pub use precision::Precision;
