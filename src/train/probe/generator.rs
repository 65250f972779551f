//! Probes by their number: the same stock, seed and number give the same picture.

use fastrand::Rng;

use crate::train::probe::cloth::{between, chance};
use crate::train::probe::degrade::degraded;
use crate::train::probe::recombine::{Stock, blended};

/// Goes up whenever the same seed gives other pictures than before: stores of judged pictures depend on it.
pub const VERSION: u32 = 2;

/// Makes probes.
#[derive(Debug, Clone)]
pub struct Generator {
    stock: Stock,
    seed: u64,
    /// Share of probes that are new people; the rest are figures as they are.
    recombined: f32,
}

impl Generator {
    /// A generator; `recombined` in [0, 1] is the share of new people.
    pub fn new(stock: Stock, seed: u64, recombined: f32) -> Self {
        Generator {
            stock,
            seed,
            recombined,
        }
    }

    /// Width and height of a probe, pixels.
    pub fn size(&self) -> (usize, usize) {
        self.stock.size
    }

    /// Probe number `number`: packed blue, green, red bytes.
    pub fn probe(&self, number: u64) -> Vec<u8> {
        let mut rng = Rng::with_seed(self.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ number);
        let rng = &mut rng;
        let kind = rng.f32();
        // A few show nobody: a teacher has something to say of those too, and a detector errs.
        let nobody = kind > 0.97;
        let mut picture = if nobody {
            self.stock.background(rng)
        } else if chance(rng, self.recombined) {
            self.stock.person(rng)
        } else {
            self.stock.unchanged(rng)
        };
        if kind < 0.03 || (nobody && kind < 0.98) {
            picture = blended(&picture, &self.stock.person(rng), between(rng, 0.2, 0.8));
        }
        degraded(picture, &self.stock, rng).to_bgr()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::probe::footage;
    use crate::train::synthetic;

    #[test]
    fn a_number_is_a_picture() {
        let size = (32, 64);
        let figures =
            footage::of_pictures(&synthetic::dataset(4, 4, 1).expect("people"), size).figures;
        let stock = Stock {
            figures: vec![figures],
            scenes: Vec::new(),
            size,
        };
        let generator = Generator::new(stock, 7, 0.9);
        let probes: Vec<Vec<u8>> = (0..20).map(|n| generator.probe(n)).collect();
        assert!(probes.iter().all(|p| p.len() == 3 * 32 * 64));
        assert_eq!(probes[5], generator.probe(5));
        assert!((1..20).all(|i| probes[i] != probes[i - 1]));
    }
}
