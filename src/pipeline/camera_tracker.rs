//! One camera's people: tracker, names and events together, frame by frame.

use crate::detection::{Detection, Embeddings};
use crate::frame::Frame;
use crate::geometry::Affine;
use crate::pipeline::pipeline::PipelineError;
use crate::sink::{FrameResult, OutputConfig};
use crate::time::Seconds;
use crate::track::identity::{IdentityRegistry, TrackObservation};
use crate::track::{TrackState, TrackUpdate, Tracker};
use crate::trajectory::{EndedEvent, EventBuilder, StatusEvent};

/// A frame of which all is known that the tracker needs.
pub(super) struct Embedded {
    pub frame: Frame,
    pub camera: Option<Affine>,
    pub detections: Vec<Detection>,
    pub embeddings: Embeddings,
}

/// What leaves for the sinks: the ends of tracks, then the frame (none after the last).
pub(super) struct TrackedFrame {
    pub frame: Option<FrameResult>,
    pub ended: Vec<EndedEvent>,
    pub status: Option<StatusEvent>,
}

/// Who names people, and the time by a clock that all cameras share; a single camera goes by its frames'.
pub(super) struct Names<'a> {
    pub people: &'a mut IdentityRegistry,
    pub now: Option<Seconds>,
}

/// Follows the people of one camera.
pub(super) struct CameraTracker {
    tracker: Tracker,
    events: EventBuilder,
    output: OutputConfig,
    last: Option<Seconds>,
    /// A frame before which too much time had passed was left out: the next stands for it.
    restart: bool,
}

impl CameraTracker {
    pub fn new(tracker: Tracker, events: EventBuilder, output: OutputConfig) -> Self {
        CameraTracker {
            tracker,
            events,
            output,
            last: None,
            restart: false,
        }
    }

    /// IdentityRegistry so far: tracks that were confirmed.
    pub fn people(&self) -> u64 {
        self.tracker.confirmed()
    }

    /// Nothing is known of who is in this frame: it has no event. What the camera did is not lost
    /// on the tracker.
    pub fn skip(&mut self, frame: &Frame, camera: Option<Affine>) {
        self.restart |= frame.restart;
        if let Some(map) = camera {
            self.tracker.apply_camera_motion(&map);
        }
    }

    /// Associates the frame's detections, and writes down what came of it.
    pub fn follow(
        &mut self,
        embedded: Embedded,
        names: Option<Names<'_>>,
    ) -> Result<TrackedFrame, PipelineError> {
        let Embedded {
            mut frame,
            camera,
            detections,
            embeddings,
        } = embedded;
        frame.restart |= std::mem::take(&mut self.restart);
        // After an interruption everybody is somebody new; ids are never used again.
        let before = if frame.restart {
            self.tracker.finish()
        } else {
            Vec::new()
        };
        let elapsed = self.last.map_or(Seconds::ZERO, |l| frame.pts - l);
        self.last = Some(frame.pts);
        if let Some(map) = camera {
            self.tracker.apply_camera_motion(&map);
        }
        let update = self.tracker.update(&detections, &embeddings, elapsed);
        let mut update = update.map_err(|source| PipelineError::Track {
            camera: frame.camera.clone(),
            frame: frame.number,
            source,
        })?;
        update.ended.splice(0..0, before);
        update.tracks.retain(|t| self.output.shows(t.unseen.0));
        if let Some(Names { people, now }) = names {
            self.identify(people, &mut update, &embeddings, now.unwrap_or(frame.pts));
        }
        let event = self.events.frame(&frame, &update.tracks);
        let ended = update
            .ended
            .into_iter()
            .map(|t| self.events.ended(t))
            .collect();
        Ok(TrackedFrame {
            frame: Some(FrameResult {
                frame,
                detections,
                event,
            }),
            ended,
            status: None,
        })
    }

    /// Nothing more comes: every track ends.
    pub fn finish(&mut self, names: Option<&mut IdentityRegistry>) -> TrackedFrame {
        let tracks = self.tracker.finish();
        names.into_iter().for_each(|people| {
            tracks
                .iter()
                .for_each(|t| people.ended(self.events.camera(), t.id))
        });
        TrackedFrame {
            frame: None,
            ended: tracks.into_iter().map(|t| self.events.ended(t)).collect(),
            status: None,
        }
    }

    /// Names the tracks seen in a frame.
    fn identify(
        &self,
        people: &mut IdentityRegistry,
        update: &mut TrackUpdate,
        embeddings: &Embeddings,
        now: Seconds,
    ) {
        // Who has gone first: the name is free for who has come.
        update
            .ended
            .iter()
            .for_each(|t| people.ended(self.events.camera(), t.id));
        let seen: Vec<usize> = (0..update.tracks.len())
            .filter(|&i| update.tracks[i].state == TrackState::Confirmed)
            .collect();
        let sighting = |&i: &usize| {
            let t = &update.tracks[i];
            let view = t
                .view
                .and_then(|v| Some((embeddings.get(v.detection)?.to_slice()?, v.clarity)));
            TrackObservation {
                track: t.id,
                hits: t.hits,
                bbox: t.bbox,
                views: self.tracker.views(t.id),
                view,
            }
        };
        let identities = people.identify(
            self.events.camera(),
            &seen.iter().map(sighting).collect::<Vec<_>>(),
            now,
        );
        seen.into_iter()
            .zip(identities)
            .for_each(|(i, identity)| update.tracks[i].identity = identity);
    }
}
