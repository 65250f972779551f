//! Whether the service is well: what `/healthz`, `/readyz` and systemd's watchdog ask.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::frame::CameraState;
use crate::pipeline::cameras::Cameras;

/// Frames that come, and nothing that leaves for so long, is an illness that only a new start cures.
const STUCK: Duration = Duration::from_secs(30);
const BEAT: Duration = Duration::from_secs(1);

/// The service's pulse. Clones share it.
#[derive(Clone, Default)]
pub struct Pulse(Arc<AtomicBool>);

impl Pulse {
    /// Frames that come also leave.
    pub fn well(&self) -> bool {
        !self.0.load(Ordering::Relaxed)
    }

    /// Feels the pulse until the end, and tells systemd while all is well.
    pub async fn feel(self, cameras: Cameras, stop: CancellationToken) {
        // Systemd wants to hear twice within its limit.
        let watchdog = sd_notify::watchdog_enabled();
        let beat = watchdog.map_or(BEAT, |limit| (limit / 2).min(BEAT));
        let mut judge = Judge { before: (0, 0), moved: Instant::now() };
        while !stop.is_cancelled() {
            let count = |n: &std::sync::atomic::AtomicU64| n.load(Ordering::Relaxed);
            let all = cameras.all();
            let read = all.iter().map(|m| count(&m.counts.read)).sum();
            let left = all.iter().map(|m| count(&m.counts.tracked) + count(&m.counts.sink_slow)).sum();
            let stuck = judge.stuck(read, left, Instant::now());
            if stuck && self.well() {
                tracing::error!(seconds = STUCK.as_secs(), "frames come, but no events leave");
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
    cameras.all().iter().any(|m| m.state() == CameraState::Online)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_in_and_nothing_out_is_an_illness_but_silence_is_not() {
        let start = Instant::now();
        let at = |s: u64| start + Duration::from_secs(s);
        let mut j = Judge { before: (0, 0), moved: start };
        assert!((1..100).all(|s| !j.stuck(0, 0, at(s))), "no camera gives anything");
        assert!((100..200).all(|s| !j.stuck(s, s, at(s))));
        let stuck: Vec<bool> = (200..240).map(|s| j.stuck(s, 199, at(s))).collect();
        assert!(!stuck[25] && stuck[35], "{stuck:?}");
        assert!(!j.stuck(241, 200, at(241)));
    }
}
