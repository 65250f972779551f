//! The ONNX Runtime library: where it is found, and the device it is asked to use.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::OnceLock;

use ort::environment::Environment;
use ort::ep::ExecutionProvider as _;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::infer::places::library_places;

/// What can go wrong with inference.
#[derive(Debug, Error)]
pub enum InferError {
    /// No library was found.
    #[error(
        "the ONNX Runtime library was not found (looked in: {looked}); run `make setup`, or set ORT_DYLIB_PATH to a libonnxruntime.so"
    )]
    LibraryMissing {
        /// The places looked in.
        looked: String,
    },
    /// The library was found but does not load.
    #[error("cannot load ONNX Runtime from {}: {reason}; run `make setup` again, or set ORT_DYLIB_PATH to a libonnxruntime.so of version 1.31 or newer", path.display())]
    LibraryBroken {
        /// The library.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A model file is missing.
    #[error(
        "the model {} does not exist (looked in: {looked}); {hint}name a file with --detector or --embedder, download one of `twintrack models list` with \
         `twintrack models get NAME`, or set TWINTRACK_MODELS to the folder of models",
        path.display()
    )]
    ModelMissing {
        /// The file asked for.
        path: PathBuf,
        /// The places looked in.
        looked: String,
        /// What else to do, ending in "; otherwise ", or nothing.
        hint: String,
    },
    /// A model does not load.
    #[error("cannot load the model {}: {reason}", path.display())]
    ModelBroken {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A model's inputs, outputs or metadata are not what is needed.
    #[error("the model {} does not fit: {problem}", path.display())]
    ModelShape {
        /// The file.
        path: PathBuf,
        /// What does not fit, and what would.
        problem: String,
    },
    /// The device asked for cannot be used.
    #[error(
        "the device {device} cannot be used: {reason}; use --device cpu, or run `make setup-gpu` and `twintrack doctor`"
    )]
    Device {
        /// The device.
        device: Device,
        /// Why.
        reason: String,
    },
    /// A run failed.
    #[error("running the model {} on an input of shape {shape:?} failed: {reason}", path.display())]
    Run {
        /// The model.
        path: PathBuf,
        /// The input's shape.
        shape: Vec<usize>,
        /// Why.
        reason: String,
    },
}

/// Where networks run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Device {
    /// CUDA where it works, the CPU otherwise.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// An NVIDIA GPU by number; it is an error when it cannot be used.
    Cuda(i32),
    /// TensorRT on the first NVIDIA GPU; it is an error when it cannot be used.
    TensorRt,
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Auto => f.write_str("auto"),
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(n) => write!(f, "cuda:{n}"),
            Device::TensorRt => f.write_str("tensorrt"),
        }
    }
}

impl FromStr for Device {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "auto" => Ok(Device::Auto),
            "cpu" => Ok(Device::Cpu),
            "cuda" => Ok(Device::Cuda(0)),
            "tensorrt" => Ok(Device::TensorRt),
            _ => s
                .strip_prefix("cuda:")
                .and_then(|n| n.parse().ok())
                .map(Device::Cuda)
                .ok_or_else(|| {
                    format!("'{s}' is not a device; use auto, cpu, cuda, cuda:N or tensorrt")
                }),
        }
    }
}

impl Serialize for Device {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Device {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// Where a session really runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// The CPU.
    Cpu,
    /// CUDA.
    Cuda,
    /// TensorRT, with CUDA for what it cannot take.
    TensorRt,
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Provider::Cpu => "CPU",
            Provider::Cuda => "CUDA",
            Provider::TensorRt => "TensorRT",
        })
    }
}

/// The loaded library with its environment. Cloning shares it.
#[derive(Clone)]
pub struct Runtime {
    pub(super) environment: Environment,
    library: PathBuf,
}

impl Runtime {
    /// Finds and loads the library: ORT_DYLIB_PATH, then `.deps/onnxruntime` and `lib` beside the program and above it,
    /// then `lib` in the data folder (`~/.local/share/twintrack`), then the system's.
    ///
    /// # Errors
    /// When there is none, or it does not load.
    pub fn load() -> Result<Self, InferError> {
        // One environment a process: a second would be told that the first is there.
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

    /// Whether the library was built with CUDA; a GPU may still be missing.
    pub fn has_cuda() -> bool {
        ort::ep::CUDA::is_available().unwrap_or(false)
    }

    /// Whether the library was built with TensorRT; a GPU may still be missing.
    pub fn has_tensorrt() -> bool {
        ort::ep::TensorRT::is_available().unwrap_or(false)
    }

    /// The library's own description: version and build.
    pub fn build_info() -> &'static str {
        ort::info()
    }
}

/// The CUDA provider names the CUDA and cuDNN libraries without saying where they are: those that `make setup-gpu` laid
/// beside it are loaded first.
fn preload_cuda(library: &Path) {
    let Some(folder) = library
        .parent()
        .filter(|f| f.join("libcudart.so.13").exists())
    else {
        return;
    };
    if let Err(e) = ort::ep::cuda::preload_dylibs(Some(folder), Some(folder)) {
        tracing::info!(folder = %folder.display(), error = %e, "cannot load all CUDA libraries beside ONNX Runtime");
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
                looked: format!("ORT_DYLIB_PATH={}", path.display()),
            })
        };
    }
    let places = library_places();
    let found = places.iter().map(|p| p.join(NAME)).find(|p| p.is_file());
    found.ok_or_else(|| InferError::LibraryMissing {
        looked: places
            .iter()
            .map(|p| p.display().to_string())
            .collect::<Vec<_>>()
            .join(", "),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_read_and_write_alike() {
        for text in ["auto", "cpu", "cuda:0", "cuda:3", "tensorrt"] {
            assert_eq!(text.parse::<Device>().expect("a device").to_string(), text);
        }
        assert_eq!("cuda".parse::<Device>(), Ok(Device::Cuda(0)));
        assert!("gpu".parse::<Device>().unwrap_err().contains("cuda:N"));
    }
}
