//! Offline linking of recorded events, for `track --offline` and `refine`.

use std::sync::Arc;

use twintrack::analytics::{Scene, SceneView};
use twintrack::config::Config;
use twintrack::refine::{RecordedEvents, frame_of};
use twintrack::sink::privacy::{Blur, PeopleRecorder, hide_people};
use twintrack::sink::{FrameResult, Sink, SinkError};
use twintrack::source::{Source, SourceError};

/// Refines events and counts people in `scene`; removes the embeddings unless `output.embeddings`
/// is set.
pub fn refined(events: &RecordedEvents, config: &Config, scene: Scene) -> RecordedEvents {
    let mut refined = events.refine_and_count(&config.offline, &config.tracker, scene);
    if !config.output.embeddings {
        refined.ended.iter_mut().for_each(|e| e.embedding = None);
    }
    refined
}

/// The line of the summary with the numbers of tracks and boxes before and after refining.
pub fn summary(before: &RecordedEvents, after: &RecordedEvents) -> String {
    let boxes = |r: &RecordedEvents| r.frames.iter().map(|f| f.tracks.len()).sum::<usize>();
    format!(
        "  refined                     tracks: {} before, {} after; boxes: {} before, {} after",
        before.ended.len(),
        after.ended.len(),
        boxes(before),
        boxes(after)
    )
}

/// The pixels of a recording.
pub struct Pictures {
    pub source: Box<dyn Source>,
    /// Whom the pictures may show, if they are to be hidden.
    pub people: PeopleRecorder,
    /// What is hidden.
    pub blur: Blur,
}

/// Writes events to the sinks in order of their sequence numbers: for every frame its `trajectory`
/// event, then the events of zones and lines, then the `track_ended` events. `pictures` are
/// for sinks that draw. Checks `stop` before every frame, and returns early when it is
/// true.
///
/// # Errors
/// When a sink or the source fails.
pub fn deliver(
    events: &RecordedEvents,
    sinks: &mut [Box<dyn Sink>],
    mut pictures: Option<Pictures>,
    mut scene: SceneView,
    stop: &dyn Fn() -> bool,
) -> Result<(), DeliverError> {
    let mut ended = events.ended.iter().peekable();
    let mut analytics = events.analytics.iter().peekable();
    let mut counted = analytics.clone();
    // For each frame, the sequence number of the frame after it.
    let seqs = events.frames.iter().skip(1).map(|f| f.seq);
    let next_seqs = seqs.chain(std::iter::once(u64::MAX));
    for (event, next) in events.frames.iter().zip(next_seqs).take_while(|_| !stop()) {
        let mut frame = frame_of(event);
        if let Some(Pictures { source, .. }) = &mut pictures {
            while let Some(next) = source.next_frame()? {
                if next.number == event.frame {
                    frame = next;
                    break;
                }
            }
        }
        while let Some(e) = counted.next_if(|e| e.seq() < next) {
            e.update(&mut scene);
        }
        let people = pictures.as_ref().map(|p| p.people.take(event.frame));
        let mut finished = FrameResult {
            frame,
            detections: Vec::new(),
            event: event.clone().into(),
            people: people.unwrap_or_default(),
            scene: pictures.is_some().then(|| Arc::new(scene.clone())),
        };
        if let Some(pictures) = &pictures {
            hide_people(&mut finished, pictures.blur);
        }
        for sink in sinks.iter_mut() {
            sink.frame(&finished)?;
        }
        while let Some(e) = analytics.next_if(|e| e.seq() < next) {
            let e = e.clone().into();
            sinks.iter_mut().try_for_each(|s| s.analytics(&e))?;
        }
        while let Some(e) = ended.next_if(|e| e.seq < next) {
            let e = e.clone().into();
            sinks.iter_mut().try_for_each(|s| s.ended(&e))?;
        }
    }
    Ok(())
}

/// Errors of [`deliver`].
#[derive(Debug, thiserror::Error)]
pub enum DeliverError {
    /// A sink failed.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// The source of the pixels failed.
    #[error(transparent)]
    Source(#[from] SourceError),
}
