//! Many cameras, one detector and one embedder: each camera reads on a thread of its own, batches go through the stages,
//! each camera has its own tracker. One camera's failure is its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ndarray::{Array4, Axis, s};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::detect::detector::Scaling;
use crate::detect::{Detector, Letterbox};
use crate::detection::{Detection, Embeddings};
use crate::embed::Embedder;
use crate::frame::Frame;
use crate::geometry::Affine;
use crate::pipeline::batcher::{Batch, BatchLimits, Batcher, Lane, Waiting};
use crate::pipeline::camera_tracker::CameraTracker;
use crate::pipeline::camera_trackers::{CameraTrackers, SharedIdentities, follow};
use crate::pipeline::camera_watch::CameraWatch;
use crate::pipeline::cameras::{Cameras, Member};
use crate::pipeline::fleet_metrics::FleetMetrics;
use crate::pipeline::metrics::Progress;
use crate::pipeline::motion_gate::MotionGate;
use crate::pipeline::pipeline::{PipelineError, joined, no_pixels, write};
use crate::pipeline::quarantine::{LeftOut, Quarantine};
use crate::pipeline::reader::Opener;
use crate::pipeline::roster::{Roster, Wanted};
use crate::pipeline::stage::{self, Outcome, caught, each};
use crate::range::{OutOfRange, within};
use crate::sink::{OutputConfig, Sink};
use crate::source::camera::CameraConfig;
use crate::track::identity::{GalleryPerson, IdentityRegistry};
use crate::track::{Tracker, TrackerConfig};
use crate::trajectory::{EventBuilder, RunId};

/// Which cameras, and how they share the networks.
#[derive(Debug, Clone, PartialEq)]
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
        FleetConfig {
            batch: 4,
            batch_wait: 0.01,
            cameras: BTreeMap::new(),
        }
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
        self.cameras
            .iter()
            .try_for_each(|(name, camera)| camera.validate(name))
    }
}

/// Everything a run over many cameras needs.
pub struct Fleet {
    /// The cameras to begin with, and how they share.
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
    /// How a camera is opened.
    pub open: Opener,
    /// Filled with the cameras, for whoever shows them.
    pub cameras: Cameras,
    /// Filled with what is measured.
    pub metrics: FleetMetrics,
    /// Who names the people of all cameras, where that is asked for.
    pub known: Option<IdentityRegistry>,
    /// Another gallery to name people by from now on.
    pub gallery: watch::Receiver<Vec<GalleryPerson>>,
    /// Other cameras to have from now on.
    pub changes: mpsc::Receiver<Wanted>,
    /// Cancelled to stop: frames under way still come out.
    pub stop: CancellationToken,
    /// So long the sinks may take to finish, all together.
    pub finish_within: Duration,
}

/// A frame on its way through the stages.
pub(super) struct Item {
    pub lane: Lane,
    pub arrived: Instant,
    pub frame: Frame,
    pub camera: Option<Affine>,
    pub detections: Vec<Detection>,
    pub embeddings: Embeddings,
    /// The networks may rest where nothing moves.
    gated: bool,
    /// Nothing has moved since the frame before that the networks looked at: what they found still holds.
    still: bool,
    /// Why nothing more is done with it, where that is so.
    pub left_out: Option<LeftOut>,
    /// Work spent on it by the shared stages, seconds.
    pub cost: f64,
}

impl Item {
    /// The networks look at it.
    fn is_looked_at(&self) -> bool {
        !self.still && self.left_out.is_none()
    }
}

/// Frames that go through the stages together.
pub(super) struct Parcel {
    pub items: Vec<Item>,
    pub ended: Vec<Lane>,
    input: Option<Scaled>,
}

/// The detector's input [n, 3, h, w], and where each frame, of (width, height), lies in it.
struct Scaled {
    batch: Array4<f32>,
    places: Vec<(Letterbox, (u32, u32))>,
}

impl Parcel {
    fn of(batch: Batch, cameras: &Cameras) -> Self {
        let item = |w: Waiting| Item {
            gated: cameras.get(w.lane).is_some_and(|m| m.config.motion_gate),
            lane: w.lane,
            arrived: w.arrived,
            frame: w.frame,
            camera: None,
            detections: Vec::new(),
            embeddings: Embeddings::none(),
            still: false,
            left_out: None,
            cost: 0.0,
        };
        Parcel {
            items: batch.frames.into_iter().map(item).collect(),
            ended: batch.ended,
            input: None,
        }
    }
}

/// Batches under way at once: one scaled, one detected, one embedded.
const UNDER_WAY: usize = 3;
/// After a stop, batches under way may take so long; and after the last of them a sink this much
/// longer than it has to finish.
const LAST_BATCHES: Duration = Duration::from_secs(10);
/// Frames, with their pixels, between trackers and sinks: the sinks wait for nobody, so few are enough.
const TOLD: usize = 32;

impl Fleet {
    /// Runs until every camera has ended (files do) or the run is stopped.
    ///
    /// # Errors
    /// What ended the run for all: a network, a sink. A camera's failure is logged and counted.
    pub async fn run(self) -> Result<(), PipelineError> {
        let Fleet {
            config,
            detector,
            embedder,
            tracker,
            run,
            sinks,
            output,
            open,
            cameras,
            metrics,
            known,
            gallery,
            changes,
            stop,
            finish_within,
        } = self;
        let scaling = detector.scaling().clone();
        let size = detector.model().batch().unwrap_or(config.batch);
        let limits = BatchLimits {
            size,
            wait: Duration::from_secs_f64(config.batch_wait),
            under_way: UNDER_WAY,
        };
        let shapes = scaling.clone();
        let batcher = Arc::new(Batcher::new(limits, move |frame| {
            shapes.letterbox(frame.shape()).input
        }));
        let halt = stop.child_token();
        let mut roster = Roster::new(run, batcher.clone(), cameras.clone(), open, metrics.clone());
        roster.apply(config.cameras);

        let (parcels, batched) = batches(batcher.clone(), cameras.clone(), metrics.clone());
        let quarantine = Arc::<Quarantine>::default();
        let watches = Watches {
            quarantine: quarantine.clone(),
            pixels: tracker.camera_motion.from_pixels,
            watches: BTreeMap::new(),
            gates: BTreeMap::new(),
            scaling,
        };
        let m = metrics.clone();
        let (scaled, scale_done) = stage::transform(
            "scale",
            watches,
            parcels,
            move |watches, mut parcel: Parcel| {
                timed("scale", &m, &mut parcel, |parcel| watches.scale(parcel));
                Ok(parcel)
            },
        );
        let m = metrics.clone();
        let (detected, detect_done) = stage::transform(
            "detect",
            detector,
            scaled,
            move |detector, mut parcel: Parcel| {
                timed("detect", &m, &mut parcel, |parcel| {
                    let Some(Scaled { batch, places }) = parcel.input.take() else {
                        return;
                    };
                    let found = each("detect", places.len(), |some| {
                        Ok(detector
                            .detect(batch.slice(s![some.clone(), .., .., ..]), &places[some])?)
                    });
                    for (item, found) in parcel
                        .items
                        .iter_mut()
                        .filter(|i| i.is_looked_at())
                        .zip(found)
                    {
                        match found {
                            Ok(found) => item.detections = found,
                            Err(e) => item.left_out = Some(LeftOut::Failed(e)),
                        }
                    }
                });
                Ok(parcel)
            },
        );
        let m = metrics.clone();
        let label: Option<Arc<str>> = embedder
            .as_ref()
            .filter(|_| output.embeddings)
            .map(|e| e.identity().into());
        let strangers = embedder.as_ref().and_then(Embedder::strangers);
        let looks = Looks {
            embedder,
            found: BTreeMap::new(),
        };
        let (embedded, embed_done) = stage::transform(
            "embed",
            looks,
            detected,
            move |looks, mut parcel: Parcel| {
                let start = Instant::now();
                looks.embed(&mut parcel);
                m.stage("embed", start.elapsed());
                Ok(parcel)
            },
        );
        let follower = move |m: &Member| {
            let events = EventBuilder::new(run, m.name.clone(), label.clone());
            CameraTracker::new(
                Tracker::new(tracker.clone()).with_strangers(strangers.clone()),
                events,
                output.clone(),
            )
        };
        let (tx, told) = mpsc::channel(TOLD);
        let watching = tokio::spawn(roster.watch(changes, tx.clone(), halt.clone()));
        let registry = SharedIdentities {
            known,
            gallery,
            since: Instant::now(),
        };
        let followers = CameraTrackers::new(
            cameras,
            registry,
            Box::new(follower),
            metrics,
            quarantine,
            tx,
        );
        let tracked = follow(followers, batcher.clone(), embedded);
        let written = write(sinks, told, Arc::new(Progress::default()));

        // A sink that takes nothing holds up the trackers, and they the stages before: the run is
        // left then, whoever waits.
        let limit = LAST_BATCHES + finish_within;
        let too_long = async {
            stop.cancelled().await;
            tokio::time::sleep(limit).await;
        };
        // The roster too has a way to the sinks, so a stage that fails is seen at the trackers' end.
        let tracked = tokio::select! {
            tracked = joined(tracked) => Some(tracked),
            () = too_long => None,
        };
        halt.cancel();
        batcher.abandon();
        let watched = watching.await;
        let written = tokio::time::timeout(
            if tracked.is_some() {
                limit
            } else {
                Duration::ZERO
            },
            joined(written),
        )
        .await;
        let (Some(tracked), Ok(written)) = (tracked, written) else {
            return Err(PipelineError::Hung {
                seconds: limit.as_secs(),
            });
        };
        let stages = (
            joined(embed_done).await,
            joined(detect_done).await,
            joined(scale_done).await,
            joined(batched).await,
        );
        written?;
        tracked?;
        stages.0?;
        stages.1?;
        stages.2?;
        stages.3?;
        watched.map_err(|e| PipelineError::Panic {
            stage: "roster",
            message: e.to_string(),
        })
    }
}

/// What is known of each camera's picture.
struct Watches {
    quarantine: Arc<Quarantine>,
    /// Whether cameras may move.
    pixels: bool,
    watches: BTreeMap<Lane, CameraWatch>,
    gates: BTreeMap<Lane, MotionGate>,
    scaling: Scaling,
}

impl Watches {
    fn scale(&mut self, parcel: &mut Parcel) {
        for lane in &parcel.ended {
            self.watches.remove(lane);
            self.gates.remove(lane);
        }
        for item in &mut parcel.items {
            if self.quarantine.holds(item.lane, item.frame.pts) {
                item.left_out = Some(LeftOut::Held);
            } else if let Err(e) = caught("scale", || self.watch(item)) {
                item.left_out = Some(LeftOut::Failed(e));
            }
        }
        let looked_at = parcel.items.iter().filter(|i| i.is_looked_at()).count();
        let Some(first) = parcel.items.iter().find(|i| i.is_looked_at()) else {
            return;
        };
        let (w, h) = self.scaling.letterbox(first.frame.shape()).input;
        let mut batch = Array4::zeros((looked_at, 3, h, w));
        let mut places = Vec::new();
        for item in parcel.items.iter_mut().filter(|i| i.is_looked_at()) {
            let out = batch.index_axis_mut(Axis(0), places.len());
            let written = caught("scale", || {
                let image = item
                    .frame
                    .image
                    .as_ref()
                    .ok_or_else(|| no_pixels(&item.frame))?;
                let letterbox = self.scaling.letterbox(image.shape());
                self.scaling.write(image, &letterbox, out);
                Ok((letterbox, (image.width, image.height)))
            });
            match written {
                Ok(place) => places.push(place),
                Err(e) => item.left_out = Some(LeftOut::Failed(e)),
            }
        }
        let batch = batch.slice_move(s![..places.len(), .., .., ..]);
        parcel.input = (!places.is_empty()).then_some(Scaled { batch, places });
    }

    /// What the camera did since the frame before, and whether anything moves.
    fn watch(&mut self, item: &mut Item) -> Result<(), PipelineError> {
        item.still =
            item.gated && stands_still(self.gates.entry(item.lane).or_default(), &item.frame);
        if !item.still {
            item.camera = self
                .watches
                .entry(item.lane)
                .or_insert_with(|| CameraWatch::new(self.pixels))
                .next(&item.frame);
        }
        Ok(())
    }
}

/// What the networks found last, of cameras at whose still pictures they need not look again.
struct Looks {
    embedder: Option<Embedder>,
    found: BTreeMap<Lane, (Vec<Detection>, Embeddings)>,
}

impl Looks {
    fn embed(&mut self, parcel: &mut Parcel) {
        for lane in &parcel.ended {
            self.found.remove(lane);
        }
        for item in parcel.items.iter_mut().filter(|i| i.left_out.is_none()) {
            let start = Instant::now();
            if item.still {
                (item.detections, item.embeddings) = self
                    .found
                    .get(&item.lane)
                    .cloned()
                    .unwrap_or_else(|| (Vec::new(), Embeddings::none()));
                continue;
            }
            if let Some(e) = &mut self.embedder {
                let one = |_| {
                    Ok(vec![
                        e.embed(
                            item.frame
                                .image
                                .as_ref()
                                .ok_or_else(|| no_pixels(&item.frame))?,
                            &item.detections,
                        )?,
                    ])
                };
                match each("embed", 1, one).pop() {
                    Some(Ok(embeddings)) => item.embeddings = embeddings,
                    Some(Err(e)) => item.left_out = Some(LeftOut::Failed(e)),
                    None => {
                        item.left_out =
                            Some(LeftOut::Failed(PipelineError::NoAnswer { stage: "embed" }))
                    }
                }
            }
            if item.gated && item.left_out.is_none() {
                self.found.insert(
                    item.lane,
                    (item.detections.clone(), item.embeddings.clone()),
                );
            }
            item.cost += start.elapsed().as_secs_f64();
        }
    }
}

/// Whether nothing has moved since the frame that the networks looked at last.
fn stands_still(gate: &mut MotionGate, frame: &Frame) -> bool {
    if frame.restart {
        *gate = MotionGate::default();
    }
    frame
        .image
        .as_ref()
        .is_some_and(|image| !gate.opens(image, frame.pts))
}

/// Runs a stage's work on a parcel and charges its time, in equal parts, to the frames that the networks look at.
fn timed(
    stage: &'static str,
    metrics: &FleetMetrics,
    parcel: &mut Parcel,
    work: impl FnOnce(&mut Parcel),
) {
    let start = Instant::now();
    work(parcel);
    metrics.stage(stage, start.elapsed());
    let moving = parcel.items.iter().filter(|i| i.is_looked_at()).count();
    let share = start.elapsed().as_secs_f64() / moving.max(1) as f64;
    parcel
        .items
        .iter_mut()
        .filter(|i| i.is_looked_at())
        .for_each(|item| item.cost += share);
}

fn batches(
    batcher: Arc<Batcher>,
    cameras: Cameras,
    metrics: FleetMetrics,
) -> (mpsc::Receiver<Parcel>, Outcome<()>) {
    let (tx, rx) = mpsc::channel(1);
    let outcome = stage::spawn("batch", move || {
        while let Some(batch) = batcher.next() {
            if !batch.frames.is_empty() {
                metrics.batch(batch.frames.len());
                metrics.queue("detector", batcher.waiting());
            }
            if tx.blocking_send(Parcel::of(batch, &cameras)).is_err() {
                break;
            }
        }
        Ok(())
    });
    (rx, outcome)
}
