//! What pictures and stored data may show of people.
//!
//! Pictures leave the program by sinks only: the pipeline hides the people in a frame before the
//! first sink gets it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use derive_setters::Setters;
use serde::{Deserialize, Serialize};

use crate::frame::Image;
use crate::geometry::BBox;
use crate::sink::sink::{FrameResult, Sink, SinkError};

/// What is blurred in pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "serve", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Blur {
    /// Nothing.
    #[default]
    None,
    /// The upper part of everybody, where the head is. No face is searched for.
    Faces,
    /// Everybody.
    People,
}

/// Section `[privacy]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Setters)]
#[cfg_attr(feature = "serve", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct PrivacyConfig {
    /// What is blurred in every picture that leaves the program: none, faces (the upper part of
    /// everybody's box, where the head is) or people (everybody's whole box). With faces or people,
    /// `cadence.max_interval` is 0 where it is auto.
    pub blur: Blur,
    /// Whether crops of people may be stored. false overrides `history.crops`.
    pub crops: bool,
    /// Whether embeddings of people may be stored or sent. false overrides `history.embeddings` and
    /// `output.embeddings`.
    pub embeddings: bool,
}

impl Default for PrivacyConfig {
    fn default() -> Self {
        PrivacyConfig {
            blur: Blur::None,
            crops: true,
            embeddings: true,
        }
    }
}

/// Smallest side of a cell in pixels.
const MIN_CELL: usize = 8;
/// Number of cells in the height of a head, and of a person. A head then has about 3 x 3 values.
const CELLS: (f32, f32) = (3.0, 8.0);
/// By how much of its size a box is enlarged on each side, because boxes are not exact.
const MARGIN: f32 = 0.1;
/// Height of the upper part that has the head, as a share of the height of somebody who is seen
/// whole, and as a share of the width of a box that shows a part of somebody.
const HEAD: (f32, f32) = (0.25, 0.6);
/// Bits of a colour value that are kept.
const BITS: u8 = 0b1111_0000;

/// Hides everybody in a frame: those of [`FrameResult::people`] and the tracks of its event.
pub fn hide_people(result: &mut FrameResult, blur: Blur) {
    let Some(image) = result.frame.image.as_mut().filter(|_| blur != Blur::None) else {
        return;
    };
    let tracks = result.event.tracks.iter();
    let tracks = tracks.map(|t| BBox::from(t.bbox.map(|v| v as f32)));
    for bbox in result.people.iter().copied().chain(tracks) {
        hide(image, &bbox, blur);
    }
}

/// Replaces what is to be hidden of a person by cells of one colour each, rounded to 16 values per
/// channel. If other frames share the pixels, they keep theirs.
fn hide(image: &mut Image, bbox: &BBox, blur: Blur) {
    let (region, cell) = match blur {
        Blur::None => return,
        Blur::Faces => {
            let height = (HEAD.0 * bbox.height).max(HEAD.1 * bbox.width);
            let head = BBox {
                height: height.min(bbox.height),
                ..*bbox
            };
            (head, head.height / CELLS.0)
        }
        Blur::People => (*bbox, bbox.height / CELLS.1),
    };
    let (dx, dy) = (MARGIN * bbox.width, MARGIN * region.height);
    let edge = |v: f32, most: u32| v.clamp(0.0, most as f32) as usize;
    let left = edge((region.left - dx).floor(), image.width);
    let right = edge((region.right() + dx).ceil(), image.width);
    let top = edge((region.top - dy).floor(), image.height);
    let bottom = edge((region.bottom() + dy).ceil(), image.height);
    let (cell, stride) = (MIN_CELL.max(cell as usize), image.stride);
    let pixels = unshared(&mut image.data);
    for y in (top..bottom).step_by(cell) {
        for x in (left..right).step_by(cell) {
            let (x_end, y_end) = ((x + cell).min(right), (y + cell).min(bottom));
            let row = |y: usize| stride * y + 3 * x..stride * y + 3 * x_end;
            let mut sums = [0u64; 3];
            for y in y..y_end {
                for pixel in pixels[row(y)].chunks_exact(3) {
                    (0..3).for_each(|c| sums[c] += u64::from(pixel[c]));
                }
            }
            let count = ((x_end - x) * (y_end - y)) as u64;
            let middle = !BITS / 2 + 1;
            let color = sums.map(|sum| ((sum / count) as u8 & BITS) | middle);
            for y in y..y_end {
                for pixel in pixels[row(y)].chunks_exact_mut(3) {
                    pixel.copy_from_slice(&color);
                }
            }
        }
    }
}

/// The pixels, copied before if they are shared.
fn unshared(data: &mut Arc<[u8]>) -> &mut [u8] {
    Arc::make_mut(data)
}

/// A sink that keeps [`FrameResult::people`] of every frame, for pictures that are written after
/// the end of a recording. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct PeopleRecorder(Arc<Mutex<BTreeMap<u64, Vec<BBox>>>>);

impl PeopleRecorder {
    /// Removes and returns the boxes of a frame, by its number.
    pub fn take(&self, frame: u64) -> Vec<BBox> {
        let mut frames = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        frames.remove(&frame).unwrap_or_default()
    }
}

impl Sink for PeopleRecorder {
    fn needs_pixels(&self) -> bool {
        false
    }

    fn frame(&mut self, finished: &FrameResult) -> Result<(), SinkError> {
        let mut frames = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        frames.insert(finished.frame.number, finished.people.clone());
        Ok(())
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: (usize, usize) = (120, 160);

    /// A picture of random pixels, with bytes between the rows.
    fn noise() -> Image {
        let mut rng = fastrand::Rng::with_seed(7);
        let stride = 3 * SIZE.0 + 5;
        let data: Vec<u8> = (0..stride * SIZE.1).map(|_| rng.u8(..)).collect();
        Image {
            width: SIZE.0 as u32,
            height: SIZE.1 as u32,
            stride,
            data: data.into(),
            pixel_aspect: 1.0,
        }
    }

    /// The pixels that differ between two pictures: left, top, right and bottom edge.
    fn changed(a: &Image, b: &Image) -> Option<[usize; 4]> {
        let pixel = |i: &Image, x: usize, y: usize| i.row(y)[3 * x..3 * x + 3].to_vec();
        let all = (0..SIZE.1).flat_map(|y| (0..SIZE.0).map(move |x| (x, y)));
        all.filter(|&(x, y)| pixel(a, x, y) != pixel(b, x, y))
            .map(|(x, y)| [x, y, x + 1, y + 1])
            .reduce(|a, b| {
                let [l, t] = [a[0].min(b[0]), a[1].min(b[1])];
                [l, t, a[2].max(b[2]), a[3].max(b[3])]
            })
    }

    fn hidden(bbox: BBox, blur: Blur) -> Image {
        let mut image = noise();
        hide(&mut image, &bbox, blur);
        image
    }

    #[test]
    fn exactly_the_enlarged_box_is_hidden() {
        let bbox = BBox::new(30.0, 40.0, 40.0, 100.0);
        let people = hidden(bbox, Blur::People);
        assert_eq!(changed(&noise(), &people), Some([26, 30, 74, 150]));
        let faces = hidden(bbox, Blur::Faces);
        // A quarter of the height: 25 pixels, and 10 % of it above and below.
        assert_eq!(changed(&noise(), &faces), Some([26, 37, 74, 68]));
        assert_eq!(changed(&noise(), &hidden(bbox, Blur::None)), None);
    }

    /// Somebody near the camera, of whom only head and shoulders are in the picture.
    #[test]
    fn the_head_of_a_wide_box_is_higher() {
        let faces = hidden(BBox::new(20.0, 20.0, 80.0, 100.0), Blur::Faces);
        assert_eq!(changed(&noise(), &faces), Some([12, 15, 108, 73]));
        // Of a lying person, all is hidden.
        let lying = hidden(BBox::new(10.0, 50.0, 100.0, 30.0), Blur::Faces);
        assert_eq!(changed(&noise(), &lying), Some([0, 47, 120, 83]));
    }

    #[test]
    fn a_box_beyond_the_picture_is_cut() {
        let people = hidden(BBox::new(-50.0, -50.0, 1000.0, 1000.0), Blur::People);
        assert_eq!(changed(&noise(), &people), Some([0, 0, SIZE.0, SIZE.1]));
        for outside in [
            BBox::new(-90.0, 10.0, 50.0, 50.0),
            BBox::new(500.0, 500.0, 50.0, 50.0),
            BBox::new(10.0, 10.0, f32::NAN, 50.0),
        ] {
            assert_eq!(changed(&noise(), &hidden(outside, Blur::People)), None);
        }
    }

    /// Cells have one colour each and grow with the person, so that a face has few values at any
    /// size.
    #[test]
    fn a_person_has_few_values_at_any_size() {
        for (height, most) in [(60.0, 7 * 9), (100.0, 6 * 10), (150.0, 5 * 10)] {
            let bbox = BBox::new(20.0, 5.0, 0.4 * height, height);
            let image = hidden(bbox, Blur::People);
            let inside = (5..height as usize).flat_map(|y| {
                let row = image.row(y);
                (20..20 + (0.4 * height) as usize).map(move |x| row[3 * x..3 * x + 3].to_vec())
            });
            let values: std::collections::BTreeSet<Vec<u8>> = inside.collect();
            assert!(values.len() <= most, "{} values", values.len());
            assert!(values.iter().flatten().all(|v| v % 16 == 8), "{values:?}");
        }
    }

    #[test]
    fn frames_that_share_the_pixels_keep_theirs() {
        let image = noise();
        let mut shared = image.clone();
        hide(
            &mut shared,
            &BBox::new(10.0, 10.0, 50.0, 90.0),
            Blur::People,
        );
        assert_eq!(changed(&noise(), &image), None);
        assert!(changed(&image, &shared).is_some());
    }
}
