//! The inputs of a run: one input, or many cameras.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::analytics::SceneConfig;
use crate::pipeline::reader::{FailurePolicy, Opener};
use crate::pipeline::roster::CameraConfigs;
use crate::pipeline::stage;
use crate::source::{self, CameraConfig, Source, SourceError, SourceInfo, SourceOptions};
use crate::time::Seconds;

/// Capacity of the queue to the sinks. Live cameras do not wait for a slow sink, so the queue
/// absorbs bursts. If a sink needs pixels, every queued frame keeps its pixels in memory.
const LIVE_SINK_QUEUE: usize = 32;

/// Sources of the frames.
#[expect(
    clippy::large_enum_variant,
    reason = "there is one for each run, and callers write it without a box"
)]
pub enum Inputs {
    /// One input, which decides when the run ends: at the end or an error of a recording, or after
    /// the requested duration of a camera. No `camera_status` events are sent.
    One(Input),
    /// Cameras by name. Each fails and recovers on its own; the run ends with the last of them,
    /// unless it waits for more.
    Many {
        /// The cameras at the start.
        configs: CameraConfigs,
        /// Each message replaces the settings of all cameras.
        changes: mpsc::Receiver<CameraConfigs>,
        /// Function that opens a camera.
        open: Opener,
        /// Whether the run goes on without cameras while `changes` is open.
        waits: bool,
    },
}

impl Inputs {
    pub(super) fn policy(&self) -> FailurePolicy {
        match self {
            Inputs::One(_) => FailurePolicy::EndRun,
            Inputs::Many { .. } => FailurePolicy::Isolate,
        }
    }

    pub(super) fn waits(&self) -> bool {
        matches!(self, Inputs::Many { waits: true, .. })
    }

    /// Function that opens a camera, also again after an interruption.
    pub(super) fn opener(&self) -> Opener {
        match self {
            Inputs::One(input) => input.reopening(),
            Inputs::Many { open, .. } => open.clone(),
        }
    }

    /// Capacity of the queue to the sinks.
    pub(super) fn sink_queue(&self) -> usize {
        match self {
            Inputs::One(input) if !input.info().live => stage::CAPACITY,
            _ => LIVE_SINK_QUEUE,
        }
    }
}

/// One input, open already.
pub struct Input {
    pub(super) source: Box<dyn Source>,
    pub(super) config: CameraConfig,
    pub(super) options: SourceOptions,
}

impl Input {
    /// Opens `input` as [`crate::source::open()`] does. The run reconnects to a camera after an
    /// interruption.
    ///
    /// # Errors
    /// As [`crate::source::open()`].
    pub fn open(input: &str, options: SourceOptions) -> Result<Self, SourceError> {
        let source = source::open(input, &options)?;
        let recorded = Some(!source.info().live);
        Ok(Input {
            source,
            config: CameraConfig::of_input(input, recorded),
            options,
        })
    }

    /// Sets the zones, lines, masks and ground plane.
    #[must_use]
    pub fn with_scene(mut self, scene: SceneConfig) -> Self {
        self.config.set_scene(scene);
        self
    }

    /// Properties of the input that are known before its first frame.
    pub fn info(&self) -> &SourceInfo {
        self.source.info()
    }

    /// Function that reconnects to the camera. `start` applies to the first connection only.
    fn reopening(&self) -> Opener {
        let options = SourceOptions {
            start: Seconds::ZERO,
            ..self.options.clone()
        };
        Arc::new(move |config, reader| {
            let options = SourceOptions {
                link: reader.link.clone(),
                ..options.clone()
            };
            source::open_camera(config, &options)
        })
    }
}
