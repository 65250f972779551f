//! Measurements of the pipeline as Prometheus metrics: time by stage, latency by camera, batch
//! sizes.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::pipeline::observer::Observer;

/// Label of a stage.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Stage {
    /// The name.
    pub stage: &'static str,
}

/// Label of a camera.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfCamera {
    /// Short name of the camera.
    pub camera: String,
}

/// Label of a queue.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Queue {
    /// The name.
    pub queue: &'static str,
}

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// The metrics. Clones share them.
#[derive(Debug, Clone)]
pub struct StageMetrics {
    stages: Histograms<Stage>,
    latency: Histograms<OfCamera>,
    batch: Arc<Histogram>,
    queues: Family<Queue, Gauge>,
}

/// Buckets from 1 ms to 8 s.
fn durations() -> Histogram {
    Histogram::new((0..14).map(|i| 0.001 * f64::from(1u32 << i)))
}

impl Default for StageMetrics {
    fn default() -> Self {
        StageMetrics {
            stages: Family::new_with_constructor(durations),
            latency: Family::new_with_constructor(durations),
            batch: Arc::new(Histogram::new((0..8).map(|i| f64::from(1u32 << i)))),
            queues: Family::default(),
        }
    }
}

impl StageMetrics {
    /// Registers the metrics under their names.
    pub fn register(&self, registry: &mut Registry) {
        registry.register_with_unit(
            "stage",
            "Time that a stage took for a batch, seconds",
            Unit::Seconds,
            self.stages.clone(),
        );
        registry.register_with_unit(
            "latency",
            "Time from when a frame has been decoded until its event is passed to the sinks, seconds",
            Unit::Seconds,
            self.latency.clone(),
        );
        registry.register(
            "queue_frames",
            "Frames that wait for the detector or the sinks",
            self.queues.clone(),
        );
        registry.register(
            "batch_frames",
            "Frames in a batch of the detector",
            (*self.batch).clone(),
        );
    }
}

impl Observer for StageMetrics {
    fn stage(&self, stage: &'static str, took: Duration, _: usize) {
        // The duration of decoding is not recorded, because it includes waiting for the camera.
        if stage != "decode" {
            self.stages
                .get_or_create(&Stage { stage })
                .observe(took.as_secs_f64());
        }
    }

    fn latency(&self, camera: &str, took: Duration) {
        self.latency
            .get_or_create(&OfCamera {
                camera: camera.into(),
            })
            .observe(took.as_secs_f64());
    }

    fn batch(&self, frames: usize) {
        self.batch.observe(frames as f64);
    }

    fn queue(&self, queue: &'static str, frames: usize) {
        self.queues
            .get_or_create(&Queue { queue })
            .set(frames as i64);
    }

    fn forget(&self, camera: &str) {
        self.latency.remove(&OfCamera {
            camera: camera.into(),
        });
    }
}
