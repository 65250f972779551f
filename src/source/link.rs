//! The state shared by a source and its supervisor: stop request, connection state, activity,
//! counts.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::frame::CameraState;
use crate::time::Seconds;

/// The monotonic clock that readers wait by. Injected, so that tests need not sleep.
pub trait Timer: Send + Sync {
    /// Time since an arbitrary start.
    fn now(&self) -> Seconds;

    /// Blocks for `pause`.
    fn sleep(&self, pause: Duration);
}

/// The system's monotonic clock.
struct SystemTimer(Instant);

impl Timer for SystemTimer {
    fn now(&self) -> Seconds {
        Seconds(self.0.elapsed().as_secs_f64())
    }

    fn sleep(&self, pause: Duration) {
        std::thread::sleep(pause);
    }
}

/// The link between one source and its supervisor. Clones share it.
#[derive(Clone)]
pub struct Link(Arc<Shared>);

struct Shared {
    timer: Arc<dyn Timer>,
    stop: AtomicBool,
    state: AtomicU8,
    /// Time of the last activity in milliseconds.
    active: AtomicU64,
    reconnects: AtomicU64,
    late: AtomicU64,
    thinned: AtomicU64,
    damaged: AtomicU64,
    failures: AtomicU64,
    outage: Mutex<Option<Outage>>,
}

/// A period without frames.
#[derive(Debug)]
struct Outage {
    camera: Arc<str>,
    began: Seconds,
    attempts: u64,
    reason: Arc<str>,
    /// Time at which the reason was last logged.
    logged: Seconds,
}

/// Interval between log lines about one outage whose reason stays the same.
const LOG_AGAIN: Seconds = Seconds(600.0);
/// Longest sleep between two checks for the stop request.
const STOP_INTERVAL: Duration = Duration::from_millis(20);

const STATES: [CameraState; 4] = [
    CameraState::Connecting,
    CameraState::Online,
    CameraState::Offline,
    CameraState::Ended,
];

impl Default for Link {
    fn default() -> Self {
        Link::with_timer(Arc::new(SystemTimer(Instant::now())))
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("state", &self.state())
            .field("stopped", &self.stopped())
            .finish_non_exhaustive()
    }
}

impl Link {
    /// A link whose waits go by `timer`.
    pub fn with_timer(timer: Arc<dyn Timer>) -> Self {
        let active = AtomicU64::new(milliseconds(timer.now()));
        Link(Arc::new(Shared {
            timer,
            stop: AtomicBool::new(false),
            state: AtomicU8::new(CameraState::Connecting as u8),
            active,
            reconnects: AtomicU64::new(0),
            late: AtomicU64::new(0),
            thinned: AtomicU64::new(0),
            damaged: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            outage: Mutex::new(None),
        }))
    }

    /// A new link, in its initial state, with the same timer.
    pub fn renewed(&self) -> Self {
        Link::with_timer(self.0.timer.clone())
    }

    /// Time on the link's clock.
    pub fn now(&self) -> Seconds {
        self.0.timer.now()
    }

    /// Requests the source to end. A wait in [`Link::pause`] returns; a decoder that blocks does
    /// not.
    pub fn stop(&self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }

    /// Whether the source was requested to end.
    pub fn stopped(&self) -> bool {
        self.0.stop.load(Ordering::Relaxed)
    }

    /// The source's state.
    pub fn state(&self) -> CameraState {
        STATES[usize::from(self.0.state.load(Ordering::Relaxed)).min(3)]
    }

    /// Sets the source's state. Logs the end of an outage.
    pub fn set_state(&self, state: CameraState) {
        let before = self.0.state.swap(state as u8, Ordering::Relaxed);
        self.mark_active();
        if state == CameraState::Online
            && before != state as u8
            && let Some(outage) = self.outage().take()
        {
            let seconds = (self.now() - outage.began).0.round();
            tracing::warn!(
                camera = %outage.camera, attempts = outage.attempts, seconds,
                "the camera is back"
            );
        }
    }

    /// Counts a failure to open the camera, or the loss of its connection. The first failure of an
    /// outage is logged, then every change of the reason, otherwise every ten minutes.
    pub fn failed(&self, camera: &str, reason: &str) {
        self.0.failures.fetch_add(1, Ordering::Relaxed);
        let now = self.now();
        let mut outage = self.outage();
        let seen = outage.get_or_insert_with(|| Outage {
            camera: camera.into(),
            began: now,
            attempts: 0,
            reason: "".into(),
            logged: now,
        });
        seen.attempts += 1;
        if *seen.reason != *reason || now - seen.logged > LOG_AGAIN {
            (seen.reason, seen.logged) = (reason.into(), now);
            let (attempts, seconds) = (seen.attempts, (now - seen.began).0.round());
            tracing::error!(
                %camera, attempts, seconds, error = %reason,
                "the camera gives no frames"
            );
        }
    }

    fn outage(&self) -> MutexGuard<'_, Option<Outage>> {
        self.0.outage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the source gives no frames; `None` while it does.
    pub fn reason(&self) -> Option<Arc<str>> {
        self.outage().as_ref().map(|o| o.reason.clone())
    }

    /// Number of failures to open the camera and of lost connections.
    pub fn failures(&self) -> u64 {
        self.0.failures.load(Ordering::Relaxed)
    }

    /// Records activity of the decoder: it does not hang.
    pub fn mark_active(&self) {
        let now = milliseconds(self.now());
        self.0.active.store(now, Ordering::Relaxed);
    }

    /// Time since the last activity.
    pub fn inactive(&self) -> Seconds {
        let active = Seconds(self.0.active.load(Ordering::Relaxed) as f64 / 1000.0);
        Seconds((self.now() - active).0.max(0.0))
    }

    /// Waits for `pause`, or until stopped. The wait counts as activity.
    pub fn pause(&self, pause: Duration) {
        let end = self.now() + Seconds(pause.as_secs_f64());
        while !self.stopped() {
            self.mark_active();
            let left = (end - self.now()).0;
            if left < 1e-6 {
                // Below the resolution of `Duration` nothing would be left to wait for.
                return;
            }
            self.0
                .timer
                .sleep(Duration::from_secs_f64(left).min(STOP_INTERVAL));
        }
    }

    /// Counts a successful reconnection.
    pub fn count_reconnect(&self) {
        self.0.reconnects.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a frame that was dropped because it arrived too late.
    pub fn count_late(&self) {
        self.0.late.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a frame that was dropped to keep to the target frame rate.
    pub fn count_thinned(&self) {
        self.0.thinned.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts frames that could not be decoded, or pictures that could not be read.
    pub fn count_damaged(&self, frames: u64) {
        self.0.damaged.fetch_add(frames, Ordering::Relaxed);
    }

    /// Number of successful reconnections.
    pub fn reconnects(&self) -> u64 {
        self.0.reconnects.load(Ordering::Relaxed)
    }

    /// Number of frames dropped because they arrived too late.
    pub fn late_frames(&self) -> u64 {
        self.0.late.load(Ordering::Relaxed)
    }

    /// Number of frames that could not be decoded or read.
    pub fn damaged_frames(&self) -> u64 {
        self.0.damaged.load(Ordering::Relaxed)
    }

    /// Number of frames dropped to keep to the target frame rate.
    pub fn thinned_frames(&self) -> u64 {
        self.0.thinned.load(Ordering::Relaxed)
    }
}

fn milliseconds(time: Seconds) -> u64 {
    (1000.0 * time.0).max(0.0) as u64
}

/// A timer for tests: time passes only when somebody sleeps or [`ManualTimer::advance`] is called.
#[cfg(test)]
#[derive(Default)]
pub(crate) struct ManualTimer(Mutex<f64>);

#[cfg(test)]
impl ManualTimer {
    pub fn advance(&self, seconds: f64) {
        *self.0.lock().expect("not poisoned") += seconds;
    }
}

#[cfg(test)]
impl Timer for ManualTimer {
    fn now(&self) -> Seconds {
        Seconds(*self.0.lock().expect("not poisoned"))
    }

    fn sleep(&self, pause: Duration) {
        self.advance(pause.as_secs_f64());
        std::thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_lasts_its_time_and_counts_as_activity() {
        let timer = Arc::new(ManualTimer::default());
        let link = Link::with_timer(timer.clone());
        timer.advance(5.0);
        assert!((link.inactive().0 - 5.0).abs() < 0.01);
        link.pause(Duration::from_secs(20));
        assert!((timer.now().0 - 25.0).abs() < 0.01, "{:?}", timer.now());
        assert!(link.inactive().0 < 0.03, "{:?}", link.inactive());
    }

    #[test]
    fn a_stop_request_ends_a_pause() {
        let timer = Arc::new(ManualTimer::default());
        let link = Link::with_timer(timer.clone());
        link.stop();
        link.pause(Duration::from_secs(20));
        assert_eq!(timer.now(), Seconds::ZERO);
    }

    #[test]
    fn an_outage_has_its_reason_until_frames_arrive_again() {
        let link = Link::default();
        link.failed("gate", "nothing listens there");
        link.set_state(CameraState::Offline);
        link.failed("gate", "its path is wrong");
        assert_eq!(
            (link.failures(), link.reason().as_deref()),
            (2, Some("its path is wrong"))
        );
        link.set_state(CameraState::Online);
        assert_eq!((link.failures(), link.reason()), (2, None));
    }

    #[test]
    fn every_state_is_read_back_as_it_was_set() {
        let link = Link::default();
        assert_eq!(link.state(), CameraState::Connecting);
        for state in STATES {
            link.set_state(state);
            assert_eq!(link.state(), state);
        }
    }
}
