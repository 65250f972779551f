//! Evaluation of embeddings: retrieval (CMC, mAP; Zheng et al. 2015), verification (ROC: EER, TAR
//! at FAR) and one-shot identification (N-way accuracy; Koch et al. 2015).

use ndarray::{Array2, Array4, ArrayView2, Axis};

use crate::embed::Embedder;
use crate::infer::InferError;
use crate::train::batch::write_plain;
use crate::train::dataset::{Crop, Protocol};

/// Identity, camera and frame of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PictureLabel {
    /// The identity.
    pub identity: usize,
    /// The camera.
    pub camera: u32,
    /// The frame.
    pub frame: u64,
}

impl Protocol {
    /// Whether two pictures may be compared.
    fn compares(self, a: &PictureLabel, b: &PictureLabel) -> bool {
        match self {
            Protocol::All => true,
            Protocol::CrossCamera => a.identity != b.identity || a.camera != b.camera,
            Protocol::Apart(frames) => a.frame.abs_diff(b.frame) >= frames,
        }
    }
}

/// Retrieval measures. Each picture is a query once; its gallery consists of all pictures with
/// which it may be compared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Retrieval {
    /// Mean average precision, in [0, 1].
    pub map: f64,
    /// Share of queries with a match among the 1, 5 and 10 nearest, in [0, 1].
    pub rank: [f64; 3],
    /// Number of queries that have a match.
    pub queries: usize,
}

/// Cosine distances of all pairs of unit rows, [n, n].
pub fn distances(embeddings: ArrayView2<'_, f32>) -> Array2<f32> {
    let mut d = embeddings.dot(&embeddings.t());
    d.mapv_inplace(|cosine| (1.0 - cosine).clamp(0.0, 2.0));
    d
}

/// Embeds crops with an ONNX embedder, 32 at a time. Returns the embeddings, [n, D].
///
/// # Errors
/// Fails when a run fails.
pub fn embeddings(embedder: &mut Embedder, crops: &[Crop]) -> Result<Array2<f32>, InferError> {
    let mut rows = Array2::zeros((0, embedder.dimension()));
    for part in crops.chunks(32) {
        let crops: Vec<_> = part.iter().map(|c| (&c.image, &c.person)).collect();
        rows.append(Axis(0), embedder.embed_crops(&crops)?.view())
            .expect("rows of the same dimension");
    }
    Ok(rows)
}

/// Pixels of crops resized to `size` (width, height), as embeddings [n, 3 * w * h]. The mean is
/// subtracted and the length is 1, so that the cosine is the correlation, independent of brightness
/// and contrast.
pub fn pixels(crops: &[Crop], (width, height): (usize, usize)) -> Array2<f32> {
    let mut rows = Array4::zeros((crops.len(), 3, height, width));
    rows.axis_iter_mut(Axis(0))
        .zip(crops)
        .for_each(|(out, crop)| write_plain(crop, out));
    let mut rows = rows
        .into_shape_with_order((crops.len(), 3 * width * height))
        .expect("one row per crop");
    for mut row in rows.rows_mut() {
        let mean = row.mean().unwrap_or_default();
        row -= mean;
        let length = row.dot(&row).sqrt();
        row /= length.max(f32::MIN_POSITIVE);
    }
    rows
}

/// Computes CMC and mAP. `None` if no query has a match.
pub fn retrieval(
    distances: &Array2<f32>,
    labels: &[PictureLabel],
    protocol: Protocol,
) -> Option<Retrieval> {
    let (mut map, mut rank, mut queries) = (0.0, [0.0; 3], 0);
    for (q, label) in labels.iter().enumerate() {
        let mut order: Vec<usize> = (0..labels.len())
            .filter(|&g| g != q && protocol.compares(label, &labels[g]))
            .collect();
        order.sort_by(|&a, &b| distances[[q, a]].total_cmp(&distances[[q, b]]));
        let hits: Vec<usize> = order
            .iter()
            .enumerate()
            .filter(|(_, g)| labels[**g].identity == label.identity)
            .map(|(place, _)| place)
            .collect();
        let Some(&first) = hits.first() else { continue };
        queries += 1;
        map += hits
            .iter()
            .enumerate()
            .map(|(k, &place)| (k + 1) as f64 / (place + 1) as f64)
            .sum::<f64>()
            / hits.len() as f64;
        [1, 5, 10]
            .iter()
            .zip(&mut rank)
            .filter(|(k, _)| first < **k)
            .for_each(|(_, r)| *r += 1.0);
    }
    (queries > 0).then(|| Retrieval {
        map: map / queries as f64,
        rank: rank.map(|r| r / queries as f64),
        queries,
    })
}

/// Distances of pairs of the same person and of different people, each ascending.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PairDistances {
    /// Distances of pairs of the same person.
    pub same: Vec<f32>,
    /// Distances of pairs of different people.
    pub different: Vec<f32>,
}

impl PairDistances {
    /// Collects all pairs that may be compared. `different`: whether two identities are certainly
    /// different people.
    pub fn of(
        distances: &Array2<f32>,
        labels: &[PictureLabel],
        protocol: Protocol,
        different: impl Fn(usize, usize) -> bool,
    ) -> Self {
        let mut pairs = PairDistances::default();
        for (i, a) in labels.iter().enumerate() {
            for (j, b) in labels
                .iter()
                .enumerate()
                .skip(i + 1)
                .filter(|(_, b)| protocol.compares(a, b))
            {
                if a.identity == b.identity {
                    pairs.same.push(distances[[i, j]]);
                } else if different(a.identity, b.identity) {
                    pairs.different.push(distances[[i, j]]);
                }
            }
        }
        pairs.sorted()
    }

    /// Selects `count` distances of each kind (the same person, different people) at regular
    /// intervals, with repetition if there are fewer, so that data sets of different sizes have
    /// equal weight. `None` if there are no pairs of one kind.
    pub fn spread(&self, count: usize) -> Option<Self> {
        let pick = |d: &[f32]| {
            (0..count)
                .map(|i| d[(2 * i + 1) * d.len() / (2 * count)])
                .collect()
        };
        (!self.same.is_empty() && !self.different.is_empty()).then(|| PairDistances {
            same: pick(&self.same),
            different: pick(&self.different),
        })
    }

    /// Sorts both lists in ascending order.
    pub fn sorted(mut self) -> Self {
        self.same.sort_by(f32::total_cmp);
        self.different.sort_by(f32::total_cmp);
        self
    }

    /// True accept rate at a distance.
    pub fn accepted_same(&self, limit: f32) -> f64 {
        self.same.partition_point(|d| *d <= limit) as f64 / self.same.len().max(1) as f64
    }

    /// False accept rate at a distance.
    pub fn accepted_different(&self, limit: f32) -> f64 {
        self.different.partition_point(|d| *d <= limit) as f64 / self.different.len().max(1) as f64
    }

    /// Equal error rate, and the distance at which false accepts and false rejects are equally
    /// frequent. `None` if there are no pairs of the same person, or none of different people.
    pub fn equal_error(&self) -> Option<(f64, f32)> {
        if self.same.is_empty() || self.different.is_empty() {
            return None;
        }
        let gap = |d: f32| (self.accepted_different(d) + self.accepted_same(d) - 1.0).abs();
        let limit = self
            .same
            .iter()
            .chain(&self.different)
            .copied()
            .min_by(|a, b| gap(*a).total_cmp(&gap(*b)))?;
        Some((
            (self.accepted_different(limit) + 1.0 - self.accepted_same(limit)) / 2.0,
            limit,
        ))
    }

    /// True accept rate at a false accept rate of at most `far`.
    pub fn true_accepts_at(&self, far: f64) -> f64 {
        let allowed = (far * self.different.len() as f64).floor() as usize;
        let limit = self
            .different
            .get(allowed)
            .map_or(f32::INFINITY, |d| d.next_down());
        self.accepted_same(limit)
    }
}

/// N-way one-shot identification (Koch et al. 2015). A trial draws `ways` people with one reference
/// picture each, and a probe: another picture of the first person. The answer is the person of the
/// nearest reference. Returns the share of correct answers over `trials` (ties are errors); `None`
/// if too few people have two comparable pictures.
pub fn one_shot(
    distances: &Array2<f32>,
    labels: &[PictureLabel],
    protocol: Protocol,
    ways: usize,
    trials: usize,
    seed: u64,
) -> Option<f64> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let identities = labels.iter().map(|l| l.identity).max()? + 1;
    let mut of = vec![Vec::new(); identities];
    labels
        .iter()
        .enumerate()
        .for_each(|(i, l)| of[l.identity].push(i));
    let mut people: Vec<usize> = (0..identities)
        .filter(|&p| {
            of[p].iter().any(|&a| {
                of[p]
                    .iter()
                    .any(|&b| a != b && protocol.compares(&labels[a], &labels[b]))
            })
        })
        .collect();
    if people.len() < ways || ways < 2 {
        return None;
    }
    let (mut right, mut asked) = (0, 0);
    while asked < trials {
        rng.shuffle(&mut people);
        let probe = of[people[0]][rng.usize(0..of[people[0]].len())];
        let matches: Vec<usize> = of[people[0]]
            .iter()
            .copied()
            .filter(|&r| r != probe && protocol.compares(&labels[probe], &labels[r]))
            .collect();
        let Some(&reference) = rng.choice(&matches) else {
            continue;
        };
        let others = people[1..ways]
            .iter()
            .map(|&p| of[p][rng.usize(0..of[p].len())]);
        let nearest_other = others
            .map(|o| distances[[probe, o]])
            .fold(f32::INFINITY, f32::min);
        right += usize::from(distances[[probe, reference]] < nearest_other);
        asked += 1;
    }
    Some(right as f64 / trials as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(of: &[(usize, u32)]) -> Vec<PictureLabel> {
        of.iter()
            .map(|&(identity, camera)| PictureLabel {
                identity,
                camera,
                frame: 0,
            })
            .collect()
    }

    /// Distances of picture 0 to the others; all other distances are large.
    fn from_first(d: &[f32]) -> Array2<f32> {
        Array2::from_shape_fn((d.len(), d.len()), |(i, j)| {
            if i == 0 {
                d[j]
            } else if i == j {
                0.0
            } else {
                1.9
            }
        })
    }

    #[test]
    fn average_precision_matches_a_worked_example() {
        // Manning, Raghavan and Schütze (2008), chapter 8: relevant results at ranks 1, 3 and 6 of
        // six give (1 + 2/3 + 3/6) / 3.
        let l = labels(&[(1, 0), (1, 1), (2, 1), (1, 1), (3, 1), (4, 1), (1, 1)]);
        let d = from_first(&[0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6]);
        let only_first: Vec<PictureLabel> = l
            .iter()
            .enumerate()
            .map(|(i, l)| {
                if i == 0 {
                    *l
                } else {
                    PictureLabel { camera: 0, ..*l }
                }
            })
            .collect();
        // If all matches are from the query's own camera, none of them may be compared.
        assert_eq!(retrieval(&d, &only_first, Protocol::CrossCamera), None);
        let all = retrieval(&d, &l, Protocol::CrossCamera).expect("matches");
        assert_eq!(all.queries, 4);
        let one = Array2::from_shape_fn((7, 7), |(i, j)| {
            if i == 0 || j == 0 {
                d[[0, i.max(j)]]
            } else {
                1.9
            }
        });
        let r = retrieval(&one, &l, Protocol::CrossCamera).expect("matches");
        // For each of the three other pictures of person 1, picture 0 is the nearest.
        let want = ((1.0 + 2.0 / 3.0 + 0.5) / 3.0 + 3.0) / 4.0;
        assert!((r.map - want).abs() < 1e-9, "{} instead of {want}", r.map);
        assert_eq!(r.rank, [1.0, 1.0, 1.0]);
    }

    #[test]
    fn rank_counts_the_first_match() {
        let l = labels(&[(1, 0), (2, 1), (1, 1)]);
        let d = ndarray::arr2(&[[0.0, 0.1, 0.2], [0.1, 0.0, 0.5], [0.2, 0.5, 0.0]]);
        let r = retrieval(&d, &l, Protocol::CrossCamera).expect("matches");
        assert_eq!((r.queries, r.rank), (2, [0.5, 1.0, 1.0]));
        assert!((r.map - 0.75).abs() < 1e-9);
    }

    #[test]
    fn frames_close_in_time_are_not_compared() {
        let at = |identity, frame| PictureLabel {
            identity,
            camera: 0,
            frame,
        };
        let l = [at(1, 1), at(1, 20), at(1, 80), at(2, 80)];
        let d = ndarray::arr2(&[
            [0.0, 0.0, 0.3, 0.2],
            [0.0, 0.0, 0.3, 0.2],
            [0.3, 0.3, 0.0, 0.9],
            [0.2, 0.2, 0.9, 0.0],
        ]);
        let r = retrieval(&d, &l, Protocol::Apart(50)).expect("matches");
        assert_eq!(r.queries, 3);
        assert!((r.map - (0.5 + 0.5 + 1.0) / 3.0).abs() < 1e-9);
    }

    #[test]
    fn equal_error_rate_balances_false_accepts_and_rejects() {
        let pairs = PairDistances {
            same: vec![0.1, 0.2, 0.3, 0.6],
            different: vec![0.25, 0.7, 0.8, 0.9],
        }
        .sorted();
        let (eer, limit) = pairs.equal_error().expect("both kinds");
        assert!(
            (eer - 0.25).abs() < 1e-9 && (0.3..0.6).contains(&limit),
            "{eer} at {limit}"
        );
        assert_eq!(pairs.true_accepts_at(0.0), 0.5);
        assert_eq!(pairs.true_accepts_at(0.25), 1.0);
        assert_eq!(PairDistances::default().equal_error(), None);
    }

    #[test]
    fn spread_preserves_the_distribution() {
        let pairs = PairDistances {
            same: vec![0.1, 0.2],
            different: (0..9).map(|i| i as f32).collect(),
        };
        let s = pairs.spread(4).expect("both kinds");
        assert_eq!(
            (s.same, s.different),
            (vec![0.1, 0.1, 0.2, 0.2], vec![1.0, 3.0, 5.0, 7.0])
        );
        assert_eq!(PairDistances::default().spread(4), None);
    }

    #[test]
    fn one_shot_accuracy_is_1_for_perfect_and_0_for_inverted_distances() {
        let l = labels(&[(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]);
        let perfect =
            Array2::from_shape_fn((6, 6), |(i, j)| if i / 2 == j / 2 { 0.1 } else { 0.9 });
        assert_eq!(one_shot(&perfect, &l, Protocol::All, 3, 200, 1), Some(1.0));
        let hopeless = perfect.mapv(|d| 1.0 - d);
        assert_eq!(one_shot(&hopeless, &l, Protocol::All, 3, 200, 1), Some(0.0));
        assert_eq!(one_shot(&perfect, &l, Protocol::All, 4, 200, 1), None);
    }
}
