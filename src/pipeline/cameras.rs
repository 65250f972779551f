//! The cameras of a run: names, settings, states, counts. Shared by readers, stages and servers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::frame::CameraState;
use crate::pipeline::batcher::Lane;
use crate::pipeline::metrics::Summary;
use crate::source::reconnect::Position;
use crate::source::{CameraConfig, Link};

/// Counts of a camera's frames.
#[derive(Debug, Default)]
pub struct CameraCounts {
    /// Frames decoded.
    pub read: AtomicU64,
    /// Frames whose events were passed to the sinks.
    pub tracked: AtomicU64,
    /// Detections in the frames of `tracked`.
    pub detections: AtomicU64,
    /// Frames of `tracked` that the detector skipped.
    pub skipped: AtomicU64,
    /// Detections that were embedded.
    pub embedded: AtomicU64,
    /// Frames replaced by newer ones because the detector was busy.
    pub detector_busy: AtomicU64,
    /// Frames whose events were dropped because a sink was slow.
    pub sink_slow: AtomicU64,
    /// Frames dropped because a network failed on them, or during a quarantine.
    pub network_failed: AtomicU64,
    /// Number of quarantines.
    pub quarantined: AtomicU64,
    /// Tracks confirmed.
    pub people: AtomicU64,
    /// Tracks in the last frame.
    pub present: AtomicU64,
    /// Number of decoders that hung and were replaced.
    pub hung: AtomicU64,
    /// Counts of earlier readers' links: reconnects, late frames, thinned frames, failures,
    /// damaged frames.
    earlier: [AtomicU64; 5],
    /// Latencies in seconds of the last frames, from decoding to event.
    latencies: Mutex<Vec<f32>>,
}

/// Number of latencies kept.
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

    /// A quantile, in seconds, of the latencies of the last frames; `share` is in [0, 1].
    pub fn latency(&self, share: f64) -> Option<f32> {
        let mut kept = lock(&self.latencies).clone();
        kept.sort_unstable_by(f32::total_cmp);
        kept.get(((kept.len() as f64 * share) as usize).min(kept.len().saturating_sub(1)))
            .copied()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code that can panic runs under these locks while a value is half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One camera.
#[derive(Clone)]
pub struct Member {
    /// Short name of the camera.
    pub name: Arc<str>,
    /// Settings of the camera.
    pub config: Arc<CameraConfig>,
    /// Counts of its frames.
    pub counts: Arc<CameraCounts>,
    /// The link to its present reader.
    pub link: Link,
    /// Last frame of the camera, kept when a reader ends.
    pub(super) position: Arc<Mutex<Option<Position>>>,
}

impl Member {
    pub(super) fn new(name: &str, config: CameraConfig, link: Link) -> Self {
        Member {
            name: name.into(),
            config: Arc::new(config),
            counts: Arc::default(),
            link,
            position: Arc::default(),
        }
    }

    /// The same camera with a new link, for its next reader.
    pub(super) fn renewed(&self, config: CameraConfig) -> Self {
        let old = [
            self.link.reconnects(),
            self.link.late_frames(),
            self.link.thinned_frames(),
            self.link.failures(),
            self.link.damaged_frames(),
        ];
        self.counts.earlier.iter().zip(old).for_each(|(sum, n)| {
            sum.fetch_add(n, Ordering::Relaxed);
        });
        Member {
            config: Arc::new(config),
            link: self.link.renewed(),
            ..self.clone()
        }
    }

    /// The state of its connection.
    pub fn state(&self) -> CameraState {
        self.link.state()
    }

    fn counted(&self, which: usize, now: u64) -> u64 {
        self.counts.earlier[which].load(Ordering::Relaxed) + now
    }

    /// Number of successful reconnections.
    pub fn reconnects(&self) -> u64 {
        self.counted(0, self.link.reconnects())
    }

    /// Number of lost connections and failed attempts to open it.
    pub fn failures(&self) -> u64 {
        self.counted(3, self.link.failures())
    }

    /// Frames dropped because they arrived too late.
    pub fn late(&self) -> u64 {
        self.counted(1, self.link.late_frames())
    }

    /// Frames dropped to keep to the target frame rate.
    pub fn thinned(&self) -> u64 {
        self.counted(2, self.link.thinned_frames())
    }

    /// Frames that could not be decoded or read.
    fn damaged(&self) -> u64 {
        self.counted(4, self.link.damaged_frames())
    }

    fn add_to(&self, summary: &mut Summary) {
        let count = |c: &AtomicU64| c.load(Ordering::Relaxed);
        let counts = &self.counts;
        summary.frames += count(&counts.tracked);
        summary.detections += count(&counts.detections);
        summary.skipped += count(&counts.skipped);
        summary.embedded += count(&counts.embedded);
        summary.people += count(&counts.people);
        summary.dropped += count(&counts.detector_busy) + count(&counts.sink_slow);
        summary.failed += count(&counts.network_failed);
        summary.damaged += self.damaged();
    }
}

/// All cameras of a run. Clones share them.
#[derive(Clone, Default)]
pub struct Cameras {
    members: Arc<Mutex<BTreeMap<Lane, Member>>>,
    /// Counts of the cameras that were removed.
    removed: Arc<Mutex<Summary>>,
}

impl Cameras {
    /// All cameras, sorted by name.
    pub fn all(&self) -> Vec<Member> {
        let mut all: Vec<Member> = lock(&self.members).values().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Sets the list to cameras that other programs read, of which only settings and states are
    /// known. Cameras that are in the list already keep their states.
    pub fn set_remote(&self, configs: &BTreeMap<String, CameraConfig>) {
        let mut cameras = lock(&self.members);
        cameras.retain(|_, member| configs.contains_key(&*member.name));
        for (name, config) in configs {
            let known = cameras.values_mut().find(|m| *m.name == **name);
            if let Some(member) = known {
                member.config = Arc::new(config.clone());
                continue;
            }
            let lane = cameras.last_key_value().map_or(0, |(lane, _)| lane + 1);
            cameras.insert(lane, Member::new(name, config.clone(), Link::default()));
        }
    }

    /// Sets the state of a camera of another program.
    pub fn set_state(&self, camera: &str, state: CameraState) {
        if let Some(member) = lock(&self.members).values().find(|m| &*m.name == camera) {
            member.link.set_state(state);
        }
    }

    /// The counts of all cameras together, removed ones included.
    pub fn summary(&self) -> Summary {
        let mut summary = Summary::default();
        summary.add(&lock(&self.removed));
        self.all().iter().for_each(|c| c.add_to(&mut summary));
        summary
    }

    pub(super) fn get(&self, lane: Lane) -> Option<Member> {
        lock(&self.members).get(&lane).cloned()
    }

    pub(super) fn put(&self, lane: Lane, member: Member) {
        lock(&self.members).insert(lane, member);
    }

    pub(super) fn remove(&self, lane: Lane) {
        if let Some(member) = lock(&self.members).remove(&lane) {
            member.add_to(&mut lock(&self.removed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_has_the_counts_of_earlier_readers_and_of_removed_cameras() {
        let cameras = Cameras::default();
        let put = |lane, name: &str| {
            let member = Member::new(name, CameraConfig::default(), Link::default());
            member.counts.tracked.store(10, Ordering::Relaxed);
            member.link.count_damaged(1);
            cameras.put(lane, member.clone());
            member
        };
        let kept = put(0, "kept");
        put(1, "removed");
        let renewed = kept.renewed(CameraConfig::default());
        renewed.link.count_damaged(2);
        cameras.put(0, renewed);
        cameras.remove(1);
        let summary = cameras.summary();
        assert_eq!((summary.frames, summary.damaged), (20, 4));
    }

    #[test]
    fn cameras_of_other_programs_keep_their_state_when_the_list_changes() {
        let cameras = Cameras::default();
        let configs = |names: &[&str]| {
            let named = names
                .iter()
                .map(|n| (n.to_string(), CameraConfig::default()));
            named.collect::<BTreeMap<_, _>>()
        };
        cameras.set_remote(&configs(&["a", "b"]));
        cameras.set_state("b", CameraState::Online);
        cameras.set_state("nobody", CameraState::Online);
        cameras.set_remote(&configs(&["b", "c"]));
        let all = cameras.all();
        let states: Vec<_> = all.iter().map(|m| (&*m.name, m.state())).collect();
        assert_eq!(
            states,
            [("b", CameraState::Online), ("c", CameraState::Connecting)]
        );
    }
}
