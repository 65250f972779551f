//! Identity measures over tracks of several cameras (Ristani et al. 2016, section 4, with tracks in
//! place of frames): the result's people are assigned one to one to the true people, so that the
//! weight of the tracks that both have in common is largest; IDF1 is that weight's share.

use std::collections::BTreeMap;

use crate::eval::assignment::max_weight_assignment;

/// A track with the person that it is of, and the person that the result says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct JudgedTrack {
    /// The true person.
    pub truth: u64,
    /// The result's person; `None` if it gives none.
    pub result: Option<u64>,
    /// Weight: 1, or the track's duration.
    pub weight: f64,
}

/// IDF1, IDP and IDR over tracks, each in [0, 1].
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct TrackIdentity {
    /// 2 IDTP / (weight of the tracks + weight of the tracks with a result).
    pub idf1: f64,
    /// Identity precision: the share of the result's weight that is assigned rightly.
    pub idp: f64,
    /// Identity recall: the share of the truth's weight that is assigned rightly.
    pub idr: f64,
}

impl TrackIdentity {
    /// Judges tracks. Groups of true and resulting people who have tracks in common are assigned
    /// separately, so that the time depends on the largest group of people taken for each other.
    pub fn of(tracks: &[JudgedTrack]) -> Self {
        let mut common: BTreeMap<(u64, u64), f64> = BTreeMap::new();
        let (mut truth, mut result) = (0.0, 0.0);
        for t in tracks {
            truth += t.weight;
            if let Some(person) = t.result {
                result += t.weight;
                *common.entry((t.truth, person)).or_default() += t.weight;
            }
        }
        let agreed: f64 = groups(&common).iter().map(|g| agreement(g)).sum();
        let share = |of: f64| if of > 0.0 { agreed / of } else { 0.0 };
        TrackIdentity {
            idf1: share((truth + result) / 2.0),
            idp: share(result),
            idr: share(truth),
        }
    }
}

/// Weight in common of a true person and one of the result.
type Common = ((u64, u64), f64);

/// Groups the pairs so that pairs of different groups have no person in common.
fn groups(common: &BTreeMap<(u64, u64), f64>) -> Vec<Vec<Common>> {
    let mut group_of_result: BTreeMap<u64, usize> = BTreeMap::new();
    let mut groups: Vec<Vec<Common>> = Vec::new();
    let mut pairs: Vec<Common> = common.iter().map(|(&p, &w)| (p, w)).collect();
    pairs.sort_by_key(|((truth, _), _)| *truth);
    for of_one in pairs.chunk_by(|a, b| a.0.0 == b.0.0) {
        let mut joined: Vec<usize> = of_one
            .iter()
            .filter_map(|((_, result), _)| group_of_result.get(result).copied())
            .collect();
        joined.sort_unstable();
        joined.dedup();
        let mut group = of_one.to_vec();
        for other in joined {
            group.append(&mut groups[other]);
        }
        for ((_, result), _) in &group {
            group_of_result.insert(*result, groups.len());
        }
        groups.push(group);
    }
    groups.retain(|g| !g.is_empty());
    groups
}

/// The largest weight that a one-to-one assignment of a group's people has in common.
fn agreement(group: &[Common]) -> f64 {
    let index = |of: fn(&Common) -> u64| {
        let mut all: Vec<u64> = group.iter().map(of).collect();
        all.sort_unstable();
        all.dedup();
        all
    };
    let (truths, results) = (index(|c| c.0.0), index(|c| c.0.1));
    let mut weights = vec![0.0; truths.len() * results.len()];
    let place = |all: &[u64], value: u64| all.partition_point(|v| *v < value);
    for ((truth, result), weight) in group {
        weights[place(&truths, *truth) * results.len() + place(&results, *result)] = *weight;
    }
    max_weight_assignment(truths.len(), results.len(), &weights)
        .iter()
        .map(|&(r, k)| weights[r * results.len() + k])
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(pairs: &[(u64, u64)]) -> TrackIdentity {
        let tracks: Vec<JudgedTrack> = pairs
            .iter()
            .map(|&(truth, result)| JudgedTrack {
                truth,
                result: (result > 0).then_some(result),
                weight: 1.0,
            })
            .collect();
        TrackIdentity::of(&tracks)
    }

    #[test]
    fn numbers_of_people_do_not_matter_but_divisions_and_merges_do() {
        assert_eq!(judged(&[(1, 7), (1, 7), (2, 5)]).idf1, 1.0);
        // Person 1 is divided: the smaller part is wrong.
        assert_eq!(judged(&[(1, 7), (1, 7), (1, 8), (2, 5)]).idf1, 0.75);
        // Two people are merged: only one of them can have the number.
        assert_eq!(judged(&[(1, 7), (1, 7), (2, 7), (2, 7)]).idf1, 0.5);
    }

    #[test]
    fn the_assignment_is_the_best_over_all_people() {
        // Result 5 shares two tracks with person 1 and two with person 2; result 6 shares three
        // with person 1.
        let pairs = [(1, 5), (1, 5), (2, 5), (2, 5), (1, 6), (1, 6), (1, 6)];
        assert_eq!(judged(&pairs).idr, 5.0 / 7.0);
    }

    #[test]
    fn a_track_without_a_result_lowers_recall_only() {
        let found = judged(&[(1, 7), (1, 7), (1, 0), (2, 0)]);
        assert_eq!((found.idp, found.idr), (1.0, 0.5));
        assert!((found.idf1 - 2.0 * 2.0 / 6.0).abs() < 1e-12);
        assert_eq!(TrackIdentity::of(&[]), TrackIdentity::default());
    }

    #[test]
    fn tracks_count_by_their_weights() {
        let track = |truth, result, weight| JudgedTrack {
            truth,
            result: Some(result),
            weight,
        };
        let tracks = [track(1, 1, 9.0), track(1, 2, 1.0)];
        assert_eq!(TrackIdentity::of(&tracks).idf1, 0.9);
    }
}
