//! Cameras on whose frames a network fails repeatedly. A frame on which a network fails in a batch,
//! and again when it is processed alone, is dropped; after [`MAX_FAILURES`] such frames in a row
//! the camera's frames bypass the networks for [`DURATION`], so that other cameras are not delayed.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::pipeline::batcher::Lane;
use crate::pipeline::error::PipelineError;
use crate::pipeline::stage::MAX_FAILURES;
use crate::time::Seconds;

/// Duration of a quarantine, by the camera's presentation times. After it one frame is tried.
pub(super) const DURATION: Seconds = Seconds(60.0);
/// Minimum interval between two log lines about one camera's failures.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Why a frame is dropped.
#[derive(Debug)]
pub(super) enum LeftOut {
    /// A network failed on the frame in a batch, and again when it was processed alone.
    Failed(PipelineError),
    /// Its camera is in quarantine.
    Quarantined,
}

/// The cameras in quarantine. Shared by the scale stage, which drops their frames, and the
/// tracking stage, which sees the failures.
#[derive(Debug, Default)]
pub(super) struct Quarantine(Mutex<BTreeMap<Lane, Record>>);

#[derive(Debug, Default)]
struct Record {
    /// Failures since the last success.
    in_a_row: u32,
    /// The end of the quarantine.
    until: Option<Seconds>,
    logged: Option<Instant>,
}

/// The consequence of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Consequence {
    /// Whether the camera's quarantine begins.
    pub quarantines: bool,
    /// Whether a failure is logged: at the beginning of a quarantine, otherwise once per
    /// [`LOG_EVERY`].
    pub logs: bool,
}

impl Quarantine {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Lane, Record>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the camera's frame at `pts` bypasses the networks.
    pub fn holds(&self, lane: Lane, pts: Seconds) -> bool {
        self.lock()
            .get(&lane)
            .and_then(|r| r.until)
            .is_some_and(|until| pts < until)
    }

    /// Records that the networks processed a frame of the camera.
    pub fn passed(&self, lane: Lane) {
        self.lock().remove(&lane);
    }

    /// Records that a network failed on the camera's frame at `pts`.
    pub fn failed(&self, lane: Lane, pts: Seconds) -> Consequence {
        let mut records = self.lock();
        let r = records.entry(lane).or_default();
        r.in_a_row += 1;
        let quarantines = r.in_a_row >= MAX_FAILURES && r.until.is_none_or(|until| until <= pts);
        if quarantines {
            r.until = Some(pts + DURATION);
        }
        let logs = quarantines || r.logged.is_none_or(|at| at.elapsed() > LOG_EVERY);
        if logs {
            r.logged = Some(Instant::now());
        }
        Consequence { quarantines, logs }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_failures_in_a_row_begin_a_quarantine_after_which_one_frame_is_tried() {
        let (q, at) = (Quarantine::default(), |s: f64| Seconds(s));
        for i in 0..4 {
            assert!(!q.failed(1, at(0.1 * f64::from(i))).quarantines && !q.holds(1, at(0.5)));
        }
        q.passed(1); // four failures and a success
        let began: Vec<bool> = (0..5)
            .map(|i| q.failed(1, at(1.0 + 0.1 * f64::from(i))).quarantines)
            .collect();
        assert_eq!(began, [false, false, false, false, true]);
        assert!(
            q.holds(1, at(1.5))
                && q.holds(1, at(61.3))
                && !q.holds(1, at(61.5))
                && !q.holds(2, at(1.5))
        );
        assert!(q.failed(1, at(61.5)).quarantines && q.holds(1, at(121.0)));
        q.passed(1);
        assert!(!q.holds(1, at(121.0)) && !q.failed(1, at(121.1)).quarantines);
    }
}
