//! HOTA, higher order tracking accuracy (Luiten et al. 2021, IJCV), which weighs detection and
//! association equally.

use crate::eval::assignment::max_weight_assignment;
use crate::eval::sequence::Sequence;

/// The localisation thresholds alpha: 0.05, 0.10, ..., 0.95.
pub const ALPHAS: usize = 19;

/// Counts of one sequence, or sums over several, for each alpha.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Hota {
    true_positives: [f64; ALPHAS],
    false_negatives: [f64; ALPHAS],
    false_positives: [f64; ALPHAS],
    /// Sum over the true positives of A(c), equation 13 of the paper.
    association: [f64; ALPHAS],
    /// Sum over the true positives of their IoU.
    localisation: [f64; ALPHAS],
}

impl Hota {
    /// Counts one sequence.
    pub fn count(s: &Sequence) -> Self {
        let (people, tracks) = (s.truth_counts.len(), s.result_counts.len());
        // Overlap of each pair of identities over the whole sequence; it decides between equal
        // matches within a frame.
        let mut potential = vec![0.0f64; people * tracks];
        for f in &s.frames {
            let n = f.result.len();
            let by_column: Vec<f64> = (0..n)
                .map(|r| (0..f.truth.len()).map(|t| f.iou(t, r)).sum())
                .collect();
            for (t, &i) in f.truth.iter().enumerate() {
                let in_row: f64 = (0..n).map(|r| f.iou(t, r)).sum();
                for (r, &j) in f.result.iter().enumerate() {
                    let union = by_column[r] + in_row - f.iou(t, r);
                    if union > f64::EPSILON {
                        potential[i * tracks + j] += f.iou(t, r) / union;
                    }
                }
            }
        }
        let alignment = |i: usize, j: usize| {
            let p = potential[i * tracks + j];
            p / (s.truth_counts[i] as f64 + s.result_counts[j] as f64 - p)
        };
        let mut out = Hota::default();
        let mut matches = vec![[0u32; ALPHAS]; people * tracks];
        for f in &s.frames {
            let (n, m) = (f.truth.len(), f.result.len());
            let weight: Vec<f64> = (0..n)
                .flat_map(|t| (0..m).map(move |r| (t, r)))
                .map(|(t, r)| alignment(f.truth[t], f.result[r]) * f.iou(t, r))
                .collect();
            let pairs = max_weight_assignment(n, m, &weight);
            for (a, alpha) in (1..=ALPHAS).map(|i| 0.05 * i as f64).enumerate() {
                let mut made = 0.0;
                for &(t, r) in pairs
                    .iter()
                    .filter(|&&(t, r)| f.iou(t, r) >= alpha - f64::EPSILON)
                {
                    made += 1.0;
                    out.localisation[a] += f.iou(t, r);
                    matches[f.truth[t] * tracks + f.result[r]][a] += 1;
                }
                out.true_positives[a] += made;
                out.false_negatives[a] += n as f64 - made;
                out.false_positives[a] += m as f64 - made;
            }
        }
        for (pair, counts) in matches.iter().enumerate() {
            for (a, &c) in counts.iter().enumerate().filter(|(_, c)| **c > 0) {
                let (c, i, j) = (f64::from(c), pair / tracks, pair % tracks);
                let union = s.truth_counts[i] as f64 + s.result_counts[j] as f64 - c;
                out.association[a] += c * c / union.max(1.0);
            }
        }
        out
    }

    /// Adds the counts of another sequence.
    pub fn add(&mut self, o: &Hota) {
        for a in 0..ALPHAS {
            self.true_positives[a] += o.true_positives[a];
            self.false_negatives[a] += o.false_negatives[a];
            self.false_positives[a] += o.false_positives[a];
            self.association[a] += o.association[a];
            self.localisation[a] += o.localisation[a];
        }
    }

    fn detection_at(&self, a: usize) -> f64 {
        self.true_positives[a]
            / (self.true_positives[a] + self.false_negatives[a] + self.false_positives[a]).max(1.0)
    }

    fn association_at(&self, a: usize) -> f64 {
        self.association[a] / self.true_positives[a].max(1.0)
    }

    /// HOTA: the geometric mean of DetA and AssA at each alpha, averaged over alpha; in [0, 1].
    pub fn hota(&self) -> f64 {
        mean(|a| (self.detection_at(a) * self.association_at(a)).sqrt())
    }

    /// DetA, detection accuracy; in [0, 1].
    pub fn det_a(&self) -> f64 {
        mean(|a| self.detection_at(a))
    }

    /// AssA, association accuracy; in [0, 1].
    pub fn ass_a(&self) -> f64 {
        mean(|a| self.association_at(a))
    }

    /// LocA, localisation accuracy; in [0, 1].
    pub fn loc_a(&self) -> f64 {
        mean(|a| self.localisation[a].max(1e-10) / self.true_positives[a].max(1e-10))
    }
}

fn mean(f: impl Fn(usize) -> f64) -> f64 {
    (0..ALPHAS).map(f).sum::<f64>() / ALPHAS as f64
}
