//! The bounded queue between the sink and the writer. A full queue never makes the sink wait.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::store::rows::Change;

/// Most changes in the queue.
const MAX_CHANGES: usize = 20_000;
/// Most bytes of the changes in the queue.
const MAX_BYTES: usize = 64 << 20;

#[derive(Debug, Default)]
struct State {
    changes: VecDeque<Change>,
    bytes: usize,
    /// Number of changes accepted so far.
    accepted: u64,
    /// Number of changes that the writer has committed or given up so far.
    settled: u64,
    /// Whether `flush` waits; the writer then does not wait for a larger batch.
    hurry: bool,
    closed: bool,
}

/// The queue.
#[derive(Debug, Default)]
pub struct Queue {
    state: Mutex<State>,
    /// Notified when a change is pushed, the queue is closed, or `flush` begins to wait.
    pushed: Condvar,
    /// Notified when changes are settled.
    settled: Condvar,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a change; returns whether there was room for it. The second half of the queue is
    /// reserved for changes that are not mere progress.
    pub fn push(&self, change: Change) -> bool {
        let mut state = self.lock();
        let share = if change.is_progress() { 2 } else { 1 };
        let bytes = change.bytes();
        if state.closed
            || state.changes.len() >= MAX_CHANGES / share
            || state.bytes + bytes > MAX_BYTES / share
        {
            return false;
        }
        state.bytes += bytes;
        state.accepted += 1;
        state.changes.push_back(change);
        drop(state);
        self.pushed.notify_one();
        true
    }

    /// Whether the queue is less than half full, so that changes of many threads fit.
    pub fn has_room(&self) -> bool {
        let state = self.lock();
        state.changes.len() < MAX_CHANGES / 2 && state.bytes < MAX_BYTES / 2
    }

    /// Takes up to `most` changes; after the first has come, waits up to `gather` for more. Returns
    /// an empty list if no change comes within `idle`, or when the queue is closed and empty.
    pub fn take(&self, most: usize, gather: Duration, idle: Duration) -> Vec<Change> {
        let mut state = self.wait(self.lock(), idle, |s| s.changes.is_empty() && !s.closed);
        if !state.changes.is_empty() {
            state = self.wait(state, gather, |s| {
                s.changes.len() < most && !s.closed && !s.hurry
            });
        }
        let n = state.changes.len().min(most);
        let taken: Vec<Change> = state.changes.drain(..n).collect();
        state.bytes -= taken.iter().map(Change::bytes).sum::<usize>();
        taken
    }

    fn wait<'a>(
        &self,
        state: MutexGuard<'a, State>,
        timeout: Duration,
        condition: impl Fn(&State) -> bool,
    ) -> MutexGuard<'a, State> {
        let waited = self
            .pushed
            .wait_timeout_while(state, timeout, |s| condition(s));
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Records that `n` changes are committed or given up.
    pub fn settle(&self, n: usize) {
        let mut state = self.lock();
        state.settled += n as u64;
        state.hurry &= state.settled < state.accepted;
        drop(state);
        self.settled.notify_all();
    }

    /// Waits until all changes pushed so far are settled; returns whether they are.
    pub fn flush(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut state = self.lock();
        let target = state.accepted;
        state.hurry = state.settled < target;
        self.pushed.notify_one();
        while state.settled < target {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.settled.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Closes the queue: no change is accepted any more.
    pub fn close(&self) {
        self.lock().closed = true;
        self.pushed.notify_one();
    }

    /// Whether the queue is closed and empty.
    pub fn is_over(&self) -> bool {
        let state = self.lock();
        state.closed && state.changes.is_empty()
    }

    /// Number of changes that are accepted and not settled.
    pub fn waiting(&self) -> u64 {
        let state = self.lock();
        state.accepted - state.settled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::CameraState;
    use crate::store::rows::{TrackRow, timestamp};
    use crate::trajectory::{RunId, StatusEvent};

    fn status() -> Change {
        let (run, camera) = (RunId::nil(), "gate".into());
        Change::Status(StatusEvent::at(
            timestamp(0),
            run,
            camera,
            CameraState::Online,
            None,
        ))
    }

    fn progress() -> Change {
        Change::Track(Box::new(TrackRow {
            began: timestamp(0),
            run: RunId::nil(),
            camera: "gate".into(),
            track: 1,
            pts: (0.0, 1.0),
            time: (timestamp(0), timestamp(1000)),
            clock: None,
            hits: 1,
            ended: false,
            frame: (1, 1),
            path: None,
            path_error: None,
            boxes: Vec::new(),
            identity: None,
            embedder: None,
            embedding: None,
            crops: Vec::new(),
        }))
    }

    #[test]
    fn progress_leaves_half_of_the_queue_to_other_changes() {
        let queue = Queue::default();
        let progressed = (0..MAX_CHANGES).filter(|_| queue.push(progress())).count();
        assert_eq!(progressed, MAX_CHANGES / 2);
        let others = (0..MAX_CHANGES).filter(|_| queue.push(status())).count();
        assert_eq!(others, MAX_CHANGES / 2);
        assert_eq!(queue.waiting(), MAX_CHANGES as u64);
    }

    #[test]
    fn flush_waits_for_what_was_pushed_before_it() {
        let queue = Queue::default();
        assert!(queue.flush(Duration::ZERO), "nothing to wait for");
        queue.push(status());
        assert!(!queue.flush(Duration::ZERO));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // `flush` waits, so that the batch is not waited for.
                let long = Duration::from_secs(3600);
                let taken = queue.take(10, long, long);
                queue.settle(taken.len());
            });
            assert!(queue.flush(Duration::from_secs(60)));
        });
        queue.close();
        assert!(!queue.push(status()));
        assert!(queue.is_over());
    }
}
