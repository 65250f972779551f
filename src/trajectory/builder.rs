//! Builds the events of one camera.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::analytics::{Change, Person, Scene, SceneView};
use crate::frame::Frame;
use crate::time::{Seconds, Timestamp, WallTime};
use crate::track::identity::Identity;
use crate::track::path::{self, TrackPath};
use crate::track::{EndedTrack, TrackOutput, TrackState};
use crate::trajectory::{
    AnalyticsEvent, ENDED_SCHEMA, EndedEvent, FRAME_SCHEMA, FrameEvent, GroundPosition,
    LINE_SCHEMA, LineEvent, RunId, TrackEvent, ZONE_SCHEMA, ZoneEvent, thousandths,
};

/// Shortest time between two points of a path, before simplification.
pub const PATH_STEP: Seconds = Seconds(0.2);

/// Rounds pixels to two decimals, which exceeds the precision of any detector.
fn hundredths(v: f32) -> f64 {
    (f64::from(v) * 100.0).round() / 100.0
}

impl TrackEvent {
    fn new(t: &TrackOutput, scene: &Scene) -> Self {
        let foot = t.bbox.foot();
        let metres = scene.ground().and_then(|g| g.to_metres(point(foot)));
        let (speed, walked) = scene.motion(t.id);
        TrackEvent {
            id: t.id,
            state: t.state,
            bbox: <[f32; 4]>::from(t.bbox).map(hundredths),
            confidence: thousandths(f64::from(t.confidence)),
            age: thousandths(t.age.0),
            unseen: matches!(t.state, TrackState::Lost | TrackState::Predicted)
                .then(|| thousandths(t.unseen.0)),
            hits: t.hits,
            velocity: [hundredths(t.velocity.0), hundredths(t.velocity.1)],
            foot: [hundredths(foot.0), hundredths(foot.1)],
            identity: t.identity.clone().map(|i| Identity {
                similarity: thousandths(i.similarity),
                ..i
            }),
            zones: scene.zones_of(t.id).cloned().collect(),
            ground: metres.map(|m| GroundPosition {
                position: m.map(|v| hundredths(v as f32)),
                speed: hundredths(speed as f32),
                walked: hundredths(walked as f32),
            }),
        }
    }
}

fn point((x, y): (f32, f32)) -> [f64; 2] {
    [x.into(), y.into()]
}

/// Builds the events of one camera: numbers them, records the paths of tracks until they end, and
/// counts people in the camera's zones and at its lines.
#[derive(Debug)]
pub struct EventBuilder {
    run: RunId,
    camera: Arc<str>,
    /// Name of the embedder and hash of its weights, if embeddings are to be written.
    embedder: Option<Arc<str>>,
    /// Presentation time of the first frame, which is time zero of the tracker's clock.
    start: Option<Seconds>,
    /// The paths of the current tracks, by id.
    paths: BTreeMap<u64, TrackPath>,
    /// Number of events so far.
    events: u64,
    /// Revision of the lease of a fleet's worker.
    lease: Option<u64>,
    scene: Scene,
    /// Last known identities of the current tracks, if there is something to count.
    identities: BTreeMap<u64, Identity>,
    /// Time and number of the last frame.
    last: Option<(WallClock, u64)>,
    /// Width and height of the last frame in pixels.
    size: (u32, u32),
    /// Events of zones and lines that were not taken yet.
    analytics: Vec<AnalyticsEvent>,
    /// Changes caused by replacing the scene; their events follow the event of the next frame.
    replaced: Vec<Change>,
}

/// A presentation time, and the wall-clock time at it.
#[derive(Debug, Clone, Copy)]
struct WallClock {
    pts: Seconds,
    time: Option<WallTime>,
}

impl EventBuilder {
    /// Creates the builder of a camera's events within a run. If `embedder` (the network's name and
    /// the hash of its weights) is given, `track_ended` events include the embedding.
    pub fn new(run: RunId, camera: Arc<str>, embedder: Option<Arc<str>>) -> Self {
        EventBuilder {
            run,
            camera,
            embedder,
            start: None,
            paths: BTreeMap::new(),
            events: 0,
            lease: None,
            scene: Scene::default(),
            identities: BTreeMap::new(),
            last: None,
            size: (0, 0),
            analytics: Vec::new(),
            replaced: Vec::new(),
        }
    }

    /// Replaces the scene. The people leave the zones of the previous scene; the events of these
    /// changes come with those of the next frame.
    pub fn set_scene(&mut self, scene: Scene) {
        let now = self.last.map_or(Seconds::ZERO, |(clock, _)| clock.pts);
        let changes = self.scene.replace(scene, now.0);
        self.replaced.extend(changes);
    }

    /// Sets the revision of the lease that the next events carry.
    pub fn set_lease(&mut self, lease: Option<u64>) {
        self.lease = lease;
    }

    /// What is counted.
    pub fn scene(&self) -> &Scene {
        &self.scene
    }

    /// As [`Scene::ignores_detection`].
    pub fn ignores_detection(&mut self, foot: (f32, f32), frame: &Frame) -> bool {
        self.scene
            .ignores_detection(point(foot), (frame.width, frame.height))
    }

    /// The events of zones and lines since the last call, in order of their sequence numbers, which
    /// lie between those of the frame's event and of the tracks' ends.
    pub fn take_analytics(&mut self) -> Vec<AnalyticsEvent> {
        std::mem::take(&mut self.analytics)
    }

    /// The shapes and their counts, for drawing; None if the scene is empty.
    pub fn view(&self) -> Option<Arc<SceneView>> {
        (!self.scene.is_empty()).then(|| Arc::new(self.scene.view()))
    }

    /// Name of the camera.
    pub fn camera(&self) -> &Arc<str> {
        &self.camera
    }

    /// Builds the event of a frame and extends the paths of its tracks.
    pub fn frame(&mut self, frame: &Frame, tracks: &[TrackOutput]) -> FrameEvent {
        self.start.get_or_insert(frame.pts);
        let located =
            |t: &&TrackOutput| !matches!(t.state, TrackState::Lost | TrackState::Predicted);
        for t in tracks.iter().filter(located) {
            let path = self.paths.entry(t.id).or_default();
            if path
                .last()
                .is_none_or(|at| frame.pts.0 - at >= PATH_STEP.0 - 1e-9)
            {
                let (x, y) = t.bbox.foot();
                path.push([thousandths(frame.pts.0), hundredths(x), hundredths(y)]);
            }
        }
        let clock = WallClock {
            pts: frame.pts,
            time: frame.time,
        };
        self.last = Some((clock, frame.number));
        self.size = (frame.width, frame.height);
        self.events += 1;
        let seq = self.events;
        let replaced = std::mem::take(&mut self.replaced);
        self.record(replaced);
        if !self.scene.is_empty() {
            self.remember_identities(tracks);
            let people = tracks.iter().filter(located).map(|t| Person {
                track: t.id,
                foot: point(t.bbox.foot()),
                height: t.bbox.height.into(),
            });
            let size = (frame.width, frame.height);
            let changes = self.scene.frame(frame.pts.0, size, people);
            self.record(changes);
        }
        FrameEvent {
            schema: FRAME_SCHEMA.into(),
            run: self.run,
            camera: self.camera.clone(),
            seq,
            lease: self.lease,
            frame: frame.number,
            pts: thousandths(frame.pts.0),
            time: frame.time.map(|t| t.at),
            clock: frame.time.and_then(|t| t.clock),
            width: frame.width,
            height: frame.height,
            skipped: false,
            tracks: tracks
                .iter()
                .map(|t| TrackEvent::new(t, &self.scene))
                .collect(),
        }
    }

    /// As [`EventBuilder::frame`], for a frame that the detector did not process.
    pub fn skipped_frame(&mut self, frame: &Frame, tracks: &[TrackOutput]) -> FrameEvent {
        FrameEvent {
            skipped: true,
            ..self.frame(frame, tracks)
        }
    }

    /// Builds the `track_ended` events. Before each of them, the events of the track's person
    /// leaving zones are recorded.
    pub fn ended(&mut self, tracks: Vec<EndedTrack>) -> Vec<EndedEvent> {
        let replaced = std::mem::take(&mut self.replaced);
        self.record(replaced);
        if !self.scene.is_empty() {
            for t in &tracks {
                let changes = self.scene.end(t.id);
                self.record(changes);
                self.identities.remove(&t.id);
            }
        }
        tracks.into_iter().map(|t| self.track_ended(t)).collect()
    }

    fn track_ended(&mut self, t: EndedTrack) -> EndedEvent {
        let start = self.start.unwrap_or_default();
        let (path, error) = self.paths.remove(&t.id).unwrap_or_default().finish();
        let embedding = (self.embedder.is_some() && !t.embedding.is_empty()).then_some(t.embedding);
        self.events += 1;
        let last = start + t.span.1;
        EndedEvent {
            schema: ENDED_SCHEMA.into(),
            run: self.run,
            camera: self.camera.clone(),
            seq: self.events,
            lease: self.lease,
            id: t.id,
            first: thousandths((start + t.span.0).0),
            last: thousandths(last.0),
            time: self.time_at(last.0),
            clock: self.last.and_then(|(clock, _)| clock.time?.clock),
            width: self.size.0,
            height: self.size.1,
            hits: t.hits,
            path,
            path_error: (error > path::TOLERANCE).then(|| hundredths(error as f32)),
            embedder: embedding.as_ref().and(self.embedder.clone()),
            embedding,
        }
    }

    fn remember_identities(&mut self, tracks: &[TrackOutput]) {
        for t in tracks {
            if let Some(identity) = &t.identity
                && self.identities.get(&t.id) != Some(identity)
            {
                self.identities.insert(t.id, identity.clone());
            }
        }
    }

    /// Appends the events of changes of the scene to `analytics`.
    fn record(&mut self, changes: Vec<Change>) {
        for change in changes {
            self.events += 1;
            let event = match change {
                Change::Zone(c) => AnalyticsEvent::Zone(ZoneEvent {
                    schema: ZONE_SCHEMA.into(),
                    run: self.run,
                    camera: self.camera.clone(),
                    seq: self.events,
                    lease: self.lease,
                    frame: self.last.map_or(0, |(_, frame)| frame),
                    pts: thousandths(c.at),
                    time: self.time_at(c.at),
                    zone: c.zone,
                    kind: c.kind,
                    track: c.track,
                    identity: c.track.and_then(|t| self.identity(t)),
                    point: c.point.map(|p| p.map(|v| hundredths(v as f32))),
                    stay: c.stay.map(thousandths),
                    occupancy: c.occupancy,
                    entered: c.entered,
                    left: c.left,
                    limit: c.limit,
                }),
                Change::Line(c) => AnalyticsEvent::Line(LineEvent {
                    schema: LINE_SCHEMA.into(),
                    run: self.run,
                    camera: self.camera.clone(),
                    seq: self.events,
                    lease: self.lease,
                    frame: self.last.map_or(0, |(_, frame)| frame),
                    pts: thousandths(c.at),
                    time: self.time_at(c.at),
                    line: c.line,
                    direction: c.direction,
                    wrong: c.wrong,
                    track: c.track,
                    identity: self.identity(c.track),
                    point: c.point.map(|p| p.map(|v| hundredths(v as f32))),
                    inwards: c.inwards,
                    outwards: c.outwards,
                }),
            };
            self.analytics.push(event);
        }
    }

    fn identity(&self, track: u64) -> Option<Identity> {
        let identity = self.identities.get(&track)?.clone();
        Some(Identity {
            similarity: thousandths(identity.similarity),
            ..identity
        })
    }

    /// The wall-clock time at a presentation time.
    fn time_at(&self, pts: f64) -> Option<Timestamp> {
        let (clock, _) = self.last?;
        Some(clock.time?.at.plus(Seconds(pts) - clock.pts))
    }
}
