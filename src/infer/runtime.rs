//! Finds and loads the ONNX Runtime library; the devices that it can be asked to use.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::OnceLock;

use ort::environment::Environment;
use ort::ep::ExecutionProvider as _;
use serde::{Deserialize, Serialize};

use crate::infer::error::InferError;
use crate::infer::paths::library_places;

/// Device that networks are to run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Device {
    /// CUDA where it works, otherwise the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The NVIDIA GPU of this number; opening a model fails when it cannot be used.
    Cuda(i32),
    /// TensorRT on the first NVIDIA GPU; opening a model fails when it cannot be used.
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

/// Execution provider that a session uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// The CPU.
    Cpu,
    /// CUDA.
    Cuda,
    /// TensorRT, with CUDA for the operations that TensorRT lacks.
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

/// Loads the CUDA and cuDNN libraries that `make setup-gpu` put beside ONNX Runtime: its CUDA
/// provider refers to them by name only, so the loader would not find them there.
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
    fn devices_survive_formatting_and_parsing() {
        for text in ["auto", "cpu", "cuda:0", "cuda:3", "tensorrt"] {
            assert_eq!(text.parse::<Device>().expect("a device").to_string(), text);
        }
        assert_eq!("cuda".parse::<Device>(), Ok(Device::Cuda(0)));
        assert!("gpu".parse::<Device>().unwrap_err().contains("cuda:N"));
    }
}
