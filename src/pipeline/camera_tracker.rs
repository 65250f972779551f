//! One camera's tracker: from a frame's detections and embeddings to its events.

use std::sync::Arc;
use std::time::Instant;

use crate::analytics::{CountingConfig, Scene, SceneConfig, SceneView};
use crate::detection::{Detection, Embeddings};
use crate::frame::Frame;
use crate::geometry::{Affine, BBox};
use crate::pipeline::error::PipelineError;
use crate::pipeline::people_in_view::PeopleInView;
use crate::sink::{FrameResult, OutputConfig};
use crate::time::Seconds;
use crate::track::cadence::Agreement;
use crate::track::embed_policy::EmbedPolicy;
use crate::track::identity::{IdentityRegistry, TrackObservation};
use crate::track::{EndedTrack, TrackError, TrackOutput, TrackState, TrackUpdate, Tracker};
use crate::trajectory::{AnalyticsEvent, EndedEvent, EventBuilder, StatusEvent};

/// A frame with everything that the tracker needs.
pub(super) struct Embedded {
    pub frame: Frame,
    /// Time at which the frame was decoded.
    pub arrived: Instant,
    pub detections: Vec<Detection>,
    pub embeddings: Embeddings,
}

/// Events for the sinks.
#[derive(Default)]
pub(super) struct TrackedFrame {
    /// The frame's event; absent after the last frame.
    pub frame: Option<FrameResult>,
    /// Time at which the frame was decoded.
    pub arrived: Option<Instant>,
    /// Events of zones and lines.
    pub analytics: Vec<AnalyticsEvent>,
    /// Tracks that ended with this frame.
    pub ended: Vec<EndedEvent>,
    pub status: Option<StatusEvent>,
    /// A camera of which no event follows until it is added again, except for its status.
    pub left: Option<Arc<str>>,
}

/// The registry that gives the tracks their identities.
pub(super) struct Identities<'a> {
    pub registry: &'a mut IdentityRegistry,
    /// Time on a clock that all cameras share. Absent with a single camera, whose presentation
    /// times are used.
    pub now: Option<Seconds>,
}

/// The tracker and the events of one camera.
pub(super) struct CameraTracker {
    tracker: Tracker,
    events: EventBuilder,
    output: OutputConfig,
    /// Time of the last frame that the tracker processed.
    last: Option<Seconds>,
    /// Tracks that ended at a restart mark, for the next event.
    ended: Vec<EndedTrack>,
    /// The tracks in the last frame with detections, and its time.
    detected: (Vec<TrackOutput>, Seconds),
    /// Frames of a recording that the detector skipped, until the next one that it did not.
    held: Vec<Held>,
    /// The people whom pictures may show; present if people are blurred.
    in_view: Option<PeopleInView>,
}

/// A skipped frame, with the tracks' predictions.
struct Held {
    frame: Frame,
    arrived: Instant,
    tracks: Vec<TrackOutput>,
    people: Vec<BBox>,
}

impl CameraTracker {
    pub fn new(tracker: Tracker, events: EventBuilder, output: OutputConfig) -> Self {
        CameraTracker {
            tracker,
            events,
            output,
            last: None,
            ended: Vec::new(),
            detected: Default::default(),
            held: Vec::new(),
            in_view: None,
        }
    }

    /// Sets whether [`FrameResult::people`] is filled in.
    pub fn with_people(mut self, wanted: bool) -> Self {
        self.in_view = wanted.then(PeopleInView::default);
        self
    }

    /// Boxes of everybody whom the frame at `pts` may show; empty unless people are blurred.
    fn people_in_view(&self, pts: Seconds) -> Vec<BBox> {
        let boxes = |v: &PeopleInView| v.boxes(pts, &self.tracker);
        self.in_view.as_ref().map(boxes).unwrap_or_default()
    }

    /// Sets the revision of the lease that the next events carry.
    pub fn set_lease(&mut self, lease: Option<u64>) {
        self.events.set_lease(lease);
    }

    /// Number of people so far: tracks that were confirmed.
    pub fn people(&self) -> u64 {
        self.tracker.confirmed()
    }

    /// Begins a frame, also one that is dropped afterwards: its restart mark and camera motion
    /// apply. Returns the frames that were held, if its restart mark ends their tracks.
    pub fn begin(&mut self, frame: &Frame, motion: Option<Affine>) -> Vec<TrackedFrame> {
        let mut held = Vec::new();
        if frame.restart {
            held = self.release(None);
            self.ended.extend(self.tracker.finish());
            self.detected.0.clear();
            self.in_view.iter_mut().for_each(PeopleInView::clear);
        }
        if let Some(map) = motion {
            self.tracker.apply_camera_motion(&map);
        }
        held
    }

    /// For each detection of the frame that was begun, whose time is `pts`: whether it needs an
    /// embedding.
    pub fn needs_embedding(
        &mut self,
        pts: Seconds,
        detections: &[Detection],
        policy: &EmbedPolicy,
    ) -> Vec<bool> {
        let elapsed = self.elapsed(pts);
        self.tracker.needs_embedding(detections, elapsed, policy)
    }

    /// Time from the tracker's last frame to `pts`.
    fn elapsed(&self, pts: Seconds) -> Seconds {
        self.last.map_or(Seconds::ZERO, |l| pts - l)
    }

    /// Gives each track without a detection the identity that it had in the last frame with
    /// detections.
    fn keep_identities(&self, tracks: &mut [TrackOutput]) {
        for t in tracks.iter_mut().filter(|t| t.detection.is_none()) {
            t.identity = find(&self.detected.0, t.id).and_then(|b| b.identity.clone());
        }
    }

    /// Sets what is counted.
    pub fn with_scene(mut self, scene: SceneConfig, counting: &CountingConfig) -> Self {
        self.set_scene(scene, counting);
        self
    }

    /// Replaces the zones, lines and masks, if they differ. People leave the previous zones with
    /// the next frame. Settings that cannot be used, which the configuration rejects, change
    /// nothing.
    pub fn set_scene(&mut self, scene: SceneConfig, counting: &CountingConfig) {
        if *self.events.scene().config() == scene {
            return;
        }
        match Scene::new(scene, counting.clone()) {
            Ok(scene) => self.events.set_scene(scene),
            Err(error) => tracing::error!(
                camera = %self.events.camera(), %error, "the camera's zones stay as they were"
            ),
        }
    }

    /// Begins a frame in which nothing has moved: its detections are those of the last one.
    pub fn see_again(&mut self, frame: &Frame) {
        if let Some(in_view) = &mut self.in_view {
            in_view.see_again(frame.pts);
        }
    }

    /// Removes the detections in masks, so that they neither start nor continue tracks. In pictures
    /// the people in them are blurred nevertheless.
    pub fn remove_masked(
        &mut self,
        frame: &Frame,
        detections: &mut Vec<Detection>,
        embeddings: &mut Embeddings,
    ) {
        if let Some(in_view) = &mut self.in_view {
            in_view.see(frame.pts, detections);
        }
        let mut kept: Vec<usize> = (0..detections.len()).collect();
        kept.retain(|&i| {
            let foot = detections[i].bbox.foot();
            !self.events.ignores_detection(foot, frame)
        });
        if kept.len() < detections.len() {
            // On a GPU the detections are embedded before the masks apply.
            *embeddings = embeddings.select(&kept);
            *detections = kept.into_iter().map(|i| detections[i]).collect();
        }
    }

    /// The shapes to draw into a frame; absent if it has no pixels.
    fn view(&self, frame: &Frame) -> Option<Arc<SceneView>> {
        frame.image.as_ref().and_then(|_| self.events.view())
    }

    /// Agreement of the predictions with the detections of the last frame.
    pub fn agreement(&mut self, exceptions: f32) -> Agreement {
        self.tracker.agreement(exceptions)
    }

    /// Processes the frame that was begun and that the detector has skipped. A recording's frame is
    /// held until the next frame with detections, so that boxes can be interpolated.
    ///
    /// # Errors
    /// If the frame's time is invalid for the tracker.
    pub fn predict(
        &mut self,
        frame: Frame,
        arrived: Instant,
        live: bool,
    ) -> Result<Vec<TrackedFrame>, PipelineError> {
        let update = self.tracker.predict_frame(self.elapsed(frame.pts));
        let mut tracks = update.map_err(|e| invalid(&frame, e))?.tracks;
        self.last = Some(frame.pts);
        self.keep_identities(&mut tracks);
        let people = self.people_in_view(frame.pts);
        self.held.push(Held {
            frame,
            arrived,
            tracks,
            people,
        });
        Ok(if live { self.release(None) } else { Vec::new() })
    }

    /// Associates the detections of the frame that was begun with the tracks. Returns the frames
    /// that were held, and this one.
    ///
    /// # Errors
    /// If the frame is invalid for the tracker.
    pub fn update(
        &mut self,
        embedded: Embedded,
        identities: Option<Identities<'_>>,
    ) -> Result<Vec<TrackedFrame>, PipelineError> {
        let Embedded {
            frame,
            arrived,
            detections,
            embeddings,
        } = embedded;
        let elapsed = self.elapsed(frame.pts);
        let update = self.tracker.update(&detections, &embeddings, elapsed);
        let mut update = update.map_err(|e| invalid(&frame, e))?;
        self.last = Some(frame.pts);
        update.ended.splice(0..0, self.ended.drain(..));
        update.tracks.retain(|t| self.output.shows(t.unseen.0));
        if let Some(Identities { registry, now }) = identities {
            self.identify(registry, &mut update, &embeddings, now.unwrap_or(frame.pts));
        }
        self.keep_identities(&mut update.tracks);
        let mut tracked = self.release(Some((&update.tracks, frame.pts)));
        let event = self.events.frame(&frame, &update.tracks);
        let scene = self.view(&frame);
        let people = self.people_in_view(frame.pts);
        let ended = self.events.ended(update.ended);
        self.detected = (update.tracks, frame.pts);
        tracked.push(TrackedFrame {
            frame: Some(FrameResult {
                frame,
                detections,
                event: event.into(),
                people,
                scene,
            }),
            arrived: Some(arrived),
            analytics: self.events.take_analytics(),
            ended,
            ..TrackedFrame::default()
        });
        Ok(tracked)
    }

    /// The events of the frames that were held. `next`: the tracks in the next frame with
    /// detections, and its time, if there is one.
    fn release(&mut self, next: Option<(&[TrackOutput], Seconds)>) -> Vec<TrackedFrame> {
        let held = std::mem::take(&mut self.held);
        let release = |h: Held| {
            let mut tracks = h.tracks;
            if let Some((next, at)) = next {
                let span = at - self.detected.1;
                let share = ((h.frame.pts - self.detected.1).0 / span.0) as f32;
                for t in &mut tracks {
                    interpolate(t, find(&self.detected.0, t.id), find(next, t.id), share);
                }
            }
            let shown =
                |t: &TrackOutput| t.state != TrackState::Lost || self.output.shows(t.unseen.0);
            tracks.retain(shown);
            let event = self.events.skipped_frame(&h.frame, &tracks);
            let scene = self.view(&h.frame);
            let mut people = h.people;
            // Who is detected in the next frame may be in this one already.
            let next = self.in_view.iter().filter(|_| next.is_some());
            people.extend(next.flat_map(PeopleInView::latest));
            TrackedFrame {
                frame: Some(FrameResult {
                    frame: h.frame,
                    detections: Vec::new(),
                    event: event.into(),
                    people,
                    scene,
                }),
                arrived: Some(h.arrived),
                analytics: self.events.take_analytics(),
                ..TrackedFrame::default()
            }
        };
        held.into_iter().map(release).collect()
    }

    /// Ends every track: no frame follows. Returns the frames that were held, and the tracks' ends.
    pub fn finish(&mut self, registry: Option<&mut IdentityRegistry>) -> Vec<TrackedFrame> {
        let mut tracked = self.release(None);
        let mut tracks = std::mem::take(&mut self.ended);
        tracks.extend(self.tracker.finish());
        self.detected.0.clear();
        if let Some(registry) = registry {
            for t in &tracks {
                registry.ended(self.events.camera(), t.id);
            }
        }
        let ended = self.events.ended(tracks);
        tracked.push(TrackedFrame {
            analytics: self.events.take_analytics(),
            ended,
            ..TrackedFrame::default()
        });
        tracked
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

/// The track `id` among the tracks of a frame.
fn find(tracks: &[TrackOutput], id: u64) -> Option<&TrackOutput> {
    tracks.iter().find(|t| t.id == id)
}

/// Replaces a prediction between two frames by the interpolation of the track's detections in them,
/// at `share` of the time between them. A track that was not detected in each of the two frames
/// becomes lost.
fn interpolate(
    t: &mut TrackOutput,
    earlier: Option<&TrackOutput>,
    later: Option<&TrackOutput>,
    share: f32,
) {
    let detected = |t: &&TrackOutput| t.state == TrackState::Confirmed;
    match (earlier.filter(detected), later.filter(detected)) {
        (Some(a), Some(b)) => {
            t.state = TrackState::Interpolated;
            t.bbox = a.bbox.mix(&b.bbox, share);
            t.confidence = a.confidence.min(b.confidence);
        }
        _ => t.state = TrackState::Lost,
    }
}

fn invalid(frame: &Frame, source: TrackError) -> PipelineError {
    PipelineError::Track {
        camera: frame.camera.clone(),
        frame: frame.number,
        source,
    }
}

#[cfg(test)]
mod tests;
