//! The ground plane: a homography from pixels to metres, from point pairs (Hartley & Zisserman
//! 2004, "Multiple view geometry", algorithm 4.2: normalised direct linear transformation).

use derive_setters::Setters;
use nalgebra::{Matrix3, SMatrix, SVector, Vector3};
use serde::{Deserialize, Serialize};

use crate::analytics::boundary::Point;

/// Largest number of point pairs.
const MAX_PAIRS: usize = 64;
/// Largest error in metres of a given pair: a greater one means that a pair is wrong.
const MAX_ERROR: f64 = 1.0;

/// Section `ground` of a camera: where points of the picture are on the ground.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, Setters)]
#[cfg_attr(feature = "serve", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct GroundConfig {
    /// Point pairs [x, y, X, Y], 4 to 64: x, y in pixels of the source frame, X, Y in metres on the
    /// ground, in a coordinate system of your choice. No three of four pairs may be on one line.
    pub pairs: Vec<[f64; 4]>,
}

/// The map from pixels to metres, and back.
#[derive(Debug, Clone, PartialEq)]
pub struct GroundPlane {
    to_metres: Matrix3<f64>,
    to_pixels: Matrix3<f64>,
    /// Sign of the third homogeneous coordinate of points in front of the camera.
    front: f64,
    error: f64,
}

impl GroundPlane {
    /// Fits the homography to the pairs, by least squares if there are more than four.
    ///
    /// # Errors
    /// When there are too few or too many pairs, a coordinate is out of range, three of four pairs
    /// lie on one line, or the pairs lie on both sides of a horizon or do not fit one plane within
    /// a metre.
    pub fn new(config: &GroundConfig) -> Result<Self, String> {
        let pairs = &config.pairs;
        if !(4..=MAX_PAIRS).contains(&pairs.len()) {
            return Err(format!(
                "it has {} pairs; it needs 4 to {MAX_PAIRS}",
                pairs.len()
            ));
        }
        if pairs
            .iter()
            .flatten()
            .any(|v| !v.is_finite() || v.abs() > 1e6)
        {
            return Err("a coordinate is not a number from -1000000 to 1000000".into());
        }
        let degenerate = || {
            "its pairs do not determine a plane: three of four lie on one line, or a pair is given \
             twice"
                .to_string()
        };
        let to_metres = fit(pairs).ok_or_else(degenerate)?;
        let to_pixels = to_metres.try_inverse().ok_or_else(degenerate)?;
        let w = |p: &[f64; 4]| apply(&to_metres, [p[0], p[1]])[2];
        let front = w(&pairs[0]).signum();
        let mut plane = GroundPlane {
            to_metres,
            to_pixels,
            front,
            error: 0.0,
        };
        if pairs.iter().any(|p| w(p) * front <= 0.0) {
            return Err("its pairs lie on both sides of a horizon; is one of them wrong?".into());
        }
        let error = |p: &[f64; 4]| {
            plane
                .to_metres([p[0], p[1]])
                .map_or(f64::INFINITY, |m| (m[0] - p[2]).hypot(m[1] - p[3]))
        };
        let errors: Vec<f64> = pairs.iter().map(error).collect();
        let worst = (0..errors.len()).max_by(|&a, &b| errors[a].total_cmp(&errors[b]));
        if let Some(i) = worst.filter(|&i| errors[i] > MAX_ERROR) {
            return Err(format!(
                "its pairs do not fit one plane: pair {} is off by {:.1} m",
                i + 1,
                errors[i]
            ));
        }
        plane.error = errors.iter().fold(0.0, |a, &b| f64::max(a, b));
        Ok(plane)
    }

    /// Where a point of the picture is on the ground, in metres. None at or above the horizon.
    pub fn to_metres(&self, pixel: Point) -> Option<Point> {
        let [x, y, w] = apply(&self.to_metres, pixel);
        (w * self.front > 1e-9).then(|| [x / w, y / w])
    }

    /// Where a point of the ground is in the picture, in pixels. None at or behind the horizon.
    pub fn to_pixels(&self, metres: Point) -> Option<Point> {
        let [x, y, w] = apply(&self.to_pixels, metres);
        let pixel = [x / w, y / w];
        let [.., back] = apply(&self.to_metres, pixel);
        (w != 0.0 && back * self.front > 1e-9).then_some(pixel)
    }

    /// The greatest error of a given pair, in metres.
    pub fn error(&self) -> f64 {
        self.error
    }
}

/// Time constant in seconds of the smoothing of speeds.
const SMOOTHING: f64 = 0.5;

/// A person's motion on the ground: the velocity, smoothed exponentially, since the foot point of a
/// box trembles by some centimetres from frame to frame.
#[derive(Debug, Clone)]
pub struct GroundMotion {
    at: f64,
    position: Point,
    /// Metres per second; absent before the second position.
    velocity: Option<Point>,
    /// Metres walked: the smoothed speed, integrated.
    walked: f64,
}

impl GroundMotion {
    /// The motion of a person whose first position is `position`, in metres, at `at` seconds.
    pub fn begin(at: f64, position: Point) -> Self {
        GroundMotion {
            at,
            position,
            velocity: None,
            walked: 0.0,
        }
    }

    /// Moves the person. A time that is not later is ignored.
    pub fn update(&mut self, at: f64, position: Point) {
        let elapsed = at - self.at;
        if elapsed <= 0.0 {
            return;
        }
        let step: Point = std::array::from_fn(|i| (position[i] - self.position[i]) / elapsed);
        let share = 1.0 - (-elapsed / SMOOTHING).exp();
        let smooth = |v: Point| std::array::from_fn(|i| v[i] + share * (step[i] - v[i]));
        self.velocity = Some(self.velocity.map_or(step, smooth));
        self.walked += self.speed() * elapsed;
        (self.at, self.position) = (at, position);
    }

    /// Speed in metres per second.
    pub fn speed(&self) -> f64 {
        self.velocity.map_or(0.0, |[x, y]| x.hypot(y))
    }

    /// Metres walked since the beginning. It is slightly longer than the person's way, because the
    /// smoothing leaves some jitter.
    pub fn walked(&self) -> f64 {
        self.walked
    }
}

fn apply(m: &Matrix3<f64>, [x, y]: Point) -> [f64; 3] {
    (m * Vector3::new(x, y, 1.0)).into()
}

/// The map that moves points to mean zero and mean distance √2 (the normalisation of the method).
/// None if all points are equal.
fn normalisation(points: &[Point]) -> Option<Matrix3<f64>> {
    let n = points.len() as f64;
    let mean = |i: usize| points.iter().map(|p| p[i]).sum::<f64>() / n;
    let (cx, cy) = (mean(0), mean(1));
    let spread = points
        .iter()
        .map(|p| (p[0] - cx).hypot(p[1] - cy))
        .sum::<f64>()
        / n;
    let scale = std::f64::consts::SQRT_2 / spread;
    #[rustfmt::skip]
    let map = Matrix3::new(
        scale, 0.0, -scale * cx,
        0.0, scale, -scale * cy,
        0.0, 0.0, 1.0,
    );
    (spread > 0.0).then_some(map)
}

/// The homography that maps (x, y) to (X, Y) with the least algebraic error. None if more than one
/// does.
fn fit(pairs: &[[f64; 4]]) -> Option<Matrix3<f64>> {
    let pixels: Vec<Point> = pairs.iter().map(|p| [p[0], p[1]]).collect();
    let metres: Vec<Point> = pairs.iter().map(|p| [p[2], p[3]]).collect();
    let (from, to) = (normalisation(&pixels)?, normalisation(&metres)?);
    let mut normal = SMatrix::<f64, 9, 9>::zeros();
    for (p, m) in pixels.iter().zip(&metres) {
        let [x, y, _] = apply(&from, *p);
        let [u, v, _] = apply(&to, *m);
        for row in [
            [-x, -y, -1.0, 0.0, 0.0, 0.0, u * x, u * y, u],
            [0.0, 0.0, 0.0, -x, -y, -1.0, v * x, v * y, v],
        ] {
            let row = SVector::from(row);
            normal += row * row.transpose();
        }
    }
    let eigen = normal.symmetric_eigen();
    let mut order: Vec<usize> = (0..9).collect();
    order.sort_by(|&a, &b| eigen.eigenvalues[a].total_cmp(&eigen.eigenvalues[b]));
    let h = eigen.eigenvectors.column(order[0]);
    let normalised = Matrix3::from_row_iterator(h.iter().copied());
    let map = to.try_inverse()? * normalised * from;
    // Degenerate pairs leave a second eigenvalue of zero, or a map without an inverse.
    let unique = eigen.eigenvalues[order[1]] > 1e-9 && normalised.determinant().abs() > 1e-9;
    unique.then_some(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A camera 5 m above the ground, tilted downwards: pixels of points on the ground.
    fn seen([x, y]: Point) -> Point {
        let (tilt, focal, height) = (0.5_f64, 800.0, 5.0);
        let depth = y * tilt.cos() + height * tilt.sin();
        let down = height * tilt.cos() - y * tilt.sin();
        [640.0 + focal * x / depth, 360.0 + focal * down / depth]
    }

    fn pairs(metres: &[Point]) -> GroundConfig {
        let pair = |&m: &Point| {
            let p = seen(m);
            [p[0], p[1], m[0], m[1]]
        };
        GroundConfig::default().with_pairs(metres.iter().map(pair).collect::<Vec<_>>())
    }

    const CORNERS: [Point; 4] = [[-3.0, 4.0], [3.0, 4.0], [4.0, 20.0], [-4.0, 20.0]];

    #[test]
    fn four_pairs_give_the_cameras_map_and_its_inverse() {
        let plane = GroundPlane::new(&pairs(&CORNERS)).expect("four corners");
        assert!(plane.error() < 1e-6, "{}", plane.error());
        for metres in [[0.0, 6.0], [2.5, 11.0], [-6.0, 30.0], [1.0, 1.0]] {
            let there = plane.to_metres(seen(metres)).expect("below the horizon");
            assert!(
                (there[0] - metres[0]).hypot(there[1] - metres[1]) < 1e-6,
                "{there:?}"
            );
            let back = plane.to_pixels(metres).expect("in front");
            let pixel = seen(metres);
            assert!(
                (back[0] - pixel[0]).hypot(back[1] - pixel[1]) < 1e-6,
                "{back:?}"
            );
        }
    }

    #[test]
    fn points_above_the_horizon_have_no_place() {
        let plane = GroundPlane::new(&pairs(&CORNERS)).expect("four corners");
        // The horizon of a camera tilted by 0.5 is 800 tan 0.5 = 437 pixels above the centre.
        assert_eq!(plane.to_metres([640.0, 360.0 - 440.0]), None);
        assert!(plane.to_metres([640.0, 360.0 - 430.0]).is_some());
        assert_eq!(plane.to_pixels([0.0, -20.0]), None, "behind the camera");
    }

    #[test]
    fn more_pairs_average_the_errors_of_drawing() {
        let mut many = pairs(&[CORNERS.as_slice(), &[[0.0, 9.0], [1.0, 14.0]]].concat());
        for (i, pair) in many.pairs.iter_mut().enumerate() {
            pair[0] += if i % 2 == 0 { 1.0 } else { -1.0 };
        }
        let plane = GroundPlane::new(&many).expect("six pairs");
        assert!(
            plane.error() > 1e-4 && plane.error() < 0.2,
            "{}",
            plane.error()
        );
    }

    #[test]
    fn speed_is_that_of_a_steady_walk_whatever_the_frame_rate() {
        for rate in [5.0, 30.0] {
            let mut motion = GroundMotion::begin(0.0, [0.0, 0.0]);
            for i in 1..=(10.0 * rate) as u32 {
                let t = f64::from(i) / rate;
                // 1.4 m/s; every other position is off by 5 cm.
                motion.update(t, [1.4 * t, if i % 2 == 0 { 0.05 } else { 0.0 }]);
            }
            // 14 m, and at most a quarter more by the jitter.
            let walked = motion.walked();
            assert!((13.9..17.5).contains(&walked), "{walked} m at {rate}");
            assert!(
                (motion.speed() - 1.4).abs() < 0.4,
                "{} at {rate}",
                motion.speed()
            );
        }
    }

    #[test]
    fn pairs_that_determine_no_plane_are_rejected() {
        let rejected = |metres: &[Point]| GroundPlane::new(&pairs(metres)).expect_err("degenerate");
        assert!(rejected(&CORNERS[..3]).contains("4 to 64"));
        let line = [[0.0, 4.0], [0.0, 6.0], [0.0, 8.0], [3.0, 8.0]];
        assert!(rejected(&line).contains("one line"));
        let twice = [CORNERS[0], CORNERS[1], CORNERS[2], CORNERS[2]];
        assert!(rejected(&twice).contains("one line"));
        let mut swapped = pairs(&CORNERS);
        swapped.pairs[0][2..].copy_from_slice(&CORNERS[1]);
        swapped.pairs[1][2..].copy_from_slice(&CORNERS[0]);
        assert!(GroundPlane::new(&swapped).is_err(), "the corners cross");
        let mut wrong = pairs(&[CORNERS.as_slice(), &[[0.0, 9.0], [1.0, 14.0]]].concat());
        wrong.pairs[4][3] += 9.0;
        assert!(
            GroundPlane::new(&wrong)
                .expect_err("off")
                .contains("pair 5")
        );
        let mut nan = pairs(&CORNERS);
        nan.pairs[1][0] = f64::NAN;
        assert!(GroundPlane::new(&nan).is_err());
    }
}
