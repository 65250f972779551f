//! One camera's tracker: from a frame's detections and embeddings to its events.

use crate::detection::{Detection, Embeddings};
use crate::frame::Frame;
use crate::geometry::Affine;
use crate::pipeline::error::PipelineError;
use crate::sink::{FrameResult, OutputConfig};
use crate::time::Seconds;
use crate::track::identity::{IdentityRegistry, TrackObservation};
use crate::track::{TrackState, TrackUpdate, Tracker};
use crate::trajectory::{EndedEvent, EventBuilder, StatusEvent};

/// A frame with everything that the tracker needs.
pub(super) struct Embedded {
    pub frame: Frame,
    /// The camera's own motion since the frame before.
    pub motion: Option<Affine>,
    pub detections: Vec<Detection>,
    pub embeddings: Embeddings,
}

/// Events for the sinks.
#[derive(Default)]
pub(super) struct TrackedFrame {
    /// The frame's event; absent after the last frame.
    pub frame: Option<FrameResult>,
    /// Tracks that ended with this frame.
    pub ended: Vec<EndedEvent>,
    pub status: Option<StatusEvent>,
}

/// Identities that the tracks are given.
pub(super) struct Identities<'a> {
    pub registry: &'a mut IdentityRegistry,
    /// Time on a clock that all cameras share. Absent with a single camera: its frames' times
    /// count.
    pub now: Option<Seconds>,
}

/// The tracker and the events of one camera.
pub(super) struct CameraTracker {
    tracker: Tracker,
    events: EventBuilder,
    output: OutputConfig,
    last: Option<Seconds>,
    /// A frame with a restart mark was dropped: the next frame takes its mark.
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

    /// Number of people so far: tracks that were confirmed.
    pub fn people(&self) -> u64 {
        self.tracker.confirmed()
    }

    /// Takes note of a frame that was dropped: its restart mark and camera motion still apply.
    pub fn skip(&mut self, frame: &Frame, motion: Option<Affine>) {
        self.restart |= frame.restart;
        if let Some(map) = motion {
            self.tracker.apply_camera_motion(&map);
        }
    }

    /// Associates a frame's detections with the tracks.
    ///
    /// # Errors
    /// If the frame is invalid for the tracker.
    pub fn update(
        &mut self,
        embedded: Embedded,
        identities: Option<Identities<'_>>,
    ) -> Result<TrackedFrame, PipelineError> {
        let Embedded {
            mut frame,
            motion,
            detections,
            embeddings,
        } = embedded;
        frame.restart |= std::mem::take(&mut self.restart);
        let before = if frame.restart {
            self.tracker.finish()
        } else {
            Vec::new()
        };
        let elapsed = self.last.map_or(Seconds::ZERO, |l| frame.pts - l);
        self.last = Some(frame.pts);
        if let Some(map) = motion {
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
        if let Some(Identities { registry, now }) = identities {
            self.identify(registry, &mut update, &embeddings, now.unwrap_or(frame.pts));
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
                event: event.into(),
            }),
            ended,
            status: None,
        })
    }

    /// Ends every track: no frame follows.
    pub fn finish(&mut self, registry: Option<&mut IdentityRegistry>) -> TrackedFrame {
        let tracks = self.tracker.finish();
        if let Some(registry) = registry {
            for t in &tracks {
                registry.ended(self.events.camera(), t.id);
            }
        }
        TrackedFrame {
            ended: tracks.into_iter().map(|t| self.events.ended(t)).collect(),
            ..TrackedFrame::default()
        }
    }

    /// Assigns identities to the tracks seen in a frame.
    fn identify(
        &self,
        registry: &mut IdentityRegistry,
        update: &mut TrackUpdate,
        embeddings: &Embeddings,
        now: Seconds,
    ) {
        // Ended tracks release their identities before new tracks may claim them.
        for t in &update.ended {
            registry.ended(self.events.camera(), t.id);
        }
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
        let sightings: Vec<TrackObservation<'_>> = seen.iter().map(sighting).collect();
        let identities = registry.identify(self.events.camera(), &sightings, now);
        for (i, identity) in seen.into_iter().zip(identities) {
            update.tracks[i].identity = identity;
        }
    }
}
