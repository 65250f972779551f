//! Several views of one person, spread over the time in which it was seen: two people are compared by all pairs of their
//! views, so that one bad crop, or one side of somebody, does not decide.

use crate::time::Seconds;
use crate::track::appearance::cosine_distance;

/// So many views of a person are kept.
const MOST: usize = 5;
/// Views nearer together than this are one: the clearer stays.
const APART: Seconds = Seconds(0.2);

/// Views of one person, in order of time.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Views {
    kept: Vec<Kept>,
}

#[derive(Debug, Clone, PartialEq)]
struct Kept {
    /// A unit vector.
    embedding: Vec<f32>,
    /// How clear the crop was, in [0, 1].
    clear: f32,
    /// When.
    at: Seconds,
}

impl Views {
    /// One view, as of a picture.
    pub fn of(embedding: &[f32]) -> Self {
        Views {
            kept: vec![Kept {
                embedding: embedding.to_vec(),
                clear: 1.0,
                at: Seconds::ZERO,
            }],
        }
    }

    /// Takes a view (a unit vector) seen at `at`, not earlier than those before.
    pub fn learn(&mut self, embedding: &[f32], clear: f32, at: Seconds) {
        if self
            .kept
            .first()
            .is_some_and(|k| k.embedding.len() != embedding.len())
        {
            self.kept.clear();
        }
        match self.kept.last_mut() {
            Some(last) if (at - last.at).0 < APART.0 => {
                if clear > last.clear {
                    // Its time stays, or views in quick succession would never grow apart.
                    last.clear = clear;
                    last.embedding.clear();
                    last.embedding.extend_from_slice(embedding);
                }
            }
            _ => {
                self.kept.push(Kept {
                    embedding: embedding.to_vec(),
                    clear,
                    at,
                });
                self.thin();
            }
        }
    }

    /// Adds what was seen of the same person earlier.
    pub fn join(&mut self, earlier: &Views) {
        self.kept.splice(0..0, earlier.kept.iter().cloned());
        self.kept.sort_by(|a, b| a.at.0.total_cmp(&b.at.0));
        self.thin();
    }

    /// Leaves out views until few enough are left: of the two nearest in time the less clear.
    fn thin(&mut self) {
        while self.kept.len() > MOST {
            let gap = |i: usize| (self.kept[i + 1].at - self.kept[i].at).0;
            let near = (0..self.kept.len() - 1)
                .min_by(|&a, &b| gap(a).total_cmp(&gap(b)))
                .expect("there are more than one");
            self.kept
                .remove(if self.kept[near].clear < self.kept[near + 1].clear {
                    near
                } else {
                    near + 1
                });
        }
    }

    /// Whether nothing was seen clearly yet.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// The median (of an even number the smaller of the two) of the cosine distances of all pairs of a view of one and a view
    /// of the other, in [0, 2]; `None` unless both have been seen.
    pub fn distance(&self, other: &Views) -> Option<f32> {
        let pairs = self.kept.iter().flat_map(|a| {
            other
                .kept
                .iter()
                .map(|b| cosine_distance(&a.embedding, &b.embedding))
        });
        let mut distances: Vec<f32> = pairs.flatten().collect();
        let middle = distances.len().checked_sub(1)? / 2;
        Some(*distances.select_nth_unstable_by(middle, f32::total_cmp).1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(v: &Views) -> Vec<f64> {
        v.kept
            .iter()
            .map(|k| (k.at.0 * 10.0).round() / 10.0)
            .collect()
    }

    #[test]
    fn views_are_spread_over_the_life_of_a_track() {
        let mut v = Views::default();
        (0..=100).for_each(|i| v.learn(&[1.0, 0.0], 0.9, Seconds(f64::from(i) * 0.1)));
        let at = times(&v);
        assert_eq!((at.len(), at[0]), (MOST, 0.0));
        let gaps: Vec<f64> = at.windows(2).map(|p| p[1] - p[0]).collect();
        assert!(
            at[MOST - 1] > 5.0 && gaps.iter().all(|g| *g >= 0.2),
            "{at:?}"
        );
    }

    #[test]
    fn of_views_at_one_time_the_clearest_stays() {
        let mut v = Views::default();
        v.learn(&[1.0, 0.0], 0.5, Seconds(0.0));
        v.learn(&[0.0, 1.0], 0.9, Seconds(0.1));
        v.learn(&[1.0, 0.0], 0.6, Seconds(0.15));
        assert_eq!(v.distance(&Views::of(&[0.0, 1.0])), Some(0.0));
    }

    #[test]
    fn one_bad_view_does_not_decide() {
        let mut v = Views::default();
        for (i, look) in [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]].iter().enumerate() {
            v.learn(look, 0.9, Seconds(i as f64));
        }
        assert_eq!(v.distance(&Views::of(&[1.0, 0.0])), Some(0.0));
        assert_eq!(v.distance(&Views::of(&[0.0, 1.0])), Some(1.0));
        assert_eq!(v.distance(&Views::default()), None);
        assert_eq!(
            v.distance(&Views::of(&[1.0, 0.0, 0.0])),
            None,
            "of another network"
        );
    }

    #[test]
    fn what_was_seen_earlier_is_added() {
        let (mut early, mut late) = (Views::default(), Views::default());
        (0..8).for_each(|i| early.learn(&[1.0, 0.0], 0.9, Seconds(f64::from(i))));
        (20..22).for_each(|i| late.learn(&[0.0, 1.0], 0.9, Seconds(f64::from(i))));
        late.join(&early);
        assert_eq!(late.kept.len(), MOST);
        assert!(
            times(&late)[0] < 8.0 && times(&late)[MOST - 1] >= 20.0,
            "{late:?}"
        );
    }
}
