//! Errors of a fleet.

use thiserror::Error;

use crate::sink::SinkError;

/// The fleet's NATS server cannot be used, or holds something unexpected.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FleetError {
    /// The settings of the connection are invalid.
    #[error(transparent)]
    Settings(#[from] SinkError),
    /// The server cannot be reached, or refuses the login.
    #[error("cannot connect to the NATS server {server}: {reason}")]
    Connect {
        /// The servers, without secrets.
        server: String,
        /// The cause.
        reason: String,
    },
    /// The server does not answer, or refuses a request.
    #[error("the NATS server cannot {action}: {reason}")]
    Request {
        /// What was asked for.
        action: &'static str,
        /// The cause.
        reason: String,
    },
    /// The history cannot store events of the fleet.
    #[error("the history cannot store the fleet's events: {0}")]
    History(String),
    /// Another program has changed a record since it was read.
    #[error("the record '{0}' has changed since it was read")]
    Changed(String),
    /// A record is not what this version of the program writes.
    #[error("the record '{key}' is invalid: {reason}")]
    Record {
        /// Its key.
        key: String,
        /// The cause.
        reason: String,
    },
    /// A camera cannot be one of a fleet.
    #[error("cameras.{camera}: {reason}")]
    Camera {
        /// Its name.
        camera: String,
        /// The cause.
        reason: String,
    },
}

impl FleetError {
    /// The error of a request.
    pub(super) fn request(action: &'static str, reason: impl std::fmt::Display) -> Self {
        let reason = reason.to_string();
        FleetError::Request { action, reason }
    }
}
