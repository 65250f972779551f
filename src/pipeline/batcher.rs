//! Collects the cameras' frames into batches for the networks.
//!
//! Each camera has a slot for one frame. A live camera's new frame replaces a waiting one, so that
//! latency cannot grow; a recording's reader waits for the slot instead (backpressure).

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::frame::Frame;
use crate::pipeline::fair_queue::FairQueue;
pub use crate::pipeline::fair_queue::Lane;

/// A frame in its slot.
#[derive(Debug)]
pub struct Waiting {
    /// The camera.
    pub lane: Lane,
    /// The frame.
    pub frame: Frame,
    /// When it was decoded.
    pub arrived: Instant,
}

/// Frames for the networks.
#[derive(Debug, Default)]
pub struct Batch {
    /// Frames of one input size, at most one per camera.
    pub frames: Vec<Waiting>,
    /// Cameras that have ended: no frame of theirs follows.
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
    queue: FairQueue,
    slots: BTreeMap<Lane, Slot>,
    next_lane: Lane,
    /// Batches taken and not yet done.
    in_progress: usize,
    closed: bool,
}

/// Limits on batches.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BatchLimits {
    /// Maximum number of frames in a batch.
    pub size: usize,
    /// A frame waits at most this long for others.
    pub wait: Duration,
    /// Maximum number of batches in progress; more would only add latency.
    pub in_progress: usize,
}

/// Passes frames from the readers' threads to the stages. Shared by all of them.
pub struct Batcher {
    state: Mutex<State>,
    changed: Condvar,
    limits: BatchLimits,
    /// The detector's input size for a frame. Only frames of one input size share a batch.
    input: InputOf,
}

/// (width, height) of a frame to (width, height) of the detector's input.
type InputOf = Box<dyn Fn(&Frame) -> (usize, usize) + Send + Sync>;

/// A batch does not wait for cameras that gave no frame for this long.
const QUIET: Duration = Duration::from_secs(1);

impl Batcher {
    /// A batcher without cameras.
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
        // No code that can panic runs under the lock while the state is half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a camera.
    pub fn join(&self, weight: f64) -> Lane {
        let mut state = self.lock();
        let lane = state.next_lane;
        state.next_lane += 1;
        state.queue.add(lane, weight);
        state.slots.insert(lane, Slot::default());
        lane
    }

    /// Changes a camera's weight.
    pub fn set_weight(&self, lane: Lane, weight: f64) {
        self.lock().queue.set_weight(lane, weight);
    }

    /// Number of waiting frames.
    pub fn waiting(&self) -> usize {
        self.lock()
            .slots
            .values()
            .filter(|s| s.waiting.is_some())
            .count()
    }

    /// Puts a frame into its camera's slot. Returns whether it replaced a waiting frame, which is
    /// dropped.
    pub fn offer(&self, lane: Lane, frame: Frame) -> bool {
        let mut state = self.lock();
        let Some(slot) = state.slots.get_mut(&lane) else {
            return false;
        };
        let now = Instant::now();
        slot.offered = Some(now);
        let old = slot.waiting.replace((frame, now));
        // The new frame takes over the restart mark; otherwise the tracker would not end its tracks
        // after an interruption.
        if let (Some((old, _)), Some((new, _))) = (&old, &mut slot.waiting) {
            new.restart |= old.restart;
        }
        self.changed.notify_all();
        old.is_some()
    }

    /// Puts a frame into its camera's slot, waiting until it is free. Returns `false` if the camera
    /// was ended or the run abandoned.
    pub fn offer_patiently(&self, lane: Lane, frame: Frame) -> bool {
        let mut state = self.lock();
        while state.slots.get(&lane).is_some_and(|s| s.waiting.is_some()) {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let there = state.slots.contains_key(&lane);
        drop(state); // no other thread fills this slot
        there && !self.offer(lane, frame)
    }

    /// Ends a camera. Its waiting frame is still processed.
    pub fn end(&self, lane: Lane) {
        if let Some(slot) = self.lock().slots.get_mut(&lane) {
            slot.ended = true;
        }
        self.changed.notify_all();
    }

    /// No camera will be added: [`Batcher::next`] ends after the last camera.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Drops all frames and ends all cameras, because no stage takes batches any more.
    pub fn abandon(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.slots.clear();
        self.changed.notify_all();
    }

    /// Waits for the next batch: a full one, or what there is when its oldest frame has waited for
    /// the limit. `None` at the end.
    pub fn next(&self) -> Option<Batch> {
        let mut state = self.lock();
        loop {
            if state.closed && state.slots.is_empty() {
                return None;
            }
            let now = Instant::now();
            let mut pause = Duration::from_millis(500);
            if state.in_progress < self.limits.in_progress {
                let oldest = state
                    .slots
                    .values()
                    .filter_map(|s| s.waiting.as_ref())
                    .map(|w| w.1)
                    .min();
                let waiting = state.slots.values().filter(|s| s.waiting.is_some()).count();
                let expected = state
                    .slots
                    .values()
                    .filter(|s| !s.ended && s.offered.is_some_and(|at| now - at < QUIET))
                    .count();
                let due = oldest.map(|at| (at + self.limits.wait).saturating_duration_since(now));
                if waiting >= self.limits.size.min(expected.max(1))
                    || due == Some(Duration::ZERO)
                    || state.slots.values().any(|s| s.ended)
                {
                    let batch = self.take(&mut state);
                    if !(batch.frames.is_empty() && batch.ended.is_empty()) {
                        state.in_progress += 1;
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
            let State { queue, slots, .. } = state;
            let fits = |s: &Slot| {
                s.waiting
                    .as_ref()
                    .is_some_and(|(f, _)| size.is_none_or(|size| size == (self.input)(f)))
            };
            let Some(lane) =
                queue.next(slots.iter().filter(|(_, s)| fits(s)).map(|(&lane, _)| lane))
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
            state.queue.remove(*lane);
        }
        Batch { frames, ended }
    }

    /// A batch is done. `costs`: network time of its frames, seconds.
    pub fn done(&self, costs: &[(Lane, f64)]) {
        let mut state = self.lock();
        state.in_progress -= 1;
        costs
            .iter()
            .for_each(|&(lane, cost)| state.queue.charge(lane, cost));
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
            in_progress: 2,
        };
        Batcher::new(limits, |f| (f.width as usize, f.height as usize))
    }

    #[test]
    fn the_newest_frame_replaces_a_waiting_one_and_keeps_its_restart_mark() {
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
    fn a_batch_holds_one_frame_per_camera_of_one_input_size() {
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
    fn the_number_of_batches_in_progress_is_limited() {
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
    fn a_recording_waits_for_its_slot_and_ends_after_its_last_frame() {
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
