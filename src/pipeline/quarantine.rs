//! Frames at which a network fails or panics: each is tried again alone and then left out; a camera
//! at whose frames the networks fail several times in a row is kept from them for a while. Nobody
//! else is held up by it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::pipeline::batcher::Lane;
use crate::pipeline::pipeline::PipelineError;
use crate::pipeline::stage::FAILURES;
use crate::time::Seconds;

/// How long it lasts, by the camera's own clock. After it one frame is tried.
pub(super) const LASTS: Seconds = Seconds(60.0);
/// Least time between two entries in the log on one camera's failures.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Why a frame is left out.
#[derive(Debug)]
pub(super) enum LeftOut {
    /// A network failed at it, alone too.
    Failed(PipelineError),
    /// Its camera is in quarantine.
    Held,
}

/// Which cameras are in quarantine. Shared by the stage that lets frames in and the one that sees
/// what became of them.
#[derive(Debug, Default)]
pub(super) struct Quarantine(Mutex<BTreeMap<Lane, Record>>);

#[derive(Debug, Default)]
struct Record {
    /// Frames that failed since the last that did not.
    in_a_row: u32,
    /// The end of the quarantine.
    until: Option<Seconds>,
    logged: Option<Instant>,
}

/// What follows from a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Consequence {
    /// The camera is in quarantine from now on.
    pub quarantines: bool,
    /// It is to be logged: nothing of this camera was for [`LOG_EVERY`].
    pub logs: bool,
}

impl Quarantine {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Lane, Record>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the camera's frame of this time is kept from the networks.
    pub fn holds(&self, lane: Lane, pts: Seconds) -> bool {
        self.lock()
            .get(&lane)
            .and_then(|r| r.until)
            .is_some_and(|until| pts < until)
    }

    /// The networks have looked at a frame of the camera.
    pub fn passed(&self, lane: Lane) {
        self.lock().remove(&lane);
    }

    /// A network has failed at a frame of this time.
    pub fn failed(&self, lane: Lane, pts: Seconds) -> Consequence {
        let mut records = self.lock();
        let r = records.entry(lane).or_default();
        r.in_a_row += 1;
        let quarantines = r.in_a_row >= FAILURES && r.until.is_none_or(|until| until <= pts);
        if quarantines {
            r.until = Some(pts + LASTS);
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
    fn a_camera_is_held_after_several_failures_in_a_row_then_tried_by_one_frame() {
        let (q, at) = (Quarantine::default(), |s: f64| Seconds(s));
        for i in 0..4 {
            assert!(!q.failed(1, at(0.1 * f64::from(i))).quarantines && !q.holds(1, at(0.5)));
        }
        q.passed(1); // four, and one that passed
        let held: Vec<bool> = (0..5)
            .map(|i| q.failed(1, at(1.0 + 0.1 * f64::from(i))).quarantines)
            .collect();
        assert_eq!(held, [false, false, false, false, true]);
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
