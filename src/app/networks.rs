//! Opens the networks with the settings of a configuration.

use anyhow::Result;
use twintrack::config::Config;
use twintrack::detect::Detector;
use twintrack::embed::{Crops, Embedder};
use twintrack::frame::Shape;
use twintrack::infer::Runtime;
use twintrack::pipeline::{BatchConfig, CadencePolicy, DetectionSource};
use twintrack::source::SourceInfo;
use twintrack::track::embed_policy::EmbedPolicy;

/// Maximum number of frames of a recording in a batch of the detector.
const LARGEST_BATCH: usize = 32;
/// Maximum number of pixels in such a batch: 16 frames of 1920x1080, which take 400 MB of the
/// device's memory.
const BATCH_PIXELS: usize = 32 << 20;

/// Opens the detector.
///
/// # Errors
/// If ONNX Runtime or the file cannot be used.
pub fn detector(config: &Config) -> Result<Detector> {
    let runtime = Runtime::load()?;
    Ok(Detector::open(
        &runtime,
        &config.detector(),
        config.session(),
    )?)
}

/// Opens the embedder; `None` if `embedder.enabled` is false.
///
/// # Errors
/// If ONNX Runtime or the file cannot be used.
pub fn embedder(config: &Config) -> Result<Option<Embedder>> {
    if !config.embedder.enabled {
        return Ok(None);
    }
    let runtime = Runtime::load()?;
    let embedder = Embedder::open(&runtime, &config.embedder, config.session())?;
    Ok(Some(embedder))
}

/// Batching of one input: one frame at a time for a camera; for a recording, the number of frames
/// that the detector was measured to process fastest together.
///
/// # Errors
/// If the detector fails.
pub fn batch(detector: &mut Detector, info: &SourceInfo) -> Result<BatchConfig> {
    if info.live || info.width == 0 || info.height == 0 {
        return Ok(together(1));
    }
    let pixels = info.width as usize * info.height as usize;
    let most = (BATCH_PIXELS / pixels).clamp(1, LARGEST_BATCH);
    let shape = Shape::square(info.width, info.height);
    Ok(together(detector.fastest_batch(shape, most)?))
}

/// Batches of up to `frames` successive frames of one recording.
pub fn together(frames: usize) -> BatchConfig {
    BatchConfig::default()
        .with_size(frames)
        .with_per_recording(frames)
}

/// The policy by which the detector skips frames.
pub fn cadence(config: &Config, detections: &DetectionSource) -> CadencePolicy {
    let on_gpu = match detections {
        DetectionSource::Network(detector) => detector.model().provider().is_gpu(),
        DetectionSource::Given(_) => false,
    };
    CadencePolicy {
        config: config.cadence.clone(),
        recordings: config.cadence(false, on_gpu),
        live: config.cadence(true, on_gpu),
    }
}

/// The policy by which crops are left out; `None` if there is no embedder or all crops are
/// embedded.
pub fn embed_policy(config: &Config, embedder: Option<&Embedder>) -> Option<EmbedPolicy> {
    let on_gpu = embedder?.model().provider().is_gpu();
    (config.crops(on_gpu) == Crops::Needed).then(|| config.embedder.needed.clone())
}
