//! Boundaries of zones and lines: polylines in the image plane with a band around them, and how a
//! moving point passes them.
//!
//! Coordinates are pixels, y downwards. The positive side of an edge from a to b is on the right
//! hand of somebody who goes from a to b, as seen in the picture.

/// A point in pixels.
pub type Point = [f64; 2];

/// A person's position at a time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Presentation time in seconds.
    pub at: f64,
    /// Foot point in pixels.
    pub foot: Point,
    /// Half the width in pixels of the band around a boundary, for this person.
    pub margin: f64,
}

impl Sample {
    /// The position at `share` of the way to `other`, in [0, 1].
    fn mix(&self, other: &Sample, share: f64) -> Sample {
        let mix = |a: f64, b: f64| a + share * (b - a);
        Sample {
            at: mix(self.at, other.at),
            foot: [
                mix(self.foot[0], other.foot[0]),
                mix(self.foot[1], other.foot[1]),
            ],
            margin: mix(self.margin, other.margin),
        }
    }
}

/// What happens on the way from one sample to the next.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Passing {
    /// The point enters the band.
    EntersBand,
    /// The point leaves the band.
    LeavesBand,
    /// The point crosses the boundary: to the positive side (+1) or the negative side (-1).
    Crosses {
        /// +1 or -1.
        sign: i32,
        /// Presentation time in seconds.
        at: f64,
        /// Where, in pixels.
        point: Point,
    },
}

/// An open or closed polyline.
#[derive(Debug, Clone, PartialEq)]
pub struct Boundary {
    points: Vec<Point>,
    closed: bool,
}

/// The product whose sign tells the side of `p` seen from the line through `a` and `b`.
fn side(a: Point, b: Point, p: Point) -> f64 {
    (b[0] - a[0]) * (p[1] - a[1]) - (b[1] - a[1]) * (p[0] - a[0])
}

fn squared_distance(a: Point, b: Point) -> f64 {
    (a[0] - b[0]).powi(2) + (a[1] - b[1]).powi(2)
}

/// Squared distance from `p` to the segment from `a` to `b`, in square pixels.
fn squared_distance_to_edge(a: Point, b: Point, p: Point) -> f64 {
    let length = squared_distance(a, b);
    let along = (p[0] - a[0]) * (b[0] - a[0]) + (p[1] - a[1]) * (b[1] - a[1]);
    let share = if length > 0.0 {
        (along / length).clamp(0.0, 1.0)
    } else {
        0.0
    };
    let nearest = [a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1])];
    squared_distance(nearest, p)
}

/// Whether the segments from `a` to `b` and from `c` to `d` have a point in common.
fn segments_meet(a: Point, b: Point, c: Point, d: Point) -> bool {
    let [s1, s2, s3, s4] = [side(a, b, c), side(a, b, d), side(c, d, a), side(c, d, b)];
    if s1 * s2 < 0.0 && s3 * s4 < 0.0 {
        return true;
    }
    let on =
        |s: f64, p: Point, q: Point, r: Point| s == 0.0 && squared_distance_to_edge(p, q, r) == 0.0;
    on(s1, a, b, c) || on(s2, a, b, d) || on(s3, c, d, a) || on(s4, c, d, b)
}

/// The roots in (0, 1) of a x² + b x + c.
fn roots(a: f64, b: f64, c: f64) -> impl Iterator<Item = f64> {
    let [first, second] = if a == 0.0 {
        [-c / b, f64::NAN]
    } else {
        let discriminant = b * b - 4.0 * a * c;
        // The numerically stable form: no difference of nearly equal numbers.
        let q = -0.5 * (b + discriminant.sqrt().copysign(b));
        [q / a, c / q]
    };
    [first, second]
        .into_iter()
        .filter(|x| x.is_finite() && *x > 0.0 && *x < 1.0)
}

impl Boundary {
    /// The line from the first point to the last.
    pub fn line(points: Vec<Point>) -> Self {
        Boundary {
            points,
            closed: false,
        }
    }

    /// The border of a polygon, whose inside is the positive side whatever the order of its points.
    pub fn polygon(mut points: Vec<Point>) -> Self {
        if area(&points) < 0.0 {
            points.reverse();
        }
        Boundary {
            points,
            closed: true,
        }
    }

    /// The corners, in pixels.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    fn edges(&self) -> impl Iterator<Item = (Point, Point)> + '_ {
        let n = self.points.len();
        let count = if self.closed { n } else { n.saturating_sub(1) };
        (0..count).map(move |i| (self.points[i], self.points[(i + 1) % n]))
    }

    /// Distance from `p` to the polyline, in pixels.
    pub fn distance(&self, p: Point) -> f64 {
        self.edges()
            .map(|(a, b)| squared_distance_to_edge(a, b, p))
            .fold(f64::INFINITY, f64::min)
            .sqrt()
    }

    /// Whether `p` is inside the polygon: the boundary is crossed once more inwards than outwards on
    /// the way to `p` from outside. A point on an edge is inside, as for [`Boundary::passings`].
    pub fn contains(&self, p: Point) -> bool {
        let outside = self.points.iter().fold(p, |o, q| {
            // Odd fractions: the way from there passes through no corner of a hand-drawn polygon.
            [o[0].min(q[0] - 1.371), o[1].min(q[1] - 0.617)]
        });
        let at = |foot| Sample {
            at: 0.0,
            foot,
            margin: 0.0,
        };
        let (outside, p) = (at(outside), at(p));
        let sign = |(a, b)| match crossing(a, b, &outside, &p) {
            Some((_, Passing::Crosses { sign, .. })) => sign,
            _ => 0,
        };
        self.edges().map(sign).sum::<i32>() > 0
    }

    /// What happens on the straight way from one sample to the next, in order.
    pub fn passings(&self, from: &Sample, to: &Sample) -> Vec<Passing> {
        let reached = self.edges().filter(|&(a, b)| reaches(a, b, from, to));
        let mut reached = reached.peekable();
        if reached.peek().is_none() {
            return Vec::new();
        }
        let mut found: Vec<(f64, Passing)> = Vec::new();
        let mut ends = vec![0.0, 1.0];
        for (a, b) in reached {
            found.extend(crossing(a, b, from, to));
            band_limits(a, b, from, to, &mut ends);
        }
        ends.sort_by(f64::total_cmp);
        let mut within = self.is_in_band(from);
        let mut limits: Vec<(f64, Passing)> = Vec::new();
        for pair in ends.windows(2) {
            let middle = from.mix(to, (pair[0] + pair[1]) / 2.0);
            if self.is_in_band(&middle) != within {
                within = !within;
                limits.push((pair[0], band(within)));
            }
        }
        if self.is_in_band(to) != within {
            limits.push((1.0, band(!within)));
        }
        found.extend(limits);
        // Where both happen at once, the band is entered before the boundary is crossed, and left
        // after it.
        let rank = |p: &Passing| match p {
            Passing::EntersBand => 0,
            Passing::Crosses { .. } => 1,
            Passing::LeavesBand => 2,
        };
        found.sort_by(|a, b| a.0.total_cmp(&b.0).then(rank(&a.1).cmp(&rank(&b.1))));
        found.into_iter().map(|(_, p)| p).collect()
    }

    /// Whether a person is so near that the side is not decided.
    pub fn is_in_band(&self, sample: &Sample) -> bool {
        self.distance(sample.foot) <= sample.margin
    }

    /// The first fault of the corners of a line or, if `closed`, a polygon, if there is one: no two
    /// successive points may be equal, and a polygon must have an area and must not cross or touch
    /// itself.
    pub fn fault(points: Vec<Point>, closed: bool) -> Option<String> {
        let drawn = Boundary { points, closed };
        let edges: Vec<(Point, Point)> = drawn.edges().collect();
        if let Some(i) = edges.iter().position(|(a, b)| a == b) {
            let next = (i + 1) % drawn.points.len();
            return Some(format!("its points {} and {} are equal", i + 1, next + 1));
        }
        if !closed {
            return None; // a line may cross itself: every part counts
        }
        for (i, &(a, b)) in edges.iter().enumerate() {
            for (j, &(c, d)) in edges.iter().enumerate().skip(i + 1) {
                let neighbours = j == i + 1 || (i == 0 && j + 1 == edges.len());
                let folds_back = || {
                    let (end, corner, other) = if b == c { (a, b, d) } else { (b, a, c) };
                    let to = |p: Point| [p[0] - corner[0], p[1] - corner[1]];
                    let (p, q) = (to(end), to(other));
                    side(end, corner, other) == 0.0 && p[0] * q[0] + p[1] * q[1] > 0.0
                };
                if (neighbours && folds_back()) || (!neighbours && segments_meet(a, b, c, d)) {
                    return Some(format!("its edges {} and {} cross", i + 1, j + 1));
                }
            }
        }
        (area(&drawn.points).abs() < f64::EPSILON).then(|| "it has no area".into())
    }
}

fn band(within: bool) -> Passing {
    if within {
        Passing::EntersBand
    } else {
        Passing::LeavesBand
    }
}

/// Twice the signed area: positive if the inside is on the positive side of the edges.
fn area(points: &[Point]) -> f64 {
    let n = points.len();
    (0..n)
        .map(|i| {
            let (a, b) = (points[i], points[(i + 1) % n]);
            a[0] * b[1] - a[1] * b[0]
        })
        .sum()
}

/// Whether the way from one sample to the next can reach the band of the edge from `a` to `b`: by
/// their bounding boxes.
fn reaches(a: Point, b: Point, from: &Sample, to: &Sample) -> bool {
    let margin = from.margin.max(to.margin);
    (0..2).all(|i| {
        let (low, high) = (a[i].min(b[i]) - margin, a[i].max(b[i]) + margin);
        from.foot[i].min(to.foot[i]) <= high && from.foot[i].max(to.foot[i]) >= low
    })
}

/// The crossing of the edge from `a` to `b`, with its share of the way. A point on a line counts as
/// on the positive side, so that a way through a corner, or one that stops on an edge, crosses once.
fn crossing(a: Point, b: Point, from: &Sample, to: &Sample) -> Option<(f64, Passing)> {
    let (before, after) = (side(a, b, from.foot), side(a, b, to.foot));
    let ends = (
        side(from.foot, to.foot, a) >= 0.0,
        side(from.foot, to.foot, b) >= 0.0,
    );
    if (before >= 0.0) == (after >= 0.0) || ends.0 == ends.1 {
        return None;
    }
    let share = before / (before - after);
    let on = from.mix(to, share);
    let passing = Passing::Crosses {
        sign: if after >= 0.0 { 1 } else { -1 },
        at: on.at,
        point: on.foot,
    };
    Some((share, passing))
}

/// The shares of the way at which the band of the edge from `a` to `b` can begin or end: where the
/// point's distance from the edge's line, or from one of its ends, equals the margin.
fn band_limits(a: Point, b: Point, from: &Sample, to: &Sample, limits: &mut Vec<f64>) {
    let length = squared_distance(a, b).sqrt();
    let (before, after) = (side(a, b, from.foot) / length, side(a, b, to.foot) / length);
    let growth = to.margin - from.margin;
    for sign in [1.0, -1.0] {
        limits.extend(roots(
            0.0,
            after - before - sign * growth,
            before - sign * from.margin,
        ));
    }
    let way = [to.foot[0] - from.foot[0], to.foot[1] - from.foot[1]];
    for end in [a, b] {
        let apart = [from.foot[0] - end[0], from.foot[1] - end[1]];
        limits.extend(roots(
            way[0] * way[0] + way[1] * way[1] - growth * growth,
            2.0 * (apart[0] * way[0] + apart[1] * way[1] - from.margin * growth),
            apart[0] * apart[0] + apart[1] * apart[1] - from.margin * from.margin,
        ));
    }
}
