//! Knowledge distillation (Hinton et al. 2015): a small network learns to reproduce the embeddings
//! of a large one, the teacher. The pictures need no labels.
//!
//! Reading order: [`config`], [`teacher`] (any ONNX embedder), [`store`] (pictures and the
//! teacher's output, on disk), [`batches`] (filling the store and drawing batches), [`loss`].

pub mod batches;
pub mod config;
pub mod loss;
pub mod store;
pub mod teacher;
