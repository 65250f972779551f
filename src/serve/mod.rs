//! The HTTP side of `twintrack serve` (page, live events, pictures, health, metrics), and its
//! configuration file.

pub mod auth;
pub mod config;
mod connections;
pub mod health;
pub mod hub;
pub mod live;
pub mod metrics;
pub mod schema;
pub mod server;
pub mod service;
pub mod stage_metrics;

pub use config::ServiceConfig;
