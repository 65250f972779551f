//! Opens sessions of ONNX Runtime with an execution provider.

use std::path::Path;

use ort::ep::cuda::ConvAlgorithmSearch;
use ort::ep::{ArenaExtendStrategy, CUDA, ExecutionProviderDispatch, TensorRT};
use ort::logging::LogLevel;
use ort::session::Session;

use crate::infer::device::{Device, Provider};
use crate::infer::error::InferError;
use crate::infer::options::SessionOptions;
use crate::infer::paths::download_folder;
use crate::infer::runtime::Runtime;

/// Source of the network that a session runs.
#[derive(Clone, Copy)]
pub(super) enum Network<'a> {
    /// An ONNX file.
    File(&'a Path),
    /// The bytes of an ONNX file that prepares a network's inputs. The path is the network's, for
    /// error messages.
    Bytes(&'a [u8], &'a Path),
}

impl Network<'_> {
    fn path(&self) -> &Path {
        match self {
            Network::File(path) | Network::Bytes(_, path) => path,
        }
    }
}

/// A free dimension's name in a file, and the size to which it is fixed.
pub(super) type FixedDimension = (String, i64);

/// Opens a session on the device of `options`. `fixed`: free dimensions that have the same size in
/// all runs; ONNX Runtime computes the nodes that depend on nothing else, such as the positions of
/// boxes, only once.
///
/// # Errors
/// Fails when the file is missing or broken, or the device cannot be used.
pub(super) fn session(
    runtime: &Runtime,
    network: Network<'_>,
    options: SessionOptions,
    fixed: &[FixedDimension],
) -> Result<(Session, Provider), InferError> {
    let open = |providers: &[ExecutionProviderDispatch]| {
        commit(runtime, network, options.threads, fixed, providers).map_err(|e| e.to_string())
    };
    let unusable = |reason: String| InferError::Device {
        device: options.device,
        reason: short(&reason),
    };
    let broken = |reason: String| InferError::ModelBroken {
        path: network.path().to_path_buf(),
        reason: plain_reason(reason),
    };
    let on_cpu = || open(&[]).map(|s| (s, Provider::Cpu)).map_err(broken);
    let on_cuda = |n| open(&[cuda(n)]).map(|s| (s, Provider::Cuda));
    match options.device {
        Device::Cpu => on_cpu(),
        Device::Cuda(n) => on_cuda(n).map_err(unusable),
        Device::TensorRt => open(&[tensorrt(), cuda(0)])
            .map(|s| (s, Provider::TensorRt))
            .map_err(unusable),
        Device::Auto if Runtime::has_cuda() => on_cuda(0).or_else(|reason| {
            let reason = short(&reason);
            tracing::warn!(%reason, "CUDA is built in but does not work; running on the CPU");
            on_cpu()
        }),
        Device::Auto => on_cpu(),
    }
}

fn commit(
    runtime: &Runtime,
    network: Network<'_>,
    threads: usize,
    fixed: &[FixedDimension],
    providers: &[ExecutionProviderDispatch],
) -> ort::Result<Session> {
    let mut builder = Session::builder(&runtime.environment)?
        .with_intra_threads(threads.max(1))?
        // Waiting threads do not spin, because the other stages need the cores.
        .with_intra_op_spinning(false)?
        // ONNX Runtime keeps a memory plan for each input shape. The number of crops differs
        // between frames, so the plans would accumulate.
        .with_memory_pattern(false)?
        .with_log_level(LogLevel::Error)?
        .with_execution_providers(providers)?;
    for (name, size) in fixed {
        builder = builder.with_dimension_override(name, *size)?;
    }
    match network {
        Network::File(path) => builder.commit_from_file(path),
        Network::Bytes(bytes, _) => builder.commit_from_memory(bytes),
    }
}

fn cuda(device: i32) -> ExecutionProviderDispatch {
    CUDA::default()
        .with_device_id(device)
        // An exhaustive search takes 350 to 750 ms for each network and shape, this one 60 ms; runs
        // are not faster after an exhaustive search (H200, ONNX Runtime 1.31).
        .with_conv_algorithm_search(ConvAlgorithmSearch::Heuristic)
        // There is a session for each shape, so a session must not allocate more memory than it
        // needs.
        .with_arena_extend_strategy(ArenaExtendStrategy::SameAsRequested)
        .build()
        .error_on_failure()
}

/// TensorRT. Its engines are stored in the data folder, because building one takes minutes.
fn tensorrt() -> ExecutionProviderDispatch {
    let provider = TensorRT::default();
    let provider = match download_folder().map(|f| f.with_file_name("engines")) {
        Some(folder) => {
            let path = folder.display();
            tracing::info!(%path, "TensorRT keeps its engines in this folder");
            provider
                .with_engine_cache(true)
                .with_engine_cache_path(path.to_string())
                .with_timing_cache(true)
                .with_timing_cache_path(path.to_string())
        }
        None => provider,
    };
    provider.build().error_on_failure()
}

/// The useful part of ONNX Runtime's reason: the loader's message if a library cannot be loaded,
/// else the first line. The other lines are positions in source files.
fn short(reason: &str) -> String {
    let line = reason.lines().find(|l| !l.trim().is_empty());
    let line = line.unwrap_or(reason);
    let by_loader = line.split_once(" with error: ").map(|(_, message)| message);
    by_loader.unwrap_or(line).trim().to_string()
}

/// ONNX Runtime's reason; if the file is not a complete ONNX model, a plain explanation instead.
fn plain_reason(reason: String) -> String {
    let unreadable = ["Protobuf parsing failed", "No graph was found"];
    if unreadable.iter().any(|text| reason.contains(text)) {
        "it is damaged or not an ONNX file; copy or download it again".into()
    } else {
        reason
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_is_reported_in_the_loaders_words() {
        let of_runtime = "/onnxruntime_src/core/session/provider_bridge_ort.cc:2043 Get() \
                          [ONNXRuntimeError] : 1 : FAIL : Failed to load library /opt/libtrt.so \
                          with error: libnvinfer.so.10: cannot open shared object file: No such \
                          file or directory\nat line 5\n";
        assert_eq!(
            short(of_runtime),
            "libnvinfer.so.10: cannot open shared object file: No such file or directory"
        );
        assert_eq!(
            short("\nCUDA failure 35: driver too old\nline"),
            "CUDA failure 35: driver too old"
        );
    }
}
