//! Zones, lines, masks and the ground plane of a camera: where people go, as counts and events.
//!
//! [`Scene`] receives the positions of the tracks in every frame and returns what changed. It is
//! pure: the same for live cameras, recordings and refined trajectories.

mod boundary;
mod change;
mod config;
mod ground;
mod passage;
mod scene;
mod shapes;
#[cfg(test)]
mod tests;

pub use boundary::Point;
pub use change::{Change, LineChange, LineView, SceneView, ZoneChange, ZoneKind, ZoneView};
pub use config::{
    CountingConfig, Direction, Ignore, LineConfig, MaskConfig, PointUnit, SceneConfig, SceneError,
    ZoneConfig,
};
pub use ground::{GroundConfig, GroundPlane};
pub use scene::{Person, Scene};
