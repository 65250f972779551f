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
    /// The camera is one of a fleet.
    #[error(
        "the zones, lines and masks of a fleet's cameras are part of their records: change them with \
         `twintrack fleet apply`"
    )]
    Fleet,
    /// The camera's shapes are not those that the client knows.
    #[error("the shapes of the camera have changed in the meantime; read them again")]
    Changed,
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
    /// The cameras are a fleet's: nothing is drawn here.
    is_fleet: bool,
    /// The settings in use.
    used: watch::Sender<CameraConfigs>,
}

impl CameraSettings {
    /// The cameras of the configuration file, with the drawn shapes in this state folder.
    ///
    /// # Errors
    /// When the file of drawn shapes cannot be read or is invalid.
    pub fn open(configured: CameraConfigs, folder: &Path) -> Result<Self, DrawnShapesError> {
        let drawn = DrawnShapesFile::in_folder(folder).read()?;
        Ok(Self::with(configured, folder, drawn, false))
    }

    /// The cameras of a fleet, which come by [`CameraSettings::set_configured`]. Their shapes
    /// cannot be changed here, because another worker may have the camera next.
    pub fn of_fleet(folder: &Path) -> Self {
        Self::with(CameraConfigs::new(), folder, DrawnShapes::default(), true)
    }

    fn with(configured: CameraConfigs, folder: &Path, drawn: DrawnShapes, is_fleet: bool) -> Self {
        let file = DrawnShapesFile::in_folder(folder);
        let state = State { configured, drawn };
        state.log_unused();
        let used = watch::Sender::new(state.used());
        CameraSettings(Arc::new(Shared {
            state: Mutex::new(state),
            file,
            is_fleet,
            used,
        }))
    }

    /// The settings in use, which change with the configuration file and with drawn shapes.
    pub fn used(&self) -> watch::Receiver<CameraConfigs> {
        self.0.used.subscribe()
    }

    /// Takes the cameras of a configuration file that was read again.
    pub fn set_configured(&self, configured: CameraConfigs) {
        let mut state = self.state();
        state.configured = configured;
        state.log_unused();
        self.0.used.send_replace(state.used());
    }

    /// A camera's shapes: those of the configuration file, those that were drawn and are used, and
    /// its settings in use. None if there is no such camera.
    pub fn shapes(&self, camera: &str) -> Option<CameraShapes> {
        self.state().shapes(camera)
    }

    /// Adds or replaces a drawn shape, if `expected` accepts the camera's present shapes. Returns
    /// whether the shape is new.
    ///
    /// # Errors
    /// When there is no such camera, its shapes are not the expected ones, it is one of a fleet,
    /// the configuration file has a shape of this kind and name, the shape cannot be used, or the
    /// file cannot be written; nothing is then changed.
    pub fn put(
        &self,
        camera: &str,
        name: &str,
        shape: Shape,
        expected: impl FnOnce(&CameraShapes) -> bool,
    ) -> Result<bool, ShapeError> {
        let mut state = self.state();
        state.check(camera, expected)?;
        if self.0.is_fleet {
            return Err(ShapeError::Fleet);
        }
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

    /// Removes a drawn shape, if `expected` accepts the camera's present shapes.
    ///
    /// # Errors
    /// When there is no such camera or drawn shape, the camera's shapes are not the expected ones,
    /// it is one of a fleet, the configuration file has a shape of this kind and name, or the file
    /// cannot be written.
    pub fn remove(
        &self,
        camera: &str,
        kind: ShapeKind,
        name: &str,
        expected: impl FnOnce(&CameraShapes) -> bool,
    ) -> Result<(), ShapeError> {
        let mut state = self.state();
        state.check(camera, expected)?;
        if self.0.is_fleet {
            return Err(ShapeError::Fleet);
        }
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

/// A camera's shapes.
#[derive(Debug, Clone)]
pub struct CameraShapes {
    /// Those of the configuration file.
    pub configured: Shapes,
    /// Those that were drawn and are used.
    pub drawn: Shapes,
    /// The camera's settings in use.
    pub used: SceneConfig,
}

/// Why a drawn shape is not used.
enum Unused {
    Configured,
    Invalid(SceneError),
}

impl State {
    fn shapes(&self, camera: &str) -> Option<CameraShapes> {
        let configured = self.configured.get(camera)?.scene();
        let used = self.scene(camera, &configured);
        let configured = Shapes::of(&configured);
        let mut drawn = Shapes::of(&used);
        for (name, shape) in configured.all() {
            drawn.remove(shape.kind(), name);
        }
        Some(CameraShapes {
            configured,
            drawn,
            used,
        })
    }

    fn check(
        &self,
        camera: &str,
        expected: impl FnOnce(&CameraShapes) -> bool,
    ) -> Result<(), ShapeError> {
        let shapes = self.shapes(camera);
        let shapes = shapes.ok_or_else(|| ShapeError::UnknownCamera(camera.into()))?;
        if expected(&shapes) {
            Ok(())
        } else {
            Err(ShapeError::Changed)
        }
    }

    /// Logs the drawn shapes that are not used.
    fn log_unused(&self) {
        for (camera, config) in &self.configured {
            for (kind, name, why) in self.merged(camera, &config.scene()).1 {
                match why {
                    Unused::Configured => tracing::warn!(
                        camera,
                        kind,
                        name,
                        "the drawn shape is not used: the configuration file has one of this name"
                    ),
                    Unused::Invalid(error) => {
                        tracing::warn!(camera, kind, name, %error, "the drawn shape is not used");
                    }
                }
            }
        }
    }

    /// The drawn shapes of a camera, if its drawn shape of this kind and name may be changed.
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
        self.merged(camera, configured).0
    }

    /// As [`State::scene`], and the drawn shapes that are not used: kind, name, reason.
    fn merged(
        &self,
        camera: &str,
        configured: &SceneConfig,
    ) -> (SceneConfig, Vec<(&'static str, String, Unused)>) {
        let (mut shapes, mut unused) = (Shapes::of(configured), Vec::new());
        let drawn = self.drawn.cameras.get(camera);
        for (name, shape) in drawn.into_iter().flat_map(Shapes::all) {
            let (before, kind) = (shapes.clone(), shape.kind().section());
            let why = if shapes.put(name, shape) {
                Some(Unused::Configured)
            } else {
                let scene = shapes.clone().into_scene(configured.clone());
                scene.validate("").err().map(Unused::Invalid)
            };
            if let Some(why) = why {
                shapes = before;
                unused.push((kind, name.to_string(), why));
            }
        }
        (shapes.into_scene(configured.clone()), unused)
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
            own.put("gate", "desk", Shape::Zone(zone(0.4)), |_| true)
                .expect("new")
        );
        assert!(
            !own.put("gate", "desk", Shape::Zone(zone(0.3)), |_| true)
                .expect("old")
        );
        let line = LineConfig::default().with_points(vec![[0.0, 0.5], [1.0, 0.5]]);
        assert!(
            own.put("gate", "desk", Shape::Line(line), |_| true)
                .expect("new"),
            "another kind"
        );
        assert!(changes.has_changed().expect("open"));
        assert_eq!(zones(&own), ["desk", "door"]);
        let shapes = own.shapes("gate").expect("known");
        assert_eq!(shapes.configured.zones.len() + shapes.drawn.zones.len(), 2);
        assert_eq!(shapes.drawn.zones["desk"], zone(0.3));
        // After a restart, and with a configuration that has a zone of the same name.
        assert_eq!(zones(&settings(dir.path(), &["door"])), ["desk", "door"]);
        let again = settings(dir.path(), &["desk", "door"]);
        assert_eq!(again.used().borrow()["gate"].zones["desk"], zone(0.5));
        // The file can be pasted into a configuration.
        let text = std::fs::read_to_string(dir.path().join("shapes.toml")).expect("written");
        assert!(text.contains("[cameras.gate.zones.desk]"), "{text}");
        for kind in [ShapeKind::Zone, ShapeKind::Line] {
            own.remove("gate", kind, "desk", |_| true).expect("drawn");
        }
        assert_eq!(zones(&own), ["door"]);
    }

    #[test]
    fn shapes_of_a_fleets_cameras_cannot_be_drawn() {
        let dir = tempfile::tempdir().expect("a folder");
        let own = CameraSettings::of_fleet(dir.path());
        own.set_configured([("gate".to_string(), CameraConfig::default())].into());
        let put = own.put("gate", "a", Shape::Zone(zone(0.5)), |_| true);
        assert!(matches!(put, Err(ShapeError::Fleet)));
    }

    #[test]
    fn changes_that_are_not_possible_change_nothing() {
        let dir = tempfile::tempdir().expect("a folder");
        let own = settings(dir.path(), &["door"]);
        let put = |camera: &str, name: &str, zone| {
            let error = own
                .put(camera, name, Shape::Zone(zone), |_| true)
                .expect_err("impossible");
            error.to_string()
        };
        assert!(put("yard", "a", zone(0.5)).contains("no camera 'yard'"));
        assert!(put("gate", "door", zone(0.5)).contains("configuration file has zones"));
        for name in ["", "..", "a b", "../a"] {
            assert!(put("gate", name, zone(0.5)).contains("its name"), "{name}");
        }
        assert!(put("gate", "a", ZoneConfig::default()).contains("0 points"));
        let stale = own.put("gate", "a", Shape::Zone(zone(0.5)), |shapes| {
            shapes.configured.zones.is_empty()
        });
        assert!(matches!(stale, Err(ShapeError::Changed)));
        let remove = |name| own.remove("gate", ShapeKind::Zone, name, |_| true);
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
