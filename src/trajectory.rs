//! The events that leave the program. `schema/trajectory.schema.json` is the contract; these types write it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::frame::{CameraState, Frame};
use crate::time::{Clock, Seconds, Timestamp};
use crate::track::identity::Identity;
use crate::track::path::{self, TrackPath};
use crate::track::{EndedTrack, TrackOutput, TrackState};

/// Version of the frame event.
pub const FRAME_SCHEMA: &str = "twintrack.trajectory/1";
/// Version of the event at a track's end.
pub const ENDED_SCHEMA: &str = "twintrack.track_ended/1";
/// Version of the event of a camera's change of state.
pub const STATUS_SCHEMA: &str = "twintrack.camera_status/1";

/// A run of the program: (run, camera, track) is unique in the world.
pub type RunId = uuid::Uuid;

/// An event, one JSON object a line.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Event {
    /// Where everybody is in a frame.
    Frame(FrameEvent),
    /// A track has ended.
    Ended(EndedEvent),
    /// A camera has come or gone.
    Status(StatusEvent),
}

/// The kinds of events, as the settings of sinks and the query of live clients name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// [`FrameEvent`].
    Trajectory,
    /// [`EndedEvent`].
    TrackEnded,
    /// [`StatusEvent`].
    CameraStatus,
}

impl EventKind {
    /// All of them, in the order of their numbers in a spool's database.
    pub const ALL: [EventKind; 3] = [
        EventKind::Trajectory,
        EventKind::TrackEnded,
        EventKind::CameraStatus,
    ];

    /// Its name in settings and queries.
    pub fn name(self) -> &'static str {
        match self {
            EventKind::Trajectory => "trajectory",
            EventKind::TrackEnded => "track_ended",
            EventKind::CameraStatus => "camera_status",
        }
    }
}

/// Why a line is no event.
#[derive(Debug, Error)]
pub enum EventError {
    /// It is not a JSON object, or one of its kind lacks a field or has one of the wrong type.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// It does not say what it is.
    #[error("it has no `schema`, which every event has")]
    NoSchema,
    /// It is something else.
    #[error("its schema '{0}' is none of {FRAME_SCHEMA}, {ENDED_SCHEMA}, {STATUS_SCHEMA}")]
    Unknown(String),
}

impl Event {
    /// Reads a line of JSON.
    ///
    /// # Errors
    /// When it is not an event of these schemas.
    pub fn read(line: &str) -> Result<Self, EventError> {
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
            _ => return Err(EventError::Unknown(schema)),
        })
    }
}

/// Where everybody is in a frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FrameEvent {
    /// [`FRAME_SCHEMA`].
    pub schema: String,
    /// The run.
    pub run: RunId,
    /// The camera's short name.
    pub camera: Arc<str>,
    /// Number of the event within run and camera, from 1: who gets an event twice knows it by this. 0 in files older than it.
    #[serde(default)]
    pub seq: u64,
    /// Frame number within the camera, from 1.
    pub frame: u64,
    /// Presentation time, seconds.
    pub pts: f64,
    /// Wall-clock time, where it is known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub time: Option<Timestamp>,
    /// Where that time comes from.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub clock: Option<Clock>,
    /// Width of the source frame, pixels.
    pub width: u32,
    /// Height of the source frame, pixels.
    pub height: u32,
    /// The people, by id.
    pub tracks: Vec<TrackEvent>,
}

/// One person in a frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrackEvent {
    /// Unique within run and camera, never used again.
    pub id: u64,
    /// Confirmed, lost (predicted, not seen), or interpolated (offline).
    pub state: TrackState,
    /// Left, top, width, height; pixels of the source frame.
    pub bbox: [f64; 4],
    /// Confidence of the last detection, in [0, 1].
    pub confidence: f64,
    /// Seconds since the first detection.
    pub age: f64,
    /// Seconds since the last detection; absent when seen in this frame.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub unseen: Option<f64>,
    /// How many detections it has had.
    pub hits: u32,
    /// Pixels per second.
    pub velocity: [f64; 2],
    /// Middle of the bottom edge, pixels.
    pub foot: [f64; 2],
    /// Who this is beyond the track, where identities are asked for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub identity: Option<Identity>,
}

/// A track has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EndedEvent {
    /// [`ENDED_SCHEMA`].
    pub schema: String,
    /// The run.
    pub run: RunId,
    /// The camera's short name.
    pub camera: Arc<str>,
    /// As [`FrameEvent::seq`].
    #[serde(default)]
    pub seq: u64,
    /// The track.
    pub id: u64,
    /// Presentation time of its first detection, seconds.
    pub first: f64,
    /// Presentation time of its last detection, seconds.
    pub last: f64,
    /// How many detections it had.
    pub hits: u32,
    /// The foot point over time: [pts, x, y], at most one a [`PATH_STEP`], simplified
    /// ([`crate::track::path`]): between two of them the way is straight and even up to 2 pixels,
    /// or `path_error`. At most 512 points.
    pub path: Vec<[f64; 3]>,
    /// The greatest distance of the path from where the track was, pixels; absent where that is 2.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub path_error: Option<f64>,
    /// Which network made the embedding: its name and, behind the last space, the hash of its
    /// weights. Those of different hashes cannot be compared.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub embedder: Option<Arc<str>>,
    /// The averaged embedding, on request.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub embedding: Option<Vec<f32>>,
}

/// A camera has come or gone. Only the newest counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusEvent {
    /// [`STATUS_SCHEMA`].
    pub schema: String,
    /// The run.
    pub run: RunId,
    /// The camera's short name.
    pub camera: Arc<str>,
    /// How it stands now.
    pub state: CameraState,
    /// Since when.
    pub time: Timestamp,
    /// Why it gives no frames; absent while it does.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<Arc<str>>,
}

impl StatusEvent {
    /// The camera's state has changed just now.
    pub fn now(run: RunId, camera: Arc<str>, state: CameraState, reason: Option<Arc<str>>) -> Self {
        StatusEvent {
            schema: STATUS_SCHEMA.into(),
            run,
            camera,
            state,
            time: Timestamp::now(),
            reason,
        }
    }
}

/// Least time between two points of a path.
pub const PATH_STEP: Seconds = Seconds(0.2);

/// Two decimals of a pixel are more than any detector knows.
fn hundredths(v: f32) -> f64 {
    (f64::from(v) * 100.0).round() / 100.0
}

/// Three decimals, as events have them.
pub(crate) fn thousandths(v: f64) -> f64 {
    (v * 1000.0).round() / 1000.0
}

impl TrackEvent {
    fn new(t: &TrackOutput) -> Self {
        let foot = t.bbox.foot();
        TrackEvent {
            id: t.id,
            state: t.state,
            bbox: <[f32; 4]>::from(t.bbox).map(hundredths),
            confidence: thousandths(f64::from(t.confidence)),
            age: thousandths(t.age.0),
            unseen: (t.state == TrackState::Lost).then(|| thousandths(t.unseen.0)),
            hits: t.hits,
            velocity: [hundredths(t.velocity.0), hundredths(t.velocity.1)],
            foot: [hundredths(foot.0), hundredths(foot.1)],
            identity: t.identity.clone().map(|i| Identity {
                similarity: thousandths(i.similarity),
                ..i
            }),
        }
    }
}

/// Writes one camera's events, and keeps the paths of its tracks until they end.
#[derive(Debug)]
pub struct EventBuilder {
    run: RunId,
    camera: Arc<str>,
    /// Identity of the network, when embeddings are written.
    embedder: Option<Arc<str>>,
    /// Presentation time at which the tracker's clock stood at zero.
    start: Option<Seconds>,
    paths: std::collections::BTreeMap<u64, TrackPath>,
    /// Events so far.
    events: u64,
}

impl EventBuilder {
    /// The events of a camera within a run; with the identity of an `embedder` the event at a
    /// track's end has the embedding.
    pub fn new(run: RunId, camera: Arc<str>, embedder: Option<Arc<str>>) -> Self {
        EventBuilder {
            run,
            camera,
            embedder,
            start: None,
            paths: Default::default(),
            events: 0,
        }
    }

    /// The camera's short name.
    pub fn camera(&self) -> &Arc<str> {
        &self.camera
    }

    /// The event of a frame.
    pub fn frame(&mut self, frame: &Frame, tracks: &[TrackOutput]) -> FrameEvent {
        self.start.get_or_insert(frame.pts);
        for t in tracks.iter().filter(|t| t.state != TrackState::Lost) {
            let path = self.paths.entry(t.id).or_default();
            if path
                .last()
                .is_none_or(|at| frame.pts.0 - at >= PATH_STEP.0 - 1e-9)
            {
                let (x, y) = t.bbox.foot();
                path.push([thousandths(frame.pts.0), hundredths(x), hundredths(y)]);
            }
        }
        self.events += 1;
        FrameEvent {
            schema: FRAME_SCHEMA.into(),
            run: self.run,
            camera: self.camera.clone(),
            seq: self.events,
            frame: frame.number,
            pts: thousandths(frame.pts.0),
            time: frame.time.map(|t| t.at),
            clock: frame.time.and_then(|t| t.clock),
            width: frame.width,
            height: frame.height,
            tracks: tracks.iter().map(TrackEvent::new).collect(),
        }
    }

    /// The event of a track's end.
    pub fn ended(&mut self, t: EndedTrack) -> EndedEvent {
        let start = self.start.unwrap_or_default();
        let (path, error) = self.paths.remove(&t.id).unwrap_or_default().finish();
        let embedding = (self.embedder.is_some() && !t.embedding.is_empty()).then_some(t.embedding);
        self.events += 1;
        EndedEvent {
            schema: ENDED_SCHEMA.into(),
            run: self.run,
            camera: self.camera.clone(),
            seq: self.events,
            id: t.id,
            first: thousandths((start + t.span.0).0),
            last: thousandths((start + t.span.1).0),
            hits: t.hits,
            path,
            path_error: (error > path::TOLERANCE).then(|| hundredths(error as f32)),
            embedder: embedding.as_ref().and(self.embedder.clone()),
            embedding,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_no_event_is_told_by_what_it_lacks() {
        let frame = format!(r#"{{"schema":"{FRAME_SCHEMA}","camera":"a"}}"#);
        let unknown = "none of twintrack.trajectory/1";
        for (line, says) in [
            ("", "EOF"),
            ("1,2,3", "expected an object"),
            ("[]", "invalid length"),
            ("{}", "no `schema`"),
            (r#"{"schema":"twintrack.trajectory/9"}"#, unknown),
            (r#"{"schema":5}"#, "expected a string"),
            (&frame, "missing field `run`"),
        ] {
            let e = Event::read(line).expect_err(line).to_string();
            assert!(
                e.contains(says) && !e.contains("untagged") && !e.contains("struct"),
                "{line}: {e}"
            );
        }
    }
}
