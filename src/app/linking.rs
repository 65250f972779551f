//! Offline linking of recorded events, for `track --offline` and `refine`.

use twintrack::config::Config;
use twintrack::refine::{RecordedEvents, frame_of};
use twintrack::sink::{FrameResult, Sink, SinkError};
use twintrack::source::{Source, SourceError};

/// Refines events; removes the embeddings unless `output.embeddings` is set.
pub fn refined(events: &RecordedEvents, config: &Config) -> RecordedEvents {
    let mut refined = events.refine(&config.offline, &config.tracker);
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

/// Writes events to the sinks: for every frame its `trajectory` event, then the `track_ended`
/// events of the tracks that were last detected in the frame. `pictures` is the source of the
/// pixels, for sinks that draw. Checks `stop` before every frame, and returns early when it is
/// true.
///
/// # Errors
/// When a sink or the source fails.
pub fn deliver(
    events: &RecordedEvents,
    sinks: &mut [Box<dyn Sink>],
    mut pictures: Option<Box<dyn Source>>,
    stop: &dyn Fn() -> bool,
) -> Result<(), DeliverError> {
    let mut ended = events.ended.iter().peekable();
    for event in events.frames.iter().take_while(|_| !stop()) {
        let mut frame = frame_of(event);
        if let Some(source) = &mut pictures {
            while let Some(next) = source.next_frame()? {
                if next.number == event.frame {
                    frame = next;
                    break;
                }
            }
        }
        let finished = FrameResult {
            frame,
            detections: Vec::new(),
            event: event.clone().into(),
        };
        for sink in sinks.iter_mut() {
            sink.frame(&finished)?;
        }
        while let Some(e) = ended.next_if(|e| e.last <= event.pts) {
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
