//! Reading one camera of many: a thread of its own, and whatever goes wrong stays here.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::pipeline::batcher::{Batcher, Lane};
use crate::pipeline::stage::{self, Outcome};
use crate::source::camera::{Backoff, CameraConfig};
use crate::source::{SourceError, SourceOptions, playback};
use crate::time::Seconds;

/// What has become of a camera's frames.
#[derive(Debug, Default)]
pub struct CameraCounts {
    /// Frames decoded.
    pub read: AtomicU64,
    /// Frames whose events were handed to the sinks.
    pub tracked: AtomicU64,
    /// Frames dropped for newer ones because the detector was busy.
    pub detector_busy: AtomicU64,
    /// Frames whose events were dropped because a sink was slow.
    pub sink_slow: AtomicU64,
    /// Tracks confirmed.
    pub people: AtomicU64,
    /// Times its reading failed or crashed and was begun anew.
    pub failures: AtomicU64,
    /// Seconds from a frame's decoding to its event, of the last frames.
    latencies: Mutex<Vec<f32>>,
}

/// So many latencies are kept.
const LATENCIES: usize = 4096;

impl CameraCounts {
    pub(super) fn note(&self, nth: u64, latency: Duration) {
        let mut kept = self.latencies.lock().unwrap_or_else(PoisonError::into_inner);
        let latency = latency.as_secs_f32();
        if kept.len() < LATENCIES { kept.push(latency) } else { kept[nth as usize % LATENCIES] = latency }
    }

    /// The latency, seconds, that a share of the last frames stayed below.
    pub fn latency(&self, share: f64) -> Option<f32> {
        let mut kept = self.latencies.lock().unwrap_or_else(PoisonError::into_inner).clone();
        kept.sort_unstable_by(f32::total_cmp);
        kept.get(((kept.len() as f64 * share) as usize).min(kept.len().saturating_sub(1))).copied()
    }
}

/// A camera on its way through the fleet.
#[derive(Clone)]
pub(super) struct Member {
    pub name: Arc<str>,
    pub config: CameraConfig,
    pub counts: Arc<CameraCounts>,
}

/// Reads a camera until it ends or the run is stopped. Whatever goes wrong with it stays here; one with an address is begun
/// anew after a pause.
pub(super) fn read(member: Member, lane: Lane, batcher: Arc<Batcher>, stop: CancellationToken) -> Outcome<()> {
    stage::spawn("decode", move || {
        let Member { name, config, counts } = &member;
        let mut backoff = Backoff::new(config.retry_after, config.retry_at_most, fastrand::u64(..));
        let mut last = None;
        while !stop.is_cancelled() {
            let outcome = catch_unwind(AssertUnwindSafe(|| play(&member, lane, &batcher, &stop, &mut last, &mut backoff)));
            match outcome {
                Ok(Ok(())) => break,
                Ok(Err(e)) => tracing::error!(camera = %name, error = %e, "the camera cannot be read"),
                Err(_) => tracing::error!(camera = %name, "reading the camera crashed; this is a bug of twintrack, please report it"),
            }
            counts.failures.fetch_add(1, Ordering::Relaxed);
            if !config.has_address() {
                break;
            }
            let until = Instant::now() + backoff.pause();
            while Instant::now() < until && !stop.is_cancelled() {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        batcher.end(lane);
        Ok(())
    })
}

/// Plays what the camera gives into its lane; frame numbers and times go on from `last`, where there was one.
fn play(
    member: &Member,
    lane: Lane,
    batcher: &Batcher,
    stop: &CancellationToken,
    last: &mut Option<(u64, Seconds, Instant)>,
    backoff: &mut Backoff,
) -> Result<(), SourceError> {
    let options = SourceOptions { camera: Some(member.name.to_string()), ..SourceOptions::default() };
    let mut source = playback::open(&member.config, &options)?;
    let live = source.info().live;
    let interrupt = source.interrupt();
    std::thread::scope(|scope| {
        // A source that waits for its camera ends by its own flag.
        let done = CancellationToken::new();
        let finished = done.clone().drop_guard();
        scope.spawn(move || {
            while !stop.is_cancelled() && !done.is_cancelled() {
                std::thread::sleep(Duration::from_millis(50));
            }
            if let Some(flag) = interrupt {
                flag.store(true, Ordering::Relaxed);
            }
        });
        let mut offset = None;
        while !stop.is_cancelled() {
            let Some(mut frame) = source.next_frame()? else { break };
            backoff.reset();
            member.counts.read.fetch_add(1, Ordering::Relaxed);
            let (number, pts) = *offset.get_or_insert_with(|| match *last {
                Some((number, pts, at)) => {
                    frame.restart = true;
                    (number, pts + Seconds(at.elapsed().as_secs_f64()) - frame.pts)
                }
                None => (0, Seconds::ZERO),
            });
            frame.number += number;
            frame.pts = frame.pts + pts;
            *last = Some((frame.number, frame.pts, Instant::now()));
            if live {
                if batcher.offer(lane, frame) {
                    member.counts.detector_busy.fetch_add(1, Ordering::Relaxed);
                }
            } else if !batcher.offer_patiently(lane, frame) {
                break;
            }
        }
        drop(finished);
        Ok(())
    })
}
