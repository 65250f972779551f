//! Frames in, people out: scale, run the network, read its output layout, suppress duplicates.

pub mod detector;
pub mod heads;
pub mod letterbox;
mod nanodet;
pub mod nms;

pub use detector::{Detector, DetectorConfig, Precision};
pub use heads::Layout;
pub use letterbox::Letterbox;
