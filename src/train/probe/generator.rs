//! Generates probes by number: the same sources, seed and number give the same picture.

use fastrand::Rng;

use crate::train::probe::cloth::{chance, uniform};
use crate::train::probe::degrade::degrade;
use crate::train::probe::recombine::{FigureSources, blend};

/// Increase this when a change of the code makes the same seed give other pictures: stores of the
/// teacher's outputs are identified by it.
pub const VERSION: u32 = 2;

/// Generator of probes.
#[derive(Debug, Clone)]
pub struct Generator {
    sources: FigureSources,
    seed: u64,
    /// Share of the probes of people that show recombined people; the others show unchanged
    /// figures.
    recombined: f32,
}

impl Generator {
    /// Creates a generator; `recombined` in [0, 1] is the share of the probes of people that show
    /// recombined people.
    pub fn new(sources: FigureSources, seed: u64, recombined: f32) -> Self {
        Generator {
            sources,
            seed,
            recombined,
        }
    }

    /// Width and height of a probe in pixels.
    pub fn size(&self) -> (usize, usize) {
        self.sources.size
    }

    /// Generates probe number `number`: packed blue, green, red bytes.
    pub fn probe(&self, number: u64) -> Vec<u8> {
        let mut rng = Rng::with_seed(self.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ number);
        let rng = &mut rng;
        let kind = rng.f32();
        // A few pictures show no person, as false detections do.
        let nobody = kind > 0.97;
        let mut picture = if nobody {
            self.sources.background(rng)
        } else if chance(rng, self.recombined) {
            self.sources.person(rng)
        } else {
            self.sources.unchanged(rng)
        };
        if kind < 0.03 || (nobody && kind < 0.98) {
            picture = blend(&picture, &self.sources.person(rng), uniform(rng, 0.2, 0.8));
        }
        degrade(picture, &self.sources, rng).to_bgr()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::probe::footage;
    use crate::train::synthetic;

    #[test]
    fn a_number_determines_the_picture() {
        let size = (32, 64);
        let figures =
            footage::of_pictures(&synthetic::dataset(4, 4, 1).expect("people"), size).figures;
        let sources = FigureSources {
            figures: vec![figures],
            scenes: Vec::new(),
            size,
        };
        let generator = Generator::new(sources, 7, 0.9);
        let probes: Vec<Vec<u8>> = (0..20).map(|n| generator.probe(n)).collect();
        assert!(probes.iter().all(|p| p.len() == 3 * 32 * 64));
        assert_eq!(probes[5], generator.probe(5));
        assert!((1..20).all(|i| probes[i] != probes[i - 1]));
    }
}
