//! Serde functions for settings that default to `auto`: `None` is written as `auto`.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::{F64Deserializer, StrDeserializer, U64Deserializer};
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};

/// Serializes `auto` or the value.
///
/// # Errors
/// Forwards the serializer's error.
#[expect(clippy::ref_option, reason = "serde's `with` requires this signature")]
pub(crate) fn serialize<T: Serialize, S: Serializer>(
    value: &Option<T>,
    s: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => value.serialize(s),
        None => s.serialize_str("auto"),
    }
}

/// Deserializes `auto`, or a name or number that `T` accepts.
///
/// # Errors
/// Fails on any other value.
pub(crate) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    d: D,
) -> Result<Option<T>, D::Error> {
    d.deserialize_any(AutoOr(PhantomData))
}

/// A setting that is `auto` or a `T`.
pub(crate) struct AutoOr<T>(PhantomData<T>);

#[cfg(feature = "serve")]
impl<T: schemars::JsonSchema> schemars::JsonSchema for AutoOr<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("AutoOr{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "anyOf": [{ "const": "auto" }, generator.subschema_for::<T>()] })
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for AutoOr<T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("auto, or a value")
    }

    fn visit_str<E: de::Error>(self, s: &str) -> Result<Option<T>, E> {
        if s == "auto" {
            Ok(None)
        } else {
            T::deserialize(StrDeserializer::<E>::new(s))
                .map(Some)
                .map_err(|e| E::custom(format!("{} or \"auto\"", e.to_string().trim_end())))
        }
    }

    fn visit_i64<E: de::Error>(self, v: i64) -> Result<Option<T>, E> {
        let v = u64::try_from(v).map_err(|_| {
            E::invalid_value(de::Unexpected::Signed(v), &"auto, or a number from 0")
        })?;
        self.visit_u64(v)
    }

    fn visit_f64<E: de::Error>(self, v: f64) -> Result<Option<T>, E> {
        T::deserialize(F64Deserializer::<E>::new(v)).map(Some)
    }

    fn visit_u64<E: de::Error>(self, v: u64) -> Result<Option<T>, E> {
        T::deserialize(U64Deserializer::<E>::new(v)).map(Some)
    }
}

#[cfg(test)]
mod tests {
    #[cfg(feature = "infer")]
    use crate::detect::{DetectorConfig, Layout};

    #[cfg(feature = "infer")]
    #[test]
    fn auto_and_explicit_values_survive_a_round_trip() {
        let read = |text: &str| toml::from_str::<DetectorConfig>(text).map_err(|e| e.to_string());
        let auto = read("layout = \"auto\"\nclass = \"auto\"").expect("the default");
        assert_eq!(auto, DetectorConfig::default());
        let own = read("layout = \"yolox-decoded\"\nclass = 7").expect("valid");
        assert_eq!(
            (own.layout, own.class),
            (Some(Layout::YoloxDecoded), Some(7))
        );
        assert_eq!(read(&toml::to_string(&own).expect("serialises")), Ok(own));
        for (wrong, says) in [
            ("layout = \"yolo9\"", "or \"auto\""),
            ("layout = 3", "expected enum Layout"),
            ("class = -1", "a number from 0"),
            ("class = \"person\"", "person"),
            ("class = true", "auto"),
        ] {
            let e = read(wrong).unwrap_err();
            assert!(
                e.contains(says) && e.contains(wrong.split(' ').next().expect("a key")),
                "{wrong}: {e}"
            );
        }
    }
}
