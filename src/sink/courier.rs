//! A sink whose receiver is somewhere in the network: events go to a [`Spool`], and a courier on a thread of its own takes them on.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::sink::sink::{Finished, Sink, SinkError};
use crate::sink::spool::{Kind, Spool};
use crate::trajectory::{EndedEvent, StatusEvent};

/// What a courier works with.
#[derive(Clone)]
pub struct Errand {
    /// Where the events are.
    pub spool: Arc<Spool>,
    /// Cancelled when nothing new comes: what is there is still to be delivered.
    pub ending: CancellationToken,
}

/// The sink that fills the spool.
pub struct Spooled {
    errand: Errand,
    wanted: Vec<Kind>,
    courier: Option<std::thread::JoinHandle<()>>,
    body: Vec<u8>,
}

impl Spooled {
    /// Starts the courier. After the end it has `patience` to deliver what is left; the rest waits on disk for the next run.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start<F>(spool: Arc<Spool>, wanted: Vec<Kind>, patience: Duration, courier: impl FnOnce(Errand) -> F + Send + 'static) -> Result<Self, SinkError>
    where
        F: Future<Output = ()>,
    {
        let errand = Errand { spool, ending: CancellationToken::new() };
        let (mine, path) = (errand.clone(), errand.spool.name().to_string().into());
        let work = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let Ok(runtime) = runtime else {
                tracing::error!(sink = mine.spool.name(), "no runtime for the courier: events wait on disk");
                return;
            };
            let ending = mine.ending.clone();
            runtime.block_on(async {
                tokio::select! {
                    () = courier(mine.clone()) => {}
                    () = async { ending.cancelled().await; tokio::time::sleep(patience).await } => {
                        tracing::warn!(sink = mine.spool.name(), "events that could not be delivered wait for the next run");
                    }
                }
            });
        };
        let courier = std::thread::Builder::new().name("courier".into()).spawn(work).map_err(|source| SinkError::Create { path, source })?;
        Ok(Spooled { errand, wanted, courier: Some(courier), body: Vec::new() })
    }

    fn put(&mut self, kind: Kind, camera: &str, event: &impl Serialize) {
        if !self.wanted.contains(&kind) {
            return;
        }
        self.body.clear();
        serde_json::to_writer(&mut self.body, event).expect("events hold nothing that JSON cannot");
        self.errand.spool.push(kind, camera, &self.body);
    }
}

impl Sink for Spooled {
    fn frame(&mut self, finished: &Finished) -> Result<(), SinkError> {
        self.put(Kind::Trajectory, &finished.event.camera, &finished.event);
        Ok(())
    }

    fn ended(&mut self, event: &EndedEvent) -> Result<(), SinkError> {
        self.put(Kind::TrackEnded, &event.camera, event);
        Ok(())
    }

    fn status(&mut self, event: &StatusEvent) -> Result<(), SinkError> {
        self.put(Kind::CameraStatus, &event.camera, event);
        Ok(())
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        self.errand.ending.cancel();
        if self.courier.take().is_some_and(|c| c.join().is_err()) {
            tracing::error!(sink = self.errand.spool.name(), "the courier crashed; events wait on disk. This is a bug of twintrack, please report it");
        }
        Ok(())
    }
}

impl Drop for Spooled {
    fn drop(&mut self) {
        let _ = self.finish(); // after an error elsewhere: it never fails
    }
}
