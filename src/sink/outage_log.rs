//! Log messages about an unreachable receiver: at the beginning, when the reason changes, every ten
//! minutes, and at the end.

use std::time::{Duration, Instant};

/// Interval between log messages about the same outage.
const LOG_AGAIN: Duration = Duration::from_secs(600);

/// Decides which attempts are logged.
#[derive(Debug, Default)]
pub(crate) struct OutageLog(Option<Outage>);

#[derive(Debug)]
struct Outage {
    began: Instant,
    logged: Instant,
    reason: String,
}

impl OutageLog {
    /// Records a failed attempt. Returns whether to log it.
    pub fn failed(&mut self, reason: &str, now: Instant) -> bool {
        let known = self.0.as_ref();
        let due =
            known.is_none_or(|o| o.reason != reason || now.duration_since(o.logged) >= LOG_AGAIN);
        if due {
            self.0 = Some(Outage {
                began: known.map_or(now, |o| o.began),
                logged: now,
                reason: reason.into(),
            });
        }
        due
    }

    /// Records a successful attempt. Returns how long the outage lasted, if there was one.
    pub fn succeeded(&mut self, now: Instant) -> Option<Duration> {
        self.0.take().map(|o| now.duration_since(o.began))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Regression: 9,000 lines were logged in an outage of one day.
    #[test]
    fn an_outage_is_logged_at_its_beginning_every_ten_minutes_and_at_its_end() {
        let start = Instant::now();
        let mut log = OutageLog::default();
        assert_eq!(log.succeeded(start), None);
        let logged: Vec<u64> = (0..3000)
            .filter(|s| log.failed("refused", start + Duration::from_secs(*s)))
            .collect();
        assert_eq!(logged, [0, 600, 1200, 1800, 2400]);
        let end = start + Duration::from_secs(3000);
        assert!(log.failed("status 401", end), "another reason");
        assert_eq!(log.succeeded(end), Some(Duration::from_secs(3000)));
        assert!(log.failed("refused", end), "another outage");
    }
}
