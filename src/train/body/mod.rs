//! Convolutional networks: map crops [n, 3, h, w] (RGB in [0, 1]) to feature maps at an eighth or a
//! sixteenth of the crop's size.

pub mod conv;
pub mod mobile;
pub mod omni;
pub mod registry;
pub mod residual;
pub mod tiny;

pub use registry::{Body, Network};
