//! The tracker of one camera: predict, match, update, create, delete.
//!
//! This tracker extends SORT (Bewley et al. 2016) in three ways: confident detections are matched
//! first and the others after them (ByteTrack, Zhang et al. 2022); boxes are enlarged before their
//! overlap is measured, by one share in the first round and a larger one in the second (C-BIoU,
//! Yang et al. 2023); the cost includes the appearance distance, besides position and size
//! (Leal-Taixé et al. 2016).

use crate::detection::{Detection, Embeddings};
use crate::geometry::{Affine, BBox};
use crate::time::Seconds;
use crate::track::assignment::{Assignment, Candidate};
use crate::track::camera_motion::{self, ShiftLists};
use crate::track::config::TrackerConfig;
use crate::track::pair::{self, FrameDetections, MatchRound};
use crate::track::reidentify::{self, ReidentifyResult};
use crate::track::scenery::Scenery;
use crate::track::similarity::StrangerTable;
use crate::track::track::{EndedTrack, Track, TrackState};
use crate::track::update::{TrackError, TrackOutput, TrackUpdate};
use crate::track::views::Views;

mod predicted;

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
    scenery: Scenery,
    /// Whether the camera's motion since the previous frame has been applied already.
    camera_compensated: bool,
    /// Time at which the camera last moved, estimated from the pixels.
    camera_moved: Option<Seconds>,
    /// The embedder's false-accept rates; `None` disables re-identification.
    strangers: Option<StrangerTable>,
    lists: Lists,
}

/// The lists of an update, kept so that their memory is allocated once. Detections and tracks are
/// stored as indices.
#[derive(Debug, Default)]
struct Lists {
    /// The detections that are not ignored, in an order that does not depend on the caller's order.
    order: Vec<usize>,
    sure: Vec<usize>,
    unsure: Vec<usize>,
    /// For each track, its detection.
    matched: Vec<Option<usize>>,
    /// For each detection, whether it is matched.
    taken: Vec<bool>,
    /// The tracks and detections of a round of matching, and its result.
    tracks: Vec<usize>,
    free: Vec<usize>,
    pairs: Vec<(usize, usize)>,
    /// Boxes of matched people: predicted and detected.
    boxes: Vec<(BBox, BBox)>,
    shift: ShiftLists,
    /// Memory of [`FrameDetections`].
    covered: Vec<f32>,
    /// For each track that was confirmed before the frame, the IoU of its predicted and its
    /// detected box; 0 if it was not detected.
    overlaps: Vec<f32>,
}

impl Tracker {
    /// Creates a tracker without tracks.
    pub fn new(config: TrackerConfig) -> Self {
        Tracker {
            config,
            tracks: Vec::new(),
            now: Seconds::ZERO,
            started: false,
            next_id: 1,
            assignment: Assignment::default(),
            candidates: Vec::new(),
            scenery: Scenery::default(),
            camera_compensated: false,
            camera_moved: None,
            strangers: None,
            lists: Lists::default(),
        }
    }

    /// Enables re-identification (`tracker.reidentify`) with the embedder's false-accept rates.
    pub fn with_strangers(mut self, strangers: Option<StrangerTable>) -> Self {
        self.strangers = strangers;
        self
    }

    /// Processes the detections of the next frame, `elapsed` after the previous one (ignored for
    /// the first).
    ///
    /// # Errors
    /// Fails if a box, a confidence or `elapsed` is invalid; the tracker is then unchanged.
    pub fn update(
        &mut self,
        detections: &[Detection],
        embeddings: &Embeddings,
        elapsed: Seconds,
    ) -> Result<TrackUpdate, TrackError> {
        self.check(detections, elapsed)?;
        let elapsed = self.advance(elapsed);

        let mut lists = std::mem::take(&mut self.lists);
        // A canonical order, so that the result does not depend on the caller's order.
        lists.order.clear();
        lists.order.extend(
            (0..detections.len()).filter(|&i| detections[i].confidence >= self.config.unsure),
        );
        lists
            .order
            .sort_unstable_by(|&a, &b| canonical_order(&detections[a], &detections[b]));
        let covered = std::mem::take(&mut lists.covered);
        let frame = FrameDetections::reusing(covered, detections, embeddings);

        self.compensate_camera(&frame, &mut lists, elapsed);
        self.match_detections(&frame, &mut lists);
        self.update_tracks(&frame, &mut lists);
        self.create(&frame, &lists);
        self.confirm_tracks();
        lists.covered = frame.into_list();
        self.lists = lists;
        let ended = self.delete();
        Ok(TrackUpdate {
            tracks: self.output(TrackState::Confirmed),
            ended,
        })
    }

    /// Ends all tracks, as at the end of a stream.
    pub fn finish(&mut self) -> Vec<EndedTrack> {
        ended(self.tracks.drain(..))
    }

    /// The collected views of a confirmed track.
    pub fn views(&self, id: u64) -> Option<&Views> {
        self.tracks.iter().find(|t| t.id == id).map(|t| &t.views)
    }

    /// The boxes, in the last frame, of all tracks that were detected at most `unseen` before it,
    /// tentative tracks included.
    pub fn boxes(&self, unseen: Seconds) -> impl Iterator<Item = BBox> + '_ {
        let recent = move |t: &&Track| (self.now - t.seen).0 <= unseen.0;
        self.tracks.iter().filter(recent).map(Track::bbox)
    }

    /// The settings.
    pub fn config(&self) -> &TrackerConfig {
        &self.config
    }

    /// Number of tracks confirmed so far.
    pub fn confirmed(&self) -> u64 {
        self.next_id - 1
    }

    fn check(&self, detections: &[Detection], elapsed: Seconds) -> Result<(), TrackError> {
        for (index, d) in detections.iter().enumerate() {
            if !d.bbox.is_valid() || !(0.0..=1.0).contains(&d.confidence) {
                return Err(TrackError::InvalidDetection {
                    index,
                    detection: *d,
                });
            }
        }
        if self.started && !(elapsed.0.is_finite() && elapsed.0 > 0.0) {
            return Err(TrackError::InvalidElapsed(elapsed));
        }
        Ok(())
    }

    /// Predict: advances the clock and every track to the next frame. Returns the time elapsed:
    /// zero at the first frame.
    fn advance(&mut self, elapsed: Seconds) -> Seconds {
        let elapsed = if self.started { elapsed } else { Seconds::ZERO };
        self.started = true;
        self.now = self.now + elapsed;
        for t in &mut self.tracks {
            t.filter.predict(elapsed, &self.config.motion);
        }
        elapsed
    }

    /// Compensates camera motion with the displacement that all people have in common.
    fn compensate_camera(
        &mut self,
        frame: &FrameDetections<'_>,
        lists: &mut Lists,
        elapsed: Seconds,
    ) {
        let known = std::mem::take(&mut self.camera_compensated);
        if known || !self.config.camera_motion.from_boxes || elapsed.0 <= 0.0 {
            return;
        }
        let confirmed = |&t: &usize| self.tracks[t].state == TrackState::Confirmed;
        replace(&mut lists.tracks, (0..self.tracks.len()).filter(confirmed));
        let sure = |&d: &usize| frame.detections[d].confidence >= self.config.sure;
        replace(&mut lists.free, lists.order.iter().copied().filter(sure));
        let round = MatchRound {
            buffer: self.config.cost.second_buffer,
            limit: self.config.cost.limit,
        };
        self.solve(frame, lists, round);
        let boxes = lists
            .pairs
            .iter()
            .map(|&(t, d)| (self.tracks[t].bbox(), frame.detections[d].bbox));
        replace(&mut lists.boxes, boxes);
        let config = &self.config.camera_motion;
        if let Some(map) = camera_motion::from_boxes(&lists.boxes, config, &mut lists.shift) {
            self.warp(&map);
        }
    }

    /// Applies the camera's motion since the previous frame, estimated from the pixels. Call it
    /// before the update.
    pub fn apply_camera_motion(&mut self, map: &Affine) {
        self.camera_compensated = true;
        self.camera_moved = Some(self.now);
        self.warp(map);
    }

    fn warp(&mut self, map: &Affine) {
        for t in &mut self.tracks {
            t.filter.warp(map);
        }
    }

    /// Match: first, in two rounds, confident detections with confirmed and lost tracks; then the
    /// other detections with tracks detected in the previous frame; then the remaining confident
    /// detections with tentative tracks. Writes each track's detection to `lists.matched`.
    fn match_detections(&mut self, frame: &FrameDetections<'_>, lists: &mut Lists) {
        let (sure_from, cost) = (self.config.sure, &self.config.cost);
        let first = MatchRound {
            buffer: cost.buffer,
            limit: cost.limit,
        };
        let second = MatchRound {
            buffer: cost.second_buffer,
            ..first
        };
        let unsure_round = MatchRound {
            limit: cost.unsure_limit,
            ..first
        };
        let (now, keep_lost) = (self.now, self.config.keep_lost);
        let confirmed_or_lost =
            move |t: &Track| t.state != TrackState::Tentative && (now - t.seen).0 <= keep_lost;
        let is_sure = |d: &usize| frame.detections[*d].confidence >= sure_from;
        let order = lists.order.iter().copied();
        replace(&mut lists.sure, order.clone().filter(is_sure));
        replace(&mut lists.unsure, order.filter(|d| !is_sure(d)));
        type Eligible<'a> = &'a dyn Fn(&Track) -> bool;
        let rounds: [(bool, MatchRound, Eligible<'_>); 4] = [
            (true, first, &confirmed_or_lost),
            (true, second, &confirmed_or_lost),
            (false, unsure_round, &|t| t.state == TrackState::Confirmed),
            (true, first, &|t| t.state == TrackState::Tentative),
        ];
        replace(&mut lists.matched, self.tracks.iter().map(|_| None));
        replace(&mut lists.taken, frame.detections.iter().map(|_| false));
        for (sure, round, eligible) in rounds {
            let (matched, taken) = (&lists.matched, &lists.taken);
            let unmatched = |&t: &usize| matched[t].is_none() && eligible(&self.tracks[t]);
            replace(&mut lists.tracks, (0..self.tracks.len()).filter(unmatched));
            let detections = if sure { &lists.sure } else { &lists.unsure };
            let free = detections.iter().copied().filter(|&d| !taken[d]);
            replace(&mut lists.free, free);
            self.solve(frame, lists, round);
            for &(t, d) in &lists.pairs {
                lists.matched[t] = Some(d);
                lists.taken[d] = true;
            }
        }
    }

    /// The optimal pairs of the round's tracks and free detections.
    fn solve(&mut self, frame: &FrameDetections<'_>, lists: &mut Lists, round: MatchRound) {
        let Lists {
            tracks,
            free,
            pairs,
            ..
        } = lists;
        pairs.clear();
        if tracks.is_empty() || free.is_empty() {
            return;
        }
        self.candidates.clear();
        for (row, &t) in tracks.iter().enumerate() {
            let track = &self.tracks[t];
            for (column, &d) in free.iter().enumerate() {
                if let Some(cost) = pair::cost(track, frame, d, round, self.now, &self.config) {
                    self.candidates.push(Candidate { row, column, cost });
                }
            }
        }
        let (candidates, limit) = (&self.candidates, round.limit);
        self.assignment
            .solve_into(pairs, tracks.len(), free.len(), candidates, limit);
        for (row, column) in pairs {
            (*row, *column) = (tracks[*row], free[*column]);
        }
    }

    /// Update: corrects matched tracks with their detections; confirmed tracks without a detection
    /// become lost.
    fn update_tracks(&mut self, frame: &FrameDetections<'_>, lists: &mut Lists) {
        lists.overlaps.clear();
        for (t, &d) in self.tracks.iter_mut().zip(&lists.matched) {
            (t.view, t.detection) = (None, d);
            if t.state == TrackState::Confirmed {
                let overlap = |d: usize| t.bbox().iou(&frame.detections[d].bbox);
                lists.overlaps.push(d.map_or(0.0, overlap));
            }
            let Some(d) = d else {
                if t.state == TrackState::Confirmed {
                    t.state = TrackState::Lost;
                }
                continue;
            };
            t.update(
                frame.detections[d],
                self.now,
                &self.config.motion,
                &self.config.scenery,
            );
            if t.state == TrackState::Lost {
                t.state = TrackState::Confirmed;
            }
            frame.learn_appearance(t, d, &self.config.appearance);
            if t.stillness.is_scenery(self.now, &self.config.scenery) {
                t.scenery = true;
                self.scenery.remember(t.last.bbox, self.now);
            } else {
                t.scenery &= self.scenery.contains(&t.last.bbox);
            }
        }
        self.scenery.remove_expired(self.now, &self.config.scenery);
    }

    /// Create: each unmatched detection with a confidence of at least `tracker.birth` starts a
    /// tentative track, unless it is a duplicate (`tracker.duplicate`).
    fn create(&mut self, frame: &FrameDetections<'_>, lists: &Lists) {
        let seen = |b: &BBox| {
            let mut matched = lists.matched.iter().flatten();
            matched.any(|&d| frame.detections[d].bbox.iou(b) > self.config.duplicate)
        };
        for &d in lists.order.iter().filter(|&&d| !lists.taken[d]) {
            let detection = frame.detections[d];
            if detection.confidence < self.config.birth || seen(&detection.bbox) {
                continue;
            }
            let mut track = Track::new(detection, self.now, &self.config.motion);
            track.detection = Some(d);
            track.scenery = self.scenery.contains(&detection.bbox);
            frame.learn_appearance(&mut track, d, &self.config.appearance);
            self.tracks.push(track);
        }
    }

    /// Confirm: a tentative track with enough detections gets a new id, or the id of the lost track
    /// that it continues.
    fn confirm_tracks(&mut self) {
        for t in 0..self.tracks.len() {
            let track = &self.tracks[t];
            if track.state != TrackState::Tentative
                || track.scenery
                || track.hits < self.config.confirm_hits
                || track.seen != self.now
            {
                continue;
            }
            let compare = |strangers| {
                reidentify::compare_with_lost(
                    track,
                    &self.tracks,
                    strangers,
                    &self.config.reidentify,
                )
            };
            match self
                .strangers
                .as_ref()
                .filter(|_| self.config.reidentify.within > 0.0)
                .map_or(ReidentifyResult::NewPerson, compare)
            {
                ReidentifyResult::LostPerson(lost) => {
                    let old = self.tracks[lost].take_identity();
                    self.tracks[t].resume(old);
                }
                ReidentifyResult::NewPerson => self.tracks[t].confirm(&mut self.next_id),
                ReidentifyResult::Undecided => {}
            }
        }
        self.tracks.retain(|t| !t.is_merged());
    }

    /// Delete: ends tracks whose last detection is too long ago.
    fn delete(&mut self) -> Vec<EndedTrack> {
        let (now, config) = (self.now, &self.config);
        let can_be_reidentified = |t: &Track| self.strangers.is_some() && !t.views.is_empty();
        let keep = |t: &Track| {
            let allowed = match t.state {
                TrackState::Tentative => config.keep_tentative,
                // A track that can be re-identified is kept for longer, until `reidentify.within`.
                _ if can_be_reidentified(t) => config.keep_lost.max(config.reidentify.within),
                _ => config.keep_lost,
            };
            (now - t.seen).0 <= allowed
        };
        ended(self.tracks.extract_if(.., |t| !keep(t)))
    }

    /// The tracks that are reported. `confirmed`: the state in which confirmed tracks are reported.
    fn output(&self, confirmed: TrackState) -> Vec<TrackOutput> {
        let mut tracks = Vec::with_capacity(self.tracks.len());
        let shown = self
            .tracks
            .iter()
            .filter(|t| {
                t.state != TrackState::Tentative
                    && !t.scenery
                    && (self.now - t.seen).0 <= self.config.keep_lost
            })
            .map(|t| TrackOutput {
                id: t.id,
                state: match t.state {
                    TrackState::Confirmed => confirmed,
                    state => state,
                },
                bbox: match t.detection {
                    Some(_) => t.last.bbox,
                    None => t.bbox(),
                },
                confidence: t.last.confidence,
                age: self.now - t.born,
                unseen: self.now - t.seen,
                hits: t.hits,
                velocity: t.filter.velocity(),
                detection: t.detection,
                view: t.view,
                identity: None,
            });
        tracks.extend(shown);
        tracks.sort_unstable_by_key(|t| t.id);
        tracks
    }
}

/// Replaces a list's contents.
fn replace<T>(list: &mut Vec<T>, with: impl Iterator<Item = T>) {
    list.clear();
    list.extend(with);
}

/// Summaries of those tracks that were confirmed, sorted by id.
fn ended(tracks: impl Iterator<Item = Track>) -> Vec<EndedTrack> {
    let mut ended: Vec<EndedTrack> = tracks.filter(|t| t.id != 0).map(EndedTrack::from).collect();
    ended.sort_by_key(|t| t.id);
    ended
}

fn canonical_order(a: &Detection, b: &Detection) -> std::cmp::Ordering {
    let key = |d: &Detection| {
        [
            d.bbox.left,
            d.bbox.top,
            d.bbox.width,
            d.bbox.height,
            d.confidence,
        ]
    };
    let (a, b) = (key(a), key(b));
    a.iter()
        .zip(&b)
        .map(|(x, y)| x.total_cmp(y))
        .find(|o| o.is_ne())
        .unwrap_or(std::cmp::Ordering::Equal)
}
