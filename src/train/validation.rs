//! Division into training and held-out data, and the measurements of a network on held-out data.

use crate::train::config::TrainConfig;
use crate::train::dataset::Dataset;
use crate::train::embed::{embed, labels};
use crate::train::kernels::backend::Kernels;
use crate::train::network::Tower;
use crate::train::retrieval;

/// Data sets with fewer people than this are used for training entirely.
const FEWEST: usize = 8;
/// Data sets with at least this many people use `hold_out`, smaller ones `hold_out_few`.
const MANY: usize = 40;

/// Splits data sets into those for training and those held out. Sets of fewer than eight people are
/// used for training entirely.
pub fn split(sets: Vec<Dataset>, config: &TrainConfig) -> (Vec<Dataset>, Vec<Dataset>) {
    let (mut train, mut held) = (Vec::new(), Vec::new());
    for set in sets {
        let every = if set.identities >= MANY {
            config.hold_out
        } else {
            config.hold_out_few
        };
        if set.identities >= FEWEST && every > 0 {
            let (rest, out) = set.hold_out(every);
            train.push(rest);
            held.push(out);
        } else {
            train.push(set);
        }
    }
    (train, held)
}

/// Mean mAP over the held-out sets; `None` if none of them has a match.
pub(super) fn validate<B: Kernels>(
    tower: &Tower<B>,
    held: &[Dataset],
    device: &B::Device,
) -> Option<f64> {
    let maps: Vec<f64> = held
        .iter()
        .filter_map(|set| {
            let e = embed(tower, &set.crops.iter().collect::<Vec<_>>(), device);
            retrieval::retrieval(
                &retrieval::distances(e.view()),
                &labels(&set.crops),
                set.protocol,
            )
            .map(|r| r.map)
        })
        .collect();
    (!maps.is_empty()).then(|| maps.iter().sum::<f64>() / maps.len() as f64)
}

/// Measurements of a validation: mAP on held-out people, cosine to the teacher on held-out
/// pictures.
#[derive(Debug, Clone, Copy)]
pub(super) struct ValidationScore {
    pub(super) map: Option<f64>,
    pub(super) agreement: Option<f64>,
}

impl ValidationScore {
    /// Criterion for the best network: mAP if people are held out, else the agreement with the
    /// teacher.
    pub(super) fn score(self) -> Option<f64> {
        self.map.or(self.agreement)
    }

    /// Text for the progress output.
    pub(super) fn text(self) -> String {
        let map = self
            .map
            .map_or(String::new(), |m| format!(", mAP {:.1}", 100.0 * m));
        map + &self
            .agreement
            .map_or(String::new(), |a| format!(", cosine to the teacher {a:.4}"))
    }
}
