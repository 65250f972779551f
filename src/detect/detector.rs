//! The detector: runs its network and decodes the outputs by their layout.

use std::collections::BTreeSet;
use std::path::PathBuf;

use derive_setters::Setters;
use ndarray::{Array4, ArrayView4, ArrayViewMut3, Axis};
use serde::{Deserialize, Serialize};

use crate::auto_or;
use crate::detect::batch_outputs::BatchOutputs;
use crate::detect::decode;
use crate::detect::infer_format::{self, Decision};
use crate::detect::layout::Layout;
use crate::detect::letterbox::Letterbox;
use crate::detect::nms;
use crate::detect::precision::{Precision, SHIPPED, choose_file};
use crate::detection::Detection;
use crate::frame::{Image, Shape};
use crate::infer::paths::find_model;
use crate::infer::{
    FrameLoader, InferError, InputSize, Model, Output, PixelFormat, Runtime, SessionOptions, tensor,
};
use crate::range::{OutOfRange, share, within};

mod on_device;

/// Longest side in pixels of the input when neither the model nor the user fixes it.
const LONGEST_SIDE: usize = 768;

/// Detector settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Setters)]
#[cfg_attr(feature = "serve", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct DetectorConfig {
    /// ONNX file: a path (./mine.onnx), the name of a file in a `models` folder, or the name of an
    /// installed network (`twintrack models list`). A name is never searched for in the working
    /// folder.
    pub model: PathBuf,
    /// Number format of the shipped detector: auto, fp32 or int8. Other detectors run in the format
    /// of their file.
    pub precision: Precision,
    /// Layout of the outputs: auto, boxes, yolox, yolox-decoded, yolov5, yolo, end2end, nanodet,
    /// atss, detr, rfdetr or dfine. auto: as in the file's metadata, else inferred from the names,
    /// shapes and values of the outputs.
    #[serde(with = "auto_or")]
    #[cfg_attr(feature = "serve", schemars(with = "auto_or::AutoOr<Layout>"))]
    pub layout: Option<Layout>,
    /// Number of the class "person" among the network's classes, counted from 0; auto: the class
    /// with that name in the file; without names, 1 for a DETR-like network of 91 classes (COCO's
    /// own numbering), else 0.
    #[serde(with = "auto_or")]
    #[cfg_attr(feature = "serve", schemars(with = "auto_or::AutoOr<usize>"))]
    pub class: Option<usize>,
    /// Size of the network's input in pixels: auto or WIDTHxHEIGHT. A larger one detects smaller
    /// people; the time grows with the area. auto: as the network's file fixes it, else the frame's
    /// size, scaled down to `longest_side`.
    pub size: InputSize,
    /// Longest side of the input in pixels, 32 to 8192, if `size` is auto; auto: as `preset` says.
    #[serde(with = "auto_or")]
    #[cfg_attr(feature = "serve", schemars(with = "auto_or::AutoOr<usize>"))]
    pub longest_side: Option<usize>,
    /// Detections below this confidence (a value in [0, 1]) are dropped. The tracker applies its
    /// own, higher thresholds.
    pub confidence: f32,
    /// Of boxes that overlap by more than this IoU, a value in [0, 1], only the most confident is
    /// kept. Higher keeps people who stand close together, but may detect a person twice.
    pub nms_iou: f32,
    /// Maximum number, 1 to 10000, of detections per frame; the most confident ones are kept.
    pub max_people: usize,
    /// Pixel format of the input: imagenet-rgb, imagenet-bgr, unit-rgb or bytes-bgr, or a table
    /// with the keys `color` (bgr or rgb), `mean` and `std` (one value per channel, on the 0 to 255
    /// scale). Absent: as in the file's metadata or as the layout implies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pixels: Option<PixelFormat>,
}

impl Default for DetectorConfig {
    fn default() -> Self {
        DetectorConfig {
            model: SHIPPED.into(),
            precision: Precision::Auto,
            layout: None,
            class: None,
            size: InputSize::Auto,
            longest_side: None,
            confidence: 0.2,
            nms_iou: 0.6,
            max_people: 300,
            pixels: None,
        }
    }
}

impl DetectorConfig {
    /// Checks that every value is in its range.
    ///
    /// # Errors
    /// The first value outside its range.
    pub fn validate(&self) -> Result<(), OutOfRange> {
        share("detector.confidence", self.confidence)?;
        share("detector.nms_iou", self.nms_iou)?;
        within("detector.max_people", self.max_people, 1, 10_000)?;
        self.size.validate("detector.size", 32)?;
        within(
            "detector.longest_side",
            self.longest_side.unwrap_or(LONGEST_SIDE),
            32,
            8192,
        )?;
        self.pixels
            .map_or(Ok(()), |p| p.validate("detector.pixels"))
    }
}

/// An open detector.
pub struct Detector {
    model: Model,
    config: DetectorConfig,
    scaling: Scaling,
    format: DetectorFormat,
    /// Prepares the detector's input on its device; absent if the CPU prepares the input, and after
    /// the loader was taken.
    loader: Option<FrameLoader>,
    /// Largest number of frames that a batch is expected to have.
    largest_batch: usize,
    /// Sizes (width, height) of the inputs that the device is prepared for.
    prepared: BTreeSet<(usize, usize)>,
}

/// Layout, class and pixel format of a detector, with the source of each decision.
#[derive(Debug, Clone, PartialEq)]
pub struct DetectorFormat {
    /// Output layout.
    pub layout: Decision<Layout>,
    /// Number of the class "person".
    pub class: Decision<usize>,
    /// Pixel format of the input.
    pub pixels: Decision<PixelFormat>,
}

/// Scales frames into the detector's input. Cheap to clone, so that another thread can scale.
#[derive(Debug, Clone)]
pub struct Scaling {
    format: PixelFormat,
    size: InputSize,
    longest_side: usize,
    step: usize,
    stretch: bool,
}

impl Scaling {
    /// Placement of a frame of this shape in the input.
    pub fn letterbox(&self, frame: Shape) -> Letterbox {
        let input = match self.size {
            InputSize::Auto => Letterbox::natural_input(frame, self.longest_side, self.step),
            InputSize::Fixed(w, h) => (w, h),
        };
        Letterbox::fit(frame, input, self.stretch)
    }

    /// Writes the frame into one picture [3, h, w] of a batch.
    pub fn write(&self, image: &Image, letterbox: &Letterbox, out: ArrayViewMut3<'_, f32>) {
        tensor::write_scaled(
            image,
            letterbox.content.0,
            letterbox.content.1,
            &self.format,
            out,
        );
    }

    /// Scales the frame into a batch of one, [1, 3, h, w], and returns its placement.
    pub fn batch_of_one(&self, image: &Image) -> (Array4<f32>, Letterbox) {
        let letterbox = self.letterbox(image.shape());
        let mut input = Array4::zeros((1, 3, letterbox.input.1, letterbox.input.0));
        self.write(image, &letterbox, input.index_axis_mut(Axis(0), 0));
        (input, letterbox)
    }
}

impl Detector {
    /// Opens the detector and runs it on a black picture.
    ///
    /// # Errors
    /// Fails when the file is missing or broken, its input or outputs are unsuitable, or the device
    /// cannot be used.
    pub fn open(
        runtime: &Runtime,
        config: &DetectorConfig,
        options: SessionOptions,
    ) -> Result<Self, InferError> {
        let path = choose_file(runtime, &config.model, config.precision, options)?;
        let mut model = Model::open(runtime, &find_model(&path)?, options)?;
        let misfit = {
            let path = model.path().to_path_buf();
            move |problem: String| InferError::ModelShape {
                path: path.clone(),
                problem,
            }
        };
        let step = model
            .metadata()
            .get("stride")
            .and_then(|s| s.parse().ok())
            .unwrap_or(32);
        let longest_side = config.longest_side.unwrap_or(LONGEST_SIDE);
        let size = input_size(model.dims(), config.size, step).map_err(&misfit)?;
        let tried = match size {
            InputSize::Fixed(w, h) => (w, h),
            InputSize::Auto => {
                Letterbox::natural_input(Shape::square(320, 320), longest_side, step)
            }
        };
        let outputs = model.run_black(tried)?;
        let batch = BatchOutputs {
            outputs: &outputs,
            n: 1,
            input: tried,
            class: 0,
            threshold: config.confidence,
        };
        let format = decide_format(&model, config, batch).map_err(misfit)?;
        // Outputs of four axes are masks, except with ATSS; they are not computed.
        let is_read = |o: &&Output| o.values.ndim() < 4 || format.layout.value == Layout::Atss;
        let read: Vec<&str> = outputs
            .iter()
            .filter(is_read)
            .map(|o| o.name.as_str())
            .collect();
        if read.len() < outputs.len() {
            model.select(&read)?;
        }
        let scaling = Scaling {
            format: format.pixels.value,
            size,
            longest_side,
            step,
            stretch: format.layout.value.stretches(),
        };
        let loader = model.frame_loader(&format.pixels.value)?;
        Ok(Detector {
            model,
            config: config.clone(),
            scaling,
            format,
            loader,
            largest_batch: 1,
            prepared: BTreeSet::new(),
        })
    }

    /// Detects people in a batch [n, 3, h, w]. `letterboxes` gives each frame's placement and size.
    /// Boxes are in pixels of the source frames, clipped to them, in descending order of
    /// confidence.
    ///
    /// # Errors
    /// Fails when the run fails or an output does not have the layout's shape.
    pub fn detect(
        &mut self,
        batch: ArrayView4<'_, f32>,
        letterboxes: &[(Letterbox, (u32, u32))],
    ) -> Result<Vec<Vec<Detection>>, InferError> {
        let (_, _, h, w) = batch.dim();
        let outputs = self.model.run(batch)?;
        self.decoded(&outputs, (w, h), letterboxes)
    }

    /// Reads the outputs for a batch of as many pictures as `letterboxes`.
    fn decoded(
        &self,
        outputs: &[Output],
        input: (usize, usize),
        letterboxes: &[(Letterbox, (u32, u32))],
    ) -> Result<Vec<Vec<Detection>>, InferError> {
        let (class, threshold) = (self.format.class.value, self.config.confidence);
        let read = BatchOutputs {
            outputs,
            n: letterboxes.len(),
            input,
            class,
            threshold,
        };
        let found = decode::decode(&read, self.format.layout.value);
        let found = found.map_err(|problem| InferError::ModelShape {
            path: self.model.path().to_path_buf(),
            problem,
        })?;
        let finish = |(boxes, (letterbox, frame)): (Vec<Detection>, &(Letterbox, (u32, u32)))| {
            let kept =
                nms::suppress(boxes, self.config.nms_iou, self.config.max_people).into_iter();
            kept.filter_map(|d| {
                letterbox
                    .to_source(&d.bbox)
                    .clipped(frame.0 as f32, frame.1 as f32)
                    .map(|bbox| Detection { bbox, ..d })
            })
            .collect()
        };
        Ok(found.into_iter().zip(letterboxes).map(finish).collect())
    }

    /// Detects people in one frame: scales it and runs it as a batch of one.
    ///
    /// # Errors
    /// As [`Detector::detect`].
    pub fn detect_image(&mut self, image: &Image) -> Result<Vec<Detection>, InferError> {
        let (input, letterbox) = self.scaling.batch_of_one(image);
        Ok(self
            .detect(input.view(), &[(letterbox, (image.width, image.height))])?
            .pop()
            .unwrap_or_default())
    }

    /// The interpretation of outputs and pixels, with the reasons.
    pub fn format(&self) -> &DetectorFormat {
        &self.format
    }

    /// The scaling of frames to this detector's input.
    pub fn scaling(&self) -> &Scaling {
        &self.scaling
    }

    /// The opened model: its file, provider, metadata, and the time spent inside it.
    pub fn model(&self) -> &Model {
        &self.model
    }
}

/// Resolves the input size from the model's dimensions, `None` where free, and the setting. Free
/// dimensions must be multiples of `step`.
fn input_size(
    dims: [Option<usize>; 4],
    asked: InputSize,
    step: usize,
) -> Result<InputSize, String> {
    match (dims, asked) {
        ([_, _, Some(h), Some(w)], InputSize::Auto) => Ok(InputSize::Fixed(w, h)),
        ([_, _, h, w], InputSize::Fixed(cw, ch))
            if h.is_some_and(|h| h != ch) || w.is_some_and(|w| w != cw) =>
        {
            Err(format!(
                "its input is fixed at {}x{}, not the requested {cw}x{ch}; omit --size or \
                 detector.size",
                show(w),
                show(h)
            ))
        }
        ([_, _, fixed_h, fixed_w], InputSize::Fixed(w, h))
            if (fixed_w.is_none() && w % step != 0) || (fixed_h.is_none() && h % step != 0) =>
        {
            let (whole_w, whole_h) = (w.div_ceil(step) * step, h.div_ceil(step) * step);
            Err(format!(
                "its input must be a multiple of {step} on both sides, not {w}x{h}; try \
                 {whole_w}x{whole_h}"
            ))
        }
        (_, size) => Ok(size),
    }
}

/// Decides how the outputs for one black picture are interpreted. The configuration takes
/// precedence over the file's metadata, and that over what the outputs show.
fn decide_format(
    model: &Model,
    config: &DetectorConfig,
    batch: BatchOutputs<'_>,
) -> Result<DetectorFormat, String> {
    let metadata = model.metadata();
    let stated = metadata.get("layout").and_then(Layout::from_name);
    let layout = match (config.layout, stated) {
        (Some(layout), _) => Decision::new(layout, "the configuration"),
        (None, Some(layout)) => Decision::new(layout, "the file's metadata"),
        (None, None) => infer_format::layout(&batch, metadata.classes().len())?,
    };
    let class = match config.class {
        Some(class) => Decision::new(class, "the configuration"),
        None => infer_format::class(metadata.classes(), decode::classes(&batch, layout.value))?,
    };
    let batch = BatchOutputs {
        class: class.value,
        ..batch
    };
    decode::decode(&batch, layout.value)
        .map_err(|problem| format!("{problem}; {}", infer_format::suggestion(&batch)))?;
    if config.layout.is_some() {
        infer_format::contradiction(&batch, layout.value)?;
    }
    let pixels = config.pixels.map(|p| (p, "the configuration"));
    let pixels = pixels.or_else(|| metadata.pixel_format().map(|p| (p, "the file's metadata")));
    let pixels = pixels.or_else(|| layout.value.pixel_format().map(|p| (p, "the layout")));
    let (pixels, by) = pixels.ok_or(
        "neither its metadata nor the layout 'boxes' defines the pixel format; set \
         detector.pixels as its authors specify (imagenet-rgb, imagenet-bgr, unit-rgb, bytes-bgr, \
         or color, mean and std)",
    )?;
    Ok(DetectorFormat {
        layout,
        class,
        pixels: Decision::new(pixels, by),
    })
}

fn show(side: Option<usize>) -> String {
    side.map_or("any".into(), |s| s.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_free_dimensions_must_be_multiples_of_the_step() {
        let fixed = [None, Some(3), Some(300), Some(300)];
        let asked = |w, h| InputSize::Fixed(w, h);
        assert_eq!(input_size(fixed, InputSize::Auto, 32), Ok(asked(300, 300)));
        assert_eq!(input_size(fixed, asked(300, 300), 32), Ok(asked(300, 300)));
        assert!(input_size(fixed, asked(320, 320), 32).is_err_and(|e| e.contains("fixed")));
        let free = [None, Some(3), None, None];
        assert_eq!(input_size(free, asked(320, 640), 32), Ok(asked(320, 640)));
        assert!(input_size(free, asked(300, 320), 32).is_err_and(|e| e.contains("320x320")));
    }
}
