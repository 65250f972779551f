//! Where live events and pictures meet those who look: one sink, any number of clients, none of whom can hold it up.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tokio::sync::broadcast;

use crate::frame::Image;
use crate::sink::overlay::Painter;
use crate::sink::spool::Kind;
use crate::sink::{Finished, Sink, SinkError};
use crate::trajectory::{EndedEvent, FrameEvent, StatusEvent};

/// An event for live clients. Cloning shares the text.
#[derive(Debug, Clone)]
pub struct News {
    /// The camera.
    pub camera: Arc<str>,
    /// The kind of event.
    pub kind: Kind,
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
    status: Option<News>,
    /// The last JPEG made: of which frame, how wide.
    jpeg: Option<(u64, u32, axum::body::Bytes)>,
}

struct Shared {
    news: broadcast::Sender<News>,
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
        Hub(Arc::new(Shared { news, looks: Mutex::default(), clients: AtomicU64::new(0), missed: AtomicU64::new(0) }))
    }
}

/// A client, counted as long as it is there.
pub struct Listener {
    hub: Hub,
    /// Its events.
    pub news: broadcast::Receiver<News>,
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
    pub fn listen(&self) -> (Listener, Vec<News>) {
        self.0.clients.fetch_add(1, Ordering::Relaxed);
        let listener = Listener { hub: self.clone(), news: self.0.news.subscribe() };
        (listener, self.looks().values().filter_map(|l| l.status.clone()).collect())
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
    /// milliseconds.
    pub fn jpeg(&self, camera: &str, width: u32) -> Option<axum::body::Bytes> {
        let mut looks = self.looks();
        let look = looks.get_mut(camera)?;
        let (image, event) = (look.picture.as_ref()?, look.event.as_ref()?);
        if let Some((_, _, made)) = look.jpeg.as_ref().filter(|j| (j.0, j.1) == (event.frame, width)) {
            return Some(made.clone());
        }
        match look.painter.jpeg(image, event, width) {
            Ok(made) => {
                let made = axum::body::Bytes::from(made);
                look.jpeg = Some((event.frame, width, made.clone()));
                Some(made)
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

    fn tell(&self, camera: &Arc<str>, kind: Kind, event: &impl Serialize) -> Option<News> {
        if self.0.news.receiver_count() == 0 && kind != Kind::CameraStatus {
            return None;
        }
        let text = serde_json::to_string(event).expect("events hold nothing that JSON cannot").into();
        let news = News { camera: camera.clone(), kind, text };
        let _ = self.0.news.send(news.clone()); // nobody listening is no error
        Some(news)
    }
}

impl Sink for Hub {
    fn frame(&mut self, finished: &Finished) -> Result<(), SinkError> {
        let event = &finished.event;
        {
            let mut looks = self.looks();
            let look = looks.entry(event.camera.clone()).or_default();
            look.painter.note(event);
            look.picture.clone_from(&finished.frame.image);
            look.event = Some(event.clone());
        }
        self.tell(&event.camera, Kind::Trajectory, event);
        Ok(())
    }

    fn ended(&mut self, event: &EndedEvent) -> Result<(), SinkError> {
        self.tell(&event.camera, Kind::TrackEnded, event);
        Ok(())
    }

    fn status(&mut self, event: &StatusEvent) -> Result<(), SinkError> {
        let news = self.tell(&event.camera, Kind::CameraStatus, event);
        self.looks().entry(event.camera.clone()).or_default().status = news;
        Ok(())
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}
