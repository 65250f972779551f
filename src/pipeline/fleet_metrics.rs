//! What a fleet measures of itself as it runs: time by stage, latency by camera, sizes of batches.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// A stage.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Stage {
    /// Its name.
    pub stage: &'static str,
}

/// A camera.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfCamera {
    /// Its short name.
    pub camera: String,
}

/// A queue.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Queue {
    /// Its name.
    pub queue: &'static str,
}

type Made<L> = Family<L, Histogram, fn() -> Histogram>;

/// The measurements. Clones share them.
#[derive(Debug, Clone)]
pub struct FleetMetrics {
    stages: Made<Stage>,
    latency: Made<OfCamera>,
    batch: Arc<Histogram>,
    queues: Family<Queue, Gauge>,
}

/// 1 ms to 8 s.
fn durations() -> Histogram {
    Histogram::new((0..14).map(|i| 0.001 * f64::from(1u32 << i)))
}

impl Default for FleetMetrics {
    fn default() -> Self {
        FleetMetrics {
            stages: Family::new_with_constructor(durations),
            latency: Family::new_with_constructor(durations),
            batch: Arc::new(Histogram::new((0..8).map(|i| f64::from(1u32 << i)))),
            queues: Family::default(),
        }
    }
}

impl FleetMetrics {
    /// Puts them under their names.
    pub fn register(&self, registry: &mut Registry) {
        registry.register_with_unit(
            "stage",
            "Time of a batch in a stage",
            Unit::Seconds,
            self.stages.clone(),
        );
        registry.register_with_unit(
            "latency",
            "Time from a frame's decoding to its event",
            Unit::Seconds,
            self.latency.clone(),
        );
        registry.register(
            "queue_frames",
            "Frames that wait: for the detector, for the sinks",
            self.queues.clone(),
        );
        registry.register(
            "batch_frames",
            "Frames that went to the detector at once",
            (*self.batch).clone(),
        );
    }

    /// A stage has worked on a batch.
    pub fn stage(&self, stage: &'static str, took: Duration) {
        self.stages
            .get_or_create(&Stage { stage })
            .observe(took.as_secs_f64());
    }

    /// A frame's event has left so long after its decoding.
    pub fn latency(&self, camera: &str, took: Duration) {
        self.latency
            .get_or_create(&OfCamera {
                camera: camera.into(),
            })
            .observe(took.as_secs_f64());
    }

    /// So many frames went to the detector at once.
    pub fn batch(&self, frames: usize) {
        self.batch.observe(frames as f64);
    }

    /// So many frames wait.
    pub fn queue(&self, queue: &'static str, frames: usize) {
        self.queues
            .get_or_create(&Queue { queue })
            .set(frames as i64);
    }

    /// A camera has left the fleet.
    pub fn forget(&self, camera: &str) {
        self.latency.remove(&OfCamera {
            camera: camera.into(),
        });
    }
}
