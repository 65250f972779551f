//! Calibration of a network's distances, on pairs of pictures of people on whom the network was not
//! trained: the two parameters of [`Calibration`] (after Platt 1999), and the false-accept rates
//! ([`StrangerTable`]).

use std::fmt::Write as _;

use ndarray::ArrayView2;

use crate::track::similarity::{Calibration, StrangerTable};
use crate::train::dataset::Dataset;
use crate::train::embed::labels;
use crate::train::retrieval::{PairDistances, distances};

/// Number of pairs of each kind and data set that are used for the calibration.
const PAIRS_PER_SET: usize = 4000;
/// The false-accept rates of a table, in descending order; small rates are left out if too few
/// pairs were measured.
const RATES: [f64; 12] = [
    0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0005, 0.0002, 0.0001,
];
/// A rate is measured only if every data set has at least this many pairs of strangers at it, that
/// is, if the rate times the set's number of such pairs reaches this.
const MIN_PAIRS: f64 = 10.0;

/// A data set with the distances that a network gives to its pairs.
#[derive(Debug, Clone)]
pub struct EvaluatedSet {
    /// Name of the data set.
    pub name: String,
    /// Number of people.
    pub people: usize,
    /// The distances of the set's pairs of pictures.
    pub pairs: PairDistances,
}

impl EvaluatedSet {
    /// Computes the distances of a data set's pairs from the embeddings of its pictures, [n, D].
    /// Only people who are certainly different count as strangers. `None` if there are no pairs of
    /// the same person, or none of strangers.
    pub fn of(set: &Dataset, embeddings: ArrayView2<'_, f32>) -> Option<Self> {
        let pairs = PairDistances::of(
            &distances(embeddings),
            &labels(&set.crops),
            set.protocol,
            |a, b| set.different(a, b),
        );
        let both = !pairs.same.is_empty() && !pairs.different.is_empty();
        both.then(|| EvaluatedSet {
            name: set.name.clone(),
            people: set.identities,
            pairs,
        })
    }

    /// The equal error rate, and the distance at which it occurs.
    fn equal_error(&self) -> (f64, f32) {
        self.pairs
            .equal_error()
            .expect("the constructor requires pairs of both kinds")
    }
}

/// Result of the calibration.
#[derive(Debug, Clone, PartialEq)]
pub struct FittedCalibration {
    /// Parameters fitted with equal weight for all data sets.
    pub calibration: Calibration,
    /// The highest false-accept rate of all data sets at each distance. `None` if there are too few
    /// pairs.
    pub strangers: Option<StrangerTable>,
}

/// Fits the calibration and the false-accept rates. The sets `more` contribute to the false-accept
/// rates only. `None` if there are no pairs of the same person, or none of strangers.
pub fn fit(sets: &[EvaluatedSet], more: &[EvaluatedSet]) -> Option<FittedCalibration> {
    let mut all = PairDistances::default();
    for pairs in sets.iter().filter_map(|s| s.pairs.spread(PAIRS_PER_SET)) {
        all.same.extend(pairs.same);
        all.different.extend(pairs.different);
    }
    Some(FittedCalibration {
        calibration: calibrate(&all.sorted())?,
        strangers: strangers(sets.iter().chain(more)),
    })
}

/// For each rate the smallest distance at which any data set reaches it.
fn strangers<'a>(sets: impl Iterator<Item = &'a EvaluatedSet> + Clone) -> Option<StrangerTable> {
    let mut points: Vec<(f32, f32)> = Vec::new();
    for rate in RATES {
        let at = |s: &EvaluatedSet| {
            let behind = (rate * s.pairs.different.len() as f64).floor();
            (behind >= MIN_PAIRS).then(|| s.pairs.different[behind as usize - 1])
        };
        let Some(distances) = sets.clone().map(at).collect::<Option<Vec<f32>>>() else {
            break;
        };
        // The file has four decimals; distances are rounded down, so that the stated rate is an
        // upper bound.
        let distance = (distances.into_iter().fold(f32::INFINITY, f32::min) * 1e4).floor() / 1e4;
        // If several rates have the same distance, the highest is kept.
        if (0.0..2.0).contains(&distance) && points.last().is_none_or(|p| distance < p.0) {
            points.push((distance, rate as f32));
        }
    }
    StrangerTable::new(points).ok()
}

/// The data set to which the threshold fits worst: its false-accept or false-reject rate differs
/// most from its equal error rate.
fn worst<'a>(sets: &'a [EvaluatedSet], calibration: &Calibration) -> Option<&'a EvaluatedSet> {
    let miss = |s: &EvaluatedSet| {
        let ((eer, _), [accepted, rejected]) = (s.equal_error(), errors(s, calibration));
        (accepted - eer).abs().max((rejected - eer).abs())
    };
    sets.iter().max_by(|a, b| miss(a).total_cmp(&miss(b)))
}

/// False-accept and false-reject rates at similarity 0.5.
fn errors(s: &EvaluatedSet, calibration: &Calibration) -> [f64; 2] {
    [
        s.pairs.accepted_different(calibration.threshold),
        1.0 - s.pairs.accepted_same(calibration.threshold),
    ]
}

/// Formats one line per data set, with its equal error rate and its error rates at similarity 0.5,
/// and the fitted values. The sets `others`, to which the similarity was not fitted, are listed
/// last.
pub fn report(
    sets: &[EvaluatedSet],
    others: &[EvaluatedSet],
    fitted: &FittedCalibration,
) -> String {
    let (percent, c) = (|v: f64| format!("{:.1}", 100.0 * v), &fitted.calibration);
    let mut out = String::from(
        "data                                 people      same   strangers   EER  distance \
         | at similarity 0.5: false accepts, rejects\n",
    );
    for s in sets.iter().chain(others) {
        let ((eer, at), [accepted, rejected]) = (s.equal_error(), errors(s, c));
        let (same, different) = (s.pairs.same.len(), s.pairs.different.len());
        let (eer, accepted, rejected) = (percent(eer), percent(accepted), percent(rejected));
        let line = format!(
            "{:36} {:6} {same:9} {different:11} {eer:>5} {at:9.3} | {accepted:>35} {rejected:>8}",
            s.name, s.people
        );
        writeln!(out, "{line}").expect("writing to a string cannot fail");
    }
    let worst = worst(sets, c).map_or("", |s| s.name.as_str());
    let table = fitted
        .strangers
        .as_ref()
        .map_or_else(|| "none, too few pairs".into(), StrangerTable::to_string);
    out + &format!(
        "worst: {worst}\ncalibration (slope, threshold): {}\n\
         strangers (rate@distance, the highest rate of all sets): {table}\n",
        c.entry()
    )
}

/// Fits the parameters: the threshold is the distance of the equal error rate; the slope maximises
/// the likelihood, with equal weight for pairs of the same person and of strangers. `None` if there
/// are no pairs of one of these kinds.
pub fn calibrate(pairs: &PairDistances) -> Option<Calibration> {
    let (_, threshold) = pairs.equal_error()?;
    // Derivative of the log-likelihood with respect to the slope. The likelihood is concave, so its
    // derivative has one zero, which bisection finds.
    let gradient = |slope: f32| {
        let wrong = |d: f32, same: bool| {
            let p = f64::from(Calibration { slope, threshold }.similarity(d));
            (f64::from(u8::from(same)) - p) * f64::from(threshold - d)
        };
        let mean =
            |d: &[f32], same| d.iter().map(|&d| wrong(d, same)).sum::<f64>() / d.len() as f64;
        mean(&pairs.same, true) + mean(&pairs.different, false)
    };
    let (mut low, mut high) = (0.1f32, 1000.0f32);
    for _ in 0..60 {
        let middle = (low * high).sqrt();
        if gradient(middle) > 0.0 {
            low = middle
        } else {
            high = middle
        }
    }
    Some(Calibration {
        slope: (low * high).sqrt(),
        threshold,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pairs drawn so that at distance d a share of 1 / (1 + exp(15 (d - 0.5))) is of the same
    /// person.
    #[test]
    fn a_known_slope_is_recovered() {
        let truth = Calibration {
            slope: 15.0,
            threshold: 0.5,
        };
        let (mut pairs, mut rng) = (PairDistances::default(), fastrand::Rng::with_seed(3));
        for _ in 0..40_000 {
            let d = rng.f32();
            if rng.f32() < truth.similarity(d) {
                pairs.same.push(d)
            } else {
                pairs.different.push(d)
            }
        }
        let found = calibrate(&pairs.sorted()).expect("both kinds");
        assert!(
            (found.slope - 15.0).abs() < 0.7 && (found.threshold - 0.5).abs() < 0.02,
            "{found:?}"
        );
    }

    #[test]
    fn perfectly_separated_pairs_give_a_finite_slope() {
        let pairs = PairDistances {
            same: vec![0.1, 0.2],
            different: vec![0.8, 0.9],
        };
        let c = calibrate(&pairs).expect("both kinds");
        assert!(c.slope.is_finite() && c.similarity(0.1) > 0.5 && c.similarity(0.9) < 0.5);
    }

    fn evaluated(name: &str, same: (f32, f32), different: (f32, f32)) -> EvaluatedSet {
        let even = |(low, high): (f32, f32)| {
            (0..20_000)
                .map(|i| low + (high - low) * (i as f32 + 0.5) / 20_000.0)
                .collect()
        };
        EvaluatedSet {
            name: name.into(),
            people: 9,
            pairs: PairDistances {
                same: even(same),
                different: even(different),
            },
        }
    }

    #[test]
    fn false_accept_rates_are_those_of_the_worst_set() {
        let (far, near) = (
            evaluated("far", (0.0, 0.5), (0.4, 1.4)),
            evaluated("near", (0.0, 0.3), (0.2, 1.2)),
        );
        let fitted = fit(&[far.clone(), near.clone()], &[]).expect("pairs of both kinds");
        let table = fitted.strangers.clone().expect("enough pairs");
        for rate in [0.5f32, 0.1, 0.01, 0.001] {
            let limit = table.limit(rate).expect("measured");
            assert!((limit - (0.2 + rate)).abs() < 1e-3, "{rate} at {limit}");
            for set in [&far, &near] {
                assert!(
                    set.pairs.accepted_different(limit) <= f64::from(rate) + 1e-6,
                    "{}: {rate}",
                    set.name
                );
            }
        }
        // Ten pairs among 20,000 are a rate of 0.0005; smaller rates are not measured.
        assert_eq!(
            (table.limit(0.0004), table.limit(0.0005).is_some()),
            (None, true)
        );
        let said = report(&[far.clone(), near], &[far], &fitted);
        assert!(
            said.contains("worst: ")
                && said.contains(&table.to_string())
                && said.lines().count() == 7,
            "{said}"
        );
    }

    #[test]
    fn calibration_gives_equal_weight_to_small_and_large_sets() {
        let (large, mut small) = (
            evaluated("large", (0.0, 0.4), (0.2, 1.2)),
            evaluated("small", (0.2, 0.8), (0.6, 1.6)),
        );
        let even = fit(&[large.clone(), small.clone()], &[])
            .expect("pairs")
            .calibration;
        small.pairs = small.pairs.spread(50).expect("pairs");
        let uneven = fit(&[large, small], &[]).expect("pairs").calibration;
        assert!(
            (even.threshold - uneven.threshold).abs() < 0.01,
            "{even:?} {uneven:?}"
        );
    }

    #[test]
    fn additional_sets_do_not_change_the_similarity() {
        let (far, near) = (
            evaluated("far", (0.0, 0.5), (0.4, 1.4)),
            evaluated("near", (0.0, 0.3), (0.2, 1.2)),
        );
        let (alone, both) = (
            fit(std::slice::from_ref(&far), &[]).expect("pairs"),
            fit(&[far], &[near]).expect("pairs"),
        );
        assert_eq!(alone.calibration, both.calibration);
        let limit = |f: &FittedCalibration| {
            f.strangers
                .as_ref()
                .and_then(|s| s.limit(0.01))
                .expect("measured")
        };
        assert!((limit(&alone) - 0.41).abs() < 1e-3 && (limit(&both) - 0.21).abs() < 1e-3);
    }

    #[test]
    fn too_few_pairs_give_no_table() {
        let few = EvaluatedSet {
            name: "few".into(),
            people: 2,
            pairs: PairDistances {
                same: vec![0.1, 0.2],
                different: vec![0.8, 0.9],
            },
        };
        let fitted = fit(std::slice::from_ref(&few), &[]).expect("both kinds");
        assert_eq!(fitted.strangers, None);
        assert!(report(&[few], &[], &fitted).contains("too few pairs"));
        assert_eq!(fit(&[], &[]), None);
    }
}
