//! The camera's own wall clock, from its RTCP sender reports (RFC 3550, section 6.4).

use crate::time::{Clock, Seconds, Timestamp, WallTime};

/// A camera whose clock deviates by more than this is ignored: many are never set.
pub const MAX_DEVIATION: Seconds = Seconds(10.0);

/// Computes the wall-clock times of frames from that of the stream's zero, if the camera has
/// reported it. Times do not step back, except at the first report.
#[derive(Debug, Clone, Default)]
pub struct CameraClock {
    warned: bool,
    last: Option<WallTime>,
}

impl CameraClock {
    /// The time of a frame that arrives at `now`. `reported`: its time in the stream; `zero`: the
    /// stream's zero, microseconds since 1970, a large negative number before the first report
    /// (FFmpeg).
    pub fn time(&mut self, camera: &str, zero: f64, reported: Seconds, now: Timestamp) -> WallTime {
        let measured = self.unordered(camera, zero, reported, now);
        let first_report = |last: &WallTime| {
            last.clock == Some(Clock::Arrival) && measured.clock == Some(Clock::Rtcp)
        };
        let at = self
            .last
            .filter(|last| !first_report(last))
            .map_or(measured.at, |last| {
                if last.at > measured.at {
                    last.at
                } else {
                    measured.at
                }
            });
        *self.last.insert(WallTime { at, ..measured })
    }

    /// The time of the frame, regardless of the times of earlier frames.
    fn unordered(
        &mut self,
        camera: &str,
        zero: f64,
        reported: Seconds,
        now: Timestamp,
    ) -> WallTime {
        let arrival = WallTime {
            at: now,
            clock: Some(Clock::Arrival),
        };
        if zero <= 0.0 {
            return arrival;
        }
        let camera_time =
            Timestamp(jiff::Timestamp::UNIX_EPOCH).plus(Seconds(zero / 1e6) + reported);
        let deviation = now.since(camera_time);
        if deviation.0.abs() <= MAX_DEVIATION.0 {
            self.warned = false;
            return WallTime {
                at: camera_time,
                clock: Some(Clock::Rtcp),
            };
        }
        if !std::mem::replace(&mut self.warned, true) {
            tracing::warn!(
                camera,
                "the camera's clock is off by {:.0} s and ignored: arrival times are used; set it \
                 by NTP",
                deviation.0
            );
        }
        arrival
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_camera_s_time_is_used_after_its_first_report_while_it_is_plausible() {
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
        let first = at(zero, 10.2);
        assert_eq!(first.clock, Some(Clock::Rtcp));
        assert!((first.at.since(midday).0 - 10.2).abs() < 1e-6);
        // Never set: its clock began in 1970.
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
    fn time_steps_back_only_at_the_first_report() {
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
            "set back by the next report, and forward"
        );
        assert_eq!(at(0.0, 1.5, 1.3), 1.4, "no further report");
    }
}
