//! Appearance of a person: the exponential moving average of a track's embeddings, normalised to
//! unit length, as in FairMOT (Zhang et al. 2021). DeepSORT (Wojke et al. 2017) keeps the last
//! embeddings instead.

use derive_setters::Setters;
use ndarray::ArrayView1;
use serde::{Deserialize, Serialize};

use crate::range::{OutOfRange, share, within};

/// Settings of the appearance model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Setters)]
#[cfg_attr(feature = "serve", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct AppearanceConfig {
    /// The average of a track's embeddings is updated at each clear view: weight of the old
    /// average, in [0, 0.999]. Higher remembers longer and tolerates a bad crop; lower follows a person
    /// who turns around.
    pub memory: f32,
    /// The average is not updated from a crop of which people in front cover more than this share
    /// (a value in [0, 1]).
    pub max_covered: f32,
    /// The average is not updated from detections below this confidence (a value in [0, 1]).
    pub min_confidence: f32,
}

impl Default for AppearanceConfig {
    fn default() -> Self {
        AppearanceConfig {
            memory: 0.86,
            max_covered: 0.28,
            min_confidence: 0.4,
        }
    }
}

impl AppearanceConfig {
    /// Checks that every value is in its range.
    ///
    /// # Errors
    /// The first value outside its range.
    pub fn validate(&self) -> Result<(), OutOfRange> {
        within("tracker.appearance.memory", self.memory, 0.0, 0.999)?;
        share("tracker.appearance.max_covered", self.max_covered)?;
        share("tracker.appearance.min_confidence", self.min_confidence)
    }
}

/// The appearance of one track; unknown until the first clear view.
#[derive(Debug, Clone, Default)]
pub struct Appearance {
    mean: Vec<f32>,
}

impl Appearance {
    /// Updates the average with one view (a unit vector).
    pub fn learn(&mut self, view: ArrayView1<'_, f32>, config: &AppearanceConfig) {
        if self.mean.len() != view.len() {
            self.mean = view.to_vec();
            return;
        }
        for (m, v) in self.mean.iter_mut().zip(view) {
            *m = config.memory * *m + (1.0 - config.memory) * v;
        }
        normalise(&mut self.mean);
    }

    /// Cosine distance to a view, 1 - cos, in [0, 2]; `None` while the appearance is unknown.
    pub fn distance(&self, view: ArrayView1<'_, f32>) -> Option<f32> {
        match view.as_slice() {
            Some(v) => cosine_distance(&self.mean, v),
            None => cosine_distance(&self.mean, &view.to_vec()),
        }
    }

    /// Cosine distance to another track's appearance; `None` unless both are known.
    pub fn between(&self, other: &Appearance) -> Option<f32> {
        cosine_distance(&self.mean, &other.mean)
    }

    /// Takes over `earlier`, an appearance of the same person, if this one is unknown.
    pub fn join(&mut self, earlier: Appearance) {
        if self.mean.is_empty() {
            *self = earlier;
        }
    }

    /// Whether [`Appearance::learn`] has been called with a clear view.
    pub fn is_known(&self) -> bool {
        !self.mean.is_empty()
    }

    /// The average, a unit vector; empty while unknown.
    pub fn mean(&self) -> &[f32] {
        &self.mean
    }
}

/// Cosine distance of two unit vectors, in [0, 2]; `None` if one is empty or the dimensions differ.
pub fn cosine_distance(a: &[f32], b: &[f32]) -> Option<f32> {
    (!a.is_empty() && a.len() == b.len()).then(|| (1.0 - dot(a, b)).clamp(0.0, 2.0))
}

/// Weighted mean direction of embeddings of equal dimension: a unit vector, empty when there are
/// none.
pub fn mean_direction<'a>(views: impl Iterator<Item = (&'a [f32], f32)>) -> Vec<f32> {
    let mut sum: Vec<f32> = Vec::new();
    for (view, weight) in views {
        sum.resize(view.len(), 0.0);
        sum.iter_mut().zip(view).for_each(|(s, v)| *s += v * weight);
    }
    normalise(&mut sum);
    sum
}

/// Scales a vector to unit length; a zero vector stays zero.
pub fn normalise(vector: &mut [f32]) {
    let length = vector
        .iter()
        .map(|v| v * v)
        .sum::<f32>()
        .sqrt()
        .max(f32::MIN_POSITIVE);
    vector.iter_mut().for_each(|v| *v /= length);
}

/// Inner product in eight lanes, so that the compiler uses vector instructions.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 8];
    let (whole_a, whole_b) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = whole_a
        .remainder()
        .iter()
        .zip(whole_b.remainder())
        .map(|(x, y)| x * y)
        .sum();
    for (x, y) in whole_a.zip(whole_b) {
        for i in 0..8 {
            lanes[i] += x[i] * y[i];
        }
    }
    lanes.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::arr1;

    #[test]
    fn average_has_unit_length_and_moves_towards_new_views() {
        let (config, mut a) = (AppearanceConfig::default(), Appearance::default());
        assert_eq!(a.distance(arr1(&[1.0, 0.0]).view()), None);
        a.learn(arr1(&[1.0, 0.0]).view(), &config);
        (0..5).for_each(|_| a.learn(arr1(&[0.0, 1.0]).view(), &config));
        assert!((a.mean().iter().map(|m| m * m).sum::<f32>() - 1.0).abs() < 1e-5);
        let (old, new) = (
            a.distance(arr1(&[1.0, 0.0]).view()),
            a.distance(arr1(&[0.0, 1.0]).view()),
        );
        assert!(old.expect("learnt") < 0.5 && new.expect("learnt") < 0.7);
    }

    #[test]
    fn distance_is_one_minus_cosine_for_any_dimension() {
        let mut a = Appearance::default();
        let v: Vec<f32> = (0..19).map(|i| if i == 3 { 1.0 } else { 0.0 }).collect();
        a.learn(arr1(&v).view(), &AppearanceConfig::default());
        assert!(a.distance(arr1(&v).view()).expect("learnt").abs() < 1e-6);
        let opposite: Vec<f32> = v.iter().map(|x| -x).collect();
        assert!((a.distance(arr1(&opposite).view()).expect("learnt") - 2.0).abs() < 1e-6);
        assert_eq!(a.distance(arr1(&[1.0]).view()), None);
    }
}
