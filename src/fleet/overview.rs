//! The cameras and workers of a fleet as users see them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use crate::fleet::buckets::{Fleet, Versioned, worker_id};
use crate::fleet::error::FleetError;
use crate::fleet::records::{LeaseRecord, WorkerRecord};

/// A camera of a fleet.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct FleetCamera {
    /// Its name.
    pub name: String,
    /// Its address, without secrets.
    pub url: String,
    /// Labels that its worker must have.
    pub labels: Vec<String>,
    /// Its priority.
    pub priority: i32,
    /// Revision of its record.
    pub revision: u64,
    /// Number of its lease, if a worker tracks it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease: Option<u64>,
    /// Name of the worker that tracks it; absent if none does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
}

/// A worker of a fleet.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct FleetWorker {
    /// Its id.
    pub id: String,
    /// Its last report.
    #[serde(flatten)]
    pub report: WorkerRecord,
}

impl FleetWorker {
    /// Frames per second of its cameras.
    pub fn rate(&self) -> f64 {
        self.report.cameras.values().map(|c| c.rate).sum()
    }
}

/// A fleet.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct FleetOverview {
    /// The workers, by id.
    pub workers: Vec<FleetWorker>,
    /// The cameras, by name.
    pub cameras: Vec<FleetCamera>,
}

impl FleetOverview {
    /// Reads the records.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn read(fleet: &Fleet) -> Result<Self, FleetError> {
        let cameras = fleet.cameras.all(">").await?;
        let leases = fleet.leases.all(">").await?;
        let workers = fleet.workers.all("worker.>").await?;
        let camera = |(name, camera): (String, Versioned<_>)| {
            let lease = leases.get(&name);
            let holder = lease.and_then(|l| holder(&name, &l.record, &workers));
            let config: crate::source::CameraConfig = camera.record;
            FleetCamera {
                lease: holder.map(|(_, lease)| lease),
                worker: holder.map(|(worker, _)| worker.to_string()),
                url: config.url.to_string(),
                labels: config.labels,
                priority: config.priority,
                revision: camera.revision,
                name,
            }
        };
        let cameras = cameras.into_iter().map(camera).collect();
        let worker = |(key, worker): (&String, &Versioned<WorkerRecord>)| FleetWorker {
            id: worker_id(key).into(),
            report: worker.record.clone(),
        };
        Ok(FleetOverview {
            workers: workers.iter().map(worker).collect(),
            cameras,
        })
    }

    /// The cameras that no worker tracks.
    pub fn without_worker(&self) -> impl Iterator<Item = &FleetCamera> {
        self.cameras.iter().filter(|c| c.worker.is_none())
    }
}

/// The name of the worker that tracks a camera and the number of its lease, if its report says so.
fn holder<'a>(
    camera: &str,
    lease: &LeaseRecord,
    workers: &'a BTreeMap<String, Versioned<WorkerRecord>>,
) -> Option<(&'a str, u64)> {
    let mut workers = workers.iter();
    let (_, worker) = workers.find(|(key, _)| worker_id(key) == lease.worker)?;
    let held = worker.record.cameras.get(camera)?;
    Some((worker.record.name.as_str(), held.lease))
}
