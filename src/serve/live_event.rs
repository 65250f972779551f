//! An event as live clients receive it.

use std::sync::Arc;

use crate::trajectory::EventKind;

/// An event for live clients. Cloning shares the text.
#[derive(Debug, Clone)]
pub struct LiveEvent {
    /// Name of the camera.
    pub camera: Arc<str>,
    /// The kind of event.
    pub kind: EventKind,
    /// The event, JSON.
    pub text: axum::extract::ws::Utf8Bytes,
    /// Position in the stream of live events, from 1; of the states that a client receives first,
    /// the position at which the client begins.
    pub position: u64,
}
