//! Search for a better configuration: random first, then around the best found, with a step that shrinks.
//!
//! Random search beats a grid when few of many numbers matter (Bergstra and Bengio 2012); the second half is a (1+n)
//! evolution strategy, which climbs from the best point found.

use crate::eval::report::{Counts, Scores, combine};

/// A number that is searched for.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// Its dotted key in the configuration.
    pub key: String,
    /// The least value tried.
    pub low: f64,
    /// The greatest value tried.
    pub high: f64,
    /// The value the search starts from.
    pub start: f64,
}

/// One configuration tried.
#[derive(Debug, Clone)]
pub struct Trial {
    /// A value for every parameter.
    pub values: Vec<f64>,
    /// What each sequence gave.
    pub counts: Vec<Counts>,
}

impl Trial {
    /// The objective over the sequences named: the mean of HOTA and IDF1 of all their frames together, in percent.
    pub fn score(&self, sequences: impl Fn(usize) -> bool) -> f64 {
        let of = self
            .counts
            .iter()
            .enumerate()
            .filter(|(i, _)| sequences(*i))
            .map(|(_, c)| c);
        objective(&combine(of).scores(""))
    }
}

/// The mean of HOTA and IDF1, percent.
pub fn objective(s: &Scores) -> f64 {
    (s.HOTA + s.IDF1) / 2.0
}

/// How much of a gain is luck: what is chosen on the other sequences is judged on the one left out.
#[derive(Debug, Clone, PartialEq)]
pub struct HeldOut {
    /// Which sequence was left out.
    pub sequence: usize,
    /// The starting configuration there.
    pub start: f64,
    /// The configuration there that is best on all other sequences.
    pub chosen: f64,
}

/// Trials of one round share no knowledge, so that threads may take them in any order with one and the same result.
const ROUND: usize = 16;

/// Tries `trials` configurations, the starting one first. `evaluate` takes a round of them and gives for each the counts of
/// every sequence, or `None` where the values do not make a valid configuration. The same seed gives the same trials.
pub fn search(
    parameters: &[Parameter],
    trials: usize,
    seed: u64,
    mut evaluate: impl FnMut(&[Vec<f64>]) -> Vec<Option<Vec<Counts>>>,
    mut told: impl FnMut(&[Trial]),
) -> Vec<Trial> {
    let mut run = |round: Vec<Vec<f64>>| {
        let counts = evaluate(&round);
        round
            .into_iter()
            .zip(counts)
            .filter_map(|(values, counts)| {
                Some(Trial {
                    values,
                    counts: counts?,
                })
            })
            .collect::<Vec<Trial>>()
    };
    let mut done = run(vec![parameters.iter().map(|p| p.start).collect()]);
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut tried = 1;
    while tried < trials && !done.is_empty() {
        let progress = tried as f64 / trials as f64;
        let best = best(&done, |_| true).values.clone();
        let round: Vec<Vec<f64>> = (0..ROUND.min(trials - tried))
            .map(|_| propose(parameters, &best, progress, &mut rng))
            .collect();
        tried += round.len();
        done.extend(run(round));
        told(&done);
    }
    done
}

/// The best trial over the sequences named; the earlier one of equals.
///
/// # Panics
/// When there is none.
pub fn best(trials: &[Trial], sequences: impl Fn(usize) -> bool + Copy) -> &Trial {
    let better = |a: &'_ (f64, &'_ Trial), b: (f64, &'_ Trial)| b.0 > a.0;
    let mut scored = trials.iter().map(|t| (t.score(sequences), t));
    let first = scored.next().expect("at least one trial");
    scored
        .fold(first, |a, b| if better(&a, b) { b } else { a })
        .1
}

/// For each sequence what the best configuration of the others gives there, beside the starting one (the first trial).
pub fn held_out(trials: &[Trial]) -> Vec<HeldOut> {
    let sequences = trials.first().map_or(0, |t| t.counts.len());
    let judge = |s: usize| HeldOut {
        sequence: s,
        start: trials[0].score(|i| i == s),
        chosen: best(trials, |i| i != s).score(|i| i == s),
    };
    if sequences < 2 {
        Vec::new()
    } else {
        (0..sequences).map(judge).collect()
    }
}

fn propose(
    parameters: &[Parameter],
    best: &[f64],
    progress: f64,
    rng: &mut fastrand::Rng,
) -> Vec<f64> {
    let everywhere = progress < 0.4;
    let width = 0.25 * (1.0 - progress);
    let one = |(p, &b): (&Parameter, &f64)| {
        if everywhere {
            return p.low + rng.f64() * (p.high - p.low);
        }
        // Some numbers move, by a sum of uniform steps that is nearly Gaussian; the others stay.
        let step: f64 = (0..4).map(|_| rng.f64() - 0.5).sum::<f64>() * 1.73;
        if rng.f64() < 0.5 {
            (b + width * step * (p.high - p.low)).clamp(p.low, p.high)
        } else {
            b
        }
    };
    parameters.iter().zip(best).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::{Aligned, Sequence, score};

    /// A sequence of which the person is reported in as many of a hundred frames as `x` comes near 0.7.
    fn counts(x: f64) -> Counts {
        let found = (100.0 * (1.0 - (x - 0.7).abs())) as usize;
        let frame = |f: usize| {
            if f < found {
                Aligned {
                    truth: vec![0],
                    result: vec![0],
                    iou: vec![1.0],
                }
            } else {
                Aligned {
                    truth: vec![0],
                    result: vec![],
                    iou: vec![],
                }
            }
        };
        score(&Sequence {
            name: "s".into(),
            frames: (0..100).map(frame).collect(),
            truth_counts: vec![100],
            result_counts: vec![found],
        })
    }

    fn parameter() -> Parameter {
        Parameter {
            key: "x".into(),
            low: 0.0,
            high: 1.0,
            start: 0.1,
        }
    }

    #[test]
    fn the_best_value_is_found_and_one_seed_tries_the_same() {
        let find = |seed| {
            search(
                &[parameter()],
                120,
                seed,
                |round| round.iter().map(|v| Some(vec![counts(v[0])])).collect(),
                |_| {},
            )
        };
        let (one, again, other) = (find(7), find(7), find(8));
        let tried = |trials: &[Trial]| trials.iter().map(|t| t.values[0]).collect::<Vec<_>>();
        assert_eq!(tried(&one), tried(&again));
        assert_ne!(tried(&one), tried(&other));
        assert_eq!(one.len(), 120);
        assert!((best(&one, |_| true).values[0] - 0.7).abs() < 0.02);
    }

    #[test]
    fn an_invalid_configuration_is_passed_over() {
        let trials = search(
            &[parameter()],
            60,
            7,
            |round| {
                round
                    .iter()
                    .map(|v| (v[0] < 0.5).then(|| vec![counts(v[0])]))
                    .collect()
            },
            |_| {},
        );
        assert!(trials.len() < 60 && trials.iter().all(|t| t.values[0] < 0.5));
    }

    #[test]
    fn a_gain_that_is_luck_shows_on_the_sequence_left_out() {
        // The two sequences want opposite things: what is best for one is bad for the other.
        let trials = search(
            &[Parameter {
                start: 0.5,
                ..parameter()
            }],
            60,
            7,
            |round| {
                round
                    .iter()
                    .map(|v| Some(vec![counts(v[0]), counts(1.0 - v[0])]))
                    .collect()
            },
            |_| {},
        );
        let held = held_out(&trials);
        assert_eq!(held.len(), 2);
        assert!(held.iter().all(|h| h.chosen < h.start), "{held:?}");
    }
}
