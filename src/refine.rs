//! Trajectories made better once the whole recording is known: events in, events out.
//!
//! [`crate::track::offline`] has the method; here events become tracklets and trajectories become events again.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

use crate::frame::Frame;
use crate::time::{Seconds, WallTime};
use crate::track::appearance::mean_direction;
use crate::track::boxes::{DetectedBox, TrajectoryBox};
use crate::track::identity::Identity;
use crate::track::offline::{self, LinkedTrajectory, OfflineConfig, Tracklet};
use crate::track::{EndedTrack, TrackOutput, TrackState, TrackerConfig};
use crate::trajectory::{EndedEvent, Event, EventBuilder, FrameEvent, RunId};

/// Why events cannot be refined.
#[derive(Debug, Error)]
pub enum RefineError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A line is no event.
    #[error("{}, line {line}: not an event of twintrack ({reason})", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// Frames of one camera do not follow each other in time.
    #[error("{}, line {line}: frame {frame} of camera {camera} is not later than the one before it", path.display())]
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

/// Everything one camera told in one run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Recording {
    /// The frames, in order of time.
    pub frames: Vec<FrameEvent>,
    /// The ends of tracks.
    pub ended: Vec<EndedEvent>,
}

impl Recording {
    /// Reads a file of JSON lines; a recording for every run and camera in it, in order of appearance.
    ///
    /// # Errors
    /// When the file cannot be read, a line is no event, or frames are out of order.
    pub fn read(path: &Path) -> Result<Vec<Recording>, RefineError> {
        let file = std::fs::File::open(path).map_err(|source| RefineError::Read {
            path: path.into(),
            source,
        })?;
        Self::of_lines(std::io::BufReader::new(file), path)
    }

    /// Reads lines from anywhere; `path` names it in messages.
    ///
    /// # Errors
    /// As [`Recording::read`].
    pub fn of_lines(lines: impl BufRead, path: &Path) -> Result<Vec<Recording>, RefineError> {
        let failed = |source| RefineError::Read {
            path: path.into(),
            source,
        };
        let lines = lines.lines();
        let mut place: BTreeMap<(RunId, Arc<str>), usize> = BTreeMap::new();
        let mut all: Vec<Recording> = Vec::new();
        for (i, line) in lines.enumerate() {
            let line = line.map_err(failed)?;
            let wrong = |reason: String| RefineError::Line {
                path: path.into(),
                line: i + 1,
                reason,
            };
            let event = Event::read(&line).map_err(|e| wrong(e.to_string()))?;
            let key = match &event {
                Event::Frame(f) => (f.run, f.camera.clone()),
                Event::Ended(e) => (e.run, e.camera.clone()),
                Event::Status(_) => continue, // where somebody is does not hang on it
            };
            let at = *place.entry(key).or_insert(all.len());
            if at == all.len() {
                all.push(Recording::default());
            }
            match event {
                Event::Status(_) => {}
                Event::Ended(e) => all[at].ended.push(e),
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
                    Some(t) => return Err(wrong(format!("the box of track {} is none", t.id))),
                    None => all[at].frames.push(f),
                },
            }
        }
        Ok(all)
    }

    /// The same recording with the tracks linked over the whole of it and their gaps filled. A trajectory has the id of its
    /// first track.
    pub fn refine(&self, config: &OfflineConfig, tracker: &TrackerConfig) -> Recording {
        let Some(first) = self.frames.first() else {
            return Recording::default();
        };
        let times: Vec<Seconds> = self.frames.iter().map(|f| Seconds(f.pts)).collect();
        let tracklets = self.tracklets(&times, Seconds(config.tracklets.keep_lost));
        let ways = offline::link(&tracklets, &times, config, tracker);
        let embedder = self
            .ended
            .iter()
            .find(|e| e.embedding.is_some())
            .map(|e| e.embedder.clone().unwrap_or_else(|| "unknown".into()));
        let mut events = EventBuilder::new(first.run, first.camera.clone(), embedder);
        let mut by_frame: Vec<Vec<TrackOutput>> = vec![Vec::new(); times.len()];
        let mut ends: Vec<Vec<EndedTrack>> = vec![Vec::new(); times.len()];
        let names = self.names(&ways, &tracklets);
        for (way, name) in ways.iter().zip(names) {
            let id = tracklets[way.parts[0]].id;
            outputs(id, way, &times).for_each(|(frame, out)| {
                by_frame[frame].push(TrackOutput {
                    identity: name.clone(),
                    ..out
                })
            });
            let (start, end) = (way.boxes[0].frame, way.boxes[way.boxes.len() - 1].frame);
            let span = (times[start] - times[0], times[end] - times[0]);
            let hits = way.boxes.iter().filter(|s| s.seen).count() as u32;
            ends[end].push(EndedTrack {
                id,
                span,
                hits,
                embedding: mean_look(way.parts.iter().map(|&p| &tracklets[p])),
            });
        }
        let mut out = Recording::default();
        for ((event, mut tracks), mut ended) in self.frames.iter().zip(by_frame).zip(ends) {
            tracks.sort_by_key(|t| t.id);
            out.frames.push(events.frame(&frame_of(event), &tracks));
            ended.sort_by_key(|e| e.id);
            out.ended.extend(ended.into_iter().map(|e| events.ended(e)));
        }
        out
    }

    /// Who each trajectory is: the name that its tracks had in most frames, unless somebody who had it in more was there at
    /// the same time.
    fn names(&self, ways: &[LinkedTrajectory], tracklets: &[Tracklet]) -> Vec<Option<Identity>> {
        let mut said: BTreeMap<u64, BTreeMap<&str, (usize, f64)>> = BTreeMap::new();
        for t in self.frames.iter().flat_map(|f| &f.tracks) {
            if let Some(i) = &t.identity {
                let (frames, similarity) =
                    said.entry(t.id).or_default().entry(&i.name).or_default();
                (*frames, *similarity) = (*frames + 1, similarity.max(i.similarity));
            }
        }
        let mut claims: Vec<(usize, f64, usize, &str)> = Vec::new();
        for (w, way) in ways.iter().enumerate() {
            let mut votes: BTreeMap<&str, (usize, f64)> = BTreeMap::new();
            let ids: BTreeSet<u64> = way.parts.iter().map(|&p| tracklets[p].id).collect();
            for (name, (frames, similarity)) in ids.iter().filter_map(|id| said.get(id)).flatten() {
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
                ways[w].boxes[0].frame,
                ways[w].boxes[ways[w].boxes.len() - 1].frame,
            )
        };
        let mut names: Vec<Option<Identity>> = vec![None; ways.len()];
        for (_, similarity, w, name) in claims {
            let (start, end) = span(w);
            let meets = |o: usize| span(o).0 <= end && start <= span(o).1;
            let taken = (0..ways.len())
                .any(|o| names[o].as_ref().is_some_and(|i| i.name == name) && meets(o));
            if names[w].is_none() && !taken {
                names[w] = Some(Identity {
                    name: name.to_string(),
                    similarity,
                });
            }
        }
        names
    }

    /// The stretches in which each id was seen. Who was away for longer than `away` was known again by looks, and has two.
    fn tracklets(&self, times: &[Seconds], away: Seconds) -> Vec<Tracklet> {
        let mut by_id: BTreeMap<u64, Vec<Tracklet>> = BTreeMap::new();
        for (frame, event) in self.frames.iter().enumerate() {
            for t in event
                .tracks
                .iter()
                .filter(|t| t.state == TrackState::Confirmed)
            {
                let sighting = DetectedBox {
                    frame,
                    bbox: t.bbox.map(|v| v as f32).into(),
                    confidence: t.confidence as f32,
                };
                let stretches = by_id.entry(t.id).or_default();
                // A millisecond more, for the tracker's clock adds up what these times are.
                let goes_on = |s: &&mut Tracklet| {
                    s.detections
                        .last()
                        .is_some_and(|l| (times[frame] - times[l.frame]).0 <= away.0 + 1e-3)
                };
                match stretches.last_mut().filter(goes_on) {
                    Some(stretch) => stretch.detections.push(sighting),
                    None => stretches.push(Tracklet {
                        id: t.id,
                        detections: vec![sighting],
                        embedding: Vec::new(),
                    }),
                }
            }
        }
        for e in &self.ended {
            if let (Some(stretches), Some(look)) = (by_id.get_mut(&e.id), &e.embedding) {
                stretches
                    .iter_mut()
                    .for_each(|t| t.embedding.clone_from(look));
            }
        }
        by_id.into_values().flatten().collect()
    }
}

/// The frame an event tells of, without its pixels.
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

fn outputs<'a>(
    id: u64,
    way: &'a LinkedTrajectory,
    times: &'a [Seconds],
) -> impl Iterator<Item = (usize, TrackOutput)> + 'a {
    let born = times[way.boxes[0].frame];
    let mut hits = 0;
    way.boxes.iter().enumerate().map(move |(k, step)| {
        hits += u32::from(step.seen);
        let state = if step.seen {
            TrackState::Confirmed
        } else {
            TrackState::Interpolated
        };
        // Who was away did not walk from the last place to the first.
        let beside = |other: Option<&'a TrajectoryBox>| {
            other
                .filter(|o| o.frame.abs_diff(step.frame) == 1)
                .unwrap_or(step)
        };
        let (before, after) = (
            beside(k.checked_sub(1).map(|b| &way.boxes[b])),
            beside(way.boxes.get(k + 1)),
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

fn velocity(before: &TrajectoryBox, after: &TrajectoryBox, times: &[Seconds]) -> (f32, f32) {
    let dt = (times[after.frame] - times[before.frame]).f32();
    let ((x0, y0), (x1, y1)) = (before.bbox.center(), after.bbox.center());
    if dt > 0.0 {
        ((x1 - x0) / dt, (y1 - y0) / dt)
    } else {
        (0.0, 0.0)
    }
}

/// The mean look of several tracklets, a unit vector weighted by how often each was seen; empty when none is known.
fn mean_look<'a>(parts: impl Iterator<Item = &'a Tracklet>) -> Vec<f32> {
    mean_direction(
        parts
            .filter(|t| !t.embedding.is_empty())
            .map(|t| (t.embedding.as_slice(), t.detections.len() as f32)),
    )
}
