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

/// Largest size of the pixels of frames skipped in a row, bytes. They are held until the next frame
/// with detections.
const MAX_SKIPPED_BYTES: usize = 128 << 20;

/// The cadences of all cameras, shared by the stages.
#[derive(Debug, Clone)]
pub(super) struct Cadences {
    policy: Arc<CadencePolicy>,
    /// A decision uses a report only if the report's frame is at least this many frames of the
    /// camera ago. Fewer frames are in progress, so that report has always arrived, and two runs of
    /// a recording skip the same frames.
    delay: u64,
    cameras: Arc<Mutex<BTreeMap<Lane, CameraCadence>>>,
}

#[derive(Debug, Default)]
struct CameraCadence {
    cadence: Cadence,
    /// Number of frames so far. Numbers of the source would have gaps.
    frames: u64,
    /// The first frame, by that count, whose report is used: those before belong to tracks that
    /// have ended.
    first: u64,
    /// Frames, by that count, and the intervals after them.
    intervals: VecDeque<(u64, Seconds)>,
    /// Size of the pixels of the frames skipped in a row, bytes.
    skipped: usize,
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

    /// Whether the detector skips this frame of a recording or a `live` input. Also returns the
    /// frame's number for [`Cadences::observe`].
    pub fn skips(&self, lane: Lane, frame: &Frame, live: bool) -> (bool, u64) {
        if self.policy.limits(live).is_none() {
            return (false, 0);
        }
        let mut cameras = self.lock();
        let camera = cameras.entry(lane).or_default();
        camera.frames += 1;
        let number = camera.frames;
        if frame.restart {
            *camera = CameraCadence {
                frames: number,
                first: number,
                ..CameraCadence::default()
            };
        }
        let is_due = |reported: u64| reported + self.delay <= number;
        while camera.intervals.get(1).is_some_and(|next| is_due(next.0)) {
            camera.intervals.pop_front();
        }
        let interval = camera
            .intervals
            .front()
            .filter(|(reported, _)| is_due(*reported))
            .map_or(Seconds::ZERO, |(_, interval)| *interval);
        let period = camera.last.map_or(Seconds::ZERO, |l| frame.pts - l);
        camera.last = Some(frame.pts);
        let bytes = frame.image.as_ref().map_or(0, |image| image.data.len());
        // The frame nearest to the end of the interval is processed.
        let skips = camera
            .processed
            .is_some_and(|p| (frame.pts - p).0 + period.0 / 2.0 < interval.0)
            && camera.skipped + bytes <= MAX_SKIPPED_BYTES;
        if skips {
            camera.skipped += bytes;
        } else {
            (camera.processed, camera.skipped) = (Some(frame.pts), 0);
        }
        (skips, number)
    }

    /// Reports a frame that the detector has processed, by its number from [`Cadences::skips`].
    /// `agreement` computes the agreement, given the share of exceptions; it is called only if
    /// frames can be skipped.
    pub fn observe(
        &self,
        lane: Lane,
        number: u64,
        live: bool,
        agreement: impl FnOnce(f32) -> Agreement,
    ) {
        let Some(limits) = self.policy.limits(live) else {
            return;
        };
        let config = &self.policy.config;
        let agreement = agreement(config.exceptions);
        let mut cameras = self.lock();
        let camera = cameras.entry(lane).or_default();
        if number < camera.first {
            return;
        }
        let interval = camera.cadence.observe(agreement, config, limits);
        camera.intervals.push_back((number, interval));
    }

    /// Forgets a camera that has ended.
    pub fn remove(&self, lane: Lane) {
        self.lock().remove(&lane);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Image;

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

    /// Cadences of recordings whose intervals grow by `growth` up to `max_interval`, seconds.
    fn growing(growth: f64, max_interval: f64, delay: u64) -> Cadences {
        let policy = CadencePolicy {
            config: CadenceConfig::default().with_growth(growth),
            recordings: Some(CadenceLimits {
                max_interval: Seconds(max_interval),
                overlap: 0.6,
            }),
            live: None,
        };
        Cadences::new(policy, delay)
    }

    fn cadences(delay: u64) -> Cadences {
        growing(0.1, 0.2, delay)
    }

    fn good(_: f32) -> Agreement {
        Agreement {
            overlap: 1.0,
            newcomer: false,
            camera_moves: false,
        }
    }

    /// The frames among `frames` that are processed, if each is reported `late` frames later.
    fn processed(
        cadences: &Cadences,
        frames: impl Iterator<Item = Frame>,
        late: usize,
    ) -> Vec<u64> {
        let (mut processed, mut reports) = (Vec::new(), VecDeque::new());
        for frame in frames {
            if reports.len() >= late
                && let Some(Some(number)) = reports.pop_front()
            {
                cadences.observe(0, number, false, good);
            }
            let (skips, number) = cadences.skips(0, &frame, false);
            reports.push_back((!skips).then_some(number));
            if !skips {
                processed.push(frame.number);
            }
        }
        processed
    }

    #[test]
    fn frames_are_skipped_once_predictions_are_known_to_be_good() {
        // From frame 5 on an interval of 0.2 s is known: every second frame.
        let processed = processed(&cadences(3), (1..=12).map(frame), 1);
        assert_eq!(processed, [1, 2, 3, 4, 6, 8, 10, 12]);
    }

    #[test]
    fn decisions_do_not_depend_on_when_reports_come() {
        let run = |delay, late| processed(&cadences(delay), (1..=40).map(frame), late);
        let early = run(3, 1);
        assert_eq!(run(3, 2), early);
        assert_eq!(run(3, 3), early);
        assert_ne!(run(9, 3), early, "older reports");
    }

    #[test]
    fn frames_that_the_source_leaves_out_do_not_shorten_the_delay() {
        let run = |late| {
            let every_third = (1..=120).step_by(3).map(frame);
            processed(&growing(0.2, 0.9, 3), every_third, late)
        };
        assert!(run(1).len() < 30);
        assert_eq!(run(3), run(1));
    }

    #[test]
    fn a_restart_begins_anew_without_the_reports_of_frames_before_it() {
        let run = |late| {
            let restart = |n: u64| Frame {
                restart: n == 1 || n == 11,
                ..frame(n)
            };
            processed(&cadences(3), (1..=30).map(restart), late)
        };
        assert_eq!(run(3), run(1));
        assert!((11..=14).all(|n| run(2).contains(&n)), "{:?}", run(2));
    }

    #[test]
    fn live_inputs_have_limits_of_their_own() {
        let cadences = cadences(1);
        cadences.observe(1, 1, true, good);
        assert!((2..30).all(|n| !cadences.skips(1, &frame(n), true).0));
    }

    #[test]
    fn frames_that_are_held_are_limited_in_size() {
        // Three frames of 40 MiB are within the limit of 128 MiB.
        let image = Image::packed(
            1 << 12,
            (40 << 20) / (3 << 12),
            vec![0; 3 * (1 << 12) * ((40 << 20) / (3 << 12))].into(),
        );
        let large = |n| Frame {
            image: Some(image.clone()),
            ..frame(n)
        };
        let processed = processed(&growing(1.0, 1.0, 1), (1..=10).map(large), 1);
        assert_eq!(processed, [1, 5, 9]);
    }
}
