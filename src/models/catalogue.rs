//! The catalogue of downloadable networks: addresses and hashes of their files, and the settings
//! that they need.

use std::path::Path;

use serde::Deserialize;

use crate::infer::{InputSize, PixelFormat};
use crate::models::digest::Digest;
use crate::models::error::ModelsError;
use crate::text_file;
use crate::track::similarity::{Calibration, StrangerTable};

/// The built-in catalogue.
const OWN: &str = include_str!("../../models/catalogue.toml");

/// List of networks that can be downloaded.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalogue {
    /// The networks, in the order of listing.
    #[serde(rename = "model", default)]
    pub entries: Vec<CatalogueEntry>,
}

/// Purpose of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum NetworkKind {
    /// Finds people.
    Detector,
    /// Distinguishes people.
    Embedder,
}

impl NetworkKind {
    /// The name in the catalogue and in a file's metadata.
    pub fn name(self) -> &'static str {
        match self {
            NetworkKind::Detector => "detector",
            NetworkKind::Embedder => "embedder",
        }
    }
}

/// File format in which the publisher provides a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Format {
    /// One ONNX file, used unchanged.
    #[default]
    Onnx,
    /// OpenVINO IR, an XML file and a binary, imported to ONNX.
    OpenVino,
}

/// One network of the catalogue.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CatalogueEntry {
    /// Name of the network: lower-case letters, digits and hyphens.
    pub name: String,
    /// Detector or embedder.
    pub kind: NetworkKind,
    /// Description in one sentence.
    pub about: String,
    /// Licence of the weights.
    pub licence: String,
    /// The publisher's page.
    pub source: String,
    /// Format of the files.
    #[serde(default)]
    pub format: Format,
    /// Measured quality with twintrack, if known.
    pub quality: Option<String>,
    /// The files: for ONNX one; for OpenVINO the XML file, then the binary.
    pub files: Vec<RemoteFile>,
    /// Settings with which the network must be used.
    pub settings: NetworkSettings,
}

/// A file on the publisher's server.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoteFile {
    /// Address, http:// or https://.
    pub address: String,
    /// Length in bytes.
    pub bytes: u64,
    /// Expected hash.
    pub hash: Digest,
}

impl RemoteFile {
    /// Name of the file: the last part of its address.
    pub fn name(&self) -> &str {
        self.address.rsplit('/').next().unwrap_or_default()
    }
}

/// Settings that the publisher's file lacks; they are written into its metadata.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkSettings {
    /// Output layout of a detector.
    pub layout: Option<String>,
    /// Input size; `auto` if the file fixes it.
    #[serde(default)]
    pub size: InputSize,
    /// Pixel format of the input.
    pub pixels: PixelFormat,
    /// Calibration of an embedder's distances, if measured.
    pub calibration: Option<Calibration>,
    /// False-accept rates of an embedder by distance, if measured.
    pub strangers: Option<StrangerTable>,
}

impl Catalogue {
    /// The built-in catalogue.
    ///
    /// # Errors
    /// Fails when the built-in catalogue is invalid, which a test excludes.
    pub fn own() -> Result<Self, ModelsError> {
        Self::parse(OWN, "of this program")
    }

    /// Reads another catalogue, in the format of `models/catalogue.toml`.
    ///
    /// # Errors
    /// Fails when the file cannot be read or an entry is invalid.
    pub fn read(path: &Path) -> Result<Self, ModelsError> {
        let text = text_file::read(path).map_err(|e| ModelsError::read(path, e))?;
        Self::parse(&text, &path.display().to_string())
    }

    fn parse(text: &str, name: &str) -> Result<Self, ModelsError> {
        let wrong = |reason: String| ModelsError::Catalogue {
            name: name.into(),
            reason,
        };
        let catalogue: Catalogue =
            toml::from_str(text).map_err(|e| wrong(e.to_string().trim().to_string()))?;
        for (i, entry) in catalogue.entries.iter().enumerate() {
            entry
                .check()
                .map_err(|reason| wrong(format!("{}: {reason}", entry.name)))?;
            if catalogue.entries[..i].iter().any(|e| e.name == entry.name) {
                return Err(wrong(format!("two networks are named '{}'", entry.name)));
            }
        }
        Ok(catalogue)
    }

    /// The entry with that name.
    ///
    /// # Errors
    /// Fails when there is no such entry; the message lists the known names.
    pub fn entry(&self, name: &str) -> Result<&CatalogueEntry, ModelsError> {
        let known = || {
            self.entries
                .iter()
                .map(|e| e.name.as_str())
                .collect::<Vec<_>>()
                .join(", ")
        };
        self.entries
            .iter()
            .find(|e| e.name == name)
            .ok_or_else(|| ModelsError::Unknown {
                name: name.into(),
                known: known(),
            })
    }
}

impl CatalogueEntry {
    /// Total size of all files in bytes.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|f| f.bytes).sum()
    }

    /// Metadata entries of the installed file, without the `twintrack.` prefix.
    pub fn metadata(&self) -> Vec<(String, String)> {
        let numbers = |v: [f32; 3]| v.map(|x| x.to_string()).join(",");
        let pixels = &self.settings.pixels;
        let size = match self.settings.size {
            InputSize::Fixed(w, h) => Some(format!("{w}x{h}")),
            InputSize::Auto => None,
        };
        let entries = [
            ("kind", Some(self.kind.name().to_string())),
            ("name", Some(self.name.clone())),
            ("layout", self.settings.layout.clone()),
            ("size", size),
            ("color", Some(pixels.color.name().to_string())),
            ("mean", Some(numbers(pixels.mean))),
            ("std", Some(numbers(pixels.std))),
            (
                Calibration::KEY,
                self.settings.calibration.map(|c| c.entry()),
            ),
            (
                StrangerTable::KEY,
                self.settings
                    .strangers
                    .as_ref()
                    .map(StrangerTable::to_string),
            ),
            ("licence", Some(self.licence.clone())),
            ("source", Some(self.source.clone())),
        ];
        entries
            .into_iter()
            .filter_map(|(k, v)| Some((k.to_string(), v?)))
            .collect()
    }

    /// Rejects an entry that cannot be installed, or a name that could refer to a file outside the
    /// folder.
    fn check(&self) -> Result<(), String> {
        if self.name.is_empty()
            || !self
                .name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        {
            return Err("a name may have lower-case letters, digits and hyphens only".into());
        }
        let endings: &[&str] = match self.format {
            Format::Onnx => &[".onnx"],
            Format::OpenVino => &[".xml", ".bin"],
        };
        let fits = self.files.len() == endings.len()
            && self
                .files
                .iter()
                .zip(endings)
                .all(|(f, end)| f.name().ends_with(end) && f.name() != *end);
        if !fits {
            return Err(format!(
                "its format needs the files {}, in this order",
                endings.join(" and ")
            ));
        }
        if self.format == Format::OpenVino && self.kind != NetworkKind::Embedder {
            return Err("only embedders can be imported from OpenVINO".into());
        }
        if (self.kind == NetworkKind::Detector) != self.settings.layout.is_some() {
            return Err("a detector needs settings.layout; an embedder must not have it".into());
        }
        self.settings
            .pixels
            .validate("settings.pixels")
            .map_err(|e| e.to_string())?;
        self.settings
            .calibration
            .map_or(Ok(()), |c| c.validate("settings.calibration"))
            .map_err(|e| e.to_string())?;
        for file in &self.files {
            if !(file.address.starts_with("https://") || file.address.starts_with("http://"))
                || file.name().contains(['?', '#', '\\'])
            {
                return Err(format!(
                    "'{}' is not the http:// or https:// address of a file",
                    file.address
                ));
            }
            if file.bytes == 0 || !file.hash.is_valid() {
                return Err(format!(
                    "{} needs a length and a hash (sha256 or sha384, lower-case hexadecimal)",
                    file.name()
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infer::ColorOrder;

    #[test]
    fn built_in_catalogue_is_valid_and_complete() {
        let catalogue = Catalogue::own().expect("valid");
        let names: Vec<&str> = catalogue.entries.iter().map(|e| e.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "omz-reid-0277",
                "omz-reid-0287",
                "omz-reid-0288",
                "youtu-reid",
                "youtu-reid-int8",
                "yolox-s",
                "nanodet-m"
            ]
        );
        for e in &catalogue.entries {
            assert_eq!(e.licence, "Apache-2.0", "{}", e.name);
            assert!(
                e.files.iter().all(|f| f.address.starts_with("https://")),
                "{}",
                e.name
            );
            assert!(
                e.about.ends_with('.') && e.source.starts_with("https://github.com/"),
                "{}",
                e.name
            );
        }
        let omz = catalogue.entry("omz-reid-0287").expect("listed");
        assert_eq!(
            (omz.format, omz.settings.pixels.color, omz.settings.size),
            (
                Format::OpenVino,
                ColorOrder::Bgr,
                InputSize::Fixed(128, 256)
            )
        );
        let text: Vec<String> = omz
            .metadata()
            .into_iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect();
        assert_eq!(
            text[..6],
            [
                "kind=embedder",
                "name=omz-reid-0287",
                "size=128x256",
                "color=bgr",
                "mean=0,0,0",
                "std=1,1,1"
            ]
        );
    }

    #[test]
    fn an_unknown_name_is_rejected_listing_known_ones() {
        let e = Catalogue::own()
            .expect("valid")
            .entry("omz-reid-287")
            .unwrap_err()
            .to_string();
        assert!(
            e.contains("'omz-reid-287'") && e.contains("omz-reid-0287"),
            "{e}"
        );
    }

    #[test]
    fn an_invalid_entry_is_reported_with_its_name() {
        let entry = |name: &str, address: &str, hash: &str| {
            format!(
                "[[model]]\nname = \"{name}\"\nkind = \"embedder\"\nabout = \"x\"\n\
                 licence = \"x\"\nsource = \"x\"\n\
                 files = [{{ address = \"{address}\", bytes = 1, hash.sha256 = \"{hash}\" }}]\n\
                 [model.settings]\n\
                 pixels = {{ color = \"rgb\", mean = [0, 0, 0], std = [1, 1, 1] }}\n"
            )
        };
        let hash = "0".repeat(64);
        assert!(Catalogue::parse(&entry("good", "http://x/a.onnx", &hash), "c").is_ok());
        for (name, address, hash, says) in [
            (
                "../up",
                "http://x/a.onnx",
                hash.as_str(),
                "lower-case letters",
            ),
            ("ftp", "ftp://x/a.onnx", &hash, "http://"),
            ("short", "http://x/a.onnx", "00", "a hash"),
            ("pickle", "http://x/a.pkl", &hash, ".onnx"),
        ] {
            let e = Catalogue::parse(&entry(name, address, hash), "c")
                .unwrap_err()
                .to_string();
            assert!(e.contains(name) && e.contains(says), "{e}");
        }
        let twice = entry("a", "http://x/a.onnx", &hash).repeat(2);
        assert!(
            Catalogue::parse(&twice, "c")
                .unwrap_err()
                .to_string()
                .contains("two networks are named")
        );
    }
}
