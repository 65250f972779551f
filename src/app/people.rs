//! Who is who across cameras: what the matching in the history needs.

use anyhow::{Result, bail};

use twintrack::embed::Embedder;
use twintrack::multi_camera::MultiCameraConfig;
use twintrack::serve::config::ServiceConfig;
use twintrack::store::History;
use twintrack::store::person_matching::{CalibratedEmbedder, PersonMatching};
use twintrack::store::write::embedder_hash;

/// Settings of the matching, and the embedder whose tracks are matched.
pub struct Matching {
    config: MultiCameraConfig,
    embedder: CalibratedEmbedder,
}

/// The matching, if the configuration has `[multi_camera]`; it is not started yet.
///
/// # Errors
/// When there is no history, the history stores no embeddings, or the embedder is not calibrated.
pub fn matching(service: &ServiceConfig, embedder: Option<&Embedder>) -> Result<Option<Matching>> {
    let Some(config) = service.multi_camera.clone() else {
        return Ok(None);
    };
    let Some(history) = &service.history else {
        bail!("[multi_camera] needs a section [history]");
    };
    if !history.embeddings {
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
    Ok(Some(Matching {
        config,
        embedder: (hash, calibration),
    }))
}

impl Matching {
    /// Starts the matching.
    ///
    /// # Errors
    /// When the settings are invalid, or its thread cannot be started.
    pub fn start(self, history: &History) -> Result<PersonMatching> {
        Ok(history.match_people(self.config, vec![self.embedder])?)
    }
}
