//! Many cameras, one detector and one embedder: each camera reads on a thread of its own, batches go through the stages,
//! each camera has its own tracker. One camera's failure is its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ndarray::{Array4, Axis};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::detect::{Detector, Letterbox};
use crate::detection::{Detection, Embeddings};
use crate::embed::Embedder;
use crate::frame::Frame;
use crate::geometry::Affine;
use crate::pipeline::batcher::{Batch, BatchLimits, Batcher, Lane};
use crate::pipeline::camera_watch::CameraWatch;
use crate::pipeline::follower::{Embedded, Follower, Told};
use crate::pipeline::metrics::Progress;
use crate::pipeline::motion_gate::MotionGate;
use crate::pipeline::pipeline::{PipelineError, joined, no_pixels, write};
use crate::pipeline::reader::{CameraCounts, Member, read};
use crate::pipeline::stage::{self, Outcome};
use crate::range::{OutOfRange, within};
use crate::sink::{OutputConfig, Sink};
use crate::source::camera::CameraConfig;
use crate::track::{Tracker, TrackerConfig};
use crate::trajectory::{Chronicle, EndedEvent, RunId};

/// Which cameras, and how they share the networks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FleetConfig {
    /// At most this many frames go to the detector at once.
    pub batch: usize,
    /// A frame waits at most this long for others to share its batch, seconds.
    pub batch_wait: f64,
    /// The cameras by their short names.
    pub cameras: BTreeMap<String, CameraConfig>,
}

impl Default for FleetConfig {
    fn default() -> Self {
        FleetConfig { batch: 4, batch_wait: 0.01, cameras: BTreeMap::new() }
    }
}

impl FleetConfig {
    /// Refuses values outside their ranges.
    ///
    /// # Errors
    /// The first such value.
    pub fn validate(&self) -> Result<(), OutOfRange> {
        within("serve.batch", self.batch, 1, 256)?;
        within("serve.batch_wait", self.batch_wait, 0.0, 1.0)?;
        self.cameras.iter().try_for_each(|(name, camera)| camera.validate(name))
    }
}

/// Everything a run over many cameras needs.
pub struct Fleet {
    /// The cameras, and how they share.
    pub config: FleetConfig,
    /// Who finds the people.
    pub detector: Detector,
    /// Who tells them apart; by motion only when absent.
    pub embedder: Option<Embedder>,
    /// The trackers' settings.
    pub tracker: TrackerConfig,
    /// The run's id.
    pub run: RunId,
    /// Where the events of all cameras go.
    pub sinks: Vec<Box<dyn Sink>>,
    /// What is written.
    pub output: OutputConfig,
    /// Cancelled to stop: frames under way still come out.
    pub stop: CancellationToken,
}

struct Item {
    lane: Lane,
    arrived: Instant,
    frame: Frame,
    camera: Option<Affine>,
    detections: Vec<Detection>,
    embeddings: Embeddings,
    /// Nothing has moved since the frame before that the networks looked at: what they found still holds.
    still: bool,
    /// Work spent on it by the shared stages, seconds.
    cost: f64,
}

struct Parcel {
    items: Vec<Item>,
    ended: Vec<Lane>,
    input: Option<Scaled>,
}

/// The detector's input [n, 3, h, w], and where each frame, of (width, height), lies in it.
struct Scaled {
    batch: Array4<f32>,
    places: Vec<(Letterbox, (u32, u32))>,
}

impl From<Batch> for Parcel {
    fn from(batch: Batch) -> Self {
        let item = |w: crate::pipeline::batcher::Waiting| Item {
            lane: w.lane,
            arrived: w.arrived,
            frame: w.frame,
            camera: None,
            detections: Vec::new(),
            embeddings: Embeddings::none(),
            still: false,
            cost: 0.0,
        };
        Parcel { items: batch.frames.into_iter().map(item).collect(), ended: batch.ended, input: None }
    }
}

/// Batches under way at once: one scaled, one detected, one embedded.
const UNDER_WAY: usize = 3;
/// Events between trackers and sinks.
const TOLD: usize = 256;

impl Fleet {
    /// Runs until every camera has ended (files do) or the run is stopped. Gives the cameras' counts, by name.
    ///
    /// # Errors
    /// What ended the run for all: a network, a sink. A camera's failure is logged and counted.
    pub async fn run(self) -> Result<BTreeMap<String, Arc<CameraCounts>>, PipelineError> {
        let Fleet { config, detector, mut embedder, tracker, run, sinks, output, stop } = self;
        let scaling = detector.scaling().clone();
        let size = detector.model().dims()[0].unwrap_or(config.batch);
        let limits = BatchLimits { size, wait: Duration::from_secs_f64(config.batch_wait), under_way: UNDER_WAY };
        let shapes = scaling.clone();
        let batcher = Arc::new(Batcher::new(limits, move |frame| shapes.letterbox(frame).input));
        let halt = stop.child_token();
        let mut members = BTreeMap::new();
        let mut readers = Vec::new();
        for (name, camera) in config.cameras {
            let lane = batcher.join(camera.weight);
            let member = Member { name: name.as_str().into(), config: camera, counts: Arc::default() };
            readers.push(read(member.clone(), lane, batcher.clone(), halt.clone()));
            members.insert(lane, member);
        }
        batcher.close();
        let counts = members.values().map(|m| (m.name.to_string(), m.counts.clone())).collect();

        let (parcels, batched) = batches(batcher.clone());
        let pixels = tracker.camera_motion.from_pixels;
        let gates: BTreeMap<Lane, MotionGate> = members.iter().filter(|(_, m)| m.config.motion_gate).map(|(&lane, _)| (lane, MotionGate::default())).collect();
        let gated: BTreeSet<Lane> = gates.keys().copied().collect();
        let (scaled, scale_done) = stage::transform("scale", (BTreeMap::new(), gates), parcels, move |(watches, gates), mut parcel: Parcel| {
            for lane in &parcel.ended {
                watches.remove(lane);
                gates.remove(lane);
            }
            timed(&mut parcel, |parcel| {
                for item in &mut parcel.items {
                    item.still = gates.get_mut(&item.lane).is_some_and(|gate| stands_still(gate, &item.frame));
                    if !item.still {
                        item.camera = watches.entry(item.lane).or_insert_with(|| CameraWatch::new(pixels)).next(&item.frame);
                    }
                }
                let moving: Vec<&Item> = parcel.items.iter().filter(|i| !i.still).collect();
                let Some(first) = moving.first() else { return Ok(()) };
                let (w, h) = scaling.letterbox((first.frame.width, first.frame.height)).input;
                let mut batch = Array4::zeros((moving.len(), 3, h, w));
                let mut places = Vec::new();
                for (item, out) in moving.into_iter().zip(batch.axis_iter_mut(Axis(0))) {
                    let image = item.frame.image.as_ref().ok_or_else(|| no_pixels(&item.frame))?;
                    let letterbox = scaling.letterbox((image.width, image.height));
                    scaling.write(image, &letterbox, out);
                    places.push((letterbox, (image.width, image.height)));
                }
                parcel.input = Some(Scaled { batch, places });
                Ok(())
            })?;
            Ok(parcel)
        });
        let (detected, detect_done) = stage::transform("detect", detector, scaled, |detector, mut parcel: Parcel| {
            timed(&mut parcel, |parcel| {
                let Some(Scaled { batch, places }) = parcel.input.take() else { return Ok(()) };
                let found = detector.detect(batch.view(), &places)?;
                parcel.items.iter_mut().filter(|i| !i.still).zip(found).for_each(|(item, found)| item.detections = found);
                Ok(())
            })?;
            Ok(parcel)
        });
        let (embedded, embed_done) = stage::transform("embed", BTreeMap::new(), detected, move |found, mut parcel: Parcel| {
            for lane in &parcel.ended {
                found.remove(lane);
            }
            for item in &mut parcel.items {
                let start = Instant::now();
                if item.still {
                    (item.detections, item.embeddings) = found.get(&item.lane).cloned().unwrap_or_else(|| (Vec::new(), Embeddings::none()));
                    continue;
                }
                if let Some(e) = &mut embedder {
                    item.embeddings = e.embed(item.frame.image.as_ref().ok_or_else(|| no_pixels(&item.frame))?, &item.detections)?;
                }
                if gated.contains(&item.lane) {
                    found.insert(item.lane, (item.detections.clone(), item.embeddings.clone()));
                }
                item.cost += start.elapsed().as_secs_f64();
            }
            Ok(parcel)
        });
        let follower = move |m: &Member| Follower::new(Tracker::new(tracker.clone()), None, Chronicle::new(run, m.name.clone(), None), output.clone());
        let (told, tracked) = follow(members, follower, batcher.clone(), embedded);
        let written = write(sinks, told, Arc::new(Progress::default()));

        let written = joined(written).await;
        let tracked = joined(tracked).await;
        // Where a stage failed, the cameras stop too, and nobody waits for a batch that never comes back.
        halt.cancel();
        batcher.abandon();
        let stages = (joined(embed_done).await, joined(detect_done).await, joined(scale_done).await, joined(batched).await);
        for reader in readers {
            joined(reader).await?;
        }
        written?;
        tracked?;
        stages.0?;
        stages.1?;
        stages.2?;
        stages.3?;
        Ok(counts)
    }
}

/// Whether nothing has moved since the frame that the networks looked at last.
fn stands_still(gate: &mut MotionGate, frame: &Frame) -> bool {
    if frame.restart {
        *gate = MotionGate::default();
    }
    frame.image.as_ref().is_some_and(|image| !gate.opens(image, frame.pts))
}

/// Runs a stage's work on a parcel and charges its time, in equal parts, to the frames that the networks look at.
fn timed(parcel: &mut Parcel, work: impl FnOnce(&mut Parcel) -> Result<(), PipelineError>) -> Result<(), PipelineError> {
    let start = Instant::now();
    work(parcel)?;
    let moving = parcel.items.iter().filter(|i| !i.still).count();
    let share = start.elapsed().as_secs_f64() / moving.max(1) as f64;
    parcel.items.iter_mut().filter(|i| !i.still).for_each(|item| item.cost += share);
    Ok(())
}

fn batches(batcher: Arc<Batcher>) -> (mpsc::Receiver<Parcel>, Outcome<()>) {
    let (tx, rx) = mpsc::channel(1);
    let outcome = stage::spawn("batch", move || {
        while let Some(batch) = batcher.next() {
            if tx.blocking_send(batch.into()).is_err() {
                break;
            }
        }
        Ok(())
    });
    (rx, outcome)
}

/// Every camera's tracker, on one thread: it computes for microseconds a frame.
fn follow(
    members: BTreeMap<Lane, Member>,
    follower: impl Fn(&Member) -> Follower + Send + 'static,
    batcher: Arc<Batcher>,
    mut input: mpsc::Receiver<Parcel>,
) -> (mpsc::Receiver<Told>, Outcome<()>) {
    let (tx, rx) = mpsc::channel(TOLD);
    let outcome = stage::spawn("track", move || {
        let mut followers: BTreeMap<Lane, Follower> = members.iter().map(|(&lane, m)| (lane, follower(m))).collect();
        let mut held: BTreeMap<Lane, Vec<EndedEvent>> = BTreeMap::new();
        while let Some(parcel) = input.blocking_recv() {
            let costs: Vec<(Lane, f64)> = parcel.items.iter().map(|i| (i.lane, i.cost)).collect();
            for Item { lane, arrived, frame, camera, detections, embeddings, .. } in parcel.items {
                let (Some(who), Some(member)) = (followers.get_mut(&lane), members.get(&lane)) else { continue };
                let mut told = match who.follow(Embedded { frame, camera, detections, embeddings }) {
                    Ok(told) => told,
                    Err(e) => {
                        tracing::error!(camera = %member.name, error = %e, "the tracker refused a frame");
                        continue;
                    }
                };
                let counts = &member.counts;
                counts.people.store(who.people(), Ordering::Relaxed);
                // The ends of tracks outlive a frame that a slow sink has no room for.
                told.ended.splice(0..0, held.remove(&lane).unwrap_or_default());
                let sent = if member.config.is_live() { tx.try_send(told) } else { tx.blocking_send(told).map_err(|e| mpsc::error::TrySendError::Closed(e.0)) };
                match sent {
                    Ok(()) => counts.note(counts.tracked.fetch_add(1, Ordering::Relaxed), arrived.elapsed()),
                    Err(mpsc::error::TrySendError::Full(told)) => {
                        counts.sink_slow.fetch_add(1, Ordering::Relaxed);
                        held.insert(lane, told.ended);
                    }
                    Err(mpsc::error::TrySendError::Closed(_)) => return Ok(()),
                }
            }
            for lane in parcel.ended {
                let Some(mut who) = followers.remove(&lane) else { continue };
                let mut told = who.finish();
                told.ended.splice(0..0, held.remove(&lane).unwrap_or_default());
                if tx.blocking_send(told).is_err() {
                    return Ok(());
                }
            }
            batcher.done(&costs);
        }
        Ok(())
    });
    (rx, outcome)
}
