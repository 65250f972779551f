//! Convolution and batch normalisation for the CPU, with their derivatives. They replace the
//! operations of burn's `flex` backend, which computes element by element; other backends use
//! burn's operations.
//!
//! Reading order: [`shape`], [`backend`] (the operations that networks use), [`autodiff`] (their
//! derivatives for burn), [`convolution`], [`depthwise`], [`normalisation`] and [`plane_ops`] (the
//! loops; the innermost are in `simd_loops`), [`matmul`] (matrices). `cuda`
//! and `torch` are the other backends.

pub mod activation;
pub mod autodiff;
pub mod backend;
pub mod convolution;
#[cfg(any(test, feature = "train-cuda"))]
mod cuda;
pub mod depthwise;
pub mod matmul;
pub mod normalisation;
pub mod parallel_fill;
pub mod plane_ops;
pub mod shape;
mod simd_loops;
#[cfg(feature = "train-torch")]
pub mod torch;
