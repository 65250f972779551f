//! The wiring of one input's run: decode, scale, detect, embed, track, write.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ndarray::Array4;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::detect::{Detector, Letterbox};
use crate::detection::{Detection, Embeddings};
use crate::embed::Embedder;
use crate::frame::Frame;
use crate::geometry::Affine;
use crate::infer::InferError;
use crate::pipeline::camera_tracker::{CameraTracker, Embedded, Names, TrackedFrame};
use crate::pipeline::camera_watch::CameraWatch;
use crate::pipeline::metrics::{Progress, Summary};
use crate::pipeline::stage::{self, FAILURES, Outcome, each};
use crate::sink::{OutputConfig, Sink, SinkError};
use crate::source::{Link, Source, SourceError};
use crate::track::identity::IdentityRegistry;
use crate::track::{TrackError, Tracker};
use crate::trajectory::EventBuilder;

/// What can end a run early.
#[derive(Debug, Error)]
pub enum PipelineError {
    /// The input.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A network.
    #[error(transparent)]
    Infer(#[from] InferError),
    /// The tracker refused a frame.
    #[error("frame {frame} of {camera}: {source}")]
    Track {
        /// The camera's short name.
        camera: Arc<str>,
        /// The frame.
        frame: u64,
        /// Why.
        source: TrackError,
    },
    /// A way out.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// A frame without pixels met a stage that needs them.
    #[error(
        "frame {frame} of {camera} has no pixels; give --detections and --no-embed to track without pictures"
    )]
    NoPixels {
        /// The camera's short name.
        camera: Arc<str>,
        /// The frame.
        frame: u64,
    },
    /// The end of the run does not come: a stage waits for a sink that takes nothing.
    #[error(
        "after {seconds} s the events under way have not been written: a way out hangs, as a disk or a pipe that nobody reads does; it is left behind"
    )]
    Hung {
        /// How long it was waited for.
        seconds: u64,
    },
    /// A bug: a stage panicked.
    #[error(
        "the stage '{stage}' crashed ({message}); this is a bug of twintrack, please report it"
    )]
    Panic {
        /// The stage.
        stage: &'static str,
        /// What it said.
        message: String,
    },
    /// A network gave nothing for a frame.
    #[error(
        "the stage '{stage}' gave no answer for a frame; this is a bug of twintrack, please report it"
    )]
    NoAnswer {
        /// The stage.
        stage: &'static str,
    },
    /// A thread could not be started.
    #[error("a thread could not be started; is the limit of processes reached?")]
    Thread,
}

/// Who finds the people.
pub enum DetectionSource {
    /// A detector.
    Network(Box<Detector>),
    /// Detections given beforehand, by frame number.
    Given(BTreeMap<u64, Vec<Detection>>),
}

/// Everything a run needs.
pub struct Pipeline {
    /// The frames.
    pub source: Box<dyn Source>,
    /// By which the source is told to stop: that of the options it was opened with.
    pub link: Link,
    /// Who finds the people.
    pub people: DetectionSource,
    /// Who tells them apart; by motion only when absent.
    pub embedder: Option<Embedder>,
    /// Who follows them.
    pub tracker: Tracker,
    /// Who knows them by name, or again after their tracks have ended.
    pub known: Option<IdentityRegistry>,
    /// Who writes the events down.
    pub events: EventBuilder,
    /// Where the events go.
    pub sinks: Vec<Box<dyn Sink>>,
    /// What is written.
    pub output: OutputConfig,
    /// Cancelled to stop: frames under way still come out.
    pub stop: CancellationToken,
    /// Counts as the run goes.
    pub progress: Arc<Progress>,
}

/// A frame scaled for the detector, where there is one.
struct Scaled {
    frame: Frame,
    camera: Option<Affine>,
    input: Option<(Array4<f32>, Letterbox)>,
}

/// A frame with its people; an error where a network failed at it.
struct Detected {
    frame: Frame,
    camera: Option<Affine>,
    detections: Result<Vec<Detection>, PipelineError>,
}

/// A frame with its people and their looks; an error where a network failed at it.
struct Looked {
    frame: Frame,
    camera: Option<Affine>,
    found: Result<(Vec<Detection>, Embeddings), PipelineError>,
}

impl Pipeline {
    /// Runs to the input's end, or until stopped. Files are finished in either case, and after an error too.
    ///
    /// # Errors
    /// The first thing that went wrong.
    pub async fn run(self) -> Result<Summary, PipelineError> {
        let started = Instant::now();
        let Pipeline {
            source,
            link,
            people,
            embedder,
            tracker,
            known,
            events,
            sinks,
            output,
            stop,
            progress,
        } = self;
        let live = source.info().live;
        let scaling = match &people {
            DetectionSource::Network(d) => Some(d.scaling().clone()),
            DetectionSource::Given(_) => None,
        };

        let interrupted = tokio::spawn({
            let (stop, link) = (stop.clone(), link.clone());
            async move {
                stop.cancelled().await;
                link.stop();
            }
        });
        let (frames, decoded) = decode(source, live, stop.clone(), progress.clone());
        let p = progress.clone();
        let watch = CameraWatch::new(tracker.config().camera_motion.from_pixels);
        let (scaled, scale_done) = stage::transform(
            "scale",
            (scaling, watch),
            frames,
            move |(scaling, watch), frame: Frame| {
                p.scale.time(|| {
                    let camera = watch.next(&frame);
                    let Some(scaling) = scaling else {
                        return Ok(Scaled {
                            frame,
                            camera,
                            input: None,
                        });
                    };
                    let image = frame.image.as_ref().ok_or_else(|| no_pixels(&frame))?;
                    let input = scaling.batch_of_one(image);
                    Ok(Scaled {
                        frame,
                        camera,
                        input: Some(input),
                    })
                })
            },
        );
        let p = progress.clone();
        let (detected, detector) =
            stage::transform("detect", people, scaled, move |people, s: Scaled| {
                p.detect.time(|| {
                    let detections = match (people, s.input) {
                        (DetectionSource::Network(d), Some((input, letterbox))) => {
                            one("detect", || {
                                Ok(d.detect(
                                    input.view(),
                                    &[(letterbox, (s.frame.width, s.frame.height))],
                                )?
                                .pop()
                                .unwrap_or_default())
                            })
                        }
                        (DetectionSource::Given(by_frame), _) => {
                            Ok(by_frame.remove(&s.frame.number).unwrap_or_default())
                        }
                        (DetectionSource::Network(_), None) => return Err(no_pixels(&s.frame)),
                    };
                    p.detections.fetch_add(
                        detections.as_ref().map_or(0, Vec::len) as u64,
                        Ordering::Relaxed,
                    );
                    Ok(Detected {
                        frame: s.frame,
                        camera: s.camera,
                        detections,
                    })
                })
            });
        let p = progress.clone();
        let (embedded, embedder) =
            stage::transform("embed", embedder, detected, move |embedder, d: Detected| {
                p.embed.time(|| {
                    let Detected {
                        frame,
                        camera,
                        detections,
                    } = d;
                    let image = frame.image.as_ref();
                    let looks = |detections: Vec<Detection>| match embedder {
                        Some(e) => {
                            let image = image.ok_or_else(|| no_pixels(&frame))?;
                            one("embed", || Ok(e.embed(image, &detections)?))
                                .map(|embeddings| (detections, embeddings))
                        }
                        None => Ok((detections, Embeddings::none())),
                    };
                    match detections.and_then(looks) {
                        Err(e @ PipelineError::NoPixels { .. }) => Err(e),
                        found => Ok(Looked {
                            frame,
                            camera,
                            found,
                        }),
                    }
                })
            });
        let follower = CameraTracker::new(tracker, events, output);
        let (told, tracked) = follow(follower, known, embedded, progress.clone());
        let written = write(sinks, told, progress.clone());

        // The sinks' error comes first: the stages before only notice that nobody takes their items.
        let written = joined(written).await;
        let tracked = tracked.await.unwrap_or(Err(PipelineError::Panic {
            stage: "track",
            message: "its task was lost".into(),
        }));
        let (decoded, scaled) = (joined(decoded).await, joined(scale_done).await);
        let (detector, embedder) = (joined(detector).await, joined(embedder).await);
        interrupted.abort();
        written?;
        tracked?;
        let embedder = embedder?;
        let people = detector?;
        scaled?;
        let cut = decoded?;
        let detector_time = if let DetectionSource::Network(d) = &people {
            d.model().busy()
        } else {
            Duration::ZERO
        };
        let (p, count) = (&progress, |c: &std::sync::atomic::AtomicU64| {
            c.load(Ordering::Relaxed)
        });
        Ok(Summary {
            frames: count(&p.frames),
            detections: count(&p.detections),
            people: count(&p.people),
            dropped: count(&p.dropped),
            damaged: link.damaged_frames(),
            cut,
            failed: count(&p.failed),
            wall: started.elapsed(),
            inference: detector_time + embedder.map_or(Duration::ZERO, |e| e.model().busy()),
            stages: vec![
                ("decode", p.decode.busy()),
                ("scale", p.scale.busy()),
                ("detect", p.detect.busy()),
                ("embed", p.embed.busy()),
                ("track", p.track.busy()),
                ("write", p.write.busy()),
            ],
            interrupted: !p.ended.load(Ordering::Relaxed),
        })
    }
}

/// A network's work on one frame, tried again where it fails or panics.
fn one<T>(
    stage: &'static str,
    mut work: impl FnMut() -> Result<T, PipelineError>,
) -> Result<T, PipelineError> {
    each(stage, 1, |_| Ok(vec![work()?]))
        .pop()
        .unwrap_or(Err(PipelineError::NoAnswer { stage }))
}

pub(super) fn no_pixels(frame: &Frame) -> PipelineError {
    PipelineError::NoPixels {
        camera: frame.camera.clone(),
        frame: frame.number,
    }
}

pub(super) async fn joined<T>(outcome: Outcome<T>) -> Result<T, PipelineError> {
    outcome.await.unwrap_or(Err(PipelineError::Thread))
}

/// Reads the source. A file waits for the stages behind; a live source does not: a frame nobody has room for is dropped.
/// A missing end is an end, and given back.
fn decode(
    mut source: Box<dyn Source>,
    live: bool,
    stop: CancellationToken,
    progress: Arc<Progress>,
) -> (mpsc::Receiver<Frame>, Outcome<Option<SourceError>>) {
    let (tx, rx) = mpsc::channel(if live { 1 } else { stage::CAPACITY });
    let outcome = stage::spawn("decode", move || {
        while !stop.is_cancelled() {
            let frame = match progress.decode.time(|| source.next_frame()) {
                Err(cut @ SourceError::Truncated { .. }) => {
                    progress
                        .ended
                        .store(!stop.is_cancelled(), Ordering::Relaxed);
                    return Ok(Some(cut));
                }
                frame => frame?,
            };
            let Some(frame) = frame else {
                progress
                    .ended
                    .store(!stop.is_cancelled(), Ordering::Relaxed);
                break;
            };
            if live {
                match tx.try_send(frame) {
                    Ok(()) => {}
                    Err(mpsc::error::TrySendError::Full(_)) => {
                        progress.dropped.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(mpsc::error::TrySendError::Closed(_)) => break,
                }
            } else if tx.blocking_send(frame).is_err() {
                break;
            }
        }
        Ok(None)
    });
    (rx, outcome)
}

/// Associates, on the async runtime: it computes for microseconds and never blocks.
fn follow(
    mut follower: CameraTracker,
    mut known: Option<IdentityRegistry>,
    mut input: mpsc::Receiver<Looked>,
    progress: Arc<Progress>,
) -> (
    mpsc::Receiver<TrackedFrame>,
    tokio::task::JoinHandle<Result<(), PipelineError>>,
) {
    let (tx, rx) = mpsc::channel(stage::CAPACITY);
    let task = tokio::spawn(async move {
        let mut failures = 0;
        while let Some(Looked {
            frame,
            camera,
            found,
        }) = input.recv().await
        {
            let (detections, embeddings) = match found {
                Ok(found) => found,
                Err(error) => {
                    failures += 1;
                    if failures >= FAILURES {
                        return Err(error);
                    }
                    progress.failed.fetch_add(1, Ordering::Relaxed);
                    tracing::error!(camera = %frame.camera, frame = frame.number, %error, "a network fails at a frame, twice: the frame is left out");
                    follower.skip(&frame, camera);
                    continue;
                }
            };
            failures = 0;
            let embedded = Embedded {
                frame,
                camera,
                detections,
                embeddings,
            };
            let names = known.as_mut().map(|people| Names { people, now: None });
            let told = progress.track.time(|| follower.follow(embedded, names))?;
            progress.people.store(follower.people(), Ordering::Relaxed);
            if tx.send(told).await.is_err() {
                return Ok(());
            }
        }
        let _ = tx.send(follower.finish(known.as_mut())).await; // the sinks may have failed: their own error tells
        Ok(())
    });
    (rx, task)
}

/// Hands the events to every sink, and finishes them whatever happened.
pub(super) fn write(
    mut sinks: Vec<Box<dyn Sink>>,
    mut input: mpsc::Receiver<TrackedFrame>,
    progress: Arc<Progress>,
) -> Outcome<()> {
    stage::spawn("write", move || {
        let mut deliver = |told: TrackedFrame| -> Result<(), SinkError> {
            for sink in &mut sinks {
                if let Some(finished) = &told.frame {
                    sink.frame(finished)?;
                }
                told.ended.iter().try_for_each(|e| sink.ended(e))?;
                told.status.iter().try_for_each(|e| sink.status(e))?;
            }
            Ok(())
        };
        let mut result = Ok(());
        while let Some(told) = input.blocking_recv() {
            let counts = u64::from(told.frame.is_some());
            result = progress.write.time(|| deliver(told));
            if result.is_err() {
                break;
            }
            progress.frames.fetch_add(counts, Ordering::Relaxed);
        }
        drop(input); // the stages before must not wait for room while files are finished
        sinks.iter_mut().for_each(|s| s.close());
        let finished: Vec<Result<(), SinkError>> = sinks.iter_mut().map(|s| s.finish()).collect();
        result?;
        finished.into_iter().collect::<Result<(), SinkError>>()?;
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// A sink that notes what is asked of it.
    struct Noting(&'static str, Arc<Mutex<Vec<String>>>);

    impl Sink for Noting {
        fn frame(&mut self, _: &crate::sink::FrameResult) -> Result<(), SinkError> {
            Ok(())
        }

        fn close(&mut self) {
            self.1
                .lock()
                .expect("whole")
                .push(format!("close {}", self.0));
        }

        fn finish(&mut self) -> Result<(), SinkError> {
            self.1
                .lock()
                .expect("whole")
                .push(format!("finish {}", self.0));
            Ok(())
        }
    }

    /// Each sink had its time after the one before: two receivers that are away took twice as long
    /// as allowed.
    #[tokio::test]
    async fn the_time_to_finish_runs_for_all_sinks_at_once() {
        let noted = Arc::<Mutex<Vec<String>>>::default();
        let sinks: Vec<Box<dyn Sink>> = vec![
            Box::new(Noting("a", noted.clone())),
            Box::new(Noting("b", noted.clone())),
        ];
        let (_, told) = mpsc::channel(1);
        joined(write(sinks, told, Arc::default()))
            .await
            .expect("written");
        assert_eq!(
            *noted.lock().expect("whole"),
            ["close a", "close b", "finish a", "finish b"]
        );
    }
}
