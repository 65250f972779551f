//! The coordinator: one worker of a fleet at a time decides which worker tracks which camera.
//!
//! All workers try for the seat. Whoever has it reads the cameras, the leases and the workers'
//! reports, plans ([`crate::fleet::assignment`]), and writes leases. A worker whose report does not
//! change for the time of a lease is lost: its report is deleted, so that its next report fails,
//! and its cameras are given to others. Two coordinators at once do no harm, since every write
//! names the revision that it replaces.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::fleet::buckets::{Fleet, SEAT, Watch};
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
    /// A name that no other coordinator has, for the seat's record.
    pub name: String,
}

/// The seat of the coordinator.
struct Seat {
    revision: u64,
    renewed: Instant,
    /// Since when renewals have succeeded without a gap.
    steady: Instant,
    /// The server's time at the last renewal.
    server_time: i128,
}

impl Coordinator {
    /// Tries for the seat, and coordinates while it has it, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let seat = tokio::select! {
                () = stop.cancelled() => return,
                seat = self.take_seat() => seat,
            };
            // `coordinate` ends by itself at `stop`, because it must give the seat up.
            let ended = match seat {
                Ok(seat) => self.coordinate(seat, &stop).await,
                Err(error) => Err(error),
            };
            if let Err(error) = ended {
                tracing::warn!(%error, "this worker does not coordinate the fleet any more");
            }
            tokio::time::sleep(self.times.report).await;
        }
    }

    /// Waits until the seat is free, or its holder has not renewed it for half a lease, and takes
    /// it. Failed requests are tried again.
    async fn take_seat(&self) -> Result<Seat, FleetError> {
        let mut seen: Option<(u64, Instant)> = None;
        loop {
            let asked = Instant::now();
            let taken = match self.fleet.seat.get(SEAT).await {
                Ok(None) => self.fleet.seat.create(SEAT, &self.name).await,
                // This worker had the seat, and could not coordinate for a moment.
                Ok(Some(entry)) if entry.record == self.name => {
                    let seat = &self.fleet.seat;
                    seat.update(SEAT, &self.name, entry.revision).await
                }
                Ok(Some(entry)) => match seen {
                    Some((revision, since)) if revision == entry.revision => {
                        if asked - since < self.times.lost / 2 {
                            tokio::time::sleep(self.times.report).await;
                            continue;
                        }
                        self.fleet.seat.update(SEAT, &self.name, revision).await
                    }
                    _ => {
                        seen = Some((entry.revision, asked));
                        continue;
                    }
                },
                Err(e) => Err(e),
            };
            match taken {
                Ok(revision) => {
                    tracing::info!("this worker coordinates the fleet");
                    let now = Instant::now();
                    let mut seat = Seat {
                        revision,
                        renewed: now,
                        steady: now,
                        server_time: 0,
                    };
                    seat.read_time(&self.fleet).await?;
                    return Ok(seat);
                }
                Err(FleetError::Changed(_)) => seen = None,
                // What was seen before an outage still counts, so that the seat can be taken as
                // soon as the cluster has elected a leader. A holder that still runs was cut off
                // for the same time; if the seat is taken from it, its next renewal fails, because
                // the revision has changed.
                Err(error) => {
                    tracing::debug!(%error, "cannot take the coordinator's seat");
                }
            }
            tokio::time::sleep(self.times.report).await;
        }
    }

    /// Coordinates until the seat is lost, a watch ends, or `stop`.
    async fn coordinate(&self, mut seat: Seat, stop: &CancellationToken) -> Result<(), FleetError> {
        let (cameras, mut camera_changes) = self.fleet.cameras.watch(">").await?;
        let (leases, mut lease_changes) = self.fleet.leases.watch(">").await?;
        let (workers, mut worker_changes): (_, Watch<_>) =
            self.fleet.workers.watch("worker.>").await?;
        let mut view = FleetView::new(self.times);
        let now = Instant::now();
        let server_time = seat.server_time;
        cameras
            .into_iter()
            .for_each(|(k, v)| view.camera(&k, Some(v)));
        leases
            .into_iter()
            .for_each(|(k, v)| view.lease(&k, Some(v)));
        for (key, report) in workers {
            let age = u64::try_from(server_time - report.changed).unwrap_or_default();
            let reported = seat.renewed.checked_sub(Duration::from_nanos(age));
            view.worker(&key, Some(report), reported.unwrap_or(now));
        }
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return self.leave_seat(seat).await,
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
                    self.renew(&mut seat).await?;
                    self.act(&mut view, &seat).await;
                }
            }
        }
    }

    /// Deletes lost workers' reports, writes leases, and notifies workers.
    async fn act(&self, view: &mut FleetView, seat: &Seat) {
        let now = Instant::now();
        for (key, revision) in view.lost(now, seat.steady) {
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

    /// Renews the seat when that is due.
    ///
    /// # Errors
    /// When another worker has taken the seat, the seat could not be renewed for half a lease, or
    /// its record cannot be read after a renewal that was refused.
    async fn renew(&self, seat: &mut Seat) -> Result<(), FleetError> {
        let now = Instant::now();
        if now - seat.renewed < self.times.report {
            return Ok(());
        }
        match self
            .fleet
            .seat
            .update(SEAT, &self.name, seat.revision)
            .await
        {
            Ok(revision) => {
                seat.revision = revision;
                if now - seat.renewed > self.times.report * 3 {
                    seat.steady = now;
                }
                seat.renewed = now;
                Ok(())
            }
            // The answer to an earlier renewal may have been lost.
            Err(FleetError::Changed(key)) => match self.fleet.seat.get(SEAT).await? {
                Some(entry) if entry.record == self.name && entry.revision > seat.revision => {
                    seat.revision = entry.revision;
                    Ok(())
                }
                _ => Err(FleetError::Changed(key)),
            },
            Err(error) if now - seat.renewed > self.times.lost / 2 => Err(error),
            Err(error) => {
                tracing::debug!(%error, "cannot renew the coordinator's seat");
                Ok(())
            }
        }
    }

    /// Gives the seat up, so that another worker takes it at once.
    async fn leave_seat(&self, seat: Seat) -> Result<(), FleetError> {
        self.fleet.seat.delete(SEAT, seat.revision).await
    }
}

impl Seat {
    /// Reads the server's time of the last renewal.
    async fn read_time(&mut self, fleet: &Fleet) -> Result<(), FleetError> {
        let entry = fleet.seat.get(SEAT).await?;
        self.server_time = entry.map_or(0, |e| e.changed);
        Ok(())
    }
}
