//! What passes between a source and whoever supervises it: the wish to stop, the state, signs of life, counts.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::frame::CameraState;

/// One source's link to its supervisor. Clones share it.
#[derive(Debug, Clone)]
pub struct Link(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    began: Instant,
    stop: AtomicBool,
    state: AtomicU8,
    /// Milliseconds from `began` to the last sign of life.
    alive: AtomicU64,
    reconnects: AtomicU64,
    late: AtomicU64,
    thinned: AtomicU64,
    damaged: AtomicU64,
    timeouts: AtomicU32,
    failures: AtomicU64,
    outage: Mutex<Option<Outage>>,
}

/// The time without frames that a source is in.
#[derive(Debug)]
struct Outage {
    camera: Arc<str>,
    began: Instant,
    attempts: u64,
    reason: Arc<str>,
    /// When it was last logged.
    logged: Instant,
}

/// A source that stays away is logged again after so long.
const LOG_AGAIN: Duration = Duration::from_secs(600);

impl Default for Link {
    fn default() -> Self {
        Link(Arc::new(Shared {
            began: Instant::now(),
            stop: AtomicBool::new(false),
            state: AtomicU8::new(0),
            alive: AtomicU64::new(0),
            reconnects: AtomicU64::new(0),
            late: AtomicU64::new(0),
            thinned: AtomicU64::new(0),
            damaged: AtomicU64::new(0),
            timeouts: AtomicU32::new(0),
            failures: AtomicU64::new(0),
            outage: Mutex::new(None),
        }))
    }
}

const STATES: [CameraState; 4] = [
    CameraState::Connecting,
    CameraState::Online,
    CameraState::Offline,
    CameraState::Ended,
];

impl Link {
    /// Ends a source that waits, for a camera to come back or for a frame's moment; it then says that it is at its end.
    pub fn stop(&self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }

    /// Whether it is to end.
    pub fn stopped(&self) -> bool {
        self.0.stop.load(Ordering::Relaxed)
    }

    /// The source's state.
    pub fn state(&self) -> CameraState {
        STATES[usize::from(self.0.state.load(Ordering::Relaxed)).min(3)]
    }

    /// Notes the source's state. The end of an outage is logged.
    pub fn set(&self, state: CameraState) {
        let before = self.0.state.swap(state as u8, Ordering::Relaxed);
        self.beat();
        if state == CameraState::Online
            && before != state as u8
            && let Some(outage) = self.outage().take()
        {
            let seconds = outage.began.elapsed().as_secs();
            tracing::warn!(camera = %outage.camera, attempts = outage.attempts, seconds, "the camera is back");
        }
    }

    /// The source gives no frames, or could not be opened. The first failure of an outage is logged, then another reason, then
    /// every ten minutes with the number of attempts.
    pub fn failed(&self, camera: &str, reason: &str) {
        self.0.failures.fetch_add(1, Ordering::Relaxed);
        let mut outage = self.outage();
        let now = Instant::now();
        let seen = outage.get_or_insert_with(|| Outage {
            camera: camera.into(),
            began: now,
            attempts: 0,
            reason: "".into(),
            logged: now,
        });
        seen.attempts += 1;
        if *seen.reason != *reason || seen.logged.elapsed() > LOG_AGAIN {
            (seen.reason, seen.logged) = (reason.into(), now);
            let (attempts, seconds) = (seen.attempts, seen.began.elapsed().as_secs());
            tracing::error!(%camera, attempts, seconds, error = %reason, "the camera gives no frames");
        }
    }

    fn outage(&self) -> MutexGuard<'_, Option<Outage>> {
        self.0.outage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why it gives no frames; `None` while it does.
    pub fn reason(&self) -> Option<Arc<str>> {
        self.outage().as_ref().map(|o| o.reason.clone())
    }

    /// How often it broke off or could not be opened.
    pub fn failures(&self) -> u64 {
        self.0.failures.load(Ordering::Relaxed)
    }

    /// A sign of life.
    pub fn beat(&self) {
        self.0
            .alive
            .store(self.0.began.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// Time since the last sign of life.
    pub fn silent(&self) -> Duration {
        self.0
            .began
            .elapsed()
            .saturating_sub(Duration::from_millis(self.0.alive.load(Ordering::Relaxed)))
    }

    /// Waits, with signs of life, unless told to stop.
    pub fn pause(&self, pause: Duration) {
        let end = Instant::now() + pause;
        while !self.stopped() {
            self.beat();
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(Duration::from_millis(20)));
        }
    }

    /// The camera was opened again after an interruption.
    pub fn reconnected(&self) {
        self.0.reconnects.fetch_add(1, Ordering::Relaxed);
    }

    /// A frame came too late to be worth its work, and was left out.
    pub fn late(&self) {
        self.0.late.fetch_add(1, Ordering::Relaxed);
    }

    /// A frame was left out because fewer a second were asked for.
    pub fn thinned(&self) {
        self.0.thinned.fetch_add(1, Ordering::Relaxed);
    }

    /// The camera used up the whole time that it had to answer for the first time; or it answered.
    pub fn first_answer(&self, timed_out: bool) {
        if timed_out {
            self.0.timeouts.fetch_add(1, Ordering::Relaxed);
        } else {
            self.0.timeouts.store(0, Ordering::Relaxed);
        }
    }

    /// How often in a row it used it up. It outlives the attempts, each of which may be made by another reader.
    pub fn timeouts(&self) -> u32 {
        self.0.timeouts.load(Ordering::Relaxed)
    }

    /// So many frames could not be decoded, or their pictures not be read; they were left out.
    pub fn damaged(&self, frames: u64) {
        self.0.damaged.fetch_add(frames, Ordering::Relaxed);
    }

    /// How often the camera was opened again.
    pub fn reconnects(&self) -> u64 {
        self.0.reconnects.load(Ordering::Relaxed)
    }

    /// Frames left out because they came too late.
    pub fn late_frames(&self) -> u64 {
        self.0.late.load(Ordering::Relaxed)
    }

    /// Frames left out because they could not be decoded or read.
    pub fn damaged_frames(&self) -> u64 {
        self.0.damaged.load(Ordering::Relaxed)
    }

    /// Frames left out because fewer a second were asked for.
    pub fn thinned_frames(&self) -> u64 {
        self.0.thinned.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_ends_when_told_and_shows_signs_of_life() {
        let link = Link::default();
        let other = link.clone();
        let waits = std::thread::spawn(move || {
            let start = Instant::now();
            other.pause(Duration::from_secs(20));
            start.elapsed()
        });
        std::thread::sleep(Duration::from_millis(150));
        assert!(
            link.silent() < Duration::from_millis(120),
            "{:?}",
            link.silent()
        );
        link.stop();
        assert!(waits.join().expect("no panic") < Duration::from_secs(5));
        std::thread::sleep(Duration::from_millis(150));
        assert!(
            link.silent() >= Duration::from_millis(100),
            "{:?}",
            link.silent()
        );
    }

    #[test]
    fn an_outage_has_its_reason_until_frames_come_again() {
        let link = Link::default();
        link.failed("gate", "nothing listens there");
        link.set(CameraState::Offline);
        link.failed("gate", "its path is wrong");
        assert_eq!(
            (link.failures(), link.reason().as_deref()),
            (2, Some("its path is wrong"))
        );
        link.set(CameraState::Online);
        assert_eq!((link.failures(), link.reason()), (2, None));
    }

    #[test]
    fn every_state_comes_back_as_it_was_set() {
        let link = Link::default();
        assert_eq!(link.state(), CameraState::Connecting);
        for state in STATES {
            link.set(state);
            assert_eq!(link.state(), state);
        }
    }
}
