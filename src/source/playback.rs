//! A recording played like a camera: at its own frame rate, and repeatedly if the setting `repeat`
//! is true.

use std::time::Duration;

use crate::clock;
use crate::frame::{CameraState, Frame};
use crate::source::camera_config::CameraConfig;
use crate::source::error::SourceError;
use crate::source::open::{open as open_input, open_camera};
use crate::source::source::{Source, SourceInfo, SourceOptions};
use crate::time::Seconds;

/// Opens what a camera's settings name: a camera, or a recording played like one.
///
/// # Errors
/// If it does not answer, is missing, or is no video.
pub fn open(
    config: &CameraConfig,
    options: &SourceOptions,
) -> Result<Box<dyn Source>, SourceError> {
    let options = &SourceOptions {
        decoding: options.decoding.of_camera(),
        ..options.clone()
    };
    let source = from_start(config, options)?;
    Ok(if source.info().live {
        source
    } else {
        Box::new(Playback::new(source, config, options))
    })
}

/// Opens the input at its first frame.
fn from_start(
    config: &CameraConfig,
    options: &SourceOptions,
) -> Result<Box<dyn Source>, SourceError> {
    if config.has_address() {
        return open_camera(config, options);
    }
    let options = SourceOptions {
        target_fps: config.target_fps,
        ..options.clone()
    };
    open_input(config.url.expose(), &options)
}

/// A recording that is being played.
pub struct Playback {
    config: CameraConfig,
    options: SourceOptions,
    file: Box<dyn Source>,
    info: SourceInfo,
    /// Time at which the first frame was returned, on the link's clock, and the frame's
    /// presentation time.
    started: Option<(Seconds, Seconds)>,
    /// Added to number and time of frames: the frames of earlier rounds.
    offset: (u64, Seconds),
    last: Option<(u64, Seconds)>,
}

/// Assumed frame rate of files that state none, for the pause between two rounds.
const DEFAULT_RATE: f64 = 25.0;

impl Playback {
    fn new(file: Box<dyn Source>, config: &CameraConfig, options: &SourceOptions) -> Self {
        let frames = file.info().frames.filter(|_| !config.repeat);
        let info = SourceInfo {
            live: config.realtime,
            frames,
            ..file.info().clone()
        };
        Playback {
            config: config.clone(),
            options: options.clone(),
            file,
            info,
            started: None,
            offset: (0, Seconds::ZERO),
            last: None,
        }
    }

    /// The next frame, starting over at the end if `repeat` is set.
    fn read(&mut self) -> Result<Option<Frame>, SourceError> {
        match self.file.next_frame() {
            Ok(Some(frame)) => {
                return Ok(Some(Frame {
                    number: self.offset.0 + frame.number,
                    pts: self.offset.1 + frame.pts,
                    ..frame
                }));
            }
            Err(e @ SourceError::Truncated { .. }) if self.config.repeat => {
                tracing::warn!(camera = %self.info.camera, error = %e, "playing from the start again");
            }
            end => {
                end?;
            }
        }
        // A file without frames is not repeated: the loop would never end.
        let Some((number, pts)) = self.last.filter(|_| self.config.repeat) else {
            return Ok(None);
        };
        self.file = from_start(&self.config, &self.options)?;
        let Some(frame) = self.file.next_frame()? else {
            return Ok(None);
        };
        let rate = Some(self.info.frame_rate).filter(|r| *r > 0.1);
        let pause = Seconds(1.0 / rate.unwrap_or(DEFAULT_RATE));
        self.offset = (number + 1 - frame.number, pts + pause - frame.pts);
        Ok(Some(Frame {
            number: number + 1,
            pts: pts + pause,
            restart: true,
            ..frame
        }))
    }

    /// Waits until the frame is due. Returns at once when the link is stopped.
    fn wait(&mut self, pts: Seconds) {
        let link = &self.options.link;
        let &mut (start, first) = self.started.get_or_insert_with(|| (link.now(), pts));
        let due = start + Seconds((pts - first).0.max(0.0));
        link.pause(Duration::from_secs_f64((due - link.now()).0.max(0.0)));
    }
}

impl Source for Playback {
    fn info(&self) -> &SourceInfo {
        &self.info
    }

    fn next_frame(&mut self) -> Result<Option<Frame>, SourceError> {
        let Some(mut frame) = self.read()? else {
            return Ok(None);
        };
        if self.config.realtime {
            self.wait(frame.pts);
            frame.time = Some(clock::arrival());
        }
        self.last = Some((frame.number, frame.pts));
        self.options.link.set_state(CameraState::Online);
        Ok((!self.options.link.stopped()).then_some(frame))
    }
}

#[cfg(all(test, feature = "video"))]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::address::Address;
    use crate::source::link::{Link, ManualTimer};

    /// Frames of half a second of the sample clip, and the time that playing them took.
    fn play(config: CameraConfig, frames: usize) -> (Vec<Frame>, Seconds) {
        let clip = concat!(env!("CARGO_MANIFEST_DIR"), "/samples/pets2009-s2l1.mp4");
        let link = Link::with_timer(Arc::new(ManualTimer::default()));
        let options = SourceOptions {
            duration: Some(Seconds(0.5)),
            link: link.clone(),
            ..SourceOptions::default()
        };
        let config = CameraConfig {
            url: Address::new(clip),
            ..config
        };
        let mut source = open(&config, &options).expect("the clip opens");
        let got = (0..frames)
            .map_while(|_| source.next_frame().expect("no error"))
            .collect();
        (got, link.now())
    }

    #[test]
    fn numbers_and_times_of_a_repeated_file_continue_and_each_round_is_marked() {
        let (once, _) = play(
            CameraConfig {
                realtime: false,
                ..CameraConfig::default()
            },
            100,
        );
        let round = once.len();
        assert!((3..20).contains(&round), "{round}");
        let (frames, _) = play(
            CameraConfig {
                realtime: false,
                repeat: true,
                ..CameraConfig::default()
            },
            3 * round,
        );
        assert_eq!(
            frames.iter().map(|f| f.number).collect::<Vec<_>>(),
            (1..=3 * round as u64).collect::<Vec<_>>()
        );
        assert!(
            frames
                .windows(2)
                .all(|w| (0.05..0.3).contains(&(w[1].pts - w[0].pts).0))
        );
        let begun: Vec<usize> = (0..frames.len()).filter(|&i| frames[i].restart).collect();
        assert_eq!(begun, [round, 2 * round]);
    }

    #[test]
    fn in_real_time_a_recording_takes_its_own_time() {
        let (frames, took) = play(CameraConfig::default(), 100);
        let length = frames[frames.len() - 1].pts - frames[0].pts;
        assert!((took - length).0.abs() < 0.03, "{took} for {length}");
        assert!(frames.iter().all(|f| f.time.is_some()));
    }
}
