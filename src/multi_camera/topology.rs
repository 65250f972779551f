//! The topology of the cameras: from each camera, which camera people are seen at next, and after
//! how long. Learned without labels.
//!
//! Makris, Ellis and Black (2004) find links between cameras by correlating departures and
//! arrivals; Javed et al. (2008) estimate the densities of travel times from known correspondences.
//! Here the correspondences are unknown and weighted by their probability, as in the online form of
//! expectation maximisation of Huang and Russell (1998) and Pasula et al. (1999): wrong ones spread
//! over all cameras and times, right ones add up.
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
/// Maximum number of links that a camera keeps, those with the greatest weights.
const MAX_LINKS: usize = 64;
/// Maximum number of cameras with which a camera is compared for overlapping views, those with the
/// highest share of pairs that look like one person.
const MAX_TOGETHER: usize = 256;
/// Share of people who, without knowledge, are not seen again.
const GONE: f64 = 0.3;
/// Weight of the distribution without knowledge, in departures.
const PRIOR_DEPARTURES: f32 = 8.0;
/// Weight of the density without knowledge, in travel times.
const PRIOR_TIMES: f32 = 0.5;
/// The prior rate of new people and its weight: this many new people in this many seconds.
const PRIOR_NEW: (f64, f64) = (1.0, 60.0);
/// Seconds in which the rate of new people loses half of its weight, because it changes with the
/// time of day.
const RATE_HALF_LIFE: f64 = 3600.0;
/// Seconds after which weights are scaled.
const SCALE_EVERY: f64 = 60.0;
/// Prior share of pairs of tracks at the same time at two cameras that are one person.
const SAME_PRIOR: f64 = 0.02;
/// Views overlap if the pairs that look like one person exceed those expected by chance by more
/// than this number plus [`OVERLAP_SIGMAS`] standard deviations.
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
    /// Weight of new people.
    new_people: f64,
    /// Seconds in which these came, scaled as their weight is.
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
    /// Travel times that a tenth, half and nine tenths of these people do not exceed.
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

    /// Counts a pair of tracks at the same time, of the cameras `a` and `b`. `log_ratio` is the
    /// natural logarithm of the likelihood ratio that they are of one person.
    pub(super) fn compare(&mut self, a: u32, b: u32, log_ratio: f32) {
        let odds = SAME_PRIOR / (1.0 - SAME_PRIOR) * f64::from(log_ratio).exp();
        let same = odds / (1.0 + odds);
        let together = if a == b {
            &mut self.chance
        } else {
            let of = &mut self.cameras[a.min(b) as usize].together;
            of.entry(a.max(b)).or_default()
        };
        together.pairs += 1.0;
        together.same += same;
        let of = &mut self.cameras[a.min(b) as usize].together;
        if of.len() > MAX_TOGETHER {
            let rest = |t: &Together| t.same / t.pairs;
            let least = of
                .iter()
                .filter(|(number, _)| **number != a.max(b))
                .min_by(|x, y| rest(x.1).total_cmp(&rest(y.1)));
            if let Some(number) = least.map(|(number, _)| *number) {
                of.remove(&number);
            }
        }
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

    /// The pairs of cameras whose fields of view overlap.
    pub fn overlapping(&self) -> Vec<(Arc<str>, Arc<str>)> {
        let name = |number: u32| self.cameras[number as usize].name.clone();
        let numbers = 0..self.cameras.len() as u32;
        let pairs = numbers.flat_map(|a| {
            let others = self.cameras[a as usize].together.keys();
            others.map(move |b| (a, *b))
        });
        pairs
            .filter(|(a, b)| self.overlap(*a, *b))
            .map(|(a, b)| (name(a), name(b)))
            .collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: f64 = 86_400.0;

    fn cameras(topology: &mut Topology, count: usize) -> Vec<u32> {
        (0..count)
            .map(|k| {
                topology
                    .camera(&format!("{k}").into())
                    .expect("few cameras")
            })
            .collect()
    }

    #[test]
    fn a_link_that_is_used_is_expected() {
        let mut t = Topology::default();
        let c = cameras(&mut t, 3);
        let before = t.density(c[0], c[1], Seconds(40.0));
        for k in 0..20 {
            t.count(c[0], 0.5);
            t.learn(c[0], c[1], Seconds(38.0 + 0.2 * f64::from(k)), 1.0);
        }
        assert!(t.density(c[0], c[1], Seconds(40.0)) > 50.0 * before);
        assert!(
            t.density(c[0], c[2], Seconds(40.0)) < before,
            "the other way"
        );
        assert!(
            t.density(c[1], c[0], Seconds(40.0)) <= before,
            "the way back"
        );
        let links = t.links(0.5);
        assert_eq!(links.len(), 1);
        assert_eq!(
            (&*links[0].from, &*links[0].to, links[0].share),
            ("0", "1", 1.0)
        );
        assert!((36.0..44.0).contains(&links[0].travel[1].0));
    }

    #[test]
    fn what_was_learned_is_forgotten_slowly() {
        let mut t = Topology::default();
        let c = cameras(&mut t, 2);
        t.pass(c[0], Seconds(0.0), DAY);
        for _ in 0..100 {
            t.count(c[0], 0.0);
            t.learn(c[0], c[1], Seconds(40.0), 1.0);
        }
        let fresh = t.density(c[0], c[1], Seconds(40.0));
        t.pass(c[0], Seconds(DAY), DAY);
        let camera = &t.cameras[0];
        assert!((camera.departures - 50.0).abs() < 0.01);
        assert!((camera.links[&c[1]].travel.weight() - 50.0).abs() < 0.01);
        let day_after = t.density(c[0], c[1], Seconds(40.0));
        assert!(day_after < fresh && day_after > 0.5 * fresh);
        // A camera that was moved: after some half-lives the new way outweighs the old one.
        for day in 2..6 {
            t.pass(c[0], Seconds(f64::from(day) * DAY), DAY);
            for _ in 0..100 {
                t.count(c[0], 0.0);
                t.learn(c[0], c[1], Seconds(10.0), 1.0);
            }
        }
        let density = |s| t.density(c[0], c[1], Seconds(s));
        assert!(density(10.0) > 10.0 * density(40.0));
    }

    #[test]
    fn views_overlap_if_more_pairs_look_like_one_person_than_by_chance() {
        let mut t = Topology::default();
        let c = cameras(&mut t, 3);
        // At one camera at the same time: two people, of whom one pair in ten looks alike.
        for k in 0..500 {
            t.compare(c[0], c[0], if k % 10 == 0 { 5.0 } else { -3.0 });
            t.compare(c[0], c[1], if k % 10 == 0 { 5.0 } else { -3.0 });
            t.compare(c[2], c[1], if k % 4 == 0 { 5.0 } else { -3.0 });
        }
        assert!(!t.overlap(c[0], c[1]), "as many as by chance");
        assert!(t.overlap(c[1], c[2]) && t.overlap(c[2], c[1]));
        assert!(!t.overlap(c[0], c[2]), "never compared");
    }

    #[test]
    fn rates_of_new_people_are_of_the_last_hours() {
        let mut t = Topology::default();
        let c = cameras(&mut t, 1);
        for minute in 0..600 {
            t.pass(c[0], Seconds(60.0 * f64::from(minute)), 1e9);
            if minute < 300 {
                t.count(c[0], 1.0);
            }
            if minute == 299 {
                let rate = 60.0 * t.new_people(c[0]);
                assert!((rate - 1.0).abs() < 0.05, "{rate} a minute");
            }
        }
        let rate = 60.0 * t.new_people(c[0]);
        assert!(
            rate < 0.1,
            "{rate} a minute, after five hours without anybody"
        );
    }

    #[test]
    fn memory_is_bounded() {
        let mut t = Topology::default();
        let c = cameras(&mut t, MAX_CAMERAS);
        assert_eq!(t.camera(&"one more".into()), None);
        assert_eq!(t.camera(&"7".into()), Some(7));
        for &to in &c {
            let weight = if to == 3 { 5.0 } else { 1.0 };
            t.learn(c[0], to, Seconds(40.0), weight);
            t.compare(c[0], to, if to == 3 { 5.0 } else { -5.0 });
        }
        let camera = &t.cameras[0];
        assert_eq!(camera.links.len(), MAX_LINKS);
        assert!(camera.together.len() <= MAX_TOGETHER);
        assert!(camera.links.contains_key(&3) && camera.together.contains_key(&3));
    }
}
