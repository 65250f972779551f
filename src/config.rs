//! The configuration file: a section for the settings of each module. Every key has a default;
//! `docs/reference/configuration.md` lists them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use derive_setters::Setters;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::analytics::{
    CountingConfig, GroundConfig, LineConfig, MaskConfig, SceneConfig, SceneError, ZoneConfig,
};
use crate::detect::{DetectorConfig, Precision};
use crate::embed::{Crops, EmbedderConfig};
use crate::infer::{Device, Preprocessing, SessionOptions};
use crate::range::{OutOfRange, within};
use crate::sink::OutputConfig;
use crate::sink::privacy::{Blur, PrivacyConfig};
use crate::source::SourceConfig;
use crate::text_file;
use crate::time::Seconds;
use crate::track::TrackerConfig;
use crate::track::cadence::{CadenceConfig, CadenceLimits};
use crate::track::head::{AssociationHead, HeadTable};
use crate::track::identity::IdentityConfig;
use crate::track::offline::OfflineConfig;

mod preset;

pub use preset::Preset;

/// All settings of a run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, Setters)]
#[cfg_attr(feature = "serve", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct Config {
    /// Choice between speed and accuracy: fast, balanced or accurate. It decides
    /// `detector.precision`, `detector.longest_side`, `embedder.crops`, `cadence.max_interval` and
    /// `cadence.overlap` where they are auto.
    pub preset: Preset,
    /// Device on which networks run: auto, cpu, cuda, cuda:N or tensorrt.
    pub device: Device,
    /// CPU threads of each network; 0: one per core.
    pub threads: usize,
    /// Processor that scales frames and cuts crops: auto, cpu, or device (the one on which networks
    /// run). auto: device if it is a GPU, so that each frame is copied to it once, as bytes;
    /// otherwise cpu.
    pub preprocessing: Preprocessing,
    /// How videos are decoded.
    pub source: SourceConfig,
    /// The detector.
    pub detector: DetectorConfig,
    /// The embedder (Siamese network).
    pub embedder: EmbedderConfig,
    /// Which frames the detector processes.
    pub cadence: CadenceConfig,
    /// The tracker.
    pub tracker: TrackerConfig,
    /// Offline processing of whole recordings (`track --offline`, `refine`).
    pub offline: OfflineConfig,
    /// Identities: names of a gallery, and remembered people.
    pub identity: IdentityConfig,
    /// Which tracks and events are written.
    pub output: OutputConfig,
    /// What pictures and stored data may show of people.
    pub privacy: PrivacyConfig,
    /// When a person counts as being on the other side of a line or of a zone's border.
    pub counting: CountingConfig,
    /// Zones by name, in which people are counted. `zones`, `lines`, `masks` and `ground` at the top
    /// level apply to `track` and `refine`; if `--camera` names a camera of the file, those of that
    /// camera apply instead. `serve` uses those of each camera.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub zones: BTreeMap<String, ZoneConfig>,
    /// Lines by name, over which people are counted.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub lines: BTreeMap<String, LineConfig>,
    /// Masks by name, in which people are ignored.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub masks: BTreeMap<String, MaskConfig>,
    /// Map from the picture to the ground, for positions and speeds in metres.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ground: Option<GroundConfig>,
}

/// Errors of reading a configuration.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file is not TOML, or has an unknown key or a value of the wrong type.
    #[error("invalid configuration {}: {reason}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// The cause, with line and column.
        reason: String,
    },
    /// The file of `tracker.head_file` cannot be used.
    #[error("cannot use the association head {}: {reason}", path.display())]
    AssociationHead {
        /// The file.
        path: PathBuf,
        /// The cause.
        reason: String,
    },
    /// A value is out of range.
    #[error("invalid configuration: {0}")]
    Range(#[from] OutOfRange),
    /// A zone, line, mask or ground plane cannot be used.
    #[error("invalid configuration: {0}")]
    Scene(#[from] SceneError),
}

impl ConfigError {
    /// The error that the content of the file `path` is invalid.
    pub fn invalid(path: &Path, reason: impl ToString) -> Self {
        ConfigError::Parse {
            path: path.into(),
            reason: without_type_names(reason.to_string().trim()),
        }
    }
}

/// Replaces the name of a Rust type in serde's message, as in "expected struct TrackerConfig" and
/// "expected usize".
fn without_type_names(reason: &str) -> String {
    let Some((head, rest)) = reason.rsplit_once("expected ") else {
        return reason.to_string();
    };
    let end_of_word = |s: &str| s.find(|c: char| !c.is_alphanumeric()).unwrap_or(s.len());
    let (word, after) = rest.split_at(end_of_word(rest));
    let name = after.strip_prefix(' ').unwrap_or(after);
    let unnamed = &name[end_of_word(name)..];
    let (plain, after) = match word {
        "struct" => ("a table", unnamed),
        "enum" => ("a name", unnamed),
        "f32" | "f64" => ("a number", after),
        "u8" | "u16" | "u32" | "u64" | "usize" => ("a whole number from 0", after),
        "i8" | "i16" | "i32" | "i64" | "isize" => ("a whole number", after),
        _ => return reason.to_string(),
    };
    format!("{head}expected {plain}{after}")
}

impl Config {
    /// Reads a TOML file; absent keys have their defaults.
    ///
    /// # Errors
    /// When the file cannot be read, is not TOML, or has an unknown key, a value of the wrong type
    /// or out of range, or a shape that cannot be used; or when the file of `tracker.head_file`
    /// cannot be used.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        Self::from_toml(&Self::text(path)?, path)
    }

    /// Reads the text of a configuration file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn text(path: &Path) -> Result<String, ConfigError> {
        text_file::read(path).map_err(|source| ConfigError::Read {
            path: path.into(),
            source,
        })
    }

    /// Parses the TOML `text` of the file `path`. Relative names of files in it are relative to the
    /// folder of `path`.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub fn from_toml(text: &str, path: &Path) -> Result<Self, ConfigError> {
        Self::from_table(parse_table(text, path)?, text, path)
    }

    /// Reads a configuration from `table`, which is a part of the TOML `text` of the file `path`.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub fn from_table(table: Table<'_>, text: &str, path: &Path) -> Result<Self, ConfigError> {
        let mut config: Config = deserialize_table(table, text, path)?;
        config.validate()?;
        config.output.embeddings &= config.privacy.embeddings;
        if let Some(head) = &config.tracker.head_file {
            // `join` keeps an absolute path as it is.
            config.tracker.head = Some(Arc::new(read_head(
                &path.parent().unwrap_or(Path::new("")).join(head),
            )?));
        }
        Ok(config)
    }

    /// Checks that every value is in its range.
    ///
    /// # Errors
    /// The first value outside its range, or the first shape that cannot be used.
    pub fn validate(&self) -> Result<(), ConfigError> {
        within("threads", self.threads, 0, 1024)?;
        self.source.validate()?;
        self.detector.validate()?;
        self.embedder.validate()?;
        self.cadence.validate()?;
        self.tracker.validate()?;
        self.offline.validate()?;
        self.identity.validate()?;
        self.output.validate()?;
        self.counting.validate()?;
        self.scene().validate("")?;
        // The detector must not drop detections that the tracker uses.
        within(
            "detector.confidence",
            self.detector.confidence,
            0.0,
            self.tracker.unsure,
        )?;
        Ok(())
    }

    /// The zones, lines, masks and ground plane.
    pub fn scene(&self) -> SceneConfig {
        SceneConfig::default()
            .with_zones(self.zones.clone())
            .with_lines(self.lines.clone())
            .with_masks(self.masks.clone())
            .with_ground(self.ground.clone())
    }

    /// The tracker's settings; with `offline`, those that produce tracklets for offline linking.
    pub fn tracker(&self, offline: bool) -> TrackerConfig {
        if offline {
            self.offline.tracklets.tracker(&self.tracker)
        } else {
            self.tracker.clone()
        }
    }

    /// The detector's settings. Those that are auto and depend on `preset` are replaced by its
    /// values.
    pub fn detector(&self) -> DetectorConfig {
        let precision = match self.detector.precision {
            Precision::Auto => self.preset.precision(),
            chosen => chosen,
        };
        let longest_side = self
            .detector
            .longest_side
            .unwrap_or(self.preset.longest_side());
        self.detector
            .clone()
            .with_precision(precision)
            .with_longest_side(Some(longest_side))
    }

    /// The crops that are embedded. `on_gpu`: whether the embedder runs on a GPU.
    pub fn crops(&self, on_gpu: bool) -> Crops {
        let preset = if on_gpu {
            Crops::All
        } else {
            self.preset.crops()
        };
        self.embedder.crops.unwrap_or(preset)
    }

    /// The limits within which the detector skips frames of a live input (`live`) or of a
    /// recording. `None`: the detector processes every frame, as by default on a GPU.
    pub fn cadence(&self, live: bool, on_gpu: bool) -> Option<CadenceLimits> {
        // Somebody who appears in a frame that the detector skips could not be hidden.
        let preset = if on_gpu || self.privacy.blur != Blur::None {
            Seconds::ZERO
        } else {
            self.preset.max_interval(live)
        };
        let max_interval = self.cadence.max_interval.map_or(preset, Seconds);
        (max_interval.0 > 0.0).then(|| CadenceLimits {
            max_interval,
            overlap: self.cadence.overlap.unwrap_or(self.preset.overlap()),
        })
    }

    /// Options of the networks' sessions.
    pub fn session(&self) -> SessionOptions {
        SessionOptions::new(self.device, self.threads()).with_preprocessing(self.preprocessing)
    }

    /// CPU threads for the networks; `threads = 0` is replaced by the number of cores.
    pub fn threads(&self) -> usize {
        if self.threads > 0 {
            self.threads
        } else {
            std::thread::available_parallelism().map_or(1, usize::from)
        }
    }
}

/// A TOML table with its position in the text.
pub type Table<'a> = toml::Spanned<toml::de::DeTable<'a>>;

/// Parses the TOML `text` of the file `path`.
///
/// # Errors
/// When it is not TOML.
pub fn parse_table<'a>(text: &'a str, path: &Path) -> Result<Table<'a>, ConfigError> {
    toml::de::DeTable::parse(text).map_err(|e| ConfigError::invalid(path, e))
}

/// Deserialises `table`, which is a part of the TOML `text` of the file `path`.
///
/// # Errors
/// On an unknown key or a value of the wrong type; the message has its line in `text`.
pub fn deserialize_table<T: DeserializeOwned>(
    table: Table<'_>,
    text: &str,
    path: &Path,
) -> Result<T, ConfigError> {
    T::deserialize(toml::de::Deserializer::from(table)).map_err(|mut e| {
        e.set_input(Some(text));
        ConfigError::invalid(path, e)
    })
}

fn read_head(path: &Path) -> Result<AssociationHead, ConfigError> {
    let wrong = |reason: String| ConfigError::AssociationHead {
        path: path.into(),
        reason,
    };
    let text = text_file::read(path).map_err(|e| wrong(e.to_string()))?;
    let table: HeadTable = serde_json::from_str(&text).map_err(|e| wrong(e.to_string()))?;
    AssociationHead::new(&table).map_err(|e| wrong(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, ConfigError> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("written");
        Config::read(file.path())
    }

    #[test]
    fn an_empty_file_is_the_default() {
        assert_eq!(read("").expect("empty is fine"), Config::default());
        Config::default()
            .validate()
            .expect("the defaults are in their own ranges");
    }

    #[test]
    fn a_key_in_the_file_changes_only_that_setting() {
        let config = read("[tracker]\nkeep_lost = 5.0\n[tracker.cost]\nsize = 0.1").expect("valid");
        assert_eq!(config.tracker.keep_lost, 5.0);
        assert_eq!(config.tracker.cost.size, 0.1);
        assert_eq!(config.detector, DetectorConfig::default());
    }

    #[test]
    fn the_error_for_an_unknown_key_has_its_line() {
        let e = read("[tracker]\nkeep_lots = 5.0\n")
            .unwrap_err()
            .to_string();
        assert!(e.contains("keep_lots") && e.contains("line 2"), "{e}");
    }

    #[test]
    fn errors_do_not_name_rust_types() {
        for text in [
            "tracker = 5",
            "[tracker]\nmotion = 5",
            "[embedder]\ncalibration = 5",
        ] {
            let e = read(text).unwrap_err().to_string();
            assert!(
                e.contains("expected a table") && !e.contains("struct") && !e.contains("Config"),
                "{e}"
            );
        }
        for (text, says) in [
            (
                "[detector]\nclass = \"personn\"",
                "expected a whole number from 0 or \"auto\"",
            ),
            ("[tracker]\nkeep_lost = \"x\"", "expected a number"),
            ("threads = \"x\"", "expected a whole number from 0"),
        ] {
            let e = read(text).unwrap_err().to_string();
            assert!(e.contains(says), "{e} instead of {says}");
        }
    }

    #[test]
    fn the_error_for_a_value_out_of_range_has_the_range() {
        let e = read("[tracker]\nkeep_lost = -1.0").unwrap_err().to_string();
        assert!(
            e.contains("tracker.keep_lost = -1") && e.contains("from 0 to 3600"),
            "{e}"
        );
    }

    #[test]
    fn the_head_file_is_relative_to_the_configuration() {
        let dir = tempfile::tempdir().expect("a folder");
        let (config, head) = (dir.path().join("c.toml"), dir.path().join("head.json"));
        std::fs::write(&config, "[tracker]\nhead_file = \"head.json\"\n").expect("written");
        assert!(
            Config::read(&config)
                .unwrap_err()
                .to_string()
                .contains("head.json")
        );
        std::fs::write(
            &head,
            r#"{"schema":"twintrack.head/1","base":0.0,"trees":[[{"leaf":1.0}]]}"#,
        )
        .expect("written");
        assert!(Config::read(&config).expect("valid").tracker.head.is_some());
    }

    #[test]
    fn the_default_is_equal_after_serialisation_to_toml() {
        let text = toml::to_string(&Config::default()).expect("serialises");
        assert_eq!(
            toml::from_str::<Config>(&text).expect("parses"),
            Config::default()
        );
    }
}
