//! Figures and backgrounds from pictures and videos.

use std::collections::BTreeMap;

use crate::frame::Image;
use crate::geometry::BBox;
use crate::source::{self, SourceOptions};
use crate::train::dataset::{Crop, Dataset};
use crate::train::error::TrainError;
use crate::train::probe::figure::{Figure, coverage_by_difference, coverage_by_outline};
use crate::train::probe::grid::Picture;

/// Figures and scenes of a source.
#[derive(Debug, Clone, Default)]
pub struct Footage {
    /// People.
    pub figures: Vec<Figure>,
    /// Pictures whose parts can serve as backgrounds.
    pub scenes: Vec<Image>,
}

/// Boxes of people by frame number.
pub type BoxesByFrame = BTreeMap<u64, Vec<BBox>>;

/// Interval in frames at which people are cut out; consecutive frames differ little.
const EVERY: u64 = 5;
/// Minimum height of a person in pixels.
const LOWEST: f32 = 40.0;
/// Minimum width of a box as a share of its height; narrower boxes cut off arms.
const NARROWEST: f32 = 0.40;
/// About this many frames are kept as backgrounds and to compute the empty scene.
const SCENES: u64 = 31;
/// The camera counts as moving if the median difference between the frames and their median picture
/// exceeds this (range 0 to 255).
const MOVING: u8 = 6;

/// Cuts figures of `size` (width, height) out of a video at `boxes`. With a still camera the
/// coverage is the difference from the empty scene, otherwise the outline of a person.
///
/// # Errors
/// Fails when the video cannot be read.
pub fn of_video(
    input: &str,
    boxes: &BoxesByFrame,
    size: (usize, usize),
) -> Result<Footage, TrainError> {
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

/// Figures of `size` (width, height) from pictures that are cut to a person already.
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

/// Median of each byte over pictures of equal size; `None` if there are fewer than three or their
/// sizes differ.
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

/// Whether the camera moves: whether most pixels of most pictures differ from the median picture.
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
    fn median_removes_passing_people() {
        let pictures: Vec<Image> = [0, 16, 32, 48, 8].map(|x| still(90, Some(x))).to_vec();
        let empty = median(&pictures).expect("five pictures of one size");
        assert!(empty.data.iter().all(|v| *v == 90));
        assert!(!moves(&pictures, &empty));
        let shaken: Vec<Image> = (0..5).map(|i| still(50 * i, None)).collect();
        assert!(moves(&shaken, &median(&shaken).expect("five")));
        assert!(median(&pictures[..2]).is_none());
    }
}
