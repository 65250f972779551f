//! The zones, lines, masks and ground plane that `track` and `refine` use.

use std::collections::BTreeMap;
use std::path::Path;

use twintrack::analytics::{CountingConfig, Scene, SceneConfig, SceneError};
use twintrack::config::{Config, ConfigError};

/// The scenes of a configuration file.
pub struct Scenes {
    /// Those of `[cameras.NAME]`, by name.
    cameras: BTreeMap<String, SceneConfig>,
    /// That of the sections `[zones]`, `[lines]`, `[masks]` and `[ground]`.
    common: SceneConfig,
    counting: CountingConfig,
}

impl Scenes {
    /// Reads the scenes of the file at `path`, whose other settings are `config`.
    ///
    /// # Errors
    /// As [`crate::app::settings::read`].
    pub fn read(path: Option<&Path>, config: &Config) -> Result<Self, ConfigError> {
        Ok(Scenes {
            cameras: path.map_or_else(|| Ok(BTreeMap::new()), of_cameras)?,
            common: config.scene(),
            counting: config.counting.clone(),
        })
    }

    /// The settings of a camera: those of its own section if the file has it, otherwise the common
    /// ones.
    pub fn config(&self, camera: &str) -> &SceneConfig {
        self.cameras.get(camera).unwrap_or(&self.common)
    }

    /// Warns if the file has cameras with shapes, but none of this name and no common shapes.
    pub fn warn_of_unused(&self, camera: &str) {
        let unused = !self.cameras.contains_key(camera) && self.common.is_empty();
        let mut with_shapes = self.cameras.iter().filter(|(_, scene)| !scene.is_empty());
        if let Some((other, _)) = with_shapes.next().filter(|_| unused) {
            tracing::warn!(
                camera,
                "the configuration has zones and lines of other cameras only, which are not used; \
                 --camera {other} uses those of {other}"
            );
        }
    }

    /// The settings of a camera while it is tracked: with `offline`, only its masks, because people
    /// are counted on the linked tracks.
    pub fn during(&self, camera: &str, offline: bool) -> SceneConfig {
        let config = self.config(camera).clone();
        if offline {
            SceneConfig::default().with_masks(config.masks)
        } else {
            config
        }
    }

    /// The scene of a camera, without people.
    ///
    /// # Errors
    /// When a shape cannot be used, which reading the configuration has ruled out.
    pub fn scene(&self, camera: &str) -> Result<Scene, SceneError> {
        Scene::new(self.config(camera).clone(), self.counting.clone())
    }
}

#[cfg(feature = "serve")]
fn of_cameras(path: &Path) -> Result<BTreeMap<String, SceneConfig>, ConfigError> {
    let (service, _) = twintrack::serve::ServiceConfig::read_partial(path)?;
    let scene = |(name, camera): (String, twintrack::source::CameraConfig)| (name, camera.scene());
    Ok(service.cameras.into_iter().map(scene).collect())
}

#[cfg(not(feature = "serve"))]
fn of_cameras(_: &Path) -> Result<BTreeMap<String, SceneConfig>, ConfigError> {
    Ok(BTreeMap::new())
}
