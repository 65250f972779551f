//! Settings of zones, lines and masks.

use std::collections::BTreeMap;

use derive_setters::Setters;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::analytics::boundary::{Boundary, Point};
use crate::analytics::ground::{GroundConfig, GroundPlane};
use crate::range::{OutOfRange, within};

/// Largest number of corners of a zone, line or mask.
const MAX_POINTS: usize = 64;
/// Largest number of zones, lines and masks together of a camera.
const MAX_SHAPES: usize = 256;

/// The unit of a shape's points.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "serve", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum PointUnit {
    /// Shares if no coordinate is outside 0 to 1, otherwise pixels.
    #[default]
    Auto,
    /// Pixels of the source frame.
    Pixel,
    /// Shares of the frame's width and height, from 0 (left, top) to 1 (right, bottom).
    Share,
    /// Metres on the ground; needs `ground`.
    Metre,
}

/// A direction over a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "serve", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From the left hand to the right hand of somebody who goes along the line's points.
    In,
    /// From the right hand to the left hand.
    Out,
}

/// An area in which people are counted.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, Setters)]
#[cfg_attr(feature = "serve", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct ZoneConfig {
    /// Corners [x, y] of the polygon, 3 to 64, in order around it. It must not cross itself.
    #[cfg_attr(feature = "serve", schemars(length(min = 3, max = 64)))]
    pub points: Vec<Point>,
    /// Unit of `points`: auto, pixel, share or metre. auto: shares of the frame if no coordinate is
    /// outside 0 to 1, otherwise pixels.
    pub unit: PointUnit,
    /// Seconds, 0.1 to 86400, after which a person who stays causes a `dwell` event; absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "serve", schemars(range(min = 0.1, max = 86400)))]
    pub dwell: Option<f64>,
    /// Maximum number of people, 0 to 100000; more for longer than `counting.hold` cause an
    /// `over_limit` event. Absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "serve", schemars(range(max = 100_000)))]
    pub limit: Option<u32>,
}

/// A line over which people are counted.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, Setters)]
#[cfg_attr(feature = "serve", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct LineConfig {
    /// Points [x, y], 2 to 64, of the line. `in` is from the left hand to the right hand of
    /// somebody who goes along them, as seen in the picture.
    #[cfg_attr(feature = "serve", schemars(length(min = 2, max = 64)))]
    pub points: Vec<Point>,
    /// Unit of `points`, as in zones.
    pub unit: PointUnit,
    /// The wrong direction, in or out: its crossings are marked in the events. Absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wrong: Option<Direction>,
}

/// What a mask leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "serve", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Ignore {
    /// Detections: nobody is tracked there.
    #[default]
    Detections,
    /// Counting: people are tracked there, but their positions are not used by zones and lines.
    Counting,
}

/// An area in which people are ignored.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, Setters)]
#[cfg_attr(feature = "serve", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct MaskConfig {
    /// Corners [x, y] of the polygon, as in zones. A person is in it if the foot point is.
    #[cfg_attr(feature = "serve", schemars(length(min = 3, max = 64)))]
    pub points: Vec<Point>,
    /// Unit of `points`, as in zones.
    pub unit: PointUnit,
    /// What the mask leaves out: detections or counting.
    pub ignore: Ignore,
}

/// Section `[counting]`: when a person counts as being on the other side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Setters)]
#[cfg_attr(feature = "serve", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct CountingConfig {
    /// Half the width of the band around lines and borders of zones in which a person has not
    /// crossed yet, as a share, 0.001 to 1, of the height of the person's box.
    pub margin: f64,
    /// Seconds, 0 to 60: a crossing and a crossing back in less time cancel each other. Events are
    /// written this much later, `over_limit` events twice as much.
    pub hold: f64,
}

impl Default for CountingConfig {
    fn default() -> Self {
        CountingConfig {
            margin: 0.05,
            hold: 0.5,
        }
    }
}

impl CountingConfig {
    /// Checks that every value is in its range.
    ///
    /// # Errors
    /// The first value outside its range.
    pub fn validate(&self) -> Result<(), OutOfRange> {
        within("counting.margin", self.margin, 0.001, 1.0)?;
        within("counting.hold", self.hold, 0.0, 60.0)
    }
}

/// The shapes of one camera.
#[derive(Debug, Clone, PartialEq, Default, Setters)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct SceneConfig {
    /// Zones by name.
    pub zones: BTreeMap<String, ZoneConfig>,
    /// Lines by name.
    pub lines: BTreeMap<String, LineConfig>,
    /// Masks by name.
    pub masks: BTreeMap<String, MaskConfig>,
    /// The ground plane, if it is known.
    pub ground: Option<GroundConfig>,
}

/// Errors in the settings of a camera's zones, lines, masks and ground plane.
#[derive(Debug, Error, PartialEq)]
#[non_exhaustive]
pub enum SceneError {
    /// A value is out of range.
    #[error(transparent)]
    Range(#[from] OutOfRange),
    /// A shape cannot be used.
    #[error("{key} cannot be used: {reason}")]
    Shape {
        /// The dotted key, such as `zones.entrance`.
        key: String,
        /// The reason.
        reason: String,
    },
    /// The ground plane cannot be used.
    #[error("{key} cannot be used: {reason}")]
    Ground {
        /// The dotted key.
        key: String,
        /// The reason.
        reason: String,
    },
}

/// A shape's points, in their unit.
pub(super) struct Shape<'a> {
    pub points: &'a [Point],
    pub unit: PointUnit,
}

impl Shape<'_> {
    /// The points in pixels of a frame of `width` by `height` pixels. None: a point in metres is
    /// not in front of the camera.
    pub fn pixels(
        &self,
        (width, height): (u32, u32),
        ground: Option<&GroundPlane>,
    ) -> Option<Vec<Point>> {
        let is_share = self
            .points
            .iter()
            .flatten()
            .all(|v| (0.0..=1.0).contains(v));
        let convert = |&[x, y]: &Point| match self.unit {
            PointUnit::Metre => ground?.to_pixels([x, y]),
            PointUnit::Share => Some([x * f64::from(width), y * f64::from(height)]),
            PointUnit::Auto if is_share => Some([x * f64::from(width), y * f64::from(height)]),
            PointUnit::Auto | PointUnit::Pixel => Some([x, y]),
        };
        self.points.iter().map(convert).collect()
    }
}

impl ZoneConfig {
    pub(super) fn shape(&self) -> Shape<'_> {
        Shape {
            points: &self.points,
            unit: self.unit,
        }
    }
}

impl LineConfig {
    pub(super) fn shape(&self) -> Shape<'_> {
        Shape {
            points: &self.points,
            unit: self.unit,
        }
    }
}

impl MaskConfig {
    pub(super) fn shape(&self) -> Shape<'_> {
        Shape {
            points: &self.points,
            unit: self.unit,
        }
    }
}

impl SceneConfig {
    /// Whether there is nothing to count, to ignore or to measure.
    pub fn is_empty(&self) -> bool {
        self.zones.is_empty()
            && self.lines.is_empty()
            && self.masks.is_empty()
            && self.ground.is_none()
    }

    /// Checks every shape; `prefix` comes before the keys in messages (`cameras.gate.` or nothing).
    ///
    /// # Errors
    /// The first fault: a ground plane that cannot be used, or is missing for shapes in metres; a
    /// shape with an invalid name, a wrong number of points, a point out of range or two equal
    /// successive points; a polygon without area or that crosses itself; a value outside its range.
    pub fn validate(&self, prefix: &str) -> Result<(), SceneError> {
        let ground = self.ground_plane().map_err(|reason| SceneError::Ground {
            key: format!("{prefix}ground"),
            reason,
        })?;
        let all = self.zones.len() + self.lines.len() + self.masks.len();
        within(
            &format!("the number of {prefix}zones, lines and masks together"),
            all,
            0,
            MAX_SHAPES,
        )?;
        let zones = self
            .zones
            .iter()
            .map(|(n, z)| ("zones", n, z.shape(), true));
        let lines = self
            .lines
            .iter()
            .map(|(n, l)| ("lines", n, l.shape(), false));
        let masks = self
            .masks
            .iter()
            .map(|(n, m)| ("masks", n, m.shape(), true));
        for (kind, name, shape, closed) in zones.chain(lines).chain(masks) {
            check_shape(name, &shape, closed, ground.as_ref()).map_err(|reason| {
                SceneError::Shape {
                    key: format!("{prefix}{kind}.{name}"),
                    reason,
                }
            })?;
        }
        for (name, zone) in &self.zones {
            let key = |k: &str| format!("{prefix}zones.{name}.{k}");
            zone.dwell
                .map_or(Ok(()), |d| within(&key("dwell"), d, 0.1, 86_400.0))?;
            zone.limit
                .map_or(Ok(()), |l| within(&key("limit"), l, 0, 100_000))?;
        }
        Ok(())
    }

    pub(super) fn ground_plane(&self) -> Result<Option<GroundPlane>, String> {
        self.ground.as_ref().map(GroundPlane::new).transpose()
    }
}

/// The reason why a shape cannot be used, if there is one.
fn check_shape(
    name: &str,
    shape: &Shape<'_>,
    closed: bool,
    ground: Option<&GroundPlane>,
) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !name.chars().all(allowed) || name.chars().all(|c| c == '.') {
        return Err(
            "its name may contain only letters, digits, '-', '_' and '.', and not only dots: it \
             becomes part of topics and addresses"
                .into(),
        );
    }
    let least = if closed { 3 } else { 2 };
    let given = shape.points.len();
    if !(least..=MAX_POINTS).contains(&given) {
        return Err(format!(
            "it has {given} points; it needs {least} to {MAX_POINTS}"
        ));
    }
    let limit = if shape.unit == PointUnit::Share {
        0.0..=1.0
    } else {
        -1e6..=1e6
    };
    if let Some([x, y]) = shape
        .points
        .iter()
        .find(|p| p.iter().any(|v| !limit.contains(v)))
    {
        return Err(format!(
            "the point [{x}, {y}] is outside {} to {}",
            limit.start(),
            limit.end()
        ));
    }
    if shape.unit == PointUnit::Metre && ground.is_none() {
        return Err("its points are in metres, which needs the section `ground`".into());
    }
    // Shares are checked in a square: crossings and areas do not depend on the frame's size.
    let pixels = shape
        .pixels((1000, 1000), ground)
        .ok_or("a point is at or behind the horizon of `ground`")?;
    Boundary::fault(pixels, closed).map_or(Ok(()), Err)
}
