//! Pauses between attempts to reach a receiver.

use std::time::Duration;

/// Pauses that double from the first to the longest, each randomised by up to 20 %, so that many
/// programs do not return to a receiver at the same time.
#[derive(Debug)]
pub(super) struct Backoff {
    first: f64,
    longest: f64,
    next: f64,
}

impl Backoff {
    /// `first` and `longest` in seconds.
    pub fn new(first: f64, longest: f64) -> Self {
        Backoff {
            first,
            longest,
            next: first,
        }
    }

    /// Begins with the first pause again.
    pub fn reset(&mut self) {
        self.next = self.first;
    }

    /// The next pause.
    fn advance(&mut self) -> Duration {
        let pause = self.next;
        self.next = (2.0 * pause).min(self.longest);
        Duration::from_secs_f64(pause * (0.8 + 0.4 * fastrand::f64()))
    }

    /// Waits for `requested` if the receiver has requested a pause, else for the next pause.
    pub async fn wait(&mut self, requested: Option<Duration>) {
        let pause = self.advance();
        tokio::time::sleep(requested.unwrap_or(pause)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_again_after_a_success() {
        let mut backoff = Backoff::new(0.5, 5.0);
        for wanted in [0.5, 1.0, 2.0, 4.0, 5.0, 5.0] {
            let pause = backoff.advance().as_secs_f64();
            assert!(
                (0.8 * wanted..=1.2 * wanted).contains(&pause),
                "{pause} instead of {wanted}"
            );
        }
        backoff.reset();
        assert!(backoff.advance().as_secs_f64() <= 0.6);
    }
}
