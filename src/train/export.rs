//! From the trained tower to the ONNX file that the tracker loads.

use std::fs;
use std::path::Path;

use ndarray::Array4;

use crate::infer::{Device, Model, PixelFormat, Runtime, SessionOptions};
use crate::track::appearance::normalise;
use crate::track::similarity::{Calibration, StrangerTable};
use crate::train::dataset::TrainError;
use crate::train::graph::write::format_entries;
use crate::train::kernels::backend::Kernels;
use crate::train::learner::embed_batch;
use crate::train::network::{Design, Tower};

/// Greatest difference allowed between ONNX Runtime and the training framework.
pub const TOLERANCE: f32 = 1e-4;

/// What the file says of itself beside its format.
#[derive(Debug, Clone)]
pub struct About {
    /// Short name.
    pub name: String,
    /// What it learnt from.
    pub training_data: String,
    /// Licence of the weights.
    pub licence: String,
    /// Fitted calibration, if there were pairs to fit it on.
    pub calibration: Option<Calibration>,
    /// How often strangers are alike, if enough were compared.
    pub strangers: Option<StrangerTable>,
}

/// Writes the tower to `path`, after comparing it with ONNX Runtime on random pictures; returns the difference.
///
/// # Errors
/// When the two differ by more than [`TOLERANCE`], ONNX Runtime is missing, or the file cannot be written. Nothing is
/// written then.
pub fn export<B: Kernels>(
    tower: &Tower<B>,
    about: &About,
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
    metadata.extend(format_entries(&format));
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
    let bytes = tower.to_onnx(&metadata);
    let fresh = path.with_extension("onnx.new");
    fs::write(&fresh, bytes).map_err(|e| TrainError::Write {
        path: path.into(),
        reason: e.to_string(),
    })?;
    let difference = compare(tower, &fresh, device);
    match difference {
        Ok(d) if d <= TOLERANCE => {
            fs::rename(&fresh, path).map_err(|e| TrainError::Write {
                path: path.into(),
                reason: e.to_string(),
            })?;
            Ok(d)
        }
        other => {
            // The file is of no use to anybody; that it may stay behind changes nothing about the error.
            let _ = fs::remove_file(&fresh);
            other.and_then(|d| Err(TrainError::Export(d)))
        }
    }
}

/// Greatest absolute difference between the tower and the file on batches of 1 and 5 random pictures. The file's vectors are
/// brought to unit length, as the tracker does.
fn compare<B: Kernels>(
    tower: &Tower<B>,
    file: &Path,
    device: &B::Device,
) -> Result<f32, TrainError> {
    let mut model = Model::open(
        &Runtime::load()?,
        file,
        SessionOptions {
            device: Device::Cpu,
            threads: 1,
        },
    )?;
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
        // A NaN must not pass for a small difference.
        worst = if theirs.len() == ours.len() {
            differences.fold(worst, |w, d| if d > w || d.is_nan() { d } else { w })
        } else {
            f32::NAN
        };
    }
    Ok(worst)
}
