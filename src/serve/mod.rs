//! The web server of `twintrack serve` (pages, live events, latest frames as JPEG, health, metrics,
//! access control), and the configuration file of `twintrack serve`.

pub mod access;
mod api;
mod assets;
pub mod camera_settings;
mod conditional;
pub mod config;
mod connections;
mod count_metrics;
pub mod drawn_shapes;
mod headers;
pub mod health;
mod host;
pub mod hub;
pub mod json_body;
pub mod live;
pub mod live_event;
mod metric_family;
pub mod metrics;
pub mod openapi;
pub mod operation;
pub mod pages;
pub mod people;
pub mod problem;
mod query;
pub mod replay;
pub mod routes;
pub mod schema;
pub mod server;
pub mod service;
pub mod stage_metrics;
mod state_file;
mod stream_end;
pub mod tls;
mod video;

pub use config::ServiceConfig;
