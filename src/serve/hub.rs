//! The sink for web clients: broadcasts live events to any number of clients, and keeps every
//! camera's latest frame, which is drawn on request. Slow clients do not block the sink.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use axum::body::Bytes;
use serde::Serialize;
use tokio::sync::{broadcast, watch};

use crate::analytics::SceneView;
use crate::frame::Image;
use crate::serve::live_event::LiveEvent;
use crate::serve::replay::{Replay, ReplayLimits, ResumeToken, Resumed};
use crate::sink::overlay::{self, Painter};
use crate::sink::{FrameResult, Sink, SinkError};
use crate::trajectory::{AnalyticsEvent, EndedEvent, EventKind, FrameEvent, StatusEvent, WithJson};

/// Capacity of the broadcast channel. A client for which more events wait loses the oldest.
const CHANNEL_EVENTS: usize = 1024;

/// The latest data of a camera.
#[derive(Default)]
struct Latest {
    image: Option<Image>,
    event: Option<FrameEvent>,
    scene: Option<Arc<SceneView>>,
    painter: Painter,
    status: Option<LiveEvent>,
    /// Cached JPEGs of the latest frame. The lock is held while drawing, so that simultaneous
    /// requests cause one drawing.
    jpegs: Arc<Mutex<Vec<(PictureSize, LivePicture)>>>,
    /// Number of the latest frame, for clients that wait for the next one.
    frames: watch::Sender<u64>,
}

/// How a picture is made of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PictureSize {
    /// Maximum width in pixels.
    pub width: u32,
    /// Whether tracks, zones and lines are drawn into it.
    pub overlay: bool,
}

/// A picture of a camera's frame.
#[derive(Debug, Clone, PartialEq)]
pub struct LivePicture {
    /// Number of the frame.
    pub frame: u64,
    /// Presentation time of the frame in seconds.
    pub pts: f64,
    /// The picture.
    pub jpeg: Bytes,
}

/// Maximum number of sizes of a frame's picture that are kept.
const PICTURE_SIZES: usize = 8;

struct Shared {
    events: broadcast::Sender<LiveEvent>,
    /// Locked while an event is sent, so that clients that resume miss none.
    replay: Mutex<Replay>,
    cameras: Mutex<BTreeMap<Arc<str>, Latest>>,
    clients: AtomicU64,
    missed: AtomicU64,
}

/// The sink for web clients. Clones share its state.
#[derive(Clone)]
pub struct Hub(Arc<Shared>);

impl Default for Hub {
    fn default() -> Self {
        Hub::new(ReplayLimits::default())
    }
}

impl Hub {
    /// A hub without cameras, which keeps events within these limits for clients that resume.
    pub fn new(limits: ReplayLimits) -> Self {
        Hub(Arc::new(Shared {
            events: broadcast::Sender::new(CHANNEL_EVENTS),
            replay: Mutex::new(Replay::new(limits)),
            cameras: Mutex::default(),
            clients: AtomicU64::new(0),
            missed: AtomicU64::new(0),
        }))
    }
}

/// A client's subscription, counted in [`Hub::clients`] until it is dropped.
pub struct Subscription {
    hub: Hub,
    /// Live events of all cameras.
    pub events: broadcast::Receiver<LiveEvent>,
    /// Token of the place in the stream where the subscription began.
    pub start: ResumeToken,
}

impl Subscription {
    /// The token of an event.
    pub fn token(&self, position: u64) -> ResumeToken {
        self.start.at(position)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.hub.0.clients.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Hub {
    fn cameras(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Latest>> {
        self.0
            .cameras
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Subscribes a client. What it receives first is the current status event of every camera,
    /// and then the events since the place at which it resumes.
    pub fn subscribe(&self, resume: Option<ResumeToken>) -> (Subscription, Resumed) {
        self.0.clients.fetch_add(1, Ordering::Relaxed);
        // Locked to the end: a status event is sent under this lock too, so that it is either
        // stored here already or received through the subscription.
        let cameras = self.cameras();
        let replay = self.replay();
        let subscription = Subscription {
            hub: self.clone(),
            events: self.0.events.subscribe(),
            start: replay.token(replay.last()),
        };
        let mut first = resume.map(|token| replay.since(token)).unwrap_or_default();
        // A client that has received the states only resumes before its first event, not at the
        // time of the last change of a state.
        let begin = first.events.first().map(|event| event.position - 1);
        let begin = begin.unwrap_or(replay.last());
        let statuses = cameras.values().filter_map(|latest| latest.status.clone());
        let statuses = statuses.map(|status| LiveEvent {
            position: begin,
            ..status
        });
        first.events.splice(0..0, statuses);
        (subscription, first)
    }

    fn replay(&self) -> MutexGuard<'_, Replay> {
        self.0.replay.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Number of subscribed clients.
    pub fn clients(&self) -> u64 {
        self.0.clients.load(Ordering::Relaxed)
    }

    /// Number of events that clients missed because they were too slow.
    pub fn missed(&self) -> u64 {
        self.0.missed.load(Ordering::Relaxed)
    }

    /// Counts events that a client missed.
    pub fn count_missed(&self, events: u64) {
        self.0.missed.fetch_add(events, Ordering::Relaxed);
    }

    /// Receives the number of a camera's latest frame; None if the camera is unknown.
    pub fn frames(&self, camera: &str) -> Option<watch::Receiver<u64>> {
        Some(self.cameras().get(camera)?.frames.subscribe())
    }

    /// The width and height in pixels of a camera's frames, and its zones and lines with their
    /// counts; None before its first frame.
    pub fn scene(&self, camera: &str) -> Option<([u32; 2], Arc<SceneView>)> {
        let cameras = self.cameras();
        let latest = cameras.get(camera)?;
        let event = latest.event.as_ref()?;
        let scene = latest.scene.clone().unwrap_or_default();
        Some(([event.width, event.height], scene))
    }

    /// Encodes a camera's latest frame as JPEG, with the tracks if `size.overlay`. None if the
    /// camera is unknown or has no frame yet, or if the encoding fails. Takes some milliseconds,
    /// during which other calls for the same camera wait; the pipeline does not wait.
    pub fn picture(&self, camera: &str, size: PictureSize) -> Option<LivePicture> {
        self.picture_with(camera, size, |painter, image, event, scene| {
            let jpeg = if size.overlay {
                painter.jpeg(image, event, scene, size.width)
            } else {
                overlay::plain_jpeg(image, size.width)
            };
            jpeg.map(Bytes::from)
        })
    }

    fn picture_with(
        &self,
        camera: &str,
        size: PictureSize,
        draw: impl FnOnce(&Painter, &Image, &FrameEvent, Option<&SceneView>) -> Result<Bytes, String>,
    ) -> Option<LivePicture> {
        // Concurrent calls wait here, so that a frame is drawn once.
        let cache = self.cameras().get(camera)?.jpegs.clone();
        let mut cache = cache.lock().unwrap_or_else(PoisonError::into_inner);
        // The pipeline takes the lock on `cameras` for every frame, so it must not be held while
        // drawing.
        let (image, event, scene, painter) = {
            let cameras = self.cameras();
            let latest = cameras.get(camera)?;
            let (image, event) = (latest.image.as_ref()?, latest.event.as_ref()?);
            cache.retain(|(_, picture)| picture.frame == event.frame);
            if let Some((_, cached)) = cache.iter().find(|(of, _)| *of == size) {
                return Some(cached.clone());
            }
            let scene = latest.scene.clone();
            (image.clone(), event.clone(), scene, latest.painter.clone())
        };
        match draw(&painter, &image, &event, scene.as_deref()) {
            Ok(jpeg) => {
                let picture = LivePicture {
                    frame: event.frame,
                    pts: event.pts,
                    jpeg,
                };
                cache.truncate(PICTURE_SIZES - 1);
                cache.push((size, picture.clone()));
                Some(picture)
            }
            Err(reason) => {
                tracing::error!(camera, reason, "cannot draw the latest frame");
                None
            }
        }
    }

    /// Removes all cameras except these.
    pub fn retain_cameras(&self, cameras: &[Arc<str>]) {
        self.cameras().retain(|name, _| cameras.contains(name));
    }

    /// Sends an event to all clients. If there are none, and no events are kept for those that
    /// resume, it returns None and does not serialise the event, except for a `camera_status`
    /// event, which clients that subscribe later will need.
    fn broadcast(
        &self,
        camera: &Arc<str>,
        kind: EventKind,
        event: &WithJson<impl Serialize>,
    ) -> Option<LiveEvent> {
        let idle = self.0.events.receiver_count() == 0 && kind != EventKind::CameraStatus;
        if idle && !self.replay().is_enabled() {
            return None;
        }
        let mut event = LiveEvent {
            camera: camera.clone(),
            kind,
            text: event.json().into(),
            position: 0,
        };
        let mut replay = self.replay();
        replay.push(&mut event, Instant::now());
        let _ = self.0.events.send(event.clone()); // fails without clients
        Some(event)
    }
}

impl Sink for Hub {
    fn frame(&mut self, finished: &FrameResult) -> Result<(), SinkError> {
        let event = &finished.event;
        {
            let mut cameras = self.cameras();
            let latest = cameras.entry(event.camera.clone()).or_default();
            latest.painter.update(event);
            latest.image.clone_from(&finished.frame.image);
            latest.event = Some(FrameEvent::clone(event));
            latest.scene.clone_from(&finished.scene);
            latest.frames.send_replace(event.frame);
        }
        self.broadcast(&event.camera, EventKind::Trajectory, event);
        Ok(())
    }

    fn ended(&mut self, event: &WithJson<EndedEvent>) -> Result<(), SinkError> {
        self.broadcast(&event.camera, EventKind::TrackEnded, event);
        Ok(())
    }

    fn analytics(&mut self, event: &WithJson<AnalyticsEvent>) -> Result<(), SinkError> {
        self.broadcast(event.camera(), event.kind(), event);
        Ok(())
    }

    fn status(&mut self, event: &WithJson<StatusEvent>) -> Result<(), SinkError> {
        // Sent and stored under one lock, see `subscribe`.
        let mut cameras = self.cameras();
        let status = self.broadcast(&event.camera, EventKind::CameraStatus, event);
        cameras.entry(event.camera.clone()).or_default().status = status;
        Ok(())
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;
    use crate::frame::{CameraState, Frame};
    use crate::time::Seconds;
    use crate::trajectory::{EventBuilder, RunId};

    const SIZE: PictureSize = PictureSize {
        width: 32,
        overlay: true,
    };

    /// The result of a frame of the camera `gate` without people.
    pub fn finished(number: u64) -> FrameResult {
        let image = Image::packed(32, 32, vec![0; 3 * 32 * 32].into());
        let frame = Frame {
            camera: "gate".into(),
            number,
            pts: Seconds(number as f64),
            time: None,
            width: 32,
            height: 32,
            image: Some(image),
            restart: false,
        };
        let event = EventBuilder::new(RunId::nil(), "gate".into(), None).frame(&frame, &[]);
        FrameResult {
            frame,
            detections: Vec::new(),
            event: event.into(),
            people: Vec::new(),
            scene: None,
        }
    }

    /// Regression: drawing held the lock that the pipeline takes for every frame.
    #[test]
    fn frames_are_accepted_while_a_jpeg_is_drawn() {
        let hub = Hub::default();
        hub.clone().frame(&finished(1)).expect("in memory");
        let (done, ended) = channel();
        let drawing = hub.clone();
        std::thread::spawn(move || {
            let made = drawing.picture_with("gate", SIZE, |_, _, event, _| {
                drawing.clone().frame(&finished(2)).expect("in memory");
                Ok(Bytes::from(event.frame.to_string()))
            });
            done.send(made).expect("the test receives");
        });
        let made = ended
            .recv_timeout(Duration::from_secs(30))
            .expect("the frame is not blocked by the drawing");
        let number = |picture: Option<LivePicture>| picture.map(|p| (p.frame, p.jpeg));
        let of = |n: u64| Some((n, Bytes::from(n.to_string())));
        assert_eq!(number(made), of(1));
        // The next call draws the new frame; the one after it returns the cached JPEG.
        let drawn = hub.picture_with("gate", SIZE, |_, _, event, _| {
            Ok(Bytes::from(event.frame.to_string()))
        });
        assert_eq!(number(drawn), of(2));
        let cached = hub.picture_with("gate", SIZE, |_, _, _, _| Err("drawn twice".into()));
        assert_eq!(number(cached), of(2));
        // Of another size it is another picture.
        let plain = PictureSize {
            overlay: false,
            ..SIZE
        };
        let drawn = hub.picture_with("gate", plain, |_, _, _, _| Ok(Bytes::from("plain")));
        assert_eq!(number(drawn), Some((2, Bytes::from("plain"))));
        let unknown = hub.picture_with("nobody", SIZE, |_, _, _, _| Ok(Bytes::new()));
        assert_eq!(unknown, None);
    }

    /// A change of the state of the camera `gate`, with a number as its reason.
    fn status(number: u64) -> WithJson<StatusEvent> {
        let (run, time, reason) = (RunId::nil(), crate::clock::now(), number.to_string());
        let state = CameraState::Offline;
        StatusEvent::at(time, run, "gate".into(), state, Some(reason.into())).into()
    }

    /// Regression: the states that a client receives first had the position at which they were
    /// sent, so that a client that had received nothing else resumed there.
    #[test]
    fn the_states_have_the_position_at_which_the_client_begins() {
        let mut hub = Hub::default();
        hub.status(&status(1)).expect("in memory");
        for number in 1..=3 {
            hub.frame(&finished(number)).expect("in memory");
        }
        let positions =
            |resumed: &Resumed| -> Vec<u64> { resumed.events.iter().map(|e| e.position).collect() };
        let (fresh, first) = hub.subscribe(None);
        assert_eq!((fresh.start.position(), positions(&first)), (4, vec![4]));
        let (_, resumed) = hub.subscribe(Some(fresh.token(2)));
        assert_eq!(positions(&resumed), [2, 3, 4]);
        let other = Hub::default().subscribe(None).0.start;
        let (_, all) = hub.subscribe(Some(other));
        assert_eq!((all.missed, positions(&all)), (true, vec![0, 1, 2, 3, 4]));
    }

    /// Regression: a status event was stored after it had been sent; a client that subscribed in
    /// between received the state before it, and never the new one.
    #[test]
    fn a_client_receives_the_state_of_the_place_where_it_begins() {
        const CHANGES: u64 = 20_000;
        let hub = Hub::default();
        let mut changed = hub.clone();
        changed.status(&status(1)).expect("in memory");
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for number in 2..=CHANGES {
                    changed.status(&status(number)).expect("in memory");
                }
            });
            loop {
                let (subscription, first) = hub.subscribe(None);
                let state: serde_json::Value =
                    serde_json::from_str(&first.events[0].text).expect("JSON");
                let last = subscription.start.position();
                assert_eq!(state["reason"], last.to_string(), "{state}");
                if last == CHANGES {
                    break;
                }
            }
        });
    }
}
