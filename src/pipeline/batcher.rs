//! Collects the cameras' frames into batches for the networks.
//!
//! Each camera has a slot. The slot of a live camera holds one frame, which the camera's next frame
//! replaces, so that latency cannot grow. The slot of a recording holds as many frames as may share
//! a batch, and the reader waits for room in the slot (backpressure).

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
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
    /// Time at which the frame was decoded.
    pub arrived: Instant,
}

/// Frames for the networks.
#[derive(Debug, Default)]
pub struct Batch {
    /// Frames that can share a batch; those of a recording in their order.
    pub frames: Vec<Waiting>,
    /// Cameras that have ended, with their names: no frame of theirs follows.
    pub ended: Vec<(Lane, Arc<str>)>,
}

#[derive(Debug, Default)]
struct Slot {
    waiting: VecDeque<(Frame, Instant)>,
    offered: Option<Instant>,
    /// Name of the camera, if it has ended.
    ended: Option<Arc<str>>,
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
    /// Maximum time that a frame waits for others.
    pub wait: Duration,
    /// Maximum number of batches in progress; more would only add latency.
    pub in_progress: usize,
    /// Maximum number of frames of one recording in a batch.
    pub per_recording: usize,
}

/// Passes frames from the readers' threads to the stages. Shared by all of them.
pub struct Batcher {
    state: Mutex<State>,
    changed: Condvar,
    limits: BatchLimits,
    /// What frames must have in common to share a batch.
    key: KeyOf,
}

/// Key of frames that can share a batch: the size of the detector's input and, if frames are
/// prepared on the detector's device, the size of the frames. Sizes are width and height in pixels.
pub type BatchKey = [(usize, usize); 2];

type KeyOf = Box<dyn Fn(&Frame) -> BatchKey + Send + Sync>;

/// Time without a frame of a camera after which no batch waits for the camera.
const QUIET: Duration = Duration::from_secs(1);

impl Batcher {
    /// A batcher without cameras.
    pub fn new(
        limits: BatchLimits,
        key: impl Fn(&Frame) -> BatchKey + Send + Sync + 'static,
    ) -> Self {
        Batcher {
            state: Mutex::default(),
            changed: Condvar::new(),
            limits,
            key: Box::new(key),
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
        self.lock().slots.values().map(|s| s.waiting.len()).sum()
    }

    /// Puts a frame into its camera's slot. Returns whether it replaced a waiting frame, which is
    /// dropped. A frame of a camera without a slot is ignored.
    pub fn offer(&self, lane: Lane, frame: Frame) -> bool {
        let mut state = self.lock();
        let Some(slot) = state.slots.get_mut(&lane) else {
            return false;
        };
        let now = Instant::now();
        slot.offered = Some(now);
        let mut frame = frame;
        // The new frame takes over the restart mark; otherwise the tracker would not end its tracks
        // after an interruption.
        frame.restart |= slot.waiting.iter().any(|(old, _)| old.restart);
        let replaces = !slot.waiting.is_empty();
        slot.waiting.clear();
        slot.waiting.push_back((frame, now));
        self.changed.notify_all();
        replaces
    }

    /// Puts a frame into its recording's slot, waiting until there is room. Returns `false` if the
    /// recording was ended or the run abandoned.
    pub fn offer_patiently(&self, lane: Lane, frame: Frame) -> bool {
        let full = |s: &Slot| s.waiting.len() >= self.limits.per_recording;
        let mut state = self.lock();
        while state.slots.get(&lane).is_some_and(full) {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let Some(slot) = state.slots.get_mut(&lane) else {
            return false;
        };
        let now = Instant::now();
        slot.offered = Some(now);
        slot.waiting.push_back((frame, now));
        self.changed.notify_all();
        true
    }

    /// Ends a camera. Its waiting frames are still processed.
    pub fn end(&self, lane: Lane, camera: &Arc<str>) {
        if let Some(slot) = self.lock().slots.get_mut(&lane) {
            slot.ended = Some(camera.clone());
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

    /// Waits for the next batch: a full one; one with at least as many frames as cameras have
    /// delivered in the last second; or what there is when the oldest frame has waited for
    /// [`BatchLimits::wait`], or a camera has ended. `None` once [`Batcher::close`] was called and
    /// all cameras have ended.
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
                    .filter_map(|s| s.waiting.front())
                    .map(|w| w.1)
                    .min();
                let waiting: usize = state.slots.values().map(|s| s.waiting.len()).sum();
                let expected = state
                    .slots
                    .values()
                    .filter(|s| s.ended.is_none() && s.offered.is_some_and(|at| now - at < QUIET))
                    .count();
                let due = oldest.map(|at| (at + self.limits.wait).saturating_duration_since(now));
                if waiting >= self.limits.size.min(expected.max(1))
                    || due == Some(Duration::ZERO)
                    || state.slots.values().any(|s| s.ended.is_some())
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
        let mut key = None;
        while frames.len() < self.limits.size {
            let State { queue, slots, .. } = state;
            let taken = |lane: Lane| frames.iter().filter(|w| w.lane == lane).count();
            let fits = |lane: Lane, s: &Slot| {
                taken(lane) < self.limits.per_recording
                    && s.waiting
                        .front()
                        .is_some_and(|(f, _)| key.is_none_or(|key| key == (self.key)(f)))
            };
            let fitting: Vec<Lane> = slots
                .iter()
                .filter(|&(&lane, s)| fits(lane, s))
                .map(|(&lane, _)| lane)
                .collect();
            // Every camera's first frame comes before any recording's second.
            let fewest = fitting.iter().map(|&lane| taken(lane)).min();
            let next = fitting
                .into_iter()
                .filter(|&lane| Some(taken(lane)) == fewest);
            let Some(lane) = queue.next(next) else {
                break;
            };
            let Some((frame, arrived)) = slots.get_mut(&lane).and_then(|s| s.waiting.pop_front())
            else {
                break;
            };
            key = Some((self.key)(&frame));
            frames.push(Waiting {
                lane,
                frame,
                arrived,
            });
        }
        let ended: Vec<(Lane, Arc<str>)> = state
            .slots
            .iter()
            .filter(|(_, s)| s.waiting.is_empty())
            .filter_map(|(&lane, s)| Some((lane, s.ended.clone()?)))
            .collect();
        for (lane, _) in &ended {
            state.slots.remove(lane);
            state.queue.remove(*lane);
        }
        Batch { frames, ended }
    }

    /// A batch is done. `costs`: seconds of network time of each of its frames.
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
        batcher_of(size, 1)
    }

    fn batcher_of(size: usize, per_recording: usize) -> Batcher {
        let limits = BatchLimits {
            size,
            wait: Duration::from_millis(5),
            in_progress: 2,
            per_recording,
        };
        Batcher::new(limits, |f| [(f.width as usize, f.height as usize), (0, 0)])
    }

    #[test]
    fn successive_frames_of_recordings_share_a_batch_in_order_and_in_equal_numbers() {
        let b = batcher_of(5, 4);
        let lanes = [b.join(1.0), b.join(1.0)];
        for n in 1..=4 {
            assert!(b.offer_patiently(lanes[0], frame(n, 100)));
        }
        for (n, width) in [(1, 100), (2, 100), (3, 200)] {
            assert!(b.offer_patiently(lanes[1], frame(n, width)));
        }
        let of = |batch: &Batch, lane: Lane| {
            let frames = batch.frames.iter().filter(|w| w.lane == lane);
            frames.map(|w| w.frame.number).collect::<Vec<_>>()
        };
        let first = b.next().expect("a full batch");
        let mut numbers = [of(&first, lanes[0]), of(&first, lanes[1])];
        assert_eq!(numbers, [vec![1, 2, 3], vec![1, 2]]);
        for _ in 0..2 {
            b.done(&[]);
            let rest = b.next().expect("a batch of one of the sizes that are left");
            assert_eq!(rest.frames.len(), 1);
            (0..2).for_each(|i| numbers[i].extend(of(&rest, lanes[i])));
        }
        assert_eq!(numbers, [vec![1, 2, 3, 4], vec![1, 2, 3]]);
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
            feeder.end(lane, &"cam".into());
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
            ((1..=20).collect::<Vec<u64>>(), vec![(lane, "cam".into())])
        );
    }
}
