//! The camera's own wall clock, of which RTCP sender reports tell (RFC 3550, section 6.4).

use crate::time::{Clock, Seconds, Timestamp, WallTime};

/// A camera whose clock is off by more than this is not believed: many were never set.
pub const BELIEVED: Seconds = Seconds(10.0);

/// Turns the wall-clock time of a stream's zero, where the camera has told it, into those of its frames, which never step
/// back but where the camera tells its time for the first time.
#[derive(Debug, Clone, Default)]
pub struct CameraClock {
    doubted: bool,
    last: Option<WallTime>,
}

impl CameraClock {
    /// The time of a frame that has arrived `now` and has `reported` as its own time in the stream, whose zero was `zero`
    /// microseconds after 1970; FFmpeg says a great negative number until the first report has come.
    pub fn time(&mut self, camera: &str, zero: f64, reported: Seconds, now: Timestamp) -> WallTime {
        let told = self.told(camera, zero, reported, now);
        let first_report =
            |last: &WallTime| last.clock == Some(Clock::Arrival) && told.clock == Some(Clock::Rtcp);
        let at = self
            .last
            .filter(|last| !first_report(last))
            .map_or(
                told.at,
                |last| if last.at > told.at { last.at } else { told.at },
            );
        *self.last.insert(WallTime { at, ..told })
    }

    fn told(&mut self, camera: &str, zero: f64, reported: Seconds, now: Timestamp) -> WallTime {
        let arrival = WallTime {
            at: now,
            clock: Some(Clock::Arrival),
        };
        if zero <= 0.0 {
            return arrival;
        }
        let told = Timestamp(jiff::Timestamp::UNIX_EPOCH).plus(Seconds(zero / 1e6) + reported);
        let off = now.since(told);
        if off.0.abs() <= BELIEVED.0 {
            self.doubted = false;
            return WallTime {
                at: told,
                clock: Some(Clock::Rtcp),
            };
        }
        if !std::mem::replace(&mut self.doubted, true) {
            tracing::warn!(
                camera,
                "the camera's clock is off by {:.0} s and not used; set it (NTP), or take the time of arrival",
                off.0
            );
        }
        arrival
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_camera_is_believed_once_it_has_told_its_time_and_while_it_is_about_right() {
        let now: Timestamp = serde_json::from_str("\"2026-11-25T12:00:10.500Z\"").expect("a time");
        let midday: Timestamp =
            serde_json::from_str("\"2026-11-25T12:00:00.000Z\"").expect("a time");
        let zero = midday.0.as_microsecond() as f64;
        let mut clock = CameraClock::default();
        let mut at = |zero: f64, reported: f64| clock.time("door", zero, Seconds(reported), now);
        assert_eq!(
            at(i64::MIN as f64, 10.0),
            WallTime {
                at: now,
                clock: Some(Clock::Arrival)
            }
        );
        assert_eq!(at(0.0, 10.0).clock, Some(Clock::Arrival));
        let told = at(zero, 10.2);
        assert_eq!(told.clock, Some(Clock::Rtcp));
        assert!((told.at.since(midday).0 - 10.2).abs() < 1e-6);
        // Never set: it lives in 1970.
        assert_eq!(
            at(5e6, 10.2),
            WallTime {
                at: now,
                clock: Some(Clock::Arrival)
            }
        );
        assert_eq!(at(zero, 21.0).clock, Some(Clock::Arrival));
        assert_eq!(at(zero, 20.0).clock, Some(Clock::Rtcp));
    }

    #[test]
    fn time_steps_back_only_where_the_camera_tells_its_own_first() {
        let midday: Timestamp =
            serde_json::from_str("\"2026-11-25T12:00:00.000Z\"").expect("a time");
        let zero = midday.0.as_microsecond() as f64;
        let mut clock = CameraClock::default();
        let mut at = |zero: f64, reported: f64, now: f64| {
            let time = clock.time("door", zero, Seconds(reported), midday.plus(Seconds(now)));
            (time.at.since(midday).0 * 1e3).round() / 1e3
        };
        assert_eq!(
            [at(0.0, 1.0, 1.3), at(zero, 1.1, 1.4), at(zero, 1.2, 1.5)],
            [1.3, 1.1, 1.2]
        );
        assert_eq!(
            [at(zero - 3e6, 4.0, 1.6), at(zero, 1.4, 1.7)],
            [1.2, 1.4],
            "set back by its next report, and forward"
        );
        assert_eq!(at(0.0, 1.5, 1.3), 1.4, "it tells no more");
    }
}
