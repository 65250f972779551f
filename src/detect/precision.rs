//! The number format of the shipped detector, and the choice between its files.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ndarray::Array4;
use serde::{Deserialize, Serialize};

use crate::infer::paths::find_model;
use crate::infer::{Device, InferError, Model, Runtime, SessionOptions};

/// The shipped detector, and below its int8 version.
pub(super) const SHIPPED: &str = "person_detector.onnx";
const SHIPPED_INT8: &str = "person_detector.int8.onnx";

/// Number format of the shipped detector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "serve", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Precision {
    /// int8 on a CPU where it is faster, float32 elsewhere.
    #[default]
    Auto,
    /// float32.
    Fp32,
    /// int8.
    Int8,
}

/// The file to open: `model`, or for the shipped detector its float32 or int8 version.
pub(super) fn choose_file(
    runtime: &Runtime,
    model: &Path,
    precision: Precision,
    options: SessionOptions,
) -> Result<PathBuf, InferError> {
    if model != Path::new(SHIPPED) {
        return Ok(model.into());
    }
    let int8 = match precision {
        Precision::Int8 => true,
        Precision::Fp32 => false,
        Precision::Auto if !matches!(options.device, Device::Cpu | Device::Auto) => false,
        Precision::Auto if options.device == Device::Auto && Runtime::has_cuda() => false,
        Precision::Auto => has_vnni() || int8_is_faster(runtime, options)?,
    };
    Ok(if int8 { SHIPPED_INT8 } else { SHIPPED }.into())
}

/// Whether this processor has int8 dot-product instructions (x86 VNNI); without them int8 can be
/// slower than float32.
pub fn has_vnni() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::arch::is_x86_feature_detected!("avx512vnni")
            || std::arch::is_x86_feature_detected!("avxvnni")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// Times both files on a small picture, taking the best of four runs each.
fn int8_is_faster(runtime: &Runtime, options: SessionOptions) -> Result<bool, InferError> {
    let best = |name: &str| -> Result<Duration, InferError> {
        let mut model = Model::open(runtime, &find_model(Path::new(name))?, options)?;
        let picture = Array4::zeros((1, 3, 256, 320));
        let mut best = Duration::MAX;
        for _ in 0..4 {
            let start = Instant::now();
            model.run(picture.view())?;
            best = best.min(start.elapsed());
        }
        Ok(best)
    };
    let (int8, fp32) = (best(SHIPPED_INT8)?, best(SHIPPED)?);
    tracing::info!(
        ?int8,
        ?fp32,
        "the processor has no VNNI: measured both precisions"
    );
    Ok(int8 < fp32)
}
