//! Frames of all cameras into batches for the one detector: the newest frame of each, in turns that are fair.
//!
//! A live camera has room for one frame, and a newer one takes its place: what is detected is never older than it must be,
//! and latency cannot grow. A file's reader waits for the room instead.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::frame::Frame;

/// A camera's place in the batcher.
pub type Lane = usize;

/// Whose turn it is: start-time fair queueing (Goyal et al. 1996). Over time every camera that always has a frame waiting
/// gets detector time in proportion to its weight, however dear its frames are; one that was quiet saves up nothing.
#[derive(Debug, Default)]
pub struct Turns {
    lanes: BTreeMap<Lane, Turn>,
    /// The start of the turn given last, in seconds of work for a weight of one.
    now: f64,
}

#[derive(Debug)]
struct Turn {
    /// Where its last turn ended.
    end: f64,
    weight: f64,
    /// What a frame of it costs, seconds: a moving average.
    cost: f64,
}

/// What a frame is taken to cost until that is known, seconds.
const FIRST_COST: f64 = 0.03;

impl Turns {
    /// A camera comes in.
    pub fn join(&mut self, lane: Lane, weight: f64) {
        self.lanes.insert(
            lane,
            Turn {
                end: self.now,
                weight,
                cost: FIRST_COST,
            },
        );
    }

    /// A camera's weight is another from now on.
    pub fn set_weight(&mut self, lane: Lane, weight: f64) {
        if let Some(turn) = self.lanes.get_mut(&lane) {
            turn.weight = weight;
        }
    }

    /// A camera goes.
    pub fn leave(&mut self, lane: Lane) {
        self.lanes.remove(&lane);
    }

    /// Gives the turn to one of the cameras that have a frame waiting.
    pub fn next(&mut self, waiting: impl Iterator<Item = Lane>) -> Option<Lane> {
        let start = |lane: Lane| self.lanes.get(&lane).map(|t| (t.end.max(self.now), lane));
        let (start, lane) = waiting
            .filter_map(start)
            .min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)))?;
        self.now = start;
        let turn = self.lanes.get_mut(&lane)?;
        turn.end = start + turn.cost / turn.weight;
        Some(lane)
    }

    /// A frame of the camera has cost so much, seconds.
    pub fn charge(&mut self, lane: Lane, cost: f64) {
        let Some(turn) = self.lanes.get_mut(&lane) else {
            return;
        };
        turn.end += (cost - turn.cost) / turn.weight;
        turn.cost += 0.2 * (cost - turn.cost);
    }
}

/// A frame in its lane.
#[derive(Debug)]
pub struct Waiting {
    /// The camera.
    pub lane: Lane,
    /// The frame.
    pub frame: Frame,
    /// When it was decoded.
    pub arrived: Instant,
}

/// What goes to the detector at once.
#[derive(Debug, Default)]
pub struct Batch {
    /// Frames that become inputs of one size.
    pub frames: Vec<Waiting>,
    /// Cameras of which nothing more comes.
    pub ended: Vec<Lane>,
}

#[derive(Debug, Default)]
struct Slot {
    waiting: Option<(Frame, Instant)>,
    offered: Option<Instant>,
    ended: bool,
}

#[derive(Debug, Default)]
struct State {
    turns: Turns,
    slots: BTreeMap<Lane, Slot>,
    next_lane: Lane,
    /// Batches handed out and not yet done.
    under_way: usize,
    closed: bool,
}

/// How batches are made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BatchLimits {
    /// At most this many frames.
    pub size: usize,
    /// The first frame waits at most this long for others.
    pub wait: Duration,
    /// At most this many batches under way: more would only grow old.
    pub under_way: usize,
}

/// The meeting place of the cameras' threads and the detector's. Shared.
pub struct Batcher {
    state: Mutex<State>,
    changed: Condvar,
    limits: BatchLimits,
    /// The size of the detector's input that a frame becomes: only frames of one input size share a batch.
    input: InputOf,
}

/// (width, height) of a frame to (width, height) of the detector's input.
type InputOf = Box<dyn Fn(&Frame) -> (usize, usize) + Send + Sync>;

/// A camera that gave no frame for so long is not waited for.
const QUIET: Duration = Duration::from_secs(1);

impl Batcher {
    /// With no camera yet.
    pub fn new(
        limits: BatchLimits,
        input: impl Fn(&Frame) -> (usize, usize) + Send + Sync + 'static,
    ) -> Self {
        Batcher {
            state: Mutex::default(),
            changed: Condvar::new(),
            limits,
            input: Box::new(input),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under the lock half way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A camera comes in.
    pub fn join(&self, weight: f64) -> Lane {
        let mut state = self.lock();
        let lane = state.next_lane;
        state.next_lane += 1;
        state.turns.join(lane, weight);
        state.slots.insert(lane, Slot::default());
        lane
    }

    /// A camera's weight is another from now on.
    pub fn set_weight(&self, lane: Lane, weight: f64) {
        self.lock().turns.set_weight(lane, weight);
    }

    /// Frames that wait.
    pub fn waiting(&self) -> usize {
        self.lock()
            .slots
            .values()
            .filter(|s| s.waiting.is_some())
            .count()
    }

    /// The camera's newest frame. Tells whether one was dropped for it because the detector was busy.
    pub fn offer(&self, lane: Lane, frame: Frame) -> bool {
        let mut state = self.lock();
        let Some(slot) = state.slots.get_mut(&lane) else {
            return false;
        };
        let now = Instant::now();
        slot.offered = Some(now);
        let old = slot.waiting.replace((frame, now));
        // The new frame stands in the old one's place, but what made everybody behind it wait must outlive it.
        if let (Some((old, _)), Some((new, _))) = (&old, &mut slot.waiting) {
            new.restart |= old.restart;
        }
        self.changed.notify_all();
        old.is_some()
    }

    /// The next frame of a file, which waits for room. `false` when the camera has been ended.
    pub fn offer_patiently(&self, lane: Lane, frame: Frame) -> bool {
        let mut state = self.lock();
        while state.slots.get(&lane).is_some_and(|s| s.waiting.is_some()) {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let there = state.slots.contains_key(&lane);
        drop(state); // only this camera's own thread fills its place
        there && !self.offer(lane, frame)
    }

    /// Nothing more comes of the camera; what waits still goes through.
    pub fn end(&self, lane: Lane) {
        if let Some(slot) = self.lock().slots.get_mut(&lane) {
            slot.ended = true;
        }
        self.changed.notify_all();
    }

    /// Nobody joins any more: after the last camera's end comes no batch.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Nobody takes batches any more.
    pub fn abandon(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.slots.clear();
        self.changed.notify_all();
    }

    /// The next batch: full, or as it is when its first frame has waited long enough. `None` at the end.
    pub fn next(&self) -> Option<Batch> {
        let mut state = self.lock();
        loop {
            if state.closed && state.slots.is_empty() {
                return None;
            }
            let now = Instant::now();
            let mut pause = Duration::from_millis(500);
            if state.under_way < self.limits.under_way {
                let oldest = state
                    .slots
                    .values()
                    .filter_map(|s| s.waiting.as_ref())
                    .map(|w| w.1)
                    .min();
                let waiting = state.slots.values().filter(|s| s.waiting.is_some()).count();
                let lively = state
                    .slots
                    .values()
                    .filter(|s| !s.ended && s.offered.is_some_and(|at| now - at < QUIET))
                    .count();
                let due = oldest.map(|at| (at + self.limits.wait).saturating_duration_since(now));
                if waiting >= self.limits.size.min(lively.max(1))
                    || due == Some(Duration::ZERO)
                    || state.slots.values().any(|s| s.ended)
                {
                    let batch = self.take(&mut state);
                    if !(batch.frames.is_empty() && batch.ended.is_empty()) {
                        state.under_way += 1;
                        self.changed.notify_all();
                        return Some(batch);
                    }
                }
                pause = due.unwrap_or(pause).max(Duration::from_micros(100));
            }
            state = self
                .changed
                .wait_timeout(state, pause)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn take(&self, state: &mut State) -> Batch {
        let mut frames: Vec<Waiting> = Vec::new();
        let mut size = None;
        while frames.len() < self.limits.size {
            let State { turns, slots, .. } = state;
            let fits = |s: &Slot| {
                s.waiting
                    .as_ref()
                    .is_some_and(|(f, _)| size.is_none_or(|size| size == (self.input)(f)))
            };
            let Some(lane) =
                turns.next(slots.iter().filter(|(_, s)| fits(s)).map(|(&lane, _)| lane))
            else {
                break;
            };
            let Some((frame, arrived)) = slots.get_mut(&lane).and_then(|s| s.waiting.take()) else {
                break;
            };
            size = Some((self.input)(&frame));
            frames.push(Waiting {
                lane,
                frame,
                arrived,
            });
        }
        let ended: Vec<Lane> = state
            .slots
            .iter()
            .filter(|(_, s)| s.ended && s.waiting.is_none())
            .map(|(&lane, _)| lane)
            .collect();
        for lane in &ended {
            state.slots.remove(lane);
            state.turns.leave(*lane);
        }
        Batch { frames, ended }
    }

    /// A batch is done; what its frames cost, seconds, by camera.
    pub fn done(&self, costs: &[(Lane, f64)]) {
        let mut state = self.lock();
        state.under_way -= 1;
        costs
            .iter()
            .for_each(|&(lane, cost)| state.turns.charge(lane, cost));
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Seconds;

    fn frame(number: u64, width: u32) -> Frame {
        Frame {
            camera: "cam".into(),
            number,
            pts: Seconds(number as f64),
            time: None,
            width,
            height: 100,
            image: None,
            restart: number == 1,
        }
    }

    fn batcher(size: usize) -> Batcher {
        let limits = BatchLimits {
            size,
            wait: Duration::from_millis(5),
            under_way: 2,
        };
        Batcher::new(limits, |f| (f.width as usize, f.height as usize))
    }

    fn shares(weights: &[f64], costs: &[f64]) -> Vec<f64> {
        let mut turns = Turns::default();
        weights
            .iter()
            .enumerate()
            .for_each(|(lane, &w)| turns.join(lane, w));
        let mut spent = vec![0.0; weights.len()];
        for _ in 0..3000 {
            let lane = turns.next(0..weights.len()).expect("all wait");
            turns.charge(lane, costs[lane]);
            spent[lane] += costs[lane];
        }
        let total: f64 = spent.iter().sum();
        spent.iter().map(|s| s / total).collect()
    }

    #[test]
    fn time_goes_by_weight_however_dear_the_frames() {
        for (share, want) in shares(&[1.0, 1.0, 2.0], &[0.01, 0.1, 0.02])
            .iter()
            .zip([0.25, 0.25, 0.5])
        {
            assert!((share - want).abs() < 0.01, "{share} where {want} is due");
        }
    }

    #[test]
    fn who_was_quiet_has_saved_up_nothing_and_waits_at_most_a_turn_of_each() {
        let mut turns = Turns::default();
        (0..3).for_each(|lane| turns.join(lane, 1.0));
        for _ in 0..500 {
            turns.next([0, 1].into_iter());
        }
        let order: Vec<Lane> = (0..9).filter_map(|_| turns.next(0..3)).collect();
        assert!(order[..3].contains(&2), "{order:?}");
        assert_eq!(order.iter().filter(|&&l| l == 2).count(), 3, "{order:?}");
    }

    #[test]
    fn the_newest_frame_wins_and_a_restart_is_not_lost_with_the_old_one() {
        let b = batcher(4);
        let lane = b.join(1.0);
        assert!(!b.offer(lane, frame(1, 100)));
        assert!(b.offer(lane, frame(2, 100)));
        let batch = b.next().expect("a batch");
        assert_eq!(
            batch
                .frames
                .iter()
                .map(|w| (w.frame.number, w.frame.restart))
                .collect::<Vec<_>>(),
            [(2, true)]
        );
    }

    #[test]
    fn a_batch_holds_one_frame_a_camera_of_one_input_size() {
        let b = batcher(4);
        let lanes: Vec<Lane> = (0..3).map(|_| b.join(1.0)).collect();
        for (&lane, width) in lanes.iter().zip([100, 200, 100]) {
            b.offer(lane, frame(5, width));
        }
        let of = |batch: Batch| batch.frames.iter().map(|w| w.lane).collect::<Vec<_>>();
        assert_eq!(of(b.next().expect("the first")), [lanes[0], lanes[2]]);
        assert_eq!(of(b.next().expect("the other size")), [lanes[1]]);
    }

    #[test]
    fn no_more_batches_are_under_way_than_allowed() {
        let b = std::sync::Arc::new(batcher(1));
        let lane = b.join(1.0);
        for n in 1..=2 {
            b.offer(lane, frame(n, 100));
            b.next().expect("room");
        }
        b.offer(lane, frame(3, 100));
        let other = b.clone();
        let third = std::thread::spawn(move || other.next());
        std::thread::sleep(Duration::from_millis(50));
        assert!(!third.is_finished());
        b.done(&[(lane, 0.01)]);
        assert_eq!(
            third.join().expect("no panic").expect("a batch").frames[0]
                .frame
                .number,
            3
        );
    }

    #[test]
    fn the_end_comes_after_the_last_frame_and_a_file_waits_for_room() {
        let b = std::sync::Arc::new(batcher(2));
        let lane = b.join(1.0);
        let feeder = b.clone();
        b.close();
        let feed = std::thread::spawn(move || {
            (1..=20).for_each(|n| assert!(feeder.offer_patiently(lane, frame(n, 100))));
            feeder.end(lane);
        });
        let (mut numbers, mut ended) = (Vec::new(), Vec::new());
        while let Some(batch) = b.next() {
            numbers.extend(batch.frames.iter().map(|w| w.frame.number));
            assert!(batch.ended.is_empty() || numbers.len() == 20);
            ended.extend(batch.ended);
            b.done(&[]);
        }
        feed.join().expect("no panic");
        assert_eq!(
            (numbers, ended),
            ((1..=20).collect::<Vec<u64>>(), vec![lane])
        );
    }
}
