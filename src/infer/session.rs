//! A model opened for inference, with its provider and the time spent inside it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ndarray::{Array2, Array4, ArrayD, ArrayView4, Axis};
use ort::logging::LogLevel;
use ort::session::{HasSelectedOutputs, OutputSelector, RunOptions, Session};
use ort::value::{Outlet, Tensor, TensorElementType, ValueType};

use crate::infer::metadata::ModelMetadata;
use crate::infer::runtime::{Device, InferError, Provider, Runtime};
use crate::infer::{batch, numbers};
use crate::onnx::weights;

/// How a session is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionOptions {
    /// Where to run.
    pub device: Device,
    /// CPU threads inside one operator.
    pub threads: usize,
}

/// An opened model with one picture input, of float32 or float16.
pub struct Model {
    session: Session,
    path: PathBuf,
    provider: Provider,
    metadata: ModelMetadata,
    weights: String,
    input: PictureInput,
    /// Pictures in every run, where the file fixes that or takes no more at once.
    batch: Option<usize>,
    /// The outputs that a run computes.
    selected: RunOptions<HasSelectedOutputs>,
    busy: Duration,
}

/// The input that takes pictures.
struct PictureInput {
    name: String,
    element: TensorElementType,
    /// N, C, H, W; `None` where free.
    dims: [Option<usize>; 4],
    /// The model also wants to be told the size to which its boxes are to be scaled (D-FINE, RT-DETR).
    wants_sizes: bool,
}

/// One output of a run, as float32.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// The output's name in the model.
    pub name: String,
    /// Its values.
    pub values: ArrayD<f32>,
}

/// The second input that DETR-like exports have: [N, 2] int64, width and height.
const SIZES: &str = "orig_target_sizes";

impl Model {
    /// Opens the model file `path`; names are looked up by [`crate::infer::places::find_model`]
    /// first.
    ///
    /// # Errors
    /// When the file is missing or broken, its input is not [N, 3, H, W] of float32 or float16, or
    /// the device cannot be used.
    pub fn open(
        runtime: &Runtime,
        path: &Path,
        options: SessionOptions,
    ) -> Result<Self, InferError> {
        let misfit = |problem: String| InferError::ModelShape {
            path: path.to_path_buf(),
            problem,
        };
        let (session, provider) = open_session(runtime, path, options)?;
        let metadata = ModelMetadata::read(&session).map_err(misfit)?;
        let input = picture_input(session.inputs()).map_err(misfit)?;
        let readable = session
            .outputs()
            .iter()
            .filter(|o| numbers::is_readable(o))
            .map(Outlet::name);
        let selected = selection(readable).map_err(|e| misfit(e.to_string()))?;
        let broken = |e: std::io::Error| InferError::ModelBroken {
            path: path.to_path_buf(),
            reason: e.to_string(),
        };
        let weights = weights::hash_of(path).map_err(broken)?;
        tracing::debug!(model = %path.display(), %weights, %provider, threads = options.threads, "model opened");
        let batch = input.dims[0];
        let (path, busy) = (path.to_path_buf(), Duration::ZERO);
        Ok(Model {
            session,
            path,
            provider,
            metadata,
            weights,
            input,
            batch,
            selected,
            busy,
        })
    }

    /// Runs pictures [n, 3, h, w], any number of them; returns the outputs in the model's order,
    /// each with n along its first axis. A file that takes a fixed number at once is run as often
    /// as needed, its last batch filled up with black pictures.
    ///
    /// # Errors
    /// When ONNX Runtime refuses the input or fails, or the outputs of several runs do not fit
    /// together.
    pub fn run(&mut self, pictures: ArrayView4<'_, f32>) -> Result<Vec<Output>, InferError> {
        let Some(size) = self.batch else {
            return self.run_once(pictures);
        };
        let mut runs = Vec::new();
        for part in pictures.axis_chunks_iter(Axis(0), size) {
            let n = part.dim().0;
            let outputs = match n == size {
                true => self.run_once(part)?,
                false => self.run_once(batch::padded(part, size).view())?,
            };
            runs.push(batch::first(outputs, size, n));
        }
        batch::joined(runs).map_err(|problem| InferError::ModelShape {
            path: self.path.clone(),
            problem,
        })
    }

    /// Runs black pictures of `width` by `height` pixels, so that a file that does not fit is told
    /// when it is opened; returns the outputs for one picture. A file whose input says that any
    /// number of pictures may come, but which does not give outputs for two, is run with single
    /// pictures from then on.
    ///
    /// # Errors
    /// As [`Model::run`].
    pub fn try_out(&mut self, (width, height): (usize, usize)) -> Result<Vec<Output>, InferError> {
        let black = |n: usize| Array4::zeros((n, 3, height, width));
        if self.batch.is_none() && !self.takes_two(black(2).view()) {
            tracing::info!(model = %self.path.display(), "it takes one picture at a time, though its input says any number");
            self.batch = Some(1);
        }
        self.run(black(1).view())
    }

    /// Whether a run of two pictures gives outputs for two.
    fn takes_two(&mut self, two: ArrayView4<'_, f32>) -> bool {
        let readable = self
            .session
            .outputs()
            .iter()
            .filter(|o| numbers::is_readable(o))
            .map(Outlet::name);
        let Ok(mut quiet) = selection(readable) else {
            return false;
        };
        // ONNX Runtime logs a run that fails; here failure is an answer.
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
        let shape = pictures.shape().to_vec();
        let fail = |e: ort::Error| InferError::Run {
            path: self.path.clone(),
            shape: shape.clone(),
            reason: e.to_string(),
        };
        let start = Instant::now();
        let tensor = numbers::pictures(pictures, self.input.element).map_err(fail)?;
        let mut inputs = ort::inputs![self.input.name.as_str() => tensor];
        if self.input.wants_sizes {
            let sizes = Array2::from_shape_fn((shape[0], 2), |(_, i)| shape[3 - i] as i64);
            inputs.push((
                SIZES.into(),
                Tensor::from_array(sizes).map_err(fail)?.into(),
            ));
        }
        let outputs = self
            .session
            .run_with_options(inputs, &self.selected)
            .map_err(fail)?;
        let read = |(name, v): (&str, _)| {
            Ok(Output {
                name: name.to_string(),
                values: numbers::floats(v).map_err(fail)?,
            })
        };
        let values = outputs.iter().map(read).collect();
        self.busy += start.elapsed();
        values
    }

    /// Computes only these outputs from now on; others (masks, say) cost time for nothing.
    ///
    /// # Errors
    /// When ONNX Runtime refuses the choice.
    pub fn select(&mut self, names: &[&str]) -> Result<(), InferError> {
        let refused = |e: ort::Error| {
            let problem = format!("its outputs {names:?} cannot be chosen: {e}");
            InferError::ModelShape {
                path: self.path.clone(),
                problem,
            }
        };
        self.selected = selection(names.iter().copied()).map_err(refused)?;
        Ok(())
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where it really runs.
    pub fn provider(&self) -> Provider {
        self.provider
    }

    /// What the file says of itself.
    pub fn metadata(&self) -> &ModelMetadata {
        &self.metadata
    }

    /// Hash of the network without what its file says of itself (`sha256:` and 16 hexadecimal
    /// digits): the same for a copy under another name or with other metadata.
    pub fn weights(&self) -> &str {
        &self.weights
    }

    /// Input dimensions N, C, H, W; `None` where free.
    pub fn dims(&self) -> [Option<usize>; 4] {
        self.input.dims
    }

    /// Pictures in every run, where the file fixes that, or [`Model::try_out`] has found that it
    /// takes one at a time. Other numbers are split and filled up by [`Model::run`].
    pub fn batch(&self) -> Option<usize> {
        self.batch
    }

    /// Names and shapes of the outputs; -1 where free.
    pub fn outputs(&self) -> Vec<(String, Vec<i64>)> {
        let shape = |o: &Outlet| match o.dtype() {
            ValueType::Tensor { shape, .. } => shape.to_vec(),
            _ => Vec::new(),
        };
        self.session
            .outputs()
            .iter()
            .map(|o| (o.name().to_string(), shape(o)))
            .collect()
    }

    /// Total time spent inside ONNX Runtime.
    pub fn busy(&self) -> Duration {
        self.busy
    }
}

fn open_session(
    runtime: &Runtime,
    path: &Path,
    options: SessionOptions,
) -> Result<(Session, Provider), InferError> {
    let open = |providers: &[ort::ep::ExecutionProviderDispatch]| -> Result<Session, String> {
        let builder = Session::builder(&runtime.environment).map_err(|e| e.to_string())?;
        let builder = builder
            .with_intra_threads(options.threads.max(1))
            .map_err(|e| e.to_string())?;
        // Stages share the cores: a thread that waits by spinning takes time from one that works.
        let builder = builder
            .with_intra_op_spinning(false)
            .map_err(|e| e.to_string())?;
        // The number of crops changes from frame to frame: a plan of memory for each would grow with the numbers met.
        let builder = builder
            .with_memory_pattern(false)
            .map_err(|e| e.to_string())?;
        let builder = builder
            .with_log_level(ort::logging::LogLevel::Error)
            .map_err(|e| e.to_string())?;
        let mut builder = builder
            .with_execution_providers(providers)
            .map_err(|e| e.to_string())?;
        builder.commit_from_file(path).map_err(|e| e.to_string())
    };
    let cuda = |n: i32| {
        ort::ep::CUDA::default()
            .with_device_id(n)
            .build()
            .error_on_failure()
    };
    let on_gpu = |providers: &[_], provider| open(providers).map(|s| (s, provider));
    let broken = |reason| InferError::ModelBroken {
        path: path.to_path_buf(),
        reason,
    };
    let on_cpu = || open(&[]).map(|s| (s, Provider::Cpu)).map_err(broken);
    match options.device {
        Device::Cpu => on_cpu(),
        Device::Cuda(n) => {
            on_gpu(&[cuda(n)], Provider::Cuda).map_err(|reason| InferError::Device {
                device: options.device,
                reason,
            })
        }
        Device::TensorRt => {
            let providers = [
                ort::ep::TensorRT::default().build().error_on_failure(),
                cuda(0),
            ];
            on_gpu(&providers, Provider::TensorRt).map_err(|reason| InferError::Device {
                device: options.device,
                reason,
            })
        }
        Device::Auto if Runtime::has_cuda() => {
            on_gpu(&[cuda(0)], Provider::Cuda).or_else(|reason| {
                tracing::warn!(%reason, "CUDA is there but does not work; running on the CPU");
                on_cpu()
            })
        }
        Device::Auto => on_cpu(),
    }
}

/// Options of a run that computes only the outputs named.
fn selection<'a>(
    names: impl Iterator<Item = &'a str>,
) -> ort::Result<RunOptions<HasSelectedOutputs>> {
    let selector = names.fold(OutputSelector::no_default(), |selector, name| {
        selector.with(name)
    });
    Ok(RunOptions::new()?.with_outputs(selector))
}

fn picture_input(inputs: &[Outlet]) -> Result<PictureInput, String> {
    let (pictures, others): (Vec<&Outlet>, Vec<&Outlet>) =
        inputs.iter().partition(|i| i.name() != SIZES);
    let [input] = pictures.as_slice() else {
        let all: Vec<String> = pictures
            .iter()
            .map(|i| format!("'{}' {}", i.name(), i.dtype()))
            .collect();
        let all = all.join(", ");
        return Err(format!(
            "it has the inputs {all}, where one picture input [N, 3, H, W] is needed"
        ));
    };
    let wanted = "where [N, 3, H, W] of float32 or float16 is needed";
    let (element, shape) = match input.dtype() {
        ValueType::Tensor { ty, shape, .. } if numbers::takes_pictures(*ty) => (*ty, shape),
        other => return Err(format!("its input '{}' is {other}, {wanted}", input.name())),
    };
    let dims: Vec<Option<usize>> = shape
        .iter()
        .map(|&d| usize::try_from(d).ok().filter(|d| *d > 0))
        .collect();
    match <[Option<usize>; 4]>::try_from(dims) {
        Ok(dims) if dims[1].is_none_or(|c| c == 3) => {
            let name = input.name().to_string();
            Ok(PictureInput {
                name,
                element,
                dims,
                wants_sizes: !others.is_empty(),
            })
        }
        _ => Err(format!(
            "its input '{}' has shape {:?}, {wanted}",
            input.name(),
            shape.to_vec()
        )),
    }
}
