//! Convolution and batch normalisation for the CPU, with their derivatives. They replace those of
//! burn's `flex` backend, which proceeds element by element; other backends use burn's own.
//!
//! Reading order: [`shape`], [`backend`] (the operations that networks use), [`autodiff`] (their
//! derivatives for burn), [`convolution`], [`depthwise`], [`normalisation`] and [`weighing`] (the
//! loops; the innermost are in `wide`), [`product`] (matrices).

pub mod activation;
pub mod autodiff;
pub mod backend;
pub mod convolution;
pub mod depthwise;
pub mod made;
pub mod normalisation;
pub mod product;
pub mod shape;
pub mod weighing;
mod wide;
