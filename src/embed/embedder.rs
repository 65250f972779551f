//! The embedder: one tower with shared weights that maps a person's crop to the unit sphere (Koch
//! et al. 2015; Schroff et al. 2015).

use std::path::PathBuf;
use std::time::Instant;

use derive_setters::Setters;
use ndarray::{Array2, Array4, Axis, s};
use serde::{Deserialize, Serialize};

use crate::auto_or;
use crate::detection::{Detection, Embeddings};
use crate::embed::crops::Crops;
use crate::embed::output::{flatten, shapes, vectors};
use crate::frame::Image;
use crate::geometry::BBox;
use crate::infer::paths::find_model;
use crate::infer::{
    Cropper, DeviceFrames, InferError, InputSize, Model, Output, PixelFormat, Runtime,
    SessionOptions, tensor,
};
use crate::range::{OutOfRange, share, within};
use crate::track::embed_policy::EmbedPolicy;
use crate::track::similarity::{Calibration, StrangerTable};

/// A vector is not normalised if its length differs from 1 by at most this.
const UNIT_TOLERANCE: f32 = 1e-4;

/// Embedder settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Setters)]
#[cfg_attr(feature = "serve", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct EmbedderConfig {
    /// Embed crops, so that association compares appearance too. Without it, detections are
    /// associated with tracks by motion only.
    pub enabled: bool,
    /// ONNX file: a path (./mine.onnx), the name of a file in a `models` folder, or the name of an
    /// installed network (`twintrack models list`). A name is never searched for in the working
    /// folder.
    pub model: PathBuf,
    /// Size of a crop in the network's input, in pixels: auto or WIDTHxHEIGHT. auto: as the file's
    /// input or metadata states it.
    pub size: InputSize,
    /// Crops of detections below this confidence (a value in [0, 1]) are not embedded. Higher saves
    /// time and excludes poor crops.
    pub min_confidence: f32,
    /// Maximum number, 1 to 10000, of crops per frame; the most confident ones are embedded. Limits
    /// the time spent on crowds.
    pub max_crops: usize,
    /// Which crops are embedded: all, needed (those whose embeddings can change the association),
    /// or auto: all on a GPU, where they take little time, else as `preset` says.
    #[serde(with = "auto_or")]
    #[cfg_attr(feature = "serve", schemars(with = "auto_or::AutoOr<Crops>"))]
    pub crops: Option<Crops>,
    /// Which crops are needed.
    pub needed: EmbedPolicy,
    /// Pixel format of the input: imagenet-rgb, imagenet-bgr, unit-rgb or bytes-bgr, or a table
    /// with the keys `color` (bgr or rgb), `mean` and `std` (one value per channel, on the 0 to 255
    /// scale). Absent: as in the file's metadata.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pixels: Option<PixelFormat>,
    /// Calibration of cosine distances for --gallery, compare and search: threshold (distance at
    /// similarity 0.5) and slope, as `twintrack-train eval` fits them. Absent: as in the file's
    /// metadata.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
    /// False-accept rates by distance, for compare and for re-identification: RATE@DISTANCE, ...,
    /// as `twintrack-train calibrate` measures them. Absent: as in the file's metadata.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strangers: Option<StrangerTable>,
}

impl Default for EmbedderConfig {
    fn default() -> Self {
        EmbedderConfig {
            enabled: true,
            model: "siamese.onnx".into(),
            size: InputSize::Auto,
            min_confidence: 0.3,
            max_crops: 128,
            crops: None,
            needed: EmbedPolicy::default(),
            pixels: None,
            calibration: None,
            strangers: None,
        }
    }
}

impl EmbedderConfig {
    /// Checks that every value is in its range.
    ///
    /// # Errors
    /// The first value outside its range.
    pub fn validate(&self) -> Result<(), OutOfRange> {
        share("embedder.min_confidence", self.min_confidence)?;
        within("embedder.max_crops", self.max_crops, 1, 10_000)?;
        self.size.validate("embedder.size", 8)?;
        self.needed.validate()?;
        self.pixels
            .map_or(Ok(()), |p| p.validate("embedder.pixels"))?;
        self.calibration
            .map_or(Ok(()), |c| c.validate("embedder.calibration"))
    }
}

/// An open embedder.
pub struct Embedder {
    model: Model,
    config: EmbedderConfig,
    format: PixelFormat,
    /// Crop size in pixels: width, height.
    size: (usize, usize),
    /// Name of the output that holds the vectors.
    output: String,
    dimension: usize,
    /// Cuts crops on the network's device; `None` if crops are cut on the CPU.
    cropper: Option<Cropper>,
}

/// The detected people of one frame whose pixels are in the device's memory.
#[derive(Debug, Clone, Copy)]
pub struct People<'a> {
    /// Index of the frame.
    pub frame: usize,
    /// Size of the frame in pixels: width, height.
    pub size: (u32, u32),
    /// The detections, in descending order of confidence.
    pub detections: &'a [Detection],
}

impl People<'_> {
    /// Whether a box extends beyond the frame. Its crop must then repeat the frame's edge.
    fn exceed_the_frame(&self) -> bool {
        let (width, height) = (self.size.0 as f32, self.size.1 as f32);
        self.detections.iter().any(|d| {
            let b = d.bbox;
            b.left < 0.0 || b.top < 0.0 || b.left + b.width > width || b.top + b.height > height
        })
    }
}

impl Embedder {
    /// Opens the embedder and runs it on one black crop. Crop size and pixel format come from the
    /// configuration, else from the file.
    ///
    /// # Errors
    /// Fails when the file is missing or broken, when neither configuration nor file gives the crop
    /// size and the pixel format, when the network's output is not one vector per crop, and when
    /// the device cannot be used.
    pub fn open(
        runtime: &Runtime,
        config: &EmbedderConfig,
        options: SessionOptions,
    ) -> Result<Self, InferError> {
        let mut model = Model::open(runtime, &find_model(&config.model)?, options)?;
        let misfit = {
            let path = model.path().to_path_buf();
            move |problem: String| InferError::ModelShape {
                path: path.clone(),
                problem,
            }
        };
        let size = crop_size(&model, config.size).map_err(&misfit)?;
        let format = config.pixels.or_else(|| model.metadata().pixel_format());
        let format = format.ok_or_else(|| {
            misfit(
                "its metadata states no pixel format; set embedder.pixels as its authors specify \
                 (imagenet-rgb, imagenet-bgr, unit-rgb, bytes-bgr, or color, mean and std)"
                    .into(),
            )
        })?;
        let (output, dimension) = vectors(&model.run_black(size)?).map_err(misfit)?;
        model.select(&[&output])?;
        let cropper = model.cropper(&format, size)?;
        if model.provider().is_gpu() {
            let start = Instant::now();
            model.warm_up(size, config.max_crops, |_| ())?;
            let (provider, seconds) = (model.provider(), start.elapsed().as_secs_f32());
            tracing::info!(%provider, seconds, "the embedder is prepared");
        }
        Ok(Embedder {
            model,
            config: config.clone(),
            format,
            size,
            output,
            dimension,
            cropper,
        })
    }

    /// Embeds, in one batch, those of a frame's detections that the settings `min_confidence` and
    /// `max_crops` choose. `detections` are in descending order of confidence.
    ///
    /// # Errors
    /// Fails when the run fails.
    pub fn embed(
        &mut self,
        image: &Image,
        detections: &[Detection],
    ) -> Result<Embeddings, InferError> {
        self.embed_those(image, detections, |_| true)
    }

    /// As [`Embedder::embed`], but of the chosen detections only those for whose index `needed` is
    /// true.
    ///
    /// # Errors
    /// Fails when the run fails.
    pub fn embed_those(
        &mut self,
        image: &Image,
        detections: &[Detection],
        needed: impl Fn(usize) -> bool,
    ) -> Result<Embeddings, InferError> {
        let mut which = self.chosen(detections);
        which.retain(|&i| needed(i));
        if which.is_empty() {
            return Ok(Embeddings::none());
        }
        let crops: Vec<_> = which
            .iter()
            .map(|&i| (image, &detections[i].bbox))
            .collect();
        Ok(Embeddings::of(
            self.embed_crops(&crops)?,
            &which,
            detections.len(),
        ))
    }

    /// Indices of the detections whose crops are embedded. `detections` are in descending order of
    /// confidence.
    fn chosen(&self, detections: &[Detection]) -> Vec<usize> {
        (0..detections.len())
            .filter(|&i| detections[i].confidence >= self.config.min_confidence)
            .take(self.config.max_crops)
            .collect()
    }

    /// Whether crops are cut on the network's device.
    pub fn cuts_on_device(&self) -> bool {
        self.cropper.is_some()
    }

    /// Prepares frames of one size for [`Embedder::embed_on_device`]. `None` if crops are cut on
    /// the CPU.
    ///
    /// # Errors
    /// Fails when the device fails.
    pub fn load(&mut self, images: &[&Image]) -> Result<Option<DeviceFrames>, InferError> {
        self.cropper
            .as_mut()
            .map(|cropper| cropper.load(images))
            .transpose()
    }

    /// Embeds the people of several frames in one batch. `None` if [`Embedder::embed`] must be used
    /// instead: if a box extends beyond its frame, or crops are cut on the CPU.
    ///
    /// # Errors
    /// Fails when a run fails.
    pub fn embed_on_device(
        &mut self,
        frames: &DeviceFrames,
        people: &[People<'_>],
    ) -> Result<Option<Vec<Embeddings>>, InferError> {
        let Some(mut cropper) = self
            .cropper
            .take_if(|_| !people.iter().any(People::exceed_the_frame))
        else {
            return Ok(None);
        };
        let which: Vec<Vec<usize>> = people.iter().map(|p| self.chosen(p.detections)).collect();
        let regions: Vec<(usize, BBox)> = people
            .iter()
            .zip(&which)
            .flat_map(|(p, which)| which.iter().map(|&i| (p.frame, p.detections[i].bbox)))
            .collect();
        let vectors = self.vectors_on_device(&mut cropper, frames, &regions);
        self.cropper = Some(cropper);
        let vectors = vectors?;
        let mut start = 0;
        let embeddings = people.iter().zip(which).map(|(p, which)| {
            let rows = vectors.slice(s![start..start + which.len(), ..]);
            start += which.len();
            match which.is_empty() {
                true => Embeddings::none(),
                false => Embeddings::of(rows.to_owned(), &which, p.detections.len()),
            }
        });
        Ok(Some(embeddings.collect()))
    }

    /// Embeds regions (index of the frame, box). Returns unit vectors, [n, D].
    fn vectors_on_device(
        &mut self,
        cropper: &mut Cropper,
        frames: &DeviceFrames,
        regions: &[(usize, BBox)],
    ) -> Result<Array2<f32>, InferError> {
        let mut vectors = Array2::zeros((regions.len(), self.dimension));
        let mut start = 0;
        for (n, padded) in self.model.parts(regions.len()) {
            let crops = cropper.cut(frames, &regions[start..start + n], padded)?;
            let outputs = self.model.run_on_device(&crops)?;
            let part = self.unit_vectors(outputs, n)?;
            vectors.slice_mut(s![start..start + n, ..]).assign(&part);
            start += n;
        }
        Ok(vectors)
    }

    /// Embeds crops of several pictures in one batch. Returns unit vectors, [n, D].
    ///
    /// # Errors
    /// Fails when the run fails.
    pub fn embed_crops(&mut self, crops: &[(&Image, &BBox)]) -> Result<Array2<f32>, InferError> {
        if crops.is_empty() {
            return Ok(Array2::zeros((0, self.dimension)));
        }
        let (w, h) = self.size;
        let mut batch = Array4::zeros((crops.len(), 3, h, w));
        for (mut to, (image, person)) in batch.axis_iter_mut(Axis(0)).zip(crops) {
            tensor::write_crop(image, person, &self.format, to.view_mut());
        }
        self.run(&batch)
    }

    /// Maps crops [n, 3, h, w] to unit vectors [n, D].
    fn run(&mut self, batch: &Array4<f32>) -> Result<Array2<f32>, InferError> {
        let outputs = self.model.run(batch.view())?;
        self.unit_vectors(outputs, batch.dim().0)
    }

    /// The vectors [n, D] among the outputs for `n` crops, scaled to unit length.
    fn unit_vectors(&self, outputs: Vec<Output>, n: usize) -> Result<Array2<f32>, InferError> {
        let misfit = |problem: String| InferError::ModelShape {
            path: self.model.path().to_path_buf(),
            problem,
        };
        let shapes = shapes(&outputs);
        let vectors = outputs
            .into_iter()
            .find(|o| o.name == self.output)
            .and_then(|o| flatten(o.values, n));
        let mut vectors = vectors
            .filter(|v| v.ncols() == self.dimension)
            .ok_or_else(|| {
                misfit(format!(
                    "it gives {shapes} for {n} crops, where [{n}, {}] is needed",
                    self.dimension
                ))
            })?;
        for mut row in vectors.rows_mut() {
            let length = row.dot(&row).sqrt();
            if !length.is_finite() {
                return Err(misfit(format!(
                    "the norm of an embedding is {length}; check that embedder.pixels and \
                     embedder.size suit the network"
                )));
            }
            if (length - 1.0).abs() > UNIT_TOLERANCE {
                // A zero vector stays zero; its distance from all others is equal.
                row /= length.max(f32::MIN_POSITIVE);
            }
        }
        Ok(vectors)
    }

    /// Dimension of an embedding, D.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// Calibration of the network's distances, from the configuration, else from the file.
    pub fn calibration(&self) -> Option<Calibration> {
        if self.config.calibration.is_some() {
            return self.config.calibration;
        }
        let [slope, threshold] = self.model.metadata().numbers(Calibration::KEY)?;
        (slope > 0.0 && threshold.is_finite()).then_some(Calibration { slope, threshold })
    }

    /// False-accept rates by distance, from the configuration, else from the file. A malformed
    /// table in the file is logged and ignored.
    pub fn strangers(&self) -> Option<StrangerTable> {
        if self.config.strangers.is_some() {
            return self.config.strangers.clone();
        }
        let read = self
            .model
            .metadata()
            .get(StrangerTable::KEY)
            .filter(|text| !text.is_empty())?
            .parse();
        let model = self.model.path().display();
        read.inspect_err(|e| tracing::warn!(%model, "ignoring its false-accept rates: {e}"))
            .ok()
    }

    /// As [`Embedder::calibration`], but an error if there is none.
    ///
    /// # Errors
    /// Fails when the network is not calibrated.
    pub fn calibrated(&self) -> Result<Calibration, InferError> {
        let problem = "it is not calibrated (no twintrack.calibration in its metadata), so its \
                       distances give no similarity; measure it with `twintrack-train calibrate`, \
                       which writes the result into a copy, set embedder.calibration, or use the \
                       shipped siamese.onnx. Tracking needs no calibration";
        self.calibration().ok_or_else(|| InferError::ModelShape {
            path: self.model.path().to_path_buf(),
            problem: problem.into(),
        })
    }

    /// Name of the network in its metadata, else the file's name.
    pub fn name(&self) -> String {
        let stem = || {
            self.model
                .path()
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned()
        };
        self.model
            .metadata()
            .get("name")
            .map_or_else(stem, Into::into)
    }

    /// Name of the network, a space, and the hash of its weights; stored with embeddings.
    pub fn identity(&self) -> String {
        format!("{} {}", self.name(), self.model.weights())
    }

    /// Whether embeddings stored with this name and hash were made by this network, so that they
    /// can be compared with its embeddings. Only the hash is compared.
    pub fn made(&self, identity: &str) -> bool {
        identity.rsplit(' ').next() == Some(self.model.weights())
    }

    /// Pixel format of the input.
    pub fn pixels(&self) -> PixelFormat {
        self.format
    }

    /// Size of a crop in pixels: width, height.
    pub fn size(&self) -> (usize, usize) {
        self.size
    }

    /// Name of the output that holds the vectors.
    pub fn output(&self) -> &str {
        &self.output
    }

    /// The opened model.
    pub fn model(&self) -> &Model {
        &self.model
    }
}

/// Resolves width and height of a crop.
fn crop_size(model: &Model, asked: InputSize) -> Result<(usize, usize), String> {
    let [_, _, h, w] = model.dims();
    let show = |side: Option<usize>| side.map_or("any".into(), |s| s.to_string());
    match (asked, model.metadata().size()) {
        (InputSize::Fixed(cw, ch), _)
            if w.is_some_and(|w| w != cw) || h.is_some_and(|h| h != ch) =>
        {
            Err(format!(
                "its input is fixed at {}x{}, not the {cw}x{ch} of embedder.size; omit that \
                 setting",
                show(w),
                show(h)
            ))
        }
        (InputSize::Fixed(w, h), _) => Ok((w, h)),
        (InputSize::Auto, stated) => match (w.zip(h), stated) {
            (Some(size), _) | (None, Some(size)) => Ok(size),
            (None, None) => Err("its input size is free and its metadata names none; set \
                                 embedder.size (WIDTHxHEIGHT of a crop)"
                .into()),
        },
    }
}
