//! Crops in, embeddings out: one tower of the Siamese network, all people of a frame in one batch.

pub mod embedder;

pub use embedder::{Embedder, EmbedderConfig};
