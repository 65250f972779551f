//! What the coordinator knows of the fleet, and what follows from it. Without I/O; times are given.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use crate::fleet::assignment::{Demand, Offer, plan};
use crate::fleet::buckets::{Versioned, worker_id, worker_key};
use crate::fleet::config::LeaseTimes;
use crate::fleet::lease_changes::LeaseChange;
use crate::fleet::records::{HeldCamera, LeaseRecord, Leaving, WorkerRecord};
use crate::source::CameraConfig;

/// Frames per second that a camera counts for until a worker has measured them, if its settings do
/// not say.
const UNKNOWN_RATE: f64 = 10.0;
/// Share of the cameras that may move within [`MOVES_WITHIN`] although their workers exist.
const MOVED_SHARE: f64 = 0.1;
/// See [`MOVED_SHARE`].
const MOVES_WITHIN: Duration = Duration::from_secs(60);
/// Time after which a plan is made again without a change of the records.
const PLAN_EVERY: Duration = Duration::from_secs(2);
/// Time after which a worker is notified again of cameras that its report does not show.
const NOTIFY_EVERY: Duration = Duration::from_secs(2);
/// Time for which the coordinator must have had the server's answers before it takes silence of a
/// worker for its loss.
const STEADY: Duration = Duration::from_secs(3);

struct Worker {
    report: WorkerRecord,
    revision: u64,
    /// When its last report was seen.
    reported: Instant,
}

/// The records, and when they changed.
pub(super) struct FleetView {
    times: LeaseTimes,
    cameras: BTreeMap<String, Versioned<CameraConfig>>,
    leases: BTreeMap<String, Versioned<LeaseRecord>>,
    /// By id.
    workers: BTreeMap<String, Worker>,
    /// When workers were notified of cameras, by camera.
    notified: BTreeMap<String, Instant>,
    /// When the first worker reported.
    first: Option<Instant>,
    planned: Option<Instant>,
    /// The records have changed since the last plan.
    is_dirty: bool,
    /// Number of cameras without a worker at the last plan.
    homeless: usize,
}

impl FleetView {
    pub fn new(times: LeaseTimes) -> Self {
        FleetView {
            times,
            cameras: BTreeMap::new(),
            leases: BTreeMap::new(),
            workers: BTreeMap::new(),
            notified: BTreeMap::new(),
            first: None,
            planned: None,
            is_dirty: true,
            homeless: 0,
        }
    }

    /// Takes a camera's record, or its removal.
    pub fn camera(&mut self, name: &str, record: Option<Versioned<CameraConfig>>) {
        match record {
            Some(record) => self.cameras.insert(name.into(), record),
            None => self.cameras.remove(name),
        };
        self.is_dirty = true;
    }

    /// Revision of a camera's record.
    pub fn camera_revision(&self, name: &str) -> Option<u64> {
        self.cameras.get(name).map(|c| c.revision)
    }

    /// When the last plan was made.
    pub fn planned(&self) -> Option<Instant> {
        self.planned
    }

    /// Takes a lease, or its removal. A revision before the known one is ignored.
    pub fn lease(&mut self, camera: &str, record: Option<Versioned<LeaseRecord>>) {
        match record {
            Some(record) => {
                let known = self.leases.get(camera).map_or(0, |l| l.revision);
                if record.revision < known {
                    return;
                }
                if record.revision > known {
                    self.notified.remove(camera);
                }
                self.leases.insert(camera.into(), record);
            }
            None => {
                self.leases.remove(camera);
                self.notified.remove(camera);
            }
        }
        self.is_dirty = true;
    }

    /// Takes a worker's report that was seen at `now`, or its removal.
    pub fn worker(&mut self, key: &str, report: Option<Versioned<WorkerRecord>>, now: Instant) {
        let id = worker_id(key);
        let Some(report) = report else {
            self.is_dirty |= self.workers.remove(id).is_some();
            return;
        };
        self.first.get_or_insert(now);
        let worker = Worker {
            report: report.record,
            revision: report.revision,
            reported: now,
        };
        let before = self.workers.insert(id.into(), worker);
        let is_other = |before: Worker| {
            before.report.draining != self.workers[id].report.draining
                || before.report.labels != self.workers[id].report.labels
        };
        self.is_dirty |= before.is_none_or(is_other);
    }

    /// Keys and revisions of the reports of workers that are lost. `steady`: since when the server
    /// has answered the coordinator without a gap.
    pub fn lost(&self, now: Instant, steady: Instant) -> Vec<(String, u64)> {
        if now.saturating_duration_since(steady) < STEADY {
            return Vec::new();
        }
        let silent = |w: &Worker| now.saturating_duration_since(w.reported) >= self.times.lost;
        let lost = self.workers.iter().filter(|(_, w)| silent(w));
        lost.map(|(id, w)| (worker_key(id), w.revision)).collect()
    }

    /// Number of cameras that may move now although their workers exist. `unix`: nanoseconds since
    /// 1970.
    fn moves_left(&self, unix: i128) -> usize {
        let share = (MOVED_SHARE * self.cameras.len() as f64).ceil() as usize;
        let since = unix - i128::try_from(MOVES_WITHIN.as_nanos()).unwrap_or_default();
        let lately = |l: &&Versioned<LeaseRecord>| l.record.moved && l.changed > since;
        let moved = self.leases.values().filter(lately).count();
        share.saturating_sub(moved)
    }

    /// Changes of leases that are due at `now`, which is `unix` in nanoseconds since 1970.
    pub fn changes(&mut self, now: Instant, unix: i128) -> Vec<LeaseChange> {
        let is_due = self.planned.is_none_or(|at| now - at >= PLAN_EVERY);
        if !(self.is_dirty || is_due) || self.is_starting(now) {
            return Vec::new();
        }
        (self.planned, self.is_dirty) = (Some(now), false);
        let ids: Vec<&String> = self.workers.keys().collect();
        let index: HashMap<&str, usize> = ids
            .iter()
            .enumerate()
            .map(|(n, id)| (id.as_str(), n))
            .collect();
        let offers: Vec<Offer> = self.workers.values().map(|w| offer(&w.report)).collect();
        let names: Vec<&String> = self.cameras.keys().collect();
        let demands: Vec<Demand> = names.iter().map(|name| self.demand(name)).collect();
        let current: Vec<Option<usize>> = names
            .iter()
            .map(|&name| {
                let worker = self.leases.get(name)?.record.destination()?;
                index.get(worker).copied()
            })
            .collect();
        let plan = plan(&demands, &offers, &current, self.moves_left(unix));
        let id = |worker: usize| ids[worker].as_str();
        let mut changes: Vec<LeaseChange> = names
            .iter()
            .zip(&plan.workers)
            .filter_map(|(name, place)| self.change(name, place.map(id)))
            .collect();
        let homeless = plan.workers.iter().filter(|w| w.is_none()).count();
        changes.extend(self.removals());
        if homeless != self.homeless {
            self.homeless = homeless;
            tracing::warn!(
                cameras = homeless,
                workers = offers.len(),
                "number of cameras for which no worker has room"
            );
        }
        changes
    }

    /// Whether the fleet is starting: no worker has a lease, and half the time of a lease has not
    /// passed since the first report, so that other workers may still come.
    fn is_starting(&self, now: Instant) -> bool {
        let alive = |l: &Versioned<LeaseRecord>| self.is_alive(&l.record.worker);
        let settled = |first: Instant| now.saturating_duration_since(first) >= self.times.lost / 2;
        !self.first.is_some_and(settled) && !self.leases.values().any(alive)
    }

    fn is_alive(&self, worker: &str) -> bool {
        self.workers.contains_key(worker)
    }

    /// What a camera needs. The load is the rate that its worker has measured, else the expected
    /// rate.
    fn demand(&self, name: &str) -> Demand {
        let config = &self.cameras[name].record;
        let lease = self.leases.get(name);
        let held = lease.and_then(|l| self.held(&l.record.worker, name));
        let expected = config.target_fps.unwrap_or(UNKNOWN_RATE);
        Demand {
            load: held
                .map(|h| h.rate)
                .filter(|r| *r > 0.0)
                .unwrap_or(expected),
            priority: config.priority,
            labels: config.labels.iter().cloned().collect(),
        }
    }

    /// A camera in the report of a worker.
    fn held(&self, worker: &str, camera: &str) -> Option<HeldCamera> {
        let worker = self.workers.get(worker)?;
        worker.report.cameras.get(camera).copied()
    }

    /// The change by which `worker` gets a camera's lease, or, without `worker`, nobody has it;
    /// none if the lease is that way already.
    fn change(&self, camera: &str, worker: Option<&str>) -> Option<LeaseChange> {
        let name = camera.to_string();
        let Some(lease) = self.leases.get(camera) else {
            return worker.map(|worker| LeaseChange::Give {
                camera: name,
                worker: worker.into(),
                revision: None,
            });
        };
        if !self.is_alive(&lease.record.worker) {
            let revision = lease.revision;
            return Some(match worker {
                Some(worker) => LeaseChange::Give {
                    camera: name,
                    worker: worker.into(),
                    revision: Some(revision),
                },
                None => LeaseChange::Delete {
                    camera: name,
                    revision,
                },
            });
        }
        let leaving = match worker {
            Some(worker) if worker == lease.record.worker => None,
            Some(worker) => Some(Leaving::To(worker.into())),
            None => Some(Leaving::Nowhere),
        };
        (leaving != lease.record.leaving).then(|| LeaseChange::Leave {
            camera: name,
            lease: lease.clone(),
            leaving,
        })
    }

    /// The changes by which cameras that were removed lose their leases.
    fn removals(&self) -> Vec<LeaseChange> {
        let removed = self
            .leases
            .keys()
            .filter(|name| !self.cameras.contains_key(*name));
        removed.filter_map(|name| self.change(name, None)).collect()
    }

    /// Workers to notify of cameras: their reports do not show what the records say.
    pub fn notices(&mut self, now: Instant) -> BTreeMap<String, Vec<String>> {
        let mut notices: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (camera, lease) in &self.leases {
            let worker = &lease.record.worker;
            if !self.is_alive(worker) {
                continue;
            }
            let record = self.cameras.get(camera).map(|c| c.revision);
            let held = self.held(worker, camera);
            let is_known = match &lease.record.leaving {
                None => held.is_some_and(|h| Some(h.record) == record),
                // The lease changes when it has been given back.
                Some(_) => false,
            };
            let lately = |at: &Instant| now - *at < NOTIFY_EVERY;
            if !is_known && !self.notified.get(camera).is_some_and(lately) {
                self.notified.insert(camera.clone(), now);
                notices
                    .entry(worker.clone())
                    .or_default()
                    .push(camera.clone());
            }
        }
        notices
    }
}

fn offer(report: &WorkerRecord) -> Offer {
    Offer {
        capacity: report.capacity,
        labels: report.labels.clone(),
        draining: report.draining,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const SECOND: Duration = Duration::from_secs(1);

    fn times() -> LeaseTimes {
        LeaseTimes::of(8 * SECOND)
    }

    fn unix_nanos() -> i128 {
        clock::now().0.as_nanosecond()
    }

    fn versioned<T>(record: T, revision: u64) -> Option<Versioned<T>> {
        Some(Versioned {
            record,
            revision,
            changed: unix_nanos(),
        })
    }

    fn report(capacity: f64, held: &[&str]) -> WorkerRecord {
        let camera = HeldCamera {
            lease: 1,
            record: 1,
            rate: 5.0,
        };
        WorkerRecord {
            capacity,
            cameras: held.iter().map(|name| (name.to_string(), camera)).collect(),
            ..WorkerRecord::default()
        }
    }

    /// Cameras c0 to c9, and workers a and b.
    fn fleet(start: Instant) -> FleetView {
        let mut view = FleetView::new(times());
        for n in 0..10 {
            view.camera(&format!("c{n}"), versioned(CameraConfig::default(), 1));
        }
        for id in ["a", "b"] {
            view.worker(&worker_key(id), versioned(report(100.0, &[]), 1), start);
        }
        view
    }

    /// Writes the changes as the server would. Returns the workers that were given cameras, with
    /// their number.
    fn apply(view: &mut FleetView, now: Instant) -> BTreeMap<String, usize> {
        let mut given = BTreeMap::new();
        for change in view.changes(now, unix_nanos()) {
            let revision = 100 + view.leases.values().map(|l| l.revision).max().unwrap_or(0);
            let record = match &change {
                LeaseChange::Give { worker, .. } => {
                    *given.entry(worker.clone()).or_default() += 1;
                    Some(LeaseRecord::of(worker))
                }
                LeaseChange::Leave { lease, leaving, .. } => {
                    if let Some(Leaving::To(worker)) = leaving {
                        *given.entry(worker.clone()).or_default() += 1;
                    }
                    Some(LeaseRecord {
                        leaving: leaving.clone(),
                        moved: true,
                        ..lease.record.clone()
                    })
                }
                LeaseChange::Delete { .. } => None,
            };
            view.lease(change.camera(), record.and_then(|r| versioned(r, revision)));
        }
        given
    }

    fn counts(of: &[(&str, usize)]) -> BTreeMap<String, usize> {
        of.iter().map(|(name, n)| (name.to_string(), *n)).collect()
    }

    #[test]
    fn at_the_start_of_a_fleet_cameras_wait_until_workers_can_have_come() {
        let start = Instant::now();
        let mut view = fleet(start);
        assert!(apply(&mut view, start + SECOND).is_empty());
        let given = apply(&mut view, start + 4 * SECOND);
        assert_eq!(given, counts(&[("a", 5), ("b", 5)]));
        assert!(apply(&mut view, start + 9 * SECOND).is_empty(), "they stay");
        let notices = view.notices(start + 9 * SECOND);
        assert_eq!(notices.values().map(Vec::len).sum::<usize>(), 10);
        assert!(
            view.notices(start + 10 * SECOND).is_empty(),
            "notified lately"
        );
        assert_eq!(view.notices(start + 12 * SECOND).len(), 2, "again");
    }

    #[test]
    fn a_silent_worker_is_lost_and_its_cameras_go_to_others_at_once() {
        let start = Instant::now();
        let mut view = fleet(start);
        apply(&mut view, start + 4 * SECOND);
        view.worker(
            &worker_key("b"),
            versioned(report(100.0, &[]), 9),
            start + 7 * SECOND,
        );
        let lost = view.lost(start + 8 * SECOND, start);
        assert_eq!(lost, [(worker_key("a"), 1)]);
        assert!(
            view.lost(start + 8 * SECOND, start + 6 * SECOND).is_empty(),
            "the server may have been silent"
        );
        view.worker(&worker_key("a"), None, start + 8 * SECOND);
        assert_eq!(apply(&mut view, start + 8 * SECOND), counts(&[("b", 5)]));
    }

    #[test]
    fn a_new_worker_gets_a_tenth_of_the_cameras_a_minute() {
        let start = Instant::now();
        let mut view = fleet(start);
        apply(&mut view, start + 4 * SECOND);
        let later = start + 20 * SECOND;
        view.worker(&worker_key("c"), versioned(report(100.0, &[]), 1), later);
        assert_eq!(apply(&mut view, later), counts(&[("c", 1)]));
        assert!(apply(&mut view, later + 5 * SECOND).is_empty());
    }

    #[test]
    fn a_removed_camera_is_stopped_and_its_lease_deleted_with_its_worker() {
        let start = Instant::now();
        let mut view = fleet(start);
        apply(&mut view, start + 4 * SECOND);
        view.camera("c3", None);
        let now = start + 5 * SECOND;
        let changes = view.changes(now, unix_nanos());
        assert!(
            matches!(&changes[..], [LeaseChange::Leave { camera, leaving: Some(Leaving::Nowhere), .. }] if camera == "c3"),
            "{changes:?}"
        );
        let worker = view.leases["c3"].record.worker.clone();
        view.worker(&worker_key(&worker), None, now);
        let deleted = view.changes(now, unix_nanos()).into_iter();
        let deleted = deleted.filter(|c| matches!(c, LeaseChange::Delete { .. }));
        assert_eq!(deleted.count(), 1);
    }

    #[test]
    fn a_worker_is_notified_of_a_camera_until_it_reports_its_present_record() {
        let start = Instant::now();
        let mut view = fleet(start);
        apply(&mut view, start + 4 * SECOND);
        let all: Vec<String> = view.cameras.keys().cloned().collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        for id in ["a", "b"] {
            view.worker(
                &worker_key(id),
                versioned(report(100.0, &all), 2),
                start + 5 * SECOND,
            );
        }
        let now = start + 5 * SECOND;
        assert!(view.notices(now).is_empty());
        view.camera("c0", versioned(CameraConfig::default(), 2));
        let holder = view.leases["c0"].record.worker.clone();
        let expected = BTreeMap::from([(holder, vec!["c0".to_string()])]);
        assert_eq!(view.notices(now), expected);
    }

    #[test]
    fn an_older_revision_of_a_lease_changes_nothing() {
        let mut view = fleet(Instant::now());
        view.lease("c0", versioned(LeaseRecord::of("b"), 7));
        view.lease("c0", versioned(LeaseRecord::of("a"), 6));
        assert_eq!(view.leases["c0"].record.worker, "b");
    }
}
