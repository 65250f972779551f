//! The path of a track: a bounded number of points, between which the position is interpolated.
//!
//! Ramer (1972) and Douglas and Peucker (1973), with the error between positions at the same time
//! (Meratnia and de By 2004) instead of the distance from the line, so that a pause on a straight
//! path is preserved.

/// A point of a path: time in seconds, x and y in pixels.
pub type PathPoint = [f64; 3];

/// Tolerance of the simplification in pixels: largest error of linear interpolation between points.
pub const TOLERANCE: f64 = 2.0;
/// Maximum number of points. A longer path is simplified repeatedly, with twice the tolerance each
/// time.
pub const MAX_POINTS: usize = 512;
/// Number of new points that are collected before they are simplified.
const BATCH: usize = 128;

/// A growing path.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TrackPath {
    points: Vec<PathPoint>,
    /// Number of points that are simplified already.
    simplified_count: usize,
    /// Largest tolerance in pixels used so far; 0 before the first simplification.
    tolerance: f64,
    /// Bound, in pixels, of the distance between the path and the original points.
    error: f64,
}

impl TrackPath {
    /// Time of the last point in seconds.
    pub fn last(&self) -> Option<f64> {
        self.points.last().map(|p| p[0])
    }

    /// Adds a point later than the last.
    pub fn push(&mut self, point: PathPoint) {
        self.points.push(point);
        if self.points.len() - self.simplified_count >= BATCH {
            self.shrink();
        }
    }

    /// The points, and a bound in pixels of the distance from the original positions.
    pub fn finish(mut self) -> (Vec<PathPoint>, f64) {
        self.shrink();
        (self.points, self.error)
    }

    fn shrink(&mut self) {
        // The last simplified point is the first of the next segment.
        let from = self.simplified_count.saturating_sub(1);
        let tail = simplify(&self.points[from..], TOLERANCE);
        self.points.truncate(from);
        self.points.extend(tail);
        self.tolerance = self.tolerance.max(TOLERANCE);
        self.error = self.error.max(TOLERANCE);
        while self.points.len() > MAX_POINTS {
            // The errors of successive simplifications add up.
            self.tolerance *= 2.0;
            self.error += self.tolerance;
            self.points = simplify(&self.points, self.tolerance);
        }
        self.simplified_count = self.points.len();
    }
}

/// Removes points such that linear interpolation between the remaining points deviates from the
/// removed ones by at most `error` pixels. The first and the last point stay.
pub fn simplify(points: &[PathPoint], error: f64) -> Vec<PathPoint> {
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

/// Distance in pixels of `p` from the position interpolated between `a` and `b` at the time of `p`.
fn distance(a: &PathPoint, b: &PathPoint, p: &PathPoint) -> f64 {
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

    /// The largest distance between the path and the given points.
    fn worst(path: &[PathPoint], points: &[PathPoint]) -> f64 {
        let off = |p: &PathPoint| {
            let at = path
                .partition_point(|q| q[0] <= p[0])
                .clamp(1, path.len() - 1);
            distance(&path[at - 1], &path[at], p)
        };
        points.iter().map(off).fold(0.0, f64::max)
    }

    fn path_of(points: &[PathPoint]) -> (Vec<PathPoint>, f64) {
        let mut path = TrackPath::default();
        points.iter().for_each(|p| path.push(*p));
        path.finish()
    }

    #[test]
    fn a_straight_path_keeps_its_ends_and_pauses() {
        let walk: Vec<PathPoint> = (0..100)
            .map(|i| [0.2 * f64::from(i), 5.0 * f64::from(i), 100.0])
            .collect();
        assert_eq!(path_of(&walk).0, [walk[0], walk[99]]);
        let paused: Vec<PathPoint> = (0..100)
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
        assert_eq!(error, TOLERANCE);
    }

    /// A day of movement without a pause, with five points per second.
    #[test]
    fn a_path_of_a_day_is_bounded_and_reports_its_error() {
        let way = |i: u32| {
            let t = 0.2 * f64::from(i);
            [
                t,
                960.0 + 700.0 * (t / 7.0).sin() + 40.0 * (t * 1.3).sin(),
                540.0 + 400.0 * (t / 11.0).cos(),
            ]
        };
        let points: Vec<PathPoint> = (0..432_000).map(way).collect();
        let (path, error) = path_of(&points);
        assert!((2..=MAX_POINTS).contains(&path.len()), "{}", path.len());
        assert!(
            error > TOLERANCE && worst(&path, &points) <= error,
            "{} within {error}",
            worst(&path, &points)
        );
        assert!(serde_json::to_string(&path).expect("JSON").len() < 30_000);
        let hour = &points[..600]; // two minutes: below the maximum
        let (path, error) = path_of(hour);
        assert!(
            error == TOLERANCE && worst(&path, hour) <= TOLERANCE && path.len() < 300,
            "{} points",
            path.len()
        );
    }

    proptest! {
        #[test]
        fn the_actual_error_never_exceeds_the_reported_one(
            steps in prop::collection::vec((0.05f64..2.0, -40.0f64..40.0, -40.0f64..40.0), 2..900)
        ) {
            let mut at = [0.0, 500.0, 500.0];
            let mut walk = |(t, x, y): &(f64, f64, f64)| {
                at = [at[0] + t, at[1] + x, at[2] + y];
                at
            };
            let points: Vec<PathPoint> = steps.iter().map(&mut walk).collect();
            let (path, error) = path_of(&points);
            prop_assert!(path.len() <= MAX_POINTS);
            prop_assert_eq!(path[0], points[0]);
            prop_assert_eq!(path[path.len() - 1], points[points.len() - 1]);
            prop_assert!(path.iter().all(|p| points.contains(p)));
            prop_assert!(path.windows(2).all(|w| w[0][0] < w[1][0]));
            let off = worst(&path, &points);
            prop_assert!(off <= error + 1e-9, "{off} beyond {error}");
        }
    }
}
