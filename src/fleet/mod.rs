//! A fleet of workers that share cameras, on NATS JetStream.
//!
//! The cameras are records of a key-value bucket. Every worker ([`worker`]) is a `twintrack serve`
//! that reports regularly; one of them coordinates and writes, for each camera, a lease that names
//! its worker. A worker may track its cameras for a limited time after its last successful report
//! ([`config::LeaseTimes`], [`tenure`]), and its cameras are given to others after a longer time,
//! so that a camera has one worker at a time. The revision of the lease is in every event: where
//! events are read, those of an older lease than the newest one seen do not count. Leases of this
//! kind are those of Gray and Cheriton 1989; docs/design/fleet.md has the reasons.

pub mod assignment;
pub mod buckets;
pub mod capacity;
pub mod config;
mod coordinator;
pub mod error;
mod fleet_view;
pub mod history_consumer;
mod lease_changes;
pub mod live_feed;
pub mod overview;
pub mod records;
mod reporter;
pub mod simulation;
pub mod tenure;
pub mod worker;

pub use config::FleetConfig;
pub use error::FleetError;
