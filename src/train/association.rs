//! Training of the association head (Leal-Taixé et al. 2016, section 4): from labelled pairs,
//! gradient-boosted trees (Friedman 2001) learn the probability that a track and a detection are
//! the same person.

use std::collections::BTreeMap;

use forust_ml::objective::ObjectiveType;
use forust_ml::{GradientBooster, Matrix};

use crate::detection::{Detection, Embeddings};
use crate::time::Seconds;
use crate::track::head::{FEATURES, HEAD_SCHEMA, HeadNode, HeadTable};
use crate::track::pair::FrameDetections;
use crate::track::track::Track;
use crate::track::{TrackState, TrackerConfig};
use crate::train::error::TrainError;

/// Minimum of the sum of p (1 - p) over the pairs in a leaf; smaller leaves would fit noise.
const MIN_LEAF: f32 = 10.0;

/// The label of a detection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DetectionLabel {
    /// The detection shows this person.
    Person(u64),
    /// A false detection.
    NoPerson,
    /// The label is unknown.
    Unknown,
}

/// A frame with labelled detections.
#[derive(Debug, Clone)]
pub struct LabelledFrame {
    /// Time since the previous frame.
    pub elapsed: Seconds,
    /// The detections.
    pub detections: Vec<Detection>,
    /// The detections' embeddings.
    pub embeddings: Embeddings,
    /// The detections' labels.
    pub labels: Vec<DetectionLabel>,
}

/// Training pairs of tracks and detections.
#[derive(Debug, Clone, Default)]
pub struct TrainingPairs {
    /// Values of [`FEATURES`] of each pair.
    pub features: Vec<[f32; FEATURES.len()]>,
    /// Whether the pair is the same person.
    pub same: Vec<bool>,
}

impl TrainingPairs {
    /// Adds the pairs that occur if these frames are tracked without errors: each person's track is
    /// updated with that person's detections, and in each of the two rounds of matching it is
    /// paired with every detection of a known label that passes the round's gating. A detection
    /// that passes the gating of both rounds gives two pairs.
    pub fn collect(&mut self, frames: &[LabelledFrame], config: &TrackerConfig) {
        let mut tracks: BTreeMap<u64, Track> = BTreeMap::new();
        let mut now = Seconds::ZERO;
        for frame in frames {
            now = now + frame.elapsed;
            let detections_of_frame = FrameDetections::new(&frame.detections, &frame.embeddings);
            tracks.retain(|_, t| (now - t.seen).0 <= config.keep_lost);
            for (id, t) in &mut tracks {
                t.filter.predict(frame.elapsed, &config.motion);
                for (d, label) in frame
                    .labels
                    .iter()
                    .enumerate()
                    .filter(|(_, w)| **w != DetectionLabel::Unknown)
                {
                    let within = |buffer| detections_of_frame.features(t, d, buffer, now);
                    for f in [
                        within(config.cost.buffer),
                        within(config.cost.second_buffer),
                    ]
                    .into_iter()
                    .flatten()
                    {
                        self.features.push(f.values());
                        self.same.push(*label == DetectionLabel::Person(*id));
                    }
                }
            }
            for (d, label) in frame.labels.iter().enumerate() {
                let DetectionLabel::Person(id) = *label else {
                    continue;
                };
                let detection = frame.detections[d];
                let track = tracks
                    .entry(id)
                    .and_modify(|t| t.update(detection, now, &config.motion, &config.scenery));
                let track = track.or_insert_with(|| Track::new(detection, now, &config.motion));
                track.state = TrackState::Confirmed;
                detections_of_frame.learn_appearance(track, d, &config.appearance);
            }
        }
    }

    /// Divides the pairs into a hundred consecutive blocks and holds every `n`th out; returns
    /// (rest, held out). With blocks, pairs that are close in time are not separated.
    pub fn hold_out(self, n: usize) -> (TrainingPairs, TrainingPairs) {
        let block = (self.same.len() / 100).max(1);
        let (mut rest, mut held) = (TrainingPairs::default(), TrainingPairs::default());
        for (i, (f, s)) in self.features.into_iter().zip(self.same).enumerate() {
            let to = if i / block % n == n - 1 {
                &mut held
            } else {
                &mut rest
            };
            to.features.push(f);
            to.same.push(s);
        }
        (rest, held)
    }

    /// Trains `count` trees.
    ///
    /// # Errors
    /// Fails when track and detection are the same person in every pair, or in none, and when the
    /// trees cannot be fitted.
    pub fn train(&self, count: usize, seed: u64) -> Result<HeadTable, TrainError> {
        let fail = |problem: String| TrainError::Data {
            name: "the pairs of tracks and detections".into(),
            problem,
        };
        if !self.same.contains(&true) || !self.same.contains(&false) {
            return Err(fail(
                "track and detection are the same person in every pair, or in none; use sequences \
                 in which people meet"
                    .into(),
            ));
        }
        // The matrix is stored by columns.
        let columns: Vec<f64> = (0..FEATURES.len())
            .flat_map(|k| self.features.iter().map(move |f| f64::from(f[k])))
            .collect();
        let matrix = Matrix::new(&columns, self.same.len(), FEATURES.len());
        let truth: Vec<f64> = self.same.iter().map(|s| f64::from(u8::from(*s))).collect();
        let booster = GradientBooster::default()
            .set_objective_type(ObjectiveType::LogLoss)
            .set_base_score(0.0)
            .set_initialize_base_score(false);
        let booster = booster
            .set_iterations(count)
            .set_learning_rate((8.0 / count as f32).min(0.3))
            .set_max_leaves(16)
            .set_max_depth(5);
        let mut booster = booster
            .set_min_leaf_weight(MIN_LEAF)
            .set_l2(1.0)
            .set_seed(seed);
        booster
            .fit_unweighted(&matrix, &truth, None)
            .map_err(|e| fail(e.to_string()))?;
        Ok(HeadTable {
            schema: HEAD_SCHEMA.into(),
            base: 0.0,
            trees: booster.trees.iter().map(table).collect(),
        })
    }
}

/// Lists the nodes of a tree in breadth-first order, so that children follow their parents.
fn table(tree: &forust_ml::tree::Tree) -> Vec<HeadNode> {
    let mut order = vec![0usize];
    let mut place = BTreeMap::from([(0usize, 0usize)]);
    let mut next = 0;
    while next < order.len() {
        let node = &tree.nodes[order[next]];
        if !node.is_leaf {
            for child in [node.left_child, node.right_child] {
                place.insert(child, order.len());
                order.push(child);
            }
        }
        next += 1;
    }
    let entry = |n: &usize| {
        let node = &tree.nodes[*n];
        if node.is_leaf {
            return HeadNode::Leaf {
                leaf: node.weight_value,
            };
        }
        let (left, right) = (place[&node.left_child], place[&node.right_child]);
        HeadNode::Split {
            feature: FEATURES[node.split_feature].into(),
            threshold: node.split_value as f32,
            left,
            right,
        }
    };
    order.iter().map(entry).collect()
}

/// Mean negative log likelihood, and area under the ROC curve. `None` if `same` is all true or all
/// false.
pub fn evaluate(probabilities: &[f32], same: &[bool]) -> Option<(f64, f64)> {
    let positives = same.iter().filter(|s| **s).count();
    let negatives = same.len() - positives;
    if positives == 0 || negatives == 0 {
        return None;
    }
    let loss = |(p, s): (&f32, &bool)| -f64::from(if *s { *p } else { 1.0 - *p }).max(1e-7).ln();
    let mean = probabilities.iter().zip(same).map(loss).sum::<f64>() / same.len() as f64;
    let mut order: Vec<usize> = (0..same.len()).collect();
    order.sort_by(|&a, &b| probabilities[a].total_cmp(&probabilities[b]));
    // Mann-Whitney statistic: equal probabilities share their mean rank.
    let (mut ranks, mut start) = (0.0, 0);
    while start < order.len() {
        let end = start
            + order[start..]
                .iter()
                .take_while(|&&i| probabilities[i] == probabilities[order[start]])
                .count();
        let rank = (start + 1 + end) as f64 / 2.0;
        ranks += rank * order[start..end].iter().filter(|&&i| same[i]).count() as f64;
        start = end;
    }
    let (p, n) = (positives as f64, negatives as f64);
    Some((mean, (ranks - p * (p + 1.0) / 2.0) / (p * n)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::track::head::AssociationHead;
    use crate::train::simulate;

    #[test]
    fn measures_match_values_computed_by_hand() {
        let (loss, area) =
            evaluate(&[0.9, 0.6, 0.6, 0.2], &[true, false, true, false]).expect("both kinds");
        let want = -(0.9f64.ln() + 0.4f64.ln() + 0.6f64.ln() + 0.8f64.ln()) / 4.0;
        assert!((loss - want).abs() < 1e-6);
        assert!((area - 3.5 / 4.0).abs() < 1e-9);
        assert_eq!(evaluate(&[0.5], &[true]), None);
    }

    #[test]
    fn a_head_from_trained_trees_ranks_pairs_better_than_overlap_alone() {
        let mut pairs = TrainingPairs::default();
        (0..12).for_each(|s| {
            pairs.collect(
                &simulate::scene(8.0, &simulate::EmbeddingBank::new(), s),
                &TrackerConfig::default(),
            )
        });
        let (rest, held) = pairs.hold_out(4);
        assert!(held.same.len() > 500 && rest.same.len() > 2 * held.same.len());
        let table = rest.train(30, 1).expect("both kinds");
        let head = AssociationHead::new(&table).expect("a valid table");
        let p: Vec<f32> = held.features.iter().map(|f| head.of(f)).collect();
        let (_, area) = evaluate(&p, &held.same).expect("both kinds");
        let by_overlap: Vec<f32> = held.features.iter().map(|f| 1.0 - f[0]).collect();
        let (_, plain) = evaluate(&by_overlap, &held.same).expect("both kinds");
        assert!(
            area > plain && area > 0.95,
            "area {area}, by overlap alone {plain}"
        );
    }

    #[test]
    fn pairs_of_one_kind_are_rejected() {
        let pairs = TrainingPairs {
            features: vec![[0.0; 9]; 3],
            same: vec![true; 3],
        };
        assert!(
            pairs
                .train(30, 1)
                .expect_err("one kind")
                .to_string()
                .contains("the same person in every pair, or in none")
        );
    }
}
