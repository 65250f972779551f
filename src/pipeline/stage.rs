//! A stage: a thread that receives from a bounded channel, works, and sends to the next.
//!
//! If the stage before ends, its channel closes and this stage ends after its last item. If the
//! stage after ends, this one ends at its next item. So a graceful stop passes from the first stage
//! to the last and loses nothing in progress. A stage that fails returns its error; the stages
//! after it finish what they have received, and those before it end at their next item.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio::sync::{mpsc, oneshot};

use crate::pipeline::error::PipelineError;

/// Items between two stages: enough for both to work, few enough to bound memory and latency.
pub const CAPACITY: usize = 2;

/// The future result of a stage's thread.
pub type Outcome<T> = oneshot::Receiver<Result<T, PipelineError>>;

/// Runs `work` and turns a panic into an error.
///
/// # Errors
/// The errors of `work`, and [`PipelineError::Panic`].
pub fn caught<T>(
    stage: &'static str,
    work: impl FnOnce() -> Result<T, PipelineError>,
) -> Result<T, PipelineError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_string()));
        Err(PipelineError::Panic {
            stage,
            message: text.unwrap_or_else(|| "no message".into()),
        })
    })
}

/// If a network fails on this many frames in a row, the network is taken for the cause, not the
/// frames.
pub const MAX_FAILURES: u32 = 5;

/// Runs a network on `n` frames together. If that fails or panics, runs it on each frame alone.
/// Returns a result per frame.
pub fn each<T>(
    stage: &'static str,
    n: usize,
    mut work: impl FnMut(Range<usize>) -> Result<Vec<T>, PipelineError>,
) -> Vec<Result<T, PipelineError>> {
    if let Ok(all) = caught(stage, || work(0..n)) {
        return all.into_iter().map(Ok).collect();
    }
    let alone = |i| {
        caught(stage, || work(i..i + 1))
            .and_then(|mut one| one.pop().ok_or(PipelineError::NoResult { stage }))
    };
    (0..n).map(alone).collect()
}

/// Runs `work` on its own thread and turns a panic into an error.
pub fn spawn<T: Send + 'static>(
    name: &'static str,
    work: impl FnOnce() -> Result<T, PipelineError> + Send + 'static,
) -> Outcome<T> {
    let (tx, rx) = oneshot::channel();
    let body = move || {
        let result = caught(name, work);
        let _ = tx.send(result); // fails only if the whole run was dropped
    };
    if let Err(e) = std::thread::Builder::new().name(name.into()).spawn(body) {
        tracing::error!(stage = name, error = %e, "cannot start a thread"); // the receiver sees the dropped sender
    }
    rx
}

/// Waits for a stage.
///
/// # Errors
/// The errors of the stage's work, and [`PipelineError::Thread`] if its thread was not started.
pub async fn joined<T>(outcome: Outcome<T>) -> Result<T, PipelineError> {
    outcome.await.unwrap_or(Err(PipelineError::Thread))
}

/// A stage that maps every item to another, in order. Returns its `state` at the end.
pub fn transform<S, A, B, F>(
    name: &'static str,
    mut state: S,
    mut input: mpsc::Receiver<A>,
    mut work: F,
) -> (mpsc::Receiver<B>, Outcome<S>)
where
    S: Send + 'static,
    A: Send + 'static,
    B: Send + 'static,
    F: FnMut(&mut S, A) -> Result<B, PipelineError> + Send + 'static,
{
    let (tx, rx) = mpsc::channel(CAPACITY);
    let outcome = spawn(name, move || {
        while let Some(item) = input.blocking_recv() {
            if tx.blocking_send(work(&mut state, item)?).is_err() {
                break;
            }
        }
        Ok(state)
    });
    (rx, outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(results: &[Result<usize, PipelineError>]) -> Vec<Option<usize>> {
        results.iter().map(|r| r.as_ref().ok().copied()).collect()
    }

    #[test]
    fn frames_that_fail_together_are_tried_alone_and_only_the_bad_one_fails() {
        let mut runs = Vec::new();
        let work = |bad: fn() -> Result<Vec<usize>, PipelineError>,
                    runs: &mut Vec<Range<usize>>,
                    range: Range<usize>| {
            runs.push(range.clone());
            if range.contains(&2) {
                bad()
            } else {
                Ok(range.map(|i| 10 * i).collect())
            }
        };
        let error = each("detect", 4, |range| {
            work(|| Err(PipelineError::Thread), &mut runs, range)
        });
        assert_eq!(outcomes(&error), [Some(0), Some(10), None, Some(30)]);
        assert_eq!(runs, [0..4, 0..1, 1..2, 2..3, 3..4]);
        let panic = each("detect", 4, |range| {
            work(|| panic!("a bad kernel"), &mut runs, range)
        });
        assert_eq!(outcomes(&panic), [Some(0), Some(10), None, Some(30)]);
        assert!(
            panic[2]
                .as_ref()
                .is_err_and(|e| e.to_string().contains("a bad kernel"))
        );
    }

    #[test]
    fn a_transient_failure_is_retried() {
        let mut first = true;
        let work = |range: Range<usize>| {
            if std::mem::take(&mut first) {
                Err(PipelineError::Thread)
            } else {
                Ok(range.collect())
            }
        };
        assert_eq!(outcomes(&each("embed", 1, work)), [Some(0)]);
    }

    #[tokio::test]
    async fn order_is_kept_and_the_state_is_returned() {
        let (tx, rx) = mpsc::channel(CAPACITY);
        let (mut out, state) = transform("double", 0, rx, |sum, x: i32| {
            *sum += x;
            Ok(2 * x)
        });
        let feed = spawn("feed", move || {
            (1..=100).for_each(|i| tx.blocking_send(i).expect("the stage runs"));
            Ok(())
        });
        let mut got = Vec::new();
        while let Some(x) = out.recv().await {
            got.push(x);
        }
        assert_eq!(got, (1..=100).map(|i| 2 * i).collect::<Vec<_>>());
        assert_eq!(state.await.expect("ran").expect("no error"), 5050);
        feed.await.expect("ran").expect("no error");
    }

    #[tokio::test]
    async fn a_panic_becomes_an_error_with_its_message() {
        let outcome = spawn::<()>("fragile", || panic!("broken {}", "glass"));
        let error = outcome.await.expect("a result").unwrap_err().to_string();
        assert!(
            error.contains("fragile") && error.contains("broken glass"),
            "{error}"
        );
    }
}
