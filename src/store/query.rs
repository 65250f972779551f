//! Filters of questions to the history, and the answers, which serialise to JSON for the HTTP
//! interface.

use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::store::error::StoreError;
use crate::store::rows::{EventKind, timestamp};
use crate::time::Timestamp;
use crate::track::identity::Identity;
use crate::trajectory::RunId;

/// Most rows on a page.
pub const MAX_PAGE: usize = 1000;

/// Which tracks; absent fields do not restrict.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TrackFilter {
    /// Name of the camera.
    pub camera: Option<String>,
    /// Tracks that were there at this time or later.
    pub from: Option<Timestamp>,
    /// Tracks that began before this time.
    pub to: Option<Timestamp>,
    /// Tracks that were in this zone.
    pub zone: Option<String>,
    /// Tracks with this identity.
    pub identity: Option<String>,
    /// Tracks of at least this duration in seconds.
    pub min_duration: Option<f64>,
    /// Tracks of this run.
    pub run: Option<RunId>,
    /// Tracks of this person across cameras, by number.
    pub person: Option<u64>,
}

/// Which events; absent fields do not restrict.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EventFilter {
    /// Name of the camera.
    pub camera: Option<String>,
    /// Events at this time or later.
    pub from: Option<Timestamp>,
    /// Events before this time.
    pub to: Option<Timestamp>,
    /// Of zones or of lines.
    pub kind: Option<EventKind>,
    /// Name of the zone or line.
    pub name: Option<String>,
    /// What happened, such as `enter` or `in`.
    pub action: Option<String>,
}

/// Place in a list that is ordered from new to old. The next page begins after it; rows that are
/// added later do not shift it. As text: `TIME.ID`, time in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// Time of the last row of the page, in milliseconds since 1970.
    pub time: i64,
    /// Key of that row.
    pub id: i64,
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.time, self.id)
    }
}

impl FromStr for Cursor {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        let parse = || {
            let (time, id) = text.split_once('.')?;
            Some(Cursor {
                time: time.parse().ok()?,
                id: id.parse().ok()?,
            })
        };
        parse().ok_or_else(|| StoreError::Argument {
            argument: "cursor",
            reason: "it is not a cursor that an earlier page gave".into(),
        })
    }
}

#[cfg(feature = "serve")]
impl schemars::JsonSchema for Cursor {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Cursor".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^-?[0-9]+\\.-?[0-9]+$" })
    }
}

impl Serialize for Cursor {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "serve", derive(schemars::JsonSchema))]
pub struct Page<T> {
    /// The rows, from new to old.
    pub items: Vec<T>,
    /// Where the next page begins; absent at the end of the list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<Cursor>,
}

/// A camera.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "serve", derive(schemars::JsonSchema))]
pub struct CameraSummary {
    /// The name.
    pub camera: String,
    /// When it was first seen.
    pub first_seen: Timestamp,
    /// When its state last changed, or a track last ended.
    pub last_seen: Timestamp,
    /// Its last state, if any: connecting, online, offline or ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Why it delivers no frames; absent while it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When it came into that state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_since: Option<Timestamp>,
    /// Number of tracks that have not ended.
    pub tracks_present: u64,
}

/// A change of a camera's state.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "serve", derive(schemars::JsonSchema))]
pub struct StatusChange {
    /// When.
    pub time: Timestamp,
    /// The new state.
    pub state: String,
    /// Why it delivers no frames; absent while it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A track in a list.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "serve", derive(schemars::JsonSchema))]
pub struct TrackSummary {
    /// The run.
    pub run: RunId,
    /// Name of the camera.
    pub camera: String,
    /// Id of the track within run and camera.
    pub id: u64,
    /// Wall-clock time of the first detection.
    pub first_time: Timestamp,
    /// Wall-clock time of the last detection so far.
    pub last_time: Timestamp,
    /// Presentation time of the first detection in seconds.
    pub first: f64,
    /// Presentation time of the last detection so far, in seconds.
    pub last: f64,
    /// Seconds between the two.
    pub duration: f64,
    /// Origin of the wall-clock times: arrival, rtcp or recording; absent if the source has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock: Option<String>,
    /// Number of detections so far.
    pub hits: u32,
    /// Whether the track has ended.
    pub ended: bool,
    /// Width and height of the frame in pixels.
    pub frame: [u32; 2],
    /// The person, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
    /// Number of the person across cameras, if it has been decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub person: Option<u64>,
    /// Number of its stored crops.
    pub crops: u32,
    /// Key of the best crop, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crop: Option<i64>,
}

/// A track with all that is stored about it, except for the pictures themselves.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "serve", derive(schemars::JsonSchema))]
pub struct TrackDetail {
    /// The track.
    #[serde(flatten)]
    pub summary: TrackSummary,
    /// The path, [pts, x, y]; empty until the track has ended.
    pub path: Vec<[f64; 3]>,
    /// Greatest deviation of the path in pixels, if it is more than 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_error: Option<f64>,
    /// Boxes of an ended track at some of its frames: [frame, left, top, width, height], pixels.
    /// Between them they are interpolated.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub boxes: Vec<[f64; 5]>,
    /// The zones that it was in.
    pub zones: Vec<String>,
    /// The network that made the stored embedding, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embedder: Option<String>,
    /// The crops, from the best.
    pub views: Vec<CropSummary>,
}

/// A stored crop, without the picture.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "serve", derive(schemars::JsonSchema))]
pub struct CropSummary {
    /// Key, for [`crate::store::tracks::crop`].
    pub id: i64,
    /// Wall-clock time.
    pub time: Timestamp,
    /// Presentation time in seconds.
    pub pts: f64,
    /// Width and height in pixels.
    pub size: [u32; 2],
}

/// An event of a zone or a line.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "serve", derive(schemars::JsonSchema))]
pub struct StoredEvent {
    /// Wall-clock time.
    pub time: Timestamp,
    /// Name of the camera.
    pub camera: String,
    /// `zone` or `line`.
    pub kind: String,
    /// Name of the zone or line.
    pub name: String,
    /// What happened.
    pub action: String,
    /// Id of the track, if the event is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub track: Option<u64>,
    /// The whole event.
    #[cfg_attr(
        feature = "serve",
        schemars(with = "serde_json::Map<String, serde_json::Value>")
    )]
    pub event: Box<serde_json::value::RawValue>,
}

fn as_time<S: Serializer>(milliseconds: &i64, s: S) -> Result<S::Ok, S::Error> {
    timestamp(*milliseconds).serialize(s)
}

/// A span of time with its counts.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[cfg_attr(feature = "serve", derive(schemars::JsonSchema))]
pub struct Bucket {
    /// Begin, milliseconds since 1970; in JSON the time.
    #[serde(serialize_with = "as_time")]
    #[cfg_attr(feature = "serve", schemars(with = "Timestamp"))]
    pub start: i64,
    /// Tracks that began.
    pub tracks: u64,
    /// Most tracks at the same time.
    pub people_max: u32,
    /// Crossings by line.
    pub lines: std::collections::BTreeMap<String, LineCounts>,
    /// Occupancy by zone.
    pub zones: std::collections::BTreeMap<String, ZoneCounts>,
}

/// Crossings of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[cfg_attr(feature = "serve", derive(schemars::JsonSchema))]
pub struct LineCounts {
    /// Into the side that the line's direction points to.
    #[serde(rename = "in")]
    pub inward: u64,
    /// The other way.
    #[serde(rename = "out")]
    pub outward: u64,
}

/// Occupancy of a zone.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
#[cfg_attr(feature = "serve", derive(schemars::JsonSchema))]
pub struct ZoneCounts {
    /// Number of people who entered.
    pub entered: u64,
    /// Mean over time of the number of people inside.
    pub mean: f64,
    /// Most people inside.
    pub max: u32,
}

/// A track that a search has found.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "serve", derive(schemars::JsonSchema))]
pub struct Found {
    /// The track.
    #[serde(flatten)]
    pub track: TrackSummary,
    /// Cosine distance to the embedding searched for, in [0, 2]. The embedder's calibration makes a
    /// similarity of it.
    pub distance: f32,
}

/// An enrolled identity.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "serve", derive(schemars::JsonSchema))]
pub struct StoredIdentity {
    /// The name.
    pub name: String,
    /// When it was enrolled.
    pub created: Timestamp,
    /// Number of its embeddings.
    pub embeddings: u64,
    /// Number of tracks with this name.
    pub tracks: u64,
}
