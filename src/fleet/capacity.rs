//! How many frames per second a worker can process, and how many its cameras deliver.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::pipeline::Member;

/// Interval over which rates are measured.
const INTERVAL: Duration = Duration::from_secs(10);
/// A worker that drops a greater share of its frames in two intervals in a row is overloaded. In a
/// single interval, another program may have used the processor, or this process was stopped.
const DROPPED_SHARE: f64 = 0.05;
/// Factor by which the capacity rises again per interval without overload.
const RECOVERY: f64 = 1.05;

/// The capacity of a worker, and the rates of its cameras.
#[derive(Debug, Clone)]
pub struct Capacity {
    /// Frames per second of an unloaded worker.
    measured: f64,
    /// Frames per second now.
    now: f64,
    /// More than [`DROPPED_SHARE`] of the frames were dropped in the last interval.
    is_late: bool,
    since: Option<Instant>,
    /// Frames read and dropped until `since`, by camera.
    counted: BTreeMap<String, [u64; 2]>,
    rates: BTreeMap<String, f64>,
}

impl Capacity {
    /// The capacity that was measured, or configured, for an unloaded worker.
    pub fn new(measured: f64) -> Self {
        Capacity {
            measured,
            now: measured,
            is_late: false,
            since: None,
            counted: BTreeMap::new(),
            rates: BTreeMap::new(),
        }
    }

    /// Frames per second that the worker can process: less than measured while frames are dropped
    /// because the detector is busy.
    pub fn frames_per_second(&self) -> f64 {
        self.now
    }

    /// Frames per second that a camera delivered lately; 0 if not known yet.
    pub fn rate(&self, camera: &str) -> f64 {
        self.rates.get(camera).copied().unwrap_or(0.0)
    }

    /// Takes the counts of the cameras.
    pub fn update(&mut self, cameras: &[Member], now: Instant) {
        let counts = cameras.iter().map(|m| {
            let read = m.counts.read.load(Ordering::Relaxed);
            let dropped = m.counts.detector_busy.load(Ordering::Relaxed);
            (m.name.to_string(), [read, dropped])
        });
        self.update_counts(counts.collect(), now);
    }

    /// As [`Capacity::update`]: frames read and frames dropped so far, by camera.
    fn update_counts(&mut self, counts: BTreeMap<String, [u64; 2]>, now: Instant) {
        let Some(since) = self.since else {
            (self.since, self.counted) = (Some(now), counts);
            return;
        };
        let elapsed = now.saturating_duration_since(since);
        if elapsed < INTERVAL {
            return;
        }
        let seconds = elapsed.as_secs_f64();
        // Cameras that came within the interval have delivered for a part of it only.
        let known = counts.iter().filter_map(|(name, after)| {
            let before = self.counted.get(name)?;
            let delivered = [0, 1].map(|n| after[n].saturating_sub(before[n]) as f64 / seconds);
            Some((name.clone(), delivered))
        });
        let delivered: BTreeMap<String, [f64; 2]> = known.collect();
        let sum = |n: usize| delivered.values().map(|d| d[n]).sum::<f64>();
        let (read, dropped) = (sum(0), sum(1));
        let was_late = std::mem::replace(&mut self.is_late, dropped > DROPPED_SHARE * read);
        self.now = match (was_late, self.is_late) {
            (true, true) => (read - dropped).clamp(0.01 * self.measured, self.measured),
            (false, true) => self.now,
            (_, false) => (self.now * RECOVERY).min(self.measured),
        };
        self.rates = delivered
            .into_iter()
            .map(|(name, d)| (name, d[0]))
            .collect();
        (self.since, self.counted) = (Some(now), counts);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(of: &[(&str, [u64; 2])]) -> BTreeMap<String, [u64; 2]> {
        of.iter().map(|(name, n)| (name.to_string(), *n)).collect()
    }

    #[test]
    fn rates_are_measured_and_overload_lowers_the_capacity() {
        let (mut capacity, start) = (Capacity::new(100.0), Instant::now());
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        capacity.update_counts(counts(&[("a", [0, 0])]), at(0));
        capacity.update_counts(counts(&[("a", [30, 0]), ("b", [9, 0])]), at(5));
        assert_eq!(
            (capacity.rate("a"), capacity.frames_per_second()),
            (0.0, 100.0)
        );
        capacity.update_counts(counts(&[("a", [100, 1]), ("b", [99, 0])]), at(10));
        assert_eq!((capacity.rate("a"), capacity.rate("b")), (10.0, 0.0));
        assert_eq!(capacity.frames_per_second(), 100.0);
        // Of 90 frames a second, 30 are dropped.
        capacity.update_counts(counts(&[("a", [600, 201]), ("b", [499, 100])]), at(20));
        assert_eq!(capacity.rate("b"), 40.0);
        assert_eq!(capacity.frames_per_second(), 100.0, "for one interval");
        capacity.update_counts(counts(&[("a", [1100, 401]), ("b", [899, 200])]), at(30));
        assert!((capacity.frames_per_second() - 60.0).abs() < 1e-9);
        capacity.update_counts(counts(&[("a", [1200, 401])]), at(40));
        assert!((capacity.frames_per_second() - 63.0).abs() < 1e-9);
    }

    #[test]
    fn a_process_that_was_stopped_does_not_count_as_overloaded() {
        let (mut capacity, start) = (Capacity::new(100.0), Instant::now());
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        capacity.update_counts(counts(&[("a", [0, 0])]), at(0));
        capacity.update_counts(counts(&[("a", [100, 0])]), at(10));
        capacity.update_counts(counts(&[("a", [200, 90])]), at(45));
        capacity.update_counts(counts(&[("a", [300, 90])]), at(55));
        assert_eq!(capacity.frames_per_second(), 100.0);
        assert_eq!(capacity.rate("a"), 10.0);
    }
}
