//! The pipeline: how the stages are connected, from the readers of the inputs to the sinks.
//!
//! ```text
//! reader (one per camera) ─▶ batcher ─▶ scale ─▶ detect ─▶ embed and track ─▶ write
//! ```
//!
//! Every stage is a thread; bounded channels connect them. One recording and a hundred cameras take
//! the same path: they differ in [`Inputs`] only.

use std::sync::Arc;
use std::time::{Duration, Instant};

use derive_setters::Setters;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::analytics::CountingConfig;
use crate::embed::Embedder;
use crate::pipeline::batch::{Batch, batches};
use crate::pipeline::batcher::{BatchLimits, Batcher};
use crate::pipeline::cadences::{CadencePolicy, Cadences};
use crate::pipeline::camera_tracker::{CameraTracker, TrackedFrame};
use crate::pipeline::cameras::{Cameras, Member};
use crate::pipeline::detection_source::DetectionSource;
use crate::pipeline::embed::Embedding;
use crate::pipeline::error::PipelineError;
use crate::pipeline::inputs::{Input, Inputs};
use crate::pipeline::metrics::Summary;
use crate::pipeline::observer::{NoObserver, Observer};
use crate::pipeline::quarantine::Quarantine;
use crate::pipeline::roster::{Ended, Readers, Roster};
use crate::pipeline::scale::{FrameInput, Scaler};
use crate::pipeline::stage::{self, Outcome, joined};
use crate::pipeline::tracking::{NewTracker, SharedIdentities, Trackers, Tracking, track};
use crate::pipeline::write::write;
use crate::sink::privacy::Blur;
use crate::sink::{OutputConfig, Sink};
use crate::source::{Link, SourceError};
use crate::track::embed_policy::EmbedPolicy;
use crate::track::identity::{GalleryPerson, IdentityRegistry};
use crate::track::{Tracker, TrackerConfig};
use crate::trajectory::{EventBuilder, RunId};

/// Rules by which frames share the networks.
#[derive(Debug, Clone, Copy, PartialEq, Setters)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct BatchConfig {
    /// Maximum number of frames that go to the detector together.
    pub size: usize,
    /// Maximum time that a frame waits for others to share its batch.
    pub wait: Duration,
    /// Maximum number of successive frames of one recording in a batch. On a GPU several frames
    /// together take little longer than one.
    pub per_recording: usize,
}

impl Default for BatchConfig {
    /// No batching.
    fn default() -> Self {
        BatchConfig {
            size: 1,
            wait: Duration::ZERO,
            per_recording: 1,
        }
    }
}

/// Everything that a run needs.
pub struct Pipeline {
    /// Sources of the frames.
    pub inputs: Inputs,
    /// Source of the detections.
    pub detections: DetectionSource,
    /// Computes embeddings; tracks are associated by motion alone if absent.
    pub embedder: Option<Embedder>,
    /// Policy by which crops are left out; if absent, all crops are embedded.
    pub embed_policy: Option<EmbedPolicy>,
    /// Policy by which the detector skips frames. No frame is skipped if detections are given.
    pub cadence: CadencePolicy,
    /// Settings of the trackers, one per camera.
    pub tracker: TrackerConfig,
    /// Whether the events of ended tracks have the track's mean embedding.
    pub embeddings: bool,
    /// Assigns identities to tracks, if wanted.
    pub identities: Option<IdentityRegistry>,
    /// Replacements of the gallery.
    pub gallery: watch::Receiver<Vec<GalleryPerson>>,
    /// The run's id.
    pub run: RunId,
    /// Destinations of the events.
    pub sinks: Vec<Box<dyn Sink>>,
    /// Selection of the events that are written.
    pub output: OutputConfig,
    /// What is blurred in the frames before the sinks get them.
    pub blur: Blur,
    /// When a person counts as being on the other side of a boundary.
    pub counting: CountingConfig,
    /// Rules by which frames share the networks.
    pub batch: BatchConfig,
    /// Receives measurements.
    pub observer: Arc<dyn Observer>,
    /// Filled with the cameras of the run.
    pub cameras: Cameras,
    /// Cancelled to stop: frames in progress are still finished.
    pub stop: CancellationToken,
    /// Timeout for all sinks to finish after a stop; none if absent.
    pub finish_within: Option<Duration>,
}

/// Batches in progress at once: one each in scale, detect and embed.
const BATCHES_IN_PROGRESS: usize = 3;
/// Timeout for the batches in progress after a stop.
const LAST_BATCHES: Duration = Duration::from_secs(10);

impl Pipeline {
    /// A pipeline without embedder and sinks, with default settings.
    pub fn new(inputs: Inputs, detections: DetectionSource) -> Self {
        Pipeline {
            inputs,
            detections,
            embedder: None,
            embed_policy: None,
            cadence: CadencePolicy::default(),
            tracker: TrackerConfig::default(),
            embeddings: false,
            identities: None,
            gallery: watch::channel(Vec::new()).1,
            run: RunId::now_v7(),
            sinks: Vec::new(),
            output: OutputConfig::default(),
            blur: Blur::None,
            counting: CountingConfig::default(),
            batch: BatchConfig::default(),
            observer: Arc::new(NoObserver),
            cameras: Cameras::default(),
            stop: CancellationToken::new(),
            finish_within: None,
        }
    }

    /// Runs to the end of the inputs, or until stopped. Sinks are finished in either case, and
    /// after an error too.
    ///
    /// # Errors
    /// The first failure that ends the run.
    pub async fn run(mut self) -> Result<Summary, PipelineError> {
        let started = Instant::now();
        self.detections.expect_batches(self.batch.size);
        let input = self.detections.take_input();
        let batcher = Arc::new(self.batcher(input.as_ref()));
        let new_tracker = self.new_tracker();
        let cadences = self.cadences(input.is_some());
        let Pipeline {
            inputs,
            detections,
            embedder,
            embed_policy,
            tracker,
            blur,
            counting,
            identities,
            gallery,
            run,
            sinks,
            observer,
            cameras,
            stop,
            finish_within,
            ..
        } = self;
        let (policy, quarantine) = (inputs.policy(), Arc::<Quarantine>::default());
        let (out, output) = mpsc::channel(inputs.sink_queue());
        let keep_pixels = sinks.iter().any(|s| s.needs_pixels());
        let written = write(sinks, blur, output, observer.clone());
        let tracking = Tracking {
            cameras: cameras.clone(),
            identities: SharedIdentities {
                registry: identities,
                gallery,
                since: matches!(inputs, Inputs::Many { .. }).then(Instant::now),
            },
            new_tracker,
            policy,
            quarantine: quarantine.clone(),
            observer: observer.clone(),
            out: out.clone(),
            trackers: Trackers::default(),
            embedding: Embedding::new(embedder, embed_policy),
            counting,
            cadences: cadences.clone(),
            keep_pixels,
        };
        let roster = Roster {
            run,
            batcher: batcher.clone(),
            cameras: cameras.clone(),
            open: inputs.opener(),
            policy,
            waits: inputs.waits(),
            observer: observer.clone(),
            new_link: Box::new(Link::default),
            readers: Readers::default(),
        };
        let stop_readers = stop.child_token();
        let supervising = supervise(roster, inputs, out, stop_readers.clone());
        let from_pixels = tracker.camera_motion.from_pixels;
        let scaler = Scaler::new(input, from_pixels, quarantine, cadences);
        let batches = batches(batcher.clone(), cameras.clone(), observer.clone());
        let stages = Stages::start(batches, scaler, detections, observer);
        let tracked = track(tracking, batcher.clone(), stages.output);

        // A sink that blocks makes the trackers wait, and these make the earlier stages wait;
        // therefore the run is abandoned after the timeout.
        let limit = finish_within.map(|d| LAST_BATCHES + d);
        let timeout = async {
            stop.cancelled().await;
            match limit {
                Some(limit) => tokio::time::sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        let tracked = tokio::select! {
            tracked = joined(tracked) => Some(tracked),
            () = timeout => None,
        };
        stop_readers.cancel();
        batcher.abandon();
        let ended = supervising.await;
        let written = within(limit, tracked.is_some(), joined(written)).await;
        let (Some(tracked), Some(written)) = (tracked, written) else {
            return Err(PipelineError::ShutdownTimeout {
                seconds: limit.unwrap_or_default().as_secs(),
            });
        };
        // Joined before any error is returned: if the process exited while ONNX Runtime computes,
        // the inference would fail and log an error of its own.
        let inference = stages.threads.join().await;
        // The sinks' error comes first: the stages before them only see a closed channel.
        written?;
        let embedding = tracked?;
        let (detection, unused) = inference?;
        let ended = ended.map_err(|e| PipelineError::Panic {
            stage: "readers",
            message: e.to_string(),
        })?;
        Ok(Summary {
            cut: cut(ended.failure)?,
            wall: started.elapsed(),
            inference: detection + embedding,
            unused,
            interrupted: ended.interrupted,
            ..cameras.summary()
        })
    }

    /// The cadences of the cameras. Without a detector every frame is processed.
    fn cadences(&self, has_detector: bool) -> Cadences {
        let policy = match has_detector {
            true => self.cadence.clone(),
            false => CadencePolicy::default(),
        };
        let frames_in_progress = BATCHES_IN_PROGRESS * self.batch.per_recording;
        Cadences::new(policy, frames_in_progress as u64)
    }

    /// The batcher for frames that become the detector's input as `input` says.
    fn batcher(&self, input: Option<&FrameInput>) -> Batcher {
        let limits = BatchLimits {
            size: self.detections.fixed_batch().unwrap_or(self.batch.size),
            wait: self.batch.wait,
            in_progress: BATCHES_IN_PROGRESS,
            per_recording: self.batch.per_recording,
        };
        let scaling = input.map(|i| i.scaling.clone());
        let loaded = input.is_some_and(|i| i.loader.is_some());
        Batcher::new(limits, move |frame| {
            let size = (frame.width as usize, frame.height as usize);
            match &scaling {
                Some(scaling) => {
                    let input = scaling.letterbox(frame.shape()).input;
                    [input, if loaded { size } else { (0, 0) }]
                }
                None => [size, size],
            }
        })
    }

    fn new_tracker(&self) -> NewTracker {
        let (tracker, output, run) = (self.tracker.clone(), self.output.clone(), self.run);
        let (counting, hides) = (self.counting.clone(), self.blur != Blur::None);
        let embedder = self.embedder.as_ref();
        let label: Option<Arc<str>> = embedder
            .filter(|_| self.embeddings)
            .map(|e| e.identity().into());
        let strangers = embedder.and_then(Embedder::strangers);
        Box::new(move |camera: &Member| {
            let events = EventBuilder::new(run, camera.name.clone(), label.clone());
            let tracker = Tracker::new(tracker.clone()).with_strangers(strangers.clone());
            let scene = camera.config.scene();
            CameraTracker::new(tracker, events, output.clone())
                .with_scene(scene, &counting)
                .with_people(hides)
        })
    }
}

/// Starts the readers, and the task that supervises them.
fn supervise(
    mut roster: Roster,
    inputs: Inputs,
    out: mpsc::Sender<TrackedFrame>,
    stop: CancellationToken,
) -> tokio::task::JoinHandle<Ended> {
    let changes = match inputs {
        Inputs::One(Input {
            source,
            config,
            options,
        }) => {
            let member = Member::new(&source.info().camera, config, options.link);
            roster.add_opened(member, source, options.duration);
            mpsc::channel(1).1
        }
        Inputs::Many {
            configs, changes, ..
        } => {
            roster.apply(configs);
            changes
        }
    };
    tokio::spawn(roster.supervise(changes, out, stop))
}

/// Separates a truncated input, which is part of the summary, from other failures.
///
/// # Errors
/// Any other failure.
fn cut(failure: Option<PipelineError>) -> Result<Option<SourceError>, PipelineError> {
    match failure {
        Some(PipelineError::Source(cut @ SourceError::Truncated { .. })) => Ok(Some(cut)),
        Some(failure) => Err(failure),
        None => Ok(None),
    }
}

/// The stages from the batcher to the detector.
struct Stages {
    output: mpsc::Receiver<Batch>,
    threads: Threads,
}

impl Stages {
    /// Starts the stages after the batcher. `batches`: the batcher's output and its outcome.
    fn start(
        batches: (mpsc::Receiver<Batch>, Outcome<()>),
        scaler: Scaler,
        detections: DetectionSource,
        observer: Arc<dyn Observer>,
    ) -> Self {
        let (input, batched) = batches;
        let o = observer.clone();
        let scale = move |scaler: &mut Scaler, mut batch: Batch| {
            batch.timed("scale", &*o, |batch| scaler.prepare(batch));
            Ok(batch)
        };
        let detect = move |detections: &mut DetectionSource, mut batch: Batch| {
            batch.timed("detect", &*observer, |batch| detections.detect(batch));
            Ok(batch)
        };
        let (input, scaled) = stage::transform("scale", scaler, input, scale);
        let (output, detected) = stage::transform("detect", detections, input, detect);
        Stages {
            output,
            threads: Threads {
                batched,
                scaled,
                detected,
            },
        }
    }
}

struct Threads {
    batched: Outcome<()>,
    scaled: Outcome<Scaler>,
    detected: Outcome<DetectionSource>,
}

impl Threads {
    /// Waits for the stages. Returns the detector's time inside ONNX Runtime, and the number of given
    /// detections whose frames did not come.
    ///
    /// # Errors
    /// The failure of the last stage that failed.
    async fn join(self) -> Result<(Duration, u64), PipelineError> {
        let detected = joined(self.detected).await;
        let (scaled, batched) = (joined(self.scaled).await, joined(self.batched).await);
        let detected = detected?;
        scaled?;
        batched?;
        Ok((detected.busy(), detected.unused()))
    }
}

/// Waits for `work`, at most for `limit`. If `in_time` is false (the run timed out), does not wait:
/// `work` must be ready already.
async fn within<T>(
    limit: Option<Duration>,
    in_time: bool,
    work: impl Future<Output = T>,
) -> Option<T> {
    match limit {
        None => Some(work.await),
        Some(limit) => {
            let limit = if in_time { limit } else { Duration::ZERO };
            tokio::time::timeout(limit, work).await.ok()
        }
    }
}
