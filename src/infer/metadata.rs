//! What an ONNX file says of itself: the `twintrack.*` entries of its metadata.

use std::collections::BTreeMap;

use ort::session::Session;

use crate::infer::tensor::{ColorOrder, PixelFormat};

/// The `twintrack.*` entries, without their prefix. A file made elsewhere has none.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ModelMetadata {
    entries: BTreeMap<String, String>,
}

impl ModelMetadata {
    pub(super) fn read(session: &Session) -> Result<Self, String> {
        let metadata = session.metadata().map_err(|e| e.to_string())?;
        let keys = metadata.custom_keys().map_err(|e| e.to_string())?;
        Ok(Self::of(keys.iter().filter_map(|k| Some((k.as_str(), metadata.custom(k)?)))))
    }

    /// From the keys and values of a file's metadata; those that are not `twintrack.*` are left out.
    pub fn of<'a>(pairs: impl Iterator<Item = (&'a str, String)>) -> Self {
        ModelMetadata { entries: pairs.filter_map(|(k, v)| Some((k.strip_prefix("twintrack.")?.to_string(), v))).collect() }
    }

    /// An entry's text.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.entries.get(key).map(String::as_str)
    }

    /// All entries by name.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    /// An entry of numbers separated by commas, as many as asked for; `None` when absent or not so.
    pub fn numbers<const N: usize>(&self, key: &str) -> Option<[f32; N]> {
        let values: Vec<f32> = self.get(key)?.split(',').map(|v| v.trim().parse().ok()).collect::<Option<_>>()?;
        values.try_into().ok()
    }

    /// Colour order, mean and standard deviation, where the file gives all three.
    pub fn pixel_format(&self) -> Option<PixelFormat> {
        let color = match self.get("color")? {
            "bgr" => ColorOrder::Bgr,
            "rgb" => ColorOrder::Rgb,
            _ => return None,
        };
        Some(PixelFormat { color, mean: self.numbers("mean")?, std: self.numbers("std")? })
    }

    /// Input size (width, height) written as WIDTHxHEIGHT.
    pub fn size(&self) -> Option<(usize, usize)> {
        let (w, h) = self.get("size")?.split_once('x')?;
        Some((w.parse().ok()?, h.parse().ok()?))
    }
}
