//! A model opened for inference, with its provider and the time spent inside it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ndarray::{Array2, ArrayD, ArrayView4};
use ort::session::Session;
use ort::value::{DynValueRef, Outlet, Tensor, TensorElementType, TensorRef, ValueType};

use crate::infer::metadata::ModelMetadata;
use crate::infer::places::find_model;
use crate::infer::runtime::{Device, InferError, Provider, Runtime};

/// How a session is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionOptions {
    /// Where to run.
    pub device: Device,
    /// CPU threads inside one operator.
    pub threads: usize,
}

/// An opened model with one float32 picture input.
pub struct Model {
    session: Session,
    path: PathBuf,
    provider: Provider,
    metadata: ModelMetadata,
    input: String,
    /// Input dimensions N, C, H, W; `None` where free.
    dims: [Option<usize>; 4],
    /// The model also wants to be told the size to which its boxes are to be scaled (D-FINE, RT-DETR).
    wants_sizes: bool,
    busy: Duration,
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
    /// Opens the model file `path` (a name is looked for in the `models` folders).
    ///
    /// # Errors
    /// When the file is missing or broken, its input is not [N, 3, H, W] float32, or the device cannot be used.
    pub fn open(runtime: &Runtime, path: &Path, options: SessionOptions) -> Result<Self, InferError> {
        let path = find_model(path)?;
        let (session, provider) = open_session(runtime, &path, options)?;
        let metadata = ModelMetadata::read(&session).map_err(|problem| InferError::ModelShape { path: path.clone(), problem })?;
        let (input, dims, wants_sizes) = picture_input(session.inputs()).map_err(|problem| InferError::ModelShape { path: path.clone(), problem })?;
        tracing::debug!(model = %path.display(), %provider, threads = options.threads, "model opened");
        Ok(Model { session, path, provider, metadata, input, dims, wants_sizes, busy: Duration::ZERO })
    }

    /// Runs one batch, [n, 3, h, w]; returns the outputs in the model's order.
    ///
    /// # Errors
    /// When ONNX Runtime refuses the input or fails, or an output is neither float32 nor int64.
    pub fn run(&mut self, batch: ArrayView4<'_, f32>) -> Result<Vec<Output>, InferError> {
        let shape = batch.shape().to_vec();
        let fail = |e: ort::Error| InferError::Run { path: self.path.clone(), shape: shape.clone(), reason: e.to_string() };
        let start = Instant::now();
        let tensor = TensorRef::from_array_view(batch).map_err(fail)?;
        let mut inputs = ort::inputs![self.input.as_str() => tensor];
        if self.wants_sizes {
            let sizes = Array2::from_shape_fn((shape[0], 2), |(_, i)| shape[3 - i] as i64);
            inputs.push((SIZES.into(), Tensor::from_array(sizes).map_err(fail)?.into()));
        }
        let outputs = self.session.run(inputs).map_err(fail)?;
        let float =
            |v: DynValueRef<'_>| v.try_extract_array::<f32>().map(|a| a.to_owned()).or_else(|_| v.try_extract_array::<i64>().map(|a| a.mapv(|x| x as f32)));
        let values = outputs.iter().map(|(name, v)| Ok(Output { name: name.to_string(), values: float(v).map_err(fail)? })).collect();
        self.busy += start.elapsed();
        values
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

    /// Input dimensions N, C, H, W; `None` where free.
    pub fn dims(&self) -> [Option<usize>; 4] {
        self.dims
    }

    /// Names and shapes of the outputs; -1 where free.
    pub fn outputs(&self) -> Vec<(String, Vec<i64>)> {
        let shape = |o: &Outlet| match o.dtype() {
            ValueType::Tensor { shape, .. } => shape.to_vec(),
            _ => Vec::new(),
        };
        self.session.outputs().iter().map(|o| (o.name().to_string(), shape(o))).collect()
    }

    /// Total time spent inside ONNX Runtime.
    pub fn busy(&self) -> Duration {
        self.busy
    }
}

fn open_session(runtime: &Runtime, path: &Path, options: SessionOptions) -> Result<(Session, Provider), InferError> {
    let open = |providers: &[ort::ep::ExecutionProviderDispatch]| -> Result<Session, String> {
        let builder = Session::builder(&runtime.environment).map_err(|e| e.to_string())?;
        let builder = builder.with_intra_threads(options.threads.max(1)).map_err(|e| e.to_string())?;
        // Stages share the cores: a thread that waits by spinning takes time from one that works.
        let builder = builder.with_intra_op_spinning(false).map_err(|e| e.to_string())?;
        // The number of crops changes from frame to frame: a plan of memory for each would grow with the numbers met.
        let builder = builder.with_memory_pattern(false).map_err(|e| e.to_string())?;
        let builder = builder.with_log_level(ort::logging::LogLevel::Error).map_err(|e| e.to_string())?;
        let mut builder = builder.with_execution_providers(providers).map_err(|e| e.to_string())?;
        builder.commit_from_file(path).map_err(|e| e.to_string())
    };
    let cuda = |n: i32| ort::ep::CUDA::default().with_device_id(n).build().error_on_failure();
    let on_gpu = |providers: &[_], provider| open(providers).map(|s| (s, provider));
    let broken = |reason| InferError::ModelBroken { path: path.to_path_buf(), reason };
    let on_cpu = || open(&[]).map(|s| (s, Provider::Cpu)).map_err(broken);
    match options.device {
        Device::Cpu => on_cpu(),
        Device::Cuda(n) => on_gpu(&[cuda(n)], Provider::Cuda).map_err(|reason| InferError::Device { device: options.device, reason }),
        Device::TensorRt => {
            let providers = [ort::ep::TensorRT::default().build().error_on_failure(), cuda(0)];
            on_gpu(&providers, Provider::TensorRt).map_err(|reason| InferError::Device { device: options.device, reason })
        }
        Device::Auto if Runtime::has_cuda() => on_gpu(&[cuda(0)], Provider::Cuda).or_else(|reason| {
            tracing::warn!(%reason, "CUDA is there but does not work; running on the CPU");
            on_cpu()
        }),
        Device::Auto => on_cpu(),
    }
}

fn picture_input(inputs: &[Outlet]) -> Result<(String, [Option<usize>; 4], bool), String> {
    let (pictures, others): (Vec<&Outlet>, Vec<&Outlet>) = inputs.iter().partition(|i| i.name() != SIZES);
    let [input] = pictures.as_slice() else {
        let names: Vec<&str> = pictures.iter().map(|i| i.name()).collect();
        return Err(format!("it has the inputs {names:?} where one picture input [N, 3, H, W] is needed"));
    };
    let ValueType::Tensor { ty: TensorElementType::Float32, shape, .. } = input.dtype() else {
        return Err(format!("its input '{}' is {}, where float32 [N, 3, H, W] is needed", input.name(), input.dtype()));
    };
    let dims: Vec<Option<usize>> = shape.iter().map(|&d| usize::try_from(d).ok()).collect();
    match <[Option<usize>; 4]>::try_from(dims) {
        Ok(d) if d[1].is_none_or(|c| c == 3) => Ok((input.name().to_string(), d, !others.is_empty())),
        _ => Err(format!("its input '{}' has shape {:?}, where [N, 3, H, W] is needed", input.name(), shape.to_vec())),
    }
}
