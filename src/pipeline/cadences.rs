//! Decides which frames of each camera the detector skips. The tracking stage reports how well
//! predictions meet detections; the scale stage asks, some frames later, whether a frame can be
//! skipped.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::frame::Frame;
use crate::pipeline::batcher::Lane;
use crate::time::Seconds;
use crate::track::cadence::{Agreement, Cadence, CadenceConfig, CadenceLimits};

/// The rules by which the cadence of a run's cameras is decided.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CadencePolicy {
    /// Settings by which intervals grow and shrink.
    pub config: CadenceConfig,
    /// Limits for recordings; the detector processes every frame if absent.
    pub recordings: Option<CadenceLimits>,
    /// Limits for live inputs; the detector processes every frame if absent.
    pub live: Option<CadenceLimits>,
}

impl CadencePolicy {
    fn limits(&self, live: bool) -> Option<CadenceLimits> {
        if live { self.live } else { self.recordings }
    }
}

/// The cadences of all cameras, shared by the stages.
#[derive(Debug, Clone)]
pub(super) struct Cadences {
    policy: Arc<CadencePolicy>,
    /// A decision depends on reports that are at least this many frames old. Those have come in
    /// any case, since only so many frames are in progress: two runs of a recording decide alike.
    delay: u64,
    cameras: Arc<Mutex<BTreeMap<Lane, CameraCadence>>>,
}

#[derive(Debug, Default)]
struct CameraCadence {
    cadence: Cadence,
    /// Frame numbers, and the intervals after them.
    intervals: VecDeque<(u64, Seconds)>,
    /// Time of the last frame that was not skipped.
    processed: Option<Seconds>,
    /// Time of the last frame.
    last: Option<Seconds>,
}

impl Cadences {
    pub fn new(policy: CadencePolicy, delay: u64) -> Self {
        Cadences {
            policy: Arc::new(policy),
            delay,
            cameras: Arc::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Lane, CameraCadence>> {
        // No code that can panic runs under the lock while a value is half changed.
        self.cameras.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the detector skips this frame of a recording or a `live` input.
    pub fn skips(&self, lane: Lane, frame: &Frame, live: bool) -> bool {
        if self.policy.limits(live).is_none() {
            return false;
        }
        let mut cameras = self.lock();
        let camera = cameras.entry(lane).or_default();
        if frame.restart {
            *camera = CameraCadence::default();
        }
        let is_due = |number: u64| number + self.delay <= frame.number;
        while camera.intervals.get(1).is_some_and(|next| is_due(next.0)) {
            camera.intervals.pop_front();
        }
        let interval = camera
            .intervals
            .front()
            .filter(|(number, _)| is_due(*number))
            .map_or(Seconds::ZERO, |(_, interval)| *interval);
        let period = camera.last.map_or(Seconds::ZERO, |l| frame.pts - l);
        camera.last = Some(frame.pts);
        // The nearest frame to the end of the interval is processed.
        let skips = camera
            .processed
            .is_some_and(|p| (frame.pts - p).0 + period.0 / 2.0 < interval.0);
        if !skips {
            camera.processed = Some(frame.pts);
        }
        skips
    }

    /// Reports a frame that the detector has processed.
    pub fn observe(&self, lane: Lane, frame: u64, live: bool, agreement: Agreement) {
        let Some(limits) = self.policy.limits(live) else {
            return;
        };
        let mut cameras = self.lock();
        let camera = cameras.entry(lane).or_default();
        let interval = camera
            .cadence
            .observe(agreement, &self.policy.config, limits);
        camera.intervals.push_back((frame, interval));
    }

    /// Share of the tracks whose predictions may be worse, in [0, 1].
    pub fn exceptions(&self) -> f32 {
        self.policy.config.exceptions
    }

    /// Forgets a camera that has ended.
    pub fn remove(&self, lane: Lane) {
        self.lock().remove(&lane);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: CadenceLimits = CadenceLimits {
        max_interval: Seconds(0.2),
        overlap: 0.6,
    };

    /// Frame `number` of a video with 10 frames/s.
    fn frame(number: u64) -> Frame {
        Frame {
            camera: "c".into(),
            number,
            pts: Seconds(0.1 * number as f64),
            time: None,
            width: 64,
            height: 48,
            image: None,
            restart: number == 1,
        }
    }

    fn cadences(delay: u64) -> Cadences {
        let policy = CadencePolicy {
            config: CadenceConfig::default().with_growth(0.1),
            recordings: Some(LIMITS),
            live: None,
        };
        Cadences::new(policy, delay)
    }

    fn good() -> Agreement {
        Agreement {
            overlap: 1.0,
            newcomer: false,
            camera_moves: false,
        }
    }

    /// The frames of 1 to `last` that are processed, if each is reported `late` frames later.
    fn processed(cadences: &Cadences, last: u64, late: u64) -> Vec<u64> {
        let mut processed = Vec::new();
        for number in 1..=last {
            if number > late && processed.contains(&(number - late)) {
                cadences.observe(0, number - late, false, good());
            }
            if !cadences.skips(0, &frame(number), false) {
                processed.push(number);
            }
        }
        processed
    }

    #[test]
    fn frames_are_skipped_once_predictions_are_known_to_be_good() {
        // From frame 5 on an interval of 0.2 s is known: every second frame.
        assert_eq!(processed(&cadences(3), 12, 1), [1, 2, 3, 4, 6, 8, 10, 12]);
    }

    #[test]
    fn decisions_do_not_depend_on_when_reports_come() {
        let early = processed(&cadences(3), 40, 1);
        assert_eq!(processed(&cadences(3), 40, 2), early);
        assert_eq!(processed(&cadences(3), 40, 3), early);
        assert_ne!(processed(&cadences(9), 40, 3), early, "older reports");
    }

    #[test]
    fn a_restart_begins_anew_and_live_inputs_have_limits_of_their_own() {
        let cadences = cadences(1);
        processed(&cadences, 10, 1);
        let restart = Frame {
            restart: true,
            ..frame(11)
        };
        assert!(!cadences.skips(0, &restart, false));
        assert!(!cadences.skips(0, &frame(12), false), "no report yet");
        cadences.observe(1, 1, true, good());
        assert!((2..30).all(|n| !cadences.skips(1, &frame(n), true)));
    }
}
