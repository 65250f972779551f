//! The score of "this track is the next track of that person": the natural logarithm of the
//! likelihood that the track is of that person, divided by the likelihood that it is of a new one.

use std::sync::Arc;

use crate::multi_camera::config::MultiCameraConfig;
use crate::multi_camera::person::{Person, PersonEmbedding, Sighting};
use crate::multi_camera::topology::Topology;
use crate::time::Seconds;
use crate::track::similarity::Calibration;

/// Largest magnitude of the logarithm of appearance's likelihood ratio: beyond it a calibration is
/// an extrapolation.
pub(super) const MAX_APPEARANCE: f32 = 14.0;
/// Exponent p with which the logarithms of n embeddings' likelihood ratios are combined: mean *
/// n^p. 0 would be right if all embeddings of a person carried the same information, 1 if they were
/// independent. Measured.
const INDEPENDENCE: f32 = 0.2;
/// Factor on the rate of new people, which is too high because it counts known people who were not
/// recognised. Measured.
const NEW_PEOPLE: f64 = 0.3;
/// Seconds by which tracks of one camera may overlap in time and still be of one person.
const SAME_CAMERA_OVERLAP: f64 = 0.2;

/// The link of the topology that a score uses: the two cameras, and the travel time.
pub(super) type UsedLink = (u32, u32, Seconds);

/// What scores are computed from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scores<'a> {
    pub config: &'a MultiCameraConfig,
    /// Hash and calibration of each embedder.
    pub embedders: &'a [(Arc<str>, Calibration)],
    pub topology: &'a Topology,
}

impl Scores<'_> {
    /// Logarithm of the likelihood ratio of two embeddings' distance. The calibration is fitted
    /// with equal weight of pairs of one person and of two, so the odds of its similarity are this
    /// ratio.
    pub fn appearance(&self, a: &PersonEmbedding, b: &PersonEmbedding) -> Option<f32> {
        let calibration = self.embedders.get(usize::from(a.embedder))?.1;
        let log_odds = calibration.slope * (calibration.threshold - a.distance(b)?);
        Some(self.weighted(log_odds))
    }

    /// The same for all embeddings of a person.
    pub fn appearance_of(&self, person: &Person, embedding: &PersonEmbedding) -> Option<f32> {
        let ratios = person
            .embeddings
            .iter()
            .filter_map(|e| self.appearance(e, embedding));
        let (sum, count) = ratios.fold((0.0, 0.0f32), |(sum, n), r| (sum + r, n + 1.0));
        (count > 0.0).then(|| clamped(sum / count * count.powf(INDEPENDENCE)))
    }

    fn weighted(&self, log_odds: f32) -> f32 {
        clamped(self.config.appearance * log_odds)
    }

    /// Whether the sightings cannot be of one person: they are at the same time, and at one camera
    /// or at two cameras whose fields of view do not overlap.
    pub fn excludes(&self, a: &Sighting, b: &Sighting) -> bool {
        let overlap = a.overlap(b).0;
        if a.camera == b.camera {
            overlap > SAME_CAMERA_OVERLAP
        } else {
            let views = || self.config.topology && self.topology.overlap(a.camera, b.camera);
            overlap > self.config.clocks && !views()
        }
    }

    /// The part of the score that depends on time, for a track among a person's sightings (in order
    /// of their first detection), and the link used; `None` if there are no sightings, or they
    /// exclude the track.
    pub fn time(&self, sightings: &[Sighting], track: &Sighting) -> Option<(f32, UsedLink)> {
        if sightings.iter().any(|s| self.excludes(s, track)) {
            return None;
        }
        let after = sightings.partition_point(|s| s.first.0 <= track.first.0);
        // A track that began before all kept sightings does not follow: the first sighting follows
        // it.
        let (from, to) = match after.checked_sub(1) {
            Some(before) => (&sightings[before], track),
            None => (track, sightings.first()?),
        };
        let time = to.first - from.last;
        let density = if self.config.topology {
            self.topology.density(from.camera, to.camera, time)
        } else {
            self.topology.unknown_density(time)
        };
        let ratio = density / (NEW_PEOPLE * self.topology.new_people(to.camera));
        Some((ratio.ln() as f32, (from.camera, to.camera, time)))
    }
}

fn clamped(log_ratio: f32) -> f32 {
    log_ratio.clamp(-MAX_APPEARANCE, MAX_APPEARANCE)
}
