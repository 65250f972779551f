//! What is written to the history: plain values, independent of the types of events.

use std::sync::Arc;

use serde_json::Value as Json;

use crate::frame::Image;
use crate::time::{Clock, Timestamp};
use crate::trajectory::{RunId, StatusEvent};

/// A change of the history.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Change {
    /// A camera has changed its state.
    Status(StatusEvent),
    /// A track goes on, or has ended.
    Track(Box<TrackRow>),
    /// Somebody entered or left a zone, or crossed a line.
    Event(EventRow),
    /// A change that was read from a fleet's stream.
    Published(Box<Published>),
}

/// A change with its place in a fleet's stream. It is not stored, or is deleted later, if a change
/// of a newer lease of its camera stands before it in the stream.
#[derive(Debug, Clone)]
pub struct Published {
    /// Name of the camera.
    pub camera: Arc<str>,
    /// Number of the lease under which it was observed.
    pub lease: u64,
    /// Its sequence number in the stream.
    pub position: u64,
    /// The change.
    pub change: Change,
}

impl Change {
    /// Approximate size in memory, in bytes.
    pub fn bytes(&self) -> usize {
        match self {
            Change::Status(_) => 256,
            Change::Event(e) => 256 + e.json.len(),
            Change::Published(p) => 64 + p.change.bytes(),
            Change::Track(t) => {
                let pictures = t.crops.iter().map(|c| match &c.picture {
                    Picture::Pixels(image) => image.data.len(),
                    Picture::Jpeg(bytes) => bytes.len(),
                });
                let path = t.path.as_ref().map_or(0, Vec::len);
                let embedding = t.embedding.as_ref().map_or(0, Vec::len);
                512 + 24 * path + 20 * t.boxes.len() + 4 * embedding + pictures.sum::<usize>()
            }
        }
    }

    /// Whether transactions with such changes must run one after the other in PostgreSQL: each
    /// compares its leases with those of the others, and keys of embeddings must be committed in
    /// ascending order, because [`crate::store::person_matching`] reads them in this order, once.
    pub fn needs_turn(&self) -> bool {
        match self {
            Change::Published(_) => true,
            Change::Track(t) => t.embedding.is_some(),
            Change::Status(_) | Change::Event(_) => false,
        }
    }

    /// Whether the change only shows the progress of something that will be written again.
    pub fn is_progress(&self) -> bool {
        matches!(self, Change::Track(t) if !t.ended)
    }
}

/// A track. Written again as it goes on, and a last time when it has ended.
#[derive(Debug, Clone, PartialEq)]
pub struct TrackRow {
    /// When the track began, by this machine's clock. Not stored: `time` may be a recording's.
    pub began: Timestamp,
    /// The run.
    pub run: RunId,
    /// Name of the camera.
    pub camera: Arc<str>,
    /// Id of the track within run and camera.
    pub track: u64,
    /// Presentation times of its first and last detection, in seconds.
    pub pts: (f64, f64),
    /// Wall-clock times of its first and last detection.
    pub time: (Timestamp, Timestamp),
    /// Origin of `time`; absent if the source has no times, so that `time` is this machine's.
    pub clock: Option<Clock>,
    /// Number of detections.
    pub hits: u32,
    /// Whether the track has ended.
    pub ended: bool,
    /// Size of the frame in pixels.
    pub frame: (u32, u32),
    /// The path of an ended track: [pts, x, y].
    pub path: Option<Vec<[f64; 3]>>,
    /// Greatest deviation of the path in pixels, if it is more than 2.
    pub path_error: Option<f64>,
    /// Boxes at some frames: [frame, left, top, width, height], pixels.
    pub boxes: Vec<[f32; 5]>,
    /// Name and similarity of the person, if known.
    pub identity: Option<(String, f64)>,
    /// The embedder: its name and, after the last space, the hash of its weights.
    pub embedder: Option<Arc<str>>,
    /// The mean embedding, unit length.
    pub embedding: Option<Vec<f32>>,
    /// The best crops of an ended track.
    pub crops: Vec<CropRow>,
}

/// A crop of a track.
#[derive(Debug, Clone)]
pub struct CropRow {
    /// Presentation time in seconds.
    pub pts: f64,
    /// Wall-clock time.
    pub time: Timestamp,
    /// How clear and large it is: higher is better.
    pub score: f64,
    /// Width and height in pixels.
    pub size: (u32, u32),
    /// The picture.
    pub picture: Picture,
}

impl PartialEq for CropRow {
    fn eq(&self, other: &Self) -> bool {
        (self.pts, self.score, self.size) == (other.pts, other.score, other.size)
    }
}

/// The picture of a crop. The writer encodes pixels.
#[derive(Debug, Clone)]
pub enum Picture {
    /// Pixels.
    Pixels(Image),
    /// JPEG.
    Jpeg(Vec<u8>),
}

/// An event of a zone or a line.
#[derive(Debug, Clone, PartialEq)]
pub struct EventRow {
    /// The run.
    pub run: RunId,
    /// Name of the camera.
    pub camera: Arc<str>,
    /// Sequence number within run and camera.
    pub seq: u64,
    /// `zone` or `line`.
    pub kind: EventKind,
    /// Name of the zone or line.
    pub name: String,
    /// What happened: enter, leave, dwell, `over_limit` or `within_limit` of a zone; in or out of a
    /// line.
    pub action: String,
    /// The track, if the event is about one.
    pub track: Option<u64>,
    /// Presentation time in seconds.
    pub pts: f64,
    /// Wall-clock time.
    pub time: Timestamp,
    /// Number of people in the zone after the event, if known.
    pub occupancy: Option<u32>,
    /// The whole event, JSON.
    pub json: String,
}

/// The kinds of events in the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "serve", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum EventKind {
    /// Of a zone.
    Zone,
    /// Of a line.
    Line,
}

impl EventKind {
    /// The name in the table.
    pub fn name(self) -> &'static str {
        match self {
            EventKind::Zone => "zone",
            EventKind::Line => "line",
        }
    }
}

/// Schema of events of zones.
pub const ZONE_SCHEMA: &str = "twintrack.zone/1";
/// Schema of events of lines.
pub const LINE_SCHEMA: &str = "twintrack.line/1";

impl EventRow {
    /// The row of an event of the schemas [`ZONE_SCHEMA`] and [`LINE_SCHEMA`]. An event without
    /// `time` gets the time `now`.
    ///
    /// # Errors
    /// A message that names the field that is missing or wrong.
    pub fn parse(json: &str, now: Timestamp) -> Result<Self, String> {
        let event: Json = serde_json::from_str(json).map_err(|e| e.to_string())?;
        let text = |key: &str| {
            event[key]
                .as_str()
                .ok_or_else(|| format!("`{key}` is not a text"))
        };
        let (kind, name, action) = match text("schema")? {
            ZONE_SCHEMA => (EventKind::Zone, text("zone")?, text("kind")?),
            LINE_SCHEMA => (EventKind::Line, text("line")?, text("direction")?),
            other => return Err(format!("`schema` is {other}")),
        };
        let whole = |key: &str| {
            event[key]
                .as_u64()
                .ok_or_else(|| format!("`{key}` is not a whole number"))
        };
        let time = match &event["time"] {
            Json::Null => now,
            value => serde_json::from_value(value.clone()).map_err(|e| format!("`time`: {e}"))?,
        };
        let occupancy = ["occupancy", "count"]
            .iter()
            .find_map(|key| event[*key].as_u64());
        Ok(EventRow {
            run: text("run")?.parse().map_err(|e| format!("`run`: {e}"))?,
            camera: text("camera")?.into(),
            seq: whole("seq")?,
            kind,
            name: name.into(),
            action: action.into(),
            track: match &event["track"] {
                Json::Null => None,
                _ => Some(whole("track")?),
            },
            pts: event["pts"].as_f64().ok_or("`pts` is not a number")?,
            time,
            occupancy: occupancy.and_then(|n| u32::try_from(n).ok()),
            json: json.trim_end().into(),
        })
    }
}

/// Milliseconds since 1970.
pub fn milliseconds(time: Timestamp) -> i64 {
    time.0.as_millisecond()
}

/// The time of milliseconds since 1970; times beyond the calendar are its limits.
pub fn timestamp(milliseconds: i64) -> Timestamp {
    let limit = if milliseconds < 0 {
        jiff::Timestamp::MIN
    } else {
        jiff::Timestamp::MAX
    };
    Timestamp(jiff::Timestamp::from_millisecond(milliseconds).unwrap_or(limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: &str = "01920000-0000-7000-8000-000000000001";

    #[test]
    fn events_of_zones_and_lines_become_rows() {
        let now = timestamp(1_000);
        let zone = format!(
            r#"{{"schema":"{ZONE_SCHEMA}","run":"{RUN}","camera":"gate","seq":7,"frame":30,
            "pts":3.0,"time":"2026-11-24T12:00:41.133Z","zone":"door","kind":"enter","track":17,
            "occupancy":2}}"#
        );
        let row = EventRow::parse(&zone, now).expect("valid");
        assert_eq!(
            (row.kind, &*row.name, &*row.action, row.track, row.occupancy),
            (EventKind::Zone, "door", "enter", Some(17), Some(2))
        );
        assert_eq!(milliseconds(row.time), 1_795_521_641_133);
        let line = format!(
            r#"{{"schema":"{LINE_SCHEMA}","run":"{RUN}","camera":"gate","seq":8,"pts":3.1,
            "line":"exit","direction":"out","track":17,"at":[1.0,2.0]}}"#
        );
        let row = EventRow::parse(&line, now).expect("valid");
        assert_eq!(
            (row.kind, &*row.action, row.time),
            (EventKind::Line, "out", now)
        );
        for (wrong, says) in [
            (zone.replace("\"door\"", "3"), "`zone`"),
            (zone.replace("\"seq\":7", "\"seq\":-7"), "`seq`"),
            (line.replace("\"out\"", "null"), "`direction`"),
            (line.replace(RUN, "x"), "`run`"),
            (line.replace(LINE_SCHEMA, "other/1"), "`schema`"),
        ] {
            let error = EventRow::parse(&wrong, now).expect_err(&wrong);
            assert!(error.contains(says), "{error} instead of {says}");
        }
    }
}
