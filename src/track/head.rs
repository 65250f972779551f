//! The association head: a learned probability that a detection belongs to a track. It replaces the
//! hand-tuned cost weights.
//!
//! Leal-Taixé et al. 2016, section 4: gradient-boosted trees (Friedman 2001) combine the appearance
//! distance with contextual features into a probability. The trees are read from a JSON table,
//! which `twintrack-train head` writes.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Schema of the JSON table.
pub const HEAD_SCHEMA: &str = "twintrack.head/1";

/// Names of the features that a split may use, in the order of [`PairFeatures::values`].
pub const FEATURES: [&str; 9] = [
    "overlap",
    "position",
    "horizontal",
    "size",
    "absence",
    "speed",
    "appearance",
    "covered",
    "confidence",
];

/// The features of a pair of track and detection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PairFeatures {
    /// 1 - IoU of the enlarged boxes, in [0, 1].
    pub overlap: f32,
    /// Vertical distance of the foot points divided by the height of the track's predicted box.
    pub position: f32,
    /// Horizontal distance of the centres divided by the height of the track's predicted box.
    pub horizontal: f32,
    /// Absolute logarithm of the ratio of heights.
    pub size: f32,
    /// Seconds since the track's last detection.
    pub absence: f32,
    /// Speed of the track in heights of its predicted box per second.
    pub speed: f32,
    /// Cosine distance of the appearances, in [0, 2]; -1 when one is unknown.
    pub appearance: f32,
    /// Share of the detection that is covered by a person in front, in [0, 1].
    pub covered: f32,
    /// The detection's confidence, in [0, 1].
    pub confidence: f32,
}

impl PairFeatures {
    /// The values in the order of [`FEATURES`].
    pub fn values(&self) -> [f32; FEATURES.len()] {
        [
            self.overlap,
            self.position,
            self.horizontal,
            self.size,
            self.absence,
            self.speed,
            self.appearance,
            self.covered,
            self.confidence,
        ]
    }
}

/// A node of a tree.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged, try_from = "NodeFields")]
pub enum HeadNode {
    /// The next node is `left` if the feature is below the threshold, else `right`; both follow
    /// this node in the list.
    Split {
        /// Name of the feature.
        feature: String,
        /// The threshold.
        threshold: f32,
        /// Index of the next node when below.
        left: usize,
        /// Index of the next node otherwise.
        right: usize,
    },
    /// Ends the path through the tree.
    Leaf {
        /// The tree's contribution to the log odds.
        leaf: f32,
    },
}

/// A node's fields as they are parsed, before its kind is known.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeFields {
    feature: Option<String>,
    threshold: Option<f32>,
    left: Option<usize>,
    right: Option<usize>,
    leaf: Option<f32>,
}

impl TryFrom<NodeFields> for HeadNode {
    type Error = &'static str;

    fn try_from(fields: NodeFields) -> Result<Self, Self::Error> {
        match fields {
            NodeFields {
                feature: Some(feature),
                threshold: Some(threshold),
                left: Some(left),
                right: Some(right),
                leaf: None,
            } => Ok(HeadNode::Split {
                feature,
                threshold,
                left,
                right,
            }),
            NodeFields {
                feature: None,
                threshold: None,
                left: None,
                right: None,
                leaf: Some(leaf),
            } => Ok(HeadNode::Leaf { leaf }),
            _ => Err(
                "a node has either only `leaf`, or all of `feature`, `threshold`, `left` and `right`",
            ),
        }
    }
}

/// The JSON table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadTable {
    /// [`HEAD_SCHEMA`].
    pub schema: String,
    /// Log odds before any tree is added.
    pub base: f32,
    /// The trees; the first node of each list is its root.
    pub trees: Vec<Vec<HeadNode>>,
}

/// Why a table is invalid.
#[derive(Debug, Error, PartialEq)]
#[error("the association head is invalid: {0}")]
pub struct HeadError(String);

/// A validated association head.
#[derive(Debug, Clone, PartialEq)]
pub struct AssociationHead {
    base: f32,
    trees: Vec<Vec<CheckedNode>>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum CheckedNode {
    Split {
        feature: usize,
        threshold: f32,
        left: usize,
        right: usize,
    },
    Leaf(f32),
}

impl AssociationHead {
    /// Validates a table.
    ///
    /// # Errors
    /// Fails on another schema, a number that is not finite, an empty tree, an unknown feature, or a
    /// split that does not refer to later nodes of its tree.
    pub fn new(table: &HeadTable) -> Result<Self, HeadError> {
        if table.schema != HEAD_SCHEMA {
            return Err(HeadError(format!(
                "its schema is '{}', but '{HEAD_SCHEMA}' is needed",
                table.schema
            )));
        }
        if !table.base.is_finite() {
            return Err(HeadError("its base is not a finite number".into()));
        }
        let trees = table
            .trees
            .iter()
            .enumerate()
            .map(|(t, nodes)| check(nodes).map_err(|e| HeadError(format!("tree {t}: {e}"))));
        Ok(AssociationHead {
            base: table.base,
            trees: trees.collect::<Result<_, _>>()?,
        })
    }

    /// Probability that the detection belongs to the track's person, in [0, 1].
    pub fn probability(&self, features: &PairFeatures) -> f32 {
        self.of(&features.values())
    }

    /// As [`AssociationHead::probability`], for feature values in the order of [`FEATURES`].
    pub fn of(&self, values: &[f32; FEATURES.len()]) -> f32 {
        let log_odds: f32 = self.base + self.trees.iter().map(|t| answer(t, values)).sum::<f32>();
        1.0 / (1.0 + (-log_odds).exp())
    }
}

fn check(nodes: &[HeadNode]) -> Result<Vec<CheckedNode>, String> {
    if nodes.is_empty() {
        return Err("it has no node".into());
    }
    let one = |(i, node): (usize, &HeadNode)| match node {
        HeadNode::Leaf { leaf } if leaf.is_finite() => Ok(CheckedNode::Leaf(*leaf)),
        HeadNode::Leaf { .. } => Err(format!("node {i} is not a finite number")),
        HeadNode::Split {
            feature,
            threshold,
            left,
            right,
        } => {
            let known = FEATURES.iter().position(|f| f == feature).ok_or_else(|| {
                format!(
                    "node {i} uses the unknown feature '{feature}'; known are {}",
                    FEATURES.join(", ")
                )
            })?;
            let down = |to: usize| to > i && to < nodes.len();
            if !threshold.is_finite() {
                return Err(format!("the threshold of node {i} is not a finite number"));
            }
            if !(down(*left) && down(*right)) {
                return Err(format!("node {i} must refer to later nodes"));
            }
            Ok(CheckedNode::Split {
                feature: known,
                threshold: *threshold,
                left: *left,
                right: *right,
            })
        }
    };
    nodes.iter().enumerate().map(one).collect()
}

fn answer(tree: &[CheckedNode], features: &[f32; FEATURES.len()]) -> f32 {
    let mut at = 0;
    loop {
        match tree[at] {
            CheckedNode::Leaf(value) => return value,
            CheckedNode::Split {
                feature,
                threshold,
                left,
                right,
            } => {
                at = if features[feature] < threshold {
                    left
                } else {
                    right
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALIKE: PairFeatures = PairFeatures {
        overlap: 0.1,
        position: 0.0,
        horizontal: 0.0,
        size: 0.0,
        absence: 0.1,
        speed: 0.3,
        appearance: 0.1,
        covered: 0.0,
        confidence: 0.9,
    };

    fn table(json: &str) -> Result<AssociationHead, HeadError> {
        AssociationHead::new(&serde_json::from_str(json).expect("JSON of a table"))
    }

    #[test]
    fn trees_add_up_to_log_odds() {
        let head = table(
            r#"{"schema":"twintrack.head/1","base":-1.0,"trees":[
            [{"feature":"overlap","threshold":0.5,"left":1,"right":2},{"leaf":3.0},{"leaf":-3.0}],
            [{"feature":"appearance","threshold":0.0,"left":1,"right":2},{"leaf":0.0},
             {"feature":"appearance","threshold":0.3,"left":3,"right":4},{"leaf":1.0},{"leaf":-1.0}]
            ]}"#,
        )
        .expect("valid");
        let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
        assert!((head.probability(&ALIKE) - sigmoid(3.0)).abs() < 1e-6);
        assert!(
            (head.probability(&PairFeatures {
                appearance: -1.0,
                ..ALIKE
            }) - sigmoid(2.0))
            .abs()
                < 1e-6
        );
        assert!(
            (head.probability(&PairFeatures {
                overlap: 0.9,
                appearance: 0.8,
                ..ALIKE
            }) - sigmoid(-5.0))
            .abs()
                < 1e-6
        );
    }

    #[test]
    fn a_malformed_table_is_rejected() {
        let rejected = |tree: &str| {
            table(&format!(
                r#"{{"schema":"twintrack.head/1","base":0.0,"trees":[{tree}]}}"#
            ))
            .unwrap_err()
            .to_string()
        };
        assert!(
            rejected(r#"[{"feature":"overlap","threshold":0.5,"left":0,"right":1},{"leaf":1.0}]"#)
                .contains("later nodes")
        );
        assert!(
            rejected(
                r#"[{"feature":"shoe size","threshold":0.5,"left":1,"right":1},{"leaf":1.0}]"#
            )
            .contains("shoe size")
        );
        assert!(rejected("[]").contains("no node"));
        // JSON has no infinite numbers, but a caller of the library can give them.
        let split = HeadNode::Split {
            feature: "overlap".into(),
            threshold: f32::INFINITY,
            left: 1,
            right: 2,
        };
        let leaf = HeadNode::Leaf { leaf: 1.0 };
        let given = |base, nodes: Vec<HeadNode>| {
            let schema = HEAD_SCHEMA.into();
            let trees = vec![nodes];
            let head = AssociationHead::new(&HeadTable {
                schema,
                base,
                trees,
            });
            head.expect_err("a number is infinite").to_string()
        };
        let nodes = vec![split, leaf.clone(), leaf.clone()];
        assert!(given(0.0, nodes).contains("threshold of node 0"));
        assert!(given(f32::NAN, vec![leaf]).contains("base"));
        let unread = |node: &str| {
            serde_json::from_str::<HeadNode>(node)
                .expect_err(node)
                .to_string()
        };
        assert!(unread(r#"{"feature":"overlap","left":1,"right":2}"#).contains("all of `feature`"));
        assert!(
            unread(r#"{"leaf":1.0,"left":1}"#).contains("either only `leaf`")
                && unread(r#"{"leaf":"x"}"#).contains("expected f32")
        );
        assert!(unread(r#"{"leave":1.0}"#).contains("unknown field `leave`"));
        assert!(
            table(r#"{"schema":"other","base":0.0,"trees":[]}"#)
                .unwrap_err()
                .to_string()
                .contains("other")
        );
    }
}
