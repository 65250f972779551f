//! Monotonic time out of whatever a container or camera says.

use crate::time::Seconds;

/// Turns reported presentation times into times that always go forward.
///
/// Policy: a reported time after the last is believed, of a live stream up to [`MAX_JUMP`] after it, of a recording however
/// far. A time that stands still, runs backwards, is missing or jumps further ahead is replaced by the last time plus one
/// frame at the nominal rate, and later reports are taken relative to that.
#[derive(Debug, Clone)]
pub struct Timeline {
    frame: Seconds,
    max_jump: Seconds,
    /// Of the last frame: the time reported, the time given.
    last: Option<(Seconds, Seconds)>,
}

/// The greatest believable gap between two frames of a live stream.
pub const MAX_JUMP: Seconds = Seconds(10.0);

impl Timeline {
    /// For a live stream of about `frame_rate` frames a second (25 where that is unknown).
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

    /// For a recording, whose container's own times are believed however far they go forward.
    pub fn of_recording(frame_rate: f64) -> Self {
        Timeline {
            max_jump: Seconds(f64::INFINITY),
            ..Self::of_stream(frame_rate)
        }
    }

    /// The time reported for the last frame, or what it must have been where none was.
    pub fn reported(&self) -> Seconds {
        self.last.map_or(Seconds::ZERO, |(reported, _)| reported)
    }

    /// The time of the next frame, given the time reported for it.
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

/// A gap of a recording from which on it may be a hole, as after an interruption of a camera.
pub const HOLE: Seconds = Seconds(3.0);

/// Finds the frames of a recording before which tracks must start anew: at a hole, told from a slow rate of frames, and at
/// another size.
#[derive(Debug, Clone, Default)]
pub struct Breaks {
    /// Time and size, pixels, of the last frame.
    last: Option<(Seconds, (u32, u32))>,
    /// The gap before it, unless that was a hole.
    usual: Option<Seconds>,
}

impl Breaks {
    /// Whether tracks must start anew before this frame: its size, in pixels, is another, or the gap before it is more than
    /// [`HOLE`] and ten times the one before.
    pub fn before(&mut self, pts: Seconds, size: (u32, u32)) -> bool {
        let Some((last, last_size)) = self.last.replace((pts, size)) else {
            return false;
        };
        let gap = pts - last;
        let is_hole = self
            .usual
            .is_some_and(|usual| gap > HOLE && gap.0 > 10.0 * usual.0);
        if !is_hole {
            self.usual = Some(gap);
        }
        is_hole || last_size != size
    }
}

/// Thins a stream to a number of frames a second, evenly.
#[derive(Debug, Clone)]
pub struct Thinning {
    step: f64,
    due: Option<f64>,
}

impl Thinning {
    /// At most `rate` frames a second.
    pub fn new(rate: f64) -> Self {
        Thinning {
            step: 1.0 / rate,
            due: None,
        }
    }

    /// Whether the frame of this time is one of them.
    pub fn takes(&mut self, pts: Seconds) -> bool {
        let due = self.due.unwrap_or(pts.0);
        // Half a millisecond for times that were rounded.
        if pts.0 < due - 5e-4 {
            return false;
        }
        // The beat is kept where frames come a little after theirs, and begun anew after a gap.
        self.due = Some(if pts.0 - due < self.step {
            due + self.step
        } else {
            pts.0 + self.step
        });
        true
    }
}

/// How far a live stream's frames come behind their own times: a reader that was held up finds a row of old ones.
#[derive(Debug, Clone, Default)]
pub struct Lateness {
    /// Least of (arrival - presentation time), and when it was looked at.
    least: Option<(f64, f64)>,
    /// Since when frames are late, and how late they were then.
    since: Option<(f64, f64)>,
}

/// Clocks of cameras go wrong by less than this, seconds a second.
const DRIFT: f64 = 5e-4;
/// Frames that stay late for so long without catching up are not late: their clock was put back.
const CATCH_UP: f64 = 1.0;

impl Lateness {
    /// How late the frame is that arrives at `now` (any clock that goes forward evenly), beyond the stream's usual delay.
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
    fn honest_times_pass_through() {
        assert_eq!(run(&[Some(5.0), Some(5.1), Some(5.35)]), [5.0, 5.1, 5.35]);
    }

    #[test]
    fn missing_and_standing_times_go_on_at_the_nominal_rate() {
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
    fn a_recordings_times_are_believed_however_far_they_go_forward_but_not_backwards() {
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
    fn a_hole_is_long_beside_the_usual_gap_and_a_slow_rate_is_none() {
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
            "bridged as a camera's interruption is"
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
    fn thinning_is_even_and_never_above_the_rate() {
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
    fn frames_held_up_are_late_until_the_row_is_worked_off() {
        let mut l = Lateness::default();
        let mut late = |now: f64, pts: f64| l.of(Seconds(now), Seconds(pts), Seconds(0.5)).0;
        assert!((0..20).all(|i| late(5.0 + 0.1 * f64::from(i), 0.1 * f64::from(i)) < 0.01));
        // Nothing for 3 s, then everything at once, 200 frames a second.
        let row: Vec<f64> = (0..30)
            .map(|i| late(9.9 + 0.005 * f64::from(i), 2.0 + 0.1 * f64::from(i)))
            .collect();
        assert!(row[0] > 2.5 && row[20] > 0.5 && row[29] < 0.5, "{row:?}");
        assert!(late(10.1, 5.1) < 0.1);
    }

    #[test]
    fn a_clock_put_back_is_believed_within_a_second_or_so_and_a_slow_one_is_never_late() {
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
