//! The JSON Schema of the configuration file, for editors. It has keys, types, defaults and
//! descriptions; ranges of values are checked when the file is read.

use std::borrow::Cow;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use crate::address::Address;
use crate::config::Config;
use crate::infer::pixels::ColorOrder;
use crate::infer::{Device, InputSize, PixelFormat};
use crate::secret::Secret;
use crate::serve::config::ServiceConfig;
use crate::time::Timestamp;
use crate::track::similarity::StrangerTable;

/// The schema (draft 7, the newest that the usual TOML editors support) of a file that may have all
/// sections of [`Config`] and of [`ServiceConfig`].
pub fn configuration() -> Value {
    let mut generator = SchemaSettings::draft07().into_generator();
    let mut properties = serde_json::Map::new();
    for part in [
        Config::json_schema(&mut generator),
        ServiceConfig::json_schema(&mut generator),
    ] {
        if let Some(Value::Object(own)) = part.get("properties") {
            properties.extend(own.clone());
        }
    }
    let mut schema = json_schema!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Configuration of twintrack",
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
    });
    let definitions = generator.take_definitions(true);
    for transform in generator.transforms_mut() {
        transform.transform(&mut schema);
    }
    schema.insert("definitions".into(), definitions.into());
    let mut schema = schema.to_value();
    tidy(&mut schema);
    schema
}

/// Joins the lines of descriptions, writes links to Rust items as code, and writes defaults of type
/// f32 with the digits of an f32: 0.1, not 0.10000000149011612.
pub(super) fn tidy(value: &mut Value) {
    match value {
        Value::Object(map) => map.iter_mut().for_each(|(key, value)| match value {
            Value::String(text) if key == "description" => {
                *text = text
                    .replace('\n', " ")
                    .replace("[`", "`")
                    .replace("`]", "`");
            }
            value => tidy(value),
        }),
        Value::Array(items) => items.iter_mut().for_each(tidy),
        Value::Number(number) => {
            let Some(double) = number.as_f64().filter(|_| number.is_f64()) else {
                return;
            };
            let single = double as f32;
            if f64::from(single) == double
                && let Ok(digits) = single.to_string().parse::<f64>()
            {
                *value = json!(digits);
            }
        }
        _ => {}
    }
}

/// Schemas of settings that are texts with a special syntax.
macro_rules! text_schema {
    ($($of:ty, $name:literal, $schema:tt;)*) => {$(
        impl JsonSchema for $of {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    )*};
}

text_schema! {
    Address, "Address", { "type": "string" };
    Device, "Device", { "type": "string", "pattern": "^(auto|cpu|cuda(:[0-9]+)?|tensorrt)$" };
    InputSize, "InputSize", { "type": "string", "pattern": "^(auto|[0-9]+x[0-9]+)$" };
    Secret, "Secret", { "type": "string" };
    StrangerTable, "StrangerTable", { "type": "string" };
    Timestamp, "Timestamp", { "type": "string", "format": "date-time" };
}

/// A pixel format is the name of a predefined one, or a table.
impl JsonSchema for PixelFormat {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "PixelFormat".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let planes = json!({
            "type": "array", "items": { "type": "number" }, "minItems": 3, "maxItems": 3
        });
        json_schema!({
            "anyOf": [
                { "enum": ["imagenet-rgb", "imagenet-bgr", "unit-rgb", "bytes-bgr"] },
                {
                    "type": "object",
                    "additionalProperties": false,
                    "properties": {
                        "color": generator.subschema_for::<ColorOrder>(),
                        "mean": planes,
                        "std": planes
                    },
                    "required": ["color", "mean", "std"]
                }
            ]
        })
    }
}
