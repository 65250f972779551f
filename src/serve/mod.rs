//! The web server of `twintrack serve` (page, live events, latest frames as JPEG, health, metrics),
//! and the configuration file of `twintrack serve`.

pub mod auth;
pub mod config;
mod connections;
mod count_metrics;
pub mod health;
pub mod hub;
pub mod live;
mod metric_family;
pub mod metrics;
pub mod schema;
pub mod server;
pub mod service;
pub mod stage_metrics;

pub use config::ServiceConfig;
