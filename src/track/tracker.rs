//! The tracker of one camera: predict, match, update, create, delete.
//!
//! The frame of the method is SORT's (Bewley et al. 2016) with two rounds of matching, sure detections first and unsure
//! ones after (Zhang et al. 2022, ByteTrack), overlap of grown boxes looked at twice (Yang et al. 2023, C-BIoU), and
//! appearance distance beside position and size in the cost (Leal-Taixé et al. 2016).

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::detection::{Detection, Embeddings};
use crate::geometry::{Affine, BBox};
use crate::range::{OutOfRange, share, within};
use crate::time::Seconds;
use crate::track::appearance::AppearanceConfig;
use crate::track::assignment::{Assignment, Candidate};
use crate::track::camera_motion::{self, CameraMotionConfig};
use crate::track::cost::{self, CostConfig};
use crate::track::motion::MotionConfig;
use crate::track::track::{EndedTrack, Track, TrackState};

/// Everything that decides identities. Times are in seconds, so any frame rate works with one setting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrackerConfig {
    /// Detections from this confidence on are sure: matched first, and able to start a track. In [0, 1].
    pub sure: f32,
    /// Detections below this confidence are ignored; those between it and `sure` only continue tracks. In [0, 1].
    pub unsure: f32,
    /// A new track needs a detection at least this confident. Higher starts fewer false tracks, later.
    pub birth: f32,
    /// Detections a track needs before it is believed and shown. Higher shows fewer false tracks, later.
    pub confirm_hits: u32,
    /// A track not yet believed is dropped when unseen for this long, seconds.
    pub keep_tentative: f64,
    /// A believed track is kept, unseen, for this long, seconds. Higher bridges longer occlusions, but may give an old
    /// identity to a newcomer.
    pub keep_lost: f64,
    /// A detection that overlaps a track seen in this frame by more than this IoU starts no new track, in (0, 1].
    pub duplicate: f32,
    /// Motion of people.
    pub motion: MotionConfig,
    /// The association cost.
    pub cost: CostConfig,
    /// Memory of appearance.
    pub appearance: AppearanceConfig,
    /// Motion of the camera.
    pub camera_motion: CameraMotionConfig,
}

impl Default for TrackerConfig {
    fn default() -> Self {
        TrackerConfig {
            sure: 0.5,
            unsure: 0.25,
            birth: 0.5,
            confirm_hits: 2,
            keep_tentative: 0.25,
            keep_lost: 2.0,
            duplicate: 0.7,
            motion: MotionConfig::default(),
            cost: CostConfig::default(),
            appearance: AppearanceConfig::default(),
            camera_motion: CameraMotionConfig::default(),
        }
    }
}

impl TrackerConfig {
    /// Refuses values outside their ranges.
    ///
    /// # Errors
    /// The first such value.
    pub fn validate(&self) -> Result<(), OutOfRange> {
        share("tracker.unsure", self.unsure)?;
        within("tracker.sure", self.sure, self.unsure, 1.0)?;
        within("tracker.birth", self.birth, self.sure, 1.0)?;
        within("tracker.confirm_hits", self.confirm_hits, 1, 100)?;
        within("tracker.keep_tentative", self.keep_tentative, 0.0, 60.0)?;
        within("tracker.keep_lost", self.keep_lost, 0.0, 3600.0)?;
        share("tracker.duplicate", self.duplicate)?;
        self.motion.validate()?;
        self.cost.validate()?;
        self.appearance.validate()?;
        within("tracker.camera_motion.min_people", self.camera_motion.min_people, 2, 1000)
    }
}

/// Why an update was refused. The tracker is as it was before.
#[derive(Debug, Error, PartialEq)]
pub enum TrackError {
    /// A detection's box has a NaN, an infinity or a side that is not longer than zero, or its confidence is not in [0, 1].
    #[error("detection {index} is not a box with a confidence in [0, 1]: left {left}, top {top}, width {width}, height {height}, confidence {confidence}", left = .detection.bbox.left, top = .detection.bbox.top, width = .detection.bbox.width, height = .detection.bbox.height, confidence = .detection.confidence)]
    InvalidDetection {
        /// Its place in the list given.
        index: usize,
        /// The detection itself.
        detection: Detection,
    },
    /// Time stood still or ran backwards.
    #[error("elapsed time must be finite and above zero after the first frame, not {0}")]
    InvalidElapsed(Seconds),
}

/// A believed track after a frame.
#[derive(Debug, Clone, PartialEq)]
pub struct TrackOutput {
    /// Unique within the run.
    pub id: u64,
    /// Confirmed (seen in this frame) or lost.
    pub state: TrackState,
    /// The detection's box when seen, the predicted one when lost; pixels.
    pub bbox: BBox,
    /// Confidence of its last detection, in [0, 1].
    pub confidence: f32,
    /// Time since its first detection.
    pub age: Seconds,
    /// How many detections it has had.
    pub hits: u32,
    /// Velocity of the centre, pixels per second.
    pub velocity: (f32, f32),
}

/// What a frame did to the tracks.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TrackUpdate {
    /// All believed tracks, seen and lost, by id.
    pub tracks: Vec<TrackOutput>,
    /// Believed tracks that ended with this frame, by id.
    pub ended: Vec<EndedTrack>,
}

/// The tracks of one camera.
#[derive(Debug)]
pub struct Tracker {
    config: TrackerConfig,
    tracks: Vec<Track>,
    now: Seconds,
    started: bool,
    next_id: u64,
    assignment: Assignment,
    candidates: Vec<Candidate>,
}

impl Tracker {
    /// A tracker that has seen nothing yet.
    pub fn new(config: TrackerConfig) -> Self {
        Tracker { config, tracks: Vec::new(), now: Seconds::ZERO, started: false, next_id: 1, assignment: Assignment::default(), candidates: Vec::new() }
    }

    /// Takes the detections of the next frame, `elapsed` after the one before (ignored for the first).
    ///
    /// # Errors
    /// When a box or a confidence is invalid, or when time does not go forward. Nothing has changed then.
    pub fn update(&mut self, detections: &[Detection], embeddings: &Embeddings, elapsed: Seconds) -> Result<TrackUpdate, TrackError> {
        self.check(detections, elapsed)?;
        let elapsed = if self.started { elapsed } else { Seconds::ZERO };
        self.started = true;
        self.now = self.now + elapsed;

        // Detections in an order of their own, so that the caller's order has no say.
        let mut order: Vec<usize> = (0..detections.len()).filter(|&i| detections[i].confidence >= self.config.unsure).collect();
        order.sort_by(|&a, &b| canonical(&detections[a], &detections[b]));
        let frame = Observed { detections, embeddings, covered: covered(detections) };

        self.predict(elapsed);
        self.compensate_camera(&frame, &order, elapsed);
        let matched = self.match_all(&frame, &order);
        self.see(&frame, &matched);
        self.create(&frame, &order, &matched);
        let ended = self.delete();
        Ok(TrackUpdate { tracks: self.output(), ended })
    }

    /// Ends every track, as when the stream ends.
    pub fn finish(&mut self) -> Vec<EndedTrack> {
        ended(self.tracks.drain(..))
    }

    /// How many tracks have been confirmed so far.
    pub fn confirmed(&self) -> u64 {
        self.next_id - 1
    }

    fn check(&self, detections: &[Detection], elapsed: Seconds) -> Result<(), TrackError> {
        for (index, d) in detections.iter().enumerate() {
            if !d.bbox.is_valid() || !(0.0..=1.0).contains(&d.confidence) {
                return Err(TrackError::InvalidDetection { index, detection: *d });
            }
        }
        if self.started && !(elapsed.0.is_finite() && elapsed.0 > 0.0) {
            return Err(TrackError::InvalidElapsed(elapsed));
        }
        Ok(())
    }

    /// Predict: every track moves to where its person should be now.
    fn predict(&mut self, elapsed: Seconds) {
        for t in &mut self.tracks {
            t.filter.predict(elapsed, &self.config.motion);
        }
    }

    /// Tracks move with the camera, as far as the people all moved alike.
    fn compensate_camera(&mut self, frame: &Observed<'_>, order: &[usize], elapsed: Seconds) {
        if !self.config.camera_motion.from_boxes || elapsed.0 <= 0.0 {
            return;
        }
        let tracks: Vec<usize> = (0..self.tracks.len()).filter(|&t| self.tracks[t].state == TrackState::Confirmed).collect();
        let sure: Vec<usize> = order.iter().copied().filter(|&d| frame.detections[d].confidence >= self.config.sure).collect();
        let pairs = self.solve(frame, &tracks, &sure, Look { buffer: self.config.cost.second_buffer, limit: self.config.cost.limit });
        let boxes: Vec<(BBox, BBox)> = pairs.iter().map(|&(t, d)| (self.tracks[t].bbox(), frame.detections[d].bbox)).collect();
        if let Some(map) = camera_motion::from_boxes(&boxes, &self.config.camera_motion) {
            self.warp(&map);
        }
    }

    /// Moves every track by what the camera did since the frame before.
    fn warp(&mut self, map: &Affine) {
        for t in &mut self.tracks {
            t.filter.warp(map);
        }
    }

    /// Match: sure detections to all tracks, looked at twice, then unsure ones to the tracks still seen a moment ago.
    /// Returns for each track its detection.
    fn match_all(&mut self, frame: &Observed<'_>, order: &[usize]) -> Vec<Option<usize>> {
        let (sure_from, cost) = (self.config.sure, self.config.cost.clone());
        let mut matched = vec![None; self.tracks.len()];
        let mut taken = vec![false; frame.detections.len()];
        let (sure, unsure): (Vec<usize>, Vec<usize>) = order.iter().partition(|&&d| frame.detections[d].confidence >= sure_from);
        let believed = |t: &Track| t.state != TrackState::Tentative;
        type Eligible = fn(&Track) -> bool;
        let rounds: [(&[usize], Look, Eligible); 4] = [
            (&sure, Look { buffer: cost.buffer, limit: cost.limit }, believed),
            (&sure, Look { buffer: cost.second_buffer, limit: cost.limit }, believed),
            (&unsure, Look { buffer: cost.buffer, limit: cost.unsure_limit }, |t| t.state == TrackState::Confirmed),
            (&sure, Look { buffer: cost.buffer, limit: cost.limit }, |t| t.state == TrackState::Tentative),
        ];
        for (detections, look, eligible) in rounds {
            let tracks: Vec<usize> = (0..self.tracks.len()).filter(|&t| matched[t].is_none() && eligible(&self.tracks[t])).collect();
            let free: Vec<usize> = detections.iter().copied().filter(|&d| !taken[d]).collect();
            for (t, d) in self.solve(frame, &tracks, &free, look) {
                matched[t] = Some(d);
                taken[d] = true;
            }
        }
        matched
    }

    /// The optimal pairs of the given tracks and detections.
    fn solve(&mut self, frame: &Observed<'_>, tracks: &[usize], detections: &[usize], look: Look) -> Vec<(usize, usize)> {
        self.candidates.clear();
        for (row, &t) in tracks.iter().enumerate() {
            let track = &self.tracks[t];
            for (column, &d) in detections.iter().enumerate() {
                if let Some(cost) = pair_cost(track, frame, d, look, self.now, &self.config.cost) {
                    self.candidates.push(Candidate { row, column, cost });
                }
            }
        }
        let pairs = self.assignment.solve(tracks.len(), detections.len(), &self.candidates, look.limit);
        pairs.into_iter().map(|(row, column)| (tracks[row], detections[column])).collect()
    }

    /// Update: every matched track takes its detection, and is believed once it has had enough of them.
    fn see(&mut self, frame: &Observed<'_>, matched: &[Option<usize>]) {
        for (t, &d) in self.tracks.iter_mut().zip(matched) {
            let Some(d) = d else {
                if t.state == TrackState::Confirmed {
                    t.state = TrackState::Lost;
                }
                continue;
            };
            t.see(frame.detections[d], self.now, &self.config.motion);
            if t.state == TrackState::Lost {
                t.state = TrackState::Confirmed;
            } else if t.state == TrackState::Tentative && t.hits >= self.config.confirm_hits {
                t.confirm(&mut self.next_id);
            }
            frame.teach(t, d, &self.config.appearance);
        }
    }

    /// Create: sure detections that nobody took start tentative tracks.
    fn create(&mut self, frame: &Observed<'_>, order: &[usize], matched: &[Option<usize>]) {
        let seen: Vec<BBox> = matched.iter().flatten().map(|&d| frame.detections[d].bbox).collect();
        for &d in order.iter().filter(|&d| !matched.contains(&Some(*d))) {
            let detection = frame.detections[d];
            if detection.confidence < self.config.birth || seen.iter().any(|b| b.iou(&detection.bbox) > self.config.duplicate) {
                continue;
            }
            let mut track = Track::new(detection, self.now, &self.config.motion);
            frame.teach(&mut track, d, &self.config.appearance);
            if self.config.confirm_hits <= 1 {
                track.confirm(&mut self.next_id);
            }
            self.tracks.push(track);
        }
    }

    /// Delete: tracks unseen for too long end.
    fn delete(&mut self) -> Vec<EndedTrack> {
        let (now, config) = (self.now, &self.config);
        let keep = |t: &Track| {
            let allowed = if t.state == TrackState::Tentative { config.keep_tentative } else { config.keep_lost };
            (now - t.seen).0 <= allowed
        };
        ended(self.tracks.extract_if(.., |t| !keep(t)))
    }

    fn output(&self) -> Vec<TrackOutput> {
        let mut tracks: Vec<TrackOutput> = self
            .tracks
            .iter()
            .filter(|t| t.state != TrackState::Tentative)
            .map(|t| TrackOutput {
                id: t.id,
                state: t.state,
                bbox: if t.state == TrackState::Confirmed { t.last.bbox } else { t.bbox() },
                confidence: t.last.confidence,
                age: self.now - t.born,
                hits: t.hits,
                velocity: t.filter.velocity(),
            })
            .collect();
        tracks.sort_by_key(|t| t.id);
        tracks
    }
}

/// What remains of the believed ones among these tracks, by id.
fn ended(tracks: impl Iterator<Item = Track>) -> Vec<EndedTrack> {
    let mut ended: Vec<EndedTrack> = tracks.filter(|t| t.id != 0).map(EndedTrack::from).collect();
    ended.sort_by_key(|t| t.id);
    ended
}

/// How one round of matching looks: how far boxes are grown, and what a pair may cost.
#[derive(Debug, Clone, Copy)]
struct Look {
    buffer: f32,
    limit: f32,
}

/// A frame's detections with what is known of each.
struct Observed<'a> {
    detections: &'a [Detection],
    embeddings: &'a Embeddings,
    /// For each detection the greatest share of it that a person in front covers.
    covered: Vec<f32>,
}

impl Observed<'_> {
    /// Lets a track learn the appearance of its detection, where the view is clear.
    fn teach(&self, track: &mut Track, detection: usize, config: &AppearanceConfig) {
        let clear = self.covered[detection] <= config.max_covered && self.detections[detection].confidence >= config.min_confidence;
        if let (true, Some(view)) = (clear, self.embeddings.get(detection)) {
            track.appearance.learn(view, config);
        }
    }
}

/// The cost of taking detection `d` for the track's person; `None` where the boxes, grown, do not touch.
fn pair_cost(track: &Track, frame: &Observed<'_>, d: usize, look: Look, now: Seconds, config: &CostConfig) -> Option<f32> {
    let (predicted, detected) = (track.bbox(), frame.detections[d].bbox);
    let overlap = cost::overlap(&predicted, &detected, look.buffer);
    if overlap >= 1.0 {
        return None;
    }
    let mut total = config.overlap * overlap
        + config.position * cost::position(&predicted, &detected)
        + config.size * cost::size(&predicted, &detected)
        + config.absence * (now - track.seen).f32();
    if let Some(distance) = frame.embeddings.get(d).and_then(|view| track.appearance.distance(view)) {
        // Centred on the boundary between same and different: a likeness pulls the pair together, a difference apart.
        total += config.appearance * (cost::appearance(distance, config.appearance_scale) - 0.5);
    }
    Some(total)
}

/// For each detection the greatest share of it that another, standing nearer to the camera (lower foot), covers.
fn covered(detections: &[Detection]) -> Vec<f32> {
    let share = |a: &Detection, b: &Detection| if b.bbox.bottom() > a.bbox.bottom() { a.bbox.covered_by(&b.bbox) } else { 0.0 };
    detections.iter().map(|a| detections.iter().map(|b| share(a, b)).fold(0.0, f32::max)).collect()
}

fn canonical(a: &Detection, b: &Detection) -> std::cmp::Ordering {
    let key = |d: &Detection| [d.bbox.left, d.bbox.top, d.bbox.width, d.bbox.height, d.confidence];
    let (a, b) = (key(a), key(b));
    a.iter().zip(&b).map(|(x, y)| x.total_cmp(y)).find(|o| o.is_ne()).unwrap_or(std::cmp::Ordering::Equal)
}
