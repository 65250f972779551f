//! Tracklets that share an id because the online tracker re-identified the person. Offline linking
//! keeps the re-identification unless the person would be at two places at once.

use std::collections::BTreeMap;

/// A tracklet's id, and the frames of its first and last detection.
pub type Span = (u64, usize, usize);

/// Order of the tracklets with the same id.
#[derive(Debug)]
pub struct SharedIds {
    spans: Vec<Span>,
    /// Indices of the tracklets of each id, in order of time.
    by_id: BTreeMap<u64, Vec<usize>>,
    /// For each tracklet, the next one with the same id.
    next: Vec<Option<usize>>,
    /// For each tracklet, the previous one with the same id.
    previous: Vec<Option<usize>>,
}

impl SharedIds {
    /// Groups tracklets by id.
    pub fn of(spans: Vec<Span>) -> Self {
        let mut by_id: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        spans
            .iter()
            .enumerate()
            .for_each(|(i, s)| by_id.entry(s.0).or_default().push(i));
        let (mut next, mut previous) = (vec![None; spans.len()], vec![None; spans.len()]);
        for of_one in by_id.values_mut() {
            of_one.sort_by_key(|&i| spans[i].1);
            for pair in of_one.windows(2) {
                (next[pair[0]], previous[pair[1]]) = (Some(pair[1]), Some(pair[0]));
            }
        }
        SharedIds {
            spans,
            by_id,
            next,
            previous,
        }
    }

    /// Whether `b` may follow `a` in a trajectory. The next tracklet with the id of `a`, if any,
    /// must be `b` or begin after `b` has ended; the previous tracklet with the id of `b`, if any,
    /// must be `a` or end before `a` begins.
    pub fn allow(&self, a: usize, b: usize) -> bool {
        let after = self.next[a].is_none_or(|n| n == b || self.spans[b].2 < self.spans[n].1);
        let before = self.previous[b].is_none_or(|p| p == a || self.spans[p].2 < self.spans[a].1);
        after && before
    }

    /// Groups the chains whose tracklets share an id; the chains of a group are in order of time.
    /// Chains are given, and groups returned, in order of their first tracklets.
    pub fn join(&self, chains: Vec<Vec<usize>>) -> Vec<Vec<Vec<usize>>> {
        let span = |chain: &[usize]| (self.spans[chain[0]].1, self.spans[chain[chain.len() - 1]].2);
        let mut of: BTreeMap<usize, usize> = BTreeMap::new();
        let mut groups: Vec<Vec<Vec<usize>>> = Vec::new();
        for chain in chains {
            chain.iter().for_each(|&t| {
                of.insert(t, groups.len());
            });
            groups.push(vec![chain]);
        }
        // Tracklets that belong to no chain are ignored.
        let there = |of_one: &Vec<usize>| {
            of_one
                .iter()
                .copied()
                .filter(|t| of.contains_key(t))
                .collect::<Vec<usize>>()
        };
        let mut links: Vec<(usize, usize)> = Vec::new();
        self.by_id
            .values()
            .map(there)
            .for_each(|of_one| links.extend(of_one.windows(2).map(|p| (p[0], p[1]))));
        links.sort_by_key(|&(_, b)| (self.spans[b].1, b));
        for (a, b) in links {
            let (one, other) = (of[&a], of[&b]);
            let meet = |x: &[usize], y: &[usize]| span(x).0 <= span(y).1 && span(y).0 <= span(x).1;
            if one == other
                || groups[one]
                    .iter()
                    .any(|x| groups[other].iter().any(|y| meet(x, y)))
            {
                continue;
            }
            let (keep, give) = (one.min(other), one.max(other));
            let moved = std::mem::take(&mut groups[give]);
            moved.iter().flatten().for_each(|&t| {
                of.insert(t, keep);
            });
            groups[keep].extend(moved);
            groups[keep].sort_by_key(|chain| span(chain));
        }
        groups.retain(|g| !g.is_empty());
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_with_a_shared_id_are_joined() {
        // Id 1 is in frames 0 to 9 and 40 to 49, id 2 in frames 5 to 45 at another place; id 3 is
        // linked to the first tracklet of id 1.
        let r = SharedIds::of(vec![(1, 0, 9), (2, 5, 45), (3, 12, 20), (1, 40, 49)]);
        assert_eq!(
            r.join(vec![vec![0, 2], vec![1], vec![3]]),
            [vec![vec![0, 2], vec![3]], vec![vec![1]]]
        );
    }

    #[test]
    fn links_and_joins_never_overlap_in_time() {
        let r = SharedIds::of(vec![(1, 0, 9), (2, 12, 45), (1, 40, 49)]);
        assert!(!r.allow(0, 1), "id 1 comes back while id 2 is detected");
        assert!(r.allow(0, 2));
        assert_eq!(
            r.join(vec![vec![0, 1], vec![2]]),
            [vec![vec![0, 1]], vec![vec![2]]]
        );
        let r = SharedIds::of(vec![(1, 0, 9), (2, 5, 30), (1, 40, 49)]);
        assert!(!r.allow(1, 2), "id 2 was detected together with id 1");
    }

    #[test]
    fn a_dropped_tracklet_does_not_separate_chains() {
        let r = SharedIds::of(vec![(1, 0, 9), (1, 20, 21), (1, 40, 49)]);
        assert_eq!(r.join(vec![vec![0], vec![2]]), [vec![vec![0], vec![2]]]);
    }
}
