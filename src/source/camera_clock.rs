//! The camera's own wall clock, from its RTCP sender reports (RFC 3550, section 6.4).

use crate::time::{Clock, Seconds, Timestamp, WallTime};

/// Largest accepted difference between a camera's clock and this machine's. Beyond it arrival times
/// are used, because many cameras' clocks are never set.
pub const MAX_DEVIATION: Seconds = Seconds(10.0);

/// Wall-clock times of a camera's frames: the camera's time of the stream's start plus the frame's
/// time in the stream. The arrival time is used if the camera has reported none, or one that
/// differs from this machine's clock by more than [`MAX_DEVIATION`]. Times step back only where
/// they change from arrival times to the camera's.
#[derive(Debug, Clone, Default)]
pub struct CameraClock {
    /// Whether the present deviation has been logged.
    warned: bool,
    /// The last time returned.
    last: Option<WallTime>,
}

impl CameraClock {
    /// The wall-clock time of a frame. `camera`: its name, for the log. `start_us`: the camera's
    /// time of stream time 0, microseconds since 1970; 0 or less if unknown (FFmpeg gives a large
    /// negative number before the first sender report). `stream_time`: the frame's time in the
    /// stream. `now`: its arrival.
    pub fn time(
        &mut self,
        camera: &str,
        start_us: f64,
        stream_time: Seconds,
        now: Timestamp,
    ) -> WallTime {
        let measured = self.measured(camera, start_us, stream_time, now);
        let changes_to_camera_clock = |last: &WallTime| {
            last.clock == Some(Clock::Arrival) && measured.clock == Some(Clock::Rtcp)
        };
        let at = self
            .last
            .filter(|last| !changes_to_camera_clock(last))
            .map_or(measured.at, |last| {
                if last.at > measured.at {
                    last.at
                } else {
                    measured.at
                }
            });
        *self.last.insert(WallTime { at, ..measured })
    }

    /// As [`Self::time`], but may step back.
    fn measured(
        &mut self,
        camera: &str,
        start_us: f64,
        stream_time: Seconds,
        now: Timestamp,
    ) -> WallTime {
        let arrival = WallTime {
            at: now,
            clock: Some(Clock::Arrival),
        };
        if start_us <= 0.0 {
            return arrival;
        }
        let camera_time =
            Timestamp(jiff::Timestamp::UNIX_EPOCH).plus(Seconds(start_us / 1e6) + stream_time);
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
                "the camera's clock is {:.0} s {} this machine's: arrival times are used; set both \
                 clocks by NTP",
                deviation.0.abs(),
                if deviation.0 > 0.0 {
                    "behind"
                } else {
                    "ahead of"
                }
            );
        }
        arrival
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn camera_time_is_used_after_the_first_sender_report_while_it_is_within_the_limit() {
        let now: Timestamp = serde_json::from_str("\"2026-11-25T12:00:10.500Z\"").expect("a time");
        let midday: Timestamp =
            serde_json::from_str("\"2026-11-25T12:00:00.000Z\"").expect("a time");
        let start = midday.0.as_microsecond() as f64;
        let mut clock = CameraClock::default();
        let mut at = |start: f64, stream: f64| clock.time("door", start, Seconds(stream), now);
        assert_eq!(
            at(i64::MIN as f64, 10.0),
            WallTime {
                at: now,
                clock: Some(Clock::Arrival)
            }
        );
        assert_eq!(at(0.0, 10.0).clock, Some(Clock::Arrival));
        let first = at(start, 10.2);
        assert_eq!(first.clock, Some(Clock::Rtcp));
        assert!((first.at.since(midday).0 - 10.2).abs() < 1e-6);
        // A camera whose clock was never set: it counts from 1970.
        assert_eq!(
            at(5e6, 10.2),
            WallTime {
                at: now,
                clock: Some(Clock::Arrival)
            }
        );
        assert_eq!(at(start, 21.0).clock, Some(Clock::Arrival));
        assert_eq!(at(start, 20.0).clock, Some(Clock::Rtcp));
    }

    #[test]
    fn time_steps_back_only_at_the_change_to_the_camera_clock() {
        let midday: Timestamp =
            serde_json::from_str("\"2026-11-25T12:00:00.000Z\"").expect("a time");
        let start = midday.0.as_microsecond() as f64;
        let mut clock = CameraClock::default();
        let mut at = |start: f64, stream: f64, now: f64| {
            let time = clock.time("door", start, Seconds(stream), midday.plus(Seconds(now)));
            (time.at.since(midday).0 * 1e3).round() / 1e3
        };
        assert_eq!(
            [at(0.0, 1.0, 1.3), at(start, 1.1, 1.4), at(start, 1.2, 1.5)],
            [1.3, 1.1, 1.2]
        );
        assert_eq!(
            [at(start - 3e6, 4.0, 1.6), at(start, 1.4, 1.7)],
            [1.2, 1.4],
            "a report that is 3 s earlier: time stands still until the next report"
        );
        assert_eq!(
            at(0.0, 1.5, 1.3),
            1.4,
            "an arrival time does not step back behind the camera's"
        );
    }
}
