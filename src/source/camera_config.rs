//! The settings of one camera.

use std::collections::BTreeMap;
use std::path::PathBuf;

use derive_setters::Setters;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};

use crate::address::Address;
use crate::analytics::{GroundConfig, LineConfig, MaskConfig, SceneConfig, ZoneConfig};
use crate::range::{OutOfRange, within};
use crate::secret::Secret;
use crate::source::error::SourceError;
use crate::source::input::is_stream;

/// Transport of RTSP's media packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "serve", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Transport {
    /// Interleaved in the RTSP connection: no packet loss, passes firewalls.
    #[default]
    Tcp,
    /// UDP packets: slightly lower latency, lossy. Falls back to TCP if the camera does not
    /// support it.
    Udp,
}

impl Transport {
    /// The value of `OPENCV_FFMPEG_CAPTURE_OPTIONS`. The variable applies to all cameras of a
    /// process.
    ///
    /// `fpsprobesize;0` keeps FFmpeg from reading twenty frames at each opening to estimate a frame
    /// rate, which this process ignores.
    pub fn ffmpeg_options(self) -> String {
        let transport = match self {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp+tcp",
        };
        format!("rtsp_transport;{transport}|fpsprobesize;0|analyzeduration;2000000")
    }
}

/// The settings of one camera.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Setters)]
#[cfg_attr(feature = "serve", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct CameraConfig {
    /// Address of the camera or recording: rtsp://host/path, http://host/stream.mjpg, /dev/video0,
    /// or the path of a video file.
    pub url: Address,
    /// User name for the camera's login.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Password. Prefer `password_env` or `password_file`, which keep the password out of this
    /// file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// Environment variable that holds the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_env: Option<String>,
    /// File whose first line is the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// RTSP transport, tcp or udp; the same for all cameras of a process.
    pub transport: Transport,
    /// Timeout in seconds for opening the camera. After repeated timeouts it grows to at most four
    /// times this value.
    pub open_timeout: f64,
    /// Timeout in seconds for the next frame. It grows like `open_timeout`, for cameras with a low
    /// frame rate.
    pub read_timeout: f64,
    /// First pause in seconds before reconnecting. Each further failure doubles the
    /// pause.
    pub retry_after: f64,
    /// Maximum pause in seconds before reconnecting; at least `retry_after`. Each pause is
    /// randomised by 20 %, so that cameras do not reconnect all at once.
    pub retry_at_most: f64,
    /// A decoder that does not return for this many seconds is abandoned and replaced. Minimum: four
    /// times the longer of `open_timeout` and `read_timeout`, plus 0.2.
    pub hang_timeout: f64,
    /// Maximum length in seconds of an interruption after which tracks continue; after a longer one
    /// all tracks end.
    pub keep_ids: f64,
    /// Frames per second to process, 0.05 to 1000, evenly spaced; absent: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_fps: Option<f64>,
    /// Frames that are decoded more than this many seconds after they are due are dropped.
    pub late: f64,
    /// Play a file at its own frame rate, dropping frames like a camera. `false`: process every
    /// frame, as fast as possible.
    pub realtime: bool,
    /// Play a file again from its start when it ends.
    pub repeat: bool,
    /// `true`: the address is a recording, which ends; `false`: a camera, which is reconnected when
    /// its stream ends. Absent: a video of known duration over HTTP is a recording; all else is a
    /// camera.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recorded: Option<bool>,
    /// Share, 0.01 to 100, of the networks' time relative to other cameras, if the time is not
    /// enough for all.
    pub weight: f64,
    /// Skip the networks while nothing moves: the last detections are reused for at most 2 seconds.
    pub motion_gate: bool,
    /// Zones by name, in which people are counted.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub zones: BTreeMap<String, ZoneConfig>,
    /// Lines by name, over which people are counted.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub lines: BTreeMap<String, LineConfig>,
    /// Masks by name, in which people are ignored.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub masks: BTreeMap<String, MaskConfig>,
    /// Map from the picture to the ground, for positions and speeds in metres.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ground: Option<GroundConfig>,
    /// Labels, such as `site=north`, that a fleet's worker must have to get the camera. Without a
    /// fleet they have no effect.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// Priority, -100 to 100, within a fleet whose workers cannot hold all cameras: those of higher
    /// priority are held. Without a fleet it has no effect.
    pub priority: i32,
    /// Revision of the lease with which a fleet's worker holds the camera. Set by the worker; not
    /// part of a file.
    #[serde(skip)]
    pub lease: Option<u64>,
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
            zones: BTreeMap::new(),
            lines: BTreeMap::new(),
            masks: BTreeMap::new(),
            ground: None,
            labels: Vec::new(),
            priority: 0,
            lease: None,
        }
    }
}

impl CameraConfig {
    /// The settings for an input given on the command line. It is opened once before the run, so a
    /// slow camera gets the longest timeout at once.
    pub fn of_input(input: &str, recorded: Option<bool>) -> Self {
        const OPEN_TIMEOUT: f64 = 8.0;
        CameraConfig {
            url: Address::new(input),
            recorded,
            realtime: false,
            open_timeout: OPEN_TIMEOUT,
            hang_timeout: 4.0 * OPEN_TIMEOUT + 1.0,
            ..CameraConfig::default()
        }
    }

    /// Checks that every value is in its range.
    ///
    /// # Errors
    /// The first value outside its range; its key contains `name`, the camera's.
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
        within(&key("priority"), self.priority, -100, 100)?;
        within(&key("weight"), self.weight, 0.01, 100.0)
    }

    /// The zones, lines, masks and ground plane.
    pub fn scene(&self) -> SceneConfig {
        SceneConfig::default()
            .with_zones(self.zones.clone())
            .with_lines(self.lines.clone())
            .with_masks(self.masks.clone())
            .with_ground(self.ground.clone())
    }

    /// Replaces the zones, lines, masks and ground plane.
    pub fn set_scene(&mut self, scene: SceneConfig) {
        self.zones = scene.zones;
        self.lines = scene.lines;
        self.masks = scene.masks;
        self.ground = scene.ground;
    }

    /// Whether another configuration differs from this one, and only in the zones, lines, masks and
    /// ground plane.
    pub fn differs_in_scene_only(&self, other: &CameraConfig) -> bool {
        let mut same_scene = other.clone();
        same_scene.set_scene(self.scene());
        *self == same_scene && self != other
    }

    /// Whether `url` is a stream or a device; otherwise it is a file.
    pub fn has_address(&self) -> bool {
        is_stream(self.url.expose())
    }

    /// Whether frames are dropped instead of waited for: a camera, or a file played in real time.
    pub fn is_live(&self) -> bool {
        self.realtime || (self.has_address() && self.recorded != Some(true))
    }

    /// The address to open, including user and password.
    ///
    /// # Errors
    /// If the password's variable or file is missing.
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

/// Everything but the unreserved characters of RFC 3986 is percent-encoded in user and password.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

fn escaped(text: &str) -> impl std::fmt::Display {
    utf8_percent_encode(text, RESERVED)
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
    fn user_and_password_are_part_of_the_address_and_masked_in_output() {
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
    fn a_password_is_read_from_a_file_and_a_missing_one_is_an_error() {
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
    fn the_transport_is_passed_to_ffmpeg() {
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
}
