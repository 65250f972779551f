//! What `twintrack serve` shows of itself: live events, pictures, state and metrics over HTTP.

pub mod auth;
pub mod config;
pub mod health;
pub mod hub;
pub mod live;
pub mod metrics;
pub mod server;
pub mod stage_metrics;

pub use config::ServiceConfig;
