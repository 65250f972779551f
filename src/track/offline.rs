//! The whole video at once: tracklets are linked where that makes all trajectories together likeliest.
//!
//! Zhang et al. 2008 and Leal-Taixé et al. 2016, section 5: a min-cost flow over the tracklets an online tracker made,
//! solved exactly ([`flow`]). A link costs what its gap, its bend and its change of look make it unlikely; a trajectory
//! costs its beginning. What lies between is then filled in ([`interpolate`]). All of it happens beside a path of the
//! camera told from the boxes, so a person hidden while the camera pans is filled in where the camera pointed.

use serde::{Deserialize, Serialize};

use crate::geometry::BBox;
use crate::range::{OutOfRange, share, within};
use crate::time::Seconds;
use crate::track::appearance::cosine_distance;
use crate::track::assignment::Candidate;
use crate::track::camera_motion::{self, CameraMotionConfig};
use crate::track::config::TrackerConfig;
use crate::track::cost::CostConfig;
use crate::track::flow;
use crate::track::interpolate::{self, InterpolateConfig, Step};
use crate::track::motion::{BoxFilter, MotionConfig};
use crate::track::returns::Returns;
use crate::track::scenery::Stillness;

/// Linking of tracklets over a whole recording. Costs are in natural logarithms of likelihood.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OfflineConfig {
    /// Longest gap a link may bridge, seconds.
    pub max_gap: f64,
    /// Weight of the bend: how badly the ways before and after the gap meet in place and velocity. 0 for a perfect meeting.
    pub motion: f32,
    /// Weight of the change of size over the gap.
    pub size: f32,
    /// Cost of every second of the gap.
    pub gap: f32,
    /// Weight of the change of look over the gap, where embeddings are known: this much for or against.
    pub appearance: f32,
    /// The cosine distance at which the look speaks neither for nor against a link.
    pub appearance_scale: f32,
    /// A link that costs more than this is not made. Higher links more, and joins different people more often.
    pub new_track: f32,
    /// A trajectory seen in fewer frames is left out.
    pub min_hits: usize,
    /// A trajectory seen in a smaller share of the frames it spans is left out, in [0, 1]. Higher drops more false tracks,
    /// and more people whom the detector hardly sees.
    pub min_share: f32,
    /// How the tracklets are made.
    pub tracklets: TrackletConfig,
    /// Filling of gaps.
    pub fill: InterpolateConfig,
}

/// What the online tracker does otherwise when its tracks are to be linked afterwards. Its other settings stay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrackletConfig {
    /// In place of `tracker.keep_lost`, seconds. Lower leaves more to linking.
    pub keep_lost: f64,
    /// In place of `tracker.cost.limit`.
    pub limit: f32,
    /// In place of `tracker.cost.unsure_limit`.
    pub unsure_limit: f32,
    /// In place of `tracker.cost.absence`.
    pub absence: f32,
}

impl Default for TrackletConfig {
    fn default() -> Self {
        TrackletConfig {
            keep_lost: 1.9,
            limit: 0.73,
            unsure_limit: 0.7,
            absence: 0.08,
        }
    }
}

impl TrackletConfig {
    /// The settings of the online tracker that makes the tracklets.
    pub fn tracker(&self, online: &TrackerConfig) -> TrackerConfig {
        let mut t = online.clone();
        // Whether a short track is believed and what is scenery is decided when all is known. Who comes back is decided as
        // online, after as many detections.
        t.reidentify.after_hits = t.reidentify.after_hits.max(t.confirm_hits);
        t.confirm_hits = 1;
        t.scenery.after = 0.0;
        t.keep_lost = self.keep_lost;
        t.cost = CostConfig {
            limit: self.limit,
            unsure_limit: self.unsure_limit,
            absence: self.absence,
            ..t.cost
        };
        t
    }
}

impl Default for OfflineConfig {
    fn default() -> Self {
        OfflineConfig {
            max_gap: 4.5,
            motion: 1.2,
            size: 0.5,
            gap: 0.3,
            appearance: 8.0,
            appearance_scale: 0.9,
            new_track: 5.2,
            min_hits: 3,
            min_share: 0.58,
            tracklets: TrackletConfig::default(),
            fill: InterpolateConfig::default(),
        }
    }
}

impl OfflineConfig {
    /// Refuses values outside their ranges.
    ///
    /// # Errors
    /// The first such value.
    pub fn validate(&self) -> Result<(), OutOfRange> {
        within("offline.max_gap", self.max_gap, 0.0, 3600.0)?;
        let weights = [
            ("motion", self.motion),
            ("size", self.size),
            ("gap", self.gap),
            ("appearance", self.appearance),
        ];
        weights
            .iter()
            .try_for_each(|(name, v)| within(&format!("offline.{name}"), *v, 0.0, 1000.0))?;
        within("offline.appearance_scale", self.appearance_scale, 0.01, 2.0)?;
        within("offline.new_track", self.new_track, -1000.0, 1000.0)?;
        within("offline.min_hits", self.min_hits, 1, 10_000)?;
        share("offline.min_share", self.min_share)?;
        within(
            "offline.tracklets.keep_lost",
            self.tracklets.keep_lost,
            0.0,
            3600.0,
        )?;
        let limits = [
            ("limit", self.tracklets.limit),
            ("unsure_limit", self.tracklets.unsure_limit),
            ("absence", self.tracklets.absence),
        ];
        limits.iter().try_for_each(|(name, v)| {
            within(&format!("offline.tracklets.{name}"), *v, 0.0, 100.0)
        })?;
        self.fill.validate()
    }
}

/// What place and size reach, in natural logarithms, when two ways meet at once and as well as detector noise lets them: the
/// costs are counted from there.
const PERFECT: (f32, f32) = (-7.0, -9.5);

/// A person seen in a frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sighting {
    /// Place of the frame in the list of all frames.
    pub frame: usize,
    /// The box, pixels.
    pub bbox: BBox,
    /// Confidence, in [0, 1].
    pub confidence: f32,
}

/// A stretch of one person's way. Several have one id where the person was lost and known again.
#[derive(Debug, Clone, PartialEq)]
pub struct Tracklet {
    /// The id the online tracker gave.
    pub id: u64,
    /// Where the person was seen, by frame; not empty.
    pub sightings: Vec<Sighting>,
    /// The averaged embedding, a unit vector; empty when unknown.
    pub embedding: Vec<f32>,
}

impl Tracklet {
    fn first(&self) -> &Sighting {
        &self.sightings[0]
    }

    fn last(&self) -> &Sighting {
        &self.sightings[self.sightings.len() - 1]
    }
}

/// A person's whole way.
#[derive(Debug, Clone, PartialEq)]
pub struct Trajectory {
    /// Places of its tracklets in the list given, in order of time.
    pub parts: Vec<usize>,
    /// Where the person was, by frame, filled in where it was not seen; not where it was away and came back.
    pub steps: Vec<Step>,
}

/// Links tracklets to trajectories and fills their gaps; in order of their beginnings. `times` holds the presentation time
/// of every frame, ascending; `tracker` says how people move and what is scenery.
pub fn refine(
    tracklets: &[Tracklet],
    times: &[Seconds],
    config: &OfflineConfig,
    tracker: &TrackerConfig,
) -> Vec<Trajectory> {
    let motion = &tracker.motion;
    let camera = camera_path(tracklets, times, motion);
    let mut order: Vec<usize> = (0..tracklets.len()).collect();
    order.sort_by_key(|&t| (tracklets[t].first().frame, tracklets[t].id));
    let returns = Returns::of(
        tracklets
            .iter()
            .map(|t| (t.id, t.first().frame, t.last().frame))
            .collect(),
    );
    let mut candidates = links(tracklets, &order, times, &camera, config, motion);
    candidates.retain(|c| returns.allow(c.row, c.column));
    let mut next = vec![None; tracklets.len()];
    let mut continues = vec![false; tracklets.len()];
    for (a, b) in flow::solve(
        tracklets.len(),
        tracklets.len(),
        &candidates,
        config.new_track,
    ) {
        next[a] = Some(b);
        continues[b] = true;
    }
    let chain =
        |first: usize| std::iter::successors(Some(first), |&t| next[t]).collect::<Vec<usize>>();
    let starts = order.iter().filter(|&&t| !continues[t]);
    let sightings = |parts: &[usize]| {
        parts
            .iter()
            .flat_map(|&p| tracklets[p].sightings.iter().copied())
            .collect::<Vec<Sighting>>()
    };
    let believed = |s: &[Sighting]| {
        let span = s[s.len() - 1].frame - s[0].frame + 1;
        let still = || {
            s.windows(2).fold(
                Stillness::new(s[0].bbox, s[0].confidence, times[s[0].frame]),
                |mut still, p| {
                    still.see(
                        p[1].bbox,
                        p[1].confidence,
                        times[p[1].frame],
                        &tracker.scenery,
                    );
                    still
                },
            )
        };
        s.len() >= config.min_hits
            && !still().is_scenery(times[s[s.len() - 1].frame], &tracker.scenery)
            && s.len() as f32 >= config.min_share * span as f32
    };
    let chains: Vec<Vec<usize>> = starts
        .map(|&t| chain(t))
        .filter(|parts| believed(&sightings(parts)))
        .collect();
    let filled =
        |parts: &Vec<usize>| interpolate::fill(&sightings(parts), times, &camera, &config.fill);
    returns
        .join(chains)
        .into_iter()
        .map(|group| Trajectory {
            steps: group.iter().flat_map(filled).collect(),
            parts: group.concat(),
        })
        .collect()
}

/// Every pair of tracklets of which one may continue the other, with what that costs.
fn links(
    tracklets: &[Tracklet],
    order: &[usize],
    times: &[Seconds],
    camera: &[[f32; 2]],
    config: &OfflineConfig,
    motion: &MotionConfig,
) -> Vec<Candidate> {
    let ends: Vec<Ends> = tracklets
        .iter()
        .map(|t| Ends::of(t, times, camera, motion))
        .collect();
    let mut links = Vec::new();
    for (a, earlier) in tracklets.iter().enumerate() {
        let end = earlier.last().frame;
        for &b in &order[order.partition_point(|&t| tracklets[t].first().frame <= end)..] {
            let later = &tracklets[b];
            let gap = times[later.first().frame] - times[end];
            if gap.0 > config.max_gap {
                break;
            }
            let (place, size) = ends[a].meet(&ends[b], gap, motion);
            let look = cosine_distance(&earlier.embedding, &later.embedding).map_or(0.0, |d| {
                (d / config.appearance_scale - 1.0).clamp(-1.0, 1.0)
            });
            let cost = config.motion * (place - PERFECT.0)
                + config.size * (size - PERFECT.1)
                + config.gap * gap.f32()
                + config.appearance * look;
            links.push(Candidate {
                row: a,
                column: b,
                cost,
            });
        }
    }
    links
}

/// The filters at both ends of a tracklet: come forward to its end, and backward to its start.
struct Ends {
    forward: BoxFilter,
    backward: BoxFilter,
}

impl Ends {
    fn of(t: &Tracklet, times: &[Seconds], camera: &[[f32; 2]], motion: &MotionConfig) -> Self {
        let still = |s: &Sighting| BBox {
            left: s.bbox.left - camera[s.frame][0],
            top: s.bbox.top - camera[s.frame][1],
            ..s.bbox
        };
        let step = |mut filter: BoxFilter, from: &Sighting, to: &Sighting| {
            filter.predict(
                Seconds((times[to.frame] - times[from.frame]).0.abs()),
                motion,
            );
            filter.update(still(to), to.confidence, motion);
            filter
        };
        let pairs = || t.sightings.windows(2);
        Ends {
            forward: pairs().fold(BoxFilter::new(still(t.first()), motion), |f, p| {
                step(f, &p[0], &p[1])
            }),
            backward: pairs()
                .rev()
                .fold(BoxFilter::new(still(t.last()), motion), |f, p| {
                    step(f, &p[1], &p[0])
                }),
        }
    }

    fn meet(&self, later: &Ends, gap: Seconds, motion: &MotionConfig) -> (f32, f32) {
        let mut forward = self.forward.clone();
        forward.predict(gap, motion);
        forward.meet(&later.backward)
    }
}

/// How far the camera has moved at each frame since the first, told from the boxes: what in the people's steps no filter
/// foresaw, as far as it is common to all.
fn camera_path(tracklets: &[Tracklet], times: &[Seconds], motion: &MotionConfig) -> Vec<[f32; 2]> {
    let mut seen: Vec<Vec<(usize, Sighting)>> = vec![Vec::new(); times.len()];
    for (t, tracklet) in tracklets.iter().enumerate() {
        tracklet
            .sightings
            .iter()
            .for_each(|s| seen[s.frame].push((t, *s)));
    }
    let mut filters: std::collections::BTreeMap<usize, BoxFilter> = Default::default();
    let (mut at, mut path) = ([0.0f32; 2], Vec::with_capacity(times.len()));
    for (frame, here) in seen.iter().enumerate() {
        if frame > 0 {
            filters
                .values_mut()
                .for_each(|f| f.predict(times[frame] - times[frame - 1], motion));
        }
        let pairs: Vec<(BBox, BBox)> = here
            .iter()
            .filter_map(|(t, s)| filters.get(t).map(|f| (f.bbox(), s.bbox)))
            .collect();
        if let Some(map) = camera_motion::from_boxes(&pairs, &CameraMotionConfig::default()) {
            at = [at[0] + map.shift[0], at[1] + map.shift[1]];
            filters.values_mut().for_each(|f| f.warp(&map));
        }
        path.push(at);
        for (t, s) in here {
            let filter = filters
                .entry(*t)
                .and_modify(|f| f.update(s.bbox, s.confidence, motion));
            filter.or_insert_with(|| BoxFilter::new(s.bbox, motion));
        }
        filters.retain(|&t, _| tracklets[t].last().frame > frame);
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: f64 = 10.0;

    fn times(n: usize) -> Vec<Seconds> {
        (0..n).map(|f| Seconds(f as f64 / RATE)).collect()
    }

    /// A person who walks from x at 60 pixels a second, seen in these frames.
    fn walker(id: u64, x: f32, y: f32, frames: std::ops::Range<usize>) -> Tracklet {
        let at = |frame: usize| BBox::from_center(x + 6.0 * frame as f32, y, 40.0, 100.0);
        Tracklet {
            id,
            sightings: frames
                .map(|frame| Sighting {
                    frame,
                    bbox: at(frame),
                    confidence: 0.9,
                })
                .collect(),
            embedding: Vec::new(),
        }
    }

    fn refined(tracklets: &[Tracklet], frames: usize, config: &OfflineConfig) -> Vec<Trajectory> {
        refine(tracklets, &times(frames), config, &TrackerConfig::default())
    }

    #[test]
    fn two_stretches_of_one_walk_become_one_way_without_a_hole() {
        let ways = refined(
            &[walker(1, 0.0, 200.0, 0..20), walker(2, 0.0, 200.0, 23..50)],
            50,
            &OfflineConfig::default(),
        );
        assert_eq!(ways.len(), 1);
        assert_eq!(ways[0].parts, [0, 1]);
        assert_eq!(
            ways[0].steps.iter().map(|s| s.frame).collect::<Vec<_>>(),
            (0..50).collect::<Vec<_>>()
        );
        let hidden = ways[0].steps[21];
        assert!(
            !hidden.seen && (hidden.bbox.center().0 - 126.0).abs() < 1.0,
            "{hidden:?}"
        );
    }

    #[test]
    fn people_far_apart_or_too_long_apart_stay_two() {
        let config = OfflineConfig::default();
        assert_eq!(
            refined(
                &[
                    walker(1, 0.0, 200.0, 0..20),
                    walker(2, 300.0, 200.0, 26..50)
                ],
                50,
                &config
            )
            .len(),
            2
        );
        assert_eq!(
            refined(
                &[walker(1, 0.0, 200.0, 0..20), walker(2, 0.0, 200.0, 60..90)],
                90,
                &config
            )
            .len(),
            2
        );
    }

    #[test]
    fn all_links_together_decide_not_the_first() {
        // Two people side by side behind a pillar: each must get his own continuation, whatever the order given.
        let (a, b) = (walker(1, 0.0, 200.0, 0..20), walker(2, 0.0, 225.0, 0..20));
        let (c, d) = (walker(3, 0.0, 201.0, 25..50), walker(4, 0.0, 226.0, 25..50));
        let ways = refined(
            &[d.clone(), a.clone(), c.clone(), b.clone()],
            50,
            &OfflineConfig::default(),
        );
        assert_eq!(
            ways.iter().map(|w| w.parts.clone()).collect::<Vec<_>>(),
            [vec![1, 2], vec![3, 0]]
        );
    }

    #[test]
    fn looks_forbid_and_allow_a_link() {
        let config = OfflineConfig {
            appearance_scale: 0.3,
            ..OfflineConfig::default()
        };
        let with = |mut t: Tracklet, look: [f32; 2]| {
            t.embedding = look.to_vec();
            t
        };
        let first = with(walker(1, 0.0, 200.0, 0..20), [1.0, 0.0]);
        assert_eq!(
            refined(
                &[
                    first.clone(),
                    with(walker(2, 0.0, 200.0, 26..50), [0.0, 1.0])
                ],
                50,
                &config
            )
            .len(),
            2
        );
        // Half a height off the way: too much for motion alone, not for someone who looks the same.
        assert_eq!(
            refined(
                &[walker(1, 0.0, 200.0, 0..20), walker(2, 60.0, 200.0, 26..50)],
                50,
                &config
            )
            .len(),
            2
        );
        assert_eq!(
            refined(
                &[first, with(walker(2, 60.0, 200.0, 26..50), [1.0, 0.0])],
                50,
                &config
            )
            .len(),
            1
        );
    }

    #[test]
    fn what_is_hardly_ever_seen_is_left_out() {
        let mut sparse = walker(1, 0.0, 200.0, 0..40);
        sparse.sightings.retain(|s| s.frame % 4 == 0);
        assert!(refined(&[sparse.clone()], 40, &OfflineConfig::default()).is_empty());
        assert_eq!(
            refined(
                &[sparse],
                40,
                &OfflineConfig {
                    min_share: 0.2,
                    ..OfflineConfig::default()
                }
            )
            .len(),
            1
        );
    }

    #[test]
    fn a_hidden_person_is_filled_in_where_the_camera_pointed() {
        // The camera jerks by 80 pixels and back while person 1 is hidden; three others show it.
        let jerk = |frame: usize| if (22..24).contains(&frame) { 80.0 } else { 0.0 };
        let shaken = |mut t: Tracklet| {
            t.sightings
                .iter_mut()
                .for_each(|s| s.bbox.left += jerk(s.frame));
            t
        };
        let mut hidden = walker(1, 0.0, 200.0, 0..50);
        hidden.sightings.retain(|s| !(20..26).contains(&s.frame));
        let others = (2..6).map(|i| walker(i, 150.0 * i as f32, 240.0, 0..50));
        let all: Vec<Tracklet> = std::iter::once(hidden).chain(others).map(shaken).collect();
        let way = &refined(&all, 50, &OfflineConfig::default())[0];
        let x = way.steps[23].bbox.center().0;
        assert!((x - (138.0 + 80.0)).abs() < 15.0, "filled in at {x}");
    }
}
