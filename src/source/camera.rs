//! A camera that is read for weeks: whenever it goes away it is opened again, with growing pauses, until it is back.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::address::Address;
use crate::frame::{CameraState, Frame};
use crate::range::{OutOfRange, within};
use crate::secret::Secret;
use crate::source::link::Link;
use crate::source::slowness::Slowness;
use crate::source::source::{Source, SourceError, SourceInfo, SourceOptions, is_camera};
use crate::source::video::{Patience, Video};
use crate::time::{Seconds, WallTime};

/// How RTSP carries pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Inside the connection that was opened: nothing is lost, firewalls let it through.
    #[default]
    Tcp,
    /// In packets of its own: a little sooner, and lossy. Falls back to TCP where the camera refuses.
    Udp,
}

impl Transport {
    /// What FFmpeg is to be told, in OpenCV's way. It takes orders for all cameras of a process at once, by the environment.
    ///
    /// Told nothing else, it watches twenty frames of a camera to learn its rate, which nobody here asks for: two seconds at each
    /// opening, at ten frames a second.
    pub fn ffmpeg_options(self) -> String {
        let transport = match self {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp+tcp",
        };
        format!("rtsp_transport;{transport}|fpsprobesize;0|analyzeduration;2000000")
    }
}

/// How a camera is reached and read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CameraConfig {
    /// Address: rtsp://host/path, http://host/stream.mjpg, or /dev/video0. A file's path plays the file as a camera.
    pub url: Address,
    /// User name, where the camera asks for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Password. Better kept in `password_env` or `password_file`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// Environment variable that holds the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_env: Option<String>,
    /// File whose first line is the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// How RTSP carries pictures: tcp or udp; one for all cameras of a process.
    pub transport: Transport,
    /// Time the camera may take to answer, seconds. It gets more, up to four times as much, while attempts run out of it.
    pub open_timeout: f64,
    /// Time without a frame after which the camera counts as gone, seconds. One that gives few frames gets more in the same way.
    pub read_timeout: f64,
    /// First pause before it is opened again, seconds. It doubles with each failure.
    pub retry_after: f64,
    /// Longest such pause, seconds. Each is varied by a fifth, so that cameras do not all come back in one moment.
    pub retry_at_most: f64,
    /// Time without a sign of life from the decoder, seconds, after which it counts as hung and another is begun.
    pub hang_timeout: f64,
    /// After an interruption of at most this, seconds, tracks go on with their ids; after a longer one all start anew.
    pub keep_ids: f64,
    /// At most so many frames a second, evenly; all when absent. Others are not even converted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_fps: Option<f64>,
    /// A frame that comes so long after its time, seconds, is left out: after a hold-up the newest counts.
    pub late: f64,
    /// A file plays at its own pace and waits for nobody, as a camera does. `false`: as fast as it is tracked, every frame.
    pub realtime: bool,
    /// A file begins anew at its end.
    pub repeat: bool,
    /// What the address gives is a recording, which plays as a file does; or a camera, opened again whenever it ends. Absent:
    /// over HTTP a video of known length is a recording, everything else is a camera.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recorded: Option<bool>,
    /// Share of the detector's time, beside other cameras' weights, when there is not enough for all.
    pub weight: f64,
    /// Where nothing has moved, the networks do not look: what they found before is taken to hold, for at most two seconds.
    pub motion_gate: bool,
}

impl Default for CameraConfig {
    fn default() -> Self {
        CameraConfig {
            url: Address::default(),
            user: None,
            password: None,
            password_env: None,
            password_file: None,
            transport: Transport::Tcp,
            open_timeout: 2.0,
            read_timeout: 2.0,
            retry_after: 0.5,
            retry_at_most: 1.0,
            hang_timeout: 20.0,
            keep_ids: 3.0,
            target_fps: None,
            late: 0.5,
            realtime: true,
            repeat: false,
            recorded: None,
            weight: 1.0,
            motion_gate: false,
        }
    }
}

impl CameraConfig {
    /// Refuses values outside their ranges, and what contradicts itself.
    ///
    /// # Errors
    /// The first such value.
    pub fn validate(&self, name: &str) -> Result<(), OutOfRange> {
        let key = |k: &str| format!("cameras.{name}.{k}");
        within(&key("open_timeout"), self.open_timeout, 0.1, 600.0)?;
        within(&key("read_timeout"), self.read_timeout, 0.1, 600.0)?;
        within(&key("retry_after"), self.retry_after, 0.05, 600.0)?;
        within(
            &key("retry_at_most"),
            self.retry_at_most,
            self.retry_after,
            3600.0,
        )?;
        within(
            &key("hang_timeout"),
            self.hang_timeout,
            4.0 * self.open_timeout.max(self.read_timeout) + 0.2,
            36000.0,
        )?;
        within(&key("keep_ids"), self.keep_ids, 0.0, 3600.0)?;
        within(&key("late"), self.late, 0.05, 60.0)?;
        self.target_fps.map_or(Ok(()), |rate| {
            within(&key("target_fps"), rate, 0.05, 1000.0)
        })?;
        within(&key("weight"), self.weight, 0.01, 100.0)
    }

    /// It has an address, in the network or of this machine's own; otherwise it is a file.
    pub fn has_address(&self) -> bool {
        is_camera(self.url.expose())
    }

    /// It waits for nobody: a camera, or a file that plays as one.
    pub fn is_live(&self) -> bool {
        self.realtime || (self.has_address() && self.recorded != Some(true))
    }

    /// The address to open, with user and password in it.
    ///
    /// # Errors
    /// When the password's variable or file is missing.
    pub fn address(&self) -> Result<Address, SourceError> {
        let fail = |reason: String| SourceError::Open {
            input: self.url.to_string(),
            kind: "a camera",
            reason,
        };
        let password = Secret::find(
            "password",
            &self.password,
            &self.password_env,
            &self.password_file,
        )
        .map_err(fail)?;
        let Some((scheme, rest)) = self.url.expose().split_once("://") else {
            return Ok(self.url.clone());
        };
        Ok(match (&self.user, password) {
            (None, None) => self.url.clone(),
            (user, password) => {
                let password = password
                    .map(|p| format!(":{}", escaped(p.expose())))
                    .unwrap_or_default();
                Address::new(format!(
                    "{scheme}://{}{password}@{rest}",
                    escaped(user.as_deref().unwrap_or_default())
                ))
            }
        })
    }
}

/// Characters that would end a user or password within an address, written as %XX.
fn escaped(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes()
        .map(|b| {
            if plain(b) {
                char::from(b).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect()
}

/// Pauses between attempts: doubling, bounded, varied by a fifth.
#[derive(Debug)]
pub struct Backoff {
    first: f64,
    longest: f64,
    failures: u32,
    rng: fastrand::Rng,
}

impl Backoff {
    /// Pauses from `first` to `longest` seconds.
    pub fn new(first: f64, longest: f64, seed: u64) -> Self {
        Backoff {
            first,
            longest,
            failures: 0,
            rng: fastrand::Rng::with_seed(seed),
        }
    }

    /// The pause after one more failure.
    pub fn pause(&mut self) -> Duration {
        let pause = (self.first * 2f64.powi(self.failures.min(30) as i32)).min(self.longest);
        self.failures += 1;
        Duration::from_secs_f64(pause * (0.8 + 0.4 * self.rng.f64()))
    }

    /// It worked: the next failure is a first one.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// A camera that comes back. Its first frame after an interruption is marked where tracks must start anew.
pub struct Camera {
    config: CameraConfig,
    options: SourceOptions,
    info: SourceInfo,
    stream: Option<Video>,
    backoff: Backoff,
    slowness: Slowness,
    /// When the stream was opened.
    opened: Instant,
    /// Frames given so far.
    frames: u64,
    /// The last frame: its presentation time, its size, and when it was given.
    last: Option<(Seconds, (u32, u32), Instant)>,
    /// Added to the stream's own times since the last opening.
    offset: Option<Seconds>,
}

/// What an address gave.
pub enum Opened {
    /// Frames without end.
    Camera(Box<Camera>),
    /// A recording, from its first frame on.
    Recording(Box<dyn Source>),
}

/// Opens the address of `config`, so that a wrong one is told at once; a camera's later interruptions are waited out.
///
/// # Errors
/// When it does not answer or refuses.
pub fn open(config: CameraConfig, options: &SourceOptions) -> Result<Opened, SourceError> {
    let live = SourceOptions {
        target_fps: config.target_fps.or(options.target_fps),
        late: Some(Seconds(config.late)),
        ..options.clone()
    };
    let slowness = Slowness::after(options.link.timeouts());
    let start = Instant::now();
    let stream = open_stream(&config, &live, &slowness);
    options
        .link
        .first_answer(stream.is_err() && start.elapsed().as_secs_f64() > 0.9 * config.open_timeout);
    let stream = stream?;
    if !stream.info().live {
        return Ok(Opened::Recording(Box::new(stream)));
    }
    let info = SourceInfo {
        frames: None,
        ..stream.info().clone()
    };
    let backoff = Backoff::new(config.retry_after, config.retry_at_most, fastrand::u64(..));
    Ok(Opened::Camera(Box::new(Camera {
        config,
        options: live,
        info,
        stream: Some(stream),
        backoff,
        slowness,
        opened: Instant::now(),
        frames: 0,
        last: None,
        offset: None,
    })))
}

impl Camera {
    fn link(&self) -> &Link {
        &self.options.link
    }

    fn reopen(&mut self) {
        let pause = self.backoff.pause();
        self.link().pause(pause);
        if self.link().stopped() {
            return;
        }
        self.link().beat();
        self.slowness.opened();
        let start = Instant::now();
        match open_stream(&self.config, &self.options, &self.slowness) {
            Ok(stream) => {
                self.stream = Some(stream);
                self.link().reconnected();
                self.offset = None;
                self.opened = Instant::now();
            }
            Err(e) => {
                self.slowness
                    .lost(start.elapsed().as_secs_f64(), self.shortest());
                self.link().failed(&self.info.camera, &e.to_string());
            }
        }
    }

    fn shortest(&self) -> f64 {
        self.config.open_timeout.min(self.config.read_timeout)
    }

    /// The frame on this camera's own clock, which goes on over interruptions as the wall's does.
    fn placed(&mut self, frame: Frame) -> Frame {
        let now = Instant::now();
        let size = (frame.width, frame.height);
        let offset = *self.offset.get_or_insert_with(|| match self.last {
            Some((pts, _, at)) => pts + Seconds((now - at).as_secs_f64()) - frame.pts,
            None => Seconds::ZERO,
        });
        let pts = frame.pts + offset;
        let restart = self
            .last
            .is_some_and(|(before, old, _)| old != size || (pts - before).0 > self.config.keep_ids);
        self.last = Some((pts, size, now));
        self.frames += 1;
        self.backoff.reset();
        self.slowness
            .frame(frame.number, frame.pts, self.config.read_timeout);
        self.link().set(CameraState::Online);
        Frame {
            number: self.frames,
            pts,
            time: frame.time.or_else(|| Some(WallTime::arrival())),
            restart,
            ..frame
        }
    }
}

fn open_stream(
    config: &CameraConfig,
    options: &SourceOptions,
    slowness: &Slowness,
) -> Result<Video, SourceError> {
    let more = slowness.factor();
    let options = &SourceOptions {
        recorded: config.recorded,
        ..options.clone()
    };
    let patience = Patience {
        open: Seconds(more * config.open_timeout),
        read: Seconds(more * config.read_timeout),
    };
    Video::open_stream(&config.address()?, patience, options)
}

impl Source for Camera {
    fn info(&self) -> &SourceInfo {
        &self.info
    }

    fn next_frame(&mut self) -> Result<Option<Frame>, SourceError> {
        while !self.link().stopped() {
            self.link().beat();
            let Some(stream) = &mut self.stream else {
                self.reopen();
                continue;
            };
            let reason = match stream.next_frame() {
                Ok(Some(frame)) => return Ok(Some(self.placed(frame))),
                Ok(None) => "the stream has ended".to_string(),
                Err(e) => e.to_string(),
            };
            self.stream = None;
            self.link().failed(&self.info.camera, &reason);
            let since = self
                .last
                .map_or(self.opened, |(_, _, at)| at.max(self.opened));
            self.slowness
                .lost(since.elapsed().as_secs_f64(), self.shortest());
            self.link().set(CameraState::Offline);
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn camera(url: &str) -> CameraConfig {
        CameraConfig {
            url: Address::new(url),
            ..CameraConfig::default()
        }
    }

    #[test]
    fn user_and_password_are_put_into_the_address_and_never_shown() {
        let config = CameraConfig {
            user: Some("admin".into()),
            password: Some(Secret::new("p@ss/w:rd")),
            ..camera("rtsp://10.0.0.9/live")
        };
        assert_eq!(
            config.address().expect("both given").expose(),
            "rtsp://admin:p%40ss%2Fw%3Ard@10.0.0.9/live"
        );
        assert!(
            !format!("{config:?}").contains("p@ss") && !config.url.to_string().contains("p@ss")
        );
        assert!(
            !toml::to_string(&config)
                .expect("serialises")
                .contains("p@ss")
        );
        assert!(
            !toml::to_string(&camera("rtsp://u:secret@h/x"))
                .expect("serialises")
                .contains("secret")
        );
    }

    #[test]
    fn a_password_comes_from_a_file_or_what_is_missing_is_told() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "secret\nand more\n").expect("written");
        let config = CameraConfig {
            user: Some("u".into()),
            password_file: Some(file.path().into()),
            ..camera("rtsp://h/x")
        };
        assert_eq!(
            config.address().expect("a file").expose(),
            "rtsp://u:secret@h/x"
        );
        let none = CameraConfig {
            password_file: Some("/no/such/file".into()),
            ..camera("rtsp://h/x")
        };
        assert!(
            none.address()
                .expect_err("missing")
                .to_string()
                .contains("/no/such/file")
        );
        let unset = CameraConfig {
            password_env: Some("TWINTRACK_NO_SUCH_VARIABLE".into()),
            ..camera("rtsp://h/x")
        };
        assert!(
            unset
                .address()
                .expect_err("unset")
                .to_string()
                .contains("TWINTRACK_NO_SUCH_VARIABLE")
        );
    }

    #[test]
    fn ffmpeg_is_told_the_transport() {
        assert!(
            Transport::Tcp
                .ffmpeg_options()
                .starts_with("rtsp_transport;tcp|")
        );
        assert!(
            Transport::Udp
                .ffmpeg_options()
                .starts_with("rtsp_transport;udp+tcp|")
        );
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_start_anew_when_it_worked() {
        let mut b = Backoff::new(0.5, 3.0, 7);
        let pauses: Vec<f64> = (0..6).map(|_| b.pause().as_secs_f64()).collect();
        for (pause, want) in pauses.iter().zip([0.5, 1.0, 2.0, 3.0, 3.0, 3.0]) {
            assert!((0.8 * want..=1.2 * want).contains(pause), "{pauses:?}");
        }
        b.reset();
        assert!(b.pause().as_secs_f64() <= 0.6);
    }
}
