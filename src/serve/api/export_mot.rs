//! MOTChallenge results: a line for each track and frame, the boxes between stored ones
//! interpolated.

use std::io::{self, Write};

use crate::serve::api::track_export::TrackExport;
use crate::store::query::TrackDetail;

/// Most frames between two stored boxes that are interpolated; over a longer gap the person was not
/// detected.
const MAX_GAP: f64 = 300.0;

/// Writes MOTChallenge results. Lines are in the order of tracks, not of frames.
pub(super) struct MotExport<W>(W);

impl<W: Write> MotExport<W> {
    /// Writes to `out`.
    pub fn new(out: W) -> Self {
        MotExport(out)
    }

    fn line(
        &mut self,
        frame: f64,
        id: u64,
        [left, top, width, height]: [f64; 4],
    ) -> io::Result<()> {
        writeln!(
            self.0,
            "{frame:.0},{id},{left:.1},{top:.1},{width:.1},{height:.1},1,-1,-1,-1"
        )
    }
}

impl<W: Write> TrackExport for MotExport<W> {
    fn track(&mut self, track: &TrackDetail) -> io::Result<()> {
        let id = track.summary.id;
        for pair in track.boxes.windows(2) {
            let ([frame, from @ ..], [next, to @ ..]) = (pair[0], pair[1]);
            self.line(frame, id, from)?;
            let gap = next - frame;
            if gap > MAX_GAP {
                continue;
            }
            for n in 1..gap as u32 {
                let share = f64::from(n) / gap;
                let mixed = [0, 1, 2, 3].map(|k| from[k] + share * (to[k] - from[k]));
                self.line(frame + f64::from(n), id, mixed)?;
            }
        }
        match track.boxes.last() {
            Some([frame, last @ ..]) => self.line(*frame, id, *last),
            None => Ok(()),
        }
    }

    fn finish(mut self: Box<Self>) -> io::Result<()> {
        self.0.flush()
    }
}
