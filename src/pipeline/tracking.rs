//! The tracking stage: one tracker per camera, the embedder, and one registry of identities, on one
//! thread.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};

use crate::analytics::CountingConfig;
use crate::detection::Detection;
use crate::frame::Frame;
use crate::pipeline::batch::{Batch, Item};
use crate::pipeline::batcher::{Batcher, Lane};
use crate::pipeline::cadences::Cadences;
use crate::pipeline::camera_tracker::{CameraTracker, Embedded, Identities, TrackedFrame};
use crate::pipeline::cameras::{Cameras, Member};
use crate::pipeline::embed::Embedding;
use crate::pipeline::error::PipelineError;
use crate::pipeline::observer::Observer;
use crate::pipeline::quarantine::{Consequence, DURATION, LeftOut, Quarantine};
use crate::pipeline::reader::FailurePolicy;
use crate::pipeline::stage::{self, MAX_FAILURES, Outcome};
use crate::time::Seconds;
use crate::track::embed_policy::EmbedPolicy;
use crate::track::identity::{GalleryPerson, IdentityRegistry};
use crate::trajectory::{AnalyticsEvent, EndedEvent};

/// Makes the tracker of a camera that has none yet.
pub(super) type NewTracker = Box<dyn Fn(&Member) -> CameraTracker + Send>;

/// The registry of identities, shared by all cameras.
pub(super) struct SharedIdentities {
    pub registry: Option<IdentityRegistry>,
    /// Receives the whole gallery when it changes.
    pub gallery: watch::Receiver<Vec<GalleryPerson>>,
    /// Start of a common clock, used instead of the cameras' presentation times, which are not
    /// comparable. Absent with one camera.
    pub since: Option<Instant>,
}

impl SharedIdentities {
    fn current(&mut self) -> Option<Identities<'_>> {
        let registry = self.registry.as_mut()?;
        if self.gallery.has_changed().unwrap_or_default() {
            registry.replace_gallery(self.gallery.borrow_and_update().clone());
        }
        let now = self.since.map(|s| Seconds(s.elapsed().as_secs_f64()));
        Some(Identities { registry, now })
    }
}

/// Why the stage ends before its input does.
enum Abort {
    /// The write stage has ended; its own error has the reason.
    SinksClosed,
    Failed(PipelineError),
}

/// The stage's state.
pub(super) struct Tracking {
    pub cameras: Cameras,
    pub identities: SharedIdentities,
    pub new_tracker: NewTracker,
    pub policy: FailurePolicy,
    pub quarantine: Arc<Quarantine>,
    pub observer: Arc<dyn Observer>,
    pub out: mpsc::Sender<TrackedFrame>,
    pub trackers: Trackers,
    pub embedding: Embedding,
    pub counting: CountingConfig,
    pub cadences: Cadences,
    /// Whether a sink needs the frames' pixels.
    pub keep_pixels: bool,
}

/// The trackers, and the state that remains when a camera is removed.
#[derive(Default)]
pub(super) struct Trackers {
    active: BTreeMap<Lane, (CameraTracker, Member)>,
    /// Trackers of removed cameras: if such a camera is added again, its ids continue.
    removed: BTreeMap<Arc<str>, CameraTracker>,
    /// Events of zones, lines and ends of tracks that did not fit into the sinks' queue; sent with
    /// the next frame.
    held: BTreeMap<Lane, (Vec<AnalyticsEvent>, Vec<EndedEvent>)>,
    /// Number of frames in a row on which a network failed; counted only under
    /// [`FailurePolicy::EndRun`].
    failures: u32,
}

impl Tracking {
    /// Processes one frame. The embedder's work is added to the item's cost.
    fn update(&mut self, item: &mut Item) -> Result<(), Abort> {
        let lane = item.lane;
        let active = self.trackers.active.get(&lane);
        let member = self
            .cameras
            .get(lane)
            .or_else(|| active.map(|(_, m)| m.clone()));
        // Absent: the camera was removed before its first frame came here.
        let Some(member) = member else {
            return Ok(());
        };
        if active.is_none() {
            self.begin(lane, &member)?;
        }
        let Some((tracker, known)) = self.trackers.active.get_mut(&lane) else {
            return Ok(());
        };
        if !Arc::ptr_eq(&known.config, &member.config) {
            tracker.set_scene(member.config.scene(), &self.counting);
            tracker.set_lease(member.config.lease);
        }
        known.clone_from(&member);
        let held = tracker.begin(&item.frame, item.motion);
        if item.left_out.is_none() && !item.skipped {
            if item.still {
                tracker.see_again(&item.frame);
            } else {
                let (frame, detections) = (&item.frame, &mut item.detections);
                tracker.remove_masked(frame, detections, &mut item.embeddings);
            }
            let pts = item.frame.pts;
            let needed = |detections: &[Detection], policy: &EmbedPolicy| {
                tracker.needs_embedding(pts, detections, policy)
            };
            item.left_out = self
                .embedding
                .embed(item, needed)
                .err()
                .map(LeftOut::Failed);
        }
        self.send_all(lane, &member, held)?;
        if let Some(why) = item.left_out.take() {
            return self.left_out(lane, &member, &item.frame, why);
        }
        match self.track(lane, &member, item) {
            Ok(tracked) => self.send_all(lane, &member, tracked),
            Err(e) if self.policy == FailurePolicy::EndRun => Err(Abort::Failed(e)),
            Err(e) => {
                tracing::error!(camera = %member.name, error = %e,
                    "a frame is invalid for the tracker and is dropped");
                Ok(())
            }
        }
    }

    /// Passes a frame to its camera's tracker. Returns the frames whose events are complete.
    fn track(
        &mut self,
        lane: Lane,
        member: &Member,
        item: &mut Item,
    ) -> Result<Vec<TrackedFrame>, PipelineError> {
        let Some((tracker, _)) = self.trackers.active.get_mut(&lane) else {
            return Ok(Vec::new());
        };
        let (mut frame, counts) = (item.frame.clone(), &member.counts);
        if !self.keep_pixels {
            frame.image = None;
        }
        if item.skipped {
            counts.skipped.fetch_add(1, Ordering::Relaxed);
            return tracker.predict(frame, item.arrived, item.live);
        }
        self.quarantine.passed(lane);
        self.trackers.failures = 0;
        let (found, embedded) = (item.detections.len(), item.embeddings.len());
        counts.detections.fetch_add(found as u64, Ordering::Relaxed);
        counts
            .embedded
            .fetch_add(embedded as u64, Ordering::Relaxed);
        let embedded = Embedded {
            frame,
            arrived: item.arrived,
            detections: std::mem::take(&mut item.detections),
            embeddings: std::mem::take(&mut item.embeddings),
        };
        let tracked = tracker.update(embedded, self.identities.current())?;
        self.cadences
            .observe(lane, item.number, item.live, |e| tracker.agreement(e));
        counts.people.store(tracker.people(), Ordering::Relaxed);
        Ok(tracked)
    }

    /// Passes frames to the sinks, in their order.
    fn send_all(
        &mut self,
        lane: Lane,
        member: &Member,
        tracked: Vec<TrackedFrame>,
    ) -> Result<(), Abort> {
        for tracked in tracked {
            let present = tracked.frame.as_ref().map_or(0, |f| f.event.tracks.len());
            let counts = &member.counts;
            counts.present.store(present as u64, Ordering::Relaxed);
            self.send(lane, member, tracked)?;
        }
        Ok(())
    }

    /// Gives a camera its tracker: a new tracker, or the tracker of an earlier camera of the same
    /// name.
    fn begin(&mut self, lane: Lane, member: &Member) -> Result<(), Abort> {
        let same_name = |(_, (_, m)): &(&Lane, &(CameraTracker, Member))| m.name == member.name;
        let before = self
            .trackers
            .active
            .iter()
            .find(same_name)
            .map(|(&lane, _)| lane);
        before.map_or(Ok(()), |lane| self.end(lane))?;
        let mut tracker = self
            .trackers
            .removed
            .remove(&member.name)
            .unwrap_or_else(|| (self.new_tracker)(member));
        tracker.set_scene(member.config.scene(), &self.counting);
        tracker.set_lease(member.config.lease);
        self.trackers.active.insert(lane, (tracker, member.clone()));
        Ok(())
    }

    /// Counts and logs a frame that is dropped because a network failed or its camera is in
    /// quarantine.
    fn left_out(
        &mut self,
        lane: Lane,
        member: &Member,
        frame: &Frame,
        why: LeftOut,
    ) -> Result<(), Abort> {
        if self.policy == FailurePolicy::EndRun
            && let LeftOut::Failed(error) = why
        {
            self.trackers.failures += 1;
            if self.trackers.failures >= MAX_FAILURES
                || matches!(error, PipelineError::NoPixels { .. })
            {
                return Err(Abort::Failed(error));
            }
            member.counts.network_failed.fetch_add(1, Ordering::Relaxed);
            tracing::error!(camera = %member.name, frame = frame.number, %error,
                "a network failed on a frame twice (in a batch and alone): the frame is dropped");
            return Ok(());
        }
        let dropped = 1 + member.counts.network_failed.fetch_add(1, Ordering::Relaxed);
        let LeftOut::Failed(error) = why else {
            return Ok(());
        };
        let Consequence { quarantines, logs } = self.quarantine.failed(lane, frame.pts);
        if quarantines {
            member.counts.quarantined.fetch_add(1, Ordering::Relaxed);
            tracing::error!(camera = %member.name, frame = frame.number, dropped, %error,
                seconds = DURATION.0,
                "networks failed on {MAX_FAILURES} frames in a row: the camera is in quarantine, \
                 its frames are dropped; other cameras continue");
        } else if logs {
            tracing::error!(camera = %member.name, frame = frame.number, dropped, %error,
                "a network failed on a frame twice (in a batch and alone): the frame is dropped");
        }
        Ok(())
    }

    /// Passes events to the sinks. Events of a live camera are dropped and counted if the queue is
    /// full, except for ends of tracks and events of zones and lines, which are sent with the next
    /// frame.
    fn send(
        &mut self,
        lane: Lane,
        member: &Member,
        mut tracked: TrackedFrame,
    ) -> Result<(), Abort> {
        let arrived = tracked.arrived;
        self.add_held(lane, &mut tracked);
        let sent = if member.config.is_live() {
            self.out.try_send(tracked)
        } else {
            self.out
                .blocking_send(tracked)
                .map_err(|e| TrySendError::Closed(e.0))
        };
        let waiting = self.out.max_capacity() - self.out.capacity();
        self.observer.queue("sinks", waiting);
        let counts = &member.counts;
        match sent {
            Ok(()) => {
                let latency = arrived.map(|at| at.elapsed()).unwrap_or_default();
                counts.note(counts.tracked.fetch_add(1, Ordering::Relaxed), latency);
                self.observer.latency(&member.name, latency);
            }
            Err(TrySendError::Full(tracked)) => {
                counts.sink_slow.fetch_add(1, Ordering::Relaxed);
                let held = (tracked.analytics, tracked.ended);
                self.trackers.held.insert(lane, held);
            }
            Err(TrySendError::Closed(_)) => return Err(Abort::SinksClosed),
        }
        Ok(())
    }

    fn add_held(&mut self, lane: Lane, tracked: &mut TrackedFrame) {
        if let Some((analytics, ended)) = self.trackers.held.remove(&lane) {
            tracked.analytics.splice(0..0, analytics);
            tracked.ended.splice(0..0, ended);
        }
    }

    /// Tells the sinks that no event of a camera follows.
    fn left(&mut self, camera: Arc<str>) -> Result<(), Abort> {
        let tracked = TrackedFrame {
            left: Some(camera),
            ..TrackedFrame::default()
        };
        self.out
            .blocking_send(tracked)
            .map_err(|_| Abort::SinksClosed)
    }

    /// Ends a camera's tracks. Its tracker is kept, in case the camera is added again.
    fn end(&mut self, lane: Lane) -> Result<(), Abort> {
        let Some((mut tracker, member)) = self.trackers.active.remove(&lane) else {
            return Ok(());
        };
        let mut tracked = tracker.finish(self.identities.registry.as_mut());
        if let Some(first) = tracked.first_mut() {
            self.add_held(lane, first);
        }
        let frames = tracked.iter().filter(|t| t.frame.is_some()).count() as u64;
        member.counts.tracked.fetch_add(frames, Ordering::Relaxed);
        member.counts.present.store(0, Ordering::Relaxed);
        self.trackers.removed.insert(member.name, tracker);
        self.cadences.remove(lane);
        tracked
            .into_iter()
            .try_for_each(|t| self.out.blocking_send(t).map_err(|_| Abort::SinksClosed))
    }
}

/// Runs the trackers and the embedder on one thread, because the tracks decide which crops are
/// needed; the trackers take only microseconds per frame. Returns the time spent inside ONNX
/// Runtime.
///
/// # Errors
/// Under [`FailurePolicy::EndRun`], the first failure.
pub(super) fn track(
    mut tracking: Tracking,
    batcher: Arc<Batcher>,
    mut input: mpsc::Receiver<Batch>,
) -> Outcome<Duration> {
    stage::spawn("track", move || {
        while let Some(mut batch) = input.blocking_recv() {
            let start = Instant::now();
            tracking.embedding.begin(&mut batch);
            let Batch {
                mut items, ended, ..
            } = batch;
            let updated = items.iter_mut().try_for_each(|item| tracking.update(item));
            let mut ended = ended.into_iter();
            let result = updated.and_then(|()| {
                ended.try_for_each(|(lane, camera)| {
                    tracking.end(lane)?;
                    tracking.left(camera)
                })
            });
            match result {
                Ok(()) => {}
                Err(Abort::SinksClosed) => break,
                Err(Abort::Failed(e)) => return Err(e),
            }
            let embedding = tracking.embedding.take_time();
            let observer = &tracking.observer;
            observer.stage("embed", embedding, items.len());
            observer.stage(
                "track",
                start.elapsed().saturating_sub(embedding),
                items.len(),
            );
            let costs: Vec<(Lane, f64)> = items.iter().map(|i| (i.lane, i.cost)).collect();
            batcher.done(&costs);
        }
        Ok(tracking.embedding.busy())
    })
}
