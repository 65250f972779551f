//! The changes of leases that the coordinator decides on.

use crate::clock;
use crate::fleet::buckets::{Bucket, Versioned};
use crate::fleet::error::FleetError;
use crate::fleet::records::{LeaseRecord, Leaving};

/// A change of one camera's lease.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum LeaseChange {
    /// A camera that no worker has is given to one. `revision`: that of the present record, whose
    /// worker is gone; none without a record.
    Give {
        camera: String,
        worker: String,
        revision: Option<u64>,
    },
    /// The worker is to give the camera back, or to keep it after all (`leaving` is none).
    Leave {
        camera: String,
        lease: Versioned<LeaseRecord>,
        leaving: Option<Leaving>,
    },
    /// The record of a gone worker is deleted.
    Delete { camera: String, revision: u64 },
}

impl LeaseChange {
    /// Name of the camera.
    pub fn camera(&self) -> &str {
        match self {
            LeaseChange::Give { camera, .. }
            | LeaseChange::Leave { camera, .. }
            | LeaseChange::Delete { camera, .. } => camera,
        }
    }

    /// Writes the change. Returns the new record, whose time of change is by this machine's clock;
    /// none if it was deleted.
    ///
    /// # Errors
    /// When the record was changed meanwhile, or the server does not answer.
    pub async fn write(
        &self,
        leases: &Bucket<LeaseRecord>,
    ) -> Result<Option<Versioned<LeaseRecord>>, FleetError> {
        let (record, revision) = match self {
            LeaseChange::Give {
                camera,
                worker,
                revision,
            } => {
                let record = LeaseRecord::of(worker);
                let revision = match revision {
                    None => leases.create(camera, &record).await?,
                    Some(revision) => leases.update(camera, &record, *revision).await?,
                };
                (record, revision)
            }
            LeaseChange::Leave {
                camera,
                lease,
                leaving,
            } => {
                let record = LeaseRecord {
                    worker: lease.record.worker.clone(),
                    leaving: leaving.clone(),
                    moved: matches!(leaving, Some(Leaving::To(_))),
                };
                let revision = leases.update(camera, &record, lease.revision).await?;
                (record, revision)
            }
            LeaseChange::Delete { camera, revision } => {
                leases.delete(camera, *revision).await?;
                return Ok(None);
            }
        };
        Ok(Some(Versioned {
            record,
            revision,
            changed: clock::now().0.as_nanosecond(),
        }))
    }
}
