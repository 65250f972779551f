//! The commands, one file each. They combine the modules below and handle input and output; the
//! algorithms are elsewhere.

pub mod compare;
pub mod detections;
pub mod doctor;
pub mod evaluate;
pub mod identities;
pub mod linking;
pub mod manual;
pub mod message;
#[cfg(feature = "models")]
pub mod models;
pub mod networks;
pub mod options;
pub mod outputs;
pub mod refine;
pub mod search;
pub mod sequences;
#[cfg(feature = "serve")]
pub mod serve;
pub mod settings;
pub mod show;
pub(crate) mod signals;
pub mod track;
pub mod tune;
