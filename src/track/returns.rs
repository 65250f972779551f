//! Tracklets of one id: the online tracker lost the person and knew it again by looks. Linking over the whole recording keeps
//! that, unless the person would be at two places at once.

use std::collections::BTreeMap;

/// A tracklet's id, and the frames of its first and last sight.
pub type Span = (u64, usize, usize);

/// Which tracklet continues which by its id.
#[derive(Debug)]
pub struct Returns {
    spans: Vec<Span>,
    /// The tracklets of each id, in order of time.
    by_id: BTreeMap<u64, Vec<usize>>,
    /// The next and the one before with the same id.
    next: Vec<Option<usize>>,
    previous: Vec<Option<usize>>,
}

impl Returns {
    /// What the ids of tracklets say.
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
        Returns {
            spans,
            by_id,
            next,
            previous,
        }
    }

    /// Whether `b` may continue `a`: not where the one who is known to come back would be at two places then.
    pub fn allow(&self, a: usize, b: usize) -> bool {
        let after = self.next[a].is_none_or(|n| n == b || self.spans[b].2 < self.spans[n].1);
        let before = self.previous[b].is_none_or(|p| p == a || self.spans[p].2 < self.spans[a].1);
        after && before
    }

    /// Puts chains of tracklets together that are one person by an id, each group in order of time. Chains come in order of
    /// their beginnings, and so do groups.
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
        // Tracklets that were left out join nothing, and part nobody.
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
    fn chains_of_one_id_are_one_person() {
        // Id 1 at 0..=9 and 40..=49, id 2 in between somewhere else, id 3 linked to the first stretch of 1.
        let r = Returns::of(vec![(1, 0, 9), (2, 5, 45), (3, 12, 20), (1, 40, 49)]);
        assert_eq!(
            r.join(vec![vec![0, 2], vec![1], vec![3]]),
            [vec![vec![0, 2], vec![3]], vec![vec![1]]]
        );
    }

    #[test]
    fn nobody_is_at_two_places() {
        let r = Returns::of(vec![(1, 0, 9), (2, 12, 45), (1, 40, 49)]);
        assert!(!r.allow(0, 1), "while 2 is seen, 1 comes back");
        assert!(r.allow(0, 2));
        assert_eq!(
            r.join(vec![vec![0, 1], vec![2]]),
            [vec![vec![0, 1]], vec![vec![2]]]
        );
        let r = Returns::of(vec![(1, 0, 9), (2, 5, 30), (1, 40, 49)]);
        assert!(!r.allow(1, 2), "2 was seen together with 1");
    }

    #[test]
    fn what_was_left_out_parts_nobody() {
        let r = Returns::of(vec![(1, 0, 9), (1, 20, 21), (1, 40, 49)]);
        assert_eq!(r.join(vec![vec![0], vec![2]]), [vec![vec![0], vec![2]]]);
    }
}
