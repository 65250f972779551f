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
    /// Width of a pixel over its height: 1 but in anamorphic recordings, whose pictures are stored narrower than shown.
    pub pixel_aspect: f32,
}

/// Size of a picture in two units, (width, height).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// As stored, pixels: the unit of all boxes.
    pub stored: (u32, u32),
    /// As shown, in square pixels of the stored height: the true proportions, which networks expect.
    pub shown: (u32, u32),
}

impl Shape {
    /// A picture of square pixels.
    pub fn square(width: u32, height: u32) -> Self {
        Shape {
            stored: (width, height),
            shown: (width, height),
        }
    }
}

impl Image {
    /// A picture from packed BGR bytes (stride = 3 times the width).
    ///
    /// # Panics
    /// When `data` is not exactly 3 * width * height long.
    pub fn packed(width: u32, height: u32, data: Arc<[u8]>) -> Self {
        assert_eq!(
            data.len(),
            3 * width as usize * height as usize,
            "packed BGR pixels of a {width}x{height} picture"
        );
        Image {
            width,
            height,
            stride: 3 * width as usize,
            data,
            pixel_aspect: 1.0,
        }
    }

    /// The same picture with pixels of another shape; one that no recorder makes (beyond 1:4 and 4:1) is not believed.
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

    /// Its size, as stored and as shown.
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

impl Frame {
    /// Its size, as stored and as shown; square pixels where there is no picture.
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
    fn the_shape_of_pixels_changes_what_is_shown_not_what_is_stored() {
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
