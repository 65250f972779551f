//! The cameras' settings in use: those of the configuration file, and the zones, lines and masks
//! that were drawn.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thiserror::Error;
use tokio::sync::watch;

use crate::analytics::{SceneConfig, SceneError};
use crate::pipeline::CameraConfigs;
use crate::serve::drawn_shapes::{
    DrawnShapes, DrawnShapesError, DrawnShapesFile, Shape, ShapeKind, Shapes,
};
use crate::source::CameraConfig;

/// A change of a shape is not possible.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ShapeError {
    /// There is no such camera.
    #[error("there is no camera '{0}'")]
    UnknownCamera(String),
    /// There is no drawn shape of this kind and name.
    #[error("the camera has no {0} of this name")]
    UnknownShape(&'static str),
    /// The configuration file has a shape of this kind and name.
    #[error("the configuration file has {0} of this name; change it there")]
    Configured(&'static str),
    /// The shape cannot be used.
    #[error(transparent)]
    Scene(#[from] SceneError),
    /// The file cannot be written.
    #[error(transparent)]
    File(#[from] DrawnShapesError),
}

struct State {
    /// The cameras of the configuration file.
    configured: CameraConfigs,
    drawn: DrawnShapes,
}

/// The settings. Clones share them.
#[derive(Clone)]
pub struct CameraSettings(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    file: DrawnShapesFile,
    /// The settings in use.
    used: watch::Sender<CameraConfigs>,
}

impl CameraSettings {
    /// The cameras of the configuration file, with the drawn shapes in this state folder.
    ///
    /// # Errors
    /// When the file of drawn shapes cannot be read or is invalid.
    pub fn open(configured: CameraConfigs, folder: &Path) -> Result<Self, DrawnShapesError> {
        let file = DrawnShapesFile::in_folder(folder);
        let drawn = file.read()?;
        let state = State { configured, drawn };
        let used = watch::Sender::new(state.used());
        Ok(CameraSettings(Arc::new(Shared {
            state: Mutex::new(state),
            file,
            used,
        })))
    }

    /// The settings in use, which change with the configuration file and with drawn shapes.
    pub fn used(&self) -> watch::Receiver<CameraConfigs> {
        self.0.used.subscribe()
    }

    /// Takes the cameras of a configuration file that was read again.
    pub fn set_configured(&self, configured: CameraConfigs) {
        let mut state = self.state();
        state.configured = configured;
        self.0.used.send_replace(state.used());
    }

    /// A camera's shapes: those of the configuration file, those that were drawn and are used, and
    /// its settings in use. None if there is no such camera.
    pub fn shapes(&self, camera: &str) -> Option<(Shapes, Shapes, SceneConfig)> {
        let state = self.state();
        let configured = state.configured.get(camera)?.scene();
        let used = state.scene(camera, &configured);
        let configured = Shapes::of(&configured);
        let mut drawn = Shapes::of(&used);
        for (name, shape) in configured.all() {
            drawn.remove(shape.kind(), name);
        }
        Some((configured, drawn, used))
    }

    /// Adds or replaces a drawn shape. Returns whether it is new.
    ///
    /// # Errors
    /// When there is no such camera, the configuration file has a shape of this kind and name, the
    /// shape cannot be used, or the file cannot be written; nothing is then changed.
    pub fn put(&self, camera: &str, name: &str, shape: Shape) -> Result<bool, ShapeError> {
        let mut state = self.state();
        let mut own = state.changeable(camera, shape.kind(), name)?;
        let configured = state.configured.get(camera).map(CameraConfig::scene);
        let configured = configured.unwrap_or_default();
        let mut all = Shapes::of(&state.scene(camera, &configured));
        all.put(name, shape.clone());
        all.into_scene(configured).validate("")?;
        let is_new = !own.put(name, shape);
        self.replace(&mut state, camera, own)?;
        Ok(is_new)
    }

    /// Removes a drawn shape.
    ///
    /// # Errors
    /// When there is no such camera or drawn shape, the configuration file has a shape of this kind
    /// and name, or the file cannot be written.
    pub fn remove(&self, camera: &str, kind: ShapeKind, name: &str) -> Result<(), ShapeError> {
        let mut state = self.state();
        let mut own = state.changeable(camera, kind, name)?;
        if !own.remove(kind, name) {
            return Err(ShapeError::UnknownShape(kind.section()));
        }
        self.replace(&mut state, camera, own)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn replace(&self, state: &mut State, camera: &str, own: Shapes) -> Result<(), ShapeError> {
        let mut drawn = state.drawn.clone();
        drawn.cameras.insert(camera.into(), own);
        self.0.file.write(&drawn)?;
        state.drawn = drawn;
        self.0.used.send_replace(state.used());
        Ok(())
    }
}

impl State {
    /// The drawn shapes of a camera, if that of this kind and name may change.
    fn changeable(&self, camera: &str, kind: ShapeKind, name: &str) -> Result<Shapes, ShapeError> {
        let configured = self.configured.get(camera);
        let configured = configured.ok_or_else(|| ShapeError::UnknownCamera(camera.into()))?;
        if Shapes::of(&configured.scene()).has(kind, name) {
            return Err(ShapeError::Configured(kind.section()));
        }
        Ok(self.drawn.cameras.get(camera).cloned().unwrap_or_default())
    }

    /// A camera's scene: that of the configuration file, and the drawn shapes that it allows.
    fn scene(&self, camera: &str, configured: &SceneConfig) -> SceneConfig {
        let mut shapes = Shapes::of(configured);
        let drawn = self.drawn.cameras.get(camera);
        for (name, shape) in drawn.into_iter().flat_map(Shapes::all) {
            let (before, kind) = (shapes.clone(), shape.kind().section());
            if shapes.put(name, shape) {
                tracing::warn!(camera, kind, name = %name,
                    "the drawn shape is not used: the configuration file has one of this name");
                shapes = before;
            } else if let Err(error) = shapes.clone().into_scene(configured.clone()).validate("") {
                tracing::warn!(camera, kind, name = %name, %error, "the drawn shape is not used");
                shapes = before;
            }
        }
        shapes.into_scene(configured.clone())
    }

    /// The settings of all cameras.
    fn used(&self) -> CameraConfigs {
        let camera = |(name, config): (&String, &CameraConfig)| {
            let mut config = config.clone();
            config.set_scene(self.scene(name, &config.scene()));
            (name.clone(), config)
        };
        self.configured.iter().map(camera).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analytics::{LineConfig, ZoneConfig};

    fn zone(size: f64) -> ZoneConfig {
        ZoneConfig::default().with_points(vec![[0.0, 0.0], [size, 0.0], [size, size]])
    }

    fn settings(folder: &Path, zones: &[&str]) -> CameraSettings {
        let mut camera = CameraConfig::default();
        let zones = zones.iter().map(|name| (name.to_string(), zone(0.5)));
        camera.set_scene(SceneConfig::default().with_zones(zones.collect()));
        let cameras = [("gate".to_string(), camera)].into();
        CameraSettings::open(cameras, folder).expect("readable")
    }

    fn zones(settings: &CameraSettings) -> Vec<String> {
        let used = settings.used();
        let used = used.borrow();
        used["gate"].zones.keys().cloned().collect()
    }

    #[test]
    fn drawn_shapes_are_used_with_those_of_the_configuration_and_kept() {
        let dir = tempfile::tempdir().expect("a folder");
        let own = settings(dir.path(), &["door"]);
        let mut changes = own.used();
        changes.mark_unchanged();
        assert!(
            own.put("gate", "desk", Shape::Zone(zone(0.4)))
                .expect("new")
        );
        assert!(
            !own.put("gate", "desk", Shape::Zone(zone(0.3)))
                .expect("old")
        );
        let line = LineConfig::default().with_points(vec![[0.0, 0.5], [1.0, 0.5]]);
        assert!(
            own.put("gate", "desk", Shape::Line(line)).expect("new"),
            "another kind"
        );
        assert!(changes.has_changed().expect("open"));
        assert_eq!(zones(&own), ["desk", "door"]);
        let (configured, drawn, _) = own.shapes("gate").expect("known");
        assert_eq!(configured.zones.len() + drawn.zones.len(), 2);
        assert_eq!(drawn.zones["desk"], zone(0.3));
        // After a restart, and with a configuration that has a zone of the same name.
        assert_eq!(zones(&settings(dir.path(), &["door"])), ["desk", "door"]);
        let again = settings(dir.path(), &["desk", "door"]);
        assert_eq!(again.used().borrow()["gate"].zones["desk"], zone(0.5));
        // The file can be pasted into a configuration.
        let text = std::fs::read_to_string(dir.path().join("shapes.toml")).expect("written");
        assert!(text.contains("[cameras.gate.zones.desk]"), "{text}");
        own.remove("gate", ShapeKind::Zone, "desk").expect("drawn");
        own.remove("gate", ShapeKind::Line, "desk").expect("drawn");
        assert_eq!(zones(&own), ["door"]);
    }

    #[test]
    fn changes_that_are_not_possible_change_nothing() {
        let dir = tempfile::tempdir().expect("a folder");
        let own = settings(dir.path(), &["door"]);
        let put = |camera: &str, name: &str, zone| {
            let error = own
                .put(camera, name, Shape::Zone(zone))
                .expect_err("impossible");
            error.to_string()
        };
        assert!(put("yard", "a", zone(0.5)).contains("no camera 'yard'"));
        assert!(put("gate", "door", zone(0.5)).contains("configuration file has zones"));
        for name in ["", "..", "a b", "../a"] {
            assert!(put("gate", name, zone(0.5)).contains("its name"), "{name}");
        }
        assert!(put("gate", "a", ZoneConfig::default()).contains("0 points"));
        let remove = |name| own.remove("gate", ShapeKind::Zone, name);
        assert!(matches!(
            remove("a"),
            Err(ShapeError::UnknownShape("zones"))
        ));
        assert!(matches!(
            remove("door"),
            Err(ShapeError::Configured("zones"))
        ));
        assert_eq!(zones(&own), ["door"]);
        assert!(!dir.path().join("shapes.toml").exists());
    }
}
