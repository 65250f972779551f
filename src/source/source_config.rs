//! How videos are decoded: by which decoder, and on how many threads.

use std::fmt;

use derive_setters::Setters;
use serde::{Deserialize, Serialize};

use crate::range::{OutOfRange, within};

/// Decoders in hardware that are tried before FFmpeg's own on the CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "serve", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Hardware {
    /// None.
    #[default]
    None,
    /// VA-API, then NVDEC.
    Auto,
    /// VA-API: graphics of Intel and AMD.
    Vaapi,
    /// NVDEC: NVIDIA's cards.
    Nvdec,
}

impl Hardware {
    /// The value of `OPENCV_FFMPEG_CAPTURE_OPTIONS` that lets OpenCV try these decoders, in order.
    /// By default OpenCV tries VA-API with Intel's driver only. The variable applies to all inputs
    /// of a process.
    pub fn ffmpeg_options(self) -> Option<String> {
        let devices = match self {
            Hardware::None => return None,
            Hardware::Auto => "vaapi,cuda",
            Hardware::Vaapi => "vaapi",
            Hardware::Nvdec => "cuda",
        };
        Some(format!("hw_decoders_any;{devices}"))
    }
}

impl fmt::Display for Hardware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Hardware::None => "none",
            Hardware::Auto => "auto",
            Hardware::Vaapi => "vaapi",
            Hardware::Nvdec => "nvdec",
        })
    }
}

/// How videos are decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, Setters)]
#[cfg_attr(feature = "serve", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct SourceConfig {
    /// Decoder in hardware: none, auto (VA-API, then NVDEC), vaapi or nvdec. Videos that it cannot
    /// decode are decoded on the CPU. Applies to all inputs of the process. Off by default,
    /// because decoding in hardware saves no time so far: the decoded frames (NV12) are copied from
    /// the decoder's memory and converted on the CPU, and this takes about as long as decoding on
    /// the CPU. Decoding in hardware has not been tested on a machine with such a decoder yet.
    pub hardware: Hardware,
    /// Threads of each decoder on the CPU; 0: one for a camera and for each recording of `serve`,
    /// otherwise one per core, at most 8. With n threads a decoder keeps n - 1 frames more in
    /// memory, and a camera's frames come n - 1 frames later.
    pub threads: usize,
}

/// More threads of a decoder would wait for the conversion to BGR, which takes one thread.
const MOST_BY_DEFAULT: usize = 8;

impl SourceConfig {
    /// Checks that every value is in its range.
    ///
    /// # Errors
    /// The first value outside its range.
    pub fn validate(&self) -> Result<(), OutOfRange> {
        within("source.threads", self.threads, 0, 64)
    }

    /// The settings for one of many inputs, or one whose frames must not be late: one thread by
    /// default.
    pub fn of_camera(self) -> Self {
        self.with_threads(self.threads.max(1))
    }

    /// Threads of a decoder; by default one per core, at most 8.
    pub fn decoder_threads(self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        match self.threads {
            0 => cores().min(MOST_BY_DEFAULT),
            threads => threads,
        }
    }
}
