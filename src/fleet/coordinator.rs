//! The coordinator: one worker of a fleet at a time decides which worker tracks which camera.
//!
//! All workers try to become the leader. The leader reads the cameras, the leases and the workers'
//! reports, plans ([`crate::fleet::assignment`]), and writes leases. A worker whose report does not
//! change for the time of a lease is lost: its report is deleted, so that its next report fails,
//! and its cameras are given to others. Two coordinators at once do no harm, since every write
//! names the revision that it replaces.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::fleet::buckets::{Fleet, LEADER, Watch};
use crate::fleet::config::LeaseTimes;
use crate::fleet::error::FleetError;
use crate::fleet::fleet_view::FleetView;

/// Interval between two looks at the fleet.
const INTERVAL: Duration = Duration::from_millis(250);
/// Number of records that are written at once.
const AT_ONCE: usize = 64;

/// A worker's part in the coordination.
pub(super) struct Coordinator {
    pub fleet: Fleet,
    pub times: LeaseTimes,
    /// A name that no other coordinator has, for the leader's record.
    pub name: String,
}

/// The leadership of this worker, which it must renew.
struct Leadership {
    /// Revision of the leader's record.
    revision: u64,
    renewed: Instant,
    /// Since when renewals have succeeded without a gap.
    steady: Instant,
    /// The server's time at the last renewal.
    server_time: i128,
}

impl Coordinator {
    /// Tries to become the leader, and coordinates while it leads, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let leadership = tokio::select! {
                () = stop.cancelled() => return,
                leadership = self.acquire() => leadership,
            };
            // `coordinate` ends by itself at `stop`, because it must give the leadership up.
            let ended = match leadership {
                Ok(leadership) => self.coordinate(leadership, &stop).await,
                Err(error) => Err(error),
            };
            if let Err(error) = ended {
                tracing::warn!(%error, "this worker does not coordinate the fleet any more");
            }
            tokio::time::sleep(self.times.report).await;
        }
    }

    /// Waits until nobody leads, or the leader has not renewed its leadership for half a lease, and
    /// takes the leadership. Failed requests are tried again.
    async fn acquire(&self) -> Result<Leadership, FleetError> {
        let mut seen = None;
        loop {
            match self.try_acquire(&mut seen).await {
                Ok(Some(revision)) => {
                    tracing::info!("this worker coordinates the fleet");
                    return Leadership::new(revision, &self.fleet).await;
                }
                Ok(None) => {}
                Err(FleetError::Changed(_)) => seen = None,
                // What was seen before an outage still counts, so that the leadership can be taken
                // as soon as the cluster has elected a leader of its own. A coordinator that still
                // runs was cut off for the same time; its next renewal fails, because the revision
                // has changed.
                Err(error) => tracing::debug!(%error, "cannot become the coordinator"),
            }
            tokio::time::sleep(self.times.report).await;
        }
    }

    /// Tries once; returns the record's revision if this worker leads. `seen`: revision of another
    /// leader's record, and since when it has been the same.
    async fn try_acquire(
        &self,
        seen: &mut Option<(u64, Instant)>,
    ) -> Result<Option<u64>, FleetError> {
        let now = Instant::now();
        let bucket = &self.fleet.leader;
        let Some(entry) = bucket.get(LEADER).await? else {
            return bucket.create(LEADER, &self.name).await.map(Some);
        };
        let (_, since) = seen
            .filter(|(revision, _)| *revision == entry.revision)
            .unwrap_or((entry.revision, now));
        *seen = Some((entry.revision, since));
        // Its own record: this worker has led, and could not coordinate for a moment.
        if entry.record != self.name && now - since < self.times.lost / 2 {
            return Ok(None);
        }
        let updated = bucket.update(LEADER, &self.name, entry.revision).await;
        updated.map(Some)
    }

    /// Coordinates until the leadership is lost, a watch ends, or `stop`.
    async fn coordinate(
        &self,
        mut leadership: Leadership,
        stop: &CancellationToken,
    ) -> Result<(), FleetError> {
        // At the same time, because the leadership is not renewed meanwhile.
        let (cameras, leases, workers) = tokio::try_join!(
            self.fleet.cameras.watch(">"),
            self.fleet.leases.watch(">"),
            self.fleet.workers.watch("worker.>"),
        )?;
        let (cameras, mut camera_changes) = cameras;
        let (leases, mut lease_changes) = leases;
        let (workers, mut worker_changes): (_, Watch<_>) = workers;
        let mut view = FleetView::new(self.times);
        let now = Instant::now();
        let server_time = leadership.server_time;
        cameras
            .into_iter()
            .for_each(|(k, v)| view.camera(&k, Some(v)));
        leases
            .into_iter()
            .for_each(|(k, v)| view.lease(&k, Some(v)));
        for (key, report) in workers {
            let age = u64::try_from(server_time - report.changed).unwrap_or_default();
            let reported = leadership.renewed.checked_sub(Duration::from_nanos(age));
            view.worker(&key, Some(report), reported.unwrap_or(now));
        }
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return self.release(leadership).await,
                change = camera_changes.next() => {
                    let change = change?;
                    view.camera(&change.key, change.record);
                }
                change = lease_changes.next() => {
                    let change = change?;
                    view.lease(&change.key, change.record);
                }
                change = worker_changes.next() => {
                    let change = change?;
                    view.worker(&change.key, change.record, Instant::now());
                }
                _ = ticks.tick() => {
                    self.renew(&mut leadership).await?;
                    self.act(&mut view, &leadership).await;
                }
            }
        }
    }

    /// Deletes lost workers' reports, writes leases, and notifies workers.
    async fn act(&self, view: &mut FleetView, leadership: &Leadership) {
        let now = Instant::now();
        for (key, revision) in view.lost(now, leadership.steady) {
            match self.fleet.workers.delete(&key, revision).await {
                Ok(()) => {
                    tracing::warn!(worker = %key, "a worker is lost; others get its cameras");
                    view.worker(&key, None, now);
                }
                // The worker has reported meanwhile, which the watch will tell, or the server does
                // not answer; then it is tried again.
                Err(error) => tracing::debug!(worker = %key, %error, "a worker is not lost"),
            }
        }
        let mut changes = view
            .changes(now, clock::now().0.as_nanosecond())
            .into_iter()
            .peekable();
        while changes.peek().is_some() {
            let mut writes = tokio::task::JoinSet::new();
            for change in changes.by_ref().take(AT_ONCE) {
                let leases = self.fleet.leases.clone();
                writes.spawn(async move {
                    let written = change.write(&leases).await;
                    (change, written)
                });
            }
            while let Some(Ok((change, written))) = writes.join_next().await {
                match written {
                    Ok(written) => view.lease(change.camera(), written),
                    Err(error) => {
                        let camera = change.camera();
                        tracing::warn!(camera, %error, "cannot write a camera's lease; it is tried again");
                    }
                }
            }
        }
        for (worker, cameras) in view.notices(now) {
            self.fleet.notify(&worker, &cameras).await;
        }
    }

    /// Renews the leadership when that is due.
    ///
    /// # Errors
    /// When another worker leads, the leadership could not be renewed for half a lease, or the
    /// leader's record cannot be read after a renewal that was refused.
    async fn renew(&self, leadership: &mut Leadership) -> Result<(), FleetError> {
        let now = Instant::now();
        if now - leadership.renewed < self.times.report {
            return Ok(());
        }
        match self
            .fleet
            .leader
            .update(LEADER, &self.name, leadership.revision)
            .await
        {
            Ok(revision) => {
                leadership.revision = revision;
                if now - leadership.renewed > self.times.report * 3 {
                    leadership.steady = now;
                }
                leadership.renewed = now;
                Ok(())
            }
            // The answer to an earlier renewal may have been lost.
            Err(FleetError::Changed(key)) => match self.fleet.leader.get(LEADER).await? {
                Some(entry)
                    if entry.record == self.name && entry.revision > leadership.revision =>
                {
                    leadership.revision = entry.revision;
                    Ok(())
                }
                _ => Err(FleetError::Changed(key)),
            },
            Err(error) if now - leadership.renewed > self.times.lost / 2 => Err(error),
            Err(error) => {
                tracing::debug!(%error, "cannot renew the leadership");
                Ok(())
            }
        }
    }

    /// Gives the leadership up, so that another worker takes it at once.
    async fn release(&self, leadership: Leadership) -> Result<(), FleetError> {
        self.fleet.leader.delete(LEADER, leadership.revision).await
    }
}

impl Leadership {
    /// The leadership by the record of this revision, with the server's time of the record.
    async fn new(revision: u64, fleet: &Fleet) -> Result<Self, FleetError> {
        let now = Instant::now();
        let entry = fleet.leader.get(LEADER).await?;
        Ok(Leadership {
            revision,
            renewed: now,
            steady: now,
            server_time: entry.map_or(0, |e| e.changed),
        })
    }
}
