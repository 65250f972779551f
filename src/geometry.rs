//! Boxes, their overlap, and affine transforms (camera motion).

use serde::{Deserialize, Serialize};

/// An axis-aligned box: left, top, width, height in pixels of the source frame.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(into = "[f32; 4]", from = "[f32; 4]")]
pub struct BBox {
    /// Left edge in pixels.
    pub left: f32,
    /// Top edge in pixels.
    pub top: f32,
    /// Width in pixels; a valid box has more than zero.
    pub width: f32,
    /// Height in pixels; a valid box has more than zero.
    pub height: f32,
}

impl From<BBox> for [f32; 4] {
    fn from(b: BBox) -> Self {
        [b.left, b.top, b.width, b.height]
    }
}

impl From<[f32; 4]> for BBox {
    fn from([left, top, width, height]: [f32; 4]) -> Self {
        BBox {
            left,
            top,
            width,
            height,
        }
    }
}

impl BBox {
    /// A box from its left, top, width and height.
    pub const fn new(left: f32, top: f32, width: f32, height: f32) -> Self {
        BBox {
            left,
            top,
            width,
            height,
        }
    }

    /// A box from its centre and size.
    pub fn from_center(cx: f32, cy: f32, width: f32, height: f32) -> Self {
        BBox::new(cx - width / 2.0, cy - height / 2.0, width, height)
    }

    /// A box from its left, top, right and bottom edges.
    pub fn from_edges(left: f32, top: f32, right: f32, bottom: f32) -> Self {
        BBox::new(left, top, right - left, bottom - top)
    }

    /// Right edge in pixels.
    pub fn right(&self) -> f32 {
        self.left + self.width
    }

    /// Bottom edge in pixels.
    pub fn bottom(&self) -> f32 {
        self.top + self.height
    }

    /// Centre (x, y) in pixels.
    pub fn center(&self) -> (f32, f32) {
        (self.left + self.width / 2.0, self.top + self.height / 2.0)
    }

    /// Foot point (middle of the bottom edge) in pixels.
    pub fn foot(&self) -> (f32, f32) {
        (self.left + self.width / 2.0, self.bottom())
    }

    /// Area, square pixels.
    pub fn area(&self) -> f32 {
        self.width * self.height
    }

    /// Whether all numbers are finite, and width and height greater than zero.
    pub fn is_valid(&self) -> bool {
        [self.left, self.top, self.width, self.height]
            .iter()
            .all(|v| v.is_finite())
            && self.width > 0.0
            && self.height > 0.0
    }

    /// Area of the intersection with `other`, square pixels.
    pub fn intersection(&self, other: &BBox) -> f32 {
        let w = self.right().min(other.right()) - self.left.max(other.left);
        let h = self.bottom().min(other.bottom()) - self.top.max(other.top);
        w.max(0.0) * h.max(0.0)
    }

    /// Intersection over union, in [0, 1].
    pub fn iou(&self, other: &BBox) -> f32 {
        let shared = self.intersection(other);
        let union = self.area() + other.area() - shared;
        if union > 0.0 { shared / union } else { 0.0 }
    }

    /// The share of this box that `other` covers, in [0, 1].
    pub fn covered_by(&self, other: &BBox) -> f32 {
        if self.area() > 0.0 {
            (self.intersection(other) / self.area()).min(1.0)
        } else {
            0.0
        }
    }

    /// This box enlarged by `buffer` times its size on each side, so that boxes overlap even if the
    /// person moved further than predicted (buffered IoU; Yang et al. 2023, "Hard to track objects
    /// with irregular motions", C-BIoU).
    pub fn buffered(&self, buffer: f32) -> BBox {
        let (dx, dy) = (self.width * buffer, self.height * buffer);
        BBox::new(
            self.left - dx,
            self.top - dy,
            self.width + 2.0 * dx,
            self.height + 2.0 * dy,
        )
    }

    /// Linear interpolation of position and size: this box if `share` is 0, `other` if it is 1.
    pub fn mix(&self, other: &BBox, share: f32) -> BBox {
        let mix = |from: f32, to: f32| from + share * (to - from);
        BBox::new(
            mix(self.left, other.left),
            mix(self.top, other.top),
            mix(self.width, other.width),
            mix(self.height, other.height),
        )
    }

    /// The part inside a frame of `width` by `height` pixels; None if it is empty.
    pub fn clipped(&self, width: f32, height: f32) -> Option<BBox> {
        let b = BBox::from_edges(
            self.left.max(0.0),
            self.top.max(0.0),
            self.right().min(width),
            self.bottom().min(height),
        );
        b.is_valid().then_some(b)
    }
}

/// An affine transform of the image plane: x' = a x + b y + tx, y' = c x + d y + ty.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Affine {
    /// The linear part, row by row: a, b, c, d.
    pub linear: [f32; 4],
    /// The translation in pixels: tx, ty.
    pub shift: [f32; 2],
}

impl Affine {
    /// The identity transform.
    pub const IDENTITY: Affine = Affine {
        linear: [1.0, 0.0, 0.0, 1.0],
        shift: [0.0, 0.0],
    };

    /// Transforms the point (x, y).
    pub fn apply(&self, x: f32, y: f32) -> (f32, f32) {
        let [a, b, c, d] = self.linear;
        (a * x + b * y + self.shift[0], c * x + d * y + self.shift[1])
    }

    /// Transforms the vector (x, y), such as a velocity, by the linear part.
    pub fn apply_linear(&self, x: f32, y: f32) -> (f32, f32) {
        let [a, b, c, d] = self.linear;
        (a * x + b * y, c * x + d * y)
    }

    /// The mean scale factor of lengths: the square root of the determinant's absolute value.
    pub fn scale(&self) -> f32 {
        let [a, b, c, d] = self.linear;
        (a * d - b * c).abs().sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlap_of_known_boxes() {
        let a = BBox::new(0.0, 0.0, 10.0, 10.0);
        let b = BBox::new(5.0, 0.0, 10.0, 10.0);
        assert!((a.iou(&b) - 50.0 / 150.0).abs() < 1e-6);
        assert_eq!(a.iou(&BBox::new(20.0, 20.0, 5.0, 5.0)), 0.0);
        assert!((a.covered_by(&b) - 0.5).abs() < 1e-6);
    }

    #[test]
    fn buffered_boxes_overlap_although_the_boxes_do_not() {
        let a = BBox::new(0.0, 0.0, 10.0, 20.0);
        let b = BBox::new(12.0, 0.0, 10.0, 20.0);
        assert_eq!(a.iou(&b), 0.0);
        assert!(a.buffered(0.3).iou(&b.buffered(0.3)) > 0.1);
    }

    #[test]
    fn clipping_keeps_the_visible_part() {
        assert_eq!(
            BBox::new(-5.0, 10.0, 10.0, 100.0).clipped(50.0, 50.0),
            Some(BBox::new(0.0, 10.0, 5.0, 40.0))
        );
        assert_eq!(BBox::new(60.0, 0.0, 10.0, 10.0).clipped(50.0, 50.0), None);
    }

    #[test]
    fn nan_and_negative_boxes_are_invalid() {
        assert!(!BBox::new(f32::NAN, 0.0, 1.0, 1.0).is_valid());
        assert!(!BBox::new(0.0, 0.0, -1.0, 1.0).is_valid());
        assert!(!BBox::new(0.0, 0.0, 1.0, 0.0).is_valid());
    }

    #[test]
    fn an_affine_transform_maps_points_and_vectors() {
        let quarter_turn = Affine {
            linear: [0.0, -2.0, 2.0, 0.0],
            shift: [1.0, 3.0],
        };
        assert_eq!(quarter_turn.apply(1.0, 0.0), (1.0, 5.0));
        assert_eq!(quarter_turn.apply_linear(1.0, 0.0), (0.0, 2.0));
        assert_eq!(quarter_turn.scale(), 2.0);
    }
}
