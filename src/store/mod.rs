//! The history: tracks, events, crops, embeddings and identities in SQLite or PostgreSQL.
//!
//! [`HistorySink`] hands events to the writer of a [`History`], which also answers questions.

mod box_samples;
mod condition;
pub mod config;
pub mod counts;
mod crops;
pub mod database;
pub mod error;
mod event_names;
pub mod events;
pub mod heat_map;
pub mod history;
pub mod identities;
mod jpeg;
mod lease_order;
pub(crate) mod live;
pub mod migrations;
mod open;
pub mod person_matching;
pub mod postgres;
pub mod query;
mod queue;
mod readers;
pub mod retention;
pub mod rows;
pub mod search;
pub mod sink;
pub mod sqlite;
pub mod statistics;
pub mod tracks;
pub mod vectors;
pub mod write;
mod writer;

pub use config::{HistoryConfig, KeepDays};
pub use error::StoreError;
pub use history::History;
pub use sink::HistorySink;
