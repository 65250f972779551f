//! Embedding: maps the crops of a frame, in one batch, to vectors with one tower of the Siamese
//! network.

mod crops;
pub mod embedder;
mod output;

pub use crops::Crops;
pub use embedder::{Embedder, EmbedderConfig, People};
