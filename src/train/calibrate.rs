//! The two numbers of [`Calibration`], from pairs of people the network has not learnt from (after Platt 1999).

use crate::track::similarity::Calibration;
use crate::train::retrieval::Pairs;

/// The threshold is the distance of equal errors; the slope is the one under which the pairs are most likely, both kinds
/// weighing the same. `None` without pairs of both kinds.
pub fn calibrate(pairs: &Pairs) -> Option<Calibration> {
    let (_, threshold) = pairs.equal_error()?;
    // Of the log-likelihood by the slope: concave, so that its slope has one zero, found by halving.
    let gradient = |slope: f32| {
        let wrong = |d: f32, same: bool| {
            let p = f64::from(Calibration { slope, threshold }.similarity(d));
            (f64::from(u8::from(same)) - p) * f64::from(threshold - d)
        };
        let mean = |d: &[f32], same| d.iter().map(|&d| wrong(d, same)).sum::<f64>() / d.len() as f64;
        mean(&pairs.same, true) + mean(&pairs.different, false)
    };
    let (mut low, mut high) = (0.1f32, 1000.0f32);
    for _ in 0..60 {
        let middle = (low * high).sqrt();
        if gradient(middle) > 0.0 { low = middle } else { high = middle }
    }
    Some(Calibration { slope: (low * high).sqrt(), threshold })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pairs drawn so that at distance d a share 1 / (1 + exp(15 (d - 0.5))) is of one person.
    #[test]
    fn a_known_slope_is_found_again() {
        let truth = Calibration { slope: 15.0, threshold: 0.5 };
        let (mut pairs, mut rng) = (Pairs::default(), fastrand::Rng::with_seed(3));
        for _ in 0..40_000 {
            let d = rng.f32();
            if rng.f32() < truth.similarity(d) { pairs.same.push(d) } else { pairs.different.push(d) }
        }
        let found = calibrate(&pairs.sorted()).expect("both kinds");
        assert!((found.slope - 15.0).abs() < 0.7 && (found.threshold - 0.5).abs() < 0.02, "{found:?}");
    }

    #[test]
    fn perfectly_parted_pairs_give_a_finite_slope() {
        let pairs = Pairs { same: vec![0.1, 0.2], different: vec![0.8, 0.9] };
        let c = calibrate(&pairs).expect("both kinds");
        assert!(c.slope.is_finite() && c.similarity(0.1) > 0.5 && c.similarity(0.9) < 0.5);
    }
}
