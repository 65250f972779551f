//! Pixel format of a network's input: order of the planes, mean and standard deviation.

use std::fmt;
use std::str::FromStr;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::range::OutOfRange;

/// Order of the planes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "serve", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum ColorOrder {
    /// Blue, green, red.
    Bgr,
    /// Red, green, blue.
    Rgb,
}

impl ColorOrder {
    /// The name in settings and metadata.
    pub fn name(self) -> &'static str {
        match self {
            ColorOrder::Bgr => "bgr",
            ColorOrder::Rgb => "rgb",
        }
    }
}

/// Normalisation of a byte: (byte - mean) / std, per plane in the order of `color`. Settings give
/// the name of a format or a table with all three fields.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PixelFormat {
    /// Order of the planes.
    pub color: ColorOrder,
    /// Subtracted from each plane, on the 0 to 255 scale.
    pub mean: [f32; 3],
    /// Divides each plane, on the 0 to 255 scale.
    pub std: [f32; 3],
}

/// Names of the predefined formats, for error messages.
const FORMATS: &str = "imagenet-rgb, imagenet-bgr, unit-rgb or bytes-bgr";
/// Smallest and greatest standard deviation that is accepted, on the 0 to 255 scale.
const LEAST_STD: f32 = 1.0;
const GREATEST_STD: f32 = 1e4;

impl PixelFormat {
    /// Bytes divided by 255.
    pub const UNIT_RGB: PixelFormat = PixelFormat {
        color: ColorOrder::Rgb,
        mean: [0.0; 3],
        std: [255.0; 3],
    };
    /// ImageNet's mean and standard deviation, as in torchvision.
    pub const IMAGENET_RGB: PixelFormat = PixelFormat {
        color: ColorOrder::Rgb,
        mean: [123.675, 116.28, 103.53],
        std: [58.395, 57.12, 57.375],
    };
    /// ImageNet's mean and standard deviation, with the planes in OpenCV's order.
    pub const IMAGENET_BGR: PixelFormat = PixelFormat {
        color: ColorOrder::Bgr,
        mean: [103.53, 116.28, 123.675],
        std: [57.375, 57.12, 58.395],
    };
    /// Bytes unchanged.
    pub const BYTES_BGR: PixelFormat = PixelFormat {
        color: ColorOrder::Bgr,
        mean: [0.0; 3],
        std: [1.0; 3],
    };
    /// The formats that have a name in settings.
    const NAMED: [(&str, PixelFormat); 4] = [
        ("imagenet-rgb", Self::IMAGENET_RGB),
        ("imagenet-bgr", Self::IMAGENET_BGR),
        ("unit-rgb", Self::UNIT_RGB),
        ("bytes-bgr", Self::BYTES_BGR),
    ];

    /// Checks that `std` is on the 0 to 255 scale; `key` is the setting's name.
    ///
    /// # Errors
    /// The first value outside its range.
    pub fn validate(&self, key: &str) -> Result<(), OutOfRange> {
        match self
            .std
            .iter()
            .find(|s| !(LEAST_STD..=GREATEST_STD).contains(*s))
        {
            None => Ok(()),
            Some(s) => Err(OutOfRange {
                key: format!("{key}.std"),
                value: s.to_string(),
                allowed: format!(
                    "from {LEAST_STD} to {GREATEST_STD}, on the 0 to 255 scale: multiply a mean \
                     and std of pictures in 0 to 1 by 255, or name a predefined format ({FORMATS})"
                ),
            }),
        }
    }

    /// Plane, factor and offset of each of a frame's channels (blue, green, red).
    pub(super) fn planes(&self) -> [(usize, f32, f32); 3] {
        std::array::from_fn(|channel| {
            let plane = if self.color == ColorOrder::Bgr {
                channel
            } else {
                2 - channel
            };
            (
                plane,
                1.0 / self.std[plane],
                -self.mean[plane] / self.std[plane],
            )
        })
    }
}

impl FromStr for PixelFormat {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let named = Self::NAMED.iter().find(|(name, _)| *name == s);
        named.map(|(_, format)| *format).ok_or_else(|| {
            format!("'{s}' is not a pixel format; use {FORMATS}, or a table {{ color, mean, std }}")
        })
    }
}

impl fmt::Display for PixelFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMED.iter().find(|(_, format)| format == self) {
            Some((name, _)) => f.write_str(name),
            None => write!(
                f,
                "{} mean {:?} std {:?}",
                self.color.name(),
                self.mean,
                self.std
            ),
        }
    }
}

impl<'de> Deserialize<'de> for PixelFormat {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(NameOrTable)
    }
}

/// Deserializes a pixel format from the name of a predefined one or a table.
struct NameOrTable;

impl<'de> Visitor<'de> for NameOrTable {
    type Value = PixelFormat;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a pixel format: {FORMATS}, or a table {{ color, mean, std }}"
        )
    }

    fn visit_str<E: de::Error>(self, s: &str) -> Result<PixelFormat, E> {
        s.parse().map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<PixelFormat, A::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            color: ColorOrder,
            mean: [f32; 3],
            std: [f32; 3],
        }
        let Table { color, mean, std } = Table::deserialize(MapAccessDeserializer::new(map))?;
        Ok(PixelFormat { color, mean, std })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<PixelFormat, String> {
        #[derive(Debug, Deserialize)]
        struct Holder {
            pixels: PixelFormat,
        }
        toml::from_str::<Holder>(&format!("pixels = {text}"))
            .map(|h| h.pixels)
            .map_err(|e| e.to_string())
    }

    #[test]
    fn a_predefined_format_equals_the_table_with_its_values() {
        let table =
            "{ color = \"rgb\", mean = [123.675, 116.28, 103.53], std = [58.395, 57.12, 57.375] }";
        assert_eq!(read("\"imagenet-rgb\""), Ok(PixelFormat::IMAGENET_RGB));
        assert_eq!(read(table), Ok(PixelFormat::IMAGENET_RGB));
        assert_eq!(
            read("\"bytes-bgr\""),
            read("{ color = \"bgr\", mean = [0, 0, 0], std = [1, 1, 1] }")
        );
        for (name, format) in PixelFormat::NAMED {
            assert_eq!(
                (name.parse(), format.to_string().as_str()),
                (Ok(format), name)
            );
            assert!(format.validate("pixels").is_ok());
        }
    }

    #[test]
    fn an_invalid_pixel_format_is_rejected_naming_valid_ones() {
        for (wrong, says) in [
            ("\"imagenet\"", "imagenet-rgb, imagenet-bgr"),
            ("5", "a pixel format: imagenet-rgb"),
            (
                "{ color = \"rgb\", mean = [0, 0, 0] }",
                "missing field `std`",
            ),
            (
                "{ color = \"grey\", mean = [0, 0, 0], std = [1, 1, 1] }",
                "`bgr` or `rgb`",
            ),
            ("{ colour = \"rgb\" }", "unknown field `colour`"),
        ] {
            let e = read(wrong).unwrap_err();
            assert!(e.contains(says), "{wrong}: {e}");
        }
    }

    #[test]
    fn a_std_on_the_0_to_1_scale_is_rejected() {
        let unit = PixelFormat {
            color: ColorOrder::Rgb,
            mean: [0.485, 0.456, 0.406],
            std: [0.229, 0.224, 0.225],
        };
        let e = unit.validate("embedder.pixels").unwrap_err().to_string();
        assert!(
            e.contains("embedder.pixels.std = 0.229") && e.contains("by 255"),
            "{e}"
        );
    }
}
