//! Time: presentation times and durations in seconds, and wall-clock time.

use std::fmt;
use std::ops::{Add, Sub};

use jiff::civil::date;
use jiff::fmt::temporal::Pieces;
use serde::{Deserialize, Serialize};

/// A duration, or a presentation time, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seconds(pub f64);

impl Seconds {
    /// Zero seconds.
    pub const ZERO: Seconds = Seconds(0.0);

    /// The seconds as f32, for arithmetic with pixels.
    pub fn f32(self) -> f32 {
        self.0 as f32
    }
}

impl Add for Seconds {
    type Output = Seconds;
    fn add(self, other: Seconds) -> Seconds {
        Seconds(self.0 + other.0)
    }
}

impl Sub for Seconds {
    type Output = Seconds;
    fn sub(self, other: Seconds) -> Seconds {
        Seconds(self.0 - other.0)
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} s", self.0)
    }
}

/// Wall-clock time. Serialised as RFC 3339 in UTC with milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Timestamp(pub jiff::Timestamp);

impl Timestamp {
    /// This time plus `seconds`; saturates at the limits of the calendar.
    pub fn plus(self, seconds: Seconds) -> Self {
        let span = jiff::SignedDuration::try_from_secs_f64(seconds.0).unwrap_or_default();
        Timestamp(self.0.saturating_add(span).unwrap_or(self.0))
    }

    /// The time from `other` to this.
    pub fn since(self, other: Timestamp) -> Seconds {
        Seconds(self.0.duration_since(other.0).as_secs_f64())
    }
}

impl Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&format_args!("{:.3}", self.0))
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        parse(&text)
            .map(Timestamp)
            .map_err(serde::de::Error::custom)
    }
}

/// Parses RFC 3339. Times of the last two days of its calendar that jiff cannot represent become
/// jiff's latest one, because clients write 9999-12-31T23:59:59Z for "no end".
fn parse(text: &str) -> Result<jiff::Timestamp, jiff::Error> {
    text.parse().or_else(|error| {
        let is_last = |time: Pieces<'_>| {
            let complete = time.time().is_some() && time.offset().is_some();
            complete && time.date() >= date(9999, 12, 30)
        };
        if Pieces::parse(text).is_ok_and(is_last) {
            Ok(jiff::Timestamp::MAX)
        } else {
            Err(error)
        }
    })
}

/// The origin of a wall-clock time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Clock {
    /// This machine's clock when the frame had been decoded: later than the exposure by the latency
    /// of camera and network.
    Arrival,
    /// The camera's clock, from its RTCP sender reports.
    Rtcp,
    /// The given start of a recording plus the frame's presentation time.
    Recording,
}

/// Wall-clock time of a frame, with its origin.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WallTime {
    /// The time.
    pub at: Timestamp,
    /// The origin, if known.
    pub clock: Option<Clock>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_is_rfc_3339_with_milliseconds() {
        let t: Timestamp =
            serde_json::from_str("\"2026-11-24T12:00:41.133Z\"").expect("a valid time");
        assert_eq!(
            serde_json::to_string(&t.plus(Seconds(0.5))).expect("serialises"),
            "\"2026-11-24T12:00:41.633Z\""
        );
    }

    /// Regression: the last day of the calendar of RFC 3339 was refused.
    #[test]
    fn the_end_of_the_calendar_is_a_time() {
        for text in [
            "9999-12-31T00:00:00Z",
            "9999-12-31T23:59:59.999Z",
            "9999-12-30T23:30:00-01:00",
        ] {
            assert_eq!(parse(text).expect(text), jiff::Timestamp::MAX);
        }
        let before = parse("9999-12-30T21:00:00Z").expect("representable");
        assert!(before < jiff::Timestamp::MAX);
        for text in ["9999-12-31", "9999-12-31T23:59:59", "9999-12-32T00:00:00Z"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
