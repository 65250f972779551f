//! Metadata in an ONNX file: the `twintrack.*` entries and Ultralytics' class names.

use std::collections::BTreeMap;

use ort::session::Session;

use crate::infer::pixels::{ColorOrder, PixelFormat};

/// The `twintrack.*` entries, without that prefix, and the class names. Files that twintrack did
/// not write have no `twintrack.*` entries.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ModelMetadata {
    entries: BTreeMap<String, String>,
    classes: BTreeMap<usize, String>,
}

impl ModelMetadata {
    pub(super) fn read(session: &Session) -> Result<Self, String> {
        let metadata = session.metadata().map_err(|e| e.to_string())?;
        let keys = metadata.custom_keys().map_err(|e| e.to_string())?;
        Ok(Self::from_pairs(
            keys.iter()
                .filter_map(|k| Some((k.as_str(), metadata.custom(k)?))),
        ))
    }

    /// Reads the keys and values of a file's metadata. Keys other than `twintrack.*` and `names`
    /// are ignored.
    pub fn from_pairs<'a>(pairs: impl Iterator<Item = (&'a str, String)>) -> Self {
        let mut metadata = ModelMetadata::default();
        for (key, value) in pairs {
            if let Some(key) = key.strip_prefix("twintrack.") {
                metadata.entries.insert(key.to_string(), value);
            } else if key == "names" {
                metadata.classes = class_names(&value);
            }
        }
        metadata
    }

    /// Class names by class number, from the metadata key `names`.
    pub fn classes(&self) -> &BTreeMap<usize, String> {
        &self.classes
    }

    /// The text of an entry.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.entries.get(key).map(String::as_str)
    }

    /// All entries by name.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    /// An entry of exactly `N` numbers separated by commas; `None` when absent or malformed.
    pub fn numbers<const N: usize>(&self, key: &str) -> Option<[f32; N]> {
        let values: Vec<f32> = self
            .get(key)?
            .split(',')
            .map(|v| v.trim().parse().ok())
            .collect::<Option<_>>()?;
        values.try_into().ok()
    }

    /// Colour order, mean and standard deviation; `None` unless the file has all three.
    pub fn pixel_format(&self) -> Option<PixelFormat> {
        let color = match self.get("color")? {
            "bgr" => ColorOrder::Bgr,
            "rgb" => ColorOrder::Rgb,
            _ => return None,
        };
        Some(PixelFormat {
            color,
            mean: self.numbers("mean")?,
            std: self.numbers("std")?,
        })
    }

    /// Input size (width, height), written as WIDTHxHEIGHT.
    pub fn size(&self) -> Option<(usize, usize)> {
        let (w, h) = self.get("size")?.split_once('x')?;
        Some((w.parse().ok()?, h.parse().ok()?))
    }
}

/// Parses class names as Ultralytics writes them, as a Python dictionary: `{0: 'person', 1:
/// "driver's cab"}`, up to the first entry of another form.
fn class_names(text: &str) -> BTreeMap<usize, String> {
    let mut names = BTreeMap::new();
    let mut rest = text.trim().strip_prefix('{').unwrap_or_default();
    while let Some((number, after)) = rest.split_once(':') {
        let (number, after) = (number.trim_matches([',', ' ']).parse(), after.trim_start());
        let Some(quote) = after.chars().next().filter(|c| ['\'', '"'].contains(c)) else {
            break;
        };
        let (Ok(number), Some((name, behind))) = (number, after[1..].split_once(quote)) else {
            break;
        };
        names.insert(number, name.to_string());
        rest = behind;
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn class_names_are_parsed_from_a_python_dictionary() {
        let read = |text: &str| class_names(text).into_iter().collect::<Vec<_>>();
        let of = |names: &[(usize, &str)]| {
            names
                .iter()
                .map(|(i, n)| (*i, n.to_string()))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            read("{0: 'person', 1: 'stop: sign', 12: \"driver's cab\"}"),
            of(&[(0, "person"), (1, "stop: sign"), (12, "driver's cab")])
        );
        assert_eq!(read("{0: 'Menschen'}"), of(&[(0, "Menschen")]));
        for none in [
            "",
            "person",
            "['person']",
            "{}",
            "{0: person}",
            "{'a': 'b'}",
            "{0: 'open",
        ] {
            assert_eq!(read(none), [], "{none}");
        }
    }
}
