//! A worker of a fleet: takes cameras over and gives them back, as the records say.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;

use crate::fleet::buckets::{Fleet, Versioned};
use crate::fleet::capacity::Capacity;
use crate::fleet::config::LeaseTimes;
use crate::fleet::coordinator::Coordinator;
use crate::fleet::error::FleetError;
use crate::fleet::records::{HeldCamera, LeaseRecord, Leaving, WorkerRecord, check_camera};
use crate::fleet::reporter::{Held, Reporter, unique};
use crate::fleet::tenure::Tenure;
use crate::pipeline::{CameraConfigs, Cameras};
use crate::sink::spool::Spool;
use crate::source::CameraConfig;

/// Interval between two looks at the cameras that are to be given back.
const INTERVAL: Duration = Duration::from_millis(250);
/// Time after which a camera is given back although its last events have not been delivered.
const PATIENCE: Duration = Duration::from_secs(3);

/// A worker, before it starts.
pub struct Worker {
    /// The connection.
    pub fleet: Fleet,
    /// The times of a lease.
    pub times: LeaseTimes,
    /// Name, labels, version and page; the rest is filled in.
    pub about: WorkerRecord,
    /// How much it can process.
    pub capacity: Capacity,
    /// Holds the events that the fleet's stream has not stored yet.
    pub spool: Arc<Spool>,
    /// Until when its events count; shared with [`crate::fleet::tenure::WhileTenured`].
    pub tenure: Tenure,
    /// The cameras of its pipeline.
    pub cameras: Cameras,
    /// Receives the cameras that it is to track.
    pub assigned: watch::Sender<CameraConfigs>,
}

impl Worker {
    /// Works until `ended`. At `stop`, no camera is taken any more; cameras whose last events have
    /// been delivered are given to others, the rest when the worker has ended. If one of its tasks
    /// panics, the others end too, so that its cameras are given to others. Returns whether none
    /// has.
    pub async fn run(self, stop: CancellationToken, ended: CancellationToken) -> bool {
        let _end = ended.clone().drop_guard();
        let (send_id, id) = watch::channel(None);
        let held = Held::default();
        let reporter = Reporter {
            workers: self.fleet.workers.clone(),
            times: self.times,
            tenure: self.tenure.clone(),
            about: self.about.clone(),
            held: held.clone(),
            cameras: self.cameras,
            capacity: self.capacity,
            id: send_id,
        };
        let coordinator = Coordinator {
            fleet: self.fleet.clone(),
            times: self.times,
            name: unique(&self.about.name),
        };
        let holder = Holder {
            fleet: self.fleet,
            times: self.times,
            spool: self.spool,
            tenure: self.tenure,
            assigned: self.assigned,
            reported: held,
            id: None,
            cameras: BTreeMap::new(),
            known: BTreeMap::new(),
        };
        let stop_coordinating = stop.child_token(); // the pipeline may end without `stop`
        let reporting = tokio::spawn(reporter.run(stop, ended.clone()));
        let coordinating = tokio::spawn(coordinator.run(stop_coordinating.clone()));
        holder.run(id, ended).await;
        stop_coordinating.cancel();
        let mut is_sound = true;
        for task in [reporting, coordinating] {
            if let Err(error) = task.await {
                tracing::error!(%error, "a task of the fleet's worker has failed");
                is_sound = false;
            }
        }
        is_sound
    }
}

/// A camera that the worker has.
struct HeldLease {
    /// Number of the lease.
    lease: u64,
    /// Present revision of the lease's record.
    revision: u64,
    /// The camera's record: its revision and settings.
    record: u64,
    config: CameraConfig,
    /// What becomes of it, and since when it is stopped for that.
    leaving: Option<(Leaving, Instant)>,
}

/// Takes cameras over and gives them back.
struct Holder {
    fleet: Fleet,
    times: LeaseTimes,
    spool: Arc<Spool>,
    tenure: Tenure,
    assigned: watch::Sender<CameraConfigs>,
    /// For the reports.
    reported: Held,
    /// Id under which the worker is registered.
    id: Option<String>,
    cameras: BTreeMap<String, HeldLease>,
    /// Highest known revisions of leases, by which answers that are out of date are recognised.
    known: BTreeMap<String, u64>,
}

impl Holder {
    async fn run(mut self, mut ids: watch::Receiver<Option<String>>, ended: CancellationToken) {
        let mut notices: Option<async_nats::Subscriber> = None;
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let tenure = self.tenure.clone();
        loop {
            let notice = async {
                match &mut notices {
                    Some(notices) => notices.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = ended.cancelled() => return,
                changed = ids.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.id = ids.borrow_and_update().clone();
                    self.cameras.clear();
                    // Revisions begin again at 1 when the server has lost its data.
                    self.known.clear();
                    notices = None;
                }
                notice = notice => match notice {
                    Some(notice) => self.notice(&notice.payload).await,
                    None => notices = None,
                },
                () = tenure.changed() => {}
                _ = ticks.tick() => {}
            }
            if notices.is_none() {
                notices = self.subscribe().await;
            }
            self.give_back().await;
            self.publish();
        }
    }

    async fn subscribe(&self) -> Option<async_nats::Subscriber> {
        let notices = self.fleet.notices(self.id.as_deref()?).await;
        notices
            .inspect_err(|error| tracing::error!(%error, "no cameras yet: it is tried again"))
            .ok()
    }

    /// Reads the records of the cameras that a notice names.
    async fn notice(&mut self, payload: &[u8]) {
        let Ok(cameras) = serde_json::from_slice::<Vec<String>>(payload) else {
            tracing::warn!("a notice of the fleet is not a list of cameras");
            return;
        };
        for camera in cameras {
            if let Err(error) = self.read(&camera).await {
                tracing::warn!(camera, %error, "cannot read a camera's records; the notice is repeated");
                return; // so that the cameras can be stopped in time
            }
        }
    }

    /// Reads a camera's lease and record, and takes the camera over, or notes that it is to be
    /// given back.
    async fn read(&mut self, camera: &str) -> Result<(), FleetError> {
        let Some(id) = self.id.clone() else {
            return Ok(());
        };
        let lease = self.fleet.leases.get(camera).await?;
        let Some(lease) = lease.filter(|l| l.record.worker == id) else {
            if let Some(held) = self.cameras.remove(camera) {
                self.tenure.give_back(camera, held.lease);
            }
            return Ok(());
        };
        let known = self.known.get(camera).copied().unwrap_or_default();
        if lease.revision < known {
            return Ok(());
        }
        self.known.insert(camera.into(), lease.revision);
        let record = self.fleet.cameras.get(camera).await?;
        let is_valid = |r: &Versioned<CameraConfig>| {
            check_camera(camera, &r.record)
                .inspect_err(|error| tracing::error!(%error, "a camera's record is not used"))
                .is_ok()
        };
        self.hold(camera, lease, record.filter(is_valid));
        Ok(())
    }

    /// Takes a camera over, or updates what is known of it. Without a valid record the settings
    /// stay; a camera without settings is not taken.
    fn hold(
        &mut self,
        camera: &str,
        lease: Versioned<LeaseRecord>,
        record: Option<Versioned<CameraConfig>>,
    ) {
        let before = self.cameras.get(camera);
        let (config, record) = match (record, before) {
            (Some(record), _) => (record.record, record.revision),
            (None, Some(before)) => (before.config.clone(), before.record),
            (None, None) => return,
        };
        let since = before.and_then(|b| Some(b.leaving.as_ref()?.1));
        let leaving = lease.record.leaving;
        let held = HeldLease {
            lease: before.map_or(lease.revision, |b| b.lease),
            revision: lease.revision,
            record,
            config,
            leaving: leaving.map(|leaving| (leaving, since.unwrap_or_else(Instant::now))),
        };
        if before.is_none() {
            tracing::info!(camera, lease = held.lease, "this worker gets the camera");
        }
        self.cameras.insert(camera.into(), held);
    }

    /// Gives back the cameras that are to leave, once their last events have been delivered, at the
    /// latest after [`PATIENCE`]: in the stream, events behind the first one of the next lease do
    /// not count.
    async fn give_back(&mut self) {
        let due: Vec<String> = self
            .cameras
            .iter()
            .filter(|(name, held)| {
                held.leaving.as_ref().is_some_and(|(_, since)| {
                    let is_tracked = self.assigned.borrow().contains_key(*name);
                    let has_left = !is_tracked && self.tenure.has_left(name);
                    (has_left && !self.spool.has_events_of(name)) || since.elapsed() > PATIENCE
                })
            })
            .map(|(name, _)| name.clone())
            .collect();
        for camera in due {
            if let Err(error) = self.give(&camera).await {
                tracing::warn!(camera, %error, "cannot give the camera back");
                if let Err(error) = self.read(&camera).await {
                    tracing::warn!(camera, %error, "cannot read the camera's lease");
                    return; // the others are tried again at the next tick
                }
            }
        }
    }

    async fn give(&mut self, camera: &str) -> Result<(), FleetError> {
        let Some(held) = self.cameras.get(camera) else {
            return Ok(());
        };
        match held.leaving.clone() {
            None => return Ok(()),
            Some((Leaving::Nowhere, _)) => {
                self.tenure.give_back(camera, held.lease);
                self.fleet.leases.delete(camera, held.revision).await?;
                self.known.insert(camera.into(), held.revision + 1);
                tracing::info!(camera, "this worker has stopped the camera");
            }
            Some((Leaving::To(worker), _)) => {
                let record = LeaseRecord {
                    moved: true,
                    ..LeaseRecord::of(&worker)
                };
                let leases = &self.fleet.leases;
                self.tenure.give_back(camera, held.lease);
                let revision = leases.update(camera, &record, held.revision).await?;
                self.known.insert(camera.into(), revision);
                self.fleet.notify(&worker, &[camera.to_string()]).await;
                tracing::info!(camera, worker, "this worker has given the camera away");
            }
        }
        self.cameras.remove(camera);
        Ok(())
    }

    /// Passes on which cameras are to be tracked: none shortly before the tenure ends.
    fn publish(&self) {
        let margin = self.times.end - self.times.stop;
        let is_safe = self.tenure.holds(Instant::now() + margin);
        let tracked = |(name, held): (&String, &HeldLease)| {
            let config = CameraConfig {
                lease: Some(held.lease),
                ..held.config.clone()
            };
            (is_safe && held.leaving.is_none()).then(|| (name.clone(), config))
        };
        let cameras: CameraConfigs = self.cameras.iter().filter_map(tracked).collect();
        self.assigned.send_if_modified(|assigned| {
            let is_other = *assigned != cameras;
            if is_other {
                if !is_safe && !assigned.is_empty() {
                    tracing::warn!("the fleet has no report of this worker: it stops its cameras");
                }
                let lease = |c: Option<&CameraConfig>| c.and_then(|c| c.lease);
                for (name, camera) in &cameras {
                    if lease(assigned.get(name)) != camera.lease {
                        self.tenure.entered(name, camera.lease.unwrap_or_default());
                    }
                }
                *assigned = cameras;
            }
            is_other
        });
        let held = |(name, held): (&String, &HeldLease)| {
            let camera = HeldCamera {
                lease: held.lease,
                record: held.record,
                rate: 0.0,
            };
            (name.clone(), camera)
        };
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        *reported = self.cameras.iter().map(held).collect();
    }
}
