//! JSON lines to a reader who may be slow, or stop: standard output, on a thread of its own.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::sink::sink::{FrameResult, LineWriter, Sink, SinkError};
use crate::trajectory::{EndedEvent, StatusEvent};

/// So many lines wait for the reader. Then frames' lines are lost, and counted; others wait longer.
const WAITING: usize = 1024;

/// A sink that never waits for its reader.
pub struct StdoutSink {
    lines: Option<SyncSender<Vec<u8>>>,
    /// Lines that are not to be lost.
    held: VecDeque<Vec<u8>>,
    with_ended: bool,
    lost: Arc<AtomicU64>,
    failed: Receiver<SinkError>,
    writer: Option<JoinHandle<()>>,
    patience: Duration,
    /// Until when the reader may take what waits.
    deadline: Option<Instant>,
}

impl StdoutSink {
    /// To standard output. At the end the reader has `patience` to take what waits. The count of lost lines is given back beside.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn stdout(
        with_ended: bool,
        patience: Duration,
    ) -> Result<(Self, Arc<AtomicU64>), SinkError> {
        Self::to(LineWriter::stdout(), with_ended, patience)
    }

    fn to(
        mut out: LineWriter,
        with_ended: bool,
        patience: Duration,
    ) -> Result<(Self, Arc<AtomicU64>), SinkError> {
        let (lines, waiting) = sync_channel::<Vec<u8>>(WAITING);
        let (fail, failed) = sync_channel(1);
        let work = move || {
            for line in waiting {
                if let Err(e) = out.write(&line) {
                    let _ = fail.send(e); // asked for at the next line
                    return;
                }
            }
        };
        let create = |source| SinkError::Create {
            path: Path::new("standard output").into(),
            source,
        };
        let writer = std::thread::Builder::new()
            .name("output".into())
            .spawn(work)
            .map_err(create)?;
        let lost = Arc::<AtomicU64>::default();
        Ok((
            StdoutSink {
                lines: Some(lines),
                held: VecDeque::new(),
                with_ended,
                lost: lost.clone(),
                failed,
                writer: Some(writer),
                patience,
                deadline: None,
            },
            lost,
        ))
    }

    fn put(&mut self, event: &impl Serialize, dear: bool) -> Result<(), SinkError> {
        let mut line = serde_json::to_vec(event).expect("events hold nothing that JSON cannot");
        line.push(b'\n');
        self.release();
        if dear {
            self.held.push_back(line);
            self.release();
        } else if !self.held.is_empty()
            || self
                .lines
                .as_ref()
                .is_none_or(|lines| lines.try_send(line).is_err())
        {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        self.failed.try_recv().map_or(Ok(()), Err)
    }

    /// Hands on what is held, as far as there is room.
    fn release(&mut self) {
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
    fn frame(&mut self, finished: &FrameResult) -> Result<(), SinkError> {
        self.put(&finished.event, false)
    }

    fn ended(&mut self, event: &EndedEvent) -> Result<(), SinkError> {
        if self.with_ended {
            self.put(event, true)
        } else {
            Ok(())
        }
    }

    fn status(&mut self, event: &StatusEvent) -> Result<(), SinkError> {
        self.put(event, true)
    }

    fn close(&mut self) {
        self.deadline
            .get_or_insert_with(|| Instant::now() + self.patience);
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        let deadline = *self
            .deadline
            .get_or_insert_with(|| Instant::now() + self.patience);
        let mut error = self.failed.try_recv().ok();
        while error.is_none() && !self.held.is_empty() && Instant::now() < deadline {
            self.release();
            error = self.failed.recv_timeout(Duration::from_millis(10)).ok();
        }
        self.lines = None;
        while error.is_none()
            && self.writer.as_ref().is_some_and(|w| !w.is_finished())
            && Instant::now() < deadline
        {
            match self.failed.recv_timeout(Duration::from_millis(10)) {
                Ok(e) => error = Some(e),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
        // A writer that still waits for its reader ends with the program.
        if let Some(writer) = self.writer.take().filter(JoinHandle::is_finished) {
            let _ = writer.join(); // it does not panic
        } else {
            tracing::warn!(
                held = self.held.len(),
                "the reader of standard output did not take the last events"
            );
        }
        error.map_or(Ok(()), Err)
    }
}
