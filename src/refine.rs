//! Offline refinement of recorded events.
//!
//! Converts the events of one camera and run to tracklets, which [`crate::track::offline`] links,
//! and converts the resulting trajectories to events.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

use crate::analytics::Scene;
use crate::frame::Frame;
use crate::time::{Seconds, WallTime};
use crate::track::appearance::mean_direction;
use crate::track::boxes::{DetectedBox, TrajectoryBox};
use crate::track::identity::Identity;
use crate::track::interpolate;
use crate::track::offline::{self, LinkedTrajectory, OfflineConfig, Tracklet};
use crate::track::{EndedTrack, TrackOutput, TrackState, TrackerConfig};
use crate::trajectory::{
    AnalyticsEvent, EndedEvent, Event, EventBuilder, FrameEvent, RunId, TrackEvent,
};

/// Errors of reading events for refinement.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RefineError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A line is not an event.
    #[error("{}, line {line}: not an event of twintrack ({reason})", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The cause.
        reason: String,
    },
    /// The frames of a camera are not in increasing order of time.
    #[error(
        "{}, line {line}: frame {frame} of camera {camera} is not later than the one before it",
        path.display()
    )]
    Order {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The frame.
        frame: u64,
        /// The camera.
        camera: Arc<str>,
    },
}

/// The events of one camera in one run, except for `camera_status` events.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RecordedEvents {
    /// The frames, in order of time.
    pub frames: Vec<FrameEvent>,
    /// The `track_ended` events, in the order in which they were written.
    pub ended: Vec<EndedEvent>,
    /// The events of zones and lines, in the order in which they were written.
    pub analytics: Vec<AnalyticsEvent>,
}

impl RecordedEvents {
    /// Reads JSON lines; `path` names their file in messages. Returns one element for every run and
    /// camera, in order of first appearance.
    ///
    /// # Errors
    /// When reading fails, a line is not an event, or frames are out of order.
    pub fn read_lines(
        lines: impl BufRead,
        path: &Path,
    ) -> Result<Vec<RecordedEvents>, RefineError> {
        let failed = |source: std::io::Error| RefineError::Read {
            path: path.into(),
            source: match source.kind() {
                ErrorKind::InvalidData => {
                    std::io::Error::new(source.kind(), "it is not UTF-8 text; save it as UTF-8")
                }
                _ => source,
            },
        };
        let lines = lines.lines();
        let mut index: BTreeMap<(RunId, Arc<str>), usize> = BTreeMap::new();
        let mut all: Vec<RecordedEvents> = Vec::new();
        for (i, line) in lines.enumerate() {
            let line = line.map_err(failed)?;
            let wrong = |reason: String| RefineError::Line {
                path: path.into(),
                line: i + 1,
                reason,
            };
            let event = Event::parse(&line).map_err(|e| wrong(e.to_string()))?;
            let key = match &event {
                Event::Frame(f) => (f.run, f.camera.clone()),
                Event::Ended(e) => (e.run, e.camera.clone()),
                Event::Analytics(AnalyticsEvent::Zone(e)) => (e.run, e.camera.clone()),
                Event::Analytics(AnalyticsEvent::Line(e)) => (e.run, e.camera.clone()),
                Event::Status(_) => continue, // a camera's state has no effect on trajectories
            };
            let at = *index.entry(key).or_insert(all.len());
            if at == all.len() {
                all.push(RecordedEvents::default());
            }
            match event {
                Event::Status(_) => {}
                Event::Ended(e) => all[at].ended.push(e),
                Event::Analytics(e) => all[at].analytics.push(e),
                Event::Frame(f) if all[at].frames.last().is_some_and(|l| l.pts >= f.pts) => {
                    return Err(RefineError::Order {
                        path: path.into(),
                        line: i + 1,
                        frame: f.frame,
                        camera: f.camera,
                    });
                }
                Event::Frame(f) => match f
                    .tracks
                    .iter()
                    .find(|t| !crate::geometry::BBox::from(t.bbox.map(|v| v as f32)).is_valid())
                {
                    Some(t) => return Err(wrong(format!("the box of track {} is invalid", t.id))),
                    None => all[at].frames.push(f),
                },
            }
        }
        Ok(all)
    }

    /// Returns the events after linking the tracks and filling their gaps. A trajectory has the id
    /// of its first track. Events of zones and lines are left out.
    pub fn refine(&self, config: &OfflineConfig, tracker: &TrackerConfig) -> RecordedEvents {
        self.refine_and_count(config, tracker, Scene::default())
    }

    /// As [`RecordedEvents::refine`]. People are counted anew on the trajectories,
    /// in the zones and at the lines of `scene`.
    pub fn refine_and_count(
        &self,
        config: &OfflineConfig,
        tracker: &TrackerConfig,
        scene: Scene,
    ) -> RecordedEvents {
        let Some(first) = self.frames.first() else {
            return RecordedEvents::default();
        };
        let times: Vec<Seconds> = self.frames.iter().map(|f| Seconds(f.pts)).collect();
        // Frames that the detector did not process say nothing about who was there.
        let processed: Vec<usize> = (0..times.len())
            .filter(|&f| !self.frames[f].skipped)
            .collect();
        let processed_times: Vec<Seconds> = processed.iter().map(|&f| times[f]).collect();
        let max_gap = Seconds(config.tracklets.keep_lost);
        let tracklets = self.tracklets(&processed, &processed_times, max_gap);
        let mut trajectories = offline::link(&tracklets, &processed_times, config, tracker);
        for trajectory in &mut trajectories {
            trajectory.boxes = interpolate::spread(&trajectory.boxes, &processed, &times);
        }
        let embedder = self
            .ended
            .iter()
            .find(|e| e.embedding.is_some())
            .map(|e| e.embedder.clone().unwrap_or_else(|| "unknown".into()));
        let mut events = EventBuilder::new(first.run, first.camera.clone(), embedder);
        events.set_scene(scene);
        let mut by_frame: Vec<Vec<TrackOutput>> = vec![Vec::new(); times.len()];
        let mut ends: Vec<Vec<EndedTrack>> = vec![Vec::new(); times.len()];
        let names = self.names(&trajectories, &tracklets);
        for (trajectory, name) in trajectories.iter().zip(names) {
            let id = tracklets[trajectory.parts[0]].id;
            outputs(id, trajectory, &times).for_each(|(frame, out)| {
                by_frame[frame].push(TrackOutput {
                    identity: name.clone(),
                    ..out
                })
            });
            let (start, last) = (
                trajectory.boxes[0].frame,
                trajectory.boxes[trajectory.boxes.len() - 1].frame,
            );
            let span = (times[start] - times[0], times[last] - times[0]);
            let mut end = last;
            if Some(&last) == processed.last() {
                let part = trajectory.parts[trajectory.parts.len() - 1];
                for (frame, out) in self.predicted_after(last, tracklets[part].id) {
                    end = frame;
                    by_frame[frame].push(TrackOutput {
                        id,
                        identity: name.clone(),
                        ..out
                    });
                }
            }
            let hits = trajectory.boxes.iter().filter(|s| s.seen).count() as u32;
            ends[end].push(EndedTrack {
                id,
                span,
                hits,
                embedding: mean_embedding(trajectory.parts.iter().map(|&p| &tracklets[p])),
            });
        }
        let mut out = RecordedEvents::default();
        for ((event, mut tracks), mut ended) in self.frames.iter().zip(by_frame).zip(ends) {
            tracks.sort_by_key(|t| t.id);
            let frame = frame_of(event);
            out.frames.push(match event.skipped {
                true => events.skipped_frame(&frame, &tracks),
                false => events.frame(&frame, &tracks),
            });
            ended.sort_by_key(|e| e.id);
            out.ended.extend(events.ended(ended));
            out.analytics.extend(events.take_analytics());
        }
        out
    }

    /// The predictions of a track in the frames after `last`, which the detector did not process.
    fn predicted_after(
        &self,
        last: usize,
        track: u64,
    ) -> impl Iterator<Item = (usize, TrackOutput)> + '_ {
        let after = self.frames.iter().enumerate().skip(last + 1);
        after.filter_map(move |(frame, event)| {
            let is_predicted = |t: &&TrackEvent| t.id == track && t.state == TrackState::Predicted;
            let t = event.tracks.iter().find(is_predicted)?;
            let out = TrackOutput {
                id: t.id,
                state: t.state,
                bbox: t.bbox.map(|v| v as f32).into(),
                confidence: t.confidence as f32,
                age: Seconds(t.age),
                unseen: Seconds(t.unseen.unwrap_or_default()),
                hits: t.hits,
                velocity: (t.velocity[0] as f32, t.velocity[1] as f32),
                detection: None,
                view: None,
                identity: None,
            };
            Some((frame, out))
        })
    }

    /// The identity of each trajectory: the name that its tracks had in most frames. If several
    /// trajectories that overlap in time have one name, only the one that has it in the most frames
    /// keeps it.
    fn names(
        &self,
        trajectories: &[LinkedTrajectory],
        tracklets: &[Tracklet],
    ) -> Vec<Option<Identity>> {
        // Number of frames and highest similarity, by track id and name.
        let mut named: BTreeMap<u64, BTreeMap<&str, (usize, f64)>> = BTreeMap::new();
        for t in self.frames.iter().flat_map(|f| &f.tracks) {
            if let Some(i) = &t.identity {
                let (frames, similarity) =
                    named.entry(t.id).or_default().entry(&i.name).or_default();
                (*frames, *similarity) = (*frames + 1, similarity.max(i.similarity));
            }
        }
        // Frames, similarity, index of the trajectory, name.
        let mut claims: Vec<(usize, f64, usize, &str)> = Vec::new();
        for (w, trajectory) in trajectories.iter().enumerate() {
            let mut votes: BTreeMap<&str, (usize, f64)> = BTreeMap::new();
            let ids: BTreeSet<u64> = trajectory.parts.iter().map(|&p| tracklets[p].id).collect();
            for (name, (frames, similarity)) in ids.iter().filter_map(|id| named.get(id)).flatten()
            {
                let (all, best) = votes.entry(name).or_default();
                (*all, *best) = (*all + frames, best.max(*similarity));
            }
            claims.extend(
                votes
                    .into_iter()
                    .map(|(name, (frames, similarity))| (frames, similarity, w, name)),
            );
        }
        claims.sort_by(|a, b| b.0.cmp(&a.0).then(b.1.total_cmp(&a.1)).then(a.2.cmp(&b.2)));
        let span = |w: usize| {
            (
                trajectories[w].boxes[0].frame,
                trajectories[w].boxes[trajectories[w].boxes.len() - 1].frame,
            )
        };
        let mut names: Vec<Option<Identity>> = vec![None; trajectories.len()];
        for (_, similarity, w, name) in claims {
            let (start, end) = span(w);
            let overlaps = |o: usize| span(o).0 <= end && start <= span(o).1;
            let taken = (0..trajectories.len())
                .any(|o| names[o].as_ref().is_some_and(|i| i.name == name) && overlaps(o));
            if names[w].is_none() && !taken {
                names[w] = Some(Identity {
                    name: name.to_string(),
                    similarity,
                });
            }
        }
        names
    }

    /// The tracklets of every id. A track is split at each gap longer than `max_gap`, because it
    /// was re-identified by appearance after the gap. Frames are indices into `processed`, whose
    /// times are `times`.
    fn tracklets(&self, processed: &[usize], times: &[Seconds], max_gap: Seconds) -> Vec<Tracklet> {
        let mut by_id: BTreeMap<u64, Vec<Tracklet>> = BTreeMap::new();
        for (frame, &index) in processed.iter().enumerate() {
            for t in self.frames[index]
                .tracks
                .iter()
                .filter(|t| t.state == TrackState::Confirmed)
            {
                let sighting = DetectedBox {
                    frame,
                    bbox: t.bbox.map(|v| v as f32).into(),
                    confidence: t.confidence as f32,
                };
                let tracklets = by_id.entry(t.id).or_default();
                // A tolerance of 1 ms is needed, because the tracker sums elapsed times, and times
                // in events are rounded.
                let continues = |s: &&mut Tracklet| {
                    s.detections
                        .last()
                        .is_some_and(|l| (times[frame] - times[l.frame]).0 <= max_gap.0 + 1e-3)
                };
                match tracklets.last_mut().filter(continues) {
                    Some(tracklet) => tracklet.detections.push(sighting),
                    None => tracklets.push(Tracklet {
                        id: t.id,
                        detections: vec![sighting],
                        embedding: Vec::new(),
                    }),
                }
            }
        }
        for e in &self.ended {
            if let (Some(tracklets), Some(embedding)) = (by_id.get_mut(&e.id), &e.embedding) {
                tracklets
                    .iter_mut()
                    .for_each(|t| t.embedding.clone_from(embedding));
            }
        }
        by_id.into_values().flatten().collect()
    }
}

/// The frame that an event describes, without its pixels.
pub fn frame_of(event: &FrameEvent) -> Frame {
    Frame {
        camera: event.camera.clone(),
        number: event.frame,
        pts: Seconds(event.pts),
        time: event.time.map(|at| WallTime {
            at,
            clock: event.clock,
        }),
        width: event.width,
        height: event.height,
        image: None,
        restart: false,
    }
}

/// The tracker's outputs for a trajectory, each with the index of its frame.
fn outputs<'a>(
    id: u64,
    trajectory: &'a LinkedTrajectory,
    times: &'a [Seconds],
) -> impl Iterator<Item = (usize, TrackOutput)> + 'a {
    let born = times[trajectory.boxes[0].frame];
    let mut hits = 0;
    trajectory.boxes.iter().enumerate().map(move |(k, step)| {
        hits += u32::from(step.seen);
        let state = if step.seen {
            TrackState::Confirmed
        } else {
            TrackState::Interpolated
        };
        // Between steps in frames that do not follow each other is a gap that was not filled; no
        // velocity is computed across it.
        let neighbour = |other: Option<&'a TrajectoryBox>| {
            other
                .filter(|o| o.frame.abs_diff(step.frame) == 1)
                .unwrap_or(step)
        };
        let (before, after) = (
            neighbour(k.checked_sub(1).map(|b| &trajectory.boxes[b])),
            neighbour(trajectory.boxes.get(k + 1)),
        );
        let velocity = velocity(before, after, times);
        (
            step.frame,
            TrackOutput {
                id,
                state,
                bbox: step.bbox,
                confidence: step.confidence,
                age: times[step.frame] - born,
                unseen: Seconds::ZERO,
                hits,
                velocity,
                detection: None,
                view: None,
                identity: None,
            },
        )
    })
}

/// Velocity in pixels per second of the box centre between two steps; zero if the steps are the
/// same.
fn velocity(before: &TrajectoryBox, after: &TrajectoryBox, times: &[Seconds]) -> (f32, f32) {
    let dt = (times[after.frame] - times[before.frame]).f32();
    let ((x0, y0), (x1, y1)) = (before.bbox.center(), after.bbox.center());
    if dt > 0.0 {
        ((x1 - x0) / dt, (y1 - y0) / dt)
    } else {
        (0.0, 0.0)
    }
}

/// The mean embedding of tracklets, unit length, weighted by their numbers of detections; empty if
/// no tracklet has an embedding.
fn mean_embedding<'a>(parts: impl Iterator<Item = &'a Tracklet>) -> Vec<f32> {
    mean_direction(
        parts
            .filter(|t| !t.embedding.is_empty())
            .map(|t| (t.embedding.as_slice(), t.detections.len() as f32)),
    )
}
