//! A fleet without I/O: the coordinator's own code ([`crate::fleet::assignment`] and its view of
//! the records), with workers that are reports and a clock that is told. It counts what the parts
//! send to NATS. For benchmarks of fleets larger than a machine can hold.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::fleet::assignment::{Demand, Offer, imbalance};
use crate::fleet::buckets::{Versioned, worker_key};
use crate::fleet::config::LeaseTimes;
use crate::fleet::fleet_view::FleetView;
use crate::fleet::lease_changes::LeaseChange;
use crate::fleet::records::{HeldCamera, LeaseRecord, Leaving, WorkerRecord, to_json};
use crate::source::CameraConfig;

/// Interval between two steps: that between two looks of the coordinator at the fleet.
const STEP: Duration = Duration::from_millis(250);

/// Messages that a fleet's programs have sent to the server, by their cause.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Messages {
    /// Reports of the workers.
    pub reports: u64,
    /// Bytes of the reports' records.
    pub report_bytes: u64,
    /// Renewals of the coordinator's leadership.
    pub renewals: u64,
    /// Leases written by the coordinator, and given back by workers.
    pub leases: u64,
    /// Notices to workers.
    pub notices: u64,
    /// Records of leases and cameras that workers have read.
    pub reads: u64,
}

impl Messages {
    /// All messages.
    pub fn total(&self) -> u64 {
        self.reports + self.renewals + self.leases + self.notices + self.reads
    }
}

/// A camera and the frames per second that it delivers.
#[derive(Debug, Clone)]
struct Camera {
    config: CameraConfig,
    rate: f64,
    /// Its lease, with the revision that is the lease's number.
    lease: Option<(Versioned<LeaseRecord>, u64)>,
}

/// The records of a fleet, its workers, and its coordinator.
pub struct Simulation {
    view: FleetView,
    times: LeaseTimes,
    cameras: BTreeMap<String, Camera>,
    /// By id.
    workers: BTreeMap<String, WorkerRecord>,
    /// Leases that workers give back at the next step.
    given_back: Vec<String>,
    start: Instant,
    elapsed: Duration,
    revision: u64,
    messages: Messages,
    /// Cameras that were given away by workers that could have kept them, so far.
    moved: usize,
    /// How long each of the coordinator's looks at the fleet took that led to a plan.
    plans: Vec<Duration>,
}

impl Simulation {
    /// A fleet with these times of a lease, and neither cameras nor workers.
    pub fn new(times: LeaseTimes) -> Self {
        Simulation {
            view: FleetView::new(times),
            times,
            cameras: BTreeMap::new(),
            workers: BTreeMap::new(),
            given_back: Vec::new(),
            start: Instant::now(),
            elapsed: Duration::ZERO,
            revision: 0,
            messages: Messages::default(),
            moved: 0,
            plans: Vec::new(),
        }
    }

    /// Adds a camera that delivers `rate` frames per second.
    pub fn add_camera(&mut self, name: &str, config: CameraConfig, rate: f64) {
        let record = self.versioned(config.clone());
        self.view.camera(name, Some(record));
        let camera = Camera {
            config,
            rate,
            lease: None,
        };
        self.cameras.insert(name.into(), camera);
    }

    /// Starts a worker, which reports from now on.
    pub fn start_worker(&mut self, id: &str, capacity: f64, labels: BTreeSet<String>) {
        let record = WorkerRecord {
            name: id.into(),
            capacity,
            labels,
            memory: 16 << 30,
            version: env!("CARGO_PKG_VERSION").into(),
            ..WorkerRecord::default()
        };
        self.workers.insert(id.into(), record);
    }

    /// Kills a worker: it reports no more.
    pub fn kill_worker(&mut self, id: &str) {
        self.workers.remove(id);
    }

    /// Simulates the next `seconds` seconds.
    pub fn run(&mut self, seconds: u64) {
        let end = self.elapsed + Duration::from_secs(seconds);
        while self.elapsed < end {
            self.step();
        }
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// What has been sent so far.
    pub fn messages(&self) -> Messages {
        self.messages
    }

    /// Number of cameras that were given away, so far, by workers that could have kept them.
    pub fn moved(&self) -> usize {
        self.moved
    }

    /// How long each of the coordinator's plans since the last call took, with its changes.
    pub fn take_plan_times(&mut self) -> Vec<Duration> {
        std::mem::take(&mut self.plans)
    }

    /// Number of cameras whose lease names a worker that reports.
    pub fn held(&self) -> usize {
        let held = |c: &&Camera| {
            let lease = c.lease.as_ref();
            lease.is_some_and(|(l, _)| self.workers.contains_key(&l.record.worker))
        };
        self.cameras.values().filter(held).count()
    }

    /// The load of the busiest worker relative to the fleet's, less one
    /// ([`crate::fleet::assignment::imbalance`]).
    pub fn imbalance(&self) -> f64 {
        let index: BTreeMap<&String, usize> = self
            .workers
            .keys()
            .enumerate()
            .map(|(n, id)| (id, n))
            .collect();
        let offer = |w: &WorkerRecord| Offer {
            capacity: w.capacity,
            labels: w.labels.clone(),
            draining: false,
        };
        let demand = |c: &Camera| Demand {
            load: c.rate,
            priority: c.config.priority,
            labels: c.config.labels.iter().cloned().collect(),
        };
        let place = |c: &Camera| index.get(&c.lease.as_ref()?.0.record.worker).copied();
        let offers: Vec<Offer> = self.workers.values().map(offer).collect();
        let demands: Vec<Demand> = self.cameras.values().map(demand).collect();
        let places: Vec<Option<usize>> = self.cameras.values().map(place).collect();
        imbalance(&demands, &offers, &places)
    }

    /// One step: workers report and give cameras back, then the coordinator looks at the fleet.
    fn step(&mut self) {
        self.elapsed += STEP;
        let now = self.now();
        let is_time = |interval: Duration| {
            self.elapsed
                .as_millis()
                .is_multiple_of(interval.as_millis().max(1))
        };
        if is_time(self.times.report) {
            self.report(now);
            self.messages.renewals += 1;
        }
        for camera in std::mem::take(&mut self.given_back) {
            self.give_back(&camera);
        }
        for (key, _) in self.view.lost(now, self.start) {
            self.view.worker(&key, None, now);
        }
        let (planned, planning) = (self.view.planned(), Instant::now());
        let changes = self.view.changes(now, self.unix_nanos());
        if self.view.planned() != planned {
            self.plans.push(planning.elapsed());
        }
        for change in changes {
            self.write(&change);
        }
        for (_, cameras) in self.view.notices(now) {
            self.messages.notices += 1;
            self.messages.reads += 2 * cameras.len() as u64;
            self.given_back.extend(cameras);
        }
    }

    fn now(&self) -> Instant {
        self.start + self.elapsed
    }

    /// The simulated time in nanoseconds.
    fn unix_nanos(&self) -> i128 {
        i128::try_from(self.elapsed.as_nanos()).unwrap_or_default()
    }

    fn versioned<T>(&mut self, record: T) -> Versioned<T> {
        self.revision += 1;
        Versioned {
            record,
            revision: self.revision,
            changed: self.unix_nanos(),
        }
    }

    /// All workers report what they have.
    fn report(&mut self, now: Instant) {
        let mut held: BTreeMap<String, BTreeMap<String, HeldCamera>> = BTreeMap::new();
        for (name, camera) in &self.cameras {
            let Some((lease, number)) = &camera.lease else {
                continue;
            };
            let shown = HeldCamera {
                lease: *number,
                record: self.view.camera_revision(name).unwrap_or_default(),
                rate: camera.rate,
            };
            let worker = held.entry(lease.record.worker.clone()).or_default();
            worker.insert(name.clone(), shown);
        }
        for id in self.workers.keys().cloned().collect::<Vec<_>>() {
            let Some(worker) = self.workers.get_mut(&id) else {
                continue;
            };
            worker.report += 1;
            worker.cameras = held.remove(&id).unwrap_or_default();
            let record = worker.clone();
            self.messages.reports += 1;
            self.messages.report_bytes += to_json(&record).len() as u64;
            let record = self.versioned(record);
            self.view.worker(&worker_key(&id), Some(record), now);
        }
    }

    /// Writes a change of the coordinator.
    fn write(&mut self, change: &LeaseChange) {
        self.messages.leases += 1;
        let record = match change {
            LeaseChange::Give { worker, .. } => Some(LeaseRecord::of(worker)),
            LeaseChange::Leave { lease, leaving, .. } => Some(LeaseRecord {
                worker: lease.record.worker.clone(),
                leaving: leaving.clone(),
                moved: matches!(leaving, Some(Leaving::To(_))),
            }),
            LeaseChange::Delete { .. } => None,
        };
        self.set_lease(change.camera(), record);
    }

    /// A worker gives a camera back, if its lease says so.
    fn give_back(&mut self, camera: &str) {
        let lease = self.cameras.get(camera).and_then(|c| c.lease.as_ref());
        let Some(lease) = lease.map(|(lease, _)| lease.record.clone()) else {
            return;
        };
        if !self.workers.contains_key(&lease.worker) {
            return;
        }
        let record = match lease.leaving {
            None => return,
            Some(Leaving::Nowhere) => None,
            Some(Leaving::To(worker)) => {
                self.moved += 1;
                Some(LeaseRecord {
                    moved: true,
                    ..LeaseRecord::of(&worker)
                })
            }
        };
        self.messages.leases += 1;
        self.messages.notices += 1; // to the next worker
        self.messages.reads += 2;
        self.set_lease(camera, record);
    }

    fn set_lease(&mut self, camera: &str, record: Option<LeaseRecord>) {
        let record = record.map(|record| self.versioned(record));
        self.view.lease(camera, record.clone());
        let Some(camera) = self.cameras.get_mut(camera) else {
            return;
        };
        camera.lease = record.map(|record| {
            let before = camera.lease.take();
            let kept = before.filter(|(l, _)| l.record.worker == record.record.worker);
            let number = kept.map_or(record.revision, |(_, number)| number);
            (record, number)
        });
    }

    /// Ids of the workers that report.
    pub fn workers(&self) -> Vec<String> {
        self.workers.keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 40 cameras of 5 frames per second on 4 workers of 100.
    fn fleet() -> Simulation {
        let mut fleet = Simulation::new(LeaseTimes::of(Duration::from_secs(8)));
        for n in 0..40 {
            fleet.add_camera(&format!("c{n:02}"), CameraConfig::default(), 5.0);
        }
        for n in 0..4 {
            fleet.start_worker(&format!("w{n}"), 100.0, BTreeSet::new());
        }
        fleet.run(30);
        fleet
    }

    #[test]
    fn a_lost_workers_cameras_are_held_again_without_moves_and_return_by_bounded_moves() {
        let mut fleet = fleet();
        assert_eq!((fleet.held(), fleet.moved()), (40, 0));
        assert!(fleet.imbalance() < 0.1, "{}", fleet.imbalance());
        fleet.kill_worker("w3");
        fleet.run(10);
        assert_eq!((fleet.held(), fleet.moved()), (40, 0));
        fleet.start_worker("w4", 100.0, BTreeSet::new());
        fleet.run(30);
        assert_eq!(fleet.moved(), 4, "a tenth in the first minute");
        fleet.run(240);
        assert!((6..=12).contains(&fleet.moved()), "{}", fleet.moved());
        assert!(fleet.imbalance() <= 0.1 + 1e-9, "{}", fleet.imbalance());
    }

    #[test]
    fn a_calm_fleet_sends_reports_and_renewals_only() {
        let mut fleet = fleet();
        let before = fleet.messages();
        fleet.run(60);
        let after = fleet.messages();
        assert_eq!(after.reports - before.reports, 4 * 60);
        assert_eq!(after.renewals - before.renewals, 60);
        assert_eq!(after.total() - before.total(), 5 * 60);
        assert!(after.report_bytes > before.report_bytes);
    }
}
