//! Options with which sessions are opened.

use crate::infer::device::{Device, Preprocessing};

/// Options for opening a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionOptions {
    /// Device to run on.
    pub device: Device,
    /// Number of CPU threads inside one operator.
    pub threads: usize,
    /// Processor that scales frames and cuts crops.
    pub preprocessing: Preprocessing,
}

impl SessionOptions {
    /// Options for a device and a number of CPU threads inside one operator.
    pub const fn new(device: Device, threads: usize) -> Self {
        SessionOptions {
            device,
            threads,
            preprocessing: Preprocessing::Auto,
        }
    }

    /// Sets where frames are scaled and crops are cut.
    pub const fn with_preprocessing(self, preprocessing: Preprocessing) -> Self {
        SessionOptions {
            preprocessing,
            ..self
        }
    }
}
