//! Figures and backgrounds from pictures and videos.

use std::collections::BTreeMap;

use crate::frame::Image;
use crate::geometry::BBox;
use crate::source::{self, SourceOptions};
use crate::train::dataset::{Crop, Dataset, TrainError};
use crate::train::probe::figure::{Figure, coverage_by_difference, coverage_by_outline};
use crate::train::probe::grid::Picture;

/// What a source of probes gives.
#[derive(Debug, Clone, Default)]
pub struct Footage {
    /// People.
    pub figures: Vec<Figure>,
    /// Pictures of which pieces can stand behind people.
    pub scenes: Vec<Image>,
}

/// People in the frames of a video, by frame number.
pub type Boxes = BTreeMap<u64, Vec<BBox>>;

/// Every so many frames people are cut out: a moving person's next frame shows little that is new.
const EVERY: u64 = 5;
/// People lower than this, in pixels, show too little.
const LOWEST: f32 = 40.0;
/// A box is at least this wide, as a share of its height: narrower ones cut off arms.
const NARROWEST: f32 = 0.40;
/// So many frames are kept as backgrounds and for the empty scene.
const SCENES: u64 = 31;
/// A camera whose frames differ from their median by more than this (of 255, at the median pixel) moves.
const MOVING: u8 = 6;

/// Figures of `size` (width, height) cut out of a video at `boxes`. Where the camera stands still, the person is what differs
/// from the empty scene; else the outline of a person.
///
/// # Errors
/// When the video cannot be read.
pub fn of_video(input: &str, boxes: &Boxes, size: (usize, usize)) -> Result<Footage, TrainError> {
    let (Some(first), Some(last)) = (boxes.keys().next(), boxes.keys().last()) else {
        return Ok(Footage::default());
    };
    let step = ((last - first) / SCENES).max(1);
    let mut scenes = Vec::new();
    each_frame(input, (*first, *last), |number, image| {
        if (number - first).is_multiple_of(step) {
            scenes.push(image.clone());
        }
    })?;
    let empty = median(&scenes).filter(|empty| !moves(&scenes, empty));
    let mut figures = Vec::new();
    each_frame(input, (*first, *last), |number, image| {
        let people = boxes
            .get(&number)
            .filter(|_| (number - first).is_multiple_of(EVERY));
        for person in people.into_iter().flatten().filter(|b| b.height >= LOWEST) {
            let wide = BBox::from_center(
                person.center().0,
                person.center().1,
                person.width.max(NARROWEST * person.height),
                person.height,
            );
            let picture = Picture::cut(image, &wide, size);
            let coverage = match &empty {
                Some(empty) => coverage_by_difference(&picture, &Picture::cut(empty, &wide, size)),
                None => coverage_by_outline(&picture),
            };
            figures.push(Figure::new(&picture, &coverage, None));
        }
    })?;
    Ok(Footage { figures, scenes })
}

/// Figures of `size` (width, height) from pictures that are cut to people already.
pub fn of_pictures(data: &Dataset, size: (usize, usize)) -> Footage {
    let figure = |c: &Crop| {
        let picture = Picture::cut(&c.image, &c.person, size);
        Figure::new(&picture, &coverage_by_outline(&picture), None)
    };
    Footage {
        figures: data.crops.iter().map(figure).collect(),
        scenes: Vec::new(),
    }
}

fn each_frame(
    input: &str,
    (first, last): (u64, u64),
    mut show: impl FnMut(u64, &Image),
) -> Result<(), TrainError> {
    let mut source = source::open(input, &SourceOptions::default())?;
    while let Some(frame) = source.next_frame()? {
        if frame.number > last {
            break;
        }
        if let Some(image) = frame.image.as_ref().filter(|_| frame.number >= first) {
            show(frame.number, image);
        }
    }
    Ok(())
}

/// The median of each byte over pictures of one size; `None` where there are fewer than three or their sizes differ.
fn median(pictures: &[Image]) -> Option<Image> {
    let first = pictures.first().filter(|_| pictures.len() >= 3)?;
    if pictures
        .iter()
        .any(|p| (p.width, p.height) != (first.width, first.height))
    {
        return None;
    }
    let mut data = Vec::with_capacity(3 * (first.width * first.height) as usize);
    let mut seen = Vec::with_capacity(pictures.len());
    for y in 0..first.height as usize {
        let rows: Vec<&[u8]> = pictures.iter().map(|p| p.row(y)).collect();
        for i in 0..rows[0].len() {
            seen.clear();
            seen.extend(rows.iter().map(|r| r[i]));
            let middle = seen.len() / 2;
            data.push(*seen.select_nth_unstable(middle).1);
        }
    }
    Some(Image::packed(first.width, first.height, data.into()))
}

/// Whether the camera moved: whether most pixels of most pictures differ from the median picture.
fn moves(pictures: &[Image], median: &Image) -> bool {
    let mut differences: Vec<u8> = Vec::new();
    for p in pictures {
        for y in (0..p.height as usize).step_by(7) {
            differences.extend(
                p.row(y)
                    .iter()
                    .zip(median.row(y))
                    .step_by(21)
                    .map(|(a, b)| a.abs_diff(*b)),
            );
        }
    }
    let middle = differences.len() / 2;
    !differences.is_empty() && *differences.select_nth_unstable(middle).1 > MOVING
}

#[cfg(test)]
mod tests {
    use super::*;

    fn still(value: u8, person_at: Option<u32>) -> Image {
        let bytes = (0..64 * 64u32).flat_map(|i| {
            let inside = person_at.is_some_and(|x| (x..x + 16).contains(&(i % 64)));
            [if inside { 220 } else { value }; 3]
        });
        Image::packed(64, 64, bytes.collect::<Vec<u8>>().into())
    }

    #[test]
    fn the_median_is_the_scene_without_the_passers_by() {
        let pictures: Vec<Image> = [0, 16, 32, 48, 8].map(|x| still(90, Some(x))).to_vec();
        let empty = median(&pictures).expect("five pictures of one size");
        assert!(empty.data.iter().all(|v| *v == 90));
        assert!(!moves(&pictures, &empty));
        let shaken: Vec<Image> = (0..5).map(|i| still(50 * i, None)).collect();
        assert!(moves(&shaken, &median(&shaken).expect("five")));
        assert!(median(&pictures[..2]).is_none());
    }
}
