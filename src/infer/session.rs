//! Opens a model for inference and runs it; keeps its execution provider and the time spent.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ndarray::{Array2, Array4, ArrayView4, Axis};
use ort::logging::LogLevel;
use ort::session::{HasSelectedOutputs, OutputSelector, RunOptions, Session};
use ort::value::{Outlet, Tensor, TensorElementType, ValueType};

use crate::infer::device::{Device, Provider};
use crate::infer::error::InferError;
use crate::infer::metadata::ModelMetadata;
use crate::infer::output::Output;
use crate::infer::runtime::Runtime;
use crate::infer::{batch, element_type};
use crate::onnx::weights;

/// Options for opening a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionOptions {
    /// Device to run on.
    pub device: Device,
    /// Number of CPU threads inside one operator.
    pub threads: usize,
}

impl SessionOptions {
    /// Options for a device and a number of CPU threads inside one operator.
    pub const fn new(device: Device, threads: usize) -> Self {
        SessionOptions { device, threads }
    }
}

/// An open model with one picture input of float32 or float16.
pub struct Model {
    session: Session,
    path: PathBuf,
    provider: Provider,
    metadata: ModelMetadata,
    weights: String,
    input: PictureInput,
    /// Pictures per run, where the file fixes the number or accepts single pictures only.
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
    /// The model also needs an input of sizes to scale its boxes to (D-FINE, RT-DETR).
    wants_sizes: bool,
}

/// The second input of DETR-like exports: [N, 2] int64, width and height.
const SIZES: &str = "orig_target_sizes";

impl Model {
    /// Opens the model file `path`. It does not search: resolve names with
    /// [`crate::infer::paths::find_model`] first.
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
        let (session, provider) = open_session(runtime, path, options)?;
        let metadata = ModelMetadata::read(&session).map_err(misfit)?;
        let input = picture_input(session.inputs()).map_err(misfit)?;
        let readable = session
            .outputs()
            .iter()
            .filter(|o| element_type::is_readable(o))
            .map(Outlet::name);
        let selected = selection(readable).map_err(|e| misfit(e.to_string()))?;
        let broken = |e: std::io::Error| InferError::ModelBroken {
            path: path.to_path_buf(),
            reason: e.to_string(),
        };
        let weights = weights::network_hash(path).map_err(broken)?;
        let model = path.display();
        tracing::debug!(%model, %weights, %provider, threads = options.threads, "model opened");
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

    /// Runs any number of pictures [n, 3, h, w]. Returns the outputs in the model's order, each
    /// with n along its first axis. A file with a fixed batch size is run as often as needed; the
    /// last batch is padded with black pictures.
    ///
    /// # Errors
    /// Fails when ONNX Runtime rejects the input or fails, or when the outputs of several runs have
    /// different shapes.
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

    /// Whether a run of two pictures gives outputs for two.
    fn takes_two(&mut self, two: ArrayView4<'_, f32>) -> bool {
        let readable = self
            .session
            .outputs()
            .iter()
            .filter(|o| element_type::is_readable(o))
            .map(Outlet::name);
        let Ok(mut quiet) = selection(readable) else {
            return false;
        };
        // ONNX Runtime logs a failed run as an error; here failure is an expected answer.
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
        let tensor = element_type::pictures(pictures, self.input.element).map_err(fail)?;
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
                values: element_type::floats(v).map_err(fail)?,
            })
        };
        let values = outputs.iter().map(read).collect();
        self.busy += start.elapsed();
        values
    }

    /// Restricts later runs to these outputs; computing others (masks, for example) wastes time.
    ///
    /// # Errors
    /// Fails when ONNX Runtime rejects the selection.
    pub fn select(&mut self, names: &[&str]) -> Result<(), InferError> {
        let rejected = |e: ort::Error| {
            let problem = format!("its outputs {names:?} cannot be selected: {e}");
            InferError::ModelShape {
                path: self.path.clone(),
                problem,
            }
        };
        self.selected = selection(names.iter().copied()).map_err(rejected)?;
        Ok(())
    }

    /// The file that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The execution provider that runs the model.
    pub fn provider(&self) -> Provider {
        self.provider
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

    /// Pictures per run, where the file fixes the number or [`Model::run_black`] has found that it
    /// accepts single pictures only. [`Model::run`] splits and pads other numbers.
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
        // Without spinning, so that waiting threads leave the cores to the other stages.
        let builder = builder
            .with_intra_op_spinning(false)
            .map_err(|e| e.to_string())?;
        // ONNX Runtime keeps one memory plan per input shape; the number of crops differs from
        // frame to frame, so that the plans would accumulate.
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
    let broken = |reason: String| InferError::ModelBroken {
        path: path.to_path_buf(),
        reason: plain_reason(reason),
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
                tracing::warn!(%reason, "CUDA is built in but does not work; running on the CPU");
                on_cpu()
            })
        }
        Device::Auto => on_cpu(),
    }
}

/// ONNX Runtime's reason, or what it means if the file is no whole ONNX model.
fn plain_reason(reason: String) -> String {
    let unreadable = ["Protobuf parsing failed", "No graph was found"];
    if unreadable.iter().any(|text| reason.contains(text)) {
        "it is damaged or not an ONNX file; copy or download it again".into()
    } else {
        reason
    }
}

/// Run options that compute only the outputs `names`.
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
        ValueType::Tensor { ty, shape, .. } if element_type::takes_pictures(*ty) => (*ty, shape),
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
