//! Rate limits by token buckets, one per key, as a function of the times given.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// At most `burst` events of a key at once, and one more per `refill`. Keeps at most `capacity`
/// keys; to make room, it forgets the eighth of the buckets that is nearest to full.
#[derive(Debug)]
pub struct RateLimit<K> {
    burst: f64,
    refill: Duration,
    capacity: usize,
    buckets: HashMap<K, Bucket>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// Number of events allowed at `at`.
    level: f64,
    at: Instant,
}

impl<K: Hash + Eq + Clone> RateLimit<K> {
    /// `burst`: events allowed at once, at least 1. `refill`: time for one more, above 0.
    /// `capacity`: largest number of keys kept, at least 1.
    pub fn new(burst: u32, refill: Duration, capacity: usize) -> Self {
        RateLimit {
            burst: f64::from(burst),
            refill,
            capacity,
            buckets: HashMap::new(),
        }
    }

    fn level(&self, bucket: Bucket, now: Instant) -> f64 {
        let gained = now.saturating_duration_since(bucket.at).as_secs_f64();
        (bucket.level + gained / self.refill.as_secs_f64()).min(self.burst)
    }

    /// Counts an event of `key`.
    ///
    /// # Errors
    /// The time after which the next event is allowed; the event is not counted.
    pub fn take(&mut self, key: &K, now: Instant) -> Result<(), Duration> {
        let full = Bucket {
            level: self.burst,
            at: now,
        };
        let level = self.level(self.buckets.get(key).copied().unwrap_or(full), now);
        if level < 1.0 {
            return Err(self.refill.mul_f64(1.0 - level));
        }
        if !self.buckets.contains_key(key) && self.buckets.len() >= self.capacity {
            self.make_room(now);
        }
        let level = level - 1.0;
        self.buckets.insert(key.clone(), Bucket { level, at: now });
        Ok(())
    }

    /// Takes back an event that was counted.
    pub fn give_back(&mut self, key: &K) {
        if let Some(bucket) = self.buckets.get_mut(key) {
            bucket.level = (bucket.level + 1.0).min(self.burst);
        }
    }

    fn make_room(&mut self, now: Instant) {
        let mut levels: Vec<(K, f64)> = self
            .buckets
            .iter()
            .map(|(key, bucket)| (key.clone(), self.level(*bucket, now)))
            .collect();
        // An eighth at a time, so that the buckets are not sorted for each key of a flood.
        levels.sort_unstable_by(|a, b| b.1.total_cmp(&a.1));
        for (key, _) in levels.iter().take(self.capacity.div_ceil(8)) {
            self.buckets.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REFILL: Duration = Duration::from_secs(10);

    #[test]
    fn a_burst_is_allowed_and_then_one_event_per_refill() {
        let (mut limit, start) = (RateLimit::new(3, REFILL, 100), Instant::now());
        for _ in 0..3 {
            assert_eq!(limit.take(&"a", start), Ok(()));
        }
        assert_eq!(limit.take(&"a", start), Err(REFILL));
        assert_eq!(limit.take(&"b", start), Ok(()), "keys are independent");
        let later = start + Duration::from_secs(4);
        let wait = limit.take(&"a", later).expect_err("too early");
        assert!(wait.abs_diff(Duration::from_secs(6)) < Duration::from_millis(1));
        assert_eq!(limit.take(&"a", start + REFILL), Ok(()));
        assert!(limit.take(&"a", start + REFILL).is_err());
        limit.give_back(&"a");
        assert_eq!(limit.take(&"a", start + REFILL), Ok(()));
    }

    #[test]
    fn a_flood_of_keys_does_not_make_a_blocked_key_forgotten() {
        let (mut limit, start) = (RateLimit::new(2, REFILL, 64), Instant::now());
        for _ in 0..2 {
            limit.take(&u32::MAX, start).expect("within the burst");
        }
        for key in 0..10_000 {
            let _ = limit.take(&key, start); // each for the first time
            assert!(limit.buckets.len() <= 64);
        }
        assert!(limit.take(&u32::MAX, start).is_err());
    }

    proptest! {
        #[test]
        fn never_more_events_than_burst_and_refills(
            burst in 1u32..8,
            pauses in proptest::collection::vec(0u64..5000, 1..200),
        ) {
            let (mut limit, start) = (RateLimit::new(burst, Duration::from_secs(1), 4), Instant::now());
            let (mut at, mut taken) = (0, 0u32);
            for pause in pauses {
                at += pause;
                taken += u32::from(limit.take(&0, start + Duration::from_millis(at)).is_ok());
                let most = f64::from(burst) + at as f64 / 1000.0 + 1e-6;
                prop_assert!(f64::from(taken) <= most, "{} of {}", taken, most);
            }
        }
    }
}
