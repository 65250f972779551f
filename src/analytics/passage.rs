//! The passage of one person over one boundary: exactly one crossing for each time that the person
//! goes over, with hysteresis in distance and in time.
//!
//! Distance: while a person is within the band around the boundary, nothing is counted. When the
//! person leaves it, the sum of the signed crossings since entering it counts. Time: a crossing and
//! a crossing back within `hold` seconds cancel each other, so that a box that jumps for some
//! frames is not counted.
//!
//! Between two samples the person moves on a straight line. The crossings are therefore a function
//! of the path, not of the frame rate, and reversing the path reverses their signs.

use crate::analytics::boundary::{Boundary, Passing, Point, Sample};

/// A person has gone over a boundary.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Crossing {
    /// Number of times to the positive side, minus number of times to the negative side; not zero,
    /// and +1 or -1 unless the person walks around the end of a line within its band.
    pub net: i32,
    /// Presentation time in seconds.
    pub at: f64,
    /// Foot point in pixels; absent if the track began or ended inside a zone.
    pub point: Option<Point>,
}

/// The crossings between entering and leaving the band.
#[derive(Debug, Clone, Copy, Default)]
struct Visit {
    net: i32,
    /// The first and the last crossing.
    span: Option<((f64, Point), (f64, Point))>,
}

impl Visit {
    fn cross(&mut self, sign: i32, at: f64, point: Point) {
        self.net += sign;
        let first = self.span.map_or((at, point), |(first, _)| first);
        self.span = Some((first, (at, point)));
    }

    /// The crossing that these amount to, half-way between the first and the last.
    fn crossing(&self) -> Option<Crossing> {
        let ((t0, p0), (t1, p1)) = self.span.filter(|_| self.net != 0)?;
        Some(Crossing {
            net: self.net,
            at: (t0 + t1) / 2.0,
            point: Some([(p0[0] + p1[0]) / 2.0, (p0[1] + p1[1]) / 2.0]),
        })
    }
}

/// State of one person at one boundary.
#[derive(Debug, Clone)]
pub struct Passage {
    /// Present while the person is within the band. Boxed, as `pending` is, because both are rarely
    /// present and hundreds of passages are read for every frame.
    visit: Option<Box<Visit>>,
    /// A crossing that can still be taken back.
    pending: Option<Box<Crossing>>,
    /// A foot point whose distance from the boundary is `clearance`.
    anchor: Point,
    /// In pixels; 0 if the last sample was within the band.
    clearance: f64,
}

impl Passage {
    /// The state at the first sample of a track.
    pub fn begin(boundary: &Boundary, first: &Sample) -> Self {
        let clearance = clearance(boundary, first);
        Passage {
            visit: (clearance == 0.0).then(Box::default),
            pending: None,
            anchor: first.foot,
            clearance,
        }
    }

    /// As [`Passage::begin`], for a track that begins inside a zone, which counts as an entry.
    pub fn begin_inside(boundary: &Boundary, first: &Sample) -> Self {
        Passage {
            pending: Some(Box::new(Crossing {
                net: 1,
                at: first.at,
                point: None,
            })),
            ..Passage::begin(boundary, first)
        }
    }

    /// Moves the person. Crossings that can no longer be taken back are given to `counted`.
    pub fn step(
        &mut self,
        boundary: &Boundary,
        from: &Sample,
        to: &Sample,
        hold: f64,
        mut counted: impl FnMut(Crossing),
    ) {
        if !self.is_far(to) {
            for passing in boundary.passings(from, to) {
                match passing {
                    Passing::EntersBand => self.visit = Some(Box::default()),
                    Passing::Crosses { sign, at, point } => {
                        self.visit.get_or_insert_default().cross(sign, at, point)
                    }
                    Passing::LeavesBand => self.leave_band(hold, &mut counted),
                }
            }
            self.anchor = to.foot;
            self.clearance = clearance(boundary, to);
        }
        self.settle(to.at, hold, &mut counted);
    }

    /// Whether the way to `sample` stays outside the band: the person and the margin are within the
    /// disc around the anchor that contains no boundary, as at the sample before.
    fn is_far(&self, sample: &Sample) -> bool {
        let reach = self.clearance - sample.margin;
        let apart = [
            sample.foot[0] - self.anchor[0],
            sample.foot[1] - self.anchor[1],
        ];
        reach > 0.0 && apart[0] * apart[0] + apart[1] * apart[1] < reach * reach
    }

    fn leave_band(&mut self, hold: f64, counted: &mut impl FnMut(Crossing)) {
        if let Some(crossing) = self.visit.take().and_then(|v| v.crossing()) {
            self.add(crossing, hold, counted);
        }
    }

    /// Adds a crossing, which cancels one in the other direction less than `hold` seconds before.
    fn add(&mut self, crossing: Crossing, hold: f64, counted: &mut impl FnMut(Crossing)) {
        match self.pending.take() {
            Some(before)
                if before.net.signum() != crossing.net.signum()
                    && crossing.at - before.at < hold =>
            {
                let net = before.net + crossing.net;
                self.pending = (net != 0).then(|| Crossing { net, ..crossing }.into());
            }
            Some(before) => {
                counted(*before);
                self.pending = Some(crossing.into());
            }
            None => self.pending = Some(crossing.into()),
        }
    }

    /// Counts the pending crossing if nothing can take it back any more: `hold` seconds have passed,
    /// and the person is not within the band after crossing again in that time.
    fn settle(&mut self, now: f64, hold: f64, counted: &mut impl FnMut(Crossing)) {
        let Some(pending) = &self.pending else {
            return;
        };
        let until = pending.at + hold;
        let span = self.visit.as_ref().and_then(|v| v.span);
        if now >= until && span.is_none_or(|((first, _), _)| first >= until) {
            counted(**pending);
            self.pending = None;
        }
    }

    /// Ends the track. `inside`: the person is inside a zone, which counts as leaving it at `at`.
    pub fn finish(mut self, inside: Option<f64>, hold: f64, mut counted: impl FnMut(Crossing)) {
        self.leave_band(hold, &mut counted);
        if let Some(at) = inside {
            let leaving = Crossing {
                net: -1,
                at,
                point: None,
            };
            self.add(leaving, hold, &mut counted);
        }
        if let Some(pending) = self.pending {
            counted(*pending);
        }
    }
}

/// Distance in pixels from the boundary; 0 within the band.
fn clearance(boundary: &Boundary, sample: &Sample) -> f64 {
    let distance = boundary.distance(sample.foot);
    if distance <= sample.margin {
        0.0
    } else {
        distance
    }
}
