//! Ground truth and results of one sequence, aligned by frame as MOTChallenge prescribes.
//!
//! The rules follow the reference implementation (TrackEval; Luiten et al. 2021): result boxes
//! matched to a distractor (a static person, a reflection, a person on a vehicle, ...) at an IoU of
//! at least 0.5 are removed. Then ground truth that is not a pedestrian to be counted is removed.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::eval::assignment::max_weight_assignment;
use crate::mot_format::{MotError, MotRow};

/// The benchmark whose rules apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Benchmark {
    /// 2D MOT 2015: no distractors.
    Mot15,
    /// MOT16.
    Mot16,
    /// MOT17.
    Mot17,
    /// MOT20: non-motorised vehicles are distractors too.
    Mot20,
}

const PEDESTRIAN: i64 = 1;

impl Benchmark {
    /// Whether a row of ground truth is a person whom the tracker must find.
    fn counts(self, row: &MotRow) -> bool {
        row.confidence != 0.0 && (self == Benchmark::Mot15 || row.class == PEDESTRIAN)
    }

    /// Rejects ground truth without any person whom the tracker must find, for example because its
    /// class column does not follow MOTChallenge.
    ///
    /// # Errors
    /// [`EvalError::NoPedestrian`], with the classes found.
    pub fn check(self, sequence: &str, truth: &[MotRow]) -> Result<(), EvalError> {
        if truth.is_empty() || truth.iter().any(|row| self.counts(row)) {
            return Ok(());
        }
        let mut classes: BTreeMap<i64, usize> = BTreeMap::new();
        truth
            .iter()
            .filter(|r| r.confidence != 0.0)
            .for_each(|r| *classes.entry(r.class).or_default() += 1);
        let found = match classes.is_empty() {
            true => "every row has a 0 in the column that marks people to be counted".to_string(),
            false => {
                let list: Vec<String> = classes
                    .iter()
                    .map(|(class, rows)| format!("{class} ({rows} rows)"))
                    .collect();
                format!(
                    "its classes are {}; if the class column is not MOTChallenge's, --benchmark \
                     mot15 counts every row",
                    list.join(", ")
                )
            }
        };
        Err(EvalError::NoPedestrian {
            sequence: sequence.to_string(),
            found,
        })
    }

    fn is_distractor(self, class: i64) -> bool {
        // 2 person on vehicle, 6 non-motorised vehicle, 7 static person, 8 distractor, 12
        // reflection
        matches!(class, 2 | 7 | 8 | 12) || (self == Benchmark::Mot20 && class == 6)
    }
}

/// Errors of evaluation.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EvalError {
    /// A file is unusable.
    #[error(transparent)]
    File(#[from] MotError),
    /// An identity occurs twice in one frame.
    #[error(
        "{what} of sequence {sequence} has identity {id} twice in frame {frame}; identities must \
         be unique within a frame"
    )]
    Duplicate {
        /// Ground truth or results.
        what: &'static str,
        /// The sequence.
        sequence: String,
        /// The identity.
        id: i64,
        /// The frame.
        frame: u64,
    },
    /// No row of the ground truth is a pedestrian to be found.
    #[error(
        "the ground truth of sequence {sequence} has no pedestrian to be found (class 1): {found}"
    )]
    NoPedestrian {
        /// The sequence.
        sequence: String,
        /// The classes found, and the remedy.
        found: String,
    },
    /// A folder does not have the expected files.
    #[error("{0}")]
    Layout(String),
}

/// One frame: its people, its reported tracks, and the overlap of their boxes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Aligned {
    /// Ground-truth identities, numbered from 0 within the sequence.
    pub truth: Vec<usize>,
    /// Reported identities, numbered from 0 within the sequence.
    pub result: Vec<usize>,
    /// IoU, [truth, result], row-major.
    pub iou: Vec<f64>,
}

impl Aligned {
    /// IoU of the `t`-th ground-truth box and the `r`-th reported box.
    pub fn iou(&self, t: usize, r: usize) -> f64 {
        self.iou[t * self.result.len() + r]
    }
}

/// A sequence ready for counting.
#[derive(Debug, Clone, PartialEq)]
pub struct Sequence {
    /// Name of the sequence.
    pub name: String,
    /// The frames in order.
    pub frames: Vec<Aligned>,
    /// Number of frames of each ground-truth identity.
    pub truth_counts: Vec<usize>,
    /// Number of frames of each reported identity.
    pub result_counts: Vec<usize>,
}

impl Sequence {
    /// Aligns rows of ground truth and results over `length` frames.
    ///
    /// # Errors
    /// Fails when an identity occurs twice in a frame.
    pub fn align(
        name: &str,
        length: u64,
        truth: &[MotRow],
        results: &[MotRow],
        benchmark: Benchmark,
    ) -> Result<Self, EvalError> {
        let (truth, results) = (
            by_frame(truth, name, "ground truth")?,
            by_frame(results, name, "the result")?,
        );
        let (mut truth_ids, mut result_ids) = (Numbering::default(), Numbering::default());
        let none = Vec::new();
        let frames = (1..=length)
            .map(|f| {
                align_frame(
                    truth.get(&f).unwrap_or(&none),
                    results.get(&f).unwrap_or(&none),
                    benchmark,
                    &mut truth_ids,
                    &mut result_ids,
                )
            })
            .collect();
        Ok(Sequence {
            name: name.to_string(),
            frames,
            truth_counts: truth_ids.counts,
            result_counts: result_ids.counts,
        })
    }
}

fn by_frame<'a>(
    rows: &'a [MotRow],
    sequence: &str,
    what: &'static str,
) -> Result<BTreeMap<u64, Vec<&'a MotRow>>, EvalError> {
    let mut frames: BTreeMap<u64, Vec<&MotRow>> = BTreeMap::new();
    for row in rows {
        frames.entry(row.frame).or_default().push(row);
    }
    for (&frame, rows) in &frames {
        let mut ids: Vec<i64> = rows.iter().map(|r| r.id).collect();
        ids.sort_unstable();
        if let Some(pair) = ids.windows(2).find(|p| p[0] == p[1]) {
            return Err(EvalError::Duplicate {
                what,
                sequence: sequence.to_string(),
                id: pair[0],
                frame,
            });
        }
    }
    Ok(frames)
}

/// Numbers identities from 0 in order of first appearance, and counts their frames.
#[derive(Default)]
struct Numbering {
    number: HashMap<i64, usize>,
    counts: Vec<usize>,
}

impl Numbering {
    fn count(&mut self, id: i64) -> usize {
        let n = *self.number.entry(id).or_insert(self.counts.len());
        if n == self.counts.len() {
            self.counts.push(0);
        }
        self.counts[n] += 1;
        n
    }
}

fn align_frame(
    truth: &[&MotRow],
    results: &[&MotRow],
    benchmark: Benchmark,
    truth_ids: &mut Numbering,
    result_ids: &mut Numbering,
) -> Aligned {
    let overlap: Vec<Vec<f64>> = truth
        .iter()
        .map(|t| results.iter().map(|r| iou(&t.ltwh, &r.ltwh)).collect())
        .collect();
    let mut dropped = vec![false; results.len()];
    if benchmark != Benchmark::Mot15 && !truth.is_empty() && !results.is_empty() {
        let weight: Vec<f64> = overlap
            .iter()
            .flatten()
            .map(|&v| if v < 0.5 - f64::EPSILON { 0.0 } else { v })
            .collect();
        for (t, r) in max_weight_assignment(truth.len(), results.len(), &weight) {
            dropped[r] = benchmark.is_distractor(truth[t].class);
        }
    }
    let rows: Vec<usize> = (0..truth.len())
        .filter(|&t| benchmark.counts(truth[t]))
        .collect();
    let columns: Vec<usize> = (0..results.len()).filter(|&r| !dropped[r]).collect();
    Aligned {
        truth: rows.iter().map(|&t| truth_ids.count(truth[t].id)).collect(),
        result: columns
            .iter()
            .map(|&r| result_ids.count(results[r].id))
            .collect(),
        iou: rows
            .iter()
            .flat_map(|&t| columns.iter().map(move |&r| (t, r)))
            .map(|(t, r)| overlap[t][r])
            .collect(),
    }
}

fn iou(a: &[f64; 4], b: &[f64; 4]) -> f64 {
    let edges = |r: &[f64; 4]| [r[0], r[1], r[0] + r[2], r[1] + r[3]];
    let (p, q) = (edges(a), edges(b));
    let shared =
        (p[2].min(q[2]) - p[0].max(q[0])).max(0.0) * (p[3].min(q[3]) - p[1].max(q[1])).max(0.0);
    let (area_p, area_q) = ((p[2] - p[0]) * (p[3] - p[1]), (q[2] - q[0]) * (q[3] - q[1]));
    let union = area_p + area_q - shared;
    if area_p <= f64::EPSILON || area_q <= f64::EPSILON || union <= f64::EPSILON {
        0.0
    } else {
        shared / union
    }
}
