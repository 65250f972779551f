//! The events that the program writes, and their builder. `schema/trajectory.schema.json` defines
//! their format.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::frame::CameraState;
use crate::time::{Clock, Timestamp};
use crate::track::TrackState;
use crate::track::identity::Identity;

mod analytics_event;
mod builder;

pub use analytics_event::{AnalyticsEvent, LINE_SCHEMA, LineEvent, ZONE_SCHEMA, ZoneEvent};
pub use builder::{EventBuilder, PATH_STEP};

/// Schema of the trajectory event of a frame.
pub const FRAME_SCHEMA: &str = "twintrack.trajectory/1";
/// Schema of the event of a track's end.
pub const ENDED_SCHEMA: &str = "twintrack.track_ended/1";
/// Schema of the event of a camera's change of state.
pub const STATUS_SCHEMA: &str = "twintrack.camera_status/1";

/// Id of a run of the program; (run, camera, track id) is globally unique.
pub type RunId = uuid::Uuid;

/// An event, one JSON object a line.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum Event {
    /// The tracks in a frame.
    Frame(FrameEvent),
    /// A track has ended.
    Ended(EndedEvent),
    /// The state of a camera has changed.
    Status(StatusEvent),
    /// Something has changed in a zone or at a line.
    Analytics(AnalyticsEvent),
}

/// The kinds of events, as named in the settings of sinks and in the query of live clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "serve", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EventKind {
    /// The tracks in a frame: [`FrameEvent`].
    Trajectory,
    /// A track has ended: [`EndedEvent`].
    TrackEnded,
    /// The state of a camera has changed: [`StatusEvent`].
    CameraStatus,
    /// Something has changed in a zone: [`ZoneEvent`].
    Zone,
    /// A person has crossed a line: [`LineEvent`].
    Line,
}

impl EventKind {
    /// All kinds, in the order of their numbers in a spool's database.
    pub const ALL: [EventKind; 5] = [
        EventKind::Trajectory,
        EventKind::TrackEnded,
        EventKind::CameraStatus,
        EventKind::Zone,
        EventKind::Line,
    ];

    /// The name in settings and queries.
    pub fn name(self) -> &'static str {
        match self {
            EventKind::Trajectory => "trajectory",
            EventKind::TrackEnded => "track_ended",
            EventKind::CameraStatus => "camera_status",
            EventKind::Zone => "zone",
            EventKind::Line => "line",
        }
    }
}

/// Errors of parsing an event.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EventError {
    /// The text is not a JSON object, or a field is missing or has the wrong type.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// The required field `schema` is missing.
    #[error("there is no field `schema`, which every event must have")]
    NoSchema,
    /// The schema is unknown.
    #[error(
        "the schema '{0}' is none of {FRAME_SCHEMA}, {ENDED_SCHEMA}, {STATUS_SCHEMA}, \
         {ZONE_SCHEMA}, {LINE_SCHEMA}"
    )]
    Unknown(String),
}

impl Event {
    /// Parses a line of JSON.
    ///
    /// # Errors
    /// When the line is not an event of a known schema.
    pub fn parse(line: &str) -> Result<Self, EventError> {
        #[derive(Deserialize)]
        #[serde(expecting = "an object")]
        struct Head {
            schema: Option<String>,
        }
        let schema = serde_json::from_str::<Head>(line)?
            .schema
            .ok_or(EventError::NoSchema)?;
        Ok(match schema.as_str() {
            FRAME_SCHEMA => Event::Frame(serde_json::from_str(line)?),
            ENDED_SCHEMA => Event::Ended(serde_json::from_str(line)?),
            STATUS_SCHEMA => Event::Status(serde_json::from_str(line)?),
            ZONE_SCHEMA => Event::Analytics(AnalyticsEvent::Zone(serde_json::from_str(line)?)),
            LINE_SCHEMA => Event::Analytics(AnalyticsEvent::Line(serde_json::from_str(line)?)),
            _ => return Err(EventError::Unknown(schema)),
        })
    }

    /// Name of the camera.
    pub fn camera(&self) -> &Arc<str> {
        match self {
            Event::Frame(e) => &e.camera,
            Event::Ended(e) => &e.camera,
            Event::Status(e) => &e.camera,
            Event::Analytics(e) => e.camera(),
        }
    }

    /// Revision of the lease of a fleet's worker; see [`FrameEvent::lease`].
    pub fn lease(&self) -> Option<u64> {
        match self {
            Event::Frame(e) => e.lease,
            Event::Ended(e) => e.lease,
            Event::Status(e) => e.lease,
            Event::Analytics(e) => e.lease(),
        }
    }
}

/// An event with its JSON, which is serialised at the first use and shared by all sinks.
#[derive(Debug)]
pub struct WithJson<E> {
    event: E,
    line: OnceLock<Arc<str>>,
}

impl<E> From<E> for WithJson<E> {
    fn from(event: E) -> Self {
        WithJson {
            event,
            line: OnceLock::new(),
        }
    }
}

impl<E> Deref for WithJson<E> {
    type Target = E;
    fn deref(&self) -> &E {
        &self.event
    }
}

impl<E: Serialize> WithJson<E> {
    /// The event as a line of JSON, with its newline.
    pub fn line(&self) -> &Arc<str> {
        self.line.get_or_init(|| {
            let mut text = serde_json::to_string(&self.event).expect("events serialise to JSON");
            text.push('\n');
            text.into()
        })
    }

    /// The event as JSON, without a newline.
    pub fn json(&self) -> &str {
        self.line().trim_end()
    }
}

/// The tracks in a frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FrameEvent {
    /// [`FRAME_SCHEMA`].
    pub schema: String,
    /// The run.
    pub run: RunId,
    /// Name of the camera.
    pub camera: Arc<str>,
    /// Sequence number of the event within run and camera, from 1, by which receivers drop
    /// repetitions. 0 in files of earlier versions, which do not have it.
    #[serde(default)]
    pub seq: u64,
    /// Revision of the lease with which a fleet's worker held the camera; absent outside a fleet.
    /// Events with a lower revision than earlier events of the camera do not count.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lease: Option<u64>,
    /// Frame number within the camera, from 1.
    pub frame: u64,
    /// Presentation time in seconds.
    pub pts: f64,
    /// Wall-clock time, if it is known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub time: Option<Timestamp>,
    /// The origin of `time`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub clock: Option<Clock>,
    /// Width of the source frame in pixels.
    pub width: u32,
    /// Height of the source frame in pixels.
    pub height: u32,
    /// The detector did not process this frame: no track is `confirmed` in it.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub skipped: bool,
    /// The tracks, sorted by id.
    pub tracks: Vec<TrackEvent>,
}

/// A track in a frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrackEvent {
    /// Id, unique within run and camera, never reused.
    pub id: u64,
    /// Confirmed, lost (not detected; the box is a prediction), predicted (the detector did not
    /// process the frame), or interpolated (between two detections).
    pub state: TrackState,
    /// Left, top, width, height; pixels of the source frame.
    pub bbox: [f64; 4],
    /// Confidence of the last detection, in [0, 1].
    pub confidence: f64,
    /// Seconds since the first detection.
    pub age: f64,
    /// Seconds since the last detection; present only in the states lost and predicted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub unseen: Option<f64>,
    /// Number of detections so far.
    pub hits: u32,
    /// Velocity of the centre in pixels per second.
    pub velocity: [f64; 2],
    /// Foot point (middle of the bottom edge) in pixels.
    pub foot: [f64; 2],
    /// The person's identity, if known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub identity: Option<Identity>,
    /// Names of the zones that the person is in, in order of entry.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub zones: Vec<Arc<str>>,
    /// Where the foot point is on the ground, if the camera's ground plane is known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ground: Option<GroundPosition>,
}

/// A person's place on the ground.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct GroundPosition {
    /// [X, Y] in metres, in the coordinate system of the camera's `ground`.
    pub position: [f64; 2],
    /// Speed in metres per second, smoothed over about half a second.
    pub speed: f64,
    /// Metres walked since the track began. 0 in files of earlier versions, which do not have it.
    #[serde(default)]
    pub walked: f64,
}

/// A track has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EndedEvent {
    /// [`ENDED_SCHEMA`].
    pub schema: String,
    /// The run.
    pub run: RunId,
    /// Name of the camera.
    pub camera: Arc<str>,
    /// Sequence number; see [`FrameEvent::seq`].
    #[serde(default)]
    pub seq: u64,
    /// See [`FrameEvent::lease`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lease: Option<u64>,
    /// Id of the track.
    pub id: u64,
    /// Presentation time in seconds of its first detection.
    pub first: f64,
    /// Presentation time in seconds of its last detection.
    pub last: f64,
    /// Wall-clock time of its last detection, if it is known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub time: Option<Timestamp>,
    /// The origin of `time`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub clock: Option<Clock>,
    /// Width of the source frame in pixels. 0 in files of earlier versions, which do not have it.
    #[serde(default)]
    pub width: u32,
    /// Height of the source frame in pixels; see `width`.
    #[serde(default)]
    pub height: u32,
    /// Number of detections.
    pub hits: u32,
    /// The foot point over time: [pts, x, y], at most one per [`PATH_STEP`] and at most 512,
    /// simplified ([`crate::track::path`]). Linear interpolation between the points deviates from
    /// the track by at most 2 pixels, or by `path_error`.
    pub path: Vec<[f64; 3]>,
    /// The greatest deviation in pixels of the path from the track; absent if it is at most 2.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub path_error: Option<f64>,
    /// The network that made the embedding: its name and, after the last space, the hash of its
    /// weights. Embeddings of networks with different hashes cannot be compared.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub embedder: Option<Arc<str>>,
    /// The averaged embedding, if `output.embeddings` is set.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub embedding: Option<Vec<f32>>,
}

/// The state of a camera has changed. The event with the newest `time` has the current state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusEvent {
    /// [`STATUS_SCHEMA`].
    pub schema: String,
    /// The run.
    pub run: RunId,
    /// Name of the camera.
    pub camera: Arc<str>,
    /// See [`FrameEvent::lease`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lease: Option<u64>,
    /// The new state.
    pub state: CameraState,
    /// Time at which the state changed.
    pub time: Timestamp,
    /// Why the camera delivers no frames; absent while it delivers frames.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<Arc<str>>,
}

impl StatusEvent {
    /// Creates the event of a change at `time`.
    pub fn at(
        time: Timestamp,
        run: RunId,
        camera: Arc<str>,
        state: CameraState,
        reason: Option<Arc<str>>,
    ) -> Self {
        StatusEvent {
            schema: STATUS_SCHEMA.into(),
            run,
            camera,
            lease: None,
            state,
            time,
            reason,
        }
    }

    /// With the revision of the lease of a fleet's worker.
    pub fn with_lease(self, lease: Option<u64>) -> Self {
        StatusEvent { lease, ..self }
    }
}

/// Rounds to the three decimals of times, confidences and similarities in events.
pub fn thousandths(v: f64) -> f64 {
    (v * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_serialised_once() {
        struct Counted(std::cell::Cell<u32>);
        impl Serialize for Counted {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                self.0.set(self.0.get() + 1);
                s.serialize_u32(self.0.get())
            }
        }
        let event = WithJson::from(Counted(Default::default()));
        assert_eq!(event.0.get(), 0, "serialised before it is needed");
        assert_eq!(
            (event.json(), &**event.line(), event.json()),
            ("1", "1\n", "1")
        );
        assert_eq!(event.0.get(), 1);
    }

    #[test]
    fn parse_errors_say_what_is_missing_or_wrong() {
        let frame = format!(r#"{{"schema":"{FRAME_SCHEMA}","camera":"a"}}"#);
        let unknown = "none of twintrack.trajectory/1";
        for (line, says) in [
            ("", "EOF"),
            ("1,2,3", "expected an object"),
            ("[]", "invalid length"),
            ("{}", "no field `schema`"),
            (r#"{"schema":"twintrack.trajectory/9"}"#, unknown),
            (r#"{"schema":5}"#, "expected a string"),
            (&frame, "missing field `run`"),
        ] {
            let e = Event::parse(line).expect_err(line).to_string();
            assert!(
                e.contains(says) && !e.contains("untagged") && !e.contains("struct"),
                "{line}: {e}"
            );
        }
    }
}
