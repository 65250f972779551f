//! SIGINT (Ctrl-C) and SIGTERM: the first ends the run in good order, the second ends it at once.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Exit codes of a run that a signal ended: 128 and the signal's number, as shells have it.
const INTERRUPTED: u8 = 130;
const TERMINATED: u8 = 143;

/// The signals of a run. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Signals(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// The exit code that the last signal stands for; 0 before any.
    last: AtomicU8,
    /// Signals in this part of the run.
    count: AtomicU32,
    /// This part of the run cannot end in good order.
    at_once: AtomicBool,
    stop: Mutex<CancellationToken>,
}

impl Signals {
    /// Listens from now on, for as long as the async runtime lives.
    pub fn listen() -> Self {
        let me = Signals::default();
        let heard = me.clone();
        let (Ok(mut interrupt), Ok(mut terminate)) = (
            signal(SignalKind::interrupt()),
            signal(SignalKind::terminate()),
        ) else {
            tracing::error!("signals cannot be listened for: Ctrl-C ends the program at once");
            return me;
        };
        tokio::spawn(async move {
            loop {
                let code = tokio::select! {
                    _ = interrupt.recv() => INTERRUPTED,
                    _ = terminate.recv() => TERMINATED,
                };
                if heard.note(code) {
                    eprintln!("stopped at once: what was not yet written is missing");
                    std::process::exit(i32::from(code));
                }
            }
        });
        me
    }

    /// Notes a signal; whether it ends the program at once.
    fn note(&self, code: u8) -> bool {
        self.0.last.store(code, Ordering::Relaxed);
        let again = self.0.count.fetch_add(1, Ordering::Relaxed) > 0;
        self.stop().cancel();
        again || self.0.at_once.load(Ordering::Relaxed)
    }

    /// Cancelled by the first signal in this part of the run.
    pub fn stop(&self) -> CancellationToken {
        self.0
            .stop
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Another part of the run begins, which its first signal ends at once.
    pub fn end_at_once(&self) {
        self.0.at_once.store(true, Ordering::Relaxed);
    }

    /// Another part of the run begins, which its first signal ends in good order. That is cancelled
    /// by it.
    pub fn end_in_order(&self) -> CancellationToken {
        let fresh = CancellationToken::new();
        self.0
            .stop
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone_from(&fresh);
        self.0.count.store(0, Ordering::Relaxed);
        self.0.at_once.store(false, Ordering::Relaxed);
        fresh
    }

    /// The exit code of a run that a signal has ended: 130 after SIGINT; after SIGTERM 0 where the
    /// work was `finished` properly, 143 where not. `None` where no signal came.
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
    fn the_first_signal_ends_in_order_the_second_at_once_and_each_part_counts_anew() {
        let signals = Signals::default();
        let first = signals.stop();
        assert!(!signals.note(INTERRUPTED) && first.is_cancelled());
        assert!(signals.note(INTERRUPTED));
        let second = signals.end_in_order();
        assert!(!second.is_cancelled() && !signals.note(TERMINATED) && second.is_cancelled());
        signals.end_in_order();
        signals.end_at_once();
        assert!(signals.note(INTERRUPTED));
    }

    #[test]
    fn exit_codes_tell_the_signal_and_whether_the_work_was_finished() {
        let signals = Signals::default();
        assert!(signals.code(true).is_none() && signals.code(false).is_none());
        let shown = |finished| format!("{:?}", signals.code(finished));
        let code = |code: u8| format!("{:?}", Some(ExitCode::from(code)));
        signals.note(TERMINATED);
        assert_eq!((shown(true), shown(false)), (code(0), code(143)));
        signals.note(INTERRUPTED);
        assert_eq!((shown(true), shown(false)), (code(130), code(130)));
    }
}
