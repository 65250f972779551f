//! Time: seconds as the tracker counts them, and wall-clock time as people read it.

use std::fmt;
use std::ops::{Add, Sub};

use serde::{Deserialize, Serialize};

/// A duration or a position on a video's own clock, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seconds(pub f64);

impl Seconds {
    /// No time at all.
    pub const ZERO: Seconds = Seconds(0.0);

    /// The number as f32, for arithmetic beside pixels.
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

/// Wall-clock time of a frame. Written as RFC 3339 in UTC with milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Timestamp(pub jiff::Timestamp);

impl Timestamp {
    /// The present moment.
    pub fn now() -> Self {
        Timestamp(jiff::Timestamp::now())
    }

    /// `seconds` later than this; saturates at the ends of the calendar.
    pub fn plus(self, seconds: Seconds) -> Self {
        let span = jiff::SignedDuration::try_from_secs_f64(seconds.0).unwrap_or_default();
        Timestamp(self.0.saturating_add(span).unwrap_or(self.0))
    }

    /// How long after `other` this is.
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
        text.parse()
            .map(Timestamp)
            .map_err(serde::de::Error::custom)
    }
}

/// Where a wall-clock time comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Clock {
    /// This machine's clock when the frame had been decoded: the network's and the camera's delay later than the picture.
    Arrival,
    /// The camera's own clock, by its RTCP reports.
    Rtcp,
    /// The stated beginning of a recording, and the frame's presentation time.
    Recording,
}

/// Wall-clock time of a frame, and how it is known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WallTime {
    /// The time.
    pub at: Timestamp,
    /// Where it comes from, when that is known.
    pub clock: Option<Clock>,
}

impl WallTime {
    /// A frame that has arrived just now.
    pub fn arrival() -> Self {
        WallTime {
            at: Timestamp::now(),
            clock: Some(Clock::Arrival),
        }
    }
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
}
