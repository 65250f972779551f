//! The last stage: passes events to the sinks.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;

use crate::pipeline::camera_tracker::TrackedFrame;
use crate::pipeline::observer::Observer;
use crate::pipeline::stage::{self, Outcome};
use crate::sink::privacy::{Blur, hide_people};
use crate::sink::{Sink, SinkError};
use crate::trajectory::WithJson;

/// Passes events to every sink, with frames in which people are blurred as `blur` says. All sinks
/// are finished at the end, even if one has failed.
pub(super) fn write(
    mut sinks: Vec<Box<dyn Sink>>,
    blur: Blur,
    mut input: mpsc::Receiver<TrackedFrame>,
    observer: Arc<dyn Observer>,
) -> Outcome<()> {
    stage::spawn("write", move || {
        let mut deliver = |mut tracked: TrackedFrame| -> Result<(), SinkError> {
            if let Some(frame) = &mut tracked.frame {
                hide_people(frame, blur);
            }
            let ended: Vec<WithJson<_>> = tracked.ended.into_iter().map(Into::into).collect();
            let analytics: Vec<WithJson<_>> =
                tracked.analytics.into_iter().map(Into::into).collect();
            let status = tracked.status.map(WithJson::from);
            for sink in &mut sinks {
                if let Some(frame) = &tracked.frame {
                    sink.frame(frame)?;
                }
                analytics.iter().try_for_each(|e| sink.analytics(e))?;
                ended.iter().try_for_each(|e| sink.ended(e))?;
                status.iter().try_for_each(|e| sink.status(e))?;
                tracked.left.iter().for_each(|camera| sink.left(camera));
            }
            Ok(())
        };
        let mut result = Ok(());
        while let Some(tracked) = input.blocking_recv() {
            let start = Instant::now();
            let frames = usize::from(tracked.frame.is_some());
            result = deliver(tracked);
            if result.is_err() {
                break;
            }
            observer.stage("write", start.elapsed(), frames);
        }
        drop(input); // closes the channel: the stages before do not wait while files are finished
        sinks.iter_mut().for_each(|s| s.close());
        let finished: Vec<Result<(), SinkError>> = sinks.iter_mut().map(|s| s.finish()).collect();
        result?;
        finished.into_iter().collect::<Result<(), SinkError>>()?;
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::pipeline::observer::NoObserver;
    use crate::pipeline::stage::joined;

    /// Records its calls.
    struct Recording(&'static str, Arc<Mutex<Vec<String>>>);

    impl Recording {
        fn record(&self, call: &str) {
            let mut calls = self.1.lock().expect("not poisoned");
            calls.push(format!("{call} {}", self.0));
        }
    }

    impl Sink for Recording {
        fn frame(&mut self, _: &crate::sink::FrameResult) -> Result<(), SinkError> {
            Ok(())
        }

        fn close(&mut self) {
            self.record("close");
        }

        fn finish(&mut self) -> Result<(), SinkError> {
            self.record("finish");
            Ok(())
        }
    }

    /// Regression: the timeout of a sink began only when the previous sink had finished.
    #[tokio::test]
    async fn all_sinks_are_closed_before_the_first_is_finished() {
        let calls = Arc::<Mutex<Vec<String>>>::default();
        let sinks: Vec<Box<dyn Sink>> = vec![
            Box::new(Recording("a", calls.clone())),
            Box::new(Recording("b", calls.clone())),
        ];
        let (_, input) = mpsc::channel(1);
        joined(write(sinks, Blur::None, input, Arc::new(NoObserver)))
            .await
            .expect("written");
        assert_eq!(
            *calls.lock().expect("not poisoned"),
            ["close a", "close b", "finish a", "finish b"]
        );
    }
}
