//! The identities that `track` and `serve` assign: people of a gallery, and remembered people.

use std::path::Path;

use anyhow::{Result, bail};

use crate::app::show::NO_STRANGER_RATES;
use twintrack::config::Config;
use twintrack::embed::Embedder;
use twintrack::gallery::GalleryReader;
use twintrack::track::identity::IdentityRegistry;

/// The registry that assigns identities to tracks. `enrolling`: whether people may be enrolled
/// while the program runs; this needs a calibrated embedder. `None` if neither a gallery nor
/// `identity.remember` is set, and nobody can be enrolled.
///
/// # Errors
/// If there is no embedder, the embedder is not calibrated, or a picture of the gallery cannot be
/// used.
pub fn registry(
    gallery: Option<&Path>,
    enrolling: bool,
    config: &Config,
    embedder: &mut Option<Embedder>,
    quiet: bool,
) -> Result<Option<IdentityRegistry>> {
    let calibrated = embedder.as_ref().is_some_and(|e| e.calibration().is_some());
    let enrolling = enrolling && calibrated;
    if gallery.is_none() && config.identity.remember <= 0.0 && !enrolling {
        return Ok(None);
    }
    let asked = if gallery.is_some() {
        "--gallery"
    } else {
        "identity.remember"
    };
    let Some(e) = embedder.take() else {
        bail!(
            "{asked} needs an embedder, but embedder.enabled is false; set it to true, or leave \
             out {asked}"
        )
    };
    let calibration = e.calibrated()?;
    let mut gallery_reader = GalleryReader::new(e, config.clone());
    let gallery = gallery.map_or_else(|| Ok(Vec::new()), |dir| gallery_reader.gallery(dir))?;
    if !quiet && !gallery.is_empty() {
        eprintln!("looking for {} people of the gallery", gallery.len());
    }
    let embedder = embedder.insert(gallery_reader.into_embedder());
    let strangers = embedder.strangers();
    if config.identity.remember > 0.0 && strangers.is_none() {
        tracing::warn!(model = %embedder.model().path().display(),
            "identity.remember has no effect, {NO_STRANGER_RATES}");
    }
    Ok(Some(
        IdentityRegistry::new(config.identity.clone(), calibration, gallery)
            .with_memory(strangers, &config.tracker.reidentify),
    ))
}
