//! Selects the frames from which people are cut out, and the people who are visible enough.

use crate::geometry::BBox;

/// Interval in frames at which a person is cut out; consecutive frames differ little.
pub(super) const CROP_INTERVAL: u64 = 5;

/// A person is excluded if one other person covers at least this share.
pub(super) const MAX_COVERED: f32 = 0.3;
/// Whether the person at `i` is visible. People lower in the picture are nearer to the camera.
pub(super) fn is_visible(boxes: &[BBox], i: usize) -> bool {
    let me = &boxes[i];
    boxes.iter().enumerate().all(|(j, other)| {
        j == i || other.bottom() < me.bottom() || me.covered_by(other) < MAX_COVERED
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_in_front_hides_the_one_behind() {
        let boxes = [
            BBox::new(0.0, 0.0, 10.0, 20.0),
            BBox::new(4.0, 4.0, 10.0, 20.0),
            BBox::new(40.0, 0.0, 10.0, 20.0),
        ];
        assert_eq!(
            [0, 1, 2].map(|i| is_visible(&boxes, i)),
            [false, true, true]
        );
    }
}
