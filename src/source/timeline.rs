//! Monotonic times from the presentation times that a container or camera reports.

use crate::time::Seconds;

/// Turns reported presentation times into strictly increasing ones.
///
/// Policy: a reported time later than the last one is accepted; in a live stream, only up to
/// [`MAX_JUMP`] later. A time that stands still, runs backwards, is missing or jumps further is
/// replaced by the last time plus one frame at the nominal rate, and the times after it are shifted
/// by the same difference.
#[derive(Debug, Clone)]
pub struct Timeline {
    frame: Seconds,
    max_jump: Seconds,
    /// The last frame: the time reported, the time returned.
    last: Option<(Seconds, Seconds)>,
}

/// The longest gap accepted between two frames of a live stream.
pub const MAX_JUMP: Seconds = Seconds(10.0);

impl Timeline {
    /// For a live stream of about `frame_rate` frames per second (25 if unknown).
    pub fn of_stream(frame_rate: f64) -> Self {
        let rate = if frame_rate.is_finite() && frame_rate > 0.01 && frame_rate < 1000.0 {
            frame_rate
        } else {
            25.0
        };
        Timeline {
            frame: Seconds(1.0 / rate),
            max_jump: MAX_JUMP,
            last: None,
        }
    }

    /// For a recording: gaps of any length are accepted.
    pub fn of_recording(frame_rate: f64) -> Self {
        Timeline {
            max_jump: Seconds(f64::INFINITY),
            ..Self::of_stream(frame_rate)
        }
    }

    /// The time reported for the last frame, or its estimate if none was reported.
    pub fn reported(&self) -> Seconds {
        self.last.map_or(Seconds::ZERO, |(reported, _)| reported)
    }

    /// The time of the next frame; `reported` is the time reported for it.
    pub fn next(&mut self, reported: Option<Seconds>) -> Seconds {
        let now = match (self.last, reported) {
            (None, reported) => (reported.unwrap_or_default(), reported.unwrap_or_default()),
            (Some((raw, out)), Some(r)) if r > raw && r - raw <= self.max_jump => {
                (r, out + (r - raw))
            }
            (Some((raw, out)), r) => (r.unwrap_or(raw + self.frame), out + self.frame),
        };
        self.last = Some(now);
        now.1
    }
}

/// A gap in a recording is an interruption only if it is longer than this.
pub const INTERRUPTION: Seconds = Seconds(3.0);

/// Finds the frames of a recording before which tracks must end: after an interruption (as opposed
/// to a low frame rate) and at a change of size.
#[derive(Debug, Clone, Default)]
pub struct Breaks {
    /// Time and size (pixels) of the last frame.
    last: Option<(Seconds, (u32, u32))>,
    /// The last gap that was not an interruption.
    usual: Option<Seconds>,
}

impl Breaks {
    /// Whether tracks must end before this frame: its size (pixels) has changed, or the gap before
    /// it is longer than [`INTERRUPTION`] and longer than ten times the last usual gap.
    pub fn before(&mut self, pts: Seconds, size: (u32, u32)) -> bool {
        let Some((last, last_size)) = self.last.replace((pts, size)) else {
            return false;
        };
        let gap = pts - last;
        let is_hole = self
            .usual
            .is_some_and(|usual| gap > INTERRUPTION && gap.0 > 10.0 * usual.0);
        if !is_hole {
            self.usual = Some(gap);
        }
        is_hole || last_size != size
    }
}

/// Thins a stream to a target frame rate, evenly.
#[derive(Debug, Clone)]
pub struct Thinning {
    step: f64,
    due: Option<f64>,
}

impl Thinning {
    /// At most `rate` frames per second.
    pub fn new(rate: f64) -> Self {
        Thinning {
            step: 1.0 / rate,
            due: None,
        }
    }

    /// Whether the frame at `pts` is kept.
    pub fn takes(&mut self, pts: Seconds) -> bool {
        let due = self.due.unwrap_or(pts.0);
        // Half a millisecond of tolerance for rounded times.
        if pts.0 < due - 5e-4 {
            return false;
        }
        // Due times stay on a regular grid, unless there was a gap.
        self.due = Some(if pts.0 - due < self.step {
            due + self.step
        } else {
            pts.0 + self.step
        });
        true
    }
}

/// Measures how late a live stream's frames arrive: after a stall, the reader receives old frames.
#[derive(Debug, Clone, Default)]
pub struct Lateness {
    /// Minimum of (arrival - presentation time), and when it was updated.
    least: Option<(f64, f64)>,
    /// Since when frames have been late, and the delay at that time; set anew every [`CATCH_UP`].
    since: Option<(f64, f64)>,
}

/// Assumed maximum drift of cameras' clocks, seconds per second.
const DRIFT: f64 = 5e-4;
/// Frames that stay late for this long, in seconds, without catching up are not late: the camera's
/// clock was set back.
const CATCH_UP: f64 = 1.0;

impl Lateness {
    /// Delay of the frame that arrives at `now` (on any monotonic clock), relative to the stream's
    /// usual delay. A frame is late if that is more than `limit`.
    pub fn of(&mut self, now: Seconds, pts: Seconds, limit: Seconds) -> Seconds {
        let lag = now.0 - pts.0;
        let least = self
            .least
            .map_or(lag, |(least, at)| lag.min(least + DRIFT * (now.0 - at)));
        self.least = Some((least, now.0));
        let late = lag - least;
        if late <= limit.0 {
            self.since = None;
            return Seconds(late);
        }
        let &mut (since, before) = self.since.get_or_insert((now.0, late));
        if now.0 - since > CATCH_UP {
            self.since = Some((now.0, late));
            if late > 0.9 * before {
                *self = Lateness {
                    least: Some((lag, now.0)),
                    since: None,
                };
                return Seconds::ZERO;
            }
        }
        Seconds(late)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(reported: &[Option<f64>]) -> Vec<f64> {
        run_on(Timeline::of_stream(10.0), reported)
    }

    fn run_on(mut t: Timeline, reported: &[Option<f64>]) -> Vec<f64> {
        reported
            .iter()
            .map(|r| (t.next(r.map(Seconds)).0 * 1000.0).round() / 1000.0)
            .collect()
    }

    #[test]
    fn regular_times_are_unchanged() {
        assert_eq!(run(&[Some(5.0), Some(5.1), Some(5.35)]), [5.0, 5.1, 5.35]);
    }

    #[test]
    fn missing_and_repeated_times_continue_at_the_nominal_rate() {
        assert_eq!(run(&[None, None, None]), [0.0, 0.1, 0.2]);
        assert_eq!(run(&[Some(0.0), Some(0.0), Some(0.0)]), [0.0, 0.1, 0.2]);
    }

    #[test]
    fn a_frame_without_a_time_of_its_own_follows_the_last() {
        let mut t = Timeline::of_stream(10.0);
        assert_eq!(
            [Some(7.0), None, None].map(|r| (t.next(r.map(Seconds)), t.reported()).1.0),
            [7.0, 7.1, 7.199999999999999]
        );
    }

    #[test]
    fn a_jump_back_or_far_ahead_is_one_frame() {
        assert_eq!(
            run(&[Some(100.0), Some(100.1), Some(3.0), Some(3.1)]),
            [100.0, 100.1, 100.2, 100.3]
        );
        assert_eq!(
            run(&[Some(0.0), Some(95000.0), Some(95000.1)]),
            [0.0, 0.1, 0.2]
        );
    }

    #[test]
    fn times_of_a_recording_may_jump_forward_but_not_backward() {
        let recording = |reported: &[Option<f64>]| run_on(Timeline::of_recording(10.0), reported);
        assert_eq!(
            recording(&[Some(0.0), Some(20.0), Some(40.0)]),
            [0.0, 20.0, 40.0]
        );
        assert_eq!(
            recording(&[Some(0.0), Some(0.1), Some(60.1), Some(60.2)]),
            [0.0, 0.1, 60.1, 60.2]
        );
        assert_eq!(
            recording(&[Some(9.0), Some(9.0), None, Some(3.0), Some(3.1)]),
            [9.0, 9.1, 9.2, 9.3, 9.4]
        );
    }

    #[test]
    fn an_interruption_is_long_compared_with_the_usual_gap_and_a_low_frame_rate_is_none() {
        let holes = |times: &[f64]| {
            let mut breaks = Breaks::default();
            times
                .iter()
                .map(|t| breaks.before(Seconds(*t), (640, 480)))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            holes(&[0.0, 0.1, 0.2, 60.2, 60.3, 120.0]),
            [false, false, false, true, false, true]
        );
        assert_eq!(holes(&[0.0, 20.0, 40.0, 60.0]), [false; 4]);
        assert_eq!(
            holes(&[0.0, 0.1, 3.0, 3.1]),
            [false; 4],
            "shorter than the limit"
        );
        assert_eq!(holes(&[0.0, 0.1, 3.3, 3.4]), [false, false, true, false]);
        let mut breaks = Breaks::default();
        let sizes = [(64, 48), (64, 48), (48, 64), (48, 64)];
        assert_eq!(
            [0.0, 0.1, 0.2, 0.3]
                .iter()
                .zip(sizes)
                .map(|(t, s)| breaks.before(Seconds(*t), s))
                .collect::<Vec<_>>(),
            [false, false, true, false]
        );
    }

    #[test]
    fn thinning_is_even_and_does_not_exceed_the_rate() {
        let taken = |rate: f64, from: f64, n: u32| {
            let mut thin = Thinning::new(rate);
            (0..n)
                .map(|i| (f64::from(i) / from * 1000.0).round() / 1000.0)
                .filter(|&t| thin.takes(Seconds(t)))
                .collect::<Vec<_>>()
        };
        assert_eq!(taken(10.0, 30.0, 300).len(), 100);
        assert_eq!(taken(7.0, 25.0, 250).len(), 70);
        assert_eq!(taken(25.0, 10.0, 50).len(), 50);
        assert!(
            taken(4.0, 10.0, 100)
                .windows(2)
                .all(|w| w[1] - w[0] > 0.15 && w[1] - w[0] < 0.35)
        );
        let mut thin = Thinning::new(2.0);
        assert_eq!(
            [0.0, 0.3, 30.0, 30.2, 30.4, 30.5].map(|t| thin.takes(Seconds(t))),
            [true, false, true, false, false, true]
        );
    }

    #[test]
    fn frames_after_a_stall_are_late_until_the_backlog_is_read() {
        let mut l = Lateness::default();
        let mut late = |now: f64, pts: f64| l.of(Seconds(now), Seconds(pts), Seconds(0.5)).0;
        assert!((0..20).all(|i| late(5.0 + 0.1 * f64::from(i), 0.1 * f64::from(i)) < 0.01));
        // Nothing for 3 s, then the backlog at 200 frames per second.
        let row: Vec<f64> = (0..30)
            .map(|i| late(9.9 + 0.005 * f64::from(i), 2.0 + 0.1 * f64::from(i)))
            .collect();
        assert!(row[0] > 2.5 && row[20] > 0.5 && row[29] < 0.5, "{row:?}");
        assert!(late(10.1, 5.1) < 0.1);
    }

    #[test]
    fn a_clock_that_was_set_back_is_accepted_soon_and_a_slow_one_is_never_late() {
        let mut l = Lateness::default();
        let mut late = |now: f64, pts: f64| l.of(Seconds(now), Seconds(pts), Seconds(0.5)).0 > 0.5;
        assert!(!late(0.0, 0.0));
        let after: Vec<bool> = (0..40)
            .map(|i| late(5.0 + 0.1 * f64::from(i), 0.1 + 0.1 * f64::from(i)))
            .collect();
        assert!(after[0] && after[12..].iter().all(|l| !l), "{after:?}");
        let mut l = Lateness::default();
        assert!((0..360_000).all(|i| {
            l.of(
                Seconds(0.1 * f64::from(i)),
                Seconds(0.1 * f64::from(i) * (1.0 - 1e-4)),
                Seconds(0.5),
            )
            .0 < 0.1
        }));
    }

    #[test]
    fn a_senseless_rate_is_25() {
        assert_eq!(Timeline::of_stream(f64::NAN).frame, Seconds(0.04));
        assert_eq!(Timeline::of_stream(90000.0).frame, Seconds(0.04));
        assert_eq!(Timeline::of_stream(0.05).frame, Seconds(20.0));
    }
}
