//! Data sets: pictures of people with their identities.

use std::collections::BTreeSet;

use crate::frame::Image;
use crate::geometry::BBox;
use crate::train::error::TrainError;

/// A picture of a person with some surroundings, so that augmentation can shift and scale the view.
#[derive(Debug, Clone)]
pub struct Crop {
    /// The pixels.
    pub image: Image,
    /// The person's box in pixels.
    pub person: BBox,
    /// The identity, an index below [`Dataset::identities`].
    pub identity: usize,
    /// The camera that took the picture.
    pub camera: u32,
    /// Number of the frame; 0 for pictures without an order.
    pub frame: u64,
}

/// Selection of pairs for evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Protocol {
    /// As in Market-1501 (Zheng et al. 2015): views of the same person by the same camera are
    /// excluded.
    CrossCamera,
    /// A single camera: pictures are compared if at least this many frames apart.
    Apart(u64),
    /// No camera or order: all pictures are compared.
    All,
}

/// A data set.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// Name for messages.
    pub name: String,
    /// The pictures.
    pub crops: Vec<Crop>,
    /// Number of identities.
    pub identities: usize,
    /// Pairs of identities (lower first) that are certainly different people; `None`: all are.
    /// Tracks of a video that never occur in the same frame may be one person.
    pub apart: Option<BTreeSet<(usize, usize)>>,
    /// Protocol of evaluation.
    pub protocol: Protocol,
}

impl Dataset {
    /// Creates a data set; identities are numbered from 0 in ascending order of their keys.
    ///
    /// # Errors
    /// Fails when there is no picture.
    pub fn of<K: Ord>(
        name: &str,
        crops: Vec<(K, Crop)>,
        protocol: Protocol,
    ) -> Result<Self, TrainError> {
        if crops.is_empty() {
            return Err(TrainError::Data {
                name: name.into(),
                problem: "it has no picture of a person; docs/guide/train.md shows the layout of \
                          each kind"
                    .into(),
            });
        }
        let keys: Vec<&K> = crops
            .iter()
            .map(|(k, _)| k)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        let numbers: Vec<usize> = crops
            .iter()
            .map(|(k, _)| keys.binary_search(&k).expect("the list has every key"))
            .collect();
        let identities = keys.len();
        let crops = crops
            .into_iter()
            .zip(numbers)
            .map(|((_, crop), identity)| Crop { identity, ..crop })
            .collect();
        Ok(Dataset {
            name: name.into(),
            crops,
            identities,
            apart: None,
            protocol,
        })
    }

    /// Whether two identities are certainly different people.
    pub fn different(&self, a: usize, b: usize) -> bool {
        a != b
            && self
                .apart
                .as_ref()
                .is_none_or(|s| s.contains(&(a.min(b), a.max(b))))
    }

    /// Indices of the pictures of each identity.
    pub fn by_identity(&self) -> Vec<Vec<usize>> {
        let mut of = vec![Vec::new(); self.identities];
        self.crops
            .iter()
            .enumerate()
            .for_each(|(i, c)| of[c.identity].push(i));
        of
    }

    /// Removes identities with fewer than `least` pictures; returns the number of removed
    /// identities.
    pub fn drop_rare(&mut self, least: usize) -> usize {
        let counts: Vec<usize> = self.by_identity().iter().map(Vec::len).collect();
        let before = self.identities;
        self.keep(|identity| counts[identity] >= least);
        before - self.identities
    }

    /// Holds every `n`th identity out for validation; returns (rest, held out).
    pub fn hold_out(&self, n: usize) -> (Dataset, Dataset) {
        let (mut rest, mut held) = (self.clone(), self.clone());
        rest.keep(|i| i % n != n - 1);
        held.keep(|i| i % n == n - 1);
        (rest, held)
    }

    fn keep(&mut self, which: impl Fn(usize) -> bool) {
        let kept: Vec<usize> = (0..self.identities).filter(|&i| which(i)).collect();
        let number = |old: usize| kept.binary_search(&old).ok();
        self.crops.retain_mut(|c| {
            let new = number(c.identity);
            c.identity = new.unwrap_or_default();
            new.is_some()
        });
        self.apart = self.apart.take().map(|s| {
            s.into_iter()
                .filter_map(|(a, b)| Some((number(a)?, number(b)?)))
                .collect()
        });
        self.identities = kept.len();
    }
}

/// Share of a person's size that is kept as surroundings on each side.
const MARGIN: f32 = 0.15;

/// Cuts a person with surroundings out of a frame; `None` if fewer than two rows or columns of
/// these pixels are inside the frame.
pub fn cut(frame: &Image, person: &BBox, camera: u32, number: u64) -> Option<Crop> {
    let wide = BBox::new(
        person.left - MARGIN * person.width,
        person.top - MARGIN * person.height,
        person.width * (1.0 + 2.0 * MARGIN),
        person.height * (1.0 + 2.0 * MARGIN),
    );
    let inside = wide.clipped(frame.width as f32, frame.height as f32)?;
    let (x0, y0) = (inside.left.floor() as usize, inside.top.floor() as usize);
    let (x1, y1) = (
        (inside.right().ceil() as usize).min(frame.width as usize),
        (inside.bottom().ceil() as usize).min(frame.height as usize),
    );
    if x1 < x0 + 2 || y1 < y0 + 2 {
        return None;
    }
    let bytes: Vec<u8> = (y0..y1)
        .flat_map(|y| frame.row(y)[3 * x0..3 * x1].iter().copied())
        .collect();
    let image = Image::packed((x1 - x0) as u32, (y1 - y0) as u32, bytes.into());
    let person = BBox::new(
        person.left - x0 as f32,
        person.top - y0 as f32,
        person.width,
        person.height,
    );
    Some(Crop {
        image,
        person,
        identity: 0,
        camera,
        frame: number,
    })
}

/// Makes a crop of a picture that is cut to a person already.
pub fn whole(image: Image, camera: u32, frame: u64) -> Crop {
    let person = BBox::new(0.0, 0.0, image.width as f32, image.height as f32);
    Crop {
        image,
        person,
        identity: 0,
        camera,
        frame,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture() -> Image {
        Image::packed(40, 40, vec![7; 4800].into())
    }

    fn five() -> Dataset {
        let crops =
            ["a", "b", "b", "c", "c", "d", "d", "e", "e"].map(|k| (k, whole(picture(), 0, 0)));
        Dataset::of("five", crops.to_vec(), Protocol::All).expect("pictures")
    }

    #[test]
    fn dropping_rare_identities_keeps_the_other_relations() {
        let mut data = five();
        data.apart = Some([(0, 1), (1, 2), (2, 4)].into());
        assert_eq!(data.drop_rare(2), 1);
        assert_eq!((data.identities, data.crops.len()), (4, 8));
        assert!(data.different(0, 1) && data.different(3, 1) && !data.different(0, 3));
    }

    #[test]
    fn held_out_people_are_not_in_the_rest() {
        let (rest, held) = five().hold_out(2);
        assert_eq!(
            (
                rest.identities,
                held.identities,
                rest.crops.len() + held.crops.len()
            ),
            (3, 2, 9)
        );
    }

    #[test]
    fn an_empty_set_is_rejected() {
        let e =
            Dataset::of::<u32>("nothing", Vec::new(), Protocol::All).expect_err("nothing in it");
        assert!(
            e.to_string().contains("nothing") && e.to_string().contains("no picture"),
            "{e}"
        );
    }

    #[test]
    fn a_cut_keeps_surroundings_inside_the_frame() {
        let crop = cut(&picture(), &BBox::new(30.0, 10.0, 10.0, 20.0), 1, 2).expect("inside");
        assert_eq!((crop.image.width, crop.image.height), (12, 26));
        assert_eq!((crop.person.left, crop.person.top), (2.0, 3.0));
        assert!(cut(&picture(), &BBox::new(60.0, 10.0, 10.0, 20.0), 1, 2).is_none());
    }
}
