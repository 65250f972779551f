//! The clock of this machine. Pure modules do not use it; they receive times as arguments.

use crate::time::{Clock, Timestamp, WallTime};

/// The current time.
pub fn now() -> Timestamp {
    Timestamp(jiff::Timestamp::now())
}

/// The current time, for a frame that has just been decoded.
pub fn arrival() -> WallTime {
    WallTime {
        at: now(),
        clock: Some(Clock::Arrival),
    }
}
