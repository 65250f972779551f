//! The sink for web clients: broadcasts live events to any number of clients, and keeps every
//! camera's latest frame, which is drawn on request. Slow clients do not block the sink.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;
use serde::Serialize;
use tokio::sync::broadcast;

use crate::analytics::SceneView;
use crate::frame::Image;
use crate::sink::overlay::Painter;
use crate::sink::{FrameResult, Sink, SinkError};
use crate::trajectory::{AnalyticsEvent, EndedEvent, EventKind, FrameEvent, StatusEvent, WithJson};

/// An event for live clients. Cloning shares the text.
#[derive(Debug, Clone)]
pub struct LiveEvent {
    /// Name of the camera.
    pub camera: Arc<str>,
    /// The kind of event.
    pub kind: EventKind,
    /// The event, JSON.
    pub text: axum::extract::ws::Utf8Bytes,
}

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
    /// Cached JPEG. Its lock is held while drawing, so that simultaneous requests cause one
    /// drawing.
    jpeg: Arc<Mutex<Option<CachedJpeg>>>,
}

/// The last JPEG of a camera, with the frame and the width for which it was drawn.
struct CachedJpeg {
    frame: u64,
    width: u32,
    jpeg: Bytes,
}

struct Shared {
    events: broadcast::Sender<LiveEvent>,
    cameras: Mutex<BTreeMap<Arc<str>, Latest>>,
    clients: AtomicU64,
    missed: AtomicU64,
}

/// The sink for web clients. Clones share its state.
#[derive(Clone)]
pub struct Hub(Arc<Shared>);

impl Default for Hub {
    fn default() -> Self {
        Hub(Arc::new(Shared {
            events: broadcast::Sender::new(CHANNEL_EVENTS),
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

    /// Subscribes a client. Also returns the current status event of every camera.
    pub fn subscribe(&self) -> (Subscription, Vec<LiveEvent>) {
        self.0.clients.fetch_add(1, Ordering::Relaxed);
        let subscription = Subscription {
            hub: self.clone(),
            events: self.0.events.subscribe(),
        };
        (
            subscription,
            self.cameras()
                .values()
                .filter_map(|l| l.status.clone())
                .collect(),
        )
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

    /// Draws the tracks into the camera's latest frame and encodes it as JPEG, at most `width`
    /// pixels wide. None if the camera is unknown or has no frame yet. Takes some milliseconds,
    /// during which other calls for the same camera wait; the pipeline does not wait.
    pub fn jpeg(&self, camera: &str, width: u32) -> Option<Bytes> {
        self.jpeg_with(camera, width, |painter, image, event, scene| {
            painter.jpeg(image, event, scene, width).map(Bytes::from)
        })
    }

    fn jpeg_with(
        &self,
        camera: &str,
        width: u32,
        draw: impl FnOnce(&Painter, &Image, &FrameEvent, Option<&SceneView>) -> Result<Bytes, String>,
    ) -> Option<Bytes> {
        // Concurrent calls wait here, so that a frame is drawn once.
        let cache = self.cameras().get(camera)?.jpeg.clone();
        let mut cache = cache.lock().unwrap_or_else(PoisonError::into_inner);
        // The pipeline takes the lock on `cameras` for every frame, so it must not be held while
        // drawing.
        let (image, event, scene, painter) = {
            let cameras = self.cameras();
            let latest = cameras.get(camera)?;
            let (image, event) = (latest.image.as_ref()?, latest.event.as_ref()?);
            if let Some(cached) = cache
                .as_ref()
                .filter(|c| (c.frame, c.width) == (event.frame, width))
            {
                return Some(cached.jpeg.clone());
            }
            let scene = latest.scene.clone();
            (image.clone(), event.clone(), scene, latest.painter.clone())
        };
        match draw(&painter, &image, &event, scene.as_deref()) {
            Ok(jpeg) => {
                *cache = Some(CachedJpeg {
                    frame: event.frame,
                    width,
                    jpeg: jpeg.clone(),
                });
                Some(jpeg)
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

    /// Sends an event to all clients. Without clients it returns None and does not serialise the
    /// event, except for a `camera_status` event, which clients that subscribe later will need.
    fn broadcast(
        &self,
        camera: &Arc<str>,
        kind: EventKind,
        event: &WithJson<impl Serialize>,
    ) -> Option<LiveEvent> {
        if self.0.events.receiver_count() == 0 && kind != EventKind::CameraStatus {
            return None;
        }
        let event = LiveEvent {
            camera: camera.clone(),
            kind,
            text: event.json().into(),
        };
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
        let status = self.broadcast(&event.camera, EventKind::CameraStatus, event);
        self.cameras()
            .entry(event.camera.clone())
            .or_default()
            .status = status;
        Ok(())
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;
    use crate::frame::Frame;
    use crate::time::Seconds;
    use crate::trajectory::{EventBuilder, RunId};

    fn finished(number: u64) -> FrameResult {
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
            let made = drawing.jpeg_with("gate", 32, |_, _, event, _| {
                drawing.clone().frame(&finished(2)).expect("in memory");
                Ok(Bytes::from(event.frame.to_string()))
            });
            done.send(made).expect("the test receives");
        });
        let made = ended
            .recv_timeout(Duration::from_secs(30))
            .expect("the frame is not blocked by the drawing");
        assert_eq!(made, Some(Bytes::from("1")));
        // The next call draws the new frame; the one after it returns the cached JPEG.
        assert_eq!(
            hub.jpeg_with("gate", 32, |_, _, event, _| Ok(Bytes::from(
                event.frame.to_string()
            ))),
            Some(Bytes::from("2"))
        );
        assert_eq!(
            hub.jpeg_with("gate", 32, |_, _, _, _| Err("jpeg_with twice".into())),
            Some(Bytes::from("2"))
        );
        assert_eq!(
            hub.jpeg_with("nobody", 32, |_, _, _, _| Ok(Bytes::new())),
            None
        );
    }
}
