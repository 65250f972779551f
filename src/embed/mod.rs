//! Embedding: maps the crops of a frame, in one batch, to vectors with one tower of the Siamese
//! network.

pub mod embedder;
mod output;

pub use embedder::{Embedder, EmbedderConfig, People};
