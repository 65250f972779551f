//! A worker's reports, by which it keeps its cameras.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::fleet::buckets::{Bucket, worker_key};
use crate::fleet::capacity::Capacity;
use crate::fleet::config::LeaseTimes;
use crate::fleet::error::FleetError;
use crate::fleet::records::{HeldCamera, WorkerRecord};
use crate::fleet::tenure::Tenure;
use crate::pipeline::Cameras;
use crate::sink::outage_log::OutageLog;

/// Pause after a report that failed.
const RETRY: Duration = Duration::from_millis(250);
/// Timeout of a report, so that a lost answer costs little of the lease.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The cameras that a worker has, with the revisions of their leases and records.
pub(super) type Held = Arc<Mutex<BTreeMap<String, HeldCamera>>>;

/// Writes a worker's reports.
pub(super) struct Reporter {
    pub workers: Bucket<WorkerRecord>,
    pub times: LeaseTimes,
    pub tenure: Tenure,
    /// What does not change between two reports.
    pub about: WorkerRecord,
    pub held: Held,
    /// The cameras of the pipeline, for their rates.
    pub cameras: Cameras,
    pub capacity: Capacity,
    /// Receives the worker's id when it has been registered.
    pub id: watch::Sender<Option<String>>,
}

/// A worker that is registered.
struct Registration {
    id: String,
    revision: u64,
}

impl Reporter {
    /// Reports until `ended`, and then deletes the report, so that others get the cameras at once.
    /// From `stop` on, the reports say that the worker takes no more cameras.
    pub async fn run(mut self, stop: CancellationToken, ended: CancellationToken) {
        let mut registration: Option<Registration> = None;
        let mut log = OutageLog::default();
        while !ended.is_cancelled() {
            self.about.draining = stop.is_cancelled();
            let sent = Instant::now();
            let pause = match self.report(&mut registration).await {
                Ok(()) => {
                    self.tenure.extend(sent + self.times.end);
                    if let Some(outage) = log.succeeded(Instant::now()) {
                        tracing::info!(
                            seconds = outage.as_secs(),
                            "the fleet has this worker's reports again"
                        );
                    }
                    self.times.report
                }
                Err(FleetError::Changed(_)) => {
                    tracing::warn!(
                        "the fleet has given this worker's cameras to others; it registers again"
                    );
                    self.lose(&mut registration);
                    continue;
                }
                Err(error) => {
                    if log.failed(&error.to_string(), Instant::now()) {
                        tracing::warn!(%error, "cannot report to the fleet");
                    }
                    RETRY
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled(), if !self.about.draining => {}
                () = ended.cancelled() => {}
            }
        }
        if let Some(Registration { id, revision }) = registration
            && let Err(error) = self.workers.delete(&worker_key(&id), revision).await
        {
            tracing::warn!(%error, "cannot leave the fleet; it notices after the time of a lease");
        }
    }

    /// Ends tenure and registration: the leases are lost, and the worker's cameras are stopped.
    fn lose(&self, registration: &mut Option<Registration>) {
        self.tenure.end();
        *registration = None;
        self.id.send_replace(None);
    }

    /// Writes the next report, or the first one under a new id.
    ///
    /// # Errors
    /// [`FleetError::Changed`] if the report was deleted: the worker counts as lost.
    async fn report(&mut self, registration: &mut Option<Registration>) -> Result<(), FleetError> {
        self.update_record();
        let Some(Registration { id, revision }) = registration else {
            let id = unique(&self.about.name);
            let key = worker_key(&id);
            let revision = in_time(self.workers.create(&key, &self.about)).await?;
            tracing::info!(worker = id, "registered with the fleet");
            self.id.send_replace(Some(id.clone()));
            *registration = Some(Registration { id, revision });
            return Ok(());
        };
        let key = worker_key(id);
        match in_time(self.workers.update(&key, &self.about, *revision)).await {
            Ok(next) => *revision = next,
            // The answer to an earlier report may have been lost. Only this worker writes the
            // record, so a higher revision is its own.
            Err(FleetError::Changed(key)) => match in_time(self.workers.get(&key)).await? {
                Some(stored) if stored.revision > *revision => {
                    *revision = stored.revision;
                    *revision = in_time(self.workers.update(&key, &self.about, *revision)).await?;
                }
                _ => return Err(FleetError::Changed(key)),
            },
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn update_record(&mut self) {
        let now = Instant::now();
        let members = self.cameras.all();
        let held = self
            .held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        self.capacity.update(&members, now);
        self.about.report += 1;
        self.about.capacity = self.capacity.frames_per_second();
        self.about.memory = available_memory();
        self.about.cameras = held
            .into_iter()
            .map(|(name, camera)| {
                let rate = self.capacity.rate(&name);
                (name, HeldCamera { rate, ..camera })
            })
            .collect();
    }
}

/// A name with random digits behind it.
pub(super) fn unique(name: &str) -> String {
    let digits = Uuid::now_v7().simple().to_string();
    let random = &digits[digits.len() - 8..];
    format!("{name}-{random}")
}

/// The result of a request, or an error if it takes longer than [`TIMEOUT`].
async fn in_time<T>(request: impl Future<Output = Result<T, FleetError>>) -> Result<T, FleetError> {
    let answer = tokio::time::timeout(TIMEOUT, request).await;
    answer.unwrap_or_else(|_| {
        Err(FleetError::request(
            "take a report",
            "no answer in a second",
        ))
    })
}

/// Available memory in bytes; 0 if the system does not say.
fn available_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"));
    let kilobytes = line.and_then(|l| l.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}
