//! All cameras' people: a tracker a camera, one registry of who is who, on one thread.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tokio::sync::{mpsc, watch};

use crate::frame::Frame;
use crate::pipeline::batcher::{Batcher, Lane};
use crate::pipeline::camera_tracker::{CameraTracker, Embedded, Names, TrackedFrame};
use crate::pipeline::cameras::{Cameras, Member};
use crate::pipeline::fleet::{Item, Parcel};
use crate::pipeline::fleet_metrics::FleetMetrics;
use crate::pipeline::quarantine::{Consequence, LASTS, LeftOut, Quarantine};
use crate::pipeline::stage::{self, FAILURES, Outcome};
use crate::time::Seconds;
use crate::track::identity::{GalleryPerson, IdentityRegistry};
use crate::trajectory::EndedEvent;

/// Every camera's tracker.
pub(super) struct CameraTrackers {
    followers: BTreeMap<Lane, (CameraTracker, Member)>,
    /// Those of cameras that have left: should one come again, its ids go on.
    left: BTreeMap<Arc<str>, CameraTracker>,
    /// The ends of tracks that a slow sink had no room for.
    held: BTreeMap<Lane, Vec<EndedEvent>>,
    cameras: Cameras,
    registry: SharedIdentities,
    new: Box<dyn Fn(&Member) -> CameraTracker + Send>,
    metrics: FleetMetrics,
    quarantine: Arc<Quarantine>,
    out: mpsc::Sender<TrackedFrame>,
}

/// The sinks are gone.
struct SinksClosed;

/// Who is who, over all cameras.
pub(super) struct SharedIdentities {
    pub known: Option<IdentityRegistry>,
    pub gallery: watch::Receiver<Vec<GalleryPerson>>,
    pub since: Instant,
}

impl SharedIdentities {
    /// Who names people, by the time since the run began: cameras' own times have nothing to do with one another.
    fn names(&mut self) -> Option<Names<'_>> {
        let people = self.known.as_mut()?;
        if self.gallery.has_changed().unwrap_or_default() {
            people.replace_gallery(self.gallery.borrow_and_update().clone());
        }
        Some(Names {
            people,
            now: Some(Seconds(self.since.elapsed().as_secs_f64())),
        })
    }
}

impl CameraTrackers {
    pub fn new(
        cameras: Cameras,
        registry: SharedIdentities,
        new: Box<dyn Fn(&Member) -> CameraTracker + Send>,
        metrics: FleetMetrics,
        quarantine: Arc<Quarantine>,
        out: mpsc::Sender<TrackedFrame>,
    ) -> Self {
        CameraTrackers {
            followers: BTreeMap::new(),
            left: BTreeMap::new(),
            held: BTreeMap::new(),
            cameras,
            registry,
            new,
            metrics,
            quarantine,
            out,
        }
    }

    fn follow(&mut self, item: Item) -> Result<(), SinksClosed> {
        let Item {
            lane,
            arrived,
            frame,
            camera,
            detections,
            embeddings,
            left_out,
            ..
        } = item;
        let now = self.cameras.get(lane);
        if !self.followers.contains_key(&lane) {
            let Some(member) = &now else { return Ok(()) }; // it has left before its first frame was looked at
            let before = self
                .followers
                .iter()
                .find(|(_, (_, m))| m.name == member.name)
                .map(|(&lane, _)| lane);
            before.map_or(Ok(()), |lane| self.end(lane))?;
            let who = self
                .left
                .remove(&member.name)
                .unwrap_or_else(|| (self.new)(member));
            self.followers.insert(lane, (who, member.clone()));
        }
        let Some((who, member)) = self.followers.get_mut(&lane) else {
            return Ok(());
        };
        if let Some(now) = now {
            *member = now;
        }
        if let Some(why) = left_out {
            who.skip(&frame, camera);
            log_left_out(&self.quarantine, lane, member, &frame, why);
            return Ok(());
        }
        self.quarantine.passed(lane);
        let mut told = match who.follow(
            Embedded {
                frame,
                camera,
                detections,
                embeddings,
            },
            self.registry.names(),
        ) {
            Ok(told) => told,
            Err(e) => {
                tracing::error!(camera = %member.name, error = %e, "the tracker refused a frame");
                return Ok(());
            }
        };
        let counts = &member.counts;
        counts.people.store(who.people(), Ordering::Relaxed);
        counts.present.store(
            told.frame
                .as_ref()
                .map_or(0, |f| f.event.tracks.len() as u64),
            Ordering::Relaxed,
        );
        // The ends of tracks outlive a frame that a slow sink has no room for.
        told.ended
            .splice(0..0, self.held.remove(&lane).unwrap_or_default());
        let sent = if member.config.is_live() {
            self.out.try_send(told)
        } else {
            self.out
                .blocking_send(told)
                .map_err(|e| mpsc::error::TrySendError::Closed(e.0))
        };
        self.metrics
            .queue("sinks", self.out.max_capacity() - self.out.capacity());
        match sent {
            Ok(()) => {
                counts.note(
                    counts.tracked.fetch_add(1, Ordering::Relaxed),
                    arrived.elapsed(),
                );
                self.metrics.latency(&member.name, arrived.elapsed());
            }
            Err(mpsc::error::TrySendError::Full(told)) => {
                counts.sink_slow.fetch_add(1, Ordering::Relaxed);
                self.held.insert(lane, told.ended);
            }
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(SinksClosed),
        }
        Ok(())
    }

    fn end(&mut self, lane: Lane) -> Result<(), SinksClosed> {
        let Some((mut who, member)) = self.followers.remove(&lane) else {
            return Ok(());
        };
        let mut told = who.finish(self.registry.known.as_mut());
        told.ended
            .splice(0..0, self.held.remove(&lane).unwrap_or_default());
        member.counts.present.store(0, Ordering::Relaxed);
        self.left.insert(member.name, who);
        self.out.blocking_send(told).map_err(|_| SinksClosed)
    }
}

/// Counts a frame that was left out, and logs it.
fn log_left_out(quarantine: &Quarantine, lane: Lane, member: &Member, frame: &Frame, why: LeftOut) {
    let left_out = 1 + member.counts.network_failed.fetch_add(1, Ordering::Relaxed);
    let LeftOut::Failed(error) = why else { return };
    let Consequence { quarantines, logs } = quarantine.failed(lane, frame.pts);
    if quarantines {
        member.counts.quarantined.fetch_add(1, Ordering::Relaxed);
        let seconds = LASTS.0;
        tracing::error!(camera = %member.name, frame = frame.number, left_out, %error, seconds,
            "networks fail at {FAILURES} frames in a row: the camera is in quarantine, its frames are left out; the others go on");
    } else if logs {
        tracing::error!(camera = %member.name, frame = frame.number, left_out, %error, "a network fails at a frame, alone too: the frame is left out");
    }
}

/// Runs the trackers, on one thread: they compute for microseconds a frame.
pub(super) fn follow(
    mut followers: CameraTrackers,
    batcher: Arc<Batcher>,
    mut input: mpsc::Receiver<Parcel>,
) -> Outcome<()> {
    stage::spawn("track", move || {
        while let Some(parcel) = input.blocking_recv() {
            let start = Instant::now();
            let costs: Vec<(Lane, f64)> = parcel.items.iter().map(|i| (i.lane, i.cost)).collect();
            let items = parcel
                .items
                .into_iter()
                .try_for_each(|item| followers.follow(item));
            let ends = items.and_then(|()| {
                parcel
                    .ended
                    .into_iter()
                    .try_for_each(|lane| followers.end(lane))
            });
            if ends.is_err() {
                break;
            }
            followers.metrics.stage("track", start.elapsed());
            batcher.done(&costs);
        }
        Ok(())
    })
}
