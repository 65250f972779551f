//! The networks that look at texture: from crops [n, 3, h, w] (RGB in [0, 1]) to maps of an eighth or a sixteenth of their size.

pub mod conv;
pub mod mobile;
pub mod omni;
pub mod registry;
pub mod residual;
pub mod tiny;

pub use registry::{Body, Network};
