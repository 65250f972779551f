//! The HTTP interface `/api/v1`: tracks, events, statistics, search, identities, shapes, exports.

mod events;
mod export;
mod export_mot;
mod export_parquet;
mod fleet;
mod history;
mod identities;
mod overview;
pub mod routes;
mod search;
mod shapes;
mod track_export;
mod tracks;
