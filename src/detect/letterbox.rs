//! Maps a frame's pixels to the network's input, and boxes back.

use crate::frame::Shape;
use crate::geometry::BBox;
use crate::infer::Placement;

/// Placement of a frame in the network's input: scaled, in the top left corner, the rest black.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Letterbox {
    /// Size of the network's input in pixels: width, height.
    pub input: (usize, usize),
    /// Size in pixels of the part that the frame fills: width, height.
    pub content: (usize, usize),
    /// Input pixels per source pixel: horizontally, vertically.
    scale: (f32, f32),
}

impl Letterbox {
    /// Fits a frame into an input of `input` (width, height) pixels, keeping its aspect ratio
    /// unless `stretch` is set.
    pub fn fit(frame: Shape, input: (usize, usize), stretch: bool) -> Self {
        let (fw, fh) = (frame.shown.0 as f32, frame.shown.1 as f32);
        let one = (input.0 as f32 / fw).min(input.1 as f32 / fh);
        let content = if stretch {
            input
        } else {
            (side(fw * one, input.0), side(fh * one, input.1))
        };
        let scale = (
            content.0 as f32 / frame.stored.0 as f32,
            content.1 as f32 / frame.stored.1 as f32,
        );
        Letterbox {
            input,
            content,
            scale,
        }
    }

    /// Chooses the input size for a network that accepts any multiple of `step`: the frame's shown
    /// size, scaled down so that its longer side is at most `longest`, rounded up to multiples of
    /// `step`.
    pub fn natural_input(frame: Shape, longest: usize, step: usize) -> (usize, usize) {
        let frame = frame.shown;
        let scale = (longest as f32 / frame.0.max(frame.1) as f32).min(1.0);
        let round = |v: u32| ((v as f32 * scale).round().max(1.0) as usize).div_ceil(step) * step;
        (round(frame.0), round(frame.1))
    }

    /// The placement alone.
    pub fn placement(&self) -> Placement {
        Placement {
            content: self.content,
            input: self.input,
        }
    }

    /// Maps a box from the network's input to pixels of the source frame.
    pub fn to_source(&self, b: &BBox) -> BBox {
        BBox::new(
            b.left / self.scale.0,
            b.top / self.scale.1,
            b.width / self.scale.0,
            b.height / self.scale.1,
        )
    }
}

fn side(length: f32, limit: usize) -> usize {
    (length.round() as usize).clamp(1, limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wide_frame_fills_the_width() {
        let l = Letterbox::fit(Shape::square(1920, 1080), (736, 416), false);
        assert_eq!(l.content, (736, 414));
        let b = l.to_source(&BBox::new(368.0, 207.0, 36.8, 73.6));
        assert!(
            (b.left - 960.0).abs() < 0.1
                && (b.top - 540.0).abs() < 0.1
                && (b.width - 96.0).abs() < 0.1
        );
    }

    #[test]
    fn stretching_fills_the_input() {
        let l = Letterbox::fit(Shape::square(1920, 1080), (640, 640), true);
        assert_eq!(l.content, (640, 640));
        assert!((l.to_source(&BBox::new(0.0, 0.0, 640.0, 640.0)).height - 1080.0).abs() < 0.1);
    }

    #[test]
    fn a_small_frame_is_not_enlarged() {
        assert_eq!(
            Letterbox::natural_input(Shape::square(768, 576), 768, 32),
            (768, 576)
        );
        assert_eq!(
            Letterbox::natural_input(Shape::square(320, 240), 768, 32),
            (320, 256)
        );
        assert_eq!(
            Letterbox::natural_input(Shape::square(1920, 1080), 768, 32),
            (768, 448)
        );
    }

    #[test]
    fn non_square_pixels_are_scaled_to_shape_and_boxes_use_stored_pixels() {
        let frame = Shape {
            stored: (960, 1080),
            shown: (1920, 1080),
        };
        assert_eq!(Letterbox::natural_input(frame, 768, 32), (768, 448));
        let l = Letterbox::fit(frame, (736, 416), false);
        assert_eq!(l.content, (736, 414));
        let b = l.to_source(&BBox::new(368.0, 0.0, 36.8, 207.0));
        assert!(
            (b.left - 480.0).abs() < 0.01
                && (b.width - 48.0).abs() < 0.01
                && (b.height - 540.0).abs() < 0.01,
            "{b:?}"
        );
    }
}
