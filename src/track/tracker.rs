//! The tracker of one camera: predict, match, update, create, delete.
//!
//! The frame of the method is SORT's (Bewley et al. 2016) with two rounds of matching, sure detections first and unsure
//! ones after (Zhang et al. 2022, ByteTrack), overlap of grown boxes looked at twice (Yang et al. 2023, C-BIoU), and
//! appearance distance beside position and size in the cost (Leal-Taixé et al. 2016).

use thiserror::Error;

use crate::detection::{Detection, Embeddings};
use crate::geometry::{Affine, BBox};
use crate::time::Seconds;
use crate::track::assignment::{Assignment, Candidate};
use crate::track::camera_motion;
use crate::track::config::TrackerConfig;
use crate::track::identity::Identity;
use crate::track::pair::{self, Look, Observed};
use crate::track::reidentify::{self, Newcomer};
use crate::track::scenery::Scenery;
use crate::track::similarity::Strangers;
use crate::track::track::{EndedTrack, Track, TrackState, View};
use crate::track::views::Views;

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
    /// Time since its last detection; zero when seen in this frame.
    pub unseen: Seconds,
    /// How many detections it has had.
    pub hits: u32,
    /// Velocity of the centre, pixels per second.
    pub velocity: (f32, f32),
    /// Its view in this frame, when it is a clear one.
    pub view: Option<View>,
    /// Who this is beyond the track, where [`crate::track::identity`] has said so.
    pub identity: Option<Identity>,
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
    scenery: Scenery,
    /// The camera's motion since the frame before has been told.
    camera_known: bool,
    /// How often strangers are alike to the embedder; `None`: nobody is known again by looks.
    strangers: Option<Strangers>,
}

impl Tracker {
    /// A tracker that has seen nothing yet.
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
            camera_known: false,
            strangers: None,
        }
    }

    /// Knows people again by looks, given how often strangers are alike to the embedder (`tracker.reidentify`).
    pub fn knowing(mut self, strangers: Option<Strangers>) -> Self {
        self.strangers = strangers;
        self
    }

    /// Takes the detections of the next frame, `elapsed` after the one before (ignored for the first).
    ///
    /// # Errors
    /// When a box or a confidence is invalid, or when time does not go forward. Nothing has changed then.
    pub fn update(
        &mut self,
        detections: &[Detection],
        embeddings: &Embeddings,
        elapsed: Seconds,
    ) -> Result<TrackUpdate, TrackError> {
        self.check(detections, elapsed)?;
        let elapsed = if self.started { elapsed } else { Seconds::ZERO };
        self.started = true;
        self.now = self.now + elapsed;

        // Detections in an order of their own, so that the caller's order has no say.
        let mut order = Vec::with_capacity(detections.len());
        order.extend(
            (0..detections.len()).filter(|&i| detections[i].confidence >= self.config.unsure),
        );
        order.sort_unstable_by(|&a, &b| canonical(&detections[a], &detections[b]));
        let frame = Observed::new(detections, embeddings);

        self.predict(elapsed);
        self.compensate_camera(&frame, &order, elapsed);
        let matched = self.match_all(&frame, &order);
        self.see(&frame, &matched);
        self.create(&frame, &order, &matched);
        self.believe();
        let ended = self.delete();
        Ok(TrackUpdate {
            tracks: self.output(),
            ended,
        })
    }

    /// Ends every track, as when the stream ends.
    pub fn finish(&mut self) -> Vec<EndedTrack> {
        ended(self.tracks.drain(..))
    }

    /// Some views of a believed track.
    pub fn views(&self, id: u64) -> Option<&Views> {
        self.tracks.iter().find(|t| t.id == id).map(|t| &t.views)
    }

    /// Its settings.
    pub fn config(&self) -> &TrackerConfig {
        &self.config
    }

    /// How many tracks have been confirmed so far.
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

    /// Predict: every track moves to where its person should be now.
    fn predict(&mut self, elapsed: Seconds) {
        for t in &mut self.tracks {
            t.filter.predict(elapsed, &self.config.motion);
        }
    }

    /// Tracks move with the camera, as far as the people all moved alike.
    fn compensate_camera(&mut self, frame: &Observed<'_>, order: &[usize], elapsed: Seconds) {
        let known = std::mem::take(&mut self.camera_known);
        if known || !self.config.camera_motion.from_boxes || elapsed.0 <= 0.0 {
            return;
        }
        let tracks: Vec<usize> = (0..self.tracks.len())
            .filter(|&t| self.tracks[t].state == TrackState::Confirmed)
            .collect();
        let sure: Vec<usize> = order
            .iter()
            .copied()
            .filter(|&d| frame.detections[d].confidence >= self.config.sure)
            .collect();
        let pairs = self.solve(
            frame,
            &tracks,
            &sure,
            Look {
                buffer: self.config.cost.second_buffer,
                limit: self.config.cost.limit,
            },
        );
        let boxes: Vec<(BBox, BBox)> = pairs
            .iter()
            .map(|&(t, d)| (self.tracks[t].bbox(), frame.detections[d].bbox))
            .collect();
        if let Some(map) = camera_motion::from_boxes(&boxes, &self.config.camera_motion) {
            self.warp(&map);
        }
    }

    /// Tells what the camera did since the frame before, where that is known (from the pixels); before the update.
    pub fn camera_moved(&mut self, map: &Affine) {
        self.camera_known = true;
        self.warp(map);
    }

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
        let (sure, unsure): (Vec<usize>, Vec<usize>) = order
            .iter()
            .partition(|&&d| frame.detections[d].confidence >= sure_from);
        let (now, keep_lost) = (self.now, self.config.keep_lost);
        let believed =
            move |t: &Track| t.state != TrackState::Tentative && (now - t.seen).0 <= keep_lost;
        type Eligible<'a> = &'a dyn Fn(&Track) -> bool;
        let rounds: [(&[usize], Look, Eligible<'_>); 4] = [
            (
                &sure,
                Look {
                    buffer: cost.buffer,
                    limit: cost.limit,
                },
                &believed,
            ),
            (
                &sure,
                Look {
                    buffer: cost.second_buffer,
                    limit: cost.limit,
                },
                &believed,
            ),
            (
                &unsure,
                Look {
                    buffer: cost.buffer,
                    limit: cost.unsure_limit,
                },
                &|t| t.state == TrackState::Confirmed,
            ),
            (
                &sure,
                Look {
                    buffer: cost.buffer,
                    limit: cost.limit,
                },
                &|t| t.state == TrackState::Tentative,
            ),
        ];
        let (mut tracks, mut free) = (
            Vec::with_capacity(self.tracks.len()),
            Vec::with_capacity(order.len()),
        );
        for (detections, look, eligible) in rounds {
            tracks.clear();
            tracks.extend(
                (0..self.tracks.len())
                    .filter(|&t| matched[t].is_none() && eligible(&self.tracks[t])),
            );
            free.clear();
            free.extend(detections.iter().copied().filter(|&d| !taken[d]));
            for (t, d) in self.solve(frame, &tracks, &free, look) {
                matched[t] = Some(d);
                taken[d] = true;
            }
        }
        matched
    }

    /// The optimal pairs of the given tracks and detections.
    fn solve(
        &mut self,
        frame: &Observed<'_>,
        tracks: &[usize],
        detections: &[usize],
        look: Look,
    ) -> Vec<(usize, usize)> {
        if tracks.is_empty() || detections.is_empty() {
            return Vec::new();
        }
        self.candidates.clear();
        for (row, &t) in tracks.iter().enumerate() {
            let track = &self.tracks[t];
            for (column, &d) in detections.iter().enumerate() {
                if let Some(cost) = pair::cost(track, frame, d, look, self.now, &self.config) {
                    self.candidates.push(Candidate { row, column, cost });
                }
            }
        }
        let pairs =
            self.assignment
                .solve(tracks.len(), detections.len(), &self.candidates, look.limit);
        pairs
            .into_iter()
            .map(|(row, column)| (tracks[row], detections[column]))
            .collect()
    }

    /// Update: every matched track takes its detection, and is believed once it has had enough of them.
    fn see(&mut self, frame: &Observed<'_>, matched: &[Option<usize>]) {
        for (t, &d) in self.tracks.iter_mut().zip(matched) {
            t.view = None;
            let Some(d) = d else {
                if t.state == TrackState::Confirmed {
                    t.state = TrackState::Lost;
                }
                continue;
            };
            t.see(
                frame.detections[d],
                self.now,
                &self.config.motion,
                &self.config.scenery,
            );
            if t.state == TrackState::Lost {
                t.state = TrackState::Confirmed;
            }
            frame.teach(t, d, &self.config.appearance);
            if t.still.is_scenery(self.now, &self.config.scenery) {
                t.scenery = true;
                self.scenery.remember(t.last.bbox, self.now);
            } else {
                t.scenery &= self.scenery.knows(&t.last.bbox);
            }
        }
        self.scenery.forget(self.now, &self.config.scenery);
    }

    /// Create: sure detections that nobody took start tentative tracks.
    fn create(&mut self, frame: &Observed<'_>, order: &[usize], matched: &[Option<usize>]) {
        let seen: Vec<BBox> = matched
            .iter()
            .flatten()
            .map(|&d| frame.detections[d].bbox)
            .collect();
        for &d in order.iter().filter(|&d| !matched.contains(&Some(*d))) {
            let detection = frame.detections[d];
            if detection.confidence < self.config.birth
                || seen
                    .iter()
                    .any(|b| b.iou(&detection.bbox) > self.config.duplicate)
            {
                continue;
            }
            let mut track = Track::new(detection, self.now, &self.config.motion);
            track.scenery = self.scenery.knows(&detection.bbox);
            frame.teach(&mut track, d, &self.config.appearance);
            self.tracks.push(track);
        }
    }

    /// Believe: a track seen often enough gets an id, its old one where it is somebody who was lost.
    fn believe(&mut self) {
        for t in 0..self.tracks.len() {
            let track = &self.tracks[t];
            if track.state != TrackState::Tentative
                || track.scenery
                || track.hits < self.config.confirm_hits
                || track.seen != self.now
            {
                continue;
            }
            let who = |strangers| {
                reidentify::who(track, &self.tracks, strangers, &self.config.reidentify)
            };
            match self
                .strangers
                .as_ref()
                .filter(|_| self.config.reidentify.within > 0.0)
                .map_or(Newcomer::New, who)
            {
                Newcomer::Returned(lost) => {
                    let old = self.tracks[lost].take_identity();
                    self.tracks[t].resume(old);
                }
                Newcomer::New => self.tracks[t].confirm(&mut self.next_id),
                Newcomer::Open => {}
            }
        }
        self.tracks.retain(|t| !t.is_spent());
    }

    /// Delete: tracks unseen for too long end.
    fn delete(&mut self) -> Vec<EndedTrack> {
        let (now, config) = (self.now, &self.config);
        let known_again = |t: &Track| self.strangers.is_some() && !t.views.is_empty();
        let keep = |t: &Track| {
            let allowed = match t.state {
                TrackState::Tentative => config.keep_tentative,
                // By looks a person is known again for longer than by motion.
                _ if known_again(t) => config.keep_lost.max(config.reidentify.within),
                _ => config.keep_lost,
            };
            (now - t.seen).0 <= allowed
        };
        ended(self.tracks.extract_if(.., |t| !keep(t)))
    }

    fn output(&self) -> Vec<TrackOutput> {
        let mut tracks: Vec<TrackOutput> = self
            .tracks
            .iter()
            .filter(|t| {
                t.state != TrackState::Tentative
                    && !t.scenery
                    && (self.now - t.seen).0 <= self.config.keep_lost
            })
            .map(|t| TrackOutput {
                id: t.id,
                state: t.state,
                bbox: if t.state == TrackState::Confirmed {
                    t.last.bbox
                } else {
                    t.bbox()
                },
                confidence: t.last.confidence,
                age: self.now - t.born,
                unseen: self.now - t.seen,
                hits: t.hits,
                velocity: t.filter.velocity(),
                view: t.view,
                identity: None,
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

fn canonical(a: &Detection, b: &Detection) -> std::cmp::Ordering {
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
