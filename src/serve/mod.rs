//! The web server of `twintrack serve` (pages, live events, latest frames as JPEG, health, metrics,
//! access control), and the configuration file of `twintrack serve`.

pub mod access;
mod assets;
pub mod config;
mod connections;
mod count_metrics;
mod headers;
pub mod health;
pub mod hub;
pub mod json_body;
pub mod live;
mod metric_family;
pub mod metrics;
pub mod pages;
pub mod problem;
pub mod routes;
pub mod schema;
pub mod server;
pub mod service;
pub mod stage_metrics;
pub mod tls;

pub use config::ServiceConfig;
