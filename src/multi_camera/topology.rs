//! The topology of the cameras: from each camera, which camera people are seen at next, and after
//! how long. Learned without labels.
//!
//! Makris, Ellis and Black (2004) find links between cameras by correlating departures and arrivals;
//! Javed et al. (2008) estimate the densities of travel times from known correspondences. Here the
//! correspondences are unknown and weighted by their probability, as in the online form of expectation
//! maximisation of Huang and Russell (1998) and Pasula et al. (1999): wrong ones spread over all
//! cameras and times, right ones add up.
//!
//! A link counts people who were detected at the one camera and next detected at the other, with
//! whatever was missed between. The clocks' constant offsets are part of the travel times. A camera
//! also links to itself: people return, and tracks break.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::multi_camera::travel_time::{self, TravelTimes};
use crate::time::Seconds;

/// Largest number of cameras.
pub const MAX_CAMERAS: usize = 4096;
/// Links that a camera keeps, the heaviest.
const MAX_LINKS: usize = 64;
/// Share of people who, without knowledge, are not seen again.
const GONE: f64 = 0.3;
/// Departures that the distribution without knowledge counts as much as.
const PRIOR_DEPARTURES: f32 = 8.0;
/// Travel times that the density without knowledge counts as much as.
const PRIOR_TIMES: f32 = 2.0;
/// New people and seconds that the prior rate of new people counts as much as.
const PRIOR_NEW: (f64, f64) = (1.0, 60.0);
/// Seconds in which the rate of new people loses half of its weight, because it changes with the
/// time of day.
const RATE_HALF_LIFE: f64 = 3600.0;
/// Seconds after which weights are scaled.
const SCALE_EVERY: f64 = 60.0;
/// Prior share of pairs of tracks at the same time at two cameras that are one person.
const SAME_PRIOR: f64 = 0.02;
/// Views overlap if the pairs that look like one person exceed those expected by chance by this
/// number, and by [`OVERLAP_SIGMAS`] standard deviations.
const OVERLAP_LEAST: f64 = 4.0;
/// See [`OVERLAP_LEAST`].
const OVERLAP_SIGMAS: f64 = 4.0;

/// Tracks at the same time: how many pairs were compared, and how many look like one person.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Together {
    pairs: f64,
    same: f64,
}

/// People who go from one camera to another.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Link {
    travel: TravelTimes,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Camera {
    name: Arc<str>,
    /// Weight of all tracks that ended here.
    departures: f32,
    /// Links to the cameras with these numbers.
    links: BTreeMap<u32, Link>,
    /// Pairs of tracks at the same time here and at a camera with a higher number.
    together: BTreeMap<u32, Together>,
    /// Weight of new people, and the seconds in which they came.
    new_people: f64,
    watched: f64,
    /// Time to which the weights are scaled.
    scaled: Option<Seconds>,
}

/// What is known about the cameras.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Topology {
    cameras: Vec<Camera>,
    /// Pairs of tracks at the same time at one camera, which are of two people: how many look like
    /// one person by chance.
    chance: Together,
}

/// A link, for display.
#[derive(Debug, Clone, PartialEq)]
pub struct LinkSummary {
    /// The camera that people leave.
    pub from: Arc<str>,
    /// The camera that they are seen at next.
    pub to: Arc<str>,
    /// Share of the people who leave `from` that are seen next at `to`, in [0, 1].
    pub share: f32,
    /// Travel time that a tenth, a half, and nine tenths do not exceed.
    pub travel: [Seconds; 3],
}

impl Topology {
    /// Number of cameras.
    pub fn cameras(&self) -> usize {
        self.cameras.len()
    }

    /// The number of a camera, which is added if it is not known; `None` if there are too many.
    pub(super) fn camera(&mut self, name: &Arc<str>) -> Option<u32> {
        let known = self.cameras.iter().position(|c| c.name == *name);
        let number = known.or_else(|| {
            (self.cameras.len() < MAX_CAMERAS).then(|| {
                self.cameras.push(Camera {
                    name: name.clone(),
                    ..Camera::default()
                });
                self.cameras.len() - 1
            })
        });
        number.map(|n| n as u32)
    }

    /// Lets time pass for a camera: scales its weights down.
    pub(super) fn pass(&mut self, camera: u32, now: Seconds, half_life: f64) {
        let c = &mut self.cameras[camera as usize];
        let since = *c.scaled.get_or_insert(now);
        let passed = (now - since).0;
        if passed < SCALE_EVERY {
            return;
        }
        let factor = (-passed / half_life).exp2();
        c.departures *= factor as f32;
        c.links
            .values_mut()
            .for_each(|l| l.travel.scale(factor as f32));
        for t in c.together.values_mut() {
            (t.pairs, t.same) = (t.pairs * factor, t.same * factor);
        }
        let recent = (-passed / RATE_HALF_LIFE).exp2();
        c.new_people *= recent;
        c.watched = c.watched * recent + passed;
        c.scaled = Some(now);
    }

    /// Density, 1/s, that a person who left `from` is seen next at `to` after `time`.
    pub(super) fn density(&self, from: u32, to: u32, time: Seconds) -> f64 {
        let (known, prior) = (&self.cameras[from as usize], f64::from(PRIOR_DEPARTURES));
        let unknown = self.unknown_density(time) * prior;
        let linked = known.links.get(&to).map_or(0.0, |link| {
            f64::from(link.travel.weight()) * link.travel.density(time, PRIOR_TIMES)
        });
        (linked + unknown) / (f64::from(known.departures) + prior)
    }

    /// As [`Topology::density`], if nothing is known about the cameras.
    pub(super) fn unknown_density(&self, time: Seconds) -> f64 {
        (1.0 - GONE) / self.cameras.len().max(1) as f64 * travel_time::unknown(time)
    }

    /// Rate of new people at a camera, 1/s.
    pub(super) fn new_people(&self, camera: u32) -> f64 {
        let c = &self.cameras[camera as usize];
        (c.new_people + PRIOR_NEW.0) / (c.watched + PRIOR_NEW.1)
    }

    /// Counts a track that ended at a camera, of a new person with the probability `new`.
    pub(super) fn count(&mut self, camera: u32, new: f32) {
        let c = &mut self.cameras[camera as usize];
        c.departures += 1.0;
        c.new_people += f64::from(new);
    }

    /// Counts a person who went from `from` to `to` with the probability `weight`.
    pub(super) fn learn(&mut self, from: u32, to: u32, time: Seconds, weight: f32) {
        let links = &mut self.cameras[from as usize].links;
        links.entry(to).or_default().travel.add(time, weight);
        if links.len() > MAX_LINKS {
            let weight = |l: &Link| l.travel.weight();
            let lightest = links
                .iter()
                .filter(|(number, _)| **number != to)
                .min_by(|a, b| weight(a.1).total_cmp(&weight(b.1)));
            if let Some(number) = lightest.map(|(number, _)| *number) {
                links.remove(&number);
            }
        }
    }

    /// Compares two tracks at the same time by the natural logarithm of the likelihood ratio that
    /// they are of one person.
    pub(super) fn compare(&mut self, a: u32, b: u32, log_ratio: f32) {
        let odds = SAME_PRIOR / (1.0 - SAME_PRIOR) * f64::from(log_ratio).exp();
        let same = odds / (1.0 + odds);
        let together = if a == b {
            &mut self.chance
        } else {
            let of = &mut self.cameras[a.min(b) as usize].together;
            // The pairs of a camera with all others are few beside its links and their bins.
            of.entry(a.max(b)).or_default()
        };
        together.pairs += 1.0;
        together.same += same;
    }

    /// Whether the views of two cameras overlap, so that a person can be at both at once.
    pub(super) fn overlap(&self, a: u32, b: u32) -> bool {
        let of = &self.cameras[a.min(b) as usize].together;
        let Some(t) = of.get(&a.max(b)) else {
            return false;
        };
        let chance = (self.chance.same + SAME_PRIOR) / (self.chance.pairs + 1.0);
        let expected = chance * t.pairs;
        t.same - expected > OVERLAP_LEAST + OVERLAP_SIGMAS * expected.sqrt()
    }

    /// The links of all cameras with at least the share `share` of the people who leave.
    pub fn links(&self, share: f32) -> Vec<LinkSummary> {
        let mut found = Vec::new();
        for camera in &self.cameras {
            for (to, link) in &camera.links {
                let part = link.travel.weight() / camera.departures.max(1.0);
                let at = |q| link.travel.quantile(q).unwrap_or_default();
                if part >= share {
                    found.push(LinkSummary {
                        from: camera.name.clone(),
                        to: self.cameras[*to as usize].name.clone(),
                        share: part,
                        travel: [at(0.1), at(0.5), at(0.9)],
                    });
                }
            }
        }
        found
    }
}
