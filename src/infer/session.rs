//! Opens a model and runs it; measures the time spent in ONNX Runtime.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ndarray::{Array2, Array4, ArrayView4, Axis, Slice};
use ort::logging::LogLevel;
use ort::session::{HasSelectedOutputs, OutputSelector, RunOptions};
use ort::value::{DynValue, Outlet, Tensor, ValueType};

use crate::infer::batch::{self, BatchSizes};
use crate::infer::bound::Memory;
use crate::infer::device::{Preprocessing, Provider};
use crate::infer::element_type;
use crate::infer::error::InferError;
use crate::infer::frame_loader::{Cropper, DevicePictures, FrameLoader, Target};
use crate::infer::metadata::ModelMetadata;
use crate::infer::options::SessionOptions;
use crate::infer::output::Output;
use crate::infer::picture_input::{PictureInput, SIZES, picture_input};
use crate::infer::pixels::PixelFormat;
use crate::infer::runtime::Runtime;
use crate::infer::shapes::SessionPerShape;
use crate::onnx::weights;

/// An open model with one picture input of float32 or float16.
pub struct Model {
    sessions: SessionPerShape,
    path: PathBuf,
    memory: Memory,
    metadata: ModelMetadata,
    weights: String,
    input: PictureInput,
    /// Number of pictures per run, if the file fixes it or accepts single pictures only.
    batch: Option<usize>,
    /// Names of the outputs that a run computes.
    outputs: Vec<String>,
    /// The run options that select these outputs.
    selected: RunOptions<HasSelectedOutputs>,
    busy: Duration,
}

impl Model {
    /// Opens the model file `path`. Resolve names with [`crate::infer::paths::find_model`] first.
    ///
    /// # Errors
    /// Fails when the file is missing or broken, its input is not [N, 3, H, W] of float32 or
    /// float16, or the device cannot be used.
    pub fn open(
        runtime: &Runtime,
        path: &Path,
        options: SessionOptions,
    ) -> Result<Self, InferError> {
        let misfit = |problem: String| InferError::ModelShape {
            path: path.to_path_buf(),
            problem,
        };
        let sessions = SessionPerShape::open(runtime, path, options)?;
        let session = sessions.any();
        let metadata = ModelMetadata::read(session).map_err(misfit)?;
        let input = picture_input(session.inputs()).map_err(misfit)?;
        let outputs: Vec<String> = session
            .outputs()
            .iter()
            .filter(|o| element_type::is_readable(o))
            .map(|o| o.name().to_string())
            .collect();
        let selected = selection(&outputs).map_err(|e| misfit(e.to_string()))?;
        let broken = |e: std::io::Error| InferError::ModelBroken {
            path: path.to_path_buf(),
            reason: e.to_string(),
        };
        let weights = weights::network_hash(path).map_err(broken)?;
        let provider = sessions.provider();
        let memory = Memory::of(provider, options.device).map_err(|e| misfit(e.to_string()))?;
        let model = path.display();
        tracing::debug!(%model, %weights, %provider, threads = options.threads, "model opened");
        let batch = input.dims[0];
        let (path, busy) = (path.to_path_buf(), Duration::ZERO);
        Ok(Model {
            sessions,
            path,
            memory,
            metadata,
            weights,
            input,
            batch,
            outputs,
            selected,
            busy,
        })
    }

    /// Runs any number of pictures [n, 3, h, w]. Returns the outputs in the model's order, each
    /// with n along its first axis. The pictures are run in batches of the sizes that
    /// [`Model::padded`] returns; a smaller last batch is padded with black pictures.
    ///
    /// # Errors
    /// Fails when ONNX Runtime rejects the input or fails, or when the outputs of several runs have
    /// different shapes.
    pub fn run(&mut self, pictures: ArrayView4<'_, f32>) -> Result<Vec<Output>, InferError> {
        let sizes = self.batch_sizes();
        if sizes == BatchSizes::Any {
            return self.run_once(pictures);
        }
        let (mut runs, mut start) = (Vec::new(), 0);
        for (n, size) in sizes.parts(pictures.dim().0) {
            let part = pictures.slice_axis(Axis(0), Slice::from(start..start + n));
            let outputs = match n == size {
                true => self.run_once(part)?,
                false => self.run_once(batch::padded(part, size).view())?,
            };
            runs.push(batch::first(outputs, size, n));
            start += n;
        }
        self.joined(runs)
    }

    fn joined(&self, runs: Vec<Vec<Output>>) -> Result<Vec<Output>, InferError> {
        batch::joined(runs).map_err(|problem| InferError::ModelShape {
            path: self.path.clone(),
            problem,
        })
    }

    fn batch_sizes(&self) -> BatchSizes {
        match self.batch {
            Some(size) => BatchSizes::Fixed(size),
            None if self.provider().is_gpu() => BatchSizes::Powers,
            None => BatchSizes::Any,
        }
    }

    /// Size of the batch in which `n` pictures are run: n on a CPU, the next power of two up to 128
    /// on a GPU, or the number that the file fixes. May be smaller than `n`; then several batches
    /// are run.
    pub fn padded(&self, n: usize) -> usize {
        self.batch_sizes().padded(n)
    }

    /// Splits `n` pictures into batches. Returns for each batch the number of pictures and the
    /// padded size.
    pub fn parts(&self, n: usize) -> Vec<(usize, usize)> {
        self.batch_sizes().parts(n)
    }

    /// Runs one batch of pictures that are in the device's memory. Returns the outputs as
    /// [`Model::run`] does.
    ///
    /// # Errors
    /// Fails when ONNX Runtime rejects the input or fails.
    pub fn run_on_device(&mut self, pictures: &DevicePictures) -> Result<Vec<Output>, InferError> {
        let start = Instant::now();
        let (path, shape) = (self.path.clone(), pictures.shape);
        let fail = |e: ort::Error| InferError::Run {
            path: path.clone(),
            shape: shape.to_vec(),
            reason: e.to_string(),
        };
        let sizes = self.sizes(&shape).map_err(fail)?;
        let mut inputs = vec![(self.input.name.as_str(), &pictures.pictures)];
        inputs.extend(sizes.as_ref().map(|sizes| (SIZES, sizes)));
        let outputs: Vec<_> = self
            .outputs
            .iter()
            .map(|name| (name.as_str(), &self.memory.host))
            .collect();
        let values = self
            .sessions
            .of(shape)?
            .run(&inputs, &outputs)
            .map_err(fail)?;
        let read = |(name, v): (&String, &DynValue)| {
            Ok(Output {
                name: name.clone(),
                values: element_type::floats(v.view()).map_err(fail)?,
            })
        };
        let values: Result<Vec<Output>, InferError> =
            self.outputs.iter().zip(&values).map(read).collect();
        self.busy += start.elapsed();
        Ok(batch::first(values?, shape[0], pictures.count))
    }

    /// Runs black batches of every size that [`Model::padded`] gives for up to `most` pictures of
    /// `width` by `height` pixels, so that the device is prepared for all sizes. Calls `done` with
    /// the batch's size after each. Does nothing on a CPU.
    ///
    /// # Errors
    /// As [`Model::run`].
    pub fn warm_up(
        &mut self,
        (width, height): (usize, usize),
        most: usize,
        mut done: impl FnMut(usize),
    ) -> Result<(), InferError> {
        if self.batch_sizes() != BatchSizes::Powers {
            return Ok(());
        }
        let mut size = 1;
        loop {
            self.run_once(Array4::zeros((size, 3, height, width)).view())?;
            done(size);
            if size >= self.padded(most) {
                break;
            }
            size *= 2;
        }
        self.reset_busy();
        Ok(())
    }

    /// Returns a loader that copies frames to this model's device and prepares the model's input
    /// there; `None` if the input is to be prepared on the CPU.
    ///
    /// # Errors
    /// Fails when the device cannot be used.
    pub fn frame_loader(&self, format: &PixelFormat) -> Result<Option<FrameLoader>, InferError> {
        let target = self.target(format);
        let sizes = self.batch_sizes();
        target.map(|t| FrameLoader::open(&t, sizes)).transpose()
    }

    /// Returns a cropper that cuts crops of `size` (width, height) on this model's device; `None`
    /// if crops are to be cut on the CPU.
    ///
    /// # Errors
    /// Fails when the device cannot be used.
    pub fn cropper(
        &self,
        format: &PixelFormat,
        size: (usize, usize),
    ) -> Result<Option<Cropper>, InferError> {
        let target = self.target(format);
        target.map(|t| Cropper::open(&t, size)).transpose()
    }

    fn target(&self, format: &PixelFormat) -> Option<Target> {
        let (runtime, options) = self.sessions.opened_with();
        let on_device = match options.preprocessing {
            Preprocessing::Auto => self.provider().is_gpu(),
            Preprocessing::Cpu => false,
            Preprocessing::Device => true,
        };
        on_device.then(|| Target {
            runtime: runtime.clone(),
            options,
            path: self.path.clone(),
            format: *format,
            element: self.input.element,
        })
    }

    /// Runs a black picture of `width` by `height` pixels, so that an unsuitable file is reported
    /// when it is opened. Returns the outputs for one picture. If the file declares a free batch
    /// size but does not give outputs for two pictures, later runs use single pictures.
    ///
    /// # Errors
    /// As [`Model::run`].
    pub fn run_black(
        &mut self,
        (width, height): (usize, usize),
    ) -> Result<Vec<Output>, InferError> {
        let black = |n: usize| Array4::zeros((n, 3, height, width));
        if self.batch.is_none() && !self.takes_two(black(2).view()) {
            let model = self.path.display();
            tracing::info!(
                %model,
                "the network gets one picture per run: its outputs for two pictures are unusable, \
                 although its batch size is free"
            );
            self.batch = Some(1);
        }
        self.run(black(1).view())
    }

    /// Whether a run of two pictures gives outputs for both.
    fn takes_two(&mut self, two: ArrayView4<'_, f32>) -> bool {
        let Ok(mut quiet) = selection(&self.outputs) else {
            return false;
        };
        // ONNX Runtime logs a failed run as an error, but here a failure is an expected result.
        if quiet.set_log_level(LogLevel::Fatal).is_err() {
            return false;
        }
        let usual = std::mem::replace(&mut self.selected, quiet);
        let outputs = self.run_once(two);
        self.selected = usual;
        outputs.is_ok_and(|all| all.iter().all(|o| o.values.shape().first() == Some(&2)))
    }

    /// One run of the session.
    fn run_once(&mut self, pictures: ArrayView4<'_, f32>) -> Result<Vec<Output>, InferError> {
        let (n, c, h, w) = pictures.dim();
        let (path, shape) = (self.path.clone(), [n, c, h, w]);
        let fail = |e: ort::Error| InferError::Run {
            path: path.clone(),
            shape: shape.to_vec(),
            reason: e.to_string(),
        };
        let start = Instant::now();
        let tensor = element_type::pictures(pictures, self.input.element).map_err(fail)?;
        let mut inputs = ort::inputs![self.input.name.as_str() => tensor];
        if let Some(sizes) = self.sizes(&shape).map_err(fail)? {
            inputs.push((SIZES.into(), sizes.into()));
        }
        let outputs = self
            .sessions
            .of(shape)?
            .session
            .run_with_options(inputs, &self.selected)
            .map_err(fail)?;
        let read = |(name, v): (&str, _)| {
            Ok(Output {
                name: name.to_string(),
                values: element_type::floats(v).map_err(fail)?,
            })
        };
        let values = outputs.iter().map(read).collect();
        self.busy += start.elapsed();
        values
    }

    /// The second input for pictures of this shape, if the model has one.
    fn sizes(&self, shape: &[usize; 4]) -> ort::Result<Option<DynValue>> {
        if !self.input.wants_sizes {
            return Ok(None);
        }
        let sizes = Array2::from_shape_fn((shape[0], 2), |(_, i)| shape[3 - i] as i64);
        Ok(Some(Tensor::from_array(sizes)?.into_dyn()))
    }

    /// Restricts later runs to these outputs; computing others (masks, for example) wastes time.
    ///
    /// # Errors
    /// Fails when ONNX Runtime rejects the selection.
    pub fn select(&mut self, names: &[&str]) -> Result<(), InferError> {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        self.selected = selection(&names).map_err(|e| InferError::ModelShape {
            path: self.path.clone(),
            problem: format!("its outputs {names:?} cannot be selected: {e}"),
        })?;
        self.outputs = names;
        Ok(())
    }

    /// The file that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The execution provider that runs the model.
    pub fn provider(&self) -> Provider {
        self.sessions.provider()
    }

    /// The file's metadata.
    pub fn metadata(&self) -> &ModelMetadata {
        &self.metadata
    }

    /// Hash of the network without its metadata (`sha256:` and 16 hexadecimal digits): the same for
    /// a copy with another name or other metadata.
    pub fn weights(&self) -> &str {
        &self.weights
    }

    /// Input dimensions N, C, H, W; `None` where free.
    pub fn dims(&self) -> [Option<usize>; 4] {
        self.input.dims
    }

    /// Number of pictures per run, if the file fixes it, or if [`Model::run_black`] has found that
    /// the file accepts single pictures only. [`Model::run`] splits and pads other numbers.
    pub fn batch(&self) -> Option<usize> {
        self.batch
    }

    /// Names and shapes of the outputs; -1 where free.
    pub fn outputs(&self) -> Vec<(String, Vec<i64>)> {
        let shape = |o: &Outlet| match o.dtype() {
            ValueType::Tensor { shape, .. } => shape.to_vec(),
            _ => Vec::new(),
        };
        self.sessions
            .any()
            .outputs()
            .iter()
            .map(|o| (o.name().to_string(), shape(o)))
            .collect()
    }

    /// Resets [`Model::busy`] to zero, after runs that prepare or measure only.
    pub(crate) fn reset_busy(&mut self) {
        self.busy = Duration::ZERO;
    }

    /// Total time spent in ONNX Runtime since the last reset.
    pub fn busy(&self) -> Duration {
        self.busy
    }
}

/// Run options that compute only the outputs `names`.
fn selection(names: &[String]) -> ort::Result<RunOptions<HasSelectedOutputs>> {
    let selector = names
        .iter()
        .fold(OutputSelector::no_default(), |selector, name| {
            selector.with(name)
        });
    Ok(RunOptions::new()?.with_outputs(selector))
}
