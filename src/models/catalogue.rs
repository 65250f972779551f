//! The catalogue: which networks there are, where their publishers keep them, and how they are to be used.

use std::path::Path;

use serde::Deserialize;

use crate::infer::{InputSize, PixelFormat};
use crate::models::digest::Digest;
use crate::models::error::ModelsError;
use crate::track::similarity::{Calibration, Strangers};

/// The catalogue of this program.
const OWN: &str = include_str!("../../models/catalogue.toml");

/// Networks that can be downloaded.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalogue {
    /// The networks, in the order they are listed.
    #[serde(rename = "model", default)]
    pub entries: Vec<Entry>,
}

/// What a network is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It finds people.
    Detector,
    /// It tells them apart.
    Embedder,
}

impl Kind {
    /// Its name in the catalogue and in a file's metadata.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Detector => "detector",
            Kind::Embedder => "embedder",
        }
    }
}

/// In what form its publisher keeps a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One ONNX file, used as it is.
    #[default]
    Onnx,
    /// OpenVINO IR, an XML file and a binary, imported to ONNX.
    OpenVino,
}

/// One network.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Name to get and use it by: small letters, digits and hyphens.
    pub name: String,
    /// Detector or embedder.
    pub kind: Kind,
    /// What it is, in a sentence.
    pub about: String,
    /// Licence of the weights.
    pub licence: String,
    /// Page of its publisher.
    pub source: String,
    /// Form of the files.
    #[serde(default)]
    pub format: Format,
    /// How good it is, where that was measured with twintrack.
    pub quality: Option<String>,
    /// Its files: one of ONNX; of OpenVINO the XML file and then the binary.
    pub files: Vec<RemoteFile>,
    /// How it is to be used.
    pub settings: Settings,
}

/// A file at its publisher's.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoteFile {
    /// http:// or https:// address.
    pub address: String,
    /// Its length.
    pub bytes: u64,
    /// Its hash.
    pub hash: Digest,
}

impl RemoteFile {
    /// Name of the file, the last part of its address.
    pub fn name(&self) -> &str {
        self.address.rsplit('/').next().unwrap_or_default()
    }
}

/// What the file does not say itself: it becomes the file's metadata.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Output layout of a detector.
    pub layout: Option<String>,
    /// Input size; auto where the file fixes it.
    #[serde(default)]
    pub size: InputSize,
    /// What pixels it takes.
    pub pixels: PixelFormat,
    /// What an embedder's distances mean, where that was measured.
    pub calibration: Option<Calibration>,
    /// How often strangers are alike to it, where that was measured.
    pub strangers: Option<Strangers>,
}

impl Catalogue {
    /// The catalogue of this program.
    ///
    /// # Errors
    /// Never for a released program: a test reads it.
    pub fn own() -> Result<Self, ModelsError> {
        Self::parse(OWN, "of this program")
    }

    /// A catalogue of your own, in the form of `models/catalogue.toml`.
    ///
    /// # Errors
    /// When it cannot be read, or an entry is wrong.
    pub fn read(path: &Path) -> Result<Self, ModelsError> {
        let text = std::fs::read_to_string(path).map_err(|e| ModelsError::read(path, e))?;
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
                return Err(wrong(format!("it has two networks '{}'", entry.name)));
            }
        }
        Ok(catalogue)
    }

    /// The entry of that name.
    ///
    /// # Errors
    /// When there is none.
    pub fn entry(&self, name: &str) -> Result<&Entry, ModelsError> {
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

impl Entry {
    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|f| f.bytes).sum()
    }

    /// Entries of the installed file's metadata, without their prefix.
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
                Strangers::KEY,
                self.settings.strangers.as_ref().map(Strangers::to_string),
            ),
            ("licence", Some(self.licence.clone())),
            ("source", Some(self.source.clone())),
        ];
        entries
            .into_iter()
            .filter_map(|(k, v)| Some((k.to_string(), v?)))
            .collect()
    }

    /// Refuses what could not be installed, and names that would leave the folder.
    fn check(&self) -> Result<(), String> {
        if self.name.is_empty()
            || !self
                .name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        {
            return Err("a name has small letters, digits and hyphens only".into());
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
        if self.format == Format::OpenVino && self.kind != Kind::Embedder {
            return Err("only embedders can be imported from OpenVINO".into());
        }
        if (self.kind == Kind::Detector) != self.settings.layout.is_some() {
            return Err("a detector needs settings.layout, an embedder has none".into());
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
                    "'{}' is no http:// or https:// address of a file",
                    file.address
                ));
            }
            if file.bytes == 0 || !file.hash.is_valid() {
                return Err(format!(
                    "{} needs its length and its hash (sha256 or sha384, small letters)",
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
    fn our_own_catalogue_is_right_and_complete() {
        let catalogue = Catalogue::own().expect("right");
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
        let omz = catalogue.entry("omz-reid-0287").expect("there");
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
    fn an_unknown_name_is_told_with_those_there_are() {
        let e = Catalogue::own()
            .expect("right")
            .entry("omz-reid-287")
            .unwrap_err()
            .to_string();
        assert!(
            e.contains("'omz-reid-287'") && e.contains("omz-reid-0287"),
            "{e}"
        );
    }

    #[test]
    fn a_wrong_entry_is_told_with_its_name() {
        let entry = |name: &str, address: &str, hash: &str| {
            format!(
                "[[model]]\nname = \"{name}\"\nkind = \"embedder\"\nabout = \"x\"\nlicence = \"x\"\nsource = \"x\"\n\
                 files = [{{ address = \"{address}\", bytes = 1, hash.sha256 = \"{hash}\" }}]\n\
                 [model.settings]\npixels = {{ color = \"rgb\", mean = [0, 0, 0], std = [1, 1, 1] }}\n"
            )
        };
        let hash = "0".repeat(64);
        assert!(Catalogue::parse(&entry("good", "http://x/a.onnx", &hash), "c").is_ok());
        for (name, address, hash, says) in [
            ("../up", "http://x/a.onnx", hash.as_str(), "small letters"),
            ("ftp", "ftp://x/a.onnx", &hash, "http://"),
            ("short", "http://x/a.onnx", "00", "its hash"),
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
                .contains("two networks")
        );
    }
}
