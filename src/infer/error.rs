//! Errors of networks and of ONNX Runtime.

use std::path::PathBuf;

use crate::infer::device::Device;
use thiserror::Error;

/// Errors of finding, opening and running a network.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum InferError {
    /// The ONNX Runtime library was not found.
    #[error(
        "the ONNX Runtime library was not found (looked in: {searched}); run `make setup`, or set \
         ORT_DYLIB_PATH to a libonnxruntime.so"
    )]
    LibraryMissing {
        /// Files and folders that were searched.
        searched: String,
    },
    /// The ONNX Runtime library was found but cannot be loaded.
    #[error(
        "cannot load ONNX Runtime from {}: {reason}; run `make setup` again, or set \
         ORT_DYLIB_PATH to a libonnxruntime.so of version 1.31 or newer",
        path.display()
    )]
    LibraryBroken {
        /// The library.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// The path of a network's file has a folder part, and no file is there.
    #[error(
        "the file {} does not exist; correct the path (--detector, --embedder or `model` in the \
         configuration), or give a name without a folder to search the folders of models",
        path.display()
    )]
    NoSuchFile {
        /// The path.
        path: PathBuf,
    },
    /// No folder of models has a network of this name.
    #[error(
        "the network {} was not found (looked in: {searched}); {hint}name a file with --detector \
         or --embedder, download one of `twintrack models list` with `twintrack models get NAME`, \
         or set TWINTRACK_MODELS to the folder of models",
        path.display()
    )]
    ModelMissing {
        /// The requested file.
        path: PathBuf,
        /// Files and folders that were searched.
        searched: String,
        /// Another remedy, ending in "; otherwise ", or empty.
        hint: String,
    },
    /// A model cannot be loaded.
    #[error("cannot load the model {}: {reason}", path.display())]
    ModelBroken {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// A model's inputs, outputs or metadata are unsuitable.
    #[error("cannot use the model {}: {problem}", path.display())]
    ModelShape {
        /// The file.
        path: PathBuf,
        /// The unsuitable property, and the required one.
        problem: String,
    },
    /// The requested device cannot be used.
    #[error(
        "the device {device} cannot be used: {reason}; use --device cpu, or run `make setup-gpu` \
         and `twintrack doctor`"
    )]
    Device {
        /// The device.
        device: Device,
        /// The reason.
        reason: String,
    },
    /// A run failed.
    #[error("running the model {} on an input of shape {shape:?} failed: {reason}", path.display())]
    Run {
        /// The model.
        path: PathBuf,
        /// The input's shape.
        shape: Vec<usize>,
        /// The reason.
        reason: String,
    },
}
