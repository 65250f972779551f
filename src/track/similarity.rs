//! Calibration: maps distances of embeddings to similarities. A similarity near 1 means the same
//! person, near 0 two people; at 0.5 false accepts and false rejects are equally frequent. The two
//! parameters of the calibration depend on the network; `twintrack-train` fits them on held-out
//! pairs and stores them in the ONNX file.
//!
//! [`StrangerTable`] holds the false-accept rate at each distance; limits of re-identification are
//! derived from it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::range::{OutOfRange, within};

/// similarity = 1 / (1 + exp(slope * (distance - threshold))), on cosine distances.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "serve", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Steepness with which the similarity falls with the distance, 0.01 to 1000.
    pub slope: f32,
    /// Cosine distance, in [0, 2], at which the similarity is 0.5.
    pub threshold: f32,
}

impl Calibration {
    /// Key of the metadata entry.
    pub const KEY: &'static str = "calibration";

    /// Checks that both parameters are in their ranges; `key` is the setting's name.
    ///
    /// # Errors
    /// The first parameter outside its range.
    pub fn validate(&self, key: &str) -> Result<(), OutOfRange> {
        within(&format!("{key}.slope"), self.slope, 0.01, 1000.0)?;
        within(&format!("{key}.threshold"), self.threshold, 0.0, 2.0)
    }

    /// The value of the metadata entry.
    pub fn entry(&self) -> String {
        format!("{},{}", self.slope, self.threshold)
    }

    /// Similarity in [0, 1] at a cosine distance.
    pub fn similarity(&self, distance: f32) -> f32 {
        1.0 / (1.0 + (self.slope * (distance - self.threshold)).exp())
    }
}

/// False-accept rates: the share of pairs of strangers that are at most a cosine distance apart. A
/// table measured by `twintrack-train calibrate`, interpolated in the logarithm of the rate; at
/// distance 2 the rate is 1.
#[derive(Debug, Clone, PartialEq)]
pub struct StrangerTable {
    /// Cosine distance and rate, both ascending.
    points: Vec<(f32, f32)>,
}

/// A share of pairs of strangers that are at most a given distance apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum FalseAcceptRate {
    /// Approximately this share.
    About(f32),
    /// Less than this share, the smallest that was measured.
    Below(f32),
}

/// The end of the table: at the largest distance the rate is 1.
const FARTHEST: (f32, f32) = (2.0, 1.0);

impl StrangerTable {
    /// Key of the metadata entry.
    pub const KEY: &'static str = "strangers";

    /// Creates a table of (cosine distance, rate) in any order.
    ///
    /// # Errors
    /// Fails when there are no points, a value is out of range, or the rates do not increase with
    /// the distance.
    pub fn new(mut points: Vec<(f32, f32)>) -> Result<Self, String> {
        points.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        if points.is_empty() {
            let problem = "a table of false-accept rates needs at least one entry, for example \
                           0.01@0.35";
            return Err(problem.into());
        }
        for &(distance, rate) in &points {
            if !((0.0..FARTHEST.0).contains(&distance) && rate > 0.0 && rate < 1.0) {
                return Err(format!(
                    "{rate}@{distance}: a rate must be above 0 and below 1, a cosine distance at \
                     least 0 and below 2"
                ));
            }
        }
        match points.windows(2).find(|p| p[1].1 <= p[0].1) {
            Some(p) => Err(format!(
                "{}@{} and {}@{}: the rate must rise with the distance",
                p[0].1, p[0].0, p[1].1, p[1].0
            )),
            None => Ok(StrangerTable { points }),
        }
    }

    /// The rate at a cosine distance.
    pub fn rate(&self, distance: f32) -> FalseAcceptRate {
        let after = self.points.partition_point(|p| p.0 <= distance);
        if after == 0 {
            return FalseAcceptRate::Below(self.points[0].1);
        }
        let (near, far) = (
            self.points[after - 1],
            *self.points.get(after).unwrap_or(&FARTHEST),
        );
        let share = ((distance - near.0) / (far.0 - near.0)).clamp(0.0, 1.0);
        FalseAcceptRate::About((near.1.ln() + share * (far.1 / near.1).ln()).exp())
    }

    /// The largest distance at which at most the share `rate` of strangers is accepted; `None` if
    /// the rate is below the smallest measured one.
    pub fn limit(&self, rate: f32) -> Option<f32> {
        let after = self.points.partition_point(|p| p.1 <= rate);
        let near = *self.points.get(after.checked_sub(1)?)?;
        let far = *self.points.get(after).unwrap_or(&FARTHEST);
        let share = ((rate / near.1).ln() / (far.1 / near.1).ln()).clamp(0.0, 1.0);
        Some(near.0 + share * (far.0 - near.0))
    }
}

impl fmt::Display for StrangerTable {
    /// The format of the metadata: RATE@DISTANCE, in descending order of rates.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (distance, rate)) in self.points.iter().rev().enumerate() {
            write!(f, "{}{rate}@{distance}", if i > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

impl FromStr for StrangerTable {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let point = |part: &str| {
            let (rate, distance) = part.trim().split_once('@')?;
            Some((distance.trim().parse().ok()?, rate.trim().parse().ok()?))
        };
        let points = text.split(',').map(|part| {
            let problem = || format!("'{part}' is not RATE@DISTANCE, for example 0.01@0.35");
            point(part).ok_or_else(problem)
        });
        StrangerTable::new(points.collect::<Result<_, _>>()?)
    }
}

impl Serialize for StrangerTable {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StrangerTable {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for FalseAcceptRate {
    /// For example "in 1.3 % of pairs" or "in fewer than 0.1 % of pairs".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |rate: f32| {
            let rate = f64::from(rate) * 100.0;
            // Two significant digits; rates from 10 % have no decimals.
            let digits = if rate >= 10.0 {
                0
            } else {
                (1.0 - rate.max(1e-9).log10().floor()).max(0.0) as usize
            };
            format!("{rate:.digits$}").parse::<f64>().unwrap_or(rate)
        };
        match self {
            FalseAcceptRate::About(rate) => write!(f, "in {} % of pairs", percent(*rate)),
            FalseAcceptRate::Below(rate) => {
                write!(f, "in fewer than {} % of pairs", percent(*rate))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similarity_falls_from_one_to_zero_and_is_half_at_the_threshold() {
        let c = Calibration {
            slope: 20.0,
            threshold: 0.3,
        };
        assert_eq!(c.similarity(0.3), 0.5);
        assert!(c.similarity(0.0) > 0.99 && c.similarity(0.6) < 0.01);
        assert!(c.similarity(0.0) <= 1.0 && c.similarity(2.0) >= 0.0);
    }

    fn table() -> StrangerTable {
        "0.5@0.8,0.1@0.6,0.01@0.4,0.001@0.3"
            .parse()
            .expect("a table")
    }

    fn about(rate: FalseAcceptRate) -> f32 {
        match rate {
            FalseAcceptRate::About(rate) => rate,
            FalseAcceptRate::Below(rate) => panic!("below {rate}"),
        }
    }

    #[test]
    fn rate_and_limit_are_inverse_functions() {
        let t = table();
        for rate in [0.001, 0.004, 0.01, 0.03, 0.1, 0.4, 0.5, 0.9] {
            let limit = t.limit(rate).expect("measured");
            assert!(
                (about(t.rate(limit)) / rate - 1.0).abs() < 1e-3,
                "{rate} at {limit}"
            );
        }
        // Half-way between two entries the rate is the geometric mean of their rates.
        assert!((about(t.rate(0.5)) - 0.1f32.powf(1.5)).abs() < 1e-6);
        assert_eq!(about(t.rate(2.0)), 1.0);
    }

    #[test]
    fn rates_below_the_table_are_reported_as_bounds() {
        let t = table();
        assert_eq!(t.rate(0.29), FalseAcceptRate::Below(0.001));
        assert_eq!(t.limit(0.0009), None);
        assert_eq!(t.limit(0.001), Some(0.3));
    }

    #[test]
    fn a_table_survives_formatting_and_parsing() {
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
            assert!(wrong.parse::<StrangerTable>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn rates_are_formatted_in_words() {
        let words = |r: FalseAcceptRate| r.to_string();
        assert_eq!(words(FalseAcceptRate::About(0.013)), "in 1.3 % of pairs");
        assert_eq!(words(FalseAcceptRate::About(0.1349)), "in 13 % of pairs");
        assert_eq!(
            words(FalseAcceptRate::About(0.00042)),
            "in 0.042 % of pairs"
        );
        assert_eq!(
            words(FalseAcceptRate::Below(0.001)),
            "in fewer than 0.1 % of pairs"
        );
    }
}
