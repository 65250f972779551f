//! Convolution and batch normalisation for the CPU, with their derivatives, where burn's `flex` backend goes element by
//! element; other backends keep burn's own.
//!
//! Reading order: [`shape`], [`backend`] (what the networks call), [`autodiff`] (how it enters the tape), [`convolution`],
//! [`depthwise`], [`normalisation`] and [`weighing`] (the loops; the innermost in `wide`), [`product`] (of matrices).

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
