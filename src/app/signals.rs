//! SIGINT (Ctrl-C) and SIGTERM. In a graceful phase the first signal starts a graceful shutdown and
//! a second one makes the program exit at once; in an abrupt phase the first one does so. A second
//! signal within [`SAME_SIGNAL`] does not make the program exit: `timeout` signals the process and
//! then its group, so one request arrives twice.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Exit codes of a run that a signal ended: 128 plus the signal's number, as in shells.
const INTERRUPTED: u8 = 130;
const TERMINATED: u8 = 143;
/// A signal within this time after the first one of a graceful phase does not make the program
/// exit; it only sets the exit code.
const SAME_SIGNAL: Duration = Duration::from_millis(500);

/// The signals received by a run. A run consists of phases, with or without graceful shutdown.
/// Clones share the state.
#[derive(Debug, Clone, Default)]
pub(crate) struct Signals(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// The exit code for the last signal; 0 before the first.
    last: AtomicU8,
    /// Time at which the first signal of this phase was received.
    first: Mutex<Option<Instant>>,
    /// Whether the first signal of this phase makes the program exit at once.
    at_once: AtomicBool,
    /// Cancelled by the first signal of this phase.
    stop: Mutex<CancellationToken>,
}

impl Signals {
    /// Handles signals from now on, until the async runtime ends.
    pub fn listen() -> Self {
        let signals = Signals::default();
        let shared = signals.clone();
        let (Ok(mut interrupt), Ok(mut terminate)) = (
            signal(SignalKind::interrupt()),
            signal(SignalKind::terminate()),
        ) else {
            tracing::error!("cannot handle signals, so Ctrl-C ends the program at once");
            return signals;
        };
        tokio::spawn(async move {
            loop {
                let code = tokio::select! {
                    _ = interrupt.recv() => INTERRUPTED,
                    _ = terminate.recv() => TERMINATED,
                };
                if shared.record(code, Instant::now()) {
                    eprintln!("stopped at once: unwritten results are lost");
                    std::process::exit(i32::from(code));
                }
            }
        });
        signals
    }

    /// Records a signal received `now`. Returns whether the program must exit at once.
    fn record(&self, code: u8, now: Instant) -> bool {
        self.0.last.store(code, Ordering::Relaxed);
        let mut first = self.0.first.lock().unwrap_or_else(PoisonError::into_inner);
        let repeated = first.is_some_and(|at| now.duration_since(at) > SAME_SIGNAL);
        first.get_or_insert(now);
        self.stop().cancel();
        repeated || self.0.at_once.load(Ordering::Relaxed)
    }

    /// The token that the first signal of this phase cancels.
    pub fn stop(&self) -> CancellationToken {
        self.0
            .stop
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Starts a phase in which the first signal makes the program exit at once.
    pub fn begin_abrupt_phase(&self) {
        self.0.at_once.store(true, Ordering::Relaxed);
    }

    /// Starts a phase with graceful shutdown. Returns the token that its first signal cancels.
    pub fn begin_graceful_phase(&self) -> CancellationToken {
        let stop = CancellationToken::new();
        self.0
            .stop
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone_from(&stop);
        *self.0.first.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.0.at_once.store(false, Ordering::Relaxed);
        stop
    }

    /// The exit code of a run that a signal has ended: 130 after SIGINT; after SIGTERM 0 if the
    /// work was `finished`, else 143. None without a signal.
    pub fn code(&self, finished: bool) -> Option<ExitCode> {
        match self.0.last.load(Ordering::Relaxed) {
            0 => None,
            TERMINATED if finished => Some(ExitCode::SUCCESS),
            code => Some(ExitCode::from(code)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_signal_of_a_phase_stops_gracefully_and_the_second_exits_at_once() {
        let signals = Signals::default();
        let (now, later) = (Instant::now(), Instant::now() + Duration::from_secs(1));
        let first = signals.stop();
        assert!(!signals.record(INTERRUPTED, now) && first.is_cancelled());
        assert!(signals.record(INTERRUPTED, later));
        let second = signals.begin_graceful_phase();
        assert!(!second.is_cancelled() && !signals.record(TERMINATED, later));
        assert!(second.is_cancelled());
        signals.begin_graceful_phase();
        signals.begin_abrupt_phase();
        assert!(signals.record(INTERRUPTED, now));
    }

    /// Regression: `timeout 3 twintrack …` lost results, because `timeout` signals the process and
    /// then its group.
    #[test]
    fn two_signals_within_milliseconds_are_one() {
        let signals = Signals::default();
        let now = Instant::now();
        assert!(!signals.record(TERMINATED, now));
        assert!(!signals.record(TERMINATED, now + Duration::from_millis(3)));
        assert!(signals.record(TERMINATED, now + Duration::from_secs(1)));
    }

    #[test]
    fn exit_codes_depend_on_the_signal_and_on_whether_the_work_was_finished() {
        let signals = Signals::default();
        assert!(signals.code(true).is_none() && signals.code(false).is_none());
        let actual = |finished| format!("{:?}", signals.code(finished));
        let code = |code: u8| format!("{:?}", Some(ExitCode::from(code)));
        signals.record(TERMINATED, Instant::now());
        assert_eq!((actual(true), actual(false)), (code(0), code(143)));
        signals.record(INTERRUPTED, Instant::now());
        assert_eq!((actual(true), actual(false)), (code(130), code(130)));
    }
}
