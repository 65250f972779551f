//! Batches of labelled pictures: selection of people and pictures, and augmentation.

use std::sync::Arc;

use derive_setters::Setters;
use fastrand::Rng;
use ndarray::{Array3, Array4, ArrayViewMut3, Axis};
use serde::{Deserialize, Serialize};

use crate::geometry::BBox;
use crate::infer::{PixelFormat, tensor};
use crate::train::dataset::{Crop, Dataset};
use crate::train::error::TrainError;
use crate::train::loss::Relations;
use crate::train::network::{Design, Inputs};

/// Augmentation of pictures. 0 disables a kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Setters)]
#[serde(deny_unknown_fields, default)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct AugmentConfig {
    /// Share, in [0, 1], of pictures that are mirrored.
    pub flip: f32,
    /// Maximum shift of the cropped region and maximum change of its size, as a share of the
    /// person's box; simulates detector errors.
    pub shift: f32,
    /// Maximum relative change of contrast; brightness changes by at most 0.3 times this, on the
    /// scale of [0, 1].
    pub brightness: f32,
    /// Maximum relative change of the contrast of each colour channel by itself; simulates other
    /// cameras' colour casts.
    pub color: f32,
    /// Share, in [0, 1], of pictures in which a rectangle is filled with one colour (Zhong et al.
    /// 2020); simulates occlusions.
    pub erase: f32,
    /// Share, in [0, 1], of pictures that are scaled down to 25 to 75 % and up again; simulates
    /// distant people.
    pub far: f32,
}

impl Default for AugmentConfig {
    fn default() -> Self {
        AugmentConfig {
            flip: 0.5,
            shift: 0.08,
            brightness: 0.2,
            color: 0.06,
            erase: 0.3,
            far: 0.3,
        }
    }
}

/// A batch for one step.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The pictures.
    pub inputs: Inputs,
    /// Pairs of pictures that show the same person, and pairs that certainly show two people.
    pub relations: Relations,
    /// Class of each picture for classification: its identity, numbered over the data sets in which
    /// all identities are certainly different people; `None` for pictures of other data sets.
    pub classes: Vec<Option<usize>>,
}

/// Selects P people with K pictures each, drawing the people evenly from all data sets.
#[derive(Debug, Clone)]
pub struct Sampler {
    sets: Arc<Vec<(Dataset, Vec<Vec<usize>>)>>,
    people: usize,
    views: usize,
    /// Design of the tower that the batches train.
    design: Design,
    augment: AugmentConfig,
    seed: u64,
}

impl Sampler {
    /// Creates a sampler of `people` times `views` pictures per batch for a tower of the given
    /// design.
    ///
    /// # Errors
    /// Fails when `people` or `views` is below 2, and when the data sets together have fewer than
    /// `people` identities with at least two pictures.
    pub fn new(
        sets: Vec<Dataset>,
        (people, views): (usize, usize),
        design: Design,
        augment: AugmentConfig,
        seed: u64,
    ) -> Result<Self, TrainError> {
        let mut with_index = Vec::new();
        for mut set in sets {
            let rare = set.drop_rare(2);
            if rare > 0 {
                tracing::warn!(
                    "{}: {rare} identities with a single picture form no pair and are dropped",
                    set.name
                );
            }
            if set.identities > 0 {
                let index = set.by_identity();
                with_index.push((set, index));
            }
        }
        let total: usize = with_index.iter().map(|(s, _)| s.identities).sum();
        if total < people || people < 2 || views < 2 {
            return Err(TrainError::Setting(format!(
                "a batch of {people} people with {views} pictures each needs at least 2 of both; \
                 the data have {total} people with two pictures or more"
            )));
        }
        Ok(Sampler {
            sets: Arc::new(with_index),
            people,
            views,
            design,
            augment,
            seed,
        })
    }

    /// The batch of a step. It depends on the step only, so that a resumed run gets the same
    /// batches.
    pub fn batch(&self, step: usize) -> Batch {
        let mut rng = Rng::with_seed(self.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ step as u64);
        let mut orders: Vec<Vec<usize>> = self
            .sets
            .iter()
            .map(|(s, _)| shuffled(s.identities, &mut rng))
            .collect();
        let mut chosen: Vec<(usize, usize, &Crop)> = Vec::with_capacity(self.people * self.views);
        let mut set = rng.usize(0..self.sets.len());
        for _ in 0..self.people {
            while orders[set].is_empty() {
                set = (set + 1) % self.sets.len();
            }
            let identity = orders[set].pop().expect("not empty");
            let (data, index) = &self.sets[set];
            let order = shuffled(index[identity].len(), &mut rng);
            // Pictures are reused, with other augmentation, if a person has too few.
            chosen.extend((0..self.views).map(|k| {
                (
                    set,
                    identity,
                    &data.crops[index[identity][order[k % order.len()]]],
                )
            }));
            set = (set + 1) % self.sets.len();
        }
        let mut crops = Array4::zeros((chosen.len(), 3, self.design.size.0, self.design.size.1));
        crops
            .axis_iter_mut(Axis(0))
            .zip(&chosen)
            .for_each(|(out, (_, _, c))| altered(c, &self.augment, &mut rng, out));
        let n = chosen.len();
        let pair = |f: &dyn Fn(usize, usize) -> bool| (0..n * n).map(|k| f(k / n, k % n)).collect();
        let same = pair(&|i, j| i != j && chosen[i].0 == chosen[j].0 && chosen[i].1 == chosen[j].1);
        let different = pair(&|i, j| {
            chosen[i].0 != chosen[j].0
                || self.sets[chosen[i].0].0.different(chosen[i].1, chosen[j].1)
        });
        let offsets = self.class_offsets();
        let classes = chosen
            .iter()
            .map(|(set, identity, _)| offsets[*set].map(|o| o + identity))
            .collect();
        Batch {
            inputs: self.design.inputs(crops),
            relations: Relations {
                count: n,
                same,
                different,
            },
            classes,
        }
    }

    /// First class number of each data set; `None` if two of its identities may be the same person.
    fn class_offsets(&self) -> Vec<Option<usize>> {
        let mut next = 0;
        let offset = |(s, _): &(Dataset, Vec<Vec<usize>>)| {
            s.apart.is_none().then(|| {
                next += s.identities;
                next - s.identities
            })
        };
        self.sets.iter().map(offset).collect()
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.sets
            .iter()
            .filter(|(s, _)| s.apart.is_none())
            .map(|(s, _)| s.identities)
            .sum()
    }

    /// At most `most` pictures without augmentation, evenly from all data sets, to compute the
    /// network's initialisation.
    pub fn plain(&self, most: usize) -> Vec<&Crop> {
        let each = most / self.sets.len();
        self.sets
            .iter()
            .flat_map(|(s, _)| {
                s.crops
                    .iter()
                    .step_by(s.crops.len().div_ceil(each.max(1)).max(1))
            })
            .collect()
    }
}

fn shuffled(n: usize, rng: &mut Rng) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    rng.shuffle(&mut order);
    order
}

/// Writes a crop without augmentation, as the tracker does.
pub fn write_plain(crop: &Crop, out: ArrayViewMut3<'_, f32>) {
    tensor::write_crop(&crop.image, &crop.person, &PixelFormat::UNIT_RGB, out);
}

fn altered(crop: &Crop, config: &AugmentConfig, rng: &mut Rng, mut out: ArrayViewMut3<'_, f32>) {
    let mut signed = |most: f32| (2.0 * rng.f32() - 1.0) * most;
    let p = &crop.person;
    let (cx, cy) = p.center();
    let (cx, cy) = (
        cx + signed(config.shift) * p.width,
        cy + signed(config.shift) * p.height,
    );
    let region = BBox::from_center(
        cx,
        cy,
        p.width * (1.0 + signed(config.shift)),
        p.height * (1.0 + signed(config.shift)),
    );
    let (gain, bright) = (
        1.0 + signed(config.brightness),
        signed(config.brightness) * 0.3,
    );
    let cast: [f32; 3] = std::array::from_fn(|_| gain * (1.0 + signed(config.color)));
    let (_, height, width) = out.dim();
    if rng.f32() < config.far {
        let scale = 0.25 + 0.5 * rng.f32();
        let mut small = Array3::zeros((
            3,
            (height as f32 * scale) as usize,
            (width as f32 * scale) as usize,
        ));
        tensor::write_crop(
            &crop.image,
            &region,
            &PixelFormat::UNIT_RGB,
            small.view_mut(),
        );
        let (_, h, w) = small.dim();
        out.indexed_iter_mut()
            .for_each(|((c, y, x), v)| *v = small[[c, y * h / height, x * w / width]]);
    } else {
        tensor::write_crop(&crop.image, &region, &PixelFormat::UNIT_RGB, out.view_mut());
    }
    if rng.f32() < config.flip {
        out.rows_mut()
            .into_iter()
            .for_each(|mut row| row.as_slice_mut().expect("contiguous rows").reverse());
    }
    for (mut plane, cast) in out.axis_iter_mut(Axis(0)).zip(cast) {
        plane.mapv_inplace(|v| ((v - 0.4) * cast + 0.4 + bright).clamp(0.0, 1.0));
    }
    if rng.f32() < config.erase {
        let (h, w) = (
            rng.usize(height / 10..height / 3),
            rng.usize(width / 6..width / 2),
        );
        let (y, x) = (rng.usize(0..height - h), rng.usize(0..width - w));
        let mut fill: [f32; 3] = std::array::from_fn(|_| rng.f32());
        let plane = |c| out.index_axis(Axis(0), c);
        if plane(0) == plane(1) && plane(1) == plane(2) {
            // In a grey picture the rectangle is grey too, because a network could recognise a
            // coloured one.
            fill = [fill[0]; 3];
        }
        (0..3).for_each(|c| {
            out.slice_mut(ndarray::s![c, y..y + h, x..x + w])
                .fill(fill[c])
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Image;
    use crate::train::body::Network;
    use crate::train::dataset::whole;
    use crate::train::network::HeadKind;
    use crate::train::synthetic;

    const DESIGN: Design = Design {
        network: Network::Tiny,
        head: HeadKind::Stripes,
        colours: true,
        normalise: false,
        neck: false,
        size: (128, 64),
        dimension: 16,
        channels: 16,
        pixels: None,
    };

    #[test]
    fn a_batch_has_p_people_with_k_pictures_and_depends_on_the_step_only() {
        let sets = vec![
            synthetic::dataset(6, 4, 1).expect("people"),
            synthetic::dataset(5, 4, 2).expect("people"),
        ];
        let sampler =
            Sampler::new(sets, (4, 3), DESIGN, AugmentConfig::default(), 7).expect("enough people");
        let (a, b, c) = (sampler.batch(3), sampler.batch(3), sampler.batch(4));
        assert_eq!(a.inputs.crops.dim(), (12, 3, 128, 64));
        assert_eq!(a.inputs.crops, b.inputs.crops);
        assert_ne!(a.inputs.crops, c.inputs.crops);
        assert!(a.inputs.crops.iter().all(|v| (0.0..=1.0).contains(v)));
        assert_eq!(sampler.classes(), 11);
        assert!((0..12).all(|i| {
            (0..12)
                .all(|j| i == j || a.relations.same[12 * i + j] == (a.classes[i] == a.classes[j]))
        }));
        for i in 0..12 {
            assert_eq!((0..12).filter(|j| a.relations.same[12 * i + j]).count(), 2);
            assert_eq!(
                (0..12)
                    .filter(|j| a.relations.different[12 * i + j])
                    .count(),
                9
            );
        }
    }

    /// The planes of a square grey picture that is darker to the right, after augmentation.
    fn altered_ramp(config: &AugmentConfig, seed: u64) -> Array3<f32> {
        let bytes: Vec<u8> = (0..24 * 24)
            .flat_map(|i| [250 - 10 * (i % 24) as u8; 3])
            .collect();
        let crop = whole(Image::packed(24, 24, bytes.into()), 0, 0);
        let mut out = Array3::zeros((3, 32, 32));
        altered(&crop, config, &mut Rng::with_seed(seed), out.view_mut());
        out
    }

    #[test]
    fn disabled_augmentation_changes_nothing() {
        let off = AugmentConfig {
            flip: 0.0,
            shift: 0.0,
            brightness: 0.0,
            color: 0.0,
            erase: 0.0,
            far: 0.0,
        };
        let mirrored = |p: &Array3<f32>| p[[0, 16, 2]] < p[[0, 16, 29]];
        let plain = altered_ramp(&off, 0);
        assert!((0..50).all(|seed| altered_ramp(&off, seed) == plain) && !mirrored(&plain));
        let no_flip = AugmentConfig {
            flip: 0.0,
            erase: 0.0,
            ..AugmentConfig::default()
        };
        assert!((0..50).all(|seed| !mirrored(&altered_ramp(&no_flip, seed))));
        assert!((0..50).any(|seed| mirrored(&altered_ramp(
            &AugmentConfig {
                flip: 0.5,
                ..no_flip.clone()
            },
            seed
        ))));
    }

    #[test]
    fn erasing_keeps_a_grey_picture_grey() {
        let config = AugmentConfig {
            color: 0.0,
            erase: 1.0,
            ..AugmentConfig::default()
        };
        for seed in 0..20 {
            let p = altered_ramp(&config, seed);
            assert_eq!(p.index_axis(Axis(0), 0), p.index_axis(Axis(0), 1));
            assert_eq!(p.index_axis(Axis(0), 1), p.index_axis(Axis(0), 2));
        }
    }

    #[test]
    fn too_few_people_for_a_batch_are_rejected() {
        let e = Sampler::new(
            vec![synthetic::dataset(3, 2, 1).expect("people")],
            (8, 2),
            DESIGN,
            AugmentConfig::default(),
            1,
        )
        .expect_err("only three people");
        assert!(
            e.to_string().contains("8 people") && e.to_string().contains("have 3 people"),
            "{e}"
        );
    }

    #[test]
    fn identities_that_may_be_one_person_are_not_counted_as_different() {
        let mut data = synthetic::dataset(3, 2, 1).expect("people");
        data.apart = Some([(0, 1)].into());
        let batch = Sampler::new(vec![data], (3, 2), DESIGN, AugmentConfig::default(), 1)
            .expect("enough")
            .batch(0);
        assert_eq!(batch.classes, [None; 6]);
        assert_eq!(batch.relations.different.iter().filter(|d| **d).count(), 8);
    }
}
