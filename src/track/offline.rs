//! Offline linking: links the tracklets of a whole recording into the most likely set of
//! trajectories.
//!
//! Zhang et al. 2008 and Leal-Taixé et al. 2016, section 5: a min-cost flow over the tracklets of
//! an online tracker, solved exactly ([`flow`]). The cost of a link increases with the duration of
//! its gap and with the change of motion, size and appearance across the gap; starting a trajectory
//! has a cost too. Gaps are filled afterwards ([`interpolate`]). Positions are corrected for the
//! camera's displacement, which is estimated from the boxes, so that gaps are filled correctly
//! while the camera pans.

use derive_setters::Setters;
use serde::{Deserialize, Serialize};

use crate::geometry::BBox;
use crate::range::{OutOfRange, share, within};
use crate::time::Seconds;
use crate::track::appearance::cosine_distance;
use crate::track::assignment::Candidate;
use crate::track::boxes::{DetectedBox, TrajectoryBox};
use crate::track::camera_motion::{self, CameraMotionConfig, ShiftLists};
use crate::track::config::TrackerConfig;
use crate::track::cost::CostConfig;
use crate::track::flow;
use crate::track::interpolate::{self, InterpolateConfig};
use crate::track::motion::{BoxFilter, MotionConfig};
use crate::track::scenery::{SceneryConfig, Stillness};
use crate::track::shared_ids::SharedIds;

/// Linking of tracklets over a whole recording. Costs are natural logarithms of likelihoods.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Setters)]
#[cfg_attr(feature = "serve", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct OfflineConfig {
    /// Longest gap in seconds that a link may bridge.
    pub max_gap: f64,
    /// Weight of the mismatch in position and velocity across the gap. The mismatch of a perfect
    /// continuation is 0.
    pub motion: f32,
    /// Weight of the mismatch in size across the gap.
    pub size: f32,
    /// Cost per second of the gap.
    pub gap: f32,
    /// Weight of the change of appearance across the gap, where embeddings are known. The
    /// appearance lowers or raises the cost of a link by at most this much.
    pub appearance: f32,
    /// Cosine distance at which the appearance neither lowers nor raises the cost.
    pub appearance_scale: f32,
    /// Links that cost more than this are not made. Higher links more, and joins different people
    /// more often.
    pub new_track: f32,
    /// Trajectories with fewer detections than this are dropped.
    pub min_hits: usize,
    /// Trajectories detected in less than this share, in [0, 1], of the frames that they span are
    /// dropped. Higher drops more false tracks, and more people who are rarely detected.
    pub min_share: f32,
    /// Settings for making the tracklets.
    pub tracklets: TrackletConfig,
    /// Filling of gaps.
    pub fill: InterpolateConfig,
}

/// Settings that replace the online tracker's when its tracks are linked afterwards. The other
/// settings are those of `[tracker]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Setters)]
#[cfg_attr(feature = "serve", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct TrackletConfig {
    /// Replaces `tracker.keep_lost` (seconds). Lower makes shorter tracklets and leaves more to
    /// linking.
    pub keep_lost: f64,
    /// Replaces `tracker.cost.limit`.
    pub limit: f32,
    /// Replaces `tracker.cost.unsure_limit`.
    pub unsure_limit: f32,
    /// Replaces `tracker.cost.absence`.
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
    /// Settings of the online tracker that makes the tracklets.
    pub fn tracker(&self, online: &TrackerConfig) -> TrackerConfig {
        let mut t = online.clone();
        // Short tracks and scenery are removed later, over the whole recording, so a track is
        // confirmed at once. Re-identification still needs the online number of detections.
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
    /// Checks that every value is in its range.
    ///
    /// # Errors
    /// The first value outside its range.
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

/// Costs of position and size, natural logarithms, if the two tracklets differ by detector noise
/// only. They are subtracted, so that such a link costs 0.
const PERFECT_COST: (f32, f32) = (-7.0, -9.5);

/// Consecutive detections of one person. Tracklets share an id if the online tracker re-identified
/// the person.
#[derive(Debug, Clone, PartialEq)]
pub struct Tracklet {
    /// The id from the online tracker.
    pub id: u64,
    /// The detections in order of frames; not empty.
    pub detections: Vec<DetectedBox>,
    /// The mean embedding, a unit vector; empty when unknown.
    pub embedding: Vec<f32>,
}

impl Tracklet {
    fn first(&self) -> &DetectedBox {
        &self.detections[0]
    }

    fn last(&self) -> &DetectedBox {
        &self.detections[self.detections.len() - 1]
    }
}

/// A linked trajectory.
#[derive(Debug, Clone, PartialEq)]
pub struct LinkedTrajectory {
    /// Indices of its tracklets, in order of time.
    pub parts: Vec<usize>,
    /// Boxes in order of frames. Gaps are filled, except where the person left and was
    /// re-identified.
    pub boxes: Vec<TrajectoryBox>,
}

/// Links tracklets into trajectories, ordered by their beginnings, and fills their gaps. `times`
/// holds the presentation time of every frame, ascending; `tracker` supplies the settings of motion
/// and scenery.
pub fn link(
    tracklets: &[Tracklet],
    times: &[Seconds],
    config: &OfflineConfig,
    tracker: &TrackerConfig,
) -> Vec<LinkedTrajectory> {
    let motion = &tracker.motion;
    let camera = camera_path(tracklets, times, motion);
    let mut order: Vec<usize> = (0..tracklets.len()).collect();
    order.sort_by_key(|&t| (tracklets[t].first().frame, tracklets[t].id));
    let shared_ids = SharedIds::of(
        tracklets
            .iter()
            .map(|t| (t.id, t.first().frame, t.last().frame))
            .collect(),
    );
    let mut candidates = links(tracklets, &order, times, &camera, config, motion);
    candidates.retain(|c| shared_ids.allow(c.row, c.column));
    let mut next = vec![None; tracklets.len()];
    let mut is_continued = vec![false; tracklets.len()];
    for (a, b) in flow::solve(
        tracklets.len(),
        tracklets.len(),
        &candidates,
        config.new_track,
    ) {
        next[a] = Some(b);
        is_continued[b] = true;
    }
    let chain =
        |first: usize| std::iter::successors(Some(first), |&t| next[t]).collect::<Vec<usize>>();
    let starts = order.iter().filter(|&&t| !is_continued[t]);
    let detections = |parts: &[usize]| {
        parts
            .iter()
            .flat_map(|&p| tracklets[p].detections.iter().copied())
            .collect::<Vec<DetectedBox>>()
    };
    let chains: Vec<Vec<usize>> = starts
        .map(|&t| chain(t))
        .filter(|parts| is_plausible(&detections(parts), times, config, &tracker.scenery))
        .collect();
    let filled =
        |parts: &Vec<usize>| interpolate::fill(&detections(parts), times, &camera, &config.fill);
    shared_ids
        .join(chains)
        .into_iter()
        .map(|group| LinkedTrajectory {
            boxes: group.iter().flat_map(filled).collect(),
            parts: group.concat(),
        })
        .collect()
}

/// Whether a trajectory has at least the required number and share of detections and is not
/// scenery.
fn is_plausible(
    detections: &[DetectedBox],
    times: &[Seconds],
    config: &OfflineConfig,
    scenery: &SceneryConfig,
) -> bool {
    let (first, last) = (&detections[0], &detections[detections.len() - 1]);
    let span = last.frame - first.frame + 1;
    let stillness = || {
        let start = Stillness::new(first.bbox, first.confidence, times[first.frame]);
        detections[1..].iter().fold(start, |mut stillness, d| {
            stillness.update(d.bbox, d.confidence, times[d.frame], scenery);
            stillness
        })
    };
    detections.len() >= config.min_hits
        && !stillness().is_scenery(times[last.frame], scenery)
        && detections.len() as f32 >= config.min_share * span as f32
}

/// All pairs of tracklets with a gap of at most `max_gap`, with their costs.
fn links(
    tracklets: &[Tracklet],
    order: &[usize],
    times: &[Seconds],
    camera: &[[f32; 2]],
    config: &OfflineConfig,
    motion: &MotionConfig,
) -> Vec<Candidate> {
    let ends: Vec<EndFilters> = tracklets
        .iter()
        .map(|t| EndFilters::of(t, times, camera, motion))
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
            let (place, size) = ends[a].meeting_cost(&ends[b], gap, motion);
            let appearance = cosine_distance(&earlier.embedding, &later.embedding)
                .map_or(0.0, |d| {
                    (d / config.appearance_scale - 1.0).clamp(-1.0, 1.0)
                });
            let cost = config.motion * (place - PERFECT_COST.0)
                + config.size * (size - PERFECT_COST.1)
                + config.gap * gap.f32()
                + config.appearance * appearance;
            links.push(Candidate {
                row: a,
                column: b,
                cost,
            });
        }
    }
    links
}

/// Filters of both ends of a tracklet: run forward to its last and backward to its first detection.
struct EndFilters {
    forward: BoxFilter,
    backward: BoxFilter,
}

impl EndFilters {
    fn of(t: &Tracklet, times: &[Seconds], camera: &[[f32; 2]], motion: &MotionConfig) -> Self {
        let without_camera = |s: &DetectedBox| BBox {
            left: s.bbox.left - camera[s.frame][0],
            top: s.bbox.top - camera[s.frame][1],
            ..s.bbox
        };
        let step = |mut filter: BoxFilter, from: &DetectedBox, to: &DetectedBox| {
            filter.predict(
                Seconds((times[to.frame] - times[from.frame]).0.abs()),
                motion,
            );
            filter.update(without_camera(to), to.confidence, motion);
            filter
        };
        let pairs = || t.detections.windows(2);
        EndFilters {
            forward: pairs().fold(BoxFilter::new(without_camera(t.first()), motion), |f, p| {
                step(f, &p[0], &p[1])
            }),
            backward: pairs()
                .rev()
                .fold(BoxFilter::new(without_camera(t.last()), motion), |f, p| {
                    step(f, &p[1], &p[0])
                }),
        }
    }

    fn meeting_cost(&self, later: &EndFilters, gap: Seconds, motion: &MotionConfig) -> (f32, f32) {
        let mut forward = self.forward.clone();
        forward.predict(gap, motion);
        forward.meeting_cost(&later.backward)
    }
}

/// Displacement in pixels of the camera since the first frame, for each frame: the sum of the
/// shifts that all people's prediction errors have in common.
fn camera_path(tracklets: &[Tracklet], times: &[Seconds], motion: &MotionConfig) -> Vec<[f32; 2]> {
    let mut seen: Vec<Vec<(usize, DetectedBox)>> = vec![Vec::new(); times.len()];
    for (t, tracklet) in tracklets.iter().enumerate() {
        tracklet
            .detections
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
        if let Some(map) = camera_motion::from_boxes(
            &pairs,
            &CameraMotionConfig::default(),
            &mut ShiftLists::default(),
        ) {
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
mod tests;
