//! How patient a camera needs its reader to be.

use crate::time::Seconds;

/// How much more time than the usual a camera gets: one that is slow to answer, far from its next whole picture, or gives a frame
/// only now and then runs out of it again and again.
#[derive(Debug, Default)]
pub(super) struct Slowness {
    /// Attempts in a row that took their whole time. One may have come at a bad moment; from the second on the next get more.
    steps: u32,
    /// Number and time of the first and of the last frame since it was opened. Both are the camera's own: it may send some in a heap,
    /// and some may be left out on the way.
    between: Option<[(u64, Seconds); 2]>,
}

/// Time-outs become at most this many times as long.
const SLOWEST: u32 = 4;
/// Frames that come in a quarter of the time-out or less are in no danger of it.
const BRISK: f64 = 0.25;

impl Slowness {
    /// Of a camera that used up its whole time so many times in a row.
    pub fn after(timeouts: u32) -> Self {
        Slowness {
            steps: timeouts.min(SLOWEST),
            between: None,
        }
    }

    /// Time-outs are multiplied by it.
    pub fn factor(&self) -> f64 {
        f64::from(self.steps.max(1))
    }

    /// It is opened anew.
    pub fn opened(&mut self) {
        self.between = None;
    }

    /// Frame `number`, of time `pts`, has come; `timeout` is the usual one.
    pub fn frame(&mut self, number: u64, pts: Seconds, timeout: f64) {
        let this = (number, pts);
        self.between = Some([self.between.map_or(this, |[first, _]| first), this]);
        if self.brisk(timeout) {
            self.steps = 0;
        }
    }

    fn brisk(&self, timeout: f64) -> bool {
        self.between.is_some_and(|[(first, begin), (last, end)]| {
            last > first && (end - begin).0 < BRISK * timeout * (last - first) as f64
        })
    }

    /// An attempt or a stream has ended, `waited` seconds after its beginning or its last frame: one that took its whole time gets
    /// more the next time.
    pub fn lost(&mut self, waited: f64, timeout: f64) {
        if waited > 0.9 * timeout && !self.brisk(timeout) {
            self.steps = (self.steps + 1).min(SLOWEST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_camera_that_is_slow_or_gives_few_frames_gets_more_time_and_a_brisk_one_does_not() {
        let mut slow = Slowness::default();
        // It answers late: more each time, up to four times as much. A refusal at once is no matter of time.
        let steps = [2.0, 2.0, 0.1, 4.0, 6.0, 8.0].map(|waited| {
            slow.opened();
            slow.lost(waited, 2.0);
            slow.factor()
        });
        assert_eq!(steps, [1.0, 2.0, 2.0, 3.0, 4.0, 4.0]);
        // A frame every three seconds: the longer time stays, and grows where it is not enough.
        let mut seldom = Slowness::default();
        for (frames, factor) in [(1, 1.0), (1, 2.0), (2, 3.0)] {
            seldom.opened();
            (0..frames).for_each(|i| seldom.frame(i, Seconds(3.0 * i as f64), 2.0));
            seldom.lost(2.0 * factor, 2.0);
            assert_eq!(seldom.factor(), factor);
        }
        // Ten frames a second, then silence: it is gone, not slow, and what it once needed is forgotten.
        seldom.opened();
        // (Of these frames only every twentieth is taken.)
        [0, 20, 40]
            .into_iter()
            .for_each(|i| seldom.frame(i, Seconds(0.1 * i as f64), 2.0));
        seldom.lost(2.0, 2.0);
        assert_eq!(seldom.factor(), 1.0);
    }
}
