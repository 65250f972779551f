//! Liveness and readiness of the service, for `/healthz`, `/readyz` and systemd's watchdog.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::frame::CameraState;
use crate::pipeline::cameras::{CameraCounts, Cameras};

/// Liveness limit: if frames arrive but no event is written for this long, the service reports
/// unhealthy and stops notifying systemd's watchdog, which restarts it.
const LIVENESS_LIMIT: Duration = Duration::from_secs(30);
/// Longest interval between two evaluations of liveness.
const INTERVAL: Duration = Duration::from_secs(1);

/// Evaluates the liveness of the service. Clones share the result.
#[derive(Clone, Default)]
pub struct HealthMonitor {
    stalled: Arc<AtomicBool>,
}

impl HealthMonitor {
    /// Whether frames that arrive lead to events.
    pub fn is_healthy(&self) -> bool {
        !self.stalled.load(Ordering::Relaxed)
    }

    /// Evaluates liveness at least every `INTERVAL` until `stop` is cancelled; notifies systemd's
    /// watchdog while healthy.
    pub async fn run(self, cameras: Cameras, stop: CancellationToken) {
        // systemd recommends two notifications per watchdog timeout.
        let watchdog = sd_notify::watchdog_enabled();
        let interval = watchdog.map_or(INTERVAL, |limit| (limit / 2).min(INTERVAL));
        let mut liveness = Liveness::new(Instant::now());
        while !stop.is_cancelled() {
            let all = cameras.all();
            let (read, written) = frame_counts(all.iter().map(|m| &*m.counts));
            let stalled = liveness.is_stalled(read, written, Instant::now());
            if stalled && self.is_healthy() {
                tracing::error!(
                    seconds = LIVENESS_LIMIT.as_secs(),
                    "unhealthy: frames arrive, but no events are written"
                );
            }
            self.stalled.store(stalled, Ordering::Relaxed);
            if watchdog.is_some() && !stalled {
                // An error is ignored, because systemd reports a missing notification.
                let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
            }
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                () = stop.cancelled() => {}
            }
        }
    }
}

/// Number of frames read, and of frames whose events were written, of all cameras. Frames dropped
/// because a sink is slow do not count as written: if the disk hangs, all frames are dropped for
/// that reason.
fn frame_counts<'a>(cameras: impl Iterator<Item = &'a CameraCounts>) -> (u64, u64) {
    cameras.fold((0, 0), |(read, written), c| {
        (
            read + c.read.load(Ordering::Relaxed),
            written + c.tracked.load(Ordering::Relaxed),
        )
    })
}

/// The liveness rule, as a function of counts and time.
struct Liveness {
    /// The last counts: frames read, frames written.
    last: (u64, u64),
    /// The last time at which frames were written or no frames arrived.
    last_progress: Instant,
}

impl Liveness {
    fn new(now: Instant) -> Self {
        Liveness {
            last: (0, 0),
            last_progress: now,
        }
    }

    /// Whether frames have arrived and none was written for [`LIVENESS_LIMIT`].
    fn is_stalled(&mut self, read: u64, written: u64, now: Instant) -> bool {
        if written != self.last.1 || read == self.last.0 {
            self.last_progress = now;
        }
        self.last = (read, written);
        now - self.last_progress > LIVENESS_LIMIT
    }
}

/// Whether at least one camera delivers frames.
pub fn is_ready(cameras: &Cameras) -> bool {
    cameras
        .all()
        .iter()
        .any(|m| m.state() == CameraState::Online)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_without_events_are_unhealthy_but_no_frames_are_not() {
        let start = Instant::now();
        let at = |s: u64| start + Duration::from_secs(s);
        let mut liveness = Liveness::new(start);
        assert!(
            (1..100).all(|s| !liveness.is_stalled(0, 0, at(s))),
            "no frames arrive"
        );
        assert!((100..200).all(|s| !liveness.is_stalled(s, s, at(s))));
        let stalled: Vec<bool> = (200..240)
            .map(|s| liveness.is_stalled(s, 199, at(s)))
            .collect();
        assert!(!stalled[25] && stalled[35], "{stalled:?}");
        assert!(!liveness.is_stalled(241, 200, at(241)));
    }

    /// Regression: frames dropped because of a hung disk counted as written, so that the watchdog
    /// was notified.
    #[test]
    fn a_hung_sink_is_unhealthy_although_its_dropped_frames_are_counted() {
        let (start, counts) = (Instant::now(), CameraCounts::default());
        let mut liveness = Liveness::new(start);
        let mut advance = |second: u64, to: &std::sync::atomic::AtomicU64| {
            counts.read.fetch_add(10, Ordering::Relaxed);
            to.fetch_add(10, Ordering::Relaxed);
            let (read, written) = frame_counts([&counts].into_iter());
            liveness.is_stalled(read, written, start + Duration::from_secs(second))
        };
        assert!((1..50).all(|s| !advance(s, &counts.tracked)));
        let stalled: Vec<bool> = (50..90).map(|s| advance(s, &counts.sink_slow)).collect();
        assert!(!stalled[25] && stalled[35], "{stalled:?}");
        assert!(!advance(90, &counts.tracked));
    }
}
