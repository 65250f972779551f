//! Finds and loads the ONNX Runtime library.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use ort::environment::Environment;
use ort::ep::ExecutionProvider as _;

use crate::infer::error::InferError;
use crate::infer::paths::library_folders;

/// The loaded library and its environment. Clones share both.
#[derive(Clone)]
pub struct Runtime {
    pub(super) environment: Environment,
    library: PathBuf,
}

impl Runtime {
    /// Finds and loads the library: ORT_DYLIB_PATH, then `.deps/onnxruntime` and `lib` beside the
    /// program and above it, then `lib` in the data folder (`~/.local/share/twintrack`), then the
    /// system's folders.
    ///
    /// # Errors
    /// Fails when no library is found or it cannot be loaded.
    pub fn load() -> Result<Self, InferError> {
        // ONNX Runtime allows one environment per process.
        static LOADED: OnceLock<Result<Runtime, (PathBuf, String)>> = OnceLock::new();
        let library = find_library()?;
        let loaded = LOADED.get_or_init(|| {
            preload_cuda(&library);
            let environment = ort::init_from(&library)
                .map_err(|e| e.to_string())
                .and_then(|b| {
                    b.with_name("twintrack")
                        .with_telemetry(false)
                        .build()
                        .map_err(|e| e.to_string())
                });
            environment
                .map(|environment| Runtime {
                    environment,
                    library: library.clone(),
                })
                .map_err(|reason| (library.clone(), reason))
        });
        loaded
            .clone()
            .map_err(|(path, reason)| InferError::LibraryBroken { path, reason })
    }

    /// The library's path.
    pub fn library(&self) -> &Path {
        &self.library
    }

    /// Whether the library was built with CUDA; this does not mean that a GPU is present.
    pub fn has_cuda() -> bool {
        ort::ep::CUDA::is_available().unwrap_or(false)
    }

    /// Whether the library was built with TensorRT; this does not mean that a GPU is present.
    pub fn has_tensorrt() -> bool {
        ort::ep::TensorRT::is_available().unwrap_or(false)
    }

    /// The library's own description of its version and build.
    pub fn build_info() -> &'static str {
        ort::info()
    }
}

/// Loads the CUDA and cuDNN libraries that `make setup-gpu` put beside ONNX Runtime. The CUDA
/// provider refers to them by name only, so the loader would not find them in that folder.
fn preload_cuda(library: &Path) {
    let Some(folder) = library
        .parent()
        .filter(|f| f.join("libcudart.so.13").exists())
    else {
        return;
    };
    if let Err(e) = ort::ep::cuda::preload_dylibs(Some(folder), Some(folder)) {
        let folder = folder.display();
        tracing::info!(%folder, error = %e, "cannot load all CUDA libraries beside ONNX Runtime");
    }
}

fn find_library() -> Result<PathBuf, InferError> {
    const NAME: &str = if cfg!(target_os = "macos") {
        "libonnxruntime.dylib"
    } else {
        "libonnxruntime.so"
    };
    if let Some(path) = std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from) {
        return if path.is_file() {
            Ok(path)
        } else {
            Err(InferError::LibraryMissing {
                searched: format!("ORT_DYLIB_PATH={}", path.display()),
            })
        };
    }
    let folders = library_folders();
    let found = folders.iter().map(|p| p.join(NAME)).find(|p| p.is_file());
    found.ok_or_else(|| InferError::LibraryMissing {
        searched: folders
            .iter()
            .map(|p| p.display().to_string())
            .collect::<Vec<_>>()
            .join(", "),
    })
}
