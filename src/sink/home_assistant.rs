//! Home Assistant's MQTT discovery: the messages by which it finds cameras, zones and lines.
//!
//! Every camera is a device with a connectivity sensor; every zone has sensors of its occupancy,
//! entries and exits, every line of its crossings in each direction. States are read from the
//! topics that the sink publishes anyway.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// A camera with the names of its zones and lines.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CameraShapes {
    /// Name of the camera.
    pub camera: String,
    /// Names of its zones.
    pub zones: Vec<String>,
    /// Names of its lines.
    pub lines: Vec<String>,
}

/// The discovery messages: topic and JSON. `prefix` is that of Home Assistant's settings
/// (`homeassistant` by default), `root` the prefix of the sink's topics.
pub(super) fn discovery(
    prefix: &str,
    root: &str,
    cameras: &[CameraShapes],
) -> BTreeMap<String, Vec<u8>> {
    let mut messages = BTreeMap::new();
    for c in cameras {
        let builder = Builder {
            prefix,
            root,
            camera: &c.camera,
        };
        let mut add = |(topic, body): (String, Value)| {
            messages.insert(topic, body.to_string().into_bytes());
        };
        add(builder.connectivity());
        for zone in &c.zones {
            let topic = format!("{root}/{}/zones/{zone}", c.camera);
            let of = |what: &str, label: &str, class: &str| {
                let name = format!("{zone} {label}");
                builder.count(&format!("zone_{zone}_{what}"), &name, &topic, what, class)
            };
            add(of("occupancy", "people", "measurement"));
            add(of("entered", "entries", "total_increasing"));
            add(of("left", "exits", "total_increasing"));
        }
        for line in &c.lines {
            let topic = format!("{root}/{}/lines/{line}", c.camera);
            for what in ["in", "out"] {
                let id = format!("line_{line}_{what}");
                let name = format!("{line} {what}");
                add(builder.count(&id, &name, &topic, what, "total_increasing"));
            }
        }
    }
    messages
}

struct Builder<'a> {
    prefix: &'a str,
    root: &'a str,
    camera: &'a str,
}

/// Home Assistant allows letters, digits, `-` and `_` in the levels of discovery topics.
fn id(text: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    text.chars()
        .map(|c| if allowed(c) { c } else { '_' })
        .collect()
}

impl Builder<'_> {
    /// The program itself is connected to the broker.
    fn connected(&self) -> Value {
        json!({ "topic": format!("{}/status", self.root) })
    }

    /// The camera delivers frames.
    fn online(&self) -> Value {
        json!({
            "topic": format!("{}/{}/status", self.root, self.camera),
            "value_template":
                "{{ 'online' if value_json.state == 'online' else 'offline' }}",
        })
    }

    fn message(&self, component: &str, object: &str, mut body: Value) -> (String, Value) {
        let node = id(&format!("{}_{}", self.root, self.camera));
        body["unique_id"] = json!(format!("{node}_{}", id(object)));
        body["device"] = json!({
            "identifiers": [node],
            "name": self.camera,
            "manufacturer": "twintrack",
            "model": "camera",
            "sw_version": env!("CARGO_PKG_VERSION"),
        });
        let topic = format!("{}/{component}/{node}/{}/config", self.prefix, id(object));
        (topic, body)
    }

    fn connectivity(&self) -> (String, Value) {
        let body = json!({
            "name": "connection",
            "device_class": "connectivity",
            "state_topic": format!("{}/{}/status", self.root, self.camera),
            "value_template": "{{ 'ON' if value_json.state == 'online' else 'OFF' }}",
            "availability": [self.connected()],
        });
        self.message("binary_sensor", "connection", body)
    }

    /// A sensor of the field `field` of the events on `topic`.
    fn count(
        &self,
        object: &str,
        name: &str,
        topic: &str,
        field: &str,
        class: &str,
    ) -> (String, Value) {
        let body = json!({
            "name": name,
            "state_topic": topic,
            "value_template": format!("{{{{ value_json['{field}'] }}}}"),
            "state_class": class,
            "icon": "mdi:account-multiple",
            "availability": [self.connected(), self.online()],
            "availability_mode": "all",
        });
        self.message("sensor", object, body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_zone_and_line_has_sensors_with_unique_ids() {
        let cameras = [
            CameraShapes {
                camera: "gate.1".into(),
                zones: vec!["hall".into()],
                lines: vec!["door".into()],
            },
            CameraShapes {
                camera: "yard".into(),
                ..CameraShapes::default()
            },
        ];
        let messages = discovery("homeassistant", "twintrack", &cameras);
        let bodies: BTreeMap<&str, Value> = messages
            .iter()
            .map(|(t, b)| (t.as_str(), serde_json::from_slice(b).expect("JSON")))
            .collect();
        assert_eq!(bodies.len(), 1 + 3 + 2 + 1);
        let ids: std::collections::BTreeSet<String> = bodies
            .values()
            .map(|b| b["unique_id"].to_string())
            .collect();
        assert_eq!(ids.len(), bodies.len());
        let occupancy = &bodies["homeassistant/sensor/twintrack_gate_1/zone_hall_occupancy/config"];
        assert_eq!(occupancy["state_topic"], "twintrack/gate.1/zones/hall");
        assert_eq!(occupancy["value_template"], "{{ value_json['occupancy'] }}");
        assert_eq!(
            occupancy["availability"][1]["topic"],
            "twintrack/gate.1/status"
        );
    }
}
