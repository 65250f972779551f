//! Opens the networks with the settings of a configuration.

use anyhow::Result;
use twintrack::config::Config;
use twintrack::detect::Detector;
use twintrack::embed::Embedder;
use twintrack::infer::Runtime;

/// Opens the detector.
///
/// # Errors
/// If ONNX Runtime or the file cannot be used.
pub fn detector(config: &Config) -> Result<Detector> {
    let runtime = Runtime::load()?;
    Ok(Detector::open(
        &runtime,
        &config.detector,
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
