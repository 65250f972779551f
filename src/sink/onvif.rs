//! ONVIF metadata: the scene description of Profile M as XML, one document a line.
//!
//! Each frame is a `tt:MetadataStream` with its objects; ends of tracks are in the `ObjectTree` of
//! the next frame; each event of a zone or line is a `tt:MetadataStream` with its notifications.
//! The names are those of the ONVIF Analytics Service Specification.

use std::fmt::Write as _;
use std::path::Path;

use crate::analytics::{Direction, ZoneKind};
use crate::sink::sink::{FrameResult, LineWriter, Sink, SinkError};
use crate::time::{Seconds, Timestamp};
use crate::trajectory::{
    AnalyticsEvent, EndedEvent, FrameEvent, LineEvent, TrackEvent, WithJson, ZoneEvent,
};

/// Writes ONVIF metadata.
pub struct OnvifMetadata {
    out: LineWriter,
    /// Tracks that ended since the last frame.
    ended: Vec<u64>,
    /// Time of the last frame.
    last: Option<String>,
}

impl OnvifMetadata {
    /// Creates the file. With `unbuffered` every document is written at once.
    ///
    /// # Errors
    /// When the file cannot be created.
    pub fn create(path: &Path, unbuffered: bool) -> Result<Self, SinkError> {
        Ok(OnvifMetadata {
            out: LineWriter::create(path, unbuffered)?,
            ended: Vec::new(),
            last: None,
        })
    }

    fn write_frame(&mut self, time: &str, objects: &str) -> Result<(), SinkError> {
        let mut tree = String::new();
        for id in self.ended.drain(..) {
            let _ = write!(tree, r#"<tt:Delete ObjectId="{id}"/>"#);
        }
        if !tree.is_empty() {
            tree = format!("<tt:ObjectTree>{tree}</tt:ObjectTree>");
        }
        self.out.write(
            document(&format!(
                r#"<tt:VideoAnalytics><tt:Frame UtcTime="{time}">{objects}{tree}</tt:Frame></tt:VideoAnalytics>"#
            ))
            .as_bytes(),
        )
    }
}

impl Sink for OnvifMetadata {
    fn needs_pixels(&self) -> bool {
        false
    }

    fn frame(&mut self, finished: &FrameResult) -> Result<(), SinkError> {
        let event = &finished.event;
        let time = utc_time(event.time, event.pts);
        let objects: String = event.tracks.iter().map(|t| object(t, event)).collect();
        self.write_frame(&time, &objects)?;
        self.last = Some(time);
        Ok(())
    }

    fn ended(&mut self, event: &WithJson<EndedEvent>) -> Result<(), SinkError> {
        self.ended.push(event.id);
        Ok(())
    }

    fn analytics(&mut self, event: &WithJson<AnalyticsEvent>) -> Result<(), SinkError> {
        let notifications: String = match &**event {
            AnalyticsEvent::Zone(e) => zone(e).iter().map(Notification::xml).collect(),
            AnalyticsEvent::Line(e) => line(e).iter().map(Notification::xml).collect(),
        };
        let text = document(&format!("<tt:Event>{notifications}</tt:Event>"));
        self.out.write(text.as_bytes())
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        if let Some(time) = self.last.take().filter(|_| !self.ended.is_empty()) {
            self.write_frame(&time, "")?;
        }
        self.out.flush()
    }
}

/// A document on a line of its own.
fn document(content: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\
         <tt:MetadataStream xmlns:tt=\"http://www.onvif.org/ver10/schema\" \
         xmlns:wsnt=\"http://docs.oasis-open.org/wsn/b-2\" \
         xmlns:tns1=\"http://www.onvif.org/ver10/topics\">{content}</tt:MetadataStream>\n"
    )
}

/// The wall-clock time, or, if it is unknown, the presentation time after the beginning of 1970:
/// the attribute must be there.
fn utc_time(time: Option<Timestamp>, pts: f64) -> String {
    let epoch = || Timestamp(jiff::Timestamp::UNIX_EPOCH).plus(Seconds(pts));
    format!("{:.3}", time.unwrap_or_else(epoch).0)
}

/// An object: its box in coordinates from -1 to 1, x to the right and y upwards, the class, and the
/// speed in metres per second if it is known.
fn object(track: &TrackEvent, frame: &FrameEvent) -> String {
    let [left, top, width, height] = track.bbox;
    let x = |v: f64| 2.0 * v / f64::from(frame.width) - 1.0;
    let y = |v: f64| 1.0 - 2.0 * v / f64::from(frame.height);
    let behaviour = track.ground.map_or(String::new(), |ground| {
        format!(
            "<tt:Behaviour><tt:Speed>{:.3}</tt:Speed></tt:Behaviour>",
            ground.speed
        )
    });
    format!(
        r#"<tt:Object ObjectId="{id}"><tt:Appearance><tt:Shape><tt:BoundingBox left="{:.5}" top="{:.5}" right="{:.5}" bottom="{:.5}"/><tt:CenterOfGravity x="{:.5}" y="{:.5}"/></tt:Shape><tt:Class><tt:Type Likelihood="{:.3}">Human</tt:Type></tt:Class></tt:Appearance>{behaviour}</tt:Object>"#,
        x(left),
        y(top),
        x(left + width),
        y(top + height),
        x(left + width / 2.0),
        y(top + height / 2.0),
        track.confidence,
        id = track.id,
    )
}

/// A notification of the rule engine.
struct Notification {
    topic: &'static str,
    time: String,
    camera: String,
    /// Name of the zone or line, and of what is counted.
    rule: String,
    /// The object, if it is the notification's key.
    key: Option<u64>,
    /// Whether it reports a property, which has a value at any time.
    property: bool,
    /// Names and values.
    data: Vec<(&'static str, String)>,
}

const CROSSED: &str = "tns1:RuleEngine/LineDetector/Crossed";
const COUNTER: &str = "tns1:RuleEngine/CountAggregation/Counter";
const INSIDE: &str = "tns1:RuleEngine/FieldDetector/ObjectsInside";
const LOITERING: &str = "tns1:RuleEngine/LoiteringDetector/ObjectIsLoitering";

impl Notification {
    fn xml(&self) -> String {
        let item = |name: &str, value: &str| {
            format!(
                r#"<tt:SimpleItem Name="{name}" Value="{}"/>"#,
                escape(value)
            )
        };
        let key = self.key.map_or(String::new(), |id| {
            let id = item("ObjectId", &id.to_string());
            format!("<tt:Key>{id}</tt:Key>")
        });
        let data: String = self.data.iter().map(|(n, v)| item(n, v)).collect();
        let operation = if self.property {
            r#" PropertyOperation="Changed""#
        } else {
            ""
        };
        format!(
            r#"<wsnt:NotificationMessage><wsnt:Topic Dialect="http://www.onvif.org/ver10/tev/topicExpression/ConcreteSet">{}</wsnt:Topic><wsnt:Message><tt:Message UtcTime="{}"{operation}><tt:Source>{}{}{}</tt:Source>{key}<tt:Data>{data}</tt:Data></tt:Message></wsnt:Message></wsnt:NotificationMessage>"#,
            self.topic,
            self.time,
            item("VideoSourceConfigurationToken", &self.camera),
            item("VideoAnalyticsConfigurationToken", "twintrack"),
            item("Rule", &self.rule),
        )
    }
}

/// A crossing, and the new count of crossings in its direction.
fn line(e: &LineEvent) -> Vec<Notification> {
    let (direction, count) = match e.direction {
        Direction::In => ("in", e.inwards),
        Direction::Out => ("out", e.outwards),
    };
    let new = |topic, rule: String, property, data| Notification {
        topic,
        time: utc_time(e.time, e.pts),
        camera: e.camera.to_string(),
        rule,
        key: None,
        property,
        data,
    };
    let crossed = vec![
        ("ObjectId", e.track.to_string()),
        ("Direction", direction.to_string()),
    ];
    vec![
        new(CROSSED, e.line.to_string(), false, crossed),
        new(
            COUNTER,
            format!("{} {direction}", e.line),
            true,
            vec![("Count", count.to_string())],
        ),
    ]
}

/// What has changed in a zone, and the number of people in it.
fn zone(e: &ZoneEvent) -> Vec<Notification> {
    let new = |topic, key, data| Notification {
        topic,
        time: utc_time(e.time, e.pts),
        camera: e.camera.to_string(),
        rule: e.zone.to_string(),
        key,
        property: true,
        data,
    };
    let change = match e.kind {
        ZoneKind::Enter => Some((INSIDE, vec![("IsInside", "true".to_string())])),
        ZoneKind::Leave => Some((INSIDE, vec![("IsInside", "false".to_string())])),
        ZoneKind::Dwell => Some((LOITERING, vec![("State", "true".to_string())])),
        ZoneKind::OverLimit | ZoneKind::WithinLimit => None,
    };
    let count = new(COUNTER, None, vec![("Count", e.occupancy.to_string())]);
    change
        .map(|(topic, data)| new(topic, e.track, data))
        .into_iter()
        .chain([count])
        .collect()
}

/// The text as the value of an attribute. Characters that XML cannot hold are replaced.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            c if c.is_control() => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped() {
        assert_eq!(
            escape("a<b>&\"c\"\u{0}\n\u{ffff}ü"),
            "a&lt;b&gt;&amp;&quot;c&quot;\u{fffd}\u{fffd}\u{fffd}ü"
        );
    }

    #[test]
    fn an_unknown_time_is_replaced_by_the_presentation_time_after_1970() {
        assert_eq!(utc_time(None, 61.5), "1970-01-01T00:01:01.500Z");
        let known: Timestamp = serde_json::from_str("\"2026-11-27T12:00:00Z\"").expect("valid");
        assert_eq!(utc_time(Some(known), 61.5), "2026-11-27T12:00:00.000Z");
    }
}
