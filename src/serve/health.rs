//! Whether the service is well: what `/healthz`, `/readyz` and systemd's watchdog ask.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::frame::CameraState;
use crate::pipeline::cameras::{CameraCounts, Cameras};

/// Liveness limit: where frames come and no event leaves for so long, the service is unhealthy and
/// systemd's watchdog is not fed any more, so that it is started anew.
const STUCK: Duration = Duration::from_secs(30);
const BEAT: Duration = Duration::from_secs(1);

/// The service's pulse. Clones share it.
#[derive(Clone, Default)]
pub struct HealthMonitor(Arc<AtomicBool>);

impl HealthMonitor {
    /// Frames that come also leave.
    pub fn well(&self) -> bool {
        !self.0.load(Ordering::Relaxed)
    }

    /// Feels the pulse until the end, and tells systemd while all is well.
    pub async fn feel(self, cameras: Cameras, stop: CancellationToken) {
        // Systemd wants to hear twice within its limit.
        let watchdog = sd_notify::watchdog_enabled();
        let beat = watchdog.map_or(BEAT, |limit| (limit / 2).min(BEAT));
        let mut judge = Judge {
            before: (0, 0),
            moved: Instant::now(),
        };
        while !stop.is_cancelled() {
            let all = cameras.all();
            let (read, left) = flow(all.iter().map(|m| &*m.counts));
            let stuck = judge.stuck(read, left, Instant::now());
            if stuck && self.well() {
                tracing::error!(
                    seconds = STUCK.as_secs(),
                    "frames come, but no events leave"
                );
            }
            self.0.store(stuck, Ordering::Relaxed);
            if watchdog.is_some() && !stuck {
                let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]); // systemd's loss is told by systemd
            }
            tokio::select! {
                () = tokio::time::sleep(beat) => {}
                () = stop.cancelled() => {}
            }
        }
    }
}

/// Frames that came, and those whose events have left. What a slow sink had no room for has not
/// left: where a disk hangs, that is all of them.
fn flow<'a>(cameras: impl Iterator<Item = &'a CameraCounts>) -> (u64, u64) {
    cameras.fold((0, 0), |(read, left), c| {
        (
            read + c.read.load(Ordering::Relaxed),
            left + c.tracked.load(Ordering::Relaxed),
        )
    })
}

struct Judge {
    before: (u64, u64),
    moved: Instant,
}

impl Judge {
    fn stuck(&mut self, read: u64, left: u64, now: Instant) -> bool {
        if left != self.before.1 || read == self.before.0 {
            self.moved = now;
        }
        self.before = (read, left);
        now - self.moved > STUCK
    }
}

/// Whether a camera gives frames.
pub fn ready(cameras: &Cameras) -> bool {
    cameras
        .all()
        .iter()
        .any(|m| m.state() == CameraState::Online)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_in_and_nothing_out_is_an_illness_but_silence_is_not() {
        let start = Instant::now();
        let at = |s: u64| start + Duration::from_secs(s);
        let mut j = Judge {
            before: (0, 0),
            moved: start,
        };
        assert!(
            (1..100).all(|s| !j.stuck(0, 0, at(s))),
            "no camera gives anything"
        );
        assert!((100..200).all(|s| !j.stuck(s, s, at(s))));
        let stuck: Vec<bool> = (200..240).map(|s| j.stuck(s, 199, at(s))).collect();
        assert!(!stuck[25] && stuck[35], "{stuck:?}");
        assert!(!j.stuck(241, 200, at(241)));
    }

    /// Events that a hung disk has no room for counted as a sign of health, and the watchdog was
    /// fed.
    #[test]
    fn a_sink_that_takes_nothing_is_an_illness_though_its_losses_are_counted() {
        let (start, counts) = (Instant::now(), CameraCounts::default());
        let mut j = Judge {
            before: (0, 0),
            moved: start,
        };
        let mut beat = |second: u64, to: &std::sync::atomic::AtomicU64| {
            counts.read.fetch_add(10, Ordering::Relaxed);
            to.fetch_add(10, Ordering::Relaxed);
            let (read, left) = flow([&counts].into_iter());
            j.stuck(read, left, start + Duration::from_secs(second))
        };
        assert!((1..50).all(|s| !beat(s, &counts.tracked)));
        let stuck: Vec<bool> = (50..90).map(|s| beat(s, &counts.sink_slow)).collect();
        assert!(!stuck[25] && stuck[35], "{stuck:?}");
        assert!(!beat(90, &counts.tracked));
    }
}
