//! The path of a track, simplified and bounded: few points that tell where somebody was at any
//! time.
//!
//! Ramer (1972) and Douglas and Peucker (1973), with the error taken between places at the same
//! time (Meratnia and de By 2004) instead of the distance from the line: who stands still on a
//! straight way is not lost.

/// A point of a path: seconds, x and y in pixels.
pub type Point = [f64; 3];

/// Between two points of a path the way is straight and even, up to this error, pixels.
pub const ERROR: f64 = 2.0;
/// At most so many points; a path of more is simplified at twice the error, and again.
pub const MOST: usize = 512;
/// So many points come in before they are simplified.
const FRESH: usize = 128;

/// A path that grows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Path {
    points: Vec<Point>,
    /// How many of them are simplified already.
    done: usize,
    /// The error of the coarsest simplification, pixels; 0 before any.
    step: f64,
    /// The greatest distance between the path and the points that were put in, pixels.
    error: f64,
}

impl Path {
    /// Time of the last point, seconds.
    pub fn last(&self) -> Option<f64> {
        self.points.last().map(|p| p[0])
    }

    /// Adds a point, later than the last.
    pub fn push(&mut self, point: Point) {
        self.points.push(point);
        if self.points.len() - self.done >= FRESH {
            self.shrink();
        }
    }

    /// The points, and the greatest distance from where the track was at the times between them,
    /// pixels.
    pub fn finish(mut self) -> (Vec<Point>, f64) {
        self.shrink();
        (self.points, self.error)
    }

    fn shrink(&mut self) {
        // The last point that was simplified is the first of the next piece.
        let from = self.done.saturating_sub(1);
        let tail = simplified(&self.points[from..], ERROR);
        self.points.truncate(from);
        self.points.extend(tail);
        self.step = self.step.max(ERROR);
        self.error = self.error.max(ERROR);
        while self.points.len() > MOST {
            // The errors of one simplification after another add up.
            self.step *= 2.0;
            self.error += self.step;
            self.points = simplified(&self.points, self.step);
        }
        self.done = self.points.len();
    }
}

/// Leaves out the points that straight and even movement between those left tells up to `error`
/// pixels. The first and the last stay.
pub fn simplified(points: &[Point], error: f64) -> Vec<Point> {
    let mut keep = vec![false; points.len()];
    let mut pieces = match points.len() {
        0 | 1 => return points.to_vec(),
        n => vec![(0, n - 1)],
    };
    while let Some((from, to)) = pieces.pop() {
        (keep[from], keep[to]) = (true, true);
        let off = |&i: &usize| distance(&points[from], &points[to], &points[i]);
        let worst = (from + 1..to).max_by(|a, b| off(a).total_cmp(&off(b)));
        if let Some(worst) = worst.filter(|i| off(i) > error) {
            pieces.extend([(from, worst), (worst, to)]);
        }
    }
    points
        .iter()
        .zip(keep)
        .filter(|(_, keep)| *keep)
        .map(|(p, _)| *p)
        .collect()
}

/// Where even movement from `a` to `b` is at the time of `p`, and how far from `p`, pixels.
fn distance(a: &Point, b: &Point, p: &Point) -> f64 {
    let share = if b[0] > a[0] {
        (p[0] - a[0]) / (b[0] - a[0])
    } else {
        0.0
    };
    (p[1] - a[1] - share * (b[1] - a[1])).hypot(p[2] - a[2] - share * (b[2] - a[2]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The greatest distance between the path and these points.
    fn worst(path: &[Point], points: &[Point]) -> f64 {
        let off = |p: &Point| {
            let at = path
                .partition_point(|q| q[0] <= p[0])
                .clamp(1, path.len() - 1);
            distance(&path[at - 1], &path[at], p)
        };
        points.iter().map(off).fold(0.0, f64::max)
    }

    fn path_of(points: &[Point]) -> (Vec<Point>, f64) {
        let mut path = Path::default();
        points.iter().for_each(|p| path.push(*p));
        path.finish()
    }

    #[test]
    fn a_straight_way_is_its_two_ends_and_a_pause_on_it_is_kept() {
        let walk: Vec<Point> = (0..100)
            .map(|i| [0.2 * f64::from(i), 5.0 * f64::from(i), 100.0])
            .collect();
        assert_eq!(path_of(&walk).0, [walk[0], walk[99]]);
        let paused: Vec<Point> = (0..100)
            .map(|i| {
                [
                    0.2 * f64::from(i),
                    5.0 * f64::from(i.clamp(0, 50) + (i - 80).max(0)),
                    100.0,
                ]
            })
            .collect();
        let (path, error) = path_of(&paused);
        assert_eq!(
            path.iter()
                .map(|p| (p[0] * 5.0).round())
                .collect::<Vec<_>>(),
            [0.0, 50.0, 80.0, 99.0]
        );
        assert_eq!(error, ERROR);
    }

    /// A day of somebody who never stands still, at five points a second: it was half a megabyte an
    /// hour.
    #[test]
    fn a_path_of_a_day_is_bounded_and_says_how_exact_it_is() {
        let way = |i: u32| {
            let t = 0.2 * f64::from(i);
            [
                t,
                960.0 + 700.0 * (t / 7.0).sin() + 40.0 * (t * 1.3).sin(),
                540.0 + 400.0 * (t / 11.0).cos(),
            ]
        };
        let points: Vec<Point> = (0..432_000).map(way).collect();
        let (path, error) = path_of(&points);
        assert!((2..=MOST).contains(&path.len()), "{}", path.len());
        assert!(
            error > ERROR && worst(&path, &points) <= error,
            "{} within {error}",
            worst(&path, &points)
        );
        assert!(serde_json::to_string(&path).expect("JSON").len() < 30_000);
        let hour = &points[..600]; // two minutes: not bounded yet
        let (path, error) = path_of(hour);
        assert!(
            error == ERROR && worst(&path, hour) <= ERROR && path.len() < 300,
            "{} points",
            path.len()
        );
    }

    proptest! {
        #[test]
        fn it_is_never_further_off_than_it_says(steps in prop::collection::vec((0.05f64..2.0, -40.0f64..40.0, -40.0f64..40.0), 2..900)) {
            let mut at = [0.0, 500.0, 500.0];
            let points: Vec<Point> = steps.iter().map(|(t, x, y)| { at = [at[0] + t, at[1] + x, at[2] + y]; at }).collect();
            let (path, error) = path_of(&points);
            prop_assert!(path.len() <= MOST && path[0] == points[0] && path[path.len() - 1] == points[points.len() - 1]);
            prop_assert!(path.iter().all(|p| points.contains(p)) && path.windows(2).all(|w| w[0][0] < w[1][0]));
            prop_assert!(worst(&path, &points) <= error + 1e-9, "{} beyond {error}", worst(&path, &points));
        }
    }
}
