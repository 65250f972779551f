//! Pictures of people and who is who in them.

use std::collections::BTreeSet;
use std::path::PathBuf;

use thiserror::Error;

use crate::frame::Image;
use crate::geometry::BBox;
use crate::infer::InferError;
use crate::mot_format::MotError;
use crate::source::SourceError;

/// What can go wrong while training, judging or exporting.
#[derive(Debug, Error)]
pub enum TrainError {
    /// A folder or file of the data set.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The folder or file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file could not be written.
    #[error("cannot write {}: {reason}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The data are not what is needed.
    #[error("the data set {name}: {problem}")]
    Data {
        /// Which.
        name: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// A picture or video cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A MOTChallenge file is wrong.
    #[error(transparent)]
    Mot(#[from] MotError),
    /// ONNX Runtime.
    #[error(transparent)]
    Infer(#[from] InferError),
    /// A setting is out of its range.
    #[error("{0}")]
    Setting(String),
    /// The loss is no longer a number.
    #[error("the loss became {value} at step {step}; the last good checkpoint is kept in {}. A learning rate too high (now {rate:.1e}) is the usual cause: lower it and go on with --resume", checkpoint.display())]
    Diverged {
        /// The loss.
        value: f32,
        /// The step.
        step: usize,
        /// The learning rate there.
        rate: f64,
        /// Where the last good state is.
        checkpoint: PathBuf,
    },
    /// A checkpoint does not fit.
    #[error("cannot go on from {}: {problem}", path.display())]
    Checkpoint {
        /// The checkpoint.
        path: PathBuf,
        /// What does not fit.
        problem: String,
    },
    /// The exported file and the trained network do not agree.
    #[error(
        "the exported network differs from the trained one by {0:.1e} (allowed 1e-4); nothing was written. This is a bug, please report it"
    )]
    Export(f32),
}

/// One picture of a person, with some of its surroundings, so that training can shift and scale the view.
#[derive(Debug, Clone)]
pub struct Crop {
    /// The pixels.
    pub image: Image,
    /// The person in them, pixels.
    pub person: BBox,
    /// Who, an index below [`Dataset::identities`].
    pub identity: usize,
    /// Which camera took it.
    pub camera: u32,
    /// Which frame it is from; 0 for pictures without an order.
    pub frame: u64,
}

/// How the pairs of an evaluation are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// As in Market-1501 (Zheng et al. 2015): views of the same person by the same camera are left out.
    CrossCamera,
    /// One camera: only pictures at least so many frames apart are compared.
    Apart(u64),
    /// Pictures without camera or order: each with all others.
    All,
}

/// A data set.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// What to call it in messages.
    pub name: String,
    /// The pictures.
    pub crops: Vec<Crop>,
    /// How many identities there are.
    pub identities: usize,
    /// Pairs of identities (lower first) that are certainly two people. `None`: all are. Tracklets of a video that were
    /// never seen in one frame may be one person.
    pub apart: Option<BTreeSet<(usize, usize)>>,
    /// How it is evaluated.
    pub protocol: Protocol,
}

impl Dataset {
    /// A data set whose identities are numbered anew from 0 in the order of `key`s; refuses an empty one.
    ///
    /// # Errors
    /// When there is no picture.
    pub fn of<K: Ord>(
        name: &str,
        crops: Vec<(K, Crop)>,
        protocol: Protocol,
    ) -> Result<Self, TrainError> {
        if crops.is_empty() {
            return Err(TrainError::Data {
                name: name.into(),
                problem: "no picture of a person is in it; docs/training.md shows the layout of each kind".into(),
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
            .map(|(k, _)| keys.binary_search(&k).expect("every key is among the keys"))
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

    /// Whether two identities are certainly two people.
    pub fn different(&self, a: usize, b: usize) -> bool {
        a != b
            && self
                .apart
                .as_ref()
                .is_none_or(|s| s.contains(&(a.min(b), a.max(b))))
    }

    /// The pictures (indices) of each identity.
    pub fn by_identity(&self) -> Vec<Vec<usize>> {
        let mut of = vec![Vec::new(); self.identities];
        self.crops
            .iter()
            .enumerate()
            .for_each(|(i, c)| of[c.identity].push(i));
        of
    }

    /// Leaves out identities with fewer than `least` pictures, which can form no pair; returns how many were left out.
    pub fn drop_rare(&mut self, least: usize) -> usize {
        let counts: Vec<usize> = self.by_identity().iter().map(Vec::len).collect();
        let before = self.identities;
        self.keep(|identity| counts[identity] >= least);
        before - self.identities
    }

    /// Splits off every `n`th identity for validation: (rest, held out).
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

/// Share of its own size by which the surroundings of a person are kept on each side.
const MARGIN: f32 = 0.15;

/// Cuts a person out of a frame together with some surroundings; `None` when the box is not in the frame.
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

/// A picture that is a crop already.
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
    fn an_identity_with_one_picture_is_left_out_and_the_rest_keep_their_relations() {
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
    fn an_empty_set_is_refused() {
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
