//! The embedder: a shared-weight tower that maps a person's crop to the unit sphere (Koch et al. 2015; Schroff et al. 2015).

use std::path::PathBuf;

use ndarray::{Array2, Array4, Axis, Ix2};
use serde::{Deserialize, Serialize};

use crate::detection::{Detection, Embeddings};
use crate::frame::Image;
use crate::geometry::BBox;
use crate::infer::{InferError, Model, PixelFormat, Runtime, SessionOptions, tensor};
use crate::range::{OutOfRange, share, within};
use crate::track::similarity::Calibration;

/// Which embedder, and what it looks at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EmbedderConfig {
    /// Use appearance at all. Without it people are told apart by motion only.
    pub enabled: bool,
    /// ONNX file; a bare name is looked for in the `models` folders.
    pub model: PathBuf,
    /// Crops of detections below this confidence are not embedded, in [0, 1]. Higher saves time and keeps poor crops out.
    pub min_confidence: f32,
    /// At most this many crops a frame, the most confident ones; bounds the time a crowd takes.
    pub max_crops: usize,
}

impl Default for EmbedderConfig {
    fn default() -> Self {
        EmbedderConfig { enabled: true, model: "siamese.onnx".into(), min_confidence: 0.3, max_crops: 128 }
    }
}

impl EmbedderConfig {
    /// Refuses values outside their ranges.
    ///
    /// # Errors
    /// The first such value.
    pub fn validate(&self) -> Result<(), OutOfRange> {
        share("embedder.min_confidence", self.min_confidence)?;
        within("embedder.max_crops", self.max_crops, 1, 10_000)
    }
}

/// An opened embedder.
pub struct Embedder {
    model: Model,
    config: EmbedderConfig,
    format: PixelFormat,
    /// Crop size, pixels: width, height.
    size: (usize, usize),
    dimension: usize,
}

impl Embedder {
    /// Opens the embedder and tries it on one empty crop.
    ///
    /// # Errors
    /// When the file is missing or broken, does not say its crop size or pixel format, does not give [n, d] vectors of unit
    /// length, or the device cannot be used.
    pub fn open(runtime: &Runtime, config: &EmbedderConfig, options: SessionOptions) -> Result<Self, InferError> {
        let model = Model::open(runtime, &config.model, options)?;
        let misfit = |problem: &str| InferError::ModelShape { path: model.path().to_path_buf(), problem: problem.to_string() };
        let size = match (model.dims(), model.metadata().size()) {
            ([_, _, Some(h), Some(w)], _) => (w, h),
            (_, Some(size)) => size,
            _ => return Err(misfit("its input size is free and its metadata has no twintrack.size (WIDTHxHEIGHT of a crop)")),
        };
        let format = model.metadata().pixel_format().ok_or_else(|| misfit("its metadata does not give twintrack.color, twintrack.mean and twintrack.std"))?;
        let mut embedder = Embedder { model, config: config.clone(), format, size, dimension: 0 };
        let (w, h) = size;
        embedder.dimension = embedder.run(Array4::zeros((1, 3, h, w)))?.ncols();
        Ok(embedder)
    }

    /// Embeds the people of one frame, all in one batch.
    ///
    /// # Errors
    /// When the run fails.
    pub fn embed(&mut self, image: &Image, detections: &[Detection]) -> Result<Embeddings, InferError> {
        // Detections come in falling order of confidence.
        let which: Vec<usize> = (0..detections.len()).filter(|&i| detections[i].confidence >= self.config.min_confidence).take(self.config.max_crops).collect();
        if which.is_empty() {
            return Ok(Embeddings::none());
        }
        let crops: Vec<_> = which.iter().map(|&i| (image, &detections[i].bbox)).collect();
        Ok(Embeddings::of(self.embed_crops(&crops)?, &which, detections.len()))
    }

    /// Embeds people out of several pictures in one batch: [n, D], unit rows.
    ///
    /// # Errors
    /// When the run fails.
    pub fn embed_crops(&mut self, crops: &[(&Image, &BBox)]) -> Result<Array2<f32>, InferError> {
        let (w, h) = self.size;
        let mut batch = Array4::zeros((crops.len(), 3, h, w));
        for (mut to, (image, person)) in batch.axis_iter_mut(Axis(0)).zip(crops) {
            tensor::write_crop(image, person, &self.format, to.view_mut());
        }
        self.run(batch)
    }

    /// One batch [n, 3, h, w] to unit vectors [n, d].
    fn run(&mut self, batch: Array4<f32>) -> Result<Array2<f32>, InferError> {
        let n = batch.dim().0;
        let outputs = self.model.run(batch.view())?;
        let misfit = |problem: String| InferError::ModelShape { path: self.model.path().to_path_buf(), problem };
        let shapes: Vec<Vec<usize>> = outputs.iter().map(|o| o.values.shape().to_vec()).collect();
        let vectors = outputs.into_iter().next().and_then(|o| o.values.into_dimensionality::<Ix2>().ok()).filter(|v| v.nrows() == n && v.ncols() > 0);
        let vectors = vectors.ok_or_else(|| misfit(format!("its output has shape {shapes:?}, where [{n}, D] is needed for {n} crops")))?;
        let long = vectors.rows().into_iter().map(|r| r.dot(&r).sqrt()).find(|l| !(0.98..1.02).contains(l));
        match long {
            None => Ok(vectors),
            Some(l) => Err(misfit(format!("an embedding has length {l}, not 1; the graph must end in L2 normalisation"))),
        }
    }

    /// Length of an embedding, D.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// What its distances mean, where `twintrack-train` has found out.
    pub fn calibration(&self) -> Option<Calibration> {
        let [slope, threshold] = self.model.metadata().numbers(Calibration::KEY)?;
        (slope > 0.0 && threshold.is_finite()).then_some(Calibration { slope, threshold })
    }

    /// What its distances mean; refuses a network that does not say.
    ///
    /// # Errors
    /// When it is not calibrated.
    pub fn calibrated(&self) -> Result<Calibration, InferError> {
        let problem = "it is not calibrated (no twintrack.calibration in its metadata), so its distances give no similarity; \
                       export it with twintrack-train, or use the shipped siamese.onnx";
        self.calibration().ok_or_else(|| InferError::ModelShape { path: self.model.path().to_path_buf(), problem: problem.into() })
    }

    /// Name and date of the network: embeddings of different networks cannot be compared.
    pub fn name(&self) -> String {
        let of = |key| self.model.metadata().get(key).unwrap_or("unknown");
        format!("{} {}", of("name"), of("date"))
    }

    /// The opened model: its file, provider, metadata, and the time spent inside it.
    pub fn model(&self) -> &Model {
        &self.model
    }
}
