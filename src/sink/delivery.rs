//! The sink of a remote receiver: it writes events to a [`Spool`], from which a worker on its own
//! thread delivers them.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::range::{OutOfRange, within};
use crate::sink::backoff::Backoff;
use crate::sink::sink::{FrameResult, Sink, SinkError};
use crate::sink::spool::{QueuedEvent, Spool};
use crate::trajectory::{AnalyticsEvent, EndedEvent, EventKind, StatusEvent, WithJson};

/// A delivery worker's access to its spool. Disk errors are logged, counted and retried here.
#[derive(Clone)]
pub struct Delivery {
    /// The queue of events.
    pub spool: Arc<Spool>,
    /// Cancelled at shutdown, when the last event has been queued. The worker then delivers the
    /// queued events and returns.
    pub shutdown: CancellationToken,
}

/// Back-off, in seconds, between attempts at a spool whose disk fails: first and longest pause.
const DISK_BACKOFF: (f64, f64) = (0.5, 10.0);
/// After the shutdown timeout [`SpoolSink`] waits this much longer for its worker, so that the
/// worker can end by itself.
const GRACE: Duration = Duration::from_millis(500);

/// Checks the length of `events`, the kinds of events that a sink sends; `section` is the sink's
/// section in the configuration.
///
/// # Errors
/// When the list is empty, or longer than the number of kinds.
pub(super) fn check_events(section: &str, events: &[EventKind]) -> Result<(), OutOfRange> {
    let key = format!("{section}.events (how many)");
    within(&key, events.len(), 1, EventKind::ALL.len())
}

impl Delivery {
    /// The next events; see [`Spool::after`].
    pub async fn after(&self, position: i64, count: usize, bytes: usize) -> Vec<QueuedEvent> {
        self.retry("cannot read events", || {
            self.spool.after(position, count, bytes)
        })
        .await
    }

    /// Removes events that the receiver has acknowledged; see [`Spool::acknowledge`].
    pub fn acknowledge(&self, positions: &[i64]) {
        self.spool.acknowledge(positions);
    }

    /// Moves a refused event to the dead-letter file. Returns when the event has left the spool.
    pub async fn refuse(&self, position: i64, reason: &str) {
        self.retry("cannot read a refused event", || {
            self.spool.refuse(position, reason)
        })
        .await;
    }

    /// Runs `work` on the spool until it succeeds, with back-off.
    async fn retry<T>(&self, what: &str, work: impl Fn() -> Result<T, SinkError>) -> T {
        let mut backoff = Backoff::new(DISK_BACKOFF.0, DISK_BACKOFF.1);
        loop {
            match work() {
                Ok(done) => return done,
                Err(e) => {
                    self.spool.counts.failures.fetch_add(1, Ordering::Relaxed);
                    tracing::error!(
                        sink = self.spool.name(), error = %e,
                        "{what}; nothing is sent until the spool's disk works again"
                    );
                }
            }
            backoff.wait(None).await;
        }
    }
}

/// A sink that writes events to a spool and owns the worker that delivers them.
pub struct SpoolSink {
    delivery: Delivery,
    /// Kinds of events that are spooled; others are ignored.
    kinds: Vec<EventKind>,
    /// The worker's thread, and a channel that is disconnected when the thread has ended.
    worker: Option<(std::thread::JoinHandle<()>, Receiver<()>)>,
    shutdown_timeout: Duration,
    /// Deadline for waiting for the worker; set at shutdown.
    deadline: Option<Instant>,
}

impl SpoolSink {
    /// Starts the worker. At shutdown it delivers queued events for up to `shutdown_timeout`; the
    /// rest stays on disk for the next run.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start<F>(
        spool: Arc<Spool>,
        kinds: Vec<EventKind>,
        shutdown_timeout: Duration,
        worker: impl FnOnce(Delivery) -> F + Send + 'static,
    ) -> Result<Self, SinkError>
    where
        F: Future<Output = ()>,
    {
        let delivery = Delivery {
            spool,
            shutdown: CancellationToken::new(),
        };
        let (mine, path) = (delivery.clone(), delivery.spool.name().to_string().into());
        let (alive, ended) = sync_channel::<()>(0);
        let work = move || {
            let _alive = alive; // dropped when the thread ends, also after a panic
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let Ok(runtime) = runtime else {
                tracing::error!(
                    sink = mine.spool.name(),
                    "cannot start an async runtime for delivery; events stay on disk"
                );
                return;
            };
            let stop = async {
                mine.shutdown.cancelled().await;
                tokio::time::sleep(shutdown_timeout).await;
            };
            runtime.block_on(async {
                tokio::select! {
                    () = worker(mine.clone()) => {}
                    () = stop => tracing::warn!(
                        sink = mine.spool.name(),
                        "shutdown timeout: undelivered events stay on disk for the next run"
                    ),
                }
            });
        };
        let worker = std::thread::Builder::new()
            .name("delivery".into())
            .spawn(work)
            .map_err(|source| SinkError::Create { path, source })?;
        Ok(SpoolSink {
            delivery,
            kinds,
            worker: Some((worker, ended)),
            shutdown_timeout,
            deadline: None,
        })
    }

    fn push(&self, kind: EventKind, camera: &str, event: &WithJson<impl Serialize>) {
        if self.kinds.contains(&kind) {
            self.delivery
                .spool
                .push(kind, camera, event.json().as_bytes());
        }
    }
}

impl Sink for SpoolSink {
    fn needs_pixels(&self) -> bool {
        false
    }

    fn frame(&mut self, finished: &FrameResult) -> Result<(), SinkError> {
        self.push(
            EventKind::Trajectory,
            &finished.event.camera,
            &finished.event,
        );
        Ok(())
    }

    fn ended(&mut self, event: &WithJson<EndedEvent>) -> Result<(), SinkError> {
        self.push(EventKind::TrackEnded, &event.camera, event);
        Ok(())
    }

    fn analytics(&mut self, event: &WithJson<AnalyticsEvent>) -> Result<(), SinkError> {
        self.push(event.kind(), event.camera(), event);
        Ok(())
    }

    fn status(&mut self, event: &WithJson<StatusEvent>) -> Result<(), SinkError> {
        self.push(EventKind::CameraStatus, &event.camera, event);
        Ok(())
    }

    fn close(&mut self) {
        self.delivery.shutdown.cancel();
        self.deadline
            .get_or_insert_with(|| Instant::now() + self.shutdown_timeout + GRACE);
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        self.close();
        let (Some((worker, ended)), Some(deadline)) = (self.worker.take(), self.deadline) else {
            return Ok(());
        };
        if ended.recv_timeout(deadline.saturating_duration_since(Instant::now()))
            == Err(RecvTimeoutError::Timeout)
        {
            // The worker is blocked by the receiver or the disk; its thread is left running until
            // the process exits.
            tracing::warn!(
                sink = self.delivery.spool.name(),
                "delivery did not stop in time and is abandoned; events stay on disk"
            );
        } else if worker.join().is_err() {
            tracing::error!(
                sink = self.delivery.spool.name(),
                "delivery panicked; events stay on disk. This is a bug in twintrack, \
                 please report it"
            );
        }
        Ok(())
    }
}

impl Drop for SpoolSink {
    fn drop(&mut self) {
        let _ = self.finish(); // never fails; a second call does nothing
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::sink::spool::SpoolLimits;

    #[test]
    fn finish_returns_at_the_deadline_when_the_worker_is_blocked() {
        let dir = tempfile::tempdir().expect("a folder");
        let spool = Spool::open(dir.path(), "test", SpoolLimits::default()).expect("a spool");
        let mut sink = SpoolSink::start(
            spool,
            vec![EventKind::Trajectory],
            Duration::ZERO,
            |_| async {
                std::thread::sleep(Duration::from_secs(600)); // blocks its async runtime too
            },
        )
        .expect("a thread");
        let (done, ended) = channel();
        std::thread::spawn(move || done.send(sink.finish().is_ok()));
        assert_eq!(ended.recv_timeout(Duration::from_secs(60)), Ok(true));
    }
}
