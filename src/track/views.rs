//! Views of one person, at different times. The distance of two people is the median over all pairs
//! of their views, so that a single bad crop or viewing direction has little influence.

use crate::time::Seconds;
use crate::track::appearance::cosine_distance;

/// Maximum number of views of a person.
const MAX_VIEWS: usize = 5;
/// Views closer in time than this are merged: the clearer one is kept.
const MIN_GAP: Seconds = Seconds(0.2);

/// Views of one person, in order of time.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Views {
    kept: Vec<TimedView>,
}

#[derive(Debug, Clone, PartialEq)]
struct TimedView {
    /// A unit vector.
    embedding: Vec<f32>,
    /// Clarity of the crop, in [0, 1].
    clarity: f32,
    /// Time of the view.
    at: Seconds,
}

impl Views {
    /// A single view, for example of a gallery picture.
    pub fn of(embedding: &[f32]) -> Self {
        Views {
            kept: vec![TimedView {
                embedding: embedding.to_vec(),
                clarity: 1.0,
                at: Seconds::ZERO,
            }],
        }
    }

    /// Adds a view (a unit vector) of the time `at`, not earlier than the previous ones.
    pub fn learn(&mut self, embedding: &[f32], clarity: f32, at: Seconds) {
        if self
            .kept
            .first()
            .is_some_and(|k| k.embedding.len() != embedding.len())
        {
            self.kept.clear();
        }
        match self.kept.last_mut() {
            Some(last) if (at - last.at).0 < MIN_GAP.0 => {
                if clarity > last.clarity {
                    // The earlier time is kept; otherwise views that follow each other quickly
                    // would all be merged into one.
                    last.clarity = clarity;
                    last.embedding.clear();
                    last.embedding.extend_from_slice(embedding);
                }
            }
            _ => self.add(embedding, clarity, at),
        }
    }

    /// Adds a view later than the others. If there are [`MAX_VIEWS`] already, either the new view
    /// is not added, or another is removed and its memory reused.
    fn add(&mut self, embedding: &[f32], clarity: f32, at: Seconds) {
        let mut view = TimedView {
            embedding: Vec::new(),
            clarity,
            at,
        };
        if self.kept.len() >= MAX_VIEWS {
            let removed = self.superfluous(&view);
            if removed == self.kept.len() {
                return;
            }
            view.embedding = self.kept.remove(removed).embedding;
            view.embedding.clear();
        } else {
            self.kept.reserve_exact(MAX_VIEWS - self.kept.len());
        }
        view.embedding.extend_from_slice(embedding);
        self.kept.push(view);
    }

    /// Adds earlier views of the same person.
    pub fn join(&mut self, earlier: &Views) {
        self.kept.splice(0..0, earlier.kept.iter().cloned());
        self.kept.sort_by(|a, b| a.at.0.total_cmp(&b.at.0));
        self.thin();
    }

    /// Removes views until at most [`MAX_VIEWS`] are left.
    fn thin(&mut self) {
        while self.kept.len() > MAX_VIEWS {
            if let Some(last) = self.kept.pop() {
                let removed = self.superfluous(&last);
                self.kept.push(last);
                self.kept.remove(removed);
            }
        }
    }

    /// Index of the view to remove before `last` is added: of the two views closest in time, the
    /// less clear one.
    fn superfluous(&self, last: &TimedView) -> usize {
        let view = |i: usize| self.kept.get(i).unwrap_or(last);
        let gap = |i: usize| (view(i + 1).at - view(i).at).0;
        let near = (0..self.kept.len())
            .min_by(|&a, &b| gap(a).total_cmp(&gap(b)))
            .unwrap_or_default();
        if view(near).clarity < view(near + 1).clarity {
            near
        } else {
            near + 1
        }
    }

    /// Whether there are no views.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Median of the cosine distances between all pairs of views, in [0, 2]; of an even number of
    /// distances, the lower of the two in the middle. `None` if either person has no views, or the
    /// dimensions differ.
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
    fn views_are_spread_over_the_track() {
        let mut v = Views::default();
        (0..=100).for_each(|i| v.learn(&[1.0, 0.0], 0.9, Seconds(f64::from(i) * 0.1)));
        let at = times(&v);
        assert_eq!((at.len(), at[0]), (MAX_VIEWS, 0.0));
        let gaps: Vec<f64> = at.windows(2).map(|p| p[1] - p[0]).collect();
        assert!(
            at[MAX_VIEWS - 1] > 5.0 && gaps.iter().all(|g| *g >= 0.2),
            "{at:?}"
        );
    }

    #[test]
    fn of_views_close_in_time_the_clearest_is_kept() {
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
            "from another network"
        );
    }

    #[test]
    fn earlier_views_are_added() {
        let (mut early, mut late) = (Views::default(), Views::default());
        (0..8).for_each(|i| early.learn(&[1.0, 0.0], 0.9, Seconds(f64::from(i))));
        (20..22).for_each(|i| late.learn(&[0.0, 1.0], 0.9, Seconds(f64::from(i))));
        late.join(&early);
        assert_eq!(late.kept.len(), MAX_VIEWS);
        assert!(
            times(&late)[0] < 8.0 && times(&late)[MAX_VIEWS - 1] >= 20.0,
            "{late:?}"
        );
    }
}
