//! JSON lines to standard output. A bounded queue and a separate thread prevent a slow or stopped
//! reader from blocking the pipeline.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::sink::sink::{FrameResult, LineWriter, Sink, SinkError};
use crate::trajectory::{AnalyticsEvent, EndedEvent, StatusEvent, WithJson};

/// Capacity of the queue in lines. When the queue is full, trajectory events are dropped and
/// counted; other events are held in memory until there is room.
const QUEUE_LINES: usize = 1024;

/// A sink that never waits for its reader, except at shutdown.
pub struct StdoutSink {
    /// The queue; None once it is closed.
    lines: Option<SyncSender<Arc<str>>>,
    /// Lines that must not be dropped and did not fit into the queue.
    held: VecDeque<Arc<str>>,
    with_ended: bool,
    dropped: Arc<AtomicU64>,
    /// Delivers the error with which the writer thread has ended; disconnected when the thread has
    /// ended.
    errors: Receiver<SinkError>,
    shutdown_timeout: Duration,
    /// Time at which to stop waiting for the reader; set by [`Sink::close`].
    deadline: Option<Instant>,
}

impl StdoutSink {
    /// Starts the writer thread. At shutdown, queued lines are written for up to
    /// `shutdown_timeout`. Also returns the counter of dropped lines.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn stdout(
        with_ended: bool,
        shutdown_timeout: Duration,
    ) -> Result<(Self, Arc<AtomicU64>), SinkError> {
        Self::with_writer(LineWriter::stdout(), with_ended, shutdown_timeout)
    }

    fn with_writer(
        mut out: LineWriter,
        with_ended: bool,
        shutdown_timeout: Duration,
    ) -> Result<(Self, Arc<AtomicU64>), SinkError> {
        let (lines, queue) = sync_channel::<Arc<str>>(QUEUE_LINES);
        let (error, errors) = sync_channel(1);
        let work = move || {
            for line in queue {
                if let Err(e) = out.write(line.as_bytes()) {
                    let _ = error.send(e); // returned by the next call of the sink
                    return;
                }
            }
        };
        let create = |source| SinkError::Create {
            path: Path::new("standard output").into(),
            source,
        };
        std::thread::Builder::new()
            .name("output".into())
            .spawn(work)
            .map_err(create)?;
        let dropped = Arc::<AtomicU64>::default();
        Ok((
            StdoutSink {
                lines: Some(lines),
                held: VecDeque::new(),
                with_ended,
                dropped: dropped.clone(),
                errors,
                shutdown_timeout,
                deadline: None,
            },
            dropped,
        ))
    }

    /// Queues an event. If the queue is full or lines are held, the event is held in memory if it
    /// is `required`, and dropped otherwise.
    fn push(&mut self, event: &WithJson<impl Serialize>, required: bool) -> Result<(), SinkError> {
        let line = event.line().clone();
        self.queue_held();
        if required {
            self.held.push_back(line);
            self.queue_held();
        } else if !self.held.is_empty()
            || self
                .lines
                .as_ref()
                .is_none_or(|lines| lines.try_send(line).is_err())
        {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        self.errors.try_recv().map_or(Ok(()), Err)
    }

    /// Moves held lines to the queue while it has room.
    fn queue_held(&mut self) {
        let Some(lines) = &self.lines else { return };
        while let Some(line) = self.held.pop_front() {
            if let Err(TrySendError::Full(line) | TrySendError::Disconnected(line)) =
                lines.try_send(line)
            {
                self.held.push_front(line);
                return;
            }
        }
    }
}

impl Sink for StdoutSink {
    fn needs_pixels(&self) -> bool {
        false
    }

    fn frame(&mut self, finished: &FrameResult) -> Result<(), SinkError> {
        self.push(&finished.event, false)
    }

    fn ended(&mut self, event: &WithJson<EndedEvent>) -> Result<(), SinkError> {
        if self.with_ended {
            self.push(event, true)
        } else {
            Ok(())
        }
    }

    fn analytics(&mut self, event: &WithJson<AnalyticsEvent>) -> Result<(), SinkError> {
        self.push(event, true)
    }

    fn status(&mut self, event: &WithJson<StatusEvent>) -> Result<(), SinkError> {
        self.push(event, true)
    }

    fn close(&mut self) {
        self.deadline
            .get_or_insert_with(|| Instant::now() + self.shutdown_timeout);
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        match self.drain() {
            Drained::Ended => Ok(()),
            Drained::Failed(error) => Err(error),
            Drained::Unread => {
                tracing::warn!(
                    held = self.held.len(),
                    "the reader of standard output did not read the last events in time"
                );
                Ok(())
            }
        }
    }
}

/// Result of writing the last lines.
#[derive(Debug)]
enum Drained {
    /// The writer thread has ended: it has written all lines, or its error was returned before.
    Ended,
    /// A line could not be written.
    Failed(SinkError),
    /// The reader did not read all lines in time.
    Unread,
}

impl StdoutSink {
    /// Writes the queued and held lines, until the deadline.
    fn drain(&mut self) -> Drained {
        let deadline = *self
            .deadline
            .get_or_insert_with(|| Instant::now() + self.shutdown_timeout);
        // The queue is closed when no line is held. A writer thread that the reader still blocks at
        // the deadline is left running until the process exits.
        let drained = loop {
            self.queue_held();
            if self.held.is_empty() {
                self.lines = None;
            }
            match self.errors.recv_timeout(Duration::from_millis(10)) {
                Ok(error) => break Drained::Failed(error),
                Err(RecvTimeoutError::Disconnected) => break Drained::Ended,
                Err(RecvTimeoutError::Timeout) if Instant::now() >= deadline => {
                    break Drained::Unread;
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        };
        self.lines = None;
        drained
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::frame::CameraState;
    use crate::trajectory::RunId;

    /// A writer that fails, and delays the end of the writer thread.
    struct Broken;

    impl io::Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Drop for Broken {
        fn drop(&mut self) {
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// Regression: after a write error the log also reported that the reader did not read in time.
    #[test]
    fn a_write_error_is_not_taken_for_a_slow_reader() {
        let out = LineWriter::unbuffered("a pipe", Box::new(Broken));
        let minute = Duration::from_secs(60);
        let (mut sink, _) = StdoutSink::with_writer(out, true, minute).expect("a thread");
        let (run, time) = (RunId::nil(), crate::clock::now());
        let event = StatusEvent::at(time, run, "gate".into(), CameraState::Online, None);
        // This call may already return the error.
        let early = sink.status(&event.into());
        assert!(early.is_err() || matches!(sink.drain(), Drained::Failed(_)));
    }
}
