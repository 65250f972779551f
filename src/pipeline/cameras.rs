//! The cameras of a fleet, as everybody sees them: names, settings, states, counts.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::frame::CameraState;
use crate::pipeline::batcher::Lane;
use crate::source::Link;
use crate::source::camera::CameraConfig;
use crate::time::Seconds;

/// What has become of a camera's frames.
#[derive(Debug, Default)]
pub struct CameraCounts {
    /// Frames decoded.
    pub read: AtomicU64,
    /// Frames whose events were handed to the sinks.
    pub tracked: AtomicU64,
    /// Frames dropped for newer ones because the detector was busy.
    pub detector_busy: AtomicU64,
    /// Frames whose events were dropped because a sink was slow.
    pub sink_slow: AtomicU64,
    /// Frames left out because a network failed at them, or because their camera was in quarantine
    /// for such frames.
    pub network_failed: AtomicU64,
    /// Times the camera was put in quarantine because a network failed at its frames.
    pub quarantined: AtomicU64,
    /// Tracks confirmed.
    pub people: AtomicU64,
    /// Tracks in the last frame.
    pub present: AtomicU64,
    /// Times its decoder hung and another was begun.
    pub hung: AtomicU64,
    /// What links of earlier readers have counted: reconnects, late frames, frames left out by `target_fps`, failures.
    earlier: [AtomicU64; 4],
    /// Seconds from a frame's decoding to its event, of the last frames.
    latencies: Mutex<Vec<f32>>,
}

/// So many latencies are kept.
const LATENCIES: usize = 512;

impl CameraCounts {
    pub(super) fn note(&self, nth: u64, latency: Duration) {
        let mut kept = lock(&self.latencies);
        let latency = latency.as_secs_f32();
        if kept.len() < LATENCIES {
            kept.push(latency)
        } else {
            kept[nth as usize % LATENCIES] = latency
        }
    }

    /// The latency, seconds, that a share of the last frames stayed below.
    pub fn latency(&self, share: f64) -> Option<f32> {
        let mut kept = lock(&self.latencies).clone();
        kept.sort_unstable_by(f32::total_cmp);
        kept.get(((kept.len() as f64 * share) as usize).min(kept.len().saturating_sub(1)))
            .copied()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code that can panic runs under these locks half way through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where a camera's frames stand: the last one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Last {
    pub number: u64,
    pub pts: Seconds,
    pub size: (u32, u32),
    /// When it came.
    pub at: Instant,
}

pub(super) type Place = Arc<Mutex<Option<Last>>>;

/// A camera of the fleet.
#[derive(Clone)]
pub struct Member {
    /// Its short name.
    pub name: Arc<str>,
    /// How it is read.
    pub config: Arc<CameraConfig>,
    /// What has become of its frames.
    pub counts: Arc<CameraCounts>,
    /// To the source that reads it at present.
    pub link: Link,
    pub(super) place: Place,
}

impl Member {
    pub(super) fn new(name: &str, config: CameraConfig) -> Self {
        Member {
            name: name.into(),
            config: Arc::new(config),
            counts: Arc::default(),
            link: Link::default(),
            place: Place::default(),
        }
    }

    /// The same camera with another reader to come.
    pub(super) fn renewed(&self, config: CameraConfig) -> Self {
        let old = [
            self.link.reconnects(),
            self.link.late_frames(),
            self.link.thinned_frames(),
            self.link.failures(),
        ];
        self.counts.earlier.iter().zip(old).for_each(|(sum, n)| {
            sum.fetch_add(n, Ordering::Relaxed);
        });
        Member {
            config: Arc::new(config),
            link: Link::default(),
            ..self.clone()
        }
    }

    /// Its state.
    pub fn state(&self) -> CameraState {
        self.link.state()
    }

    fn counted(&self, which: usize, now: u64) -> u64 {
        self.counts.earlier[which].load(Ordering::Relaxed) + now
    }

    /// How often it was opened again after an interruption.
    pub fn reconnects(&self) -> u64 {
        self.counted(0, self.link.reconnects())
    }

    /// How often it broke off or could not be opened.
    pub fn failures(&self) -> u64 {
        self.counted(3, self.link.failures())
    }

    /// Frames left out because they came too late.
    pub fn late(&self) -> u64 {
        self.counted(1, self.link.late_frames())
    }

    /// Frames left out because fewer a second were asked for.
    pub fn thinned(&self) -> u64 {
        self.counted(2, self.link.thinned_frames())
    }
}

/// The fleet's cameras. Clones share them.
#[derive(Clone, Default)]
pub struct Cameras(Arc<Mutex<BTreeMap<Lane, Member>>>);

impl Cameras {
    /// All of them, by name.
    pub fn all(&self) -> Vec<Member> {
        let mut all: Vec<Member> = lock(&self.0).values().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    pub(super) fn get(&self, lane: Lane) -> Option<Member> {
        lock(&self.0).get(&lane).cloned()
    }

    pub(super) fn put(&self, lane: Lane, member: Member) {
        lock(&self.0).insert(lane, member);
    }

    pub(super) fn remove(&self, lane: Lane) {
        lock(&self.0).remove(&lane);
    }
}
