//! Networks that others have trained: the catalogue, downloads, and the importer of OpenVINO IR. Nothing here is downloaded
//! unless asked for.

pub mod catalogue;
pub mod digest;
pub mod download;
pub mod error;
pub mod folder;
pub mod ir;
pub mod openvino;

pub use catalogue::{Catalogue, Entry, Format};
pub use error::ModelsError;
pub use folder::Folder;
