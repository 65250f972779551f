//! Until when and under which leases a worker's events count, and the sink that keeps to it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::sink::{FrameResult, Sink, SinkError};
use crate::trajectory::{AnalyticsEvent, EndedEvent, StatusEvent, WithJson};

/// How long a lost lease is remembered: longer than an event is on its way to the sinks.
const REMEMBERED: Duration = Duration::from_secs(600);

/// The time until which a worker's events count. Clones share it.
///
/// The clock is the machine's monotonic one: it goes on while the process is stopped (SIGSTOP), but
/// not while the machine sleeps.
#[derive(Debug, Clone, Default)]
pub struct Tenure(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
    /// Events that came after the tenure, or under a lease that was lost or given back.
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    until: Option<Instant>,
    /// Cameras of which the sinks have received all events.
    left: BTreeSet<Arc<str>>,
    /// Cameras and numbers of the present leases.
    held: BTreeSet<(String, u64)>,
    /// Leases that were lost or given back, and since when, by camera. Their numbers need not be
    /// lower than those of present leases: numbers begin again when the server has lost its data.
    past: BTreeMap<String, BTreeMap<u64, Instant>>,
}

impl State {
    /// Whether events of a camera's lease count at this time.
    fn accepts(&self, now: Instant, camera: &str, lease: Option<u64>) -> bool {
        let past = self.past.get(camera);
        let is_past = past.zip(lease).is_some_and(|(p, l)| p.contains_key(&l));
        self.until.is_some_and(|until| now < until) && !is_past
    }

    /// The events of these leases do not count any more.
    fn fence(&mut self, leases: impl IntoIterator<Item = (String, u64)>) {
        let now = Instant::now();
        self.past.retain(|_, leases| {
            leases.retain(|_, since| now.saturating_duration_since(*since) < REMEMBERED);
            !leases.is_empty()
        });
        for (camera, lease) in leases {
            self.past.entry(camera).or_default().insert(lease, now);
        }
    }
}

impl Tenure {
    /// Extends the tenure. A time before the present end changes nothing.
    pub fn extend(&self, until: Instant) {
        let mut state = self.state();
        state.until = Some(state.until.map_or(until, |at| at.max(until)));
    }

    /// Ends the tenure at once: the leases are lost. Events of these leases may still be on their
    /// way to the sinks; they do not count in the next tenure, which has new leases.
    pub fn end(&self) {
        let mut state = self.state();
        state.until = None;
        let held = std::mem::take(&mut state.held);
        state.fence(held);
    }

    /// A camera's lease has been given back: its later events do not count.
    pub fn give_back(&self, camera: &str, lease: u64) {
        let mut state = self.state();
        let given_back = (camera.to_string(), lease);
        state.held.remove(&given_back);
        state.fence([given_back]);
    }

    /// Whether events count at this time.
    pub fn holds(&self, now: Instant) -> bool {
        self.state().until.is_some_and(|until| now < until)
    }

    /// Events dropped because they came after the tenure, or under a lease that was lost or given
    /// back.
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    /// A camera is tracked under a lease: its last event is still to come. If it was to be given
    /// back and is kept after all, its events count again.
    pub fn entered(&self, camera: &str, lease: u64) {
        let mut state = self.state();
        state.left.remove(camera);
        if let Some(past) = state.past.get_mut(camera) {
            past.remove(&lease);
        }
        state.held.insert((camera.to_string(), lease));
    }

    /// The sinks have received all events of a camera.
    fn left(&self, camera: &Arc<str>) {
        self.state().left.insert(camera.clone());
        self.0.changed.notify_one();
    }

    /// Whether the sinks have received all events of a camera.
    pub fn has_left(&self, camera: &str) -> bool {
        self.state().left.contains(camera)
    }

    /// Waits until the sinks have received all events of some camera. Only one task at a time may
    /// wait.
    pub async fn changed(&self) {
        self.0.changed.notified().await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Passes events to other sinks while the tenure lasts. Later events, and those under a lease that
/// was lost or given back, are dropped and counted.
pub struct WhileTenured {
    sinks: Vec<Box<dyn Sink>>,
    tenure: Tenure,
}

impl WhileTenured {
    /// The sinks, of which none gets an event after the tenure.
    pub fn new(sinks: Vec<Box<dyn Sink>>, tenure: Tenure) -> Self {
        WhileTenured { sinks, tenure }
    }

    fn pass(
        &mut self,
        camera: &str,
        lease: Option<u64>,
        event: impl FnOnce(&mut dyn Sink) -> Result<(), SinkError>,
    ) -> Result<(), SinkError> {
        let accepts = self.tenure.state().accepts(Instant::now(), camera, lease);
        if !accepts {
            self.tenure.0.dropped.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        event(&mut self.sinks)
    }
}

impl Sink for WhileTenured {
    fn frame(&mut self, finished: &FrameResult) -> Result<(), SinkError> {
        let event = &finished.event;
        self.pass(&event.camera, event.lease, |sink| sink.frame(finished))
    }

    fn needs_pixels(&self) -> bool {
        self.sinks.needs_pixels()
    }

    fn ended(&mut self, event: &WithJson<EndedEvent>) -> Result<(), SinkError> {
        self.pass(&event.camera, event.lease, |sink| sink.ended(event))
    }

    fn analytics(&mut self, event: &WithJson<AnalyticsEvent>) -> Result<(), SinkError> {
        self.pass(event.camera(), event.lease(), |sink| sink.analytics(event))
    }

    fn status(&mut self, event: &WithJson<StatusEvent>) -> Result<(), SinkError> {
        self.pass(&event.camera, event.lease, |sink| sink.status(event))
    }

    fn left(&mut self, camera: &Arc<str>) {
        self.sinks.left(camera);
        self.tenure.left(camera);
    }

    fn close(&mut self) {
        self.sinks.close();
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        self.sinks.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::frame::CameraState;
    use crate::trajectory::RunId;

    /// Counts the changes of state.
    struct Counting(Arc<AtomicU64>);

    impl Sink for Counting {
        fn frame(&mut self, _: &FrameResult) -> Result<(), SinkError> {
            Ok(())
        }

        fn status(&mut self, _: &WithJson<StatusEvent>) -> Result<(), SinkError> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }

        fn finish(&mut self) -> Result<(), SinkError> {
            Ok(())
        }
    }

    fn status() -> WithJson<StatusEvent> {
        under(None)
    }

    fn under(lease: Option<u64>) -> WithJson<StatusEvent> {
        let state = CameraState::Online;
        let event = StatusEvent::at(clock::now(), RunId::nil(), "gate".into(), state, None);
        event.with_lease(lease).into()
    }

    /// Events on their way to the sinks when a worker has lost its leases, and has new ones.
    #[test]
    fn events_of_lost_leases_and_of_leases_given_back_do_not_count_again() {
        let (passed, tenure) = (Arc::<AtomicU64>::default(), Tenure::default());
        let counting = Box::new(Counting(passed.clone()));
        let mut sink = WhileTenured::new(vec![counting], tenure.clone());
        let mut passes = |lease: u64| {
            let before = passed.load(Ordering::Relaxed);
            sink.status(&under(Some(lease))).expect("passed or dropped");
            passed.load(Ordering::Relaxed) > before
        };
        tenure.entered("gate", 7);
        tenure.extend(Instant::now() + Duration::from_secs(3600));
        assert!(passes(7));
        tenure.end();
        tenure.extend(Instant::now() + Duration::from_secs(3600));
        assert!(!passes(7), "its lease is lost");
        tenure.entered("gate", 9);
        assert!(passes(9) && !passes(7));
        tenure.give_back("gate", 9);
        assert!(!passes(9), "it was given back");
        tenure.entered("gate", 9);
        assert!(passes(9), "it is kept after all");
        tenure.give_back("gate", 9);
        tenure.entered("gate", 12);
        assert!(passes(12) && !passes(9));
        // The server has lost its data, and numbers begin again.
        tenure.end();
        tenure.extend(Instant::now() + Duration::from_secs(3600));
        tenure.entered("gate", 5);
        assert!(passes(5) && !passes(12));
    }

    #[test]
    fn events_after_the_tenure_reach_no_sink_and_are_counted() {
        let (passed, tenure) = (Arc::<AtomicU64>::default(), Tenure::default());
        let counting = Box::new(Counting(passed.clone()));
        let mut sink = WhileTenured::new(vec![counting], tenure.clone());
        sink.status(&status()).expect("dropped");
        tenure.extend(Instant::now() + Duration::from_secs(3600));
        tenure.extend(Instant::now());
        sink.status(&status()).expect("passed");
        tenure.end();
        sink.status(&status()).expect("dropped");
        assert_eq!(passed.load(Ordering::Relaxed), 1);
        assert_eq!(tenure.dropped(), 2);
    }

    #[test]
    fn a_camera_has_left_when_the_sinks_have_its_last_event() {
        let tenure = Tenure::default();
        let mut sink = WhileTenured::new(Vec::new(), tenure.clone());
        sink.left(&"gate".into());
        assert!(tenure.has_left("gate") && !tenure.has_left("yard"));
        tenure.entered("gate", 1);
        assert!(!tenure.has_left("gate"));
    }
}
