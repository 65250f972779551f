//! Frames without detections of their own, and the detections whose embeddings can matter.

use crate::detection::{Detection, Embeddings};
use crate::time::Seconds;
use crate::track::cadence::Agreement;
use crate::track::embed_policy::EmbedPolicy;
use crate::track::motion::BoxFilter;
use crate::track::pair::{self, FrameDetections, MatchRound};
use crate::track::track::{Track, TrackState};
use crate::track::tracker::Tracker;
use crate::track::update::{TrackError, TrackUpdate};

/// A camera that has moved within this time counts as moving.
const CAMERA_SETTLES: Seconds = Seconds(1.0);

impl Tracker {
    /// Advances all tracks to a frame that the detector did not process, `elapsed` after the
    /// previous one. Tracks that were detected in the last frame that it did process are reported
    /// at their predicted position, as [`TrackState::Predicted`]. No track begins or ends.
    ///
    /// # Errors
    /// Fails when `elapsed` is invalid. Nothing has changed then.
    pub fn predict_frame(&mut self, elapsed: Seconds) -> Result<TrackUpdate, TrackError> {
        self.check(&[], elapsed)?;
        self.advance(elapsed);
        self.camera_compensated = false;
        for t in &mut self.tracks {
            (t.view, t.detection) = (None, None);
        }
        let tracks = self.output(TrackState::Predicted);
        Ok(TrackUpdate {
            tracks,
            ended: Vec::new(),
        })
    }

    /// Agreement of the predictions with the detections of the last updated frame. The share
    /// `exceptions` of the tracks, those with the lowest overlap, is ignored.
    pub fn agreement(&mut self, exceptions: f32) -> Agreement {
        let overlaps = &mut self.lists.overlaps;
        let excepted = (overlaps.len().saturating_sub(1) as f32 * exceptions).round() as usize;
        let overlap = if overlaps.is_empty() {
            1.0
        } else {
            *overlaps.select_nth_unstable_by(excepted, f32::total_cmp).1
        };
        Agreement {
            overlap,
            newcomer: self.tracks.iter().any(|t| t.state == TrackState::Tentative),
            camera_moves: self
                .camera_moved
                .is_some_and(|at| (self.now - at).0 <= CAMERA_SETTLES.0),
        }
    }

    /// For each detection of the next frame, `elapsed` after the previous one, whether its
    /// embedding can matter. It can if position and size leave a doubt about which track the
    /// detection continues; if that track is new or lost, or its appearance is unknown; or if the
    /// view is clear and the track was last embedded at least [`EmbedPolicy::refresh`] ago.
    pub fn needs_embedding(
        &mut self,
        detections: &[Detection],
        elapsed: Seconds,
        policy: &EmbedPolicy,
    ) -> Vec<bool> {
        let filters: Vec<BoxFilter> = self.tracks.iter().map(|t| t.filter.clone()).collect();
        for t in &mut self.tracks {
            t.filter.predict(elapsed, &self.config.motion);
        }
        let needed = self.uncertain(detections, self.now + elapsed, policy);
        for (t, filter) in self.tracks.iter_mut().zip(filters) {
            t.filter = filter;
        }
        needed
    }

    /// As [`Tracker::needs_embedding`], with tracks predicted to the time `now`.
    fn uncertain(&self, detections: &[Detection], now: Seconds, policy: &EmbedPolicy) -> Vec<bool> {
        let keep_lost = self.config.keep_lost;
        let alive = |t: &&Track| (now - t.seen).0 <= keep_lost;
        let predicted: Vec<&Track> = self.tracks.iter().filter(alive).collect();
        let nothing = Embeddings::none();
        let frame = FrameDetections::new(detections, &nothing);
        let round = MatchRound {
            buffer: self.config.cost.second_buffer,
            limit: self.config.cost.limit,
        };
        let costs: Vec<Vec<f32>> = predicted
            .iter()
            .map(|t| {
                (0..detections.len())
                    .map(|d| {
                        pair::cost(t, &frame, d, round, now, &self.config).unwrap_or(f32::INFINITY)
                    })
                    .collect()
            })
            .collect();
        let certain = |d: usize| {
            let best = (0..predicted.len()).min_by(|&a, &b| costs[a][d].total_cmp(&costs[b][d]));
            let Some(t) = best else { return false };
            let cost = costs[t][d];
            let rival = |other: f32| other < cost + policy.margin;
            let track = predicted[t];
            track.state == TrackState::Confirmed
                && cost <= policy.certain
                && !(0..predicted.len()).any(|o| o != t && rival(costs[o][d]))
                && !(0..detections.len()).any(|o| o != d && rival(costs[t][o]))
                && track.appearance.is_known()
                && (now - track.born).0 >= policy.settle
                && ((now - track.embedded).0 < policy.refresh
                    || !frame.is_clear(d, &self.config.appearance))
        };
        (0..detections.len()).map(|d| !certain(d)).collect()
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;
    use crate::geometry::{Affine, BBox};
    use crate::track::TrackerConfig;

    const STEP: Seconds = Seconds(0.1);

    fn person(left: f32) -> Detection {
        Detection {
            bbox: BBox::new(left, 100.0, 40.0, 100.0),
            confidence: 0.9,
        }
    }

    /// Embeddings that point in the same direction.
    fn embedded(n: usize) -> Embeddings {
        Embeddings::all(Array2::from_shape_fn((n, 2), |(_, i)| [1.0, 0.0][i]))
    }

    /// A tracker that has seen people at these positions, moving 4 pixels a frame, for `frames`.
    fn tracker(lefts: &[f32], frames: u32) -> Tracker {
        let mut tracker = Tracker::new(TrackerConfig::default());
        for i in 0..frames {
            let people = at(lefts, i);
            tracker
                .update(&people, &embedded(people.len()), STEP)
                .expect("valid");
        }
        tracker
    }

    fn at(lefts: &[f32], frame: u32) -> Vec<Detection> {
        lefts
            .iter()
            .map(|l| person(l + 4.0 * frame as f32))
            .collect()
    }

    #[test]
    fn a_skipped_frame_has_predictions_and_changes_no_tracks() {
        let mut t = tracker(&[100.0], 10);
        let predicted = t.predict_frame(STEP).expect("valid").tracks;
        assert_eq!(predicted.len(), 1);
        let p = &predicted[0];
        assert_eq!((p.id, p.state, p.hits), (1, TrackState::Predicted, 10));
        assert!((p.bbox.left - 140.0).abs() < 3.0, "{:?}", p.bbox);
        assert!((p.unseen.0 - 0.1).abs() < 1e-9);
        assert_eq!((p.detection, p.view), (None, None));
        let next = t.update(&at(&[100.0], 11), &embedded(1), STEP);
        let next = next.expect("valid").tracks;
        assert_eq!((next[0].id, next[0].state), (1, TrackState::Confirmed));
        assert_eq!(
            t.predict_frame(Seconds(f64::NAN))
                .map_err(|e| e.to_string().len() > 10),
            Err(true)
        );
    }

    #[test]
    fn a_track_that_was_not_detected_stays_lost_in_skipped_frames() {
        let mut t = tracker(&[100.0], 10);
        t.update(&[], &Embeddings::none(), STEP).expect("valid");
        let tracks = t.predict_frame(STEP).expect("valid").tracks;
        assert_eq!(tracks[0].state, TrackState::Lost);
    }

    #[test]
    fn agreement_leaves_out_the_excepted_share_and_knows_newcomers_and_camera_motion() {
        let mut t = tracker(&[100.0, 300.0, 500.0], 10);
        assert!(!t.agreement(0.0).newcomer);
        let mut people = at(&[100.0, 300.0, 500.0], 10);
        people[2].bbox.left += 15.0;
        people.push(person(700.0));
        t.update(&people, &embedded(4), STEP).expect("valid");
        let (all, most) = (t.agreement(0.0), t.agreement(0.5));
        assert!(all.overlap < 0.7 && most.overlap > 0.8, "{all:?} {most:?}");
        assert!(all.newcomer && !all.camera_moves);
        t.apply_camera_motion(&Affine {
            shift: [3.0, 0.0],
            ..Affine::IDENTITY
        });
        t.update(&people, &embedded(4), STEP).expect("valid");
        assert!(t.agreement(0.0).camera_moves);
        assert_eq!(tracker(&[], 3).agreement(0.2).overlap, 1.0, "no tracks");
    }

    #[test]
    fn embeddings_are_needed_where_position_and_size_leave_a_doubt() {
        let policy = EmbedPolicy::default();
        let needed =
            |t: &mut Tracker, people: &[Detection]| t.needs_embedding(people, STEP, &policy);
        let mut apart = tracker(&[100.0, 300.0], 20);
        let people = at(&[100.0, 300.0], 20);
        assert_eq!(needed(&mut apart, &people), [false, false]);
        assert_eq!(needed(&mut apart, &people), [false, false], "unchanged");
        let mut newcomer = people.clone();
        newcomer.push(person(600.0));
        assert_eq!(needed(&mut apart, &newcomer), [false, false, true]);
        let mut close = tracker(&[100.0, 115.0], 20);
        assert_eq!(needed(&mut close, &at(&[100.0, 115.0], 20)), [true, true]);
        let mut young = tracker(&[100.0], 5);
        assert_eq!(needed(&mut young, &at(&[100.0], 5)), [true], "new");
    }

    #[test]
    fn a_lost_or_long_unseen_appearance_is_renewed() {
        let policy = EmbedPolicy::default();
        let mut t = tracker(&[100.0], 20);
        t.update(&[], &Embeddings::none(), STEP).expect("valid");
        let person = at(&[100.0], 21);
        assert_eq!(t.needs_embedding(&person, STEP, &policy), [true], "lost");
        let mut t = tracker(&[100.0], 20);
        let mut renewed = 0;
        for frame in 20..90 {
            let person = at(&[100.0], frame);
            let embeddings = match t.needs_embedding(&person, STEP, &policy)[0] {
                true => {
                    renewed += 1;
                    embedded(1)
                }
                false => Embeddings::none(),
            };
            t.update(&person, &embeddings, STEP).expect("valid");
        }
        assert_eq!(renewed, 2, "every 3 of 7 s");
    }
}
