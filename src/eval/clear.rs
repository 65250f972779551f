//! CLEAR MOT (Bernardin and Stiefelhagen 2008): MOTA, MOTP, identity switches, fragmentations,
//! mostly tracked and mostly lost people.

use crate::eval::assignment::max_weight_assignment;
use crate::eval::sequence::Sequence;

const THRESHOLD: f64 = 0.5;

/// Counts over a sequence, or a sum over several.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Clear {
    true_positives: f64,
    false_negatives: f64,
    false_positives: f64,
    iou_sum: f64,
    /// Identity switches.
    pub switches: u64,
    /// Number of interruptions of people's tracks.
    pub fragmentations: u64,
    /// People tracked for more than 80 % of their frames.
    pub mostly_tracked: u64,
    /// People tracked for less than 20 % of their frames.
    pub mostly_lost: u64,
    /// Number of people in the ground truth.
    pub people: u64,
}

impl Clear {
    /// Computes the counts of one sequence.
    pub fn count(s: &Sequence) -> Self {
        let mut out = Clear {
            people: s.truth_counts.len() as u64,
            ..Clear::default()
        };
        let people = s.truth_counts.len();
        let (mut last, mut in_previous_frame) = (vec![None; people], vec![None; people]);
        let (mut matched, mut pieces) = (vec![0usize; people], vec![0u64; people]);
        for f in &s.frames {
            let (n, m) = (f.truth.len(), f.result.len());
            if n == 0 || m == 0 {
                out.false_positives += m as f64;
                out.false_negatives += n as f64;
                continue; // such a frame interrupts no track, as in TrackEval
            }
            // Pairs of the previous frame take precedence if their overlap is at least the
            // threshold.
            let weight: Vec<f64> = (0..n)
                .flat_map(|t| (0..m).map(move |r| (t, r)))
                .map(|(t, r)| match f.iou(t, r) {
                    v if v < THRESHOLD - f64::EPSILON => 0.0,
                    v if in_previous_frame[f.truth[t]] == Some(f.result[r]) => 1000.0 + v,
                    v => v,
                })
                .collect();
            let pairs = max_weight_assignment(n, m, &weight);
            let mut now = vec![None; people];
            for &(t, r) in &pairs {
                let (i, j) = (f.truth[t], f.result[r]);
                out.switches += u64::from(last[i].is_some_and(|before| before != j));
                matched[i] += 1;
                last[i] = Some(j);
                now[i] = Some(j);
                pieces[i] += u64::from(in_previous_frame[i].is_none());
                out.iou_sum += f.iou(t, r);
            }
            in_previous_frame = now;
            let made = pairs.len() as f64;
            out.true_positives += made;
            out.false_negatives += n as f64 - made;
            out.false_positives += m as f64 - made;
        }
        for (i, &frames) in s.truth_counts.iter().enumerate() {
            let ratio = matched[i] as f64 / frames as f64;
            out.mostly_tracked += u64::from(ratio > 0.8);
            out.mostly_lost += u64::from(ratio < 0.2);
        }
        out.fragmentations = pieces.iter().map(|p| p.saturating_sub(1)).sum();
        out
    }

    /// Adds the counts of another sequence.
    pub fn add(&mut self, o: &Clear) {
        self.true_positives += o.true_positives;
        self.false_negatives += o.false_negatives;
        self.false_positives += o.false_positives;
        self.iou_sum += o.iou_sum;
        self.switches += o.switches;
        self.fragmentations += o.fragmentations;
        self.mostly_tracked += o.mostly_tracked;
        self.mostly_lost += o.mostly_lost;
        self.people += o.people;
    }

    /// MOTA: 1 minus the number of misses, false alarms and identity switches divided by the number
    /// of ground-truth boxes; at most 1, may be negative.
    pub fn mota(&self) -> f64 {
        (self.true_positives - self.false_positives - self.switches as f64)
            / (self.true_positives + self.false_negatives).max(1.0)
    }

    /// MOTP: the mean IoU of the matched boxes, in [0, 1].
    pub fn motp(&self) -> f64 {
        self.iou_sum / self.true_positives.max(1.0)
    }
}
