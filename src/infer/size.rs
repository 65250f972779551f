//! Input size of a network, as written in settings and options.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::range::{OutOfRange, within};

/// Size of a network's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum InputSize {
    /// The model's own size. A detector with free dimensions uses the frame's size, scaled down to
    /// `detector.longest_side` if it is larger; an embedder uses the size in its metadata.
    #[default]
    Auto,
    /// Width and height in pixels.
    Fixed(usize, usize),
}

impl FromStr for InputSize {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let fixed = || {
            s.split_once('x')
                .and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)))
                .filter(|&(w, h)| w > 0 && h > 0)
        };
        if s == "auto" {
            Ok(InputSize::Auto)
        } else {
            fixed()
                .map(|(w, h)| InputSize::Fixed(w, h))
                .ok_or_else(|| format!("'{s}' is not a size; use auto or WIDTHxHEIGHT, as 768x576"))
        }
    }
}

impl fmt::Display for InputSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InputSize::Auto => f.write_str("auto"),
            InputSize::Fixed(w, h) => write!(f, "{w}x{h}"),
        }
    }
}

impl Serialize for InputSize {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for InputSize {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl InputSize {
    /// Checks that both sides are in `least` to 8192 pixels; `key` is the setting's name.
    ///
    /// # Errors
    /// The first side out of range.
    pub fn validate(self, key: &str, least: usize) -> Result<(), OutOfRange> {
        let InputSize::Fixed(w, h) = self else {
            return Ok(());
        };
        within(&format!("{key} (width)"), w, least, 8192)?;
        within(&format!("{key} (height)"), h, least, 8192)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_survive_formatting_and_parsing() {
        assert_eq!("768x576".parse(), Ok(InputSize::Fixed(768, 576)));
        assert_eq!(
            "auto".parse::<InputSize>().map(|s| s.to_string()),
            Ok("auto".to_string())
        );
        for bad in ["768", "0x5", "axb", ""] {
            assert!(bad.parse::<InputSize>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_side_out_of_range_is_rejected() {
        let e = InputSize::Fixed(64, 9000)
            .validate("detector.size", 32)
            .unwrap_err()
            .to_string();
        assert!(e.contains("detector.size (height) = 9000"), "{e}");
        assert!(InputSize::Auto.validate("detector.size", 32).is_ok());
    }
}
