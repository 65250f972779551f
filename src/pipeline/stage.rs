//! One stage: a thread that takes from a bounded channel, works, and hands on.
//!
//! When the stage before it ends, its channel closes and it ends too, after its last item; when the stage behind it is
//! gone, it ends at once. So a stop runs down the line and nothing on its way is lost, and an error runs up it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio::sync::{mpsc, oneshot};

use crate::pipeline::pipeline::PipelineError;

/// Items between two stages: enough to let both work, few enough to bound memory and latency.
pub const CAPACITY: usize = 2;

/// A thread's result to come.
pub type Outcome<T> = oneshot::Receiver<Result<T, PipelineError>>;

/// Runs `work` on a thread of its own; a panic in it becomes an error.
pub fn spawn<T: Send + 'static>(name: &'static str, work: impl FnOnce() -> Result<T, PipelineError> + Send + 'static) -> Outcome<T> {
    let (tx, rx) = oneshot::channel();
    let body = move || {
        let result = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_string()));
            Err(PipelineError::Panic { stage: name, message: text.unwrap_or_else(|| "no message".into()) })
        });
        let _ = tx.send(result); // nobody waits any more only when the whole run was dropped
    };
    if let Err(e) = std::thread::Builder::new().name(name.into()).spawn(body) {
        tracing::error!(stage = name, error = %e, "cannot start a thread"); // the receiver sees the sender dropped
    }
    rx
}

/// A stage that turns every item into one other, in order, with what it holds (`state`), which it gives back at the end.
pub fn transform<S, A, B, F>(name: &'static str, mut state: S, mut input: mpsc::Receiver<A>, mut work: F) -> (mpsc::Receiver<B>, Outcome<S>)
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

    #[tokio::test]
    async fn order_is_kept_and_the_state_comes_back() {
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
        let error = outcome.await.expect("told").unwrap_err().to_string();
        assert!(error.contains("fragile") && error.contains("broken glass"), "{error}");
    }
}
