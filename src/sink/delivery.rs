//! A sink whose receiver is somewhere in the network: events go to a [`Spool`], and a courier on a thread of its own takes them on.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::sink::sink::{FrameResult, Sink, SinkError};
use crate::sink::spool::{Kept, Spool};
use crate::trajectory::EventKind;
use crate::trajectory::{EndedEvent, StatusEvent};

/// What a courier works with.
#[derive(Clone)]
pub struct Delivery {
    /// Where the events are.
    pub spool: Arc<Spool>,
    /// Cancelled when nothing new comes: what is there is still to be delivered.
    pub ending: CancellationToken,
}

/// Pauses between attempts at a spool whose disk fails, seconds: the first and the longest.
const DISK_PAUSE: (f64, f64) = (0.5, 10.0);
/// A courier that has been told to stop is waited for this much longer than it has, to let it end
/// by itself.
const GRACE: Duration = Duration::from_millis(500);

impl Delivery {
    /// The next events, as [`Spool::after`] gives them.
    pub async fn after(&self, place: i64, most: usize, bytes: usize) -> Vec<Kept> {
        self.insist("events cannot be read", || {
            self.spool.after(place, most, bytes)
        })
        .await
    }

    /// The receiver has these events. Returns when they have left the spool: until then nothing
    /// more is sent, or the receiver would get them again and again.
    pub async fn acknowledge(&self, places: &[i64]) {
        self.insist("delivered events cannot be removed", || {
            self.spool.acknowledge(places)
        })
        .await;
    }

    /// The receiver refuses this event for good. Returns when it has left the spool.
    pub async fn refuse(&self, place: i64, reason: &str) {
        self.insist("a refused event cannot be set aside", || {
            self.spool.refuse(place, reason)
        })
        .await;
    }

    /// Does `work` on the spool until it succeeds, with pauses.
    async fn insist<T>(&self, what: &str, work: impl Fn() -> Result<T, SinkError>) -> T {
        let mut pause = DISK_PAUSE.0;
        loop {
            match work() {
                Ok(done) => return done,
                Err(e) => {
                    self.spool.counts.failures.fetch_add(1, Ordering::Relaxed);
                    tracing::error!(sink = self.spool.name(), error = %e, "{what}; nothing is sent until the disk is well again");
                }
            }
            tokio::time::sleep(Duration::from_secs_f64(pause)).await;
            pause = (2.0 * pause).min(DISK_PAUSE.1);
        }
    }
}

/// The sink that fills the spool.
pub struct SpoolSink {
    errand: Delivery,
    wanted: Vec<EventKind>,
    /// Disconnected when the courier's thread has ended.
    courier: Option<(std::thread::JoinHandle<()>, Receiver<()>)>,
    patience: Duration,
    /// When the courier must have ended.
    deadline: Option<Instant>,
    body: Vec<u8>,
}

impl SpoolSink {
    /// Starts the courier. After the end it has `patience` to deliver what is left; the rest waits on disk for the next run.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start<F>(
        spool: Arc<Spool>,
        wanted: Vec<EventKind>,
        patience: Duration,
        courier: impl FnOnce(Delivery) -> F + Send + 'static,
    ) -> Result<Self, SinkError>
    where
        F: Future<Output = ()>,
    {
        let errand = Delivery {
            spool,
            ending: CancellationToken::new(),
        };
        let (mine, path) = (errand.clone(), errand.spool.name().to_string().into());
        let (alive, ended) = sync_channel::<()>(0);
        let work = move || {
            let _alive = alive; // dropped at the end, and in a panic too
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let Ok(runtime) = runtime else {
                tracing::error!(
                    sink = mine.spool.name(),
                    "no runtime for the courier: events wait on disk"
                );
                return;
            };
            let ending = mine.ending.clone();
            runtime.block_on(async {
                tokio::select! {
                    () = courier(mine.clone()) => {}
                    () = async { ending.cancelled().await; tokio::time::sleep(patience).await } => {
                        tracing::warn!(sink = mine.spool.name(), "events that could not be delivered wait for the next run");
                    }
                }
            });
        };
        let courier = std::thread::Builder::new()
            .name("courier".into())
            .spawn(work)
            .map_err(|source| SinkError::Create { path, source })?;
        Ok(SpoolSink {
            errand,
            wanted,
            courier: Some((courier, ended)),
            patience,
            deadline: None,
            body: Vec::new(),
        })
    }

    fn put(&mut self, kind: EventKind, camera: &str, event: &impl Serialize) {
        if !self.wanted.contains(&kind) {
            return;
        }
        self.body.clear();
        serde_json::to_writer(&mut self.body, event).expect("events hold nothing that JSON cannot");
        self.errand.spool.push(kind, camera, &self.body);
    }
}

impl Sink for SpoolSink {
    fn frame(&mut self, finished: &FrameResult) -> Result<(), SinkError> {
        self.put(
            EventKind::Trajectory,
            &finished.event.camera,
            &finished.event,
        );
        Ok(())
    }

    fn ended(&mut self, event: &EndedEvent) -> Result<(), SinkError> {
        self.put(EventKind::TrackEnded, &event.camera, event);
        Ok(())
    }

    fn status(&mut self, event: &StatusEvent) -> Result<(), SinkError> {
        self.put(EventKind::CameraStatus, &event.camera, event);
        Ok(())
    }

    fn close(&mut self) {
        self.errand.ending.cancel();
        self.deadline
            .get_or_insert_with(|| Instant::now() + self.patience + GRACE);
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        self.close();
        let (Some((courier, ended)), Some(deadline)) = (self.courier.take(), self.deadline) else {
            return Ok(());
        };
        if ended.recv_timeout(deadline.saturating_duration_since(Instant::now()))
            == Err(RecvTimeoutError::Timeout)
        {
            // It waits for an answer, or for the disk; it ends with the program.
            tracing::warn!(
                sink = self.errand.spool.name(),
                "the courier has not come back in time and is left behind; events wait on disk"
            );
        } else if courier.join().is_err() {
            tracing::error!(
                sink = self.errand.spool.name(),
                "the courier crashed; events wait on disk. This is a bug of twintrack, please report it"
            );
        }
        Ok(())
    }
}

impl Drop for SpoolSink {
    fn drop(&mut self) {
        let _ = self.finish(); // after an error elsewhere: it never fails
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::sink::spool::SpoolLimits;

    /// A courier that is held by a receiver or a disk: the end does not wait for it.
    #[test]
    fn a_courier_that_does_not_come_back_is_left_behind() {
        let dir = tempfile::tempdir().expect("a folder");
        let spool = Spool::open(dir.path(), "test", SpoolLimits::default()).expect("a spool");
        let mut sink = SpoolSink::start(
            spool,
            vec![EventKind::Trajectory],
            Duration::ZERO,
            |_| async {
                std::thread::sleep(Duration::from_secs(600)); // no await: nothing on its thread can interrupt it
            },
        )
        .expect("a thread");
        let (done, ended) = channel();
        std::thread::spawn(move || done.send(sink.finish().is_ok()));
        assert_eq!(ended.recv_timeout(Duration::from_secs(60)), Ok(true));
    }
}
