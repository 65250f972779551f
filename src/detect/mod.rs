//! Frames in, people out: scale, run the network, read its output layout, suppress duplicates.

mod atss;
mod choice;
pub(crate) mod decide;
pub mod detector;
pub(crate) mod heads;
pub mod layout;
pub mod letterbox;
mod nanodet;
pub mod nms;

pub use decide::Decided;
pub use detector::{Detector, DetectorConfig, Precision, Reading};
pub use layout::Layout;
pub use letterbox::Letterbox;
