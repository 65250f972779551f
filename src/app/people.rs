//! Who is who across cameras: starts the matching in the history.

use anyhow::{Result, bail};

use twintrack::embed::Embedder;
use twintrack::serve::config::ServiceConfig;
use twintrack::store::History;
use twintrack::store::person_matching::PersonMatching;
use twintrack::store::write::embedder_hash;

/// Starts the matching, if the configuration has `[multi_camera]`.
///
/// # Errors
/// When the history stores no embeddings, or the embedder is not calibrated.
pub fn start(
    service: &ServiceConfig,
    history: &History,
    embedder: Option<&Embedder>,
) -> Result<Option<PersonMatching>> {
    let Some(config) = &service.multi_camera else {
        return Ok(None);
    };
    if !history.config().embeddings {
        bail!("[multi_camera] compares embeddings: set history.embeddings = true");
    }
    let Some((hash, calibration)) = embedder.and_then(|e| {
        let hash = embedder_hash(&e.identity()).into();
        Some((hash, e.calibration()?))
    }) else {
        bail!(
            "[multi_camera] needs a calibrated embedder: see `twintrack doctor` and \
             `twintrack-train calibrate`"
        );
    };
    let matching = history.match_people(config.clone(), vec![(hash, calibration)])?;
    Ok(Some(matching))
}
