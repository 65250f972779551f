//! The commands of `twintrack`, one file each, and the code that they share. A command parses its
//! options, opens inputs and outputs, and calls the library, which has the algorithms.

#[cfg(feature = "serve")]
pub mod accounts;
#[cfg(feature = "serve")]
pub mod bench;
pub mod compare;
pub mod detections;
pub mod doctor;
pub mod evaluate;
#[cfg(feature = "serve")]
pub mod fleet;
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
pub mod scenes;
pub mod search;
pub mod sequences;
#[cfg(feature = "serve")]
pub mod serve;
pub mod settings;
pub mod show;
pub(crate) mod signals;
pub(crate) mod telemetry;
#[cfg(feature = "serve")]
pub mod token;
pub mod track;
pub mod tune;
#[cfg(feature = "serve")]
pub mod user;
