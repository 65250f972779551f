//! The readers of a run: starts and stops them, replaces those that hang, reports changes of state.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::frame::CameraState;
use crate::pipeline::batcher::{Batcher, Lane};
use crate::pipeline::camera_tracker::TrackedFrame;
use crate::pipeline::cameras::{Cameras, Member};
use crate::pipeline::error::PipelineError;
use crate::pipeline::observer::Observer;
use crate::pipeline::reader::{FailurePolicy, Opener, Reader};
use crate::pipeline::stage::joined;
use crate::source::{CameraConfig, Link, Source};
use crate::time::Seconds;
use crate::trajectory::{RunId, StatusEvent};

/// Interval between two checks of the readers.
const INTERVAL: Duration = Duration::from_millis(100);
/// Time that a shutdown waits for readers beyond their cameras' timeouts.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// Cameras by name.
pub type CameraConfigs = BTreeMap<String, CameraConfig>;

/// Distinguishes the readers of a run.
type ReaderId = u64;

struct Entry {
    lane: Lane,
    member: Member,
    /// Absent if it has ended.
    reader: Option<ReaderId>,
    /// The state that was reported last, and its reason.
    reported: Option<(CameraState, Option<Arc<str>>)>,
}

/// The parts that a roster shares with the rest of the pipeline.
pub(super) struct Roster {
    pub run: RunId,
    pub batcher: Arc<Batcher>,
    pub cameras: Cameras,
    pub open: Opener,
    pub policy: FailurePolicy,
    pub observer: Arc<dyn Observer>,
    /// Whether the run goes on without cameras while changes can come.
    pub waits: bool,
    /// Makes the links of new cameras; replaced in tests.
    pub new_link: Box<dyn Fn() -> Link + Send>,
    pub readers: Readers,
}

/// The readers, and what outlives them.
pub(super) struct Readers {
    entries: BTreeMap<String, Entry>,
    /// Removed cameras: if such a camera is added again, its numbers continue.
    removed: BTreeMap<String, Member>,
    /// Removed cameras whose end was not reported yet.
    unreported: Vec<Member>,
    started: ReaderId,
    ended: mpsc::UnboundedReceiver<(ReaderId, Result<(), PipelineError>)>,
    ends: mpsc::UnboundedSender<(ReaderId, Result<(), PipelineError>)>,
}

impl Default for Readers {
    fn default() -> Self {
        let (ends, ended) = mpsc::unbounded_channel();
        Readers {
            entries: BTreeMap::new(),
            removed: BTreeMap::new(),
            unreported: Vec::new(),
            started: 0,
            ended,
            ends,
        }
    }
}

/// The outcome of the readers of a run.
pub(super) struct Ended {
    /// The run was stopped before the end of the inputs.
    pub interrupted: bool,
    /// The failure that ended the run, under [`FailurePolicy::EndRun`].
    pub failure: Option<PipelineError>,
}

impl Roster {
    /// Adds the run's only input, which is open already. `member` has the link that `source` was
    /// opened with.
    pub fn add_opened(
        &mut self,
        member: Member,
        source: Box<dyn Source>,
        duration: Option<Seconds>,
    ) {
        let lane = self.batcher.join(member.config.weight);
        self.add(lane, member, Some(source), duration);
    }

    fn add(
        &mut self,
        lane: Lane,
        member: Member,
        opened: Option<Box<dyn Source>>,
        duration: Option<Seconds>,
    ) {
        self.cameras.put(lane, member.clone());
        let name = member.name.to_string();
        let reader = Some(self.start(lane, &member, opened, duration));
        let entry = Entry {
            lane,
            member,
            reader,
            reported: None,
        };
        self.readers.entries.insert(name, entry);
    }

    /// Starts a reader.
    fn start(
        &mut self,
        lane: Lane,
        member: &Member,
        opened: Option<Box<dyn Source>>,
        duration: Option<Seconds>,
    ) -> ReaderId {
        let reader = Reader {
            member: member.clone(),
            lane,
            batcher: self.batcher.clone(),
            open: self.open.clone(),
            policy: self.policy,
            observer: self.observer.clone(),
            opened,
            duration,
            first: None,
        };
        self.readers.started += 1;
        let (id, ends) = (self.readers.started, self.readers.ends.clone());
        let outcome = reader.start();
        tokio::spawn(async move {
            let _ = ends.send((id, joined(outcome).await)); // fails only after the run
        });
        id
    }

    /// Applies a new configuration. Cameras whose settings did not change are not touched.
    pub fn apply(&mut self, configs: CameraConfigs) {
        let removed: Vec<String> = self
            .readers
            .entries
            .keys()
            .filter(|name| !configs.contains_key(*name))
            .cloned()
            .collect();
        removed.iter().for_each(|name| self.remove(name));
        for (name, config) in configs {
            match self.readers.entries.get(&name) {
                Some(entry) if *entry.member.config == config => {}
                Some(entry) if entry.member.config.differs_in_scene_only(&config) => {
                    tracing::info!(camera = %name, "the camera has other zones, lines or masks");
                    self.replace_scene(&name, config);
                }
                Some(entry) if entry.reader.is_some() => {
                    tracing::info!(camera = %name, "reading the camera with its new settings");
                    self.batcher.set_weight(entry.lane, config.weight);
                    self.replace_reader(&name, config);
                }
                _ => self.add_config(&name, config),
            }
        }
    }

    fn add_config(&mut self, name: &str, config: CameraConfig) {
        let lane = self.batcher.join(config.weight);
        let ended = self.readers.entries.remove(name);
        if let Some(entry) = &ended {
            self.cameras.remove(entry.lane);
        }
        let before = ended
            .map(|e| e.member)
            .or_else(|| self.readers.removed.remove(name));
        let member = match before {
            Some(member) => member.renewed(config),
            None => Member::new(name, config, (self.new_link)()),
        };
        self.add(lane, member, None, None);
    }

    fn remove(&mut self, name: &str) {
        let Some(entry) = self.readers.entries.remove(name) else {
            return;
        };
        tracing::info!(camera = %name, "the camera is removed");
        entry.member.link.stop();
        self.batcher.end(entry.lane, &entry.member.name);
        self.cameras.remove(entry.lane);
        self.observer.forget(name);
        self.readers.unreported.push(entry.member.clone());
        self.readers.removed.insert(name.into(), entry.member);
    }

    /// Changes a camera's zones, lines and masks. Its reader continues; a recording that has ended
    /// is not read again.
    fn replace_scene(&mut self, name: &str, config: CameraConfig) {
        if let Some(entry) = self.readers.entries.get_mut(name) {
            entry.member.config = Arc::new(config);
            self.cameras.put(entry.lane, entry.member.clone());
        }
    }

    /// Stops a camera's reader and starts another in the same lane: tracks, numbers and times
    /// continue.
    fn replace_reader(&mut self, name: &str, config: CameraConfig) {
        let Some(entry) = self.readers.entries.get_mut(name) else {
            return;
        };
        entry.member.link.stop();
        entry.member = entry.member.renewed(config);
        let (lane, member) = (entry.lane, entry.member.clone());
        self.cameras.put(lane, member.clone());
        let id = self.start(lane, &member, None, None);
        if let Some(entry) = self.readers.entries.get_mut(name) {
            entry.reader = Some(id);
        }
    }

    /// Supervises the readers until all have ended or the run is stopped.
    pub async fn supervise(
        mut self,
        mut changes: mpsc::Receiver<CameraConfigs>,
        out: mpsc::Sender<TrackedFrame>,
        stop: CancellationToken,
    ) -> Ended {
        let mut ended = Ended {
            interrupted: false,
            failure: None,
        };
        let mut changing = true;
        while (self.waits && changing) || self.readers.entries.values().any(|e| e.reader.is_some())
        {
            tokio::select! {
                () = stop.cancelled() => {
                    ended.interrupted = true;
                    break;
                }
                change = changes.recv(), if changing => match change {
                    Some(configs) => self.apply(configs),
                    None => changing = false,
                },
                Some((id, result)) = self.readers.ended.recv() => {
                    if let Some(failure) = self.reader_ended(id, result) {
                        ended.failure.get_or_insert(failure);
                    }
                }
                () = tokio::time::sleep(INTERVAL) => self.replace_hung(),
            }
            self.report(&out);
        }
        self.shut_down().await;
        self.report(&out);
        ended
    }

    /// Takes note of a reader's end. Returns its failure if that ends the run.
    fn reader_ended(
        &mut self,
        id: ReaderId,
        result: Result<(), PipelineError>,
    ) -> Option<PipelineError> {
        let mut entries = self.readers.entries.values_mut();
        // Absent: the reader was replaced, or its camera was removed.
        let entry = entries.find(|e| e.reader == Some(id))?;
        entry.reader = None;
        self.batcher.end(entry.lane, &entry.member.name);
        let link = &entry.member.link;
        let failure = match (result, self.policy) {
            (Err(e), FailurePolicy::EndRun) => Some(e),
            (Err(e), FailurePolicy::Isolate) => {
                link.failed(&entry.member.name, &e.to_string());
                None
            }
            (Ok(()), _) => None,
        };
        link.set_state(CameraState::Ended);
        failure
    }

    /// Replaces readers of cameras whose decoder shows no activity.
    fn replace_hung(&mut self) {
        let mut hung = Vec::new();
        for (name, entry) in &self.readers.entries {
            let Member {
                config,
                link,
                counts,
                ..
            } = &entry.member;
            let replaceable = entry.reader.is_some() && self.policy.reconnects(config);
            if replaceable && link.inactive().0 > config.hang_timeout {
                tracing::error!(camera = %name, seconds = link.inactive().0.round(),
                    "the decoder hangs; another one is started");
                counts.hung.fetch_add(1, Ordering::Relaxed);
                hung.push((name.clone(), CameraConfig::clone(config)));
            }
        }
        for (name, config) in hung {
            self.replace_reader(&name, config);
        }
    }

    /// Stops all readers and waits for them. One deadline counts for all: a reader that is opening
    /// a camera, or hangs, may take long.
    async fn shut_down(&mut self) {
        for entry in self.readers.entries.values() {
            entry.member.link.stop();
            self.batcher.end(entry.lane, &entry.member.name);
        }
        self.batcher.close();
        let configs = self.readers.entries.values().map(|e| &e.member.config);
        let longest = configs
            .map(|c| c.open_timeout.max(c.read_timeout))
            .fold(0.0, f64::max);
        let deadline =
            tokio::time::Instant::now() + SHUTDOWN_TIMEOUT + Duration::from_secs_f64(longest);
        while self.readers.entries.values().any(|e| e.reader.is_some()) {
            match tokio::time::timeout_at(deadline, self.readers.ended.recv()).await {
                Ok(Some((id, result))) => {
                    self.reader_ended(id, result);
                }
                Ok(None) | Err(_) => break,
            }
        }
        for entry in self.readers.entries.values_mut() {
            if entry.reader.take().is_some() {
                tracing::warn!(camera = %entry.member.name,
                    "the decoder did not end in time and is abandoned");
            }
            entry.member.link.set_state(CameraState::Ended);
        }
    }

    /// Sends an event for every change of state. If the sinks have no room, the event is sent at
    /// the next call.
    fn report(&mut self, out: &mpsc::Sender<TrackedFrame>) {
        if self.policy == FailurePolicy::EndRun {
            return;
        }
        let send = |member: &Member, state, reason| {
            let status =
                StatusEvent::at(clock::now(), self.run, member.name.clone(), state, reason)
                    .with_lease(member.config.lease);
            out.try_send(TrackedFrame {
                status: Some(status),
                ..TrackedFrame::default()
            })
            .is_ok()
        };
        self.readers
            .unreported
            .retain(|member| !send(member, CameraState::Ended, None));
        for entry in self.readers.entries.values_mut() {
            let state = entry.member.state();
            let reason = entry.member.link.reason();
            let reason = reason.filter(|_| state != CameraState::Online);
            // A new reason is reported too, but not the attempts between two failures.
            let known = entry.reported.as_ref().is_some_and(|(reported, why)| {
                *reported == state && (why == &reason || state == CameraState::Connecting)
            });
            if !known && send(&entry.member, state, reason.clone()) {
                entry.reported = Some((state, reason));
            }
        }
    }
}

#[cfg(test)]
mod tests;
