//! Identities that outlive tracks: whoever comes back after the track has ended gets a new track id, but the name it had.
//!
//! The registry belongs to no camera; one may serve several. A person has one track at a time.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::range::{OutOfRange, within};
use crate::time::Seconds;
use crate::track::appearance::cosine_distance;

/// Identities beyond the life of a track. Needs an embedder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IdentityConfig {
    /// A person is remembered for this long after the last sight, seconds; 0 gives no identities.
    pub remember: f64,
    /// Cosine distance of looks up to which it is the same person, in [0, 2]. Higher knows more people again, and mistakes
    /// more.
    pub limit: f32,
    /// Detections a track needs before it is named: its look must have settled.
    pub after_hits: u32,
}

impl Default for IdentityConfig {
    fn default() -> Self {
        IdentityConfig { remember: 0.0, limit: 0.12, after_hits: 5 }
    }
}

impl IdentityConfig {
    /// Refuses values outside their ranges.
    ///
    /// # Errors
    /// The first such value.
    pub fn validate(&self) -> Result<(), OutOfRange> {
        within("identity.remember", self.remember, 0.0, 1e7)?;
        within("identity.limit", self.limit, 0.0, 2.0)?;
        within("identity.after_hits", self.after_hits, 1, 100_000)
    }
}

/// Who a track is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// The person's name.
    pub name: String,
    /// How sure that is, in [0, 1]: 1 for one look, 0.5 at the limit; 1 for somebody new.
    pub similarity: f64,
}

#[derive(Debug)]
struct Person {
    look: Vec<f32>,
    seen: Seconds,
    /// The track that is this person now.
    track: Option<u64>,
}

/// Everybody known.
#[derive(Debug)]
pub struct People {
    config: IdentityConfig,
    people: BTreeMap<u64, Person>,
    /// The person a track is, and how sure that is.
    named: BTreeMap<u64, (u64, f64)>,
    next: u64,
}

impl People {
    /// Nobody is known yet.
    pub fn new(config: IdentityConfig) -> Self {
        People { config, people: BTreeMap::new(), named: BTreeMap::new(), next: 1 }
    }

    /// Whether identities are asked for at all.
    pub fn is_on(&self) -> bool {
        self.config.remember > 0.0
    }

    /// Who the track is that looks like this, `None` while that is not known. `now` is any clock that goes on.
    pub fn identify(&mut self, track: u64, hits: u32, look: &[f32], now: Seconds) -> Option<Identity> {
        if !self.is_on() || look.is_empty() {
            return None;
        }
        if !self.named.contains_key(&track) && hits >= self.config.after_hits {
            self.forget(now);
            let found = self.nearest(look);
            let (person, similarity) = found.unwrap_or_else(|| {
                self.next += 1;
                (self.next - 1, 1.0)
            });
            self.named.insert(track, (person, similarity));
        }
        let &(person, similarity) = self.named.get(&track)?;
        let known = self.people.entry(person).or_insert_with(|| Person { look: Vec::new(), seen: now, track: None });
        known.look.clear();
        known.look.extend_from_slice(look);
        (known.seen, known.track) = (now, Some(track));
        Some(Identity { name: format!("person-{person}"), similarity })
    }

    /// The track has ended: its person is free to come back.
    pub fn ended(&mut self, track: u64) {
        if let Some(p) = self.named.remove(&track).and_then(|(person, _)| self.people.get_mut(&person)) {
            p.track = None;
        }
    }

    /// The person nearest in looks who is not there at the moment.
    fn nearest(&self, look: &[f32]) -> Option<(u64, f64)> {
        let free = self.people.iter().filter(|(_, p)| p.track.is_none());
        let away = free.filter_map(|(&id, p)| Some((cosine_distance(&p.look, look)?, id)));
        let (distance, id) = away.min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)))?;
        let similarity = 1.0 - 0.5 * f64::from(distance / self.config.limit.max(f32::MIN_POSITIVE));
        (distance <= self.config.limit).then_some((id, (similarity.clamp(0.0, 1.0) * 1000.0).round() / 1000.0))
    }

    fn forget(&mut self, now: Seconds) {
        let remember = self.config.remember;
        self.people.retain(|_, p| p.track.is_some() || (now - p.seen).0 <= remember);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RED: [f32; 2] = [1.0, 0.0];
    const BLUE: [f32; 2] = [0.0, 1.0];

    fn people() -> People {
        People::new(IdentityConfig { remember: 60.0, ..IdentityConfig::default() })
    }

    fn name(p: &mut People, track: u64, look: &[f32], at: f64) -> Option<String> {
        p.identify(track, 10, look, Seconds(at)).map(|i| i.name)
    }

    #[test]
    fn who_comes_back_keeps_the_name_under_a_new_track_id() {
        let mut p = people();
        assert_eq!(name(&mut p, 1, &RED, 0.0).as_deref(), Some("person-1"));
        assert_eq!(name(&mut p, 2, &BLUE, 0.0).as_deref(), Some("person-2"));
        p.ended(1);
        assert_eq!(name(&mut p, 3, &RED, 20.0).as_deref(), Some("person-1"));
    }

    #[test]
    fn nobody_is_at_two_places() {
        let mut p = people();
        assert_eq!(name(&mut p, 1, &RED, 0.0).as_deref(), Some("person-1"));
        assert_eq!(name(&mut p, 2, &RED, 0.0).as_deref(), Some("person-2"));
    }

    #[test]
    fn the_forgotten_are_new_and_the_unsettled_have_no_name() {
        let mut p = people();
        assert_eq!(p.identify(1, 2, &RED, Seconds(0.0)), None);
        name(&mut p, 1, &RED, 0.0);
        p.ended(1);
        assert_eq!(name(&mut p, 2, &RED, 100.0).as_deref(), Some("person-2"));
        assert_eq!(People::new(IdentityConfig::default()).identify(1, 10, &RED, Seconds(0.0)), None, "off unless asked for");
    }
}
