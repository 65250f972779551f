//! Third-party networks: the catalogue, downloads, and the importer of OpenVINO IR. Downloads
//! happen only on request.

pub mod catalogue;
pub mod digest;
pub mod download;
pub mod error;
pub mod folder;
pub mod ir;
pub mod openvino;

pub use catalogue::{Catalogue, CatalogueEntry, Format};
pub use error::ModelsError;
pub use folder::ModelFolder;
