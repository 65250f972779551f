//! A person cut out of a picture, with estimated or known body parts.

use fastrand::Rng;

use crate::train::probe::cloth::{chance, uniform};
use crate::train::probe::grid::{Grid, Mask, Picture, luma, noise};

/// A part of a body or of its clothes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyPart {
    /// Pixels that are not of the person.
    Background,
    /// Head, without distinguishing face and hair.
    Head,
    /// Face.
    Face,
    /// Skin other than the face.
    Skin,
    /// Hair.
    Hair,
    /// Hat, cap or hood.
    Hat,
    /// Upper body.
    Top,
    /// The part of the top on the arms.
    Sleeves,
    /// Clothes that an open jacket shows in the middle.
    Panel,
    /// Legs down to the knees.
    Thighs,
    /// Legs below the knees.
    Calves,
    /// Shoes.
    Shoes,
    /// Bag or backpack.
    Bag,
}

impl BodyPart {
    /// The part for a label in a figure atlas ([`crate::train::probe::atlas`]).
    pub fn of_label(label: u8) -> Self {
        use BodyPart::{
            Background, Bag, Calves, Face, Hair, Hat, Panel, Shoes, Skin, Sleeves, Thighs, Top,
        };
        const LABELS: [BodyPart; 12] = [
            Background, Skin, Hair, Top, Sleeves, Thighs, Calves, Shoes, Bag, Panel, Hat, Face,
        ];
        LABELS
            .get(usize::from(label))
            .copied()
            .unwrap_or(Background)
    }
}

/// A person cut out of a picture. All figures of a generator have the same size.
#[derive(Debug, Clone)]
pub struct Figure {
    size: (usize, usize),
    /// Packed blue, green, red bytes.
    pixels: Vec<u8>,
    /// Coverage of each pixel by the person, 255 for full.
    coverage: Vec<u8>,
    /// The part of each pixel, if known.
    parts: Option<Vec<BodyPart>>,
}

impl Figure {
    /// Creates a figure. `parts`: the part of every pixel, if known.
    ///
    /// # Panics
    /// When the sizes differ.
    pub fn new(picture: &Picture, coverage: &Mask, parts: Option<Vec<BodyPart>>) -> Self {
        assert!(
            picture.size() == coverage.size()
                && parts
                    .as_ref()
                    .is_none_or(|p| p.len() == picture.values.len()),
            "picture, coverage and parts have one size"
        );
        let coverage = coverage
            .values
            .iter()
            .map(|v| (v.clamp(0.0, 1.0) * 255.0) as u8)
            .collect();
        Figure {
            size: picture.size(),
            pixels: picture.to_bgr(),
            coverage,
            parts,
        }
    }

    /// Packed blue, green, red bytes.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// The picture.
    pub fn picture(&self) -> Picture {
        Picture::from_bgr(self.size, &self.pixels)
    }

    /// Coverage of each pixel by the person, in [0, 1].
    pub fn coverage(&self) -> Mask {
        Grid {
            width: self.size.0,
            height: self.size.1,
            values: self
                .coverage
                .iter()
                .map(|v| f32::from(*v) / 255.0)
                .collect(),
        }
    }

    /// The part of each pixel, if known.
    pub fn parts(&self) -> Option<&[BodyPart]> {
        self.parts.as_deref()
    }
}

/// Estimates the part of each pixel by height, with randomly varied borders, for a person of whom
/// only the box is known.
pub fn parts_by_height(size: (usize, usize), rng: &mut Rng) -> Vec<BodyPart> {
    let (neck, waist, ankle) = (
        uniform(rng, 0.12, 0.19),
        uniform(rng, 0.42, 0.62),
        uniform(rng, 0.88, 0.95),
    );
    let hem = if chance(rng, 0.25) {
        uniform(rng, 0.6, 0.85)
    } else {
        0.7
    };
    let sleeve = uniform(rng, 0.14, 0.24);
    let wave = noise(size, 6, 0.02, rng);
    let places = Mask::from_fn(size, |_, y| y).join(&wave, |y, n| y + n);
    let across = |i: usize| ((i % size.0) as f32 + 0.5) / size.0 as f32;
    let part = |(i, y): (usize, &f32)| match *y {
        y if y < neck => BodyPart::Head,
        y if y < waist && (across(i) - 0.5).abs() > sleeve => BodyPart::Sleeves,
        y if y < waist => BodyPart::Top,
        y if y < hem.min(ankle) => BodyPart::Thighs,
        y if y < ankle => BodyPart::Calves,
        _ => BodyPart::Shoes,
    };
    places.values.iter().enumerate().map(part).collect()
}

/// Estimates the coverage of each pixel if only the box is known: the outline of an average person,
/// weighted by the pixel's difference from the colours at the border of the box.
pub fn coverage_by_outline(picture: &Picture) -> Mask {
    let size = picture.size();
    let grey = picture.map(|c| luma(*c));
    let mut border: Vec<f32> = (0..grey.height * 55 / 100)
        .flat_map(|y| [0, 1, 2].map(|x| [(x, y), (grey.width - 1 - x, y)]))
        .flatten()
        .map(|(x, y)| grey.at(x as isize, y as isize))
        .collect();
    border.sort_by(f32::total_cmp);
    let ground = border.get(border.len() / 2).copied().unwrap_or_default();
    let outline = Mask::from_fn(size, |x, y| {
        let body = (-((x - 0.5) / 0.30).abs().powi(3)).exp()
            * ((y - 0.02) / 0.03).clamp(0.0, 1.0)
            * ((0.98 - y) / 0.03).clamp(0.0, 1.0);
        body * if y < 0.17 {
            (-((x - 0.5) / 0.16).powi(2)).exp()
        } else {
            1.0
        }
    });
    let share = outline.join(&grey.blurred((1.2, 1.2)), |o, g| {
        ((o * (0.45 + 1.6 * (g - ground).abs()) * 1.5 - 0.25).clamp(0.0, 1.0) * 1.6).min(1.0)
    });
    share.blurred((1.2, 1.2))
}

/// Computes the coverage of each pixel as the difference from the empty scene.
pub fn coverage_by_difference(picture: &Picture, empty: &Picture) -> Mask {
    let difference = picture.join(empty, |a, b| {
        (0..3).map(|k| (a[k] - b[k]).abs()).fold(0.0, f32::max)
    });
    let sure = difference
        .blurred((1.0, 1.0))
        .map(|d| ((d * 255.0 - 14.0) / 16.0).clamp(0.0, 1.0));
    // Fills holes (clothes with the colour of the background) and removes single pixels.
    sure.map(|v| f32::from(u8::from(*v > 0.5)))
        .blurred((2.0, 3.0))
        .map(|v| ((v - 0.3) * 6.0).clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimated_parts_are_ordered_by_height() {
        let parts = parts_by_height((16, 64), &mut Rng::with_seed(4));
        let at = |y: usize| parts[y * 16 + 8];
        assert_eq!(
            [at(2), at(20), at(36), at(63)],
            [
                BodyPart::Head,
                BodyPart::Top,
                BodyPart::Thighs,
                BodyPart::Shoes
            ]
        );
        assert_eq!(parts[20 * 16], BodyPart::Sleeves);
    }

    #[test]
    fn difference_from_the_empty_scene_is_the_person() {
        let empty = Picture::filled((32, 64), [0.4; 3]);
        let person = |x: f32, y: f32| (x - 0.5).abs() < 0.2 && (0.1..0.95).contains(&y);
        let seen = Picture::from_fn((32, 64), |x, y| {
            if person(x, y) {
                [0.8, 0.2, 0.2]
            } else {
                [0.41, 0.4, 0.4]
            }
        });
        let coverage = coverage_by_difference(&seen, &empty);
        assert!(
            coverage.at(16, 32) > 0.95 && coverage.at(2, 32) < 0.05 && coverage.at(16, 1) < 0.3
        );
        let guessed = coverage_by_outline(&seen);
        assert!(guessed.at(16, 32) > 0.6 && guessed.at(1, 32) < 0.1);
    }

    #[test]
    fn a_figure_preserves_its_pixels() {
        let picture = Picture::from_fn((4, 8), |x, y| [x, y, 0.5]);
        let figure = Figure::new(&picture, &Mask::filled((4, 8), 0.5), None);
        assert!(
            figure
                .picture()
                .values
                .iter()
                .zip(&picture.values)
                .all(|(a, b)| (a[0] - b[0]).abs() < 0.003)
        );
        assert!((figure.coverage().at(0, 0) - 0.5).abs() < 0.005);
    }
}
