//! Reads one camera, or one recording, on its own thread, and reconnects to a camera after an
//! interruption.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use crate::clock;
use crate::frame::{CameraState, Frame};
use crate::pipeline::batcher::{Batcher, Lane};
use crate::pipeline::cameras::Member;
use crate::pipeline::error::PipelineError;
use crate::pipeline::observer::Observer;
use crate::pipeline::stage::{self, Outcome, caught};
use crate::source::reconnect::Reconnect;
use crate::source::{CameraConfig, Source, SourceError, SourceOptions};
use crate::time::Seconds;

/// Function that opens a camera.
pub type Opener = Arc<
    dyn Fn(&CameraConfig, &SourceOptions) -> Result<Box<dyn Source>, SourceError> + Send + Sync,
>;

/// The consequence of a failure of an input, of a network on its frames, or of its tracker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailurePolicy {
    /// The failure ends the run, which has one input; but a live source that fails is reconnected.
    EndRun,
    /// The failure is counted and logged, and other cameras continue.
    Isolate,
}

impl FailurePolicy {
    /// Whether an input with these settings is opened again after an interruption.
    pub(super) fn reconnects(self, config: &CameraConfig) -> bool {
        match self {
            FailurePolicy::EndRun => config.is_live(),
            FailurePolicy::Isolate => config.has_address(),
        }
    }
}

/// One reader's work.
pub(super) struct Reader {
    pub member: Member,
    pub lane: Lane,
    pub batcher: Arc<Batcher>,
    pub open: Opener,
    pub policy: FailurePolicy,
    pub observer: Arc<dyn Observer>,
    /// The source, if it is open already.
    pub opened: Option<Box<dyn Source>>,
    /// Time for which a live source is read; without end if absent.
    pub duration: Option<Seconds>,
    /// Presentation time of the first frame.
    pub first: Option<Seconds>,
}

/// The reason for which a connection ended.
enum End {
    /// Nothing more is to be read.
    Finished,
    /// The camera was lost.
    Lost,
}

impl Reader {
    /// Starts the thread. The thread ends when the link is stopped, at the end of a recording, and
    /// at an error that does not lead to another attempt.
    ///
    /// # Errors
    /// The error of the input, if it does not lead to another attempt.
    pub fn start(self) -> Outcome<()> {
        stage::spawn("decode", move || self.run())
    }

    fn run(mut self) -> Result<(), PipelineError> {
        let Member {
            name, config, link, ..
        } = self.member.clone();
        let mut state = Reconnect::new(&config, fastrand::u64(..));
        let mut connected = false;
        let mut result = Ok(());
        while !link.stopped() {
            link.mark_active();
            let reason = match caught("decode", || self.run_once(&mut state, &mut connected)) {
                Ok(End::Finished) => break,
                Ok(End::Lost) => "the stream has ended".to_string(),
                Err(e) if self.policy.reconnects(&config) => e.to_string(),
                // A repeated file that was read before is opened again, because the cause may be
                // temporary, such as a lack of file descriptors.
                Err(e) if connected && config.repeat && self.policy == FailurePolicy::Isolate => {
                    e.to_string()
                }
                Err(e) => {
                    result = Err(e);
                    break;
                }
            };
            link.failed(&name, &reason);
            link.set_state(CameraState::Offline);
            link.pause(state.failed(&config, link.now()));
        }
        link.set_state(CameraState::Ended);
        result
    }

    /// Opens the source and passes its frames to the batcher, until it ends.
    ///
    /// # Errors
    /// If the source cannot be opened, or a frame cannot be read.
    fn run_once(
        &mut self,
        state: &mut Reconnect,
        connected: &mut bool,
    ) -> Result<End, PipelineError> {
        let link = self.member.link.clone();
        let mut source = match self.opened.take() {
            Some(source) => source,
            None => {
                let options = SourceOptions {
                    camera: Some(self.member.name.to_string()),
                    link: link.clone(),
                    ..SourceOptions::default()
                };
                let config = state.opening(&self.member.config, link.now());
                (self.open)(&config, &options)?
            }
        };
        state.opened(link.now());
        if std::mem::replace(connected, true) {
            link.count_reconnect();
        }
        let live = source.info().live;
        while !link.stopped() {
            link.mark_active();
            let start = Instant::now();
            let Some(frame) = source.next_frame()? else {
                // A request to stop also ends a source.
                let lost = live && self.policy.reconnects(&self.member.config) && !link.stopped();
                return Ok(if lost { End::Lost } else { End::Finished });
            };
            self.observer.stage("decode", start.elapsed(), 1);
            if !self.pass_on(frame, live, state) {
                return Ok(End::Finished);
            }
        }
        Ok(End::Finished)
    }

    /// Numbers a frame and passes it to the batcher. Returns `false` if reading is to end.
    fn pass_on(&mut self, mut frame: Frame, live: bool, state: &mut Reconnect) -> bool {
        let Member {
            config,
            counts,
            link,
            position,
            ..
        } = &self.member;
        link.set_state(CameraState::Online);
        counts.read.fetch_add(1, Ordering::Relaxed);
        if live && frame.time.is_none() {
            frame.time = Some(clock::arrival());
        }
        {
            let mut position = position.lock().unwrap_or_else(PoisonError::into_inner);
            // If this reader hung, another may have taken its place.
            if link.stopped() {
                return false;
            }
            state.frame(&mut frame, &mut position, config, live, link.now());
            let first = *self.first.get_or_insert(frame.pts);
            if live && self.duration.is_some_and(|d| frame.pts - first >= d) {
                return false;
            }
            if live {
                if self.batcher.offer(self.lane, frame) {
                    counts.detector_busy.fetch_add(1, Ordering::Relaxed);
                }
                return true;
            }
        }
        self.batcher.offer_patiently(self.lane, frame)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;
    use std::time::Duration;

    use super::*;
    use crate::address::Address;
    use crate::pipeline::batcher::BatchLimits;
    use crate::pipeline::observer::NoObserver;
    use crate::source::link::{Link, ManualTimer};
    use crate::source::{SourceInfo, SourceOptions};

    /// A source whose behaviour depends on the number of its opening and of its frame. Frames are
    /// 0.1 s apart, on the timer too.
    struct Scripted {
        info: SourceInfo,
        opening: u64,
        frame: u64,
        timer: Arc<ManualTimer>,
    }

    impl Source for Scripted {
        fn info(&self) -> &SourceInfo {
            &self.info
        }

        fn next_frame(&mut self) -> Result<Option<Frame>, SourceError> {
            self.frame += 1;
            self.timer.advance(0.1);
            match (self.opening, self.frame) {
                (1, 4) => panic!("a decoder that crashes"),
                (2, 4) => Err(SourceError::CameraLost {
                    input: "scripted".into(),
                }),
                (3, 6) => Ok(None),
                (_, n) => Ok(Some(Frame {
                    camera: "scripted".into(),
                    number: n,
                    pts: Seconds(0.1 * n as f64),
                    time: None,
                    width: 64,
                    height: 64,
                    image: None,
                    restart: false,
                })),
            }
        }
    }

    struct Fixture {
        reader: Reader,
        batcher: Arc<Batcher>,
        openings: Arc<AtomicU64>,
    }

    fn fixture(policy: FailurePolicy, url: &str, realtime: bool, keep_ids: f64) -> Fixture {
        let limits = BatchLimits {
            size: 1,
            wait: Duration::ZERO,
            in_progress: 1,
            per_recording: 1,
        };
        let batcher = Arc::new(Batcher::new(limits, |f| {
            [(f.width as usize, f.height as usize), (0, 0)]
        }));
        let (timer, openings) = (
            Arc::new(ManualTimer::default()),
            Arc::new(AtomicU64::new(0)),
        );
        let (clock, count) = (timer.clone(), openings.clone());
        let open: Opener = Arc::new(move |_, _| {
            let info = SourceInfo {
                camera: "scripted".into(),
                width: 64,
                height: 64,
                frame_rate: 10.0,
                frames: None,
                // Not dropped by the batcher, so that the test sees every frame.
                live: false,
                has_pixels: false,
            };
            Ok(Box::new(Scripted {
                info,
                opening: count.fetch_add(1, Ordering::Relaxed) + 1,
                frame: 0,
                timer: clock.clone(),
            }))
        });
        let config = CameraConfig {
            url: Address::new(url),
            realtime,
            retry_after: 10.0,
            retry_at_most: 10.0,
            keep_ids,
            ..CameraConfig::default()
        };
        let reader = Reader {
            member: Member::new("scripted", config, Link::with_timer(timer)),
            lane: batcher.join(1.0),
            batcher: batcher.clone(),
            open,
            policy,
            observer: Arc::new(NoObserver),
            opened: None,
            duration: None,
            first: None,
        };
        Fixture {
            reader,
            batcher,
            openings,
        }
    }

    fn frames(batcher: &Batcher, n: usize) -> Vec<Frame> {
        let mut frames = Vec::new();
        while frames.len() < n {
            let batch = batcher.next().expect("a frame");
            frames.extend(batch.frames.into_iter().map(|w| w.frame));
            batcher.done(&[]);
        }
        frames
    }

    #[test]
    fn numbers_and_times_continue_after_a_crash_and_a_lost_connection() {
        let f = fixture(FailurePolicy::Isolate, "rtsp://scripted/1", true, 3.0);
        let link = f.reader.member.link.clone();
        let done = f.reader.start();
        let frames = frames(&f.batcher, 11);
        done.blocking_recv()
            .expect("it ends")
            .expect("without an error");
        let numbers: Vec<u64> = frames.iter().map(|f| f.number).collect();
        assert_eq!(numbers, (1..=11).collect::<Vec<_>>());
        // The pauses of 10 s, randomised by 20 %, and the frame that failed.
        let gaps: Vec<f64> = frames.windows(2).map(|w| (w[1].pts - w[0].pts).0).collect();
        for (i, gap) in gaps.iter().enumerate() {
            let expected = if [2, 5].contains(&i) {
                8.0..=12.4
            } else {
                0.09..=0.11
            };
            assert!(expected.contains(gap), "{gaps:?}");
        }
        let restarts = frames.iter().filter(|f| f.restart).map(|f| f.number);
        assert_eq!(restarts.collect::<Vec<_>>(), [4, 7]);
        assert_eq!(
            (
                link.failures(),
                link.reconnects(),
                f.openings.load(Ordering::Relaxed),
                link.state()
            ),
            (2, 2, 3, CameraState::Ended)
        );
    }

    #[test]
    fn the_first_error_of_a_recording_ends_its_reader() {
        let f = fixture(FailurePolicy::EndRun, "clip.mp4", false, 3.0);
        let done = f.reader.start();
        assert_eq!(frames(&f.batcher, 3).len(), 3);
        let error = done.blocking_recv().expect("it ends").expect_err("a crash");
        assert!(
            error.to_string().contains("a decoder that crashes"),
            "{error}"
        );
        assert_eq!(f.openings.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_camera_is_read_for_its_duration() {
        let f = fixture(FailurePolicy::EndRun, "rtsp://scripted/1", true, 30.0);
        let mut source =
            (f.reader.open)(&CameraConfig::default(), &SourceOptions::default()).expect("it opens");
        struct Live(Box<dyn Source>, SourceInfo);
        impl Source for Live {
            fn info(&self) -> &SourceInfo {
                &self.1
            }
            fn next_frame(&mut self) -> Result<Option<Frame>, SourceError> {
                self.0.next_frame()
            }
        }
        source.next_frame().expect("a frame");
        let info = SourceInfo {
            live: true,
            ..source.info().clone()
        };
        let reader = Reader {
            opened: Some(Box::new(Live(source, info))),
            duration: Some(Seconds(0.05)),
            ..f.reader
        };
        let (counts, batcher) = (reader.member.counts.clone(), f.batcher);
        let done = reader.start();
        done.blocking_recv()
            .expect("it ends")
            .expect("without an error");
        // The frame at 0.2 s, and the one at 0.3 s, which is beyond the duration.
        assert_eq!(counts.read.load(Ordering::Relaxed), 2);
        assert_eq!(batcher.waiting(), 1);
    }
}
