//! The distribution of travel times from one camera to another: a histogram with a Gaussian kernel
//! (Parzen window, as in Javed et al. 2008), over time on a scale that is linear near zero and
//! logarithmic beyond.
//!
//! On this scale a bin is 0.25 s wide near zero and an eighth of the travel time beyond some
//! seconds, in both directions: where views overlap, travel times are negative.

use serde::{Deserialize, Serialize};

use crate::time::Seconds;

/// Width, in seconds, of the part of the scale that is about linear.
const LINEAR: f64 = 2.0;
/// Width of a bin on the scale.
const BIN: f64 = 0.125;
/// Shortest travel time: a person has been in both views for this long.
const SHORTEST: Seconds = Seconds(-300.0);
/// Longest travel time: a week.
const LONGEST: Seconds = Seconds(604_800.0);
/// Standard deviation of the kernel, in bins.
const KERNEL: f64 = 1.0;
/// Bins on each side of the kernel's centre.
const REACH: i64 = 3;

/// asinh(-SHORTEST / LINEAR); a test compares the two.
const ORIGIN: f64 = 5.703_793_585_582_131;
/// Place of the longest travel time on the scale, in bins; a test compares the two.
const END: f64 = 152.131_573_515_458_6;

/// Place of a travel time on the scale, in bins.
fn place(time: Seconds) -> f64 {
    let time = time.0.clamp(SHORTEST.0, LONGEST.0);
    ((time / LINEAR).asinh() + ORIGIN) / BIN
}

/// How many bins a second has at a travel time, 1/s.
fn bins_per_second(time: Seconds) -> f64 {
    1.0 / (BIN * time.0.hypot(LINEAR))
}

/// A density of travel times without knowledge, 1/s: uniform on the scale, so that it falls as
/// 1 / time.
pub(super) fn unknown(time: Seconds) -> f64 {
    bins_per_second(time) / END
}

/// Weighted travel times.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct TravelTimes {
    /// Number of the first bin.
    first: u16,
    /// Weights of the bins, without empty ones at the ends.
    bins: Vec<f32>,
    /// Sum of all weights.
    weight: f32,
}

impl TravelTimes {
    /// Adds a travel time.
    pub(super) fn add(&mut self, time: Seconds, weight: f32) {
        let center = place(time);
        let last = END as i64;
        let bin = |k: i64| (center.round() as i64 + k).clamp(0, last);
        let share = |k: i64| {
            let off = (center.round() + k as f64 - center) / KERNEL;
            (-0.5 * off * off).exp()
        };
        let total: f64 = (-REACH..=REACH).map(share).sum();
        self.extend_to(bin(-REACH) as usize, bin(REACH) as usize);
        for k in -REACH..=REACH {
            self.bins[bin(k) as usize - usize::from(self.first)] +=
                weight * (share(k) / total) as f32;
        }
        self.weight += weight;
    }

    /// Makes room for bins `from` to `to`.
    fn extend_to(&mut self, from: usize, to: usize) {
        if self.bins.is_empty() {
            self.first = from as u16;
        }
        let first = usize::from(self.first);
        if from < first {
            self.bins
                .splice(0..0, std::iter::repeat_n(0.0, first - from));
            self.first = from as u16;
        }
        let needed = to + 1 - usize::from(self.first);
        if self.bins.len() < needed {
            self.bins.resize(needed, 0.0);
        }
    }

    /// The density at a travel time, 1/s; the density without knowledge is added with the weight
    /// `prior`.
    pub(super) fn density(&self, time: Seconds, prior: f32) -> f64 {
        let at = place(time);
        let weight = |k: f64| {
            let bin = k as usize;
            let bin = bin.checked_sub(usize::from(self.first));
            bin.and_then(|b| self.bins.get(b))
                .map_or(0.0, |w| f64::from(*w))
        };
        let (low, part) = (at.floor(), at.fract());
        let counted = (1.0 - part) * weight(low) + part * weight(low + 1.0);
        (counted * bins_per_second(time) + f64::from(prior) * unknown(time))
            / f64::from(self.weight + prior)
    }

    /// Sum of the weights.
    pub(super) fn weight(&self) -> f32 {
        self.weight
    }

    /// The travel time that the share `share` does not exceed; `None` without weights.
    pub(super) fn quantile(&self, share: f32) -> Option<Seconds> {
        let mut rest = share * self.weight;
        let bin = self.bins.iter().position(|w| {
            rest -= w;
            rest <= 0.0
        });
        let bin = bin.filter(|_| self.weight > 0.0)? + usize::from(self.first);
        let at = bin as f64 * BIN - ORIGIN;
        Some(Seconds(LINEAR * at.sinh()))
    }

    /// Multiplies all weights.
    pub(super) fn scale(&mut self, factor: f32) {
        self.bins.iter_mut().for_each(|w| *w *= factor);
        self.weight *= factor;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The integral of a density over travel times.
    fn integral(density: impl Fn(Seconds) -> f64) -> f64 {
        let step = 0.01;
        let scale = |k: f64| Seconds(LINEAR * (k * BIN - ORIGIN).sinh());
        let middles = (0..(END / step) as usize).map(|i| (i as f64 + 0.5) * step);
        middles
            .map(|k| {
                let width = scale(k + step / 2.0) - scale(k - step / 2.0);
                density(scale(k)) * width.0
            })
            .sum()
    }

    #[test]
    fn the_constants_of_the_scale_are_those_of_its_ends() {
        assert!((ORIGIN + (SHORTEST.0 / LINEAR).asinh()).abs() < 1e-12);
        assert!((END - place(LONGEST)).abs() < 1e-9);
        assert_eq!(place(Seconds(-1e9)), 0.0);
        assert_eq!(place(Seconds(1e12)), END);
    }

    #[test]
    fn densities_integrate_to_one() {
        assert!((integral(unknown) - 1.0).abs() < 1e-2);
        let mut times = TravelTimes::default();
        for (time, weight) in [
            (-12.0, 0.5),
            (0.3, 1.0),
            (40.0, 2.0),
            (41.0, 1.0),
            (7000.0, 0.1),
        ] {
            times.add(Seconds(time), weight);
        }
        for prior in [0.0, 2.0] {
            let sum = integral(|t| times.density(t, prior));
            assert!((sum - 1.0).abs() < 1e-2, "{sum} with a prior of {prior}");
        }
    }

    #[test]
    fn a_learned_time_is_much_more_likely_than_others() {
        let mut times = TravelTimes::default();
        for time in [38.0, 40.0, 42.0, 44.0] {
            times.add(Seconds(time), 1.0);
        }
        let density = |t| times.density(Seconds(t), 1.0);
        assert!(density(41.0) > 20.0 * density(20.0));
        assert!(density(41.0) > 20.0 * density(90.0));
        assert!(density(-41.0) < density(20.0), "the direction counts");
        let median = times.quantile(0.5).expect("weights").0;
        assert!((36.0..46.0).contains(&median), "{median}");
        assert_eq!(TravelTimes::default().quantile(0.5), None);
    }

    #[test]
    fn memory_is_bounded_by_the_scale() {
        let mut times = TravelTimes::default();
        for k in -400..1000 {
            times.add(Seconds(f64::from(k) * 1000.0), 1.0);
        }
        assert!(times.bins.len() <= END as usize + 1, "{}", times.bins.len());
    }
}
