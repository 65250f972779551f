//! Where live events and pictures meet those who look: one sink, any number of clients, none of whom can hold it up.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;
use serde::Serialize;
use tokio::sync::broadcast;

use crate::frame::Image;
use crate::sink::overlay::Painter;
use crate::sink::{FrameResult, Sink, SinkError};
use crate::trajectory::EventKind;
use crate::trajectory::{EndedEvent, FrameEvent, StatusEvent};

/// An event for live clients. Cloning shares the text.
#[derive(Debug, Clone)]
pub struct LiveEvent {
    /// The camera.
    pub camera: Arc<str>,
    /// The kind of event.
    pub kind: EventKind,
    /// The event, JSON.
    pub text: axum::extract::ws::Utf8Bytes,
}

/// A client that is so many events behind loses the oldest.
const BEHIND: usize = 1024;

#[derive(Default)]
struct Look {
    picture: Option<Image>,
    event: Option<FrameEvent>,
    painter: Painter,
    status: Option<LiveEvent>,
    drawn: Arc<Mutex<Option<Drawn>>>,
}

/// The last JPEG made of a camera.
struct Drawn {
    frame: u64,
    width: u32,
    jpeg: Bytes,
}

struct Shared {
    news: broadcast::Sender<LiveEvent>,
    looks: Mutex<BTreeMap<Arc<str>, Look>>,
    clients: AtomicU64,
    missed: AtomicU64,
}

/// The meeting place. Clones share it.
#[derive(Clone)]
pub struct Hub(Arc<Shared>);

impl Default for Hub {
    fn default() -> Self {
        let news = broadcast::Sender::new(BEHIND);
        Hub(Arc::new(Shared {
            news,
            looks: Mutex::default(),
            clients: AtomicU64::new(0),
            missed: AtomicU64::new(0),
        }))
    }
}

/// A client, counted as long as it is there.
pub struct Listener {
    hub: Hub,
    /// Its events.
    pub news: broadcast::Receiver<LiveEvent>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.hub.0.clients.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Hub {
    fn looks(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Look>> {
        self.0.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new client, and the states of the cameras that it begins with.
    pub fn listen(&self) -> (Listener, Vec<LiveEvent>) {
        self.0.clients.fetch_add(1, Ordering::Relaxed);
        let listener = Listener {
            hub: self.clone(),
            news: self.0.news.subscribe(),
        };
        (
            listener,
            self.looks()
                .values()
                .filter_map(|l| l.status.clone())
                .collect(),
        )
    }

    /// Clients at present.
    pub fn clients(&self) -> u64 {
        self.0.clients.load(Ordering::Relaxed)
    }

    /// Events that clients missed because they were too slow.
    pub fn missed(&self) -> u64 {
        self.0.missed.load(Ordering::Relaxed)
    }

    /// A client was too slow for so many events.
    pub fn miss(&self, events: u64) {
        self.0.missed.fetch_add(events, Ordering::Relaxed);
    }

    /// The camera's last picture with its people, as JPEG at most `width` wide, made when it is asked for. Blocks for some
    /// milliseconds, and holds up nobody but those who ask for the same camera's.
    pub fn jpeg(&self, camera: &str, width: u32) -> Option<Bytes> {
        self.drawn(camera, width, |painter, image, event| {
            painter.jpeg(image, event, width).map(Bytes::from)
        })
    }

    fn drawn(
        &self,
        camera: &str,
        width: u32,
        draw: impl FnOnce(&Painter, &Image, &FrameEvent) -> Result<Bytes, String>,
    ) -> Option<Bytes> {
        // Who asks next waits here, so that a picture is drawn once.
        let last = self.looks().get(camera)?.drawn.clone();
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        // Every frame is written under the other lock: drawing must not hold it.
        let (image, event, painter) = {
            let looks = self.looks();
            let look = looks.get(camera)?;
            let (image, event) = (look.picture.as_ref()?, look.event.as_ref()?);
            if let Some(made) = last
                .as_ref()
                .filter(|d| (d.frame, d.width) == (event.frame, width))
            {
                return Some(made.jpeg.clone());
            }
            (image.clone(), event.clone(), look.painter.clone())
        };
        match draw(&painter, &image, &event) {
            Ok(jpeg) => {
                *last = Some(Drawn {
                    frame: event.frame,
                    width,
                    jpeg: jpeg.clone(),
                });
                Some(jpeg)
            }
            Err(reason) => {
                tracing::error!(camera, reason, "the picture cannot be drawn");
                None
            }
        }
    }

    /// Who is not in `cameras` has left.
    pub fn forget_all_but(&self, cameras: &[Arc<str>]) {
        self.looks().retain(|name, _| cameras.contains(name));
    }

    fn tell(
        &self,
        camera: &Arc<str>,
        kind: EventKind,
        event: &impl Serialize,
    ) -> Option<LiveEvent> {
        if self.0.news.receiver_count() == 0 && kind != EventKind::CameraStatus {
            return None;
        }
        let text = serde_json::to_string(event)
            .expect("events hold nothing that JSON cannot")
            .into();
        let news = LiveEvent {
            camera: camera.clone(),
            kind,
            text,
        };
        let _ = self.0.news.send(news.clone()); // nobody listening is no error
        Some(news)
    }
}

impl Sink for Hub {
    fn frame(&mut self, finished: &FrameResult) -> Result<(), SinkError> {
        let event = &finished.event;
        {
            let mut looks = self.looks();
            let look = looks.entry(event.camera.clone()).or_default();
            look.painter.note(event);
            look.picture.clone_from(&finished.frame.image);
            look.event = Some(event.clone());
        }
        self.tell(&event.camera, EventKind::Trajectory, event);
        Ok(())
    }

    fn ended(&mut self, event: &EndedEvent) -> Result<(), SinkError> {
        self.tell(&event.camera, EventKind::TrackEnded, event);
        Ok(())
    }

    fn status(&mut self, event: &StatusEvent) -> Result<(), SinkError> {
        let news = self.tell(&event.camera, EventKind::CameraStatus, event);
        self.looks().entry(event.camera.clone()).or_default().status = news;
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
            event,
        }
    }

    /// Drawing held the lock that the writing of every frame needs.
    #[test]
    fn frames_are_written_while_a_picture_is_drawn() {
        let hub = Hub::default();
        hub.clone().frame(&finished(1)).expect("in memory");
        let (done, ended) = channel();
        let drawing = hub.clone();
        std::thread::spawn(move || {
            let made = drawing.drawn("gate", 32, |_, _, event| {
                drawing.clone().frame(&finished(2)).expect("in memory");
                Ok(Bytes::from(event.frame.to_string()))
            });
            done.send(made).expect("the test waits");
        });
        let made = ended
            .recv_timeout(Duration::from_secs(30))
            .expect("the frame waits for the picture");
        assert_eq!(made, Some(Bytes::from("1")));
        // The next who asks has the new frame's, and the one after it the same without drawing.
        assert_eq!(
            hub.drawn("gate", 32, |_, _, event| Ok(Bytes::from(
                event.frame.to_string()
            ))),
            Some(Bytes::from("2"))
        );
        assert_eq!(
            hub.drawn("gate", 32, |_, _, _| Err("drawn twice".into())),
            Some(Bytes::from("2"))
        );
        assert_eq!(hub.drawn("nobody", 32, |_, _, _| Ok(Bytes::new())), None);
    }
}
