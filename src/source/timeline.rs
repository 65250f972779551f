//! Monotonic time out of whatever a container or camera says.

use crate::time::Seconds;

/// Turns reported presentation times into times that always go forward.
///
/// Policy: a reported time up to [`MAX_JUMP`] after the last is believed. A time that stands still, runs backwards, is
/// missing or jumps further ahead is replaced by the last time plus one frame at the nominal rate, and later reports
/// are taken relative to that.
#[derive(Debug, Clone)]
pub struct Timeline {
    frame: Seconds,
    last: Option<(Seconds, Seconds)>,
}

/// The greatest believable gap between two frames.
pub const MAX_JUMP: Seconds = Seconds(10.0);

impl Timeline {
    /// For a stream of about `frame_rate` frames a second (25 where that is unknown).
    pub fn new(frame_rate: f64) -> Self {
        let rate = if frame_rate.is_finite() && frame_rate > 0.1 && frame_rate < 1000.0 { frame_rate } else { 25.0 };
        Timeline { frame: Seconds(1.0 / rate), last: None }
    }

    /// The time of the next frame, given the time reported for it.
    pub fn next(&mut self, reported: Option<Seconds>) -> Seconds {
        let now = match (self.last, reported) {
            (None, reported) => (reported.unwrap_or_default(), reported.unwrap_or_default()),
            (Some((raw, out)), Some(r)) if r > raw && (r - raw) <= MAX_JUMP => (r, out + (r - raw)),
            (Some((raw, out)), r) => (r.unwrap_or(raw + self.frame), out + self.frame),
        };
        self.last = Some(now);
        now.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(reported: &[Option<f64>]) -> Vec<f64> {
        let mut t = Timeline::new(10.0);
        reported.iter().map(|r| (t.next(r.map(Seconds)).0 * 1000.0).round() / 1000.0).collect()
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
    fn a_jump_back_or_far_ahead_is_one_frame() {
        assert_eq!(run(&[Some(100.0), Some(100.1), Some(3.0), Some(3.1)]), [100.0, 100.1, 100.2, 100.3]);
        assert_eq!(run(&[Some(0.0), Some(95000.0), Some(95000.1)]), [0.0, 0.1, 0.2]);
    }

    #[test]
    fn a_senseless_rate_is_25() {
        assert_eq!(Timeline::new(f64::NAN).frame, Seconds(0.04));
        assert_eq!(Timeline::new(90000.0).frame, Seconds(0.04));
    }
}
