//! Search for better parameters: first at random, then near the best ones found so far, with
//! decreasing steps.
//!
//! Random search finds better parameters than a grid if few of many parameters have an effect
//! (Bergstra and Bengio 2012). The last 60 % of the trials are a (1+n) evolution strategy, which
//! starts at the best point found.

use crate::eval::report::{Counts, Scores, combine};

/// A parameter to be searched.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// The dotted key in the configuration.
    pub key: String,
    /// Smallest value tried.
    pub low: f64,
    /// Largest value tried.
    pub high: f64,
    /// Value at the start of the search.
    pub start: f64,
}

/// One configuration that was evaluated.
#[derive(Debug, Clone)]
pub struct Trial {
    /// A value for every parameter.
    pub values: Vec<f64>,
    /// The counts of each sequence.
    pub counts: Vec<Counts>,
}

impl Trial {
    /// The objective over the selected sequences, counted together: the mean of HOTA and IDF1, in
    /// percent.
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

/// The mean of HOTA and IDF1, in percent.
pub fn objective(s: &Scores) -> f64 {
    (s.HOTA + s.IDF1) / 2.0
}

/// Estimate of the gain on other footage: parameters chosen on all other sequences are evaluated on
/// the held-out one.
#[derive(Debug, Clone, PartialEq)]
pub struct HeldOut {
    /// Index of the held-out sequence.
    pub sequence: usize,
    /// Objective of the starting parameters on that sequence.
    pub start: f64,
    /// Objective, on that sequence, of the parameters that are best on all other sequences.
    pub chosen: f64,
}

/// Trials per round. Trials of a round do not depend on each other, so that threads can evaluate
/// them in any order with the same result.
const ROUND: usize = 16;

/// Evaluates `trials` parameter sets, the starting one first. `evaluate` receives the parameter
/// sets of a round, and returns for each the counts of every sequence, or `None` if the
/// configuration is invalid. `on_round` receives all valid trials after each round. Returns the
/// valid trials; none if the starting set is invalid. The same seed gives the same trials.
pub fn search(
    parameters: &[Parameter],
    trials: usize,
    seed: u64,
    mut evaluate: impl FnMut(&[Vec<f64>]) -> Vec<Option<Vec<Counts>>>,
    mut on_round: impl FnMut(&[Trial]),
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
        on_round(&done);
    }
    done
}

/// The trial with the highest score over the selected sequences; the earliest of equal ones.
///
/// # Panics
/// When `trials` is empty.
pub fn best(trials: &[Trial], sequences: impl Fn(usize) -> bool + Copy) -> &Trial {
    let better = |a: &'_ (f64, &'_ Trial), b: (f64, &'_ Trial)| b.0 > a.0;
    let mut scored = trials.iter().map(|t| (t.score(sequences), t));
    let first = scored.next().expect("at least one trial");
    scored
        .fold(first, |a, b| if better(&a, b) { b } else { a })
        .1
}

/// For each sequence, the objective of the parameters that are best on all others, and of the
/// starting parameters (the first trial).
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
        // About half of the parameters are changed, by a nearly Gaussian step (a sum of uniform
        // ones).
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

    /// A sequence with one person, who is reported in more of its 100 frames the closer `x` is to
    /// 0.7.
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
    fn search_finds_the_best_value_and_is_deterministic_for_a_seed() {
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
    fn invalid_configurations_are_skipped() {
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
    fn overfitting_shows_on_the_held_out_sequence() {
        // The sequences have opposite optima: the best value for one gives a low score on the
        // other.
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
