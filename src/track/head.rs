//! The association head: a learned answer to "is this detection that person?" in place of the hand-set weights.
//!
//! Leal-Taixé et al. 2016, section 4: gradient-boosted trees (Friedman 2001) combine appearance distance with contextual
//! features into a probability. The trees come as a small JSON table; whoever trains them writes it.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Version of the table.
pub const HEAD_SCHEMA: &str = "twintrack.head/1";

/// What a head may look at, in this order: see [`Features`].
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
pub struct Features {
    /// 1 - IoU of the grown boxes, in [0, 1].
    pub overlap: f32,
    /// Difference of the feet's height in the picture, over the person's height.
    pub position: f32,
    /// Distance of the centres across the picture, over the person's height.
    pub horizontal: f32,
    /// Absolute logarithm of the ratio of heights.
    pub size: f32,
    /// Seconds since the track was last seen.
    pub absence: f32,
    /// Speed of the track, its heights a second.
    pub speed: f32,
    /// Cosine distance of looks, in [0, 2]; -1 when one is not known.
    pub appearance: f32,
    /// Share of the detection covered by somebody in front, in [0, 1].
    pub covered: f32,
    /// The detection's confidence, in [0, 1].
    pub confidence: f32,
}

impl Features {
    /// All of them, in the order of [`FEATURES`].
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

/// A node of a tree: a question, or an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged, try_from = "Fields")]
pub enum Node {
    /// Goes to `left` when the feature is below the threshold, else to `right` (both further down in the list).
    Split {
        /// Name of the feature.
        feature: String,
        /// The threshold.
        threshold: f32,
        /// Place of the next node when below.
        left: usize,
        /// Place of the next node otherwise.
        right: usize,
    },
    /// What the tree adds to the log odds.
    Leaf {
        /// The value.
        leaf: f32,
    },
}

/// A node as it is read, before it is known which kind it is.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    feature: Option<String>,
    threshold: Option<f32>,
    left: Option<usize>,
    right: Option<usize>,
    leaf: Option<f32>,
}

impl TryFrom<Fields> for Node {
    type Error = &'static str;

    fn try_from(fields: Fields) -> Result<Self, Self::Error> {
        match fields {
            Fields {
                feature: Some(feature),
                threshold: Some(threshold),
                left: Some(left),
                right: Some(right),
                leaf: None,
            } => Ok(Node::Split {
                feature,
                threshold,
                left,
                right,
            }),
            Fields {
                feature: None,
                threshold: None,
                left: None,
                right: None,
                leaf: Some(leaf),
            } => Ok(Node::Leaf { leaf }),
            _ => Err("a node has either `leaf` or `feature`, `threshold`, `left` and `right`"),
        }
    }
}

/// The table as it is written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadTable {
    /// [`HEAD_SCHEMA`].
    pub schema: String,
    /// Log odds before any tree.
    pub base: f32,
    /// The trees; the root is each list's first node.
    pub trees: Vec<Vec<Node>>,
}

/// Why a table cannot be used.
#[derive(Debug, Error, PartialEq)]
#[error("the association head is wrong: {0}")]
pub struct HeadError(String);

/// A head ready to be asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Head {
    base: f32,
    trees: Vec<Vec<Asked>>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Asked {
    Split {
        feature: usize,
        threshold: f32,
        left: usize,
        right: usize,
    },
    Leaf(f32),
}

impl Head {
    /// Checks a table.
    ///
    /// # Errors
    /// On another schema, an unknown feature, a number that is none, or a tree that does not lead downwards.
    pub fn new(table: &HeadTable) -> Result<Self, HeadError> {
        if table.schema != HEAD_SCHEMA {
            return Err(HeadError(format!(
                "its schema is '{}', not '{HEAD_SCHEMA}'",
                table.schema
            )));
        }
        let trees = table
            .trees
            .iter()
            .enumerate()
            .map(|(t, nodes)| check(nodes).map_err(|e| HeadError(format!("tree {t}: {e}"))));
        Ok(Head {
            base: table.base,
            trees: trees.collect::<Result<_, _>>()?,
        })
    }

    /// Probability that the detection is the track's person, in [0, 1].
    pub fn probability(&self, features: &Features) -> f32 {
        self.of(&features.values())
    }

    /// The same of the features' values, in the order of [`FEATURES`].
    pub fn of(&self, values: &[f32; FEATURES.len()]) -> f32 {
        let log_odds: f32 = self.base + self.trees.iter().map(|t| answer(t, values)).sum::<f32>();
        1.0 / (1.0 + (-log_odds).exp())
    }
}

fn check(nodes: &[Node]) -> Result<Vec<Asked>, String> {
    if nodes.is_empty() {
        return Err("it has no node".into());
    }
    let one = |(i, node): (usize, &Node)| match node {
        Node::Leaf { leaf } if leaf.is_finite() => Ok(Asked::Leaf(*leaf)),
        Node::Leaf { .. } => Err(format!("node {i} is no number")),
        Node::Split {
            feature,
            threshold,
            left,
            right,
        } => {
            let known = FEATURES.iter().position(|f| f == feature).ok_or_else(|| {
                format!(
                    "node {i} asks for '{feature}'; known are {}",
                    FEATURES.join(", ")
                )
            })?;
            let down = |to: usize| to > i && to < nodes.len();
            let fine = threshold.is_finite() && down(*left) && down(*right);
            if fine {
                Ok(Asked::Split {
                    feature: known,
                    threshold: *threshold,
                    left: *left,
                    right: *right,
                })
            } else {
                Err(format!("node {i} does not lead downwards"))
            }
        }
    };
    nodes.iter().enumerate().map(one).collect()
}

fn answer(tree: &[Asked], features: &[f32; FEATURES.len()]) -> f32 {
    let mut at = 0;
    loop {
        match tree[at] {
            Asked::Leaf(value) => return value,
            Asked::Split {
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

    const ALIKE: Features = Features {
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

    fn table(json: &str) -> Result<Head, HeadError> {
        Head::new(&serde_json::from_str(json).expect("JSON of a table"))
    }

    #[test]
    fn trees_add_up_to_log_odds() {
        let head = table(
            r#"{"schema":"twintrack.head/1","base":-1.0,"trees":[
            [{"feature":"overlap","threshold":0.5,"left":1,"right":2},{"leaf":3.0},{"leaf":-3.0}],
            [{"feature":"appearance","threshold":0.0,"left":1,"right":2},{"leaf":0.0},{"feature":"appearance","threshold":0.3,"left":3,"right":4},{"leaf":1.0},{"leaf":-1.0}]]}"#,
        )
        .expect("valid");
        let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
        assert!((head.probability(&ALIKE) - sigmoid(3.0)).abs() < 1e-6);
        assert!(
            (head.probability(&Features {
                appearance: -1.0,
                ..ALIKE
            }) - sigmoid(2.0))
            .abs()
                < 1e-6
        );
        assert!(
            (head.probability(&Features {
                overlap: 0.9,
                appearance: 0.8,
                ..ALIKE
            }) - sigmoid(-5.0))
            .abs()
                < 1e-6
        );
    }

    #[test]
    fn a_table_that_could_hang_or_lie_is_refused() {
        let refused = |tree: &str| {
            table(&format!(
                r#"{{"schema":"twintrack.head/1","base":0.0,"trees":[{tree}]}}"#
            ))
            .unwrap_err()
            .to_string()
        };
        assert!(
            refused(r#"[{"feature":"overlap","threshold":0.5,"left":0,"right":1},{"leaf":1.0}]"#)
                .contains("downwards")
        );
        assert!(
            refused(r#"[{"feature":"shoe size","threshold":0.5,"left":1,"right":1},{"leaf":1.0}]"#)
                .contains("shoe size")
        );
        assert!(refused("[]").contains("no node"));
        let unread = |node: &str| {
            serde_json::from_str::<Node>(node)
                .expect_err(node)
                .to_string()
        };
        assert!(
            unread(r#"{"feature":"overlap","left":1,"right":2}"#)
                .contains("either `leaf` or `feature`")
        );
        assert!(
            unread(r#"{"leaf":1.0,"left":1}"#).contains("either `leaf`")
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
