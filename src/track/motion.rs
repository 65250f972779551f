//! Motion model: a Kalman filter of the box's centre and size, with the elapsed time as time step.
//!
//! Kalman (1960); the state of SORT (Bewley et al. 2016) with width and height as in BoT-SORT
//! (Aharon et al. 2022). The noise of the four coordinates is independent, so that the papers' 8x8
//! filter decomposes into four filters of two states (value, rate) at a tenth of the cost.

use derive_setters::Setters;
use serde::{Deserialize, Serialize};

use crate::geometry::{Affine, BBox};
use crate::range::{OutOfRange, within};
use crate::time::Seconds;

/// Settings of the motion model. Lengths are in heights of the person, so that they hold for near
/// and far people.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Setters)]
#[cfg_attr(feature = "serve", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct MotionConfig {
    /// Standard deviation of a detected edge, in heights of the box. Higher relies more on the
    /// prediction and smooths more.
    pub measurement_noise: f32,
    /// Random walk of the position, in heights of the box per square root of a second. Higher
    /// follows jittery detections more closely.
    pub position_noise: f32,
    /// Random walk of the velocity, in heights of the box per second per square root of a second.
    /// Higher follows turns and stops sooner, but predicts worse through occlusions.
    pub velocity_noise: f32,
    /// Time constant in seconds of the velocity without detections: the velocity decays as exp(-t /
    /// this), because hidden people slow down and turn. Higher lets a hidden person move on
    /// further.
    pub velocity_memory: f64,
    /// Time constant in seconds of the rate at which a box changes its size: the rate decays as
    /// exp(-t / this), because most of the measured rate is noise of the detector.
    pub size_memory: f64,
    /// Reduces the influence of detections with low confidence: the noise is multiplied by 1 + this
    /// * (1 - confidence) (noise-scale-adaptive filter; Du et al. 2021, GIAOTracker).
    pub confidence_scaling: f32,
}

impl Default for MotionConfig {
    fn default() -> Self {
        MotionConfig {
            measurement_noise: 0.043,
            position_noise: 0.19,
            velocity_noise: 0.62,
            velocity_memory: 2.9,
            size_memory: 0.46,
            confidence_scaling: 3.8,
        }
    }
}

impl MotionConfig {
    /// Checks that every value is in its range.
    ///
    /// # Errors
    /// The first value outside its range.
    pub fn validate(&self) -> Result<(), OutOfRange> {
        within(
            "tracker.motion.measurement_noise",
            self.measurement_noise,
            0.001,
            1.0,
        )?;
        within(
            "tracker.motion.position_noise",
            self.position_noise,
            0.0,
            10.0,
        )?;
        within(
            "tracker.motion.velocity_noise",
            self.velocity_noise,
            0.001,
            20.0,
        )?;
        within(
            "tracker.motion.velocity_memory",
            self.velocity_memory,
            0.01,
            1000.0,
        )?;
        within("tracker.motion.size_memory", self.size_memory, 0.01, 1000.0)?;
        within(
            "tracker.motion.confidence_scaling",
            self.confidence_scaling,
            0.0,
            20.0,
        )
    }
}

/// One coordinate: value and rate, with their covariance.
#[derive(Debug, Clone, Copy)]
struct Coordinate {
    value: f32,
    rate: f32,
    /// Variance of the value, covariance, variance of the rate.
    var: [f32; 3],
}

/// Transition over a time step, shared by coordinates with the same time constant: an
/// Ornstein-Uhlenbeck process of the rate (Gillespie 1996, equations 2.47).
#[derive(Debug, Clone, Copy)]
struct Transition {
    dt: f32,
    /// Factor by which the rate decreases over the step.
    decay: f32,
    /// Distance covered in the step by a rate that starts at 1 and decays.
    reach: f32,
    /// Added variance of the value, covariance, and variance of the rate, per unit of noise in the
    /// rate.
    noise: [f32; 3],
}

impl Transition {
    fn new(dt: Seconds, memory: f64) -> Self {
        let (dt, x) = (dt.0, dt.0 / memory);
        let e = (-x).exp();
        let noise = if x < 0.05 {
            // For small steps the exact terms lose precision by cancellation, so their series are
            // used.
            [
                dt.powi(3) / 3.0 * (1.0 - 0.75 * x),
                dt * dt / 2.0 * (1.0 - x),
                dt * (1.0 - x),
            ]
        } else {
            let (once, twice) = (1.0 - e, 1.0 - e * e);
            [
                memory * memory * (dt - 2.0 * memory * once + memory / 2.0 * twice),
                memory * memory / 2.0 * once * once,
                memory / 2.0 * twice,
            ]
        };
        Transition {
            dt: dt as f32,
            decay: e as f32,
            reach: (memory * (1.0 - e)) as f32,
            noise: noise.map(|v| v as f32),
        }
    }
}

impl Coordinate {
    fn predict(&mut self, step: &Transition, value_noise: f32, rate_noise: f32) {
        let Transition {
            dt,
            decay,
            reach,
            noise,
        } = *step;
        let [p, c, v] = self.var;
        self.value += reach * self.rate;
        self.rate *= decay;
        let (q, r) = (value_noise * value_noise, rate_noise * rate_noise);
        self.var = [
            p + 2.0 * reach * c + reach * reach * v + q * dt + r * noise[0],
            decay * (c + reach * v) + r * noise[1],
            decay * decay * v + r * noise[2],
        ];
    }

    fn update(&mut self, measured: f32, variance: f32) {
        let [p, c, v] = self.var;
        let s = p + variance;
        let (gain, rate_gain) = (p / s, c / s);
        let residual = measured - self.value;
        self.value += gain * residual;
        self.rate += rate_gain * residual;
        self.var = [(1.0 - gain) * p, (1.0 - gain) * c, v - rate_gain * c];
    }
}

/// The filter of one person's box.
#[derive(Debug, Clone)]
pub struct BoxFilter {
    /// Centre x, centre y, width, height; pixels and pixels per second.
    coordinates: [Coordinate; 4],
}

impl BoxFilter {
    /// Starts at a detection, with velocity 0 and a large variance of the velocity.
    pub fn new(bbox: BBox, config: &MotionConfig) -> Self {
        let h = bbox.height;
        let (cx, cy) = bbox.center();
        let start = |value, rate_sd: f32| {
            let sd = 2.0 * config.measurement_noise * h;
            Coordinate {
                value,
                rate: 0.0,
                var: [sd * sd, 0.0, (rate_sd * h).powi(2)],
            }
        };
        // A pedestrian in a hurry moves one height per second; sizes change more slowly.
        BoxFilter {
            coordinates: [
                start(cx, 1.0),
                start(cy, 1.0),
                start(bbox.width, 0.3),
                start(bbox.height, 0.3),
            ],
        }
    }

    /// Advances the state by `dt`.
    pub fn predict(&mut self, dt: Seconds, config: &MotionConfig) {
        let h = self.bbox().height;
        let (q, r) = (config.position_noise * h, config.velocity_noise * h);
        let (place, size) = (
            Transition::new(dt, config.velocity_memory),
            Transition::new(dt, config.size_memory),
        );
        let [x, y, width, height] = &mut self.coordinates;
        for c in [x, y] {
            c.predict(&place, q, r);
        }
        for c in [width, height] {
            c.predict(&size, q, 0.3 * r);
        }
        let [_, _, w, h] = &mut self.coordinates;
        w.value = w.value.max(1.0);
        h.value = h.value.max(1.0);
    }

    /// Corrects the state with a detection.
    pub fn update(&mut self, bbox: BBox, confidence: f32, config: &MotionConfig) {
        let (cx, cy) = bbox.center();
        let sd = config.measurement_noise
            * bbox.height
            * (1.0 + config.confidence_scaling * (1.0 - confidence.clamp(0.0, 1.0)));
        for (c, z) in self
            .coordinates
            .iter_mut()
            .zip([cx, cy, bbox.width, bbox.height])
        {
            c.update(z, sd * sd);
        }
    }

    /// Applies the camera's motion: positions by the whole map, velocities by its linear part.
    pub fn warp(&mut self, map: &Affine) {
        let [x, y, w, h] = &mut self.coordinates;
        (x.value, y.value) = map.apply(x.value, y.value);
        (x.rate, y.rate) = map.apply_linear(x.rate, y.rate);
        let s = map.scale();
        for c in [w, h] {
            c.value *= s;
            c.rate *= s;
        }
        for c in &mut self.coordinates {
            c.var = c.var.map(|v| v * s * s);
        }
    }

    /// The current box in pixels.
    pub fn bbox(&self) -> BBox {
        let [x, y, w, h] = &self.coordinates;
        BBox::from_center(x.value, y.value, w.value, h.value)
    }

    /// The velocity of the centre in pixels per second.
    pub fn velocity(&self) -> (f32, f32) {
        (self.coordinates[0].rate, self.coordinates[1].rate)
    }

    /// Cost (position, size) of linking this filter with `backward`, a filter that ran backwards in
    /// time to the same time. It is the negative logarithm of a Student t density (4 degrees of
    /// freedom, robust to outliers) of the differences in value and rate, in heights.
    pub fn meeting_cost(&self, backward: &BoxFilter) -> (f32, f32) {
        const FREEDOM: f32 = 4.0;
        let h = (self.bbox().height * backward.bbox().height).sqrt();
        let one = |i: usize| {
            let (a, b) = (&self.coordinates[i], &backward.coordinates[i]);
            // In a filter that ran backwards in time, the rate and its covariance with the value
            // have the opposite sign.
            let (value, rate) = ((a.value - b.value) / h, (a.rate + b.rate) / h);
            let [p, c, v] = [
                a.var[0] + b.var[0],
                a.var[1] - b.var[1],
                a.var[2] + b.var[2],
            ]
            .map(|v| v / (h * h));
            let determinant = (p * v - c * c).max(1e-12);
            let squared =
                (v * value * value - 2.0 * c * value * rate + p * rate * rate) / determinant;
            0.5 * (FREEDOM + 2.0) * (squared / FREEDOM).ln_1p() + 0.5 * determinant.ln()
        };
        (one(0) + one(1), one(2) + one(3))
    }

    /// Standard deviation of the predicted centre (x, y) in pixels.
    pub fn spread(&self) -> (f32, f32) {
        (
            self.coordinates[0].var[0].max(0.0).sqrt(),
            self.coordinates[1].var[0].max(0.0).sqrt(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walked(steps: usize, dt: f64) -> BoxFilter {
        let config = MotionConfig {
            velocity_memory: 100.0,
            ..MotionConfig::default()
        };
        let mut f = BoxFilter::new(BBox::from_center(100.0, 200.0, 40.0, 100.0), &config);
        for i in 1..=steps {
            f.predict(Seconds(dt), &config);
            f.update(
                BBox::from_center(100.0 + 60.0 * (i as f64 * dt) as f32, 200.0, 40.0, 100.0),
                1.0,
                &config,
            );
        }
        f
    }

    #[test]
    fn velocity_converges_on_a_steady_walk() {
        let (vx, vy) = walked(60, 1.0 / 30.0).velocity();
        assert!((vx - 60.0).abs() < 6.0, "vx = {vx}");
        assert!(vy.abs() < 1.0);
    }

    #[test]
    fn velocity_does_not_depend_on_the_frame_rate() {
        let (fast, slow) = (walked(60, 1.0 / 30.0), walked(14, 1.0 / 7.0));
        assert!((fast.velocity().0 - slow.velocity().0).abs() < 10.0);
    }

    #[test]
    fn one_long_prediction_equals_many_short_ones() {
        let config = MotionConfig::default();
        let (mut once, mut often) = (walked(30, 0.1), walked(30, 0.1));
        once.predict(Seconds(1.0), &config);
        (0..10).for_each(|_| often.predict(Seconds(0.1), &config));
        assert!((once.bbox().center().0 - often.bbox().center().0).abs() < 0.1);
        assert!(
            (once.spread().0 / often.spread().0 - 1.0).abs() < 0.01,
            "{:?} {:?}",
            once.spread(),
            often.spread()
        );
    }

    #[test]
    fn uncertainty_grows_without_detections() {
        let config = MotionConfig::default();
        let mut f = walked(30, 0.1);
        let before = f.spread().0;
        f.predict(Seconds(1.0), &config);
        assert!(f.spread().0 > 3.0 * before);
    }

    #[test]
    fn a_detection_of_low_confidence_moves_the_state_less() {
        let config = MotionConfig::default();
        let moved = |confidence| {
            let mut f = walked(30, 0.1);
            let at = f.bbox().center().0;
            f.predict(Seconds(0.1), &config);
            f.update(
                BBox::from_center(at + 40.0, 200.0, 40.0, 100.0),
                confidence,
                &config,
            );
            f.bbox().center().0 - at
        };
        assert!(moved(0.2) < moved(1.0));
    }
}
