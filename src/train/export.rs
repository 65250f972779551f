//! Exports the trained tower to an ONNX file for the tracker.

use std::fs;
use std::path::Path;

use ndarray::Array4;

use crate::infer::{Device, Model, PixelFormat, Runtime, SessionOptions};
use crate::track::appearance::normalise;
use crate::track::similarity::{Calibration, StrangerTable};
use crate::train::embed::embed_batch;
use crate::train::error::TrainError;
use crate::train::graph::write::pixel_format_entries;
use crate::train::kernels::backend::Kernels;
use crate::train::network::{Design, Tower};

/// Largest allowed difference between ONNX Runtime and the training framework.
pub const TOLERANCE: f32 = 1e-4;

/// Metadata of an exported file, except its pixel format.
#[derive(Debug, Clone)]
pub struct ExportMetadata {
    /// Short name.
    pub name: String,
    /// Description of the training data.
    pub training_data: String,
    /// Licence of the weights.
    pub licence: String,
    /// Fitted calibration, if measured.
    pub calibration: Option<Calibration>,
    /// False-accept rates by distance, if measured.
    pub strangers: Option<StrangerTable>,
}

/// Writes the tower to `path` after comparing its output with ONNX Runtime's on random pictures;
/// returns the largest difference.
///
/// # Errors
/// Fails when the difference exceeds [`TOLERANCE`], ONNX Runtime is missing, or the file cannot be
/// written. After an error `path` is unchanged.
pub fn export<B: Kernels>(
    tower: &Tower<B>,
    about: &ExportMetadata,
    path: &Path,
    device: &B::Device,
) -> Result<f32, TrainError> {
    let (height, width) = tower.size();
    let format = tower.design().pixels.unwrap_or(PixelFormat::UNIT_RGB);
    let mut metadata: Vec<(String, String)> = [
        ("kind", "embedder".to_string()),
        ("name", about.name.clone()),
        ("size", format!("{width}x{height}")),
        ("dimension", tower.design().dimension.to_string()),
        ("precision", "fp32".into()),
        ("training_data", about.training_data.clone()),
        ("licence", about.licence.clone()),
        ("date", jiff::Timestamp::now().strftime("%F").to_string()),
    ]
    .map(|(k, v)| (k.to_string(), v))
    .to_vec();
    metadata.extend(pixel_format_entries(&format));
    metadata.extend(
        about
            .calibration
            .map(|c| (Calibration::KEY.to_string(), c.entry())),
    );
    metadata.extend(
        about
            .strangers
            .as_ref()
            .map(|s| (StrangerTable::KEY.to_string(), s.to_string())),
    );
    write_checked(path, &tower.to_onnx(&metadata), |fresh| {
        let difference = compare(tower, fresh, device)?;
        if difference <= TOLERANCE {
            Ok(difference)
        } else {
            Err(TrainError::Export(difference))
        }
    })
}

/// Writes a network to a file beside `path`, and renames the file to `path` if `check` accepts it.
/// Returns the result of `check`.
///
/// # Errors
/// Those of `check`, and when the file cannot be written. After an error `path` is unchanged.
pub(super) fn write_checked<T>(
    path: &Path,
    bytes: &[u8],
    check: impl FnOnce(&Path) -> Result<T, TrainError>,
) -> Result<T, TrainError> {
    let fresh = path.with_extension("onnx.new");
    let failed = |e: std::io::Error| TrainError::Write {
        path: path.into(),
        reason: e.to_string(),
    };
    fs::write(&fresh, bytes).map_err(failed)?;
    let checked = check(&fresh).and_then(|passed| {
        fs::rename(&fresh, path).map_err(failed)?;
        Ok(passed)
    });
    if checked.is_err() {
        // An error of deleting the temporary file is ignored, because the original error is
        // reported.
        let _ = fs::remove_file(&fresh);
    }
    checked
}

/// The larger difference. NaN, which must count as a failure, is larger than all numbers.
pub(super) fn larger(a: f32, b: f32) -> f32 {
    if b > a || b.is_nan() { b } else { a }
}

/// Largest absolute difference between the embeddings of the tower and of the file, on batches of 1
/// and 5 random pictures. The file's vectors are normalised to unit length, as in the tracker.
fn compare<B: Kernels>(
    tower: &Tower<B>,
    file: &Path,
    device: &B::Device,
) -> Result<f32, TrainError> {
    let mut model = Model::open(&Runtime::load()?, file, SessionOptions::new(Device::Cpu, 1))?;
    let mut rng = fastrand::Rng::with_seed(1);
    let mut worst = 0.0f32;
    let (height, width) = tower.size();
    for n in [1, 5] {
        let batch = Array4::from_shape_simple_fn((n, 3, height, width), || rng.f32());
        let plain = Design {
            colours: false,
            normalise: false,
            ..*tower.design()
        }
        .inputs(batch.clone())
        .crops;
        let outputs = model.run(plain.view())?;
        let ours = embed_batch(tower, batch, device);
        let theirs = &outputs.first().ok_or(TrainError::Export(f32::NAN))?.values;
        let mut theirs: Vec<f32> = theirs.iter().copied().collect();
        theirs
            .chunks_mut(tower.design().dimension)
            .for_each(normalise);
        let differences = theirs.iter().zip(&ours).map(|(a, b)| (a - b).abs());
        worst = if theirs.len() == ours.len() {
            differences.fold(worst, larger)
        } else {
            f32::NAN
        };
    }
    Ok(worst)
}
