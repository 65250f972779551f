//! The metrics of `/metrics`, for Prometheus.

use std::fmt::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Registry;

use crate::frame::CameraState;
use crate::pipeline::cameras::{Cameras, Member};
use crate::serve::count_metrics::CountCollector;
use crate::serve::hub::Hub;
use crate::serve::metric_family::family;
use crate::serve::stage_metrics::StageMetrics;
use crate::sink::counts::Counts;
use crate::sink::spool::Spool;
use crate::store::History;

/// Metrics that are read from the program's counters at every scrape.
struct ServiceCollector {
    cameras: Cameras,
    hub: Hub,
    spools: Vec<Arc<Spool>>,
    /// Events dropped by the file or standard output.
    dropped: Option<Arc<AtomicU64>>,
    history: Option<History>,
}

impl std::fmt::Debug for ServiceCollector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServiceCollector")
    }
}

/// The registry of all metrics. `dropped` counts events dropped by the file or standard output;
/// `counts` has the numbers of people in zones and over lines.
pub fn registry(
    stages: &StageMetrics,
    cameras: Cameras,
    hub: Hub,
    spools: Vec<Arc<Spool>>,
    dropped: Option<Arc<AtomicU64>>,
    counts: Counts,
    history: Option<History>,
) -> Registry {
    let mut registry = Registry::with_prefix("twintrack");
    stages.register(&mut registry);
    registry.register_collector(Box::new(ServiceCollector {
        cameras,
        hub,
        spools,
        dropped,
        history,
    }));
    registry.register_collector(Box::new(CountCollector(counts)));
    registry
}

impl Collector for ServiceCollector {
    fn encode(&self, mut e: DescriptorEncoder<'_>) -> Result<(), Error> {
        let e = &mut e;
        let all = self.cameras.all();
        let n = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let each = |value: fn(&Member) -> u64| {
            all.iter()
                .map(move |m| (vec![("camera", &*m.name)], value(m)))
        };
        family(
            e,
            "frames_read",
            "Frames decoded",
            true,
            each(|m| m.counts.read.load(Ordering::Relaxed)),
        )?;
        family(
            e,
            "frames_tracked",
            "Frames whose events were written",
            true,
            each(|m| m.counts.tracked.load(Ordering::Relaxed)),
        )?;
        family(
            e,
            "frames_skipped",
            "Frames among them that the detector skipped",
            true,
            each(|m| m.counts.skipped.load(Ordering::Relaxed)),
        )?;
        let dropped = all.iter().flat_map(|m| {
            let c = &m.counts;
            let causes = [
                ("decode_late", m.late()),
                ("detector_busy", n(&c.detector_busy)),
                ("network_failed", n(&c.network_failed)),
                ("sink_slow", n(&c.sink_slow)),
                ("target_fps", m.thinned()),
            ];
            causes.map(|(cause, count)| (vec![("camera", &*m.name), ("cause", cause)], count))
        });
        family(
            e,
            "frames_dropped",
            "Frames dropped, by cause",
            true,
            dropped,
        )?;
        family(
            e,
            "people",
            "Tracks confirmed since the start",
            true,
            each(|m| m.counts.people.load(Ordering::Relaxed)),
        )?;
        family(
            e,
            "people_present",
            "Tracks written for the last frame",
            false,
            each(|m| m.counts.present.load(Ordering::Relaxed)),
        )?;
        family(
            e,
            "camera_up",
            "Whether the camera delivers frames (1 or 0)",
            false,
            each(|m| u64::from(m.state() == CameraState::Online)),
        )?;
        family(
            e,
            "camera_reconnects",
            "Reconnects of the camera",
            true,
            each(Member::reconnects),
        )?;
        family(
            e,
            "camera_failures",
            "Interruptions of the camera, and failed attempts to open it",
            true,
            each(Member::failures),
        )?;
        let quarantined = each(|m| m.counts.quarantined.load(Ordering::Relaxed));
        family(
            e,
            "camera_quarantines",
            "Times the camera was quarantined because networks failed on its frames",
            true,
            quarantined,
        )?;
        family(
            e,
            "camera_hung",
            "Times the camera's decoder hung and was replaced",
            true,
            each(|m| m.counts.hung.load(Ordering::Relaxed)),
        )?;

        let sinks = |value: fn(&Spool) -> u64| {
            self.spools
                .iter()
                .map(move |s| (vec![("sink", s.name())], value(s)))
        };
        family(
            e,
            "spool_events",
            "Events in the spool",
            false,
            sinks(|s| s.counts.events.load(Ordering::Relaxed)),
        )?;
        family(
            e,
            "spool_bytes",
            "Size of the events in the spool, bytes",
            false,
            sinks(|s| s.counts.bytes.load(Ordering::Relaxed)),
        )?;
        family(
            e,
            "sink_delivered",
            "Events acknowledged by the receiver",
            true,
            sinks(|s| s.counts.delivered.load(Ordering::Relaxed)),
        )?;
        let output = self
            .dropped
            .iter()
            .map(|count| (vec![("sink", "output")], n(count)));
        family(
            e,
            "sink_lost",
            "Events dropped without delivery",
            true,
            sinks(|s| s.counts.dropped.load(Ordering::Relaxed)).chain(output),
        )?;
        let refused = sinks(|s| s.counts.refused.load(Ordering::Relaxed));
        family(
            e,
            "sink_refused",
            "Events that the receiver refused, moved to the dead-letter file",
            true,
            refused,
        )?;
        family(
            e,
            "sink_failures",
            "Failed attempts of delivery",
            true,
            sinks(|s| s.counts.failures.load(Ordering::Relaxed)),
        )?;
        family(
            e,
            "sink_connected",
            "Whether the receiver is connected (1 or 0)",
            false,
            sinks(|s| u64::from(s.counts.connected.load(Ordering::Relaxed))),
        )?;
        family(
            e,
            "live_clients",
            "Web clients that receive live events",
            false,
            [(vec![], self.hub.clients())].into_iter(),
        )?;
        family(
            e,
            "live_missed",
            "Live events that web clients missed because they were slow",
            true,
            [(vec![], self.hub.missed())].into_iter(),
        )?;

        if let Some(history) = &self.history {
            history_families(e, history)?;
        }

        let process = process();
        family(
            e,
            "process_memory_bytes",
            "Resident memory of the process, bytes",
            false,
            [(vec![], process.memory)].into_iter(),
        )?;
        family(
            e,
            "process_threads",
            "Threads of the process",
            false,
            [(vec![], process.threads)].into_iter(),
        )?;
        family(
            e,
            "process_open_files",
            "Open file descriptors of the process",
            false,
            [(vec![], process.files)].into_iter(),
        )
    }
}

/// Encodes the metrics of the history.
fn history_families(e: &mut DescriptorEncoder<'_>, history: &History) -> Result<(), Error> {
    let counts = history.counts();
    let n = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let labelled = |label: &'static str| move |(name, count)| (vec![(label, name)], count);
    for (name, help, counter, value) in [
        (
            "history_stored",
            "Changes of tracks, events and cameras committed to the history",
            true,
            n(&counts.stored),
        ),
        (
            "history_failures",
            "Failed attempts to open the history or to commit",
            true,
            n(&counts.failures),
        ),
        (
            "history_waiting",
            "Changes that wait for their commit",
            false,
            history.waiting(),
        ),
        (
            "history_connected",
            "Whether the history's last commit succeeded (1 or 0)",
            false,
            u64::from(counts.connected.load(Ordering::Relaxed)),
        ),
        (
            "history_embeddings",
            "Embeddings that the search holds in memory",
            false,
            history.embeddings_in_memory(),
        ),
    ] {
        family(e, name, help, counter, [(vec![], value)].into_iter())?;
    }
    family(
        e,
        "history_dropped",
        "Changes that are not in the history, by cause",
        true,
        counts.dropped().into_iter().map(labelled("cause")),
    )?;
    family(
        e,
        "history_removed",
        "Rows deleted from the history by age or size, by kind",
        true,
        counts.removed().into_iter().map(labelled("kind")),
    )
}

/// Resources of this process.
#[derive(Debug, Default, PartialEq)]
pub struct Process {
    /// Resident memory in bytes.
    pub memory: u64,
    /// Number of threads.
    pub threads: u64,
    /// Number of open file descriptors.
    pub files: u64,
}

/// Reads the resources from `/proc`; zeros if `/proc` is not available (not Linux).
pub fn process() -> Process {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let number = |key: &str| {
        status
            .lines()
            .find_map(|l| l.strip_prefix(key))
            .and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok())
            .unwrap_or(0)
    };
    let files =
        std::fs::read_dir("/proc/self/fd").map_or(0, |d| d.count().saturating_sub(1) as u64);
    Process {
        memory: 1024 * number("VmRSS:"),
        threads: number("Threads:"),
        files,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_reads_memory_threads_and_files() {
        let p = process();
        assert!(
            p.memory > 1 << 20 && p.threads >= 1 && p.files >= 3,
            "{p:?}"
        );
    }

    #[test]
    fn metrics_are_encoded_as_openmetrics() {
        use crate::pipeline::Observer as _;
        let stages = StageMetrics::default();
        stages.stage("detect", std::time::Duration::from_millis(30), 3);
        stages.batch(3);
        let registry = registry(
            &stages,
            Cameras::default(),
            Hub::default(),
            Vec::new(),
            None,
            Counts::default(),
            None,
        );
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("to a String");
        for line in [
            "twintrack_stage_seconds_count{stage=\"detect\"} 1",
            "twintrack_batch_frames_sum 3.0",
            "twintrack_live_clients 0",
            "# EOF",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn the_history_has_metrics() {
        let dir = tempfile::tempdir().expect("a folder");
        let config = crate::store::HistoryConfig::default();
        let run = crate::trajectory::RunId::nil();
        let history = History::open(&config, dir.path(), run).expect("opened");
        let (stages, hub) = (StageMetrics::default(), Hub::default());
        let kept = Some(history.clone());
        let (cameras, counts) = (Cameras::default(), Counts::default());
        let registry = registry(&stages, cameras, hub, Vec::new(), None, counts, kept);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("to a String");
        for line in [
            "twintrack_history_stored_total 0",
            "twintrack_history_waiting 0",
            "twintrack_history_embeddings 0",
            "twintrack_history_dropped_total{cause=\"queue_full\"} 0",
            "twintrack_history_removed_total{kind=\"crops\"} 0",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
