//! Identity measures (Ristani et al. 2016): each result track is assigned to at most one person
//! over the whole sequence.

use crate::eval::assignment::max_weight_assignment;
use crate::eval::sequence::Sequence;

const THRESHOLD: f64 = 0.5;

/// Counts of one sequence, or sums over several.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Identity {
    true_positives: f64,
    false_negatives: f64,
    false_positives: f64,
}

impl Identity {
    /// Computes the counts of one sequence.
    pub fn count(s: &Sequence) -> Self {
        let (people, tracks) = (s.truth_counts.len(), s.result_counts.len());
        let mut together = vec![0.0f64; people * tracks];
        for f in &s.frames {
            for (t, &i) in f.truth.iter().enumerate() {
                for (_, &j) in f
                    .result
                    .iter()
                    .enumerate()
                    .filter(|&(r, _)| f.iou(t, r) >= THRESHOLD)
                {
                    together[i * tracks + j] += 1.0;
                }
            }
        }
        // `sum` of an empty list is -0.
        let agreed = max_weight_assignment(people, tracks, &together)
            .iter()
            .fold(0.0, |sum, &(i, j)| sum + together[i * tracks + j]);
        let total = |counts: &[usize]| counts.iter().sum::<usize>() as f64;
        Identity {
            true_positives: agreed,
            false_negatives: total(&s.truth_counts) - agreed,
            false_positives: total(&s.result_counts) - agreed,
        }
    }

    /// Adds the counts of another sequence.
    pub fn add(&mut self, o: &Identity) {
        self.true_positives += o.true_positives;
        self.false_negatives += o.false_negatives;
        self.false_positives += o.false_positives;
    }

    /// IDF1: the harmonic mean of identity precision and recall; in [0, 1].
    pub fn idf1(&self) -> f64 {
        self.true_positives
            / (self.true_positives + 0.5 * self.false_positives + 0.5 * self.false_negatives)
                .max(1.0)
    }

    /// IDP, identity precision; in [0, 1].
    pub fn idp(&self) -> f64 {
        self.true_positives / (self.true_positives + self.false_positives).max(1.0)
    }

    /// IDR, identity recall; in [0, 1].
    pub fn idr(&self) -> f64 {
        self.true_positives / (self.true_positives + self.false_negatives).max(1.0)
    }
}
