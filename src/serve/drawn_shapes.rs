//! Zones, lines and masks that were drawn on the page or set over HTTP: the file `shapes.toml` in
//! the state folder. It has the sections of the configuration file, so that they can be moved
//! there.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::analytics::{LineConfig, MaskConfig, SceneConfig, ZoneConfig};
use crate::serve::state_file;
use crate::sink::private;

/// Name of the file in the state folder.
const NAME: &str = "shapes.toml";

/// The file cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DrawnShapesError {
    /// It cannot be read.
    #[error("cannot read the drawn zones in {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// It cannot be written.
    #[error("cannot write the drawn zones to {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// It is not TOML, or has unknown or missing keys.
    #[error("{path} is not a file of zones: {reason}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The parser's message.
        reason: String,
    },
}

/// A zone, line or mask.
#[derive(Debug, Clone, PartialEq)]
pub enum Shape {
    /// A zone.
    Zone(ZoneConfig),
    /// A line.
    Line(LineConfig),
    /// A mask.
    Mask(MaskConfig),
}

/// Which kind of shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShapeKind {
    /// Zones.
    Zone,
    /// Lines.
    Line,
    /// Masks.
    Mask,
}

impl ShapeKind {
    /// Name of the configuration's section, `zones`, `lines` or `masks`.
    pub fn section(self) -> &'static str {
        match self {
            ShapeKind::Zone => "zones",
            ShapeKind::Line => "lines",
            ShapeKind::Mask => "masks",
        }
    }
}

impl Shape {
    /// The kind.
    pub fn kind(&self) -> ShapeKind {
        match self {
            Shape::Zone(_) => ShapeKind::Zone,
            Shape::Line(_) => ShapeKind::Line,
            Shape::Mask(_) => ShapeKind::Mask,
        }
    }
}

/// The shapes of one camera.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shapes {
    /// Zones by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub zones: BTreeMap<String, ZoneConfig>,
    /// Lines by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub lines: BTreeMap<String, LineConfig>,
    /// Masks by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub masks: BTreeMap<String, MaskConfig>,
}

impl Shapes {
    /// The zones, lines and masks of a scene.
    pub fn of(scene: &SceneConfig) -> Self {
        Shapes {
            zones: scene.zones.clone(),
            lines: scene.lines.clone(),
            masks: scene.masks.clone(),
        }
    }

    /// Whether there is a shape of this kind and name.
    pub fn has(&self, kind: ShapeKind, name: &str) -> bool {
        match kind {
            ShapeKind::Zone => self.zones.contains_key(name),
            ShapeKind::Line => self.lines.contains_key(name),
            ShapeKind::Mask => self.masks.contains_key(name),
        }
    }

    /// Adds a shape, or replaces the one of its kind and name. Returns whether there was one.
    pub fn put(&mut self, name: &str, shape: Shape) -> bool {
        let name = name.to_string();
        match shape {
            Shape::Zone(zone) => self.zones.insert(name, zone).is_some(),
            Shape::Line(line) => self.lines.insert(name, line).is_some(),
            Shape::Mask(mask) => self.masks.insert(name, mask).is_some(),
        }
    }

    /// Removes a shape. Returns whether there was one.
    pub fn remove(&mut self, kind: ShapeKind, name: &str) -> bool {
        match kind {
            ShapeKind::Zone => self.zones.remove(name).is_some(),
            ShapeKind::Line => self.lines.remove(name).is_some(),
            ShapeKind::Mask => self.masks.remove(name).is_some(),
        }
    }

    /// All shapes with their names.
    pub fn all(&self) -> Vec<(&String, Shape)> {
        let zones = self.zones.iter().map(|(n, z)| (n, Shape::Zone(z.clone())));
        let lines = self.lines.iter().map(|(n, l)| (n, Shape::Line(l.clone())));
        let masks = self.masks.iter().map(|(n, m)| (n, Shape::Mask(m.clone())));
        zones.chain(lines).chain(masks).collect()
    }

    /// Puts these shapes into a scene, in place of its own.
    pub fn into_scene(self, scene: SceneConfig) -> SceneConfig {
        scene
            .with_zones(self.zones)
            .with_lines(self.lines)
            .with_masks(self.masks)
    }

    fn is_empty(&self) -> bool {
        self.zones.is_empty() && self.lines.is_empty() && self.masks.is_empty()
    }
}

/// The drawn shapes of all cameras, by the camera's name.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DrawnShapes {
    /// Shapes by the camera's name.
    pub cameras: BTreeMap<String, Shapes>,
}

/// The file.
#[derive(Debug, Clone)]
pub struct DrawnShapesFile(PathBuf);

impl DrawnShapesFile {
    /// The file in this state folder; it may be missing.
    pub fn in_folder(state: &Path) -> Self {
        DrawnShapesFile(state.join(NAME))
    }

    /// Reads the file; no shapes if it is missing.
    ///
    /// # Errors
    /// When it cannot be read or is invalid.
    pub fn read(&self) -> Result<DrawnShapes, DrawnShapesError> {
        let path = &self.0;
        let text = state_file::read(path).map_err(|source| DrawnShapesError::Read {
            path: path.clone(),
            source,
        })?;
        toml::from_str(&text.unwrap_or_default()).map_err(|e| DrawnShapesError::Invalid {
            path: path.clone(),
            reason: e.message().to_string(),
        })
    }

    /// Replaces the file.
    ///
    /// # Errors
    /// When it cannot be written; the old file is then unchanged.
    pub fn write(&self, shapes: &DrawnShapes) -> Result<(), DrawnShapesError> {
        let mut shapes = shapes.clone();
        shapes.cameras.retain(|_, camera| !camera.is_empty());
        let write = || {
            let folder = self.0.parent().unwrap_or(Path::new("."));
            private::create_folder(folder)?;
            let text = toml::to_string(&shapes).map_err(io::Error::other)?;
            let head = "# Zones, lines and masks drawn on the page of twintrack serve. They can be \
                        moved to the\n# configuration file.\n\n";
            state_file::replace(&self.0, &format!("{head}{text}"))
        };
        write().map_err(|source| DrawnShapesError::Write {
            path: self.0.clone(),
            source,
        })
    }
}
