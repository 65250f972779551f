//! A simulated fleet of 10,000 cameras and 300 workers: time of a plan, moves, imbalance and
//! messages when a tenth of the workers vanishes and returns:
//!
//!     cargo bench --bench fleet_assignment
//!
//! The coordinator's code is the product's ([`twintrack::fleet::simulation`]); leases of 8 s. The
//! random numbers are seeded: everything but the times is the same in every run.
#![allow(clippy::print_stdout, reason = "a benchmark's table")]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use fastrand::Rng;
use twintrack::fleet::assignment::{Demand, Offer, Plan, plan};
use twintrack::fleet::config::LeaseTimes;
use twintrack::fleet::simulation::{Messages, Simulation};
use twintrack::source::CameraConfig;

const CAMERAS: usize = 10_000;
const WORKERS: usize = 300;
const SITES: [&str; 4] = ["site=north", "site=south", "site=east", "site=west"];
/// Number of minutes after which a simulation ends even if cameras still move.
const MINUTES: u64 = 30;

/// Cameras of 1 to 25 frames per second, a third of them bound to a site, a tenth with a higher
/// priority.
fn camera(rng: &mut Rng) -> (CameraConfig, f64) {
    let rate = [1.0, 2.0, 5.0, 10.0, 12.5, 15.0, 25.0][rng.usize(..7)];
    let labels = match rng.usize(..3) {
        0 => vec![SITES[rng.usize(..4)].to_string()],
        _ => Vec::new(),
    };
    let priority = if rng.usize(..10) == 0 { 10 } else { 0 };
    let config = CameraConfig::default()
        .with_labels(labels)
        .with_priority(priority);
    (config, rate)
}

/// Workers of 200 to 1,600 frames per second, each of one site.
fn worker(rng: &mut Rng, n: usize) -> (String, f64, BTreeSet<String>) {
    let capacity = [200.0, 400.0, 800.0, 1600.0][rng.usize(..4)];
    let labels = BTreeSet::from([SITES[n % SITES.len()].to_string()]);
    (format!("worker-{n:03}"), capacity, labels)
}

/// Prints the median time in milliseconds of [`plan`] from nothing, and of one that changes
/// nothing.
fn plan_times() {
    let mut rng = Rng::with_seed(1);
    let demands: Vec<Demand> = (0..CAMERAS)
        .map(|_| camera(&mut rng))
        .map(|(config, load)| Demand {
            load,
            priority: config.priority,
            labels: config.labels.into_iter().collect(),
        })
        .collect();
    let offers: Vec<Offer> = (0..WORKERS)
        .map(|n| worker(&mut rng, n))
        .map(|(_, capacity, labels)| Offer {
            capacity,
            labels,
            draining: false,
        })
        .collect();
    let timed = |current: &[Option<usize>], offers: &[Offer]| {
        let (mut times, mut last) = (Vec::new(), Plan::default());
        for _ in 0..15 {
            let start = Instant::now();
            last = plan(&demands, offers, current, CAMERAS / 10);
            times.push(start.elapsed());
        }
        (1000.0 * median(&mut times).as_secs_f64(), last)
    };
    let nothing = vec![None; CAMERAS];
    let (from_nothing, first) = timed(&nothing, &offers);
    // Until nothing is to be moved any more.
    let (mut current, mut rounds) = (first.workers, 0);
    while rounds < 100 {
        let next = plan(&demands, &offers, &current, CAMERAS / 10);
        if next.moves == 0 {
            break;
        }
        (current, rounds) = (next.workers, rounds + 1);
    }
    let (unchanged, plan) = timed(&current, &offers);
    assert_eq!(plan.moves, 0);
    let small: Vec<Offer> = offers
        .iter()
        .map(|o| Offer {
            capacity: 0.4 * o.capacity,
            ..o.clone()
        })
        .collect();
    let (overloaded, plan) = timed(&current, &small);
    let without = plan.workers.iter().filter(|w| w.is_none()).count();
    println!("plan from nothing            {from_nothing:8.1} ms");
    println!("plan that changes nothing    {unchanged:8.1} ms");
    println!(
        "plan with 40 % of the capacity {overloaded:6.1} ms, {without} cameras without a worker"
    );
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// Prints what has happened since the messages `before`, and returns the messages until now.
fn row(
    name: &str,
    fleet: &mut Simulation,
    before: Messages,
    seconds: u64,
    moved: usize,
) -> Messages {
    let now = fleet.messages();
    let per_second = |all: u64, earlier: u64| (all - earlier) as f64 / seconds as f64;
    println!(
        "{name:<34}{:>7}{:>8}{:>10.3}{:>11.1}{:>9.1}{:>9.1}{:>9.1}{:>10.0}{:>9.1}",
        fleet.held(),
        fleet.moved() - moved,
        fleet.imbalance(),
        per_second(now.total(), before.total()),
        per_second(now.reports, before.reports),
        per_second(now.leases, before.leases),
        per_second(now.reads + now.notices, before.reads + before.notices),
        per_second(now.report_bytes, before.report_bytes) / 1000.0,
        1000.0 * median(&mut fleet.take_plan_times()).as_secs_f64(),
    );
    now
}

/// Runs whole minutes until no camera has moved for a minute, at most [`MINUTES`]; prints each.
fn settle(name: &str, fleet: &mut Simulation) {
    let mut minutes = 0;
    loop {
        let (before, moved) = (fleet.messages(), fleet.moved());
        fleet.run(60);
        minutes += 1;
        row(
            &format!("{name}, minute {minutes}"),
            fleet,
            before,
            60,
            moved,
        );
        if fleet.moved() == moved || minutes == MINUTES {
            break;
        }
    }
}

fn main() {
    plan_times();
    let mut rng = Rng::with_seed(1);
    let mut fleet = Simulation::new(LeaseTimes::of(Duration::from_secs(8)));
    for n in 0..CAMERAS {
        let (config, rate) = camera(&mut rng);
        fleet.add_camera(&format!("camera-{n:05}"), config, rate);
    }
    let workers: Vec<_> = (0..WORKERS).map(|n| worker(&mut rng, n)).collect();
    println!(
        "\n{:<34}{:>7}{:>8}{:>10}{:>11}{:>9}{:>9}{:>9}{:>10}{:>9}",
        "",
        "held",
        "moved",
        "imbalance",
        "messages/s",
        "reports",
        "leases",
        "reads",
        "kB/s",
        "plan ms"
    );
    for (id, capacity, labels) in &workers {
        fleet.start_worker(id, *capacity, labels.clone());
    }
    settle("start", &mut fleet);
    let mut names = fleet.workers();
    rng.shuffle(&mut names);
    let gone = &names[..WORKERS / 10];
    gone.iter().for_each(|id| fleet.kill_worker(id));
    let (before, moved) = (fleet.messages(), fleet.moved());
    fleet.run(10);
    row(
        "a tenth of the workers lost, 10 s",
        &mut fleet,
        before,
        10,
        moved,
    );
    settle("lost", &mut fleet);
    for (id, capacity, labels) in &workers {
        if gone.contains(id) {
            fleet.start_worker(&format!("{id}-again"), *capacity, labels.clone());
        }
    }
    settle("returned", &mut fleet);
}
