//! A recording that plays as a camera: at its own pace, and over and over where that is wanted.

use std::time::{Duration, Instant};

use crate::frame::{CameraState, Frame};
use crate::source::camera::{self, CameraConfig, Opened};
use crate::source::source::{self, Source, SourceError, SourceInfo, SourceOptions};
use crate::time::{Seconds, WallTime};

/// Opens what a camera's configuration names: a camera, or a recording that plays as one.
///
/// # Errors
/// When it does not answer, is missing, or is no video.
pub fn open(
    config: &CameraConfig,
    options: &SourceOptions,
) -> Result<Box<dyn Source>, SourceError> {
    Ok(match from_start(config, options)? {
        Opened::Camera(camera) => camera,
        Opened::Recording(file) => Box::new(Playback::of(file, config, options)),
    })
}

/// Opens it at its first frame.
fn from_start(config: &CameraConfig, options: &SourceOptions) -> Result<Opened, SourceError> {
    if config.has_address() {
        return camera::open(config.clone(), options);
    }
    let options = SourceOptions {
        target_fps: config.target_fps,
        ..options.clone()
    };
    source::open(config.url.expose(), &options).map(Opened::Recording)
}

/// A playing recording.
pub struct Playback {
    config: CameraConfig,
    options: SourceOptions,
    file: Box<dyn Source>,
    info: SourceInfo,
    /// When the first frame was given, and its time.
    started: Option<(Instant, Seconds)>,
    /// What earlier rounds add to a frame's number and time.
    offset: (u64, Seconds),
    last: Option<(u64, Seconds)>,
}

impl Playback {
    fn of(file: Box<dyn Source>, config: &CameraConfig, options: &SourceOptions) -> Self {
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

    /// The next frame of the file, or the first again.
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
                tracing::warn!(camera = %self.info.camera, error = %e, "the recording begins anew");
            }
            end => {
                end?;
            }
        }
        // A file of no frames is not begun anew without end.
        let Some((number, pts)) = self.last.filter(|_| self.config.repeat) else {
            return Ok(None);
        };
        let Opened::Recording(file) = from_start(&self.config, &self.options)? else {
            return Ok(None);
        };
        self.file = file;
        let Some(frame) = self.file.next_frame()? else {
            return Ok(None);
        };
        let pause = Seconds(
            1.0 / Some(self.info.frame_rate)
                .filter(|r| *r > 0.1)
                .unwrap_or(25.0),
        );
        self.offset = (number + 1 - frame.number, pts + pause - frame.pts);
        Ok(Some(Frame {
            number: number + 1,
            pts: pts + pause,
            restart: true,
            ..frame
        }))
    }

    /// Waits for the frame's moment, unless told to stop.
    fn wait(&mut self, pts: Seconds) {
        let &mut (start, first) = self.started.get_or_insert_with(|| (Instant::now(), pts));
        let due = start + Duration::from_secs_f64((pts - first).0.max(0.0));
        self.options
            .link
            .pause(due.saturating_duration_since(Instant::now()));
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
            frame.time = Some(WallTime::arrival());
        }
        self.last = Some((frame.number, frame.pts));
        self.options.link.set(CameraState::Online);
        Ok((!self.options.link.stopped()).then_some(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Address;

    fn play(config: CameraConfig, frames: usize) -> (Vec<Frame>, Duration) {
        let clip = concat!(env!("CARGO_MANIFEST_DIR"), "/samples/pets2009-s2l1.mp4");
        let options = SourceOptions {
            duration: Some(Seconds(0.5)),
            ..SourceOptions::default()
        };
        let mut source = open(
            &CameraConfig {
                url: Address::new(clip),
                ..config
            },
            &options,
        )
        .expect("the clip opens");
        let start = Instant::now();
        let got = (0..frames)
            .map_while(|_| source.next_frame().expect("no error"))
            .collect();
        (got, start.elapsed())
    }

    #[test]
    fn a_repeated_file_goes_on_in_number_and_time_and_says_where_it_began_anew() {
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
    fn in_real_time_a_file_takes_its_own_time() {
        let (frames, took) = play(CameraConfig::default(), 100);
        let length = frames[frames.len() - 1].pts - frames[0].pts;
        assert!(
            (took.as_secs_f64() - length.0).abs() < 0.3,
            "{took:?} for {length}"
        );
        assert!(frames.iter().all(|f| f.time.is_some()));
    }
}
