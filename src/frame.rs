//! A frame of the pipeline, its pixels, and the states of its camera.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::time::{Seconds, WallTime};

/// An image: BGR, 8 bits per channel, rows of `stride` bytes. Clones share the pixels.
#[derive(Debug, Clone)]
pub struct Image {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Bytes from one row to the next, at least 3 times the width.
    pub stride: usize,
    /// The bytes: at least `stride * (height - 1) + 3 * width`.
    pub data: Arc<[u8]>,
    /// Pixel aspect ratio, width divided by height. It is 1 except in anamorphic video, whose
    /// stored and displayed proportions differ.
    pub pixel_aspect: f32,
}

/// Sizes of an image, (width, height).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Stored size in pixels; boxes are in these units.
    pub stored: (u32, u32),
    /// Display size, in square pixels, with the stored height. Images are scaled to these
    /// proportions for the networks.
    pub shown: (u32, u32),
}

impl Shape {
    /// The shape of an image with square pixels.
    pub fn square(width: u32, height: u32) -> Self {
        Shape {
            stored: (width, height),
            shown: (width, height),
        }
    }
}

impl Image {
    /// An image of packed BGR bytes (stride = 3 times the width).
    ///
    /// # Panics
    /// When the length of `data` is not 3 * width * height.
    pub fn packed(width: u32, height: u32, data: Arc<[u8]>) -> Self {
        assert_eq!(
            data.len(),
            3 * width as usize * height as usize,
            "packed BGR pixels of a {width}x{height} image"
        );
        Image {
            width,
            height,
            stride: 3 * width as usize,
            data,
            pixel_aspect: 1.0,
        }
    }

    /// Sets the pixel aspect ratio. Implausible values (outside 1:4 to 4:1) are replaced by 1.
    pub fn with_pixel_aspect(self, pixel_aspect: f32) -> Self {
        let pixel_aspect = if (0.25..=4.0).contains(&pixel_aspect) {
            pixel_aspect
        } else {
            1.0
        };
        Image {
            pixel_aspect,
            ..self
        }
    }

    /// The stored and the display size.
    pub fn shape(&self) -> Shape {
        let width = (self.width as f32 * self.pixel_aspect).round().max(1.0) as u32;
        Shape {
            stored: (self.width, self.height),
            shown: (width, self.height),
        }
    }

    /// Row `y` as packed BGR bytes.
    pub fn row(&self, y: usize) -> &[u8] {
        &self.data[y * self.stride..y * self.stride + 3 * self.width as usize]
    }
}

/// The state of a camera.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "serve", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum CameraState {
    /// Being opened, or opened again.
    Connecting,
    /// Delivers frames.
    Online,
    /// Cannot be reached, or was interrupted; will be opened again.
    Offline,
    /// Delivers no more frames.
    Ended,
}

/// One frame of one camera.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Name of the camera.
    pub camera: Arc<str>,
    /// Frame number within the camera, from 1 (as in MOTChallenge).
    pub number: u64,
    /// Presentation time.
    pub pts: Seconds,
    /// Wall-clock time at which the frame was taken, if known.
    pub time: Option<WallTime>,
    /// Width of the source frame in pixels.
    pub width: u32,
    /// Height of the source frame in pixels.
    pub height: u32,
    /// The pixels; None for a MOTChallenge sequence without images.
    pub image: Option<Image>,
    /// Restart mark: before this frame the stream was interrupted for too long, or the frame size
    /// changed. All tracks end here.
    pub restart: bool,
}

impl Frame {
    /// The stored and the display size; square pixels are assumed if there are no pixels.
    pub fn shape(&self) -> Shape {
        self.image
            .as_ref()
            .map_or_else(|| Shape::square(self.width, self.height), Image::shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pixel_aspect_changes_the_display_size_only() {
        let image = |aspect| {
            Image::packed(96, 108, vec![0; 3 * 96 * 108].into())
                .with_pixel_aspect(aspect)
                .shape()
        };
        assert_eq!(
            image(2.0),
            Shape {
                stored: (96, 108),
                shown: (192, 108)
            }
        );
        assert_eq!(image(0.0), Shape::square(96, 108), "unknown");
        assert_eq!(image(f32::NAN), Shape::square(96, 108));
    }
}
