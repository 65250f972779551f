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
    // The latest places first: most of the earlier ones lie within them.
    let people = result.people.iter().copied();
    let places: Vec<BBox> = people.chain(tracks).collect();
    let mut hidden: Vec<Region> = Vec::new();
    for bbox in places.iter().rev() {
        let region = Region::of(bbox, blur);
        if !hidden.iter().any(|earlier| earlier.covers(&region)) {
            region.hide(image);
            hidden.push(region);
        }
    }
}

/// A part of a picture that is to be hidden.
#[derive(Debug, Clone, Copy)]
struct Region {
    /// The person's box, or the head's.
    inner: BBox,
    /// The same enlarged by [`MARGIN`], which is hidden.
    outer: BBox,
    /// Side of the cells in pixels.
    cell: usize,
}

impl Region {
    fn of(bbox: &BBox, blur: Blur) -> Self {
        let (inner, cells) = match blur {
            Blur::Faces => {
                let height = (HEAD.0 * bbox.height).max(HEAD.1 * bbox.width);
                let height = height.min(bbox.height);
                (BBox { height, ..*bbox }, CELLS.0)
            }
            Blur::People | Blur::None => (*bbox, CELLS.1),
        };
        Region {
            inner,
            outer: inner.buffered(MARGIN),
            cell: MIN_CELL.max((inner.height / cells) as usize),
        }
    }

    /// Whether hiding this region also hides the box of `other`, by cells whose side is at least
    /// half that of the cells of `other`.
    fn covers(&self, other: &Region) -> bool {
        let (a, b) = (&self.outer, &other.inner);
        a.left <= b.left
            && a.top <= b.top
            && a.right() >= b.right()
            && a.bottom() >= b.bottom()
            && 2 * self.cell >= other.cell
    }

    /// Replaces the pixels by cells of one colour each, rounded to 16 values per channel. If other
    /// frames share the pixels, they keep theirs.
    fn hide(&self, image: &mut Image) {
        let edge = |v: f32, most: u32| v.clamp(0.0, most as f32) as usize;
        let left = edge(self.outer.left.floor(), image.width);
        let right = edge(self.outer.right().ceil(), image.width);
        let top = edge(self.outer.top.floor(), image.height);
        let bottom = edge(self.outer.bottom().ceil(), image.height);
        let (cell, stride) = (self.cell, image.stride);
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
    use crate::frame::Frame;
    use crate::time::Seconds;
    use crate::trajectory::{EventBuilder, RunId};

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
        Region::of(&bbox, blur).hide(&mut image);
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
        let bbox = BBox::new(10.0, 10.0, 50.0, 90.0);
        Region::of(&bbox, Blur::People).hide(&mut shared);
        assert_eq!(changed(&noise(), &image), None);
        assert!(changed(&image, &shared).is_some());
    }

    /// A place that lies within a later one is not hidden separately, because hiding the later one
    /// covers it.
    #[test]
    fn every_box_of_a_frame_is_hidden_unless_blur_is_none() {
        let walking = (0..6).map(|i| BBox::new(20.0 + 3.0 * i as f32, 20.0, 30.0, 80.0));
        let people: Vec<BBox> = walking.chain([BBox::new(70.0, 90.0, 20.0, 60.0)]).collect();
        let frame = Frame {
            camera: "gate".into(),
            number: 1,
            pts: Seconds(0.0),
            time: None,
            width: SIZE.0 as u32,
            height: SIZE.1 as u32,
            image: Some(noise()),
            restart: false,
        };
        let event = EventBuilder::new(RunId::nil(), "gate".into(), None).frame(&frame, &[]);
        let result = |blur| {
            let mut result = FrameResult {
                frame: frame.clone(),
                detections: Vec::new(),
                event: event.clone().into(),
                people: people.clone(),
                scene: None,
            };
            hide_people(&mut result, blur);
            result.frame.image.expect("there")
        };
        let image = result(Blur::People);
        for bbox in &people {
            for y in bbox.top as usize..bbox.bottom() as usize {
                for x in bbox.left as usize..bbox.right() as usize {
                    let pixel = &image.row(y)[3 * x..3 * x + 3];
                    assert!(pixel.iter().all(|v| v % 16 == 8), "{x} {y}: {pixel:?}");
                }
            }
        }
        assert_eq!(changed(&noise(), &result(Blur::None)), None);
    }
}
