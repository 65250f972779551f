//! Which worker tracks which camera: a pure function of the cameras, the workers and who holds
//! what.
//!
//! Cameras stay where they are, unless their worker is gone, no longer fits their labels, has too
//! little capacity, or has more than its share of the load. A worker's share is in proportion to
//! its capacity. Every choice is greedy (the largest camera first, to the worker whose load is then
//! the smallest share of its capacity; Graham 1969), because an optimal placement would move
//! cameras that need not move.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeSet, BinaryHeap};

/// A camera that a worker is to track.
#[derive(Debug, Clone, PartialEq)]
pub struct Demand {
    /// Frames per second that it needs.
    pub load: f64,
    /// If capacity is short, cameras of higher priority are placed first.
    pub priority: i32,
    /// Labels that its worker must have.
    pub labels: BTreeSet<String>,
}

/// A worker.
#[derive(Debug, Clone, PartialEq)]
pub struct Offer {
    /// Frames per second that it can process.
    pub capacity: f64,
    /// Its labels.
    pub labels: BTreeSet<String>,
    /// It takes no cameras any more, and gives back those that it has.
    pub draining: bool,
}

/// Index of a worker.
pub type WorkerIndex = usize;

/// The outcome of [`plan`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// For every camera, its worker; none if there is no room.
    pub workers: Vec<Option<WorkerIndex>>,
    /// Number of cameras that move to another worker from one that is not draining.
    pub moves: usize,
}

/// Greatest share by which a worker's utilisation may exceed that of the fleet before cameras move.
const TOLERANCE: f64 = 0.1;

/// Decides which worker tracks each camera. `current` has the present workers, in the order of
/// `cameras`; a camera whose worker is gone has none. At most `moves` cameras leave a worker to
/// relieve it or to balance the load. Cameras of workers that are draining or no longer fit, and
/// those that give way to a camera of higher priority, leave in any case.
pub fn plan(
    cameras: &[Demand],
    workers: &[Offer],
    current: &[Option<WorkerIndex>],
    moves: usize,
) -> Plan {
    let mut placement = Placement::new(cameras, workers, current);
    placement.place_homeless();
    placement.relieve(moves);
    placement.balance(moves);
    Plan {
        moves: placement.moves,
        workers: placement.places,
    }
}

/// The utilisation of the busiest worker relative to that of the whole fleet, less one: 0 if the
/// load is in proportion to capacity everywhere. Workers that are draining do not count.
pub fn imbalance(cameras: &[Demand], workers: &[Offer], places: &[Option<WorkerIndex>]) -> f64 {
    let placement = Placement::new(cameras, workers, places);
    let mean = placement.mean();
    let most = (0..workers.len())
        .filter(|&w| !workers[w].draining)
        .map(|w| placement.utilisation(w))
        .fold(0.0, f64::max);
    if mean > 0.0 { most / mean - 1.0 } else { 0.0 }
}

struct Placement<'a> {
    cameras: &'a [Demand],
    workers: &'a [Offer],
    /// The worker that each camera had before; none if that worker is gone.
    before: Vec<Option<WorkerIndex>>,
    places: Vec<Option<WorkerIndex>>,
    /// Frames per second of every worker's cameras.
    loads: Vec<f64>,
    /// Every worker's cameras.
    held: Vec<BTreeSet<usize>>,
    /// Number of cameras that move to another worker from one that is not draining.
    moves: usize,
}

/// A camera without a worker, in the order in which they are placed: by priority, then by load.
#[derive(PartialEq)]
struct Homeless {
    priority: i32,
    load: f64,
    camera: Reverse<usize>,
}

impl Eq for Homeless {}

impl Ord for Homeless {
    fn cmp(&self, other: &Self) -> Ordering {
        self.priority
            .cmp(&other.priority)
            .then(self.load.total_cmp(&other.load))
            .then(self.camera.cmp(&other.camera))
    }
}

impl PartialOrd for Homeless {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<'a> Placement<'a> {
    /// The present placement, without cameras on workers that must not keep them.
    fn new(cameras: &'a [Demand], workers: &'a [Offer], current: &[Option<WorkerIndex>]) -> Self {
        let mut placement = Placement {
            cameras,
            workers,
            before: current.to_vec(),
            places: vec![None; cameras.len()],
            loads: vec![0.0; workers.len()],
            held: vec![BTreeSet::new(); workers.len()],
            moves: 0,
        };
        for (camera, worker) in current.iter().enumerate() {
            if let Some(worker) = *worker
                && placement.may_hold(worker, camera)
            {
                placement.put(camera, worker);
            }
        }
        placement
    }

    fn may_hold(&self, worker: WorkerIndex, camera: usize) -> bool {
        let offer = &self.workers[worker];
        !offer.draining
            && offer.capacity > 0.0
            && self.cameras[camera].labels.is_subset(&offer.labels)
    }

    fn put(&mut self, camera: usize, worker: WorkerIndex) {
        self.places[camera] = Some(worker);
        self.loads[worker] += self.cameras[camera].load;
        self.held[worker].insert(camera);
        self.moves += usize::from(self.is_move(camera, worker));
    }

    /// Whether a camera on this worker has left another one that is not draining.
    fn is_move(&self, camera: usize, worker: WorkerIndex) -> bool {
        self.before[camera].is_some_and(|before| before != worker && !self.workers[before].draining)
    }

    fn take(&mut self, camera: usize) {
        if let Some(worker) = self.places[camera].take() {
            self.loads[worker] -= self.cameras[camera].load;
            self.held[worker].remove(&camera);
            self.moves -= usize::from(self.is_move(camera, worker));
        }
    }

    /// Share of its capacity that a worker uses.
    fn utilisation(&self, worker: WorkerIndex) -> f64 {
        self.loads[worker] / self.workers[worker].capacity.max(f64::MIN_POSITIVE)
    }

    /// Share of the whole capacity in use.
    fn mean(&self) -> f64 {
        let useful = self.workers.iter().filter(|w| !w.draining);
        let capacity: f64 = useful.map(|w| w.capacity).sum();
        self.loads.iter().sum::<f64>() / capacity.max(f64::MIN_POSITIVE)
    }

    /// The worker with room for a camera whose utilisation would then be the smallest.
    fn room_for(&self, camera: usize) -> Option<WorkerIndex> {
        let load = self.cameras[camera].load;
        let after = |w: WorkerIndex| (self.loads[w] + load) / self.workers[w].capacity;
        (0..self.workers.len())
            .filter(|&w| self.may_hold(w, camera) && after(w) <= 1.0 + 1e-9)
            .min_by(|&a, &b| after(a).total_cmp(&after(b)))
    }

    /// Places the cameras without a worker. Where there is no room, cameras of lower priority lose
    /// their workers.
    fn place_homeless(&mut self) {
        let homeless = |camera: usize| Homeless {
            priority: self.cameras[camera].priority,
            load: self.cameras[camera].load,
            camera: Reverse(camera),
        };
        let without = (0..self.cameras.len()).filter(|&c| self.places[c].is_none());
        let mut queue: BinaryHeap<Homeless> = without.map(homeless).collect();
        while let Some(next) = queue.pop() {
            let camera = next.camera.0;
            if let Some(worker) = self.room_for(camera) {
                self.put(camera, worker);
            } else if let Some((worker, losers)) = self.room_by_priority(camera) {
                for loser in losers {
                    self.take(loser);
                    queue.push(Homeless {
                        priority: self.cameras[loser].priority,
                        load: self.cameras[loser].load,
                        camera: Reverse(loser),
                    });
                }
                self.put(camera, worker);
            }
        }
    }

    /// A worker on which cameras of lower priority can give way to a camera, and these cameras. It
    /// is the worker whose most important loser has the lowest priority; among equals, the one with
    /// the fewest losers.
    fn room_by_priority(&self, camera: usize) -> Option<(WorkerIndex, Vec<usize>)> {
        let demand = &self.cameras[camera];
        let losers = |worker: WorkerIndex| {
            let mut lower: Vec<usize> = self.held[worker]
                .iter()
                .copied()
                .filter(|&c| self.cameras[c].priority < demand.priority)
                .collect();
            // The lowest priority first; among these the largest, so that few lose their place.
            lower.sort_by(|&a, &b| {
                let (a, b) = (&self.cameras[a], &self.cameras[b]);
                let by_priority = a.priority.cmp(&b.priority);
                by_priority.then(b.load.total_cmp(&a.load))
            });
            let mut excess = self.loads[worker] + demand.load - self.workers[worker].capacity;
            let mut chosen = Vec::new();
            for camera in lower {
                if excess <= 1e-9 {
                    break;
                }
                excess -= self.cameras[camera].load;
                chosen.push(camera);
            }
            (excess <= 1e-9).then_some((worker, chosen))
        };
        (0..self.workers.len())
            .filter(|&w| self.may_hold(w, camera))
            .filter_map(losers)
            .min_by_key(|(_, chosen)| {
                let highest = chosen.iter().map(|&c| self.cameras[c].priority).max();
                (highest, chosen.len())
            })
    }

    /// Moves cameras, those of the lowest priority first, from workers whose load exceeds their
    /// capacity to workers with room, while moves are left. Other cameras stay, with fewer frames.
    fn relieve(&mut self, moves: usize) {
        for worker in 0..self.workers.len() {
            let mut kept: Vec<usize> = self.held[worker].iter().copied().collect();
            kept.sort_by_key(|&c| (self.cameras[c].priority, c));
            for camera in kept {
                if self.utilisation(worker) <= 1.0 + 1e-9 {
                    break;
                }
                self.take(camera);
                let place = self.room_for(camera);
                match place {
                    // `room_for` cannot return the worker itself: the camera did not fit there.
                    Some(place) if self.moves < moves => self.put(camera, place),
                    Some(_) => {
                        self.put(camera, worker);
                        break;
                    }
                    // No worker has room: fewer frames are better than none.
                    None => self.put(camera, worker),
                }
            }
        }
    }

    /// Moves cameras from workers with more than their share of the load to others, while moves are
    /// left and a move makes the busier of the two workers less busy.
    fn balance(&mut self, moves: usize) {
        let mean = self.mean();
        let mut settled = vec![false; self.workers.len()];
        while self.moves < moves {
            let busiest = (0..self.workers.len())
                .filter(|&w| !settled[w] && !self.workers[w].draining)
                .max_by(|&a, &b| self.utilisation(a).total_cmp(&self.utilisation(b)));
            let Some(from) = busiest else { return };
            if self.utilisation(from) <= mean * (1.0 + TOLERANCE) {
                return;
            }
            match self.best_move(from) {
                Some((camera, to)) => {
                    self.take(camera);
                    self.put(camera, to);
                }
                None => settled[from] = true,
            }
        }
    }

    /// The camera of a worker, and another worker, by whose move the busier of the two becomes
    /// least busy; none if no move makes it less busy than it is.
    fn best_move(&self, from: WorkerIndex) -> Option<(usize, WorkerIndex)> {
        let mut others: Vec<WorkerIndex> = (0..self.workers.len())
            .filter(|&w| w != from && !self.workers[w].draining)
            .collect();
        others.sort_by(|&a, &b| self.utilisation(a).total_cmp(&self.utilisation(b)));
        let mut best: Option<(f64, usize, WorkerIndex)> = None;
        for &camera in &self.held[from] {
            let Some(&to) = others.iter().find(|&&w| self.may_hold(w, camera)) else {
                continue;
            };
            let load = self.cameras[camera].load;
            let here = (self.loads[from] - load) / self.workers[from].capacity;
            let there = (self.loads[to] + load) / self.workers[to].capacity;
            let busier = here.max(there);
            if best.is_none_or(|(least, ..)| busier < least - 1e-12) {
                best = Some((busier, camera, to));
            }
        }
        best.filter(|&(busier, ..)| busier < self.utilisation(from) - 1e-9)
            .map(|(_, camera, to)| (camera, to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn camera(load: f64) -> Demand {
        Demand {
            load,
            priority: 0,
            labels: BTreeSet::new(),
        }
    }

    fn worker(capacity: f64) -> Offer {
        Offer {
            capacity,
            labels: BTreeSet::new(),
            draining: false,
        }
    }

    fn labels(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| name.to_string()).collect()
    }

    /// Loads of the workers under a plan.
    fn loads(cameras: &[Demand], workers: &[Offer], plan: &Plan) -> Vec<f64> {
        let mut loads = vec![0.0; workers.len()];
        for (camera, place) in cameras.iter().zip(&plan.workers) {
            place.iter().for_each(|&w| loads[w] += camera.load);
        }
        loads
    }

    #[test]
    fn new_cameras_are_placed_in_proportion_to_capacity_and_stay() {
        let cameras = vec![camera(5.0); 30];
        let workers = [worker(100.0), worker(200.0)];
        let first = plan(&cameras, &workers, &[None; 30], 0);
        assert_eq!(loads(&cameras, &workers, &first), [50.0, 100.0]);
        assert!(imbalance(&cameras, &workers, &first.workers) < 1e-9);
        let again = plan(&cameras, &workers, &first.workers, 30);
        assert_eq!((again.workers, again.moves), (first.workers, 0));
    }

    #[test]
    fn only_the_cameras_of_a_lost_worker_move() {
        let cameras = vec![camera(1.0); 90];
        let three = vec![worker(100.0); 3];
        let before = plan(&cameras, &three, &[None; 90], 0).workers;
        let left = before.iter().map(|w| w.filter(|&w| w < 2));
        let left: Vec<Option<WorkerIndex>> = left.collect();
        let after = plan(&cameras, &three[..2], &left, 0);
        assert_eq!(after.moves, 0);
        assert!(after.workers.iter().all(Option::is_some));
        for (camera, place) in left.iter().enumerate() {
            assert!(place.is_none() || *place == after.workers[camera]);
        }
        assert!(imbalance(&cameras, &three[..2], &after.workers) < 0.03);
    }

    #[test]
    fn a_worker_that_returns_gets_its_share_within_the_allowed_moves() {
        let cameras = vec![camera(1.0); 100];
        let current: Vec<_> = (0..100).map(|c| Some(c % 4)).collect();
        let five = vec![worker(50.0); 5];
        let bounded = plan(&cameras, &five, &current, 10);
        assert_eq!(bounded.moves, 10);
        assert_eq!(loads(&cameras, &five, &bounded)[4], 10.0);
        let free = plan(&cameras, &five, &current, 100);
        assert!(imbalance(&cameras, &five, &free.workers) <= TOLERANCE + 1e-9);
        assert!(free.moves <= 20, "{}", free.moves);
    }

    #[test]
    fn labels_decide_where_a_camera_may_be() {
        let mut cameras = vec![camera(1.0); 4];
        cameras[0].labels = labels(&["site=north"]);
        cameras[1].labels = labels(&["site=nowhere"]);
        let mut workers = [worker(100.0), worker(1.0)];
        workers[1].labels = labels(&["site=north", "gpu"]);
        let placed = plan(&cameras, &workers, &[Some(0), None, None, None], 0);
        assert_eq!(placed.workers, [Some(1), None, Some(0), Some(0)]);
    }

    #[test]
    fn where_capacity_lacks_the_higher_priorities_are_held() {
        let mut cameras = vec![camera(4.0); 6];
        for (n, camera) in cameras.iter_mut().enumerate() {
            camera.priority = n as i32;
        }
        let workers = [worker(9.0), worker(9.0)];
        let current = [Some(0), Some(0), Some(1), Some(1), None, None];
        let placed = plan(&cameras, &workers, &current, 6);
        assert_eq!(placed.workers[..2], [None, None]);
        assert!(placed.workers[2..].iter().all(Option::is_some));
        // If a worker turns out to be slower and none has room, no camera is lost: all get fewer
        // frames, as even as moves make it.
        let slower = [worker(9.0), worker(5.0)];
        let placed = plan(&cameras, &slower, &placed.workers, 6);
        assert_eq!(loads(&cameras, &slower, &placed), [12.0, 4.0]);
        assert_eq!(placed.moves, 1);
    }

    #[test]
    fn a_draining_worker_gives_all_back_and_gets_none() {
        let cameras = vec![camera(1.0); 10];
        let mut workers = vec![worker(20.0); 3];
        workers[0].draining = true;
        let placed = plan(&cameras, &workers, &[Some(0); 10], 0);
        assert_eq!(loads(&cameras, &workers, &placed), [0.0, 5.0, 5.0]);
        assert_eq!(placed.moves, 0, "they had to leave");
    }

    #[test]
    fn an_overloaded_worker_gives_cameras_to_others_within_the_allowed_moves() {
        let cameras = vec![camera(1.0); 10];
        let workers = [worker(5.0), worker(20.0)];
        let placed = plan(&cameras, &workers, &[Some(0); 10], 3);
        assert_eq!(loads(&cameras, &workers, &placed), [7.0, 3.0]);
        let placed = plan(&cameras, &workers, &placed.workers, 10);
        assert!(loads(&cameras, &workers, &placed)[0] <= 5.0);
    }

    #[test]
    fn without_workers_or_cameras_nothing_is_placed() {
        let cameras = [camera(1.0)];
        assert_eq!(plan(&cameras, &[], &[None], 9).workers, [None]);
        assert_eq!(plan(&[], &[worker(1.0)], &[], 9), Plan::default());
        let useless = plan(&cameras, &[worker(0.0)], &[Some(0)], 9);
        assert_eq!(useless.workers, [None]);
    }
}
