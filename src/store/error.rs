//! Errors of the history.

use thiserror::Error;

/// Errors of the history. Messages never hold the database's address with its password.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The settings are invalid, or a secret or file that they name cannot be read.
    #[error("history: {0}")]
    Settings(String),
    /// The database cannot be opened or created.
    #[error("cannot open the history {database}: {reason}")]
    Open {
        /// The file, or host and name of the database.
        database: String,
        /// The cause.
        reason: String,
    },
    /// A newer version of the program has written the database.
    #[error(
        "the history has version {found} of its tables, and this program knows versions up to \
         {known}: start the newer program, or move the history away"
    )]
    Newer {
        /// Version of the database.
        found: i64,
        /// Newest version that this program knows.
        known: i64,
    },
    /// The database is locked, disconnected, being shut down, or its disk is full. Trying again
    /// later can succeed.
    #[error("the history cannot be used at present: {0}")]
    Unavailable(String),
    /// The database refuses a statement. Trying again cannot succeed.
    #[error("the history refuses a statement: {0}")]
    Statement(String),
    /// A value in the database is not of the type that this program writes.
    #[error("the history has an unexpected value: {0}")]
    Value(String),
    /// An argument of a question to the history is invalid. Names the argument.
    #[error("{argument}: {reason}")]
    Argument {
        /// The argument.
        argument: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A name that is to be enrolled or given is in use.
    #[error("the identity '{0}' exists already")]
    Exists(String),
    /// What was asked for is not in the history.
    #[error("the history has no {0}")]
    Missing(String),
    /// The writer has ended, or did not commit in time.
    #[error("the history did not commit within {0:.1} s")]
    Timeout(f64),
}

impl StoreError {
    /// Whether trying again later can succeed.
    pub fn is_transient(&self) -> bool {
        matches!(self, StoreError::Unavailable(_))
    }
}
