//! Person detection: scaling frames, running the network, decoding its outputs by their layout,
//! non-maximum suppression.

mod atss;
mod auto_or;
pub(crate) mod batch_outputs;
pub(crate) mod decide;
pub mod detector;
pub(crate) mod heads;
pub mod layout;
pub mod letterbox;
mod nanodet;
pub mod nms;

pub use decide::Decision;
pub use detector::{Detector, DetectorConfig, DetectorFormat, Precision};
pub use layout::Layout;
pub use letterbox::Letterbox;
