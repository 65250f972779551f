//! HOTA, higher order tracking accuracy (Luiten et al. 2021, IJCV), which gives detection and
//! association equal weight.

use crate::eval::assignment::max_weight_assignment;
use crate::eval::sequence::Sequence;

/// Number of localisation thresholds alpha: 0.05, 0.10, ..., 0.95.
pub const ALPHA_COUNT: usize = 19;

/// Counts of one sequence, or sums over several, for each alpha.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Hota {
    true_positives: [f64; ALPHA_COUNT],
    false_negatives: [f64; ALPHA_COUNT],
    false_positives: [f64; ALPHA_COUNT],
    /// Sum of the association score A(c) over the true positives c (equation 13 of the paper).
    association_sum: [f64; ALPHA_COUNT],
    /// Sum of the IoU over the true positives.
    localisation_sum: [f64; ALPHA_COUNT],
}

impl Hota {
    /// Computes the counts of one sequence.
    pub fn count(s: &Sequence) -> Self {
        let (person_count, track_count) = (s.truth_counts.len(), s.result_counts.len());
        // Soft count of the frames in which a person and a track overlap, [people, tracks]: in each
        // frame the IoU of the pair, divided by the sum of all IoUs of the person or the track.
        let mut soft_matches = vec![0.0f64; person_count * track_count];
        for f in &s.frames {
            let result_count = f.result.len();
            let column_sums: Vec<f64> = (0..result_count)
                .map(|r| (0..f.truth.len()).map(|t| f.iou(t, r)).sum())
                .collect();
            for (t, &i) in f.truth.iter().enumerate() {
                let row_sum: f64 = (0..result_count).map(|r| f.iou(t, r)).sum();
                for (r, &j) in f.result.iter().enumerate() {
                    let total_iou = column_sums[r] + row_sum - f.iou(t, r);
                    if total_iou > f64::EPSILON {
                        soft_matches[i * track_count + j] += f.iou(t, r) / total_iou;
                    }
                }
            }
        }
        // Alignment of a person and a track over the sequence, in [0, 1]. The matches within a
        // frame maximise the sum of alignment times IoU.
        let alignment = |i: usize, j: usize| {
            let p = soft_matches[i * track_count + j];
            p / (s.truth_counts[i] as f64 + s.result_counts[j] as f64 - p)
        };
        let mut out = Hota::default();
        // For [people, tracks]: number of frames in which the pair matches, at each alpha.
        let mut matches = vec![[0u32; ALPHA_COUNT]; person_count * track_count];
        for f in &s.frames {
            let (truth_count, result_count) = (f.truth.len(), f.result.len());
            let weight: Vec<f64> = (0..truth_count)
                .flat_map(|t| (0..result_count).map(move |r| (t, r)))
                .map(|(t, r)| alignment(f.truth[t], f.result[r]) * f.iou(t, r))
                .collect();
            let pairs = max_weight_assignment(truth_count, result_count, &weight);
            for (a, alpha) in (1..=ALPHA_COUNT).map(|i| 0.05 * i as f64).enumerate() {
                let mut matched = 0.0;
                for &(t, r) in pairs
                    .iter()
                    .filter(|&&(t, r)| f.iou(t, r) >= alpha - f64::EPSILON)
                {
                    matched += 1.0;
                    out.localisation_sum[a] += f.iou(t, r);
                    matches[f.truth[t] * track_count + f.result[r]][a] += 1;
                }
                out.true_positives[a] += matched;
                out.false_negatives[a] += truth_count as f64 - matched;
                out.false_positives[a] += result_count as f64 - matched;
            }
        }
        for (pair, counts) in matches.iter().enumerate() {
            for (a, &c) in counts.iter().enumerate().filter(|(_, c)| **c > 0) {
                let (c, i, j) = (f64::from(c), pair / track_count, pair % track_count);
                let frames_of_either = s.truth_counts[i] as f64 + s.result_counts[j] as f64 - c;
                out.association_sum[a] += c * c / frames_of_either.max(1.0);
            }
        }
        out
    }

    /// Adds the counts of another sequence.
    pub fn add(&mut self, o: &Hota) {
        for a in 0..ALPHA_COUNT {
            self.true_positives[a] += o.true_positives[a];
            self.false_negatives[a] += o.false_negatives[a];
            self.false_positives[a] += o.false_positives[a];
            self.association_sum[a] += o.association_sum[a];
            self.localisation_sum[a] += o.localisation_sum[a];
        }
    }

    fn detection_at(&self, a: usize) -> f64 {
        self.true_positives[a]
            / (self.true_positives[a] + self.false_negatives[a] + self.false_positives[a]).max(1.0)
    }

    fn association_at(&self, a: usize) -> f64 {
        self.association_sum[a] / self.true_positives[a].max(1.0)
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

    /// LocA, localisation accuracy: the mean IoU of the true positives, averaged over alpha; in
    /// [0, 1]. As in TrackEval, an alpha without true positives counts as 1.
    pub fn loc_a(&self) -> f64 {
        mean(|a| self.localisation_sum[a].max(1e-10) / self.true_positives[a].max(1e-10))
    }
}

fn mean(f: impl Fn(usize) -> f64) -> f64 {
    (0..ALPHA_COUNT).map(f).sum::<f64>() / ALPHA_COUNT as f64
}
