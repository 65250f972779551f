//! Fair sharing of the networks between cameras.

use std::collections::BTreeMap;

/// The number of a camera's slot. Never reused within a run.
pub type Lane = usize;

/// Start-time fair queueing (Goyal et al. 1996). In the long run every camera that always has a
/// frame waiting gets network time in proportion to its weight, whatever its frames cost. A camera
/// without frames accumulates no credit.
#[derive(Debug, Default)]
pub(super) struct FairQueue {
    flows: BTreeMap<Lane, Flow>,
    /// Virtual time: the start tag of the last frame served, in seconds of work at weight 1.
    now: f64,
}

#[derive(Debug)]
struct Flow {
    /// Finish tag of its last frame.
    finish: f64,
    weight: f64,
    /// Moving average, in seconds, of the cost of a frame.
    cost: f64,
}

/// Assumed cost in seconds of a frame until the cost is measured.
const FIRST_COST: f64 = 0.03;

impl FairQueue {
    /// Adds a camera.
    pub fn add(&mut self, lane: Lane, weight: f64) {
        self.flows.insert(
            lane,
            Flow {
                finish: self.now,
                weight,
                cost: FIRST_COST,
            },
        );
    }

    /// Changes a camera's weight.
    pub fn set_weight(&mut self, lane: Lane, weight: f64) {
        if let Some(flow) = self.flows.get_mut(&lane) {
            flow.weight = weight;
        }
    }

    /// Removes a camera.
    pub fn remove(&mut self, lane: Lane) {
        self.flows.remove(&lane);
    }

    /// Chooses the next camera among those with a waiting frame.
    pub fn next(&mut self, waiting: impl Iterator<Item = Lane>) -> Option<Lane> {
        let start = |lane: Lane| {
            self.flows
                .get(&lane)
                .map(|f| (f.finish.max(self.now), lane))
        };
        let (start, lane) = waiting
            .filter_map(start)
            .min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)))?;
        self.now = start;
        let flow = self.flows.get_mut(&lane)?;
        flow.finish = start + flow.cost / flow.weight;
        Some(lane)
    }

    /// Corrects a camera's finish tag by the measured cost in seconds of a frame.
    pub fn charge(&mut self, lane: Lane, cost: f64) {
        let Some(flow) = self.flows.get_mut(&lane) else {
            return;
        };
        flow.finish += (cost - flow.cost) / flow.weight;
        flow.cost += 0.2 * (cost - flow.cost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(weights: &[f64], costs: &[f64]) -> Vec<f64> {
        let mut queue = FairQueue::default();
        weights
            .iter()
            .enumerate()
            .for_each(|(lane, &w)| queue.add(lane, w));
        let mut spent = vec![0.0; weights.len()];
        for _ in 0..3000 {
            let lane = queue.next(0..weights.len()).expect("all wait");
            queue.charge(lane, costs[lane]);
            spent[lane] += costs[lane];
        }
        let total: f64 = spent.iter().sum();
        spent.iter().map(|s| s / total).collect()
    }

    #[test]
    fn time_is_shared_by_weight_whatever_frames_cost() {
        for (share, want) in shares(&[1.0, 1.0, 2.0], &[0.01, 0.1, 0.02])
            .iter()
            .zip([0.25, 0.25, 0.5])
        {
            assert!((share - want).abs() < 0.01, "{share} instead of {want}");
        }
    }

    #[test]
    fn a_camera_without_frames_accumulates_no_credit_and_waits_at_most_one_turn_of_each() {
        let mut queue = FairQueue::default();
        (0..3).for_each(|lane| queue.add(lane, 1.0));
        for _ in 0..500 {
            queue.next([0, 1].into_iter());
        }
        let order: Vec<Lane> = (0..9).filter_map(|_| queue.next(0..3)).collect();
        assert!(order[..3].contains(&2), "{order:?}");
        assert_eq!(order.iter().filter(|&&l| l == 2).count(), 3, "{order:?}");
    }
}
