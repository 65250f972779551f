//! From a distance between embeddings to a similarity that means something: near 1 the same person, near 0 two people,
//! 0.5 where false accepts and false rejects are equally many. Its two numbers are fitted on held-out pairs by
//! `twintrack-train` and stored in the ONNX file, for distances mean different things to different networks.
//!
//! Beside it a table of how often strangers are alike, from which limits on false merges follow.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::range::{OutOfRange, within};

/// similarity = 1 / (1 + exp(slope * (distance - threshold))), on cosine distances.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// How fast similarity falls with distance, above zero.
    pub slope: f32,
    /// The distance at which it is 0.5.
    pub threshold: f32,
}

impl Calibration {
    /// The entry of the metadata that holds the two numbers.
    pub const KEY: &'static str = "calibration";

    /// Refuses numbers that no network can have; `key` is the setting's name.
    ///
    /// # Errors
    /// The first such number.
    pub fn validate(&self, key: &str) -> Result<(), OutOfRange> {
        within(&format!("{key}.slope"), self.slope, 0.01, 1000.0)?;
        within(&format!("{key}.threshold"), self.threshold, 0.0, 2.0)
    }

    /// The text for the metadata.
    pub fn entry(&self) -> String {
        format!("{},{}", self.slope, self.threshold)
    }

    /// Similarity in [0, 1] at a cosine distance.
    pub fn similarity(&self, distance: f32) -> f32 {
        1.0 / (1.0 + (self.slope * (distance - self.threshold)).exp())
    }
}

/// How often two strangers are at most a cosine distance apart (false accept rate): a table measured by `twintrack-train
/// calibrate`, interpolated in the logarithm of the rate. At a distance of 2 all strangers are.
#[derive(Debug, Clone, PartialEq)]
pub struct Strangers {
    /// Cosine distance and the share of pairs of strangers at most so far apart, both ascending.
    points: Vec<(f32, f32)>,
}

/// A share of pairs of strangers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum StrangerRate {
    /// This share.
    About(f32),
    /// A smaller share than this, the smallest that was measured.
    Below(f32),
}

/// All strangers are at most so far apart.
const FARTHEST: (f32, f32) = (2.0, 1.0);

impl Strangers {
    /// The entry of the metadata that holds the table.
    pub const KEY: &'static str = "strangers";

    /// A table of (cosine distance, rate), in any order; refuses one that is empty, out of range, or whose rates do not rise
    /// with the distance.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(mut points: Vec<(f32, f32)>) -> Result<Self, String> {
        points.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        if points.is_empty() {
            return Err("a table of strangers needs at least one entry, as 0.01@0.35".into());
        }
        for &(distance, rate) in &points {
            if !((0.0..FARTHEST.0).contains(&distance) && rate > 0.0 && rate < 1.0) {
                return Err(format!(
                    "{rate}@{distance}: a rate lies between 0 and 1, a cosine distance from 0 to 2"
                ));
            }
        }
        match points.windows(2).find(|p| p[1].1 <= p[0].1) {
            Some(p) => Err(format!(
                "{}@{} and {}@{}: the rate must rise with the distance",
                p[0].1, p[0].0, p[1].1, p[1].0
            )),
            None => Ok(Strangers { points }),
        }
    }

    /// How often strangers are at most `distance` apart.
    pub fn rate(&self, distance: f32) -> StrangerRate {
        let after = self.points.partition_point(|p| p.0 <= distance);
        if after == 0 {
            return StrangerRate::Below(self.points[0].1);
        }
        let (near, far) = (
            self.points[after - 1],
            *self.points.get(after).unwrap_or(&FARTHEST),
        );
        let share = ((distance - near.0) / (far.0 - near.0)).clamp(0.0, 1.0);
        StrangerRate::About((near.1.ln() + share * (far.1 / near.1).ln()).exp())
    }

    /// The greatest distance at which at most the share `rate` of strangers is accepted; `None` where that is rarer than was
    /// ever measured.
    pub fn limit(&self, rate: f32) -> Option<f32> {
        let after = self.points.partition_point(|p| p.1 <= rate);
        let near = *self.points.get(after.checked_sub(1)?)?;
        let far = *self.points.get(after).unwrap_or(&FARTHEST);
        let share = ((rate / near.1).ln() / (far.1 / near.1).ln()).clamp(0.0, 1.0);
        Some(near.0 + share * (far.0 - near.0))
    }
}

impl fmt::Display for Strangers {
    /// As in the metadata: rates with their distances, the most frequent first.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (distance, rate)) in self.points.iter().rev().enumerate() {
            write!(f, "{}{rate}@{distance}", if i > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

impl FromStr for Strangers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let point = |part: &str| {
            let (rate, distance) = part.trim().split_once('@')?;
            Some((distance.trim().parse().ok()?, rate.trim().parse().ok()?))
        };
        let points = text.split(',').map(|part| {
            point(part).ok_or_else(|| format!("'{part}' is not RATE@DISTANCE, as 0.01@0.35"))
        });
        Strangers::new(points.collect::<Result<_, _>>()?)
    }
}

impl Serialize for Strangers {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Strangers {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for StrangerRate {
    /// In words: "in 1.3 % of pairs", "in fewer than 0.1 % of pairs".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |rate: f32| {
            let rate = f64::from(rate) * 100.0;
            // Two significant digits; a rate of 13 % needs no decimals.
            let digits = if rate >= 10.0 {
                0
            } else {
                (1.0 - rate.max(1e-9).log10().floor()).max(0.0) as usize
            };
            format!("{rate:.digits$}").parse::<f64>().unwrap_or(rate)
        };
        match self {
            StrangerRate::About(rate) => write!(f, "in {} % of pairs", percent(*rate)),
            StrangerRate::Below(rate) => write!(f, "in fewer than {} % of pairs", percent(*rate)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similarity_falls_from_one_to_zero_through_a_half_at_the_threshold() {
        let c = Calibration {
            slope: 20.0,
            threshold: 0.3,
        };
        assert_eq!(c.similarity(0.3), 0.5);
        assert!(c.similarity(0.0) > 0.99 && c.similarity(0.6) < 0.01);
        assert!(c.similarity(0.0) <= 1.0 && c.similarity(2.0) >= 0.0);
    }

    fn table() -> Strangers {
        "0.5@0.8,0.1@0.6,0.01@0.4,0.001@0.3"
            .parse()
            .expect("a table")
    }

    fn about(rate: StrangerRate) -> f32 {
        match rate {
            StrangerRate::About(rate) => rate,
            StrangerRate::Below(rate) => panic!("below {rate}"),
        }
    }

    #[test]
    fn rates_and_limits_are_each_other_s_inverse() {
        let t = table();
        for rate in [0.001, 0.004, 0.01, 0.03, 0.1, 0.4, 0.5, 0.9] {
            let limit = t.limit(rate).expect("measured");
            assert!(
                (about(t.rate(limit)) / rate - 1.0).abs() < 1e-3,
                "{rate} at {limit}"
            );
        }
        // Half way between two entries lies the geometric mean of their rates.
        assert!((about(t.rate(0.5)) - 0.1f32.powf(1.5)).abs() < 1e-6);
        assert_eq!(about(t.rate(2.0)), 1.0);
    }

    #[test]
    fn beyond_the_table_nothing_is_claimed() {
        let t = table();
        assert_eq!(t.rate(0.29), StrangerRate::Below(0.001));
        assert_eq!(t.limit(0.0009), None);
        assert_eq!(t.limit(0.001), Some(0.3));
    }

    #[test]
    fn the_table_survives_its_text() {
        let t = table();
        assert_eq!(t.to_string(), "0.5@0.8,0.1@0.6,0.01@0.4,0.001@0.3");
        assert_eq!(t.to_string().parse(), Ok(t));
        for wrong in [
            "",
            "0.5",
            "0.5@x",
            "0@0.3",
            "1@0.3",
            "0.5@2",
            "0.5@-0.1",
            "NaN@0.3",
            "0.1@0.5,0.5@0.4",
            "0.1@0.5,0.1@0.4",
        ] {
            assert!(wrong.parse::<Strangers>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn rates_are_told_in_words() {
        let words = |r: StrangerRate| r.to_string();
        assert_eq!(words(StrangerRate::About(0.013)), "in 1.3 % of pairs");
        assert_eq!(words(StrangerRate::About(0.1349)), "in 13 % of pairs");
        assert_eq!(words(StrangerRate::About(0.00042)), "in 0.042 % of pairs");
        assert_eq!(
            words(StrangerRate::Below(0.001)),
            "in fewer than 0.1 % of pairs"
        );
    }
}
