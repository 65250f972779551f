//! All measures of a sequence, or of several sequences together, and their table.

use std::fmt::Write as _;

use serde::Serialize;

use crate::eval::clear::Clear;
use crate::eval::hota::Hota;
use crate::eval::identity::Identity;
use crate::eval::sequence::Sequence;

/// Counts of one sequence, or sums over several.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Counts {
    hota: Hota,
    clear: Clear,
    identity: Identity,
}

/// The measures; ratios are in percent.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(non_snake_case, reason = "the names used in the literature's tables")]
pub struct Scores {
    /// Name of the sequence, or `COMBINED`.
    pub sequence: String,
    /// Higher order tracking accuracy.
    pub HOTA: f64,
    /// Detection accuracy.
    pub DetA: f64,
    /// Association accuracy.
    pub AssA: f64,
    /// Localisation accuracy.
    pub LocA: f64,
    /// Multiple object tracking accuracy.
    pub MOTA: f64,
    /// Multiple object tracking precision.
    pub MOTP: f64,
    /// Identity F1.
    pub IDF1: f64,
    /// Identity precision.
    pub IDP: f64,
    /// Identity recall.
    pub IDR: f64,
    /// Identity switches.
    pub IDSW: u64,
    /// Fragmentations.
    pub Frag: u64,
    /// Mostly tracked people.
    pub MT: u64,
    /// Mostly lost people.
    pub ML: u64,
    /// People in the ground truth.
    pub people: u64,
}

/// Computes the counts of one sequence.
pub fn score(s: &Sequence) -> Counts {
    Counts {
        hota: Hota::count(s),
        clear: Clear::count(s),
        identity: Identity::count(s),
    }
}

/// Sums the counts of several sequences.
pub fn combine<'a>(parts: impl IntoIterator<Item = &'a Counts>) -> Counts {
    parts.into_iter().fold(Counts::default(), |mut sum, p| {
        sum.hota.add(&p.hota);
        sum.clear.add(&p.clear);
        sum.identity.add(&p.identity);
        sum
    })
}

impl Counts {
    /// The measures, labelled with a sequence's name.
    pub fn scores(&self, sequence: &str) -> Scores {
        let (h, c, i) = (&self.hota, &self.clear, &self.identity);
        Scores {
            sequence: sequence.to_string(),
            HOTA: 100.0 * h.hota(),
            DetA: 100.0 * h.det_a(),
            AssA: 100.0 * h.ass_a(),
            LocA: 100.0 * h.loc_a(),
            MOTA: 100.0 * c.mota(),
            MOTP: 100.0 * c.motp(),
            IDF1: 100.0 * i.idf1(),
            IDP: 100.0 * i.idp(),
            IDR: 100.0 * i.idr(),
            IDSW: c.switches,
            Frag: c.fragmentations,
            MT: c.mostly_tracked,
            ML: c.mostly_lost,
            people: c.people,
        }
    }
}

/// Formats the measures as a table with one line per sequence.
pub fn table(rows: &[Scores]) -> String {
    let width = rows
        .iter()
        .map(|r| r.sequence.len())
        .max()
        .unwrap_or(0)
        .max(8);
    let mut out = format!(
        "{:width$}   HOTA   DetA   AssA   MOTA   MOTP   IDF1   IDSW   Frag     MT     ML\n",
        "sequence"
    );
    for r in rows {
        writeln!(
            out,
            "{:width$} {:6.2} {:6.2} {:6.2} {:6.2} {:6.2} {:6.2} {:6} {:6} {:6} {:6}",
            r.sequence, r.HOTA, r.DetA, r.AssA, r.MOTA, r.MOTP, r.IDF1, r.IDSW, r.Frag, r.MT, r.ML
        )
        .expect("writing to a string cannot fail");
    }
    out
}
