//! Knowledge distillation (Hinton et al. 2015): a small network learns to embed pictures as a large one, the teacher, does.
//! Nobody has to know who is in the pictures.
//!
//! Reading order: [`config`], [`teacher`] (any ONNX embedder), [`store`] (pictures with the teacher's judgement, on disk),
//! [`lessons`] (who fills the store, and batches from it), [`loss`].

pub mod config;
pub mod lessons;
pub mod loss;
pub mod store;
pub mod teacher;
