//! What a network's distances mean, from pairs of people it has not learnt from: the two numbers of [`Calibration`] (after
//! Platt 1999), and how often strangers are alike ([`StrangerTable`]).

use std::fmt::Write as _;

use ndarray::ArrayView2;

use crate::track::similarity::{Calibration, StrangerTable};
use crate::train::dataset::Dataset;
use crate::train::learner::labels;
use crate::train::retrieval::{Pairs, distances};

/// So many pairs of each kind of each data set calibrate.
const OF_EACH: usize = 4000;
/// The rates of a table of strangers, as far down as they can be measured.
const RATES: [f64; 12] = [
    0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0005, 0.0002, 0.0001,
];
/// A rate is measured where at least so many pairs of strangers of every data set stand behind it.
const BEHIND: f64 = 10.0;

/// A data set as a network sees it.
#[derive(Debug, Clone)]
pub struct Judged {
    /// Its name.
    pub name: String,
    /// How many people are in it.
    pub people: usize,
    /// Its pairs of pictures.
    pub pairs: Pairs,
}

impl Judged {
    /// The pairs of a data set's pictures, of which `embeddings` are the rows, [n, D]. Only people who are certainly two
    /// count as strangers. `None` without pairs of both kinds.
    pub fn of(set: &Dataset, embeddings: ArrayView2<'_, f32>) -> Option<Self> {
        let pairs = Pairs::of(
            &distances(embeddings),
            &labels(&set.crops),
            set.protocol,
            |a, b| set.different(a, b),
        );
        let both = !pairs.same.is_empty() && !pairs.different.is_empty();
        both.then(|| Judged {
            name: set.name.clone(),
            people: set.identities,
            pairs,
        })
    }

    /// Equal error rate, and the distance it is at.
    fn equal_error(&self) -> (f64, f32) {
        self.pairs
            .equal_error()
            .expect("there are pairs of both kinds, or it would not have been made")
    }
}

/// What distances mean on several data sets.
#[derive(Debug, Clone, PartialEq)]
pub struct Fitted {
    /// Fitted with all sets weighing the same.
    pub calibration: Calibration,
    /// How often strangers are alike on the worst set, which may be another at each distance. `None` where too few pairs were
    /// compared.
    pub strangers: Option<StrangerTable>,
}

/// Fits both to data sets; the sets `more` count for how often strangers are alike only. `None` without any pair.
pub fn fit(sets: &[Judged], more: &[Judged]) -> Option<Fitted> {
    let mut all = Pairs::default();
    for pairs in sets.iter().filter_map(|s| s.pairs.spread(OF_EACH)) {
        all.same.extend(pairs.same);
        all.different.extend(pairs.different);
    }
    Some(Fitted {
        calibration: calibrate(&all.sorted())?,
        strangers: strangers(sets.iter().chain(more)),
    })
}

/// At each rate the least distance at which any set has it: the greatest false accept rate of all sets at each distance.
fn strangers<'a>(sets: impl Iterator<Item = &'a Judged> + Clone) -> Option<StrangerTable> {
    let mut points: Vec<(f32, f32)> = Vec::new();
    for rate in RATES {
        let at = |s: &Judged| {
            let behind = (rate * s.pairs.different.len() as f64).floor();
            (behind >= BEHIND).then(|| s.pairs.different[behind as usize - 1])
        };
        let Some(distances) = sets.clone().map(at).collect::<Option<Vec<f32>>>() else {
            break;
        };
        // Four decimals in the file, rounded down: never more strangers than are stated.
        let distance = (distances.into_iter().fold(f32::INFINITY, f32::min) * 1e4).floor() / 1e4;
        // Where many strangers have the same distance the greater rate stands for it.
        if (0.0..2.0).contains(&distance) && points.last().is_none_or(|p| distance < p.0) {
            points.push((distance, rate as f32));
        }
    }
    StrangerTable::new(points).ok()
}

/// The set that a threshold fits worst: the one whose false accepts or false rejects are farthest from its equal error rate.
fn worst<'a>(sets: &'a [Judged], calibration: &Calibration) -> Option<&'a Judged> {
    let miss = |s: &Judged| {
        let ((eer, _), [accepted, rejected]) = (s.equal_error(), errors(s, calibration));
        (accepted - eer).abs().max((rejected - eer).abs())
    };
    sets.iter().max_by(|a, b| miss(a).total_cmp(&miss(b)))
}

/// False accepts and false rejects at similarity 0.5.
fn errors(s: &Judged, calibration: &Calibration) -> [f64; 2] {
    [
        s.pairs.accepted_different(calibration.threshold),
        1.0 - s.pairs.accepted_same(calibration.threshold),
    ]
}

/// A line a set: how good the network is there, and what errors a similarity of 0.5 makes; then what was fitted. The sets
/// `others`, to which the similarity was not fitted, follow.
pub fn report(sets: &[Judged], others: &[Judged], fitted: &Fitted) -> String {
    let (percent, c) = (|v: f64| format!("{:.1}", 100.0 * v), &fitted.calibration);
    let mut out = String::from(
        "data                                 people      same   strangers   EER  distance | at similarity 0.5: false accepts, rejects\n",
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
        "worst: {worst}\ncalibration (slope, threshold): {}\nstrangers (rate@distance, of the worst set at each): {table}\n",
        c.entry()
    )
}

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

    /// Pairs drawn so that at distance d a share 1 / (1 + exp(15 (d - 0.5))) is of one person.
    #[test]
    fn a_known_slope_is_found_again() {
        let truth = Calibration {
            slope: 15.0,
            threshold: 0.5,
        };
        let (mut pairs, mut rng) = (Pairs::default(), fastrand::Rng::with_seed(3));
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
    fn perfectly_parted_pairs_give_a_finite_slope() {
        let pairs = Pairs {
            same: vec![0.1, 0.2],
            different: vec![0.8, 0.9],
        };
        let c = calibrate(&pairs).expect("both kinds");
        assert!(c.slope.is_finite() && c.similarity(0.1) > 0.5 && c.similarity(0.9) < 0.5);
    }

    fn judged(name: &str, same: (f32, f32), different: (f32, f32)) -> Judged {
        let even = |(low, high): (f32, f32)| {
            (0..20_000)
                .map(|i| low + (high - low) * (i as f32 + 0.5) / 20_000.0)
                .collect()
        };
        Judged {
            name: name.into(),
            people: 9,
            pairs: Pairs {
                same: even(same),
                different: even(different),
            },
        }
    }

    #[test]
    fn strangers_are_as_alike_as_on_the_worst_set() {
        let (far, near) = (
            judged("far", (0.0, 0.5), (0.4, 1.4)),
            judged("near", (0.0, 0.3), (0.2, 1.2)),
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
        // Ten pairs of 20,000 are a rate of 0.0005: nothing is said below.
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
    fn the_calibration_weighs_small_sets_as_much_as_large_ones() {
        let (large, mut small) = (
            judged("large", (0.0, 0.4), (0.2, 1.2)),
            judged("small", (0.2, 0.8), (0.6, 1.6)),
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
    fn sets_for_the_table_alone_leave_the_similarity_as_it_is() {
        let (far, near) = (
            judged("far", (0.0, 0.5), (0.4, 1.4)),
            judged("near", (0.0, 0.3), (0.2, 1.2)),
        );
        let (alone, both) = (
            fit(std::slice::from_ref(&far), &[]).expect("pairs"),
            fit(&[far], &[near]).expect("pairs"),
        );
        assert_eq!(alone.calibration, both.calibration);
        let limit = |f: &Fitted| {
            f.strangers
                .as_ref()
                .and_then(|s| s.limit(0.01))
                .expect("measured")
        };
        assert!((limit(&alone) - 0.41).abs() < 1e-3 && (limit(&both) - 0.21).abs() < 1e-3);
    }

    #[test]
    fn too_few_strangers_make_no_table() {
        let few = Judged {
            name: "few".into(),
            people: 2,
            pairs: Pairs {
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
