//! The person detector: one session, any of the known output layouts.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ndarray::{Array4, ArrayView4, ArrayViewMut3, Axis};
use serde::{Deserialize, Serialize};

use crate::detect::heads::{self, Layout};
use crate::detect::letterbox::Letterbox;
use crate::detect::nms;
use crate::detection::Detection;
use crate::frame::{Image, Shape};
use crate::infer::{Device, InferError, InputSize, Model, PixelFormat, Runtime, SessionOptions, tensor};
use crate::range::{OutOfRange, share, within};

/// Longest side of an input whose size nobody asked for, pixels.
const LONGEST_SIDE: usize = 768;
/// The detector shipped with the product, and its int8 twin.
const SHIPPED: &str = "person_detector.onnx";
const SHIPPED_INT8: &str = "person_detector.int8.onnx";

/// Number format of the shipped detector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// int8 on a CPU where it is faster, float32 elsewhere.
    #[default]
    Auto,
    /// float32.
    Fp32,
    /// int8.
    Int8,
}

/// Which detector, and how it is used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DetectorConfig {
    /// ONNX file, or the name of one that `twintrack models get` has downloaded; a bare name is looked for in the `models`
    /// folders first.
    pub model: PathBuf,
    /// Number format of the shipped detector: auto, fp32 or int8. A detector of your own runs as it is.
    pub precision: Precision,
    /// Output layout: boxes, yolox, yolo, nanodet, detr or dfine. Absent: as the file's metadata says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layout: Option<Layout>,
    /// Number of the class "person" among the model's classes.
    pub class: usize,
    /// Input size, auto or WIDTHxHEIGHT. Larger finds smaller people, and costs time in proportion to its area.
    pub size: InputSize,
    /// Detections below this confidence are dropped, in [0, 1]. The tracker has thresholds of its own above it.
    pub confidence: f32,
    /// Of boxes that overlap by more than this IoU only the best stays, in (0, 1]. Higher keeps people who stand before each
    /// other, but lets one person be found twice.
    pub nms_iou: f32,
    /// At most this many people a frame, the most confident ones.
    pub max_people: usize,
    /// Pixel format: color (bgr or rgb), mean and std by plane. Absent: as the file's metadata or the layout says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pixels: Option<PixelFormat>,
}

impl Default for DetectorConfig {
    fn default() -> Self {
        DetectorConfig {
            model: SHIPPED.into(),
            precision: Precision::Auto,
            layout: None,
            class: 0,
            size: InputSize::Auto,
            confidence: 0.2,
            nms_iou: 0.6,
            max_people: 300,
            pixels: None,
        }
    }
}

impl DetectorConfig {
    /// Refuses values outside their ranges.
    ///
    /// # Errors
    /// The first such value.
    pub fn validate(&self) -> Result<(), OutOfRange> {
        share("detector.confidence", self.confidence)?;
        share("detector.nms_iou", self.nms_iou)?;
        within("detector.max_people", self.max_people, 1, 10_000)?;
        self.size.validate("detector.size", 32)?;
        self.pixels.map_or(Ok(()), |p| p.validate("detector.pixels"))
    }
}

/// An opened detector.
pub struct Detector {
    model: Model,
    config: DetectorConfig,
    scaling: Scaling,
    layout: Layout,
}

/// How frames become this detector's input. Cheap to clone, so that another thread can do it.
#[derive(Debug, Clone)]
pub struct Scaling {
    format: PixelFormat,
    size: InputSize,
    step: usize,
    stretch: bool,
}

impl Scaling {
    /// Where a frame of this shape lies in the input.
    pub fn letterbox(&self, frame: Shape) -> Letterbox {
        let input = match self.size {
            InputSize::Auto => Letterbox::natural_input(frame, LONGEST_SIDE, self.step),
            InputSize::Fixed(w, h) => (w, h),
        };
        Letterbox::fit(frame, input, self.stretch)
    }

    /// Writes the frame into one picture [3, h, w] of the batch.
    pub fn write(&self, image: &Image, letterbox: &Letterbox, out: ArrayViewMut3<'_, f32>) {
        tensor::write_scaled(image, letterbox.content.0, letterbox.content.1, &self.format, out);
    }

    /// The frame as a batch of one, [1, 3, h, w], and where it lies in it.
    pub fn batch_of_one(&self, image: &Image) -> (Array4<f32>, Letterbox) {
        let letterbox = self.letterbox(image.shape());
        let mut input = Array4::zeros((1, 3, letterbox.input.1, letterbox.input.0));
        self.write(image, &letterbox, input.index_axis_mut(Axis(0), 0));
        (input, letterbox)
    }
}

impl Detector {
    /// Opens the detector.
    ///
    /// # Errors
    /// When the file is missing or broken, its input or output does not fit, or the device cannot be used.
    pub fn open(runtime: &Runtime, config: &DetectorConfig, options: SessionOptions) -> Result<Self, InferError> {
        let path = choose(runtime, config, options)?;
        let model = Model::open(runtime, &path, options)?;
        let misfit = |problem: String| InferError::ModelShape { path: model.path().to_path_buf(), problem };
        let stated = model.metadata().get("layout").and_then(|l| serde_json::from_value(l.into()).ok());
        let layout = config
            .layout
            .or(stated)
            .ok_or_else(|| misfit("its metadata names no output layout; set detector.layout to boxes, yolox, yolo, nanodet, detr or dfine".into()))?;
        let format = config.pixels.or_else(|| model.metadata().pixel_format()).or_else(|| layout.pixel_format());
        let format = format.ok_or_else(|| misfit("its metadata names no pixel format; set detector.pixels (color, mean, std)".into()))?;
        let step = model.metadata().get("stride").and_then(|s| s.parse().ok()).unwrap_or(32);
        let size = match (model.dims(), config.size) {
            ([_, _, Some(h), Some(w)], InputSize::Auto) => InputSize::Fixed(w, h),
            ([_, _, h, w], InputSize::Fixed(cw, ch)) if h.is_some_and(|h| h != ch) || w.is_some_and(|w| w != cw) => {
                return Err(misfit(format!("its input is fixed at {}x{}, not the {cw}x{ch} asked for; leave --size away", show(w), show(h))));
            }
            (_, InputSize::Fixed(w, h)) if w % step != 0 || h % step != 0 => {
                return Err(misfit(format!(
                    "its input must be a multiple of {step} on both sides, not {w}x{h}; try {}x{}",
                    w.div_ceil(step) * step,
                    h.div_ceil(step) * step
                )));
            }
            (_, size) => size,
        };
        let mut detector = Detector { model, config: config.clone(), scaling: Scaling { format, size, step, stretch: layout.stretches() }, layout };
        detector.try_out()?;
        Ok(detector)
    }

    /// Runs an empty picture, so that a model that does not fit is told at the start and not in the middle of the night.
    fn try_out(&mut self) -> Result<(), InferError> {
        let (w, h) = self.scaling.letterbox(Shape::square(320, 320)).input;
        self.detect(Array4::zeros((self.model.dims()[0].unwrap_or(1), 3, h, w)).view(), &[]).map(|_| ())
    }

    /// Detects people in a batch [n, 3, h, w]; `letterboxes` says where each frame lies in it. Boxes are in pixels of the
    /// source frames and inside them, in falling order of confidence.
    ///
    /// # Errors
    /// When the run fails, or its output does not have the layout's shape.
    pub fn detect(&mut self, batch: ArrayView4<'_, f32>, letterboxes: &[(Letterbox, (u32, u32))]) -> Result<Vec<Vec<Detection>>, InferError> {
        let (n, _, h, w) = batch.dim();
        let outputs = self.model.run(batch)?;
        let found = heads::decode(&outputs, self.layout, self.config.class, n, (w, h), self.config.confidence)
            .map_err(|problem| InferError::ModelShape { path: self.model.path().to_path_buf(), problem })?;
        let finish = |(boxes, (letterbox, frame)): (Vec<Detection>, &(Letterbox, (u32, u32)))| {
            let kept = nms::suppress(boxes, self.config.nms_iou, self.config.max_people).into_iter();
            kept.filter_map(|d| letterbox.to_source(&d.bbox).clipped(frame.0 as f32, frame.1 as f32).map(|bbox| Detection { bbox, ..d })).collect()
        };
        Ok(found.into_iter().zip(letterboxes).map(finish).collect())
    }

    /// Detects people in one frame: scales it and runs it as a batch of one.
    ///
    /// # Errors
    /// As [`Detector::detect`].
    pub fn detect_image(&mut self, image: &Image) -> Result<Vec<Detection>, InferError> {
        let (input, letterbox) = self.scaling.batch_of_one(image);
        Ok(self.detect(input.view(), &[(letterbox, (image.width, image.height))])?.pop().unwrap_or_default())
    }

    /// How frames become this detector's input.
    pub fn scaling(&self) -> &Scaling {
        &self.scaling
    }

    /// The opened model: its file, provider, metadata, and the time spent inside it.
    pub fn model(&self) -> &Model {
        &self.model
    }
}

fn show(side: Option<usize>) -> String {
    side.map_or("any".into(), |s| s.to_string())
}

/// The file to open: the shipped detector has an int8 twin.
fn choose(runtime: &Runtime, config: &DetectorConfig, options: SessionOptions) -> Result<PathBuf, InferError> {
    if config.model != Path::new(SHIPPED) {
        return Ok(config.model.clone());
    }
    let int8 = match config.precision {
        Precision::Int8 => true,
        Precision::Fp32 => false,
        Precision::Auto if !matches!(options.device, Device::Cpu | Device::Auto) => false,
        Precision::Auto if options.device == Device::Auto && Runtime::has_cuda() => false,
        Precision::Auto => has_vnni() || int8_is_faster(runtime, options)?,
    };
    Ok(if int8 { SHIPPED_INT8 } else { SHIPPED }.into())
}

/// Whether this processor multiplies int8 vectors in one instruction (x86 VNNI); without it int8 can be slower.
pub fn has_vnni() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::arch::is_x86_feature_detected!("avx512vnni") || std::arch::is_x86_feature_detected!("avxvnni")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// Runs both files a few times on a small picture, and compares the best times.
fn int8_is_faster(runtime: &Runtime, options: SessionOptions) -> Result<bool, InferError> {
    let best = |name: &str| -> Result<Duration, InferError> {
        let mut model = Model::open(runtime, Path::new(name), options)?;
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
    tracing::info!(?int8, ?fp32, "the processor has no VNNI: tried both precisions");
    Ok(int8 < fp32)
}
