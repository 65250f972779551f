//! A frame on its way through the pipeline: who took it, when, and its pixels.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::time::{Seconds, WallTime};

/// Pixels of one picture: BGR, 8 bits a channel, rows of `stride` bytes. Cloning shares them.
#[derive(Debug, Clone)]
pub struct Image {
    /// Width, pixels.
    pub width: u32,
    /// Height, pixels.
    pub height: u32,
    /// Bytes from one row to the next, at least 3 times the width.
    pub stride: usize,
    /// The bytes, at least `stride * (height - 1) + 3 * width` of them.
    pub data: Arc<[u8]>,
}

impl Image {
    /// A picture from packed BGR bytes (stride = 3 times the width).
    ///
    /// # Panics
    /// When `data` is not exactly 3 * width * height long.
    pub fn packed(width: u32, height: u32, data: Arc<[u8]>) -> Self {
        assert_eq!(data.len(), 3 * width as usize * height as usize, "packed BGR pixels of a {width}x{height} picture");
        Image { width, height, stride: 3 * width as usize, data }
    }

    /// Row `y` as packed BGR bytes.
    pub fn row(&self, y: usize) -> &[u8] {
        &self.data[y * self.stride..y * self.stride + 3 * self.width as usize]
    }
}

/// How a camera stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CameraState {
    /// Not opened yet, or being opened again.
    Connecting,
    /// It gives frames.
    Online,
    /// It does not answer, or broke off; it is tried again.
    Offline,
    /// Nothing more will come.
    Ended,
}

/// One frame of one camera.
#[derive(Debug, Clone)]
pub struct Frame {
    /// The camera's short name.
    pub camera: Arc<str>,
    /// Sequence number within the camera, from 1, as MOTChallenge counts.
    pub number: u64,
    /// Presentation time on the stream's own clock.
    pub pts: Seconds,
    /// Wall-clock time at which it was taken, where that is known.
    pub time: Option<WallTime>,
    /// Width of the source frame, pixels.
    pub width: u32,
    /// Height of the source frame, pixels.
    pub height: u32,
    /// The pixels; absent when a MOTChallenge folder comes without its pictures.
    pub image: Option<Image>,
    /// The stream was interrupted for so long before this frame, or its size has changed, that who was seen before says
    /// nothing about who is seen now.
    pub restart: bool,
}
