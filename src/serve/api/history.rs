//! Questions to the history from handlers.

use std::time::Duration;

use axum::http::StatusCode;

use crate::serve::operation::Operation;
use crate::serve::problem::Problem;
use crate::serve::service::Service;
use crate::store::{History, StoreError};

/// Time after which a client may try again if the database cannot be used.
const RETRY_AFTER: Duration = Duration::from_secs(5);

impl Service {
    /// The history, if it is kept.
    ///
    /// # Errors
    /// 404 if it is not.
    pub(super) fn history(&self) -> Result<&History, Problem> {
        self.history.as_ref().ok_or_else(|| {
            Problem::new(
                StatusCode::NOT_FOUND,
                "no-history",
                "this service keeps no history; add the section [history] to its configuration",
            )
        })
    }

    /// Asks the history, on a thread for blocking work.
    ///
    /// # Errors
    /// 404 without a history, and the problem of the error.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&History) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Problem> {
        let history = self.history()?.clone();
        let asked = tokio::task::spawn_blocking(move || question(&history)).await;
        let answer = asked.map_err(|e| Problem::internal("read the history", e))?;
        answer.map_err(problem)
    }
}

/// The problem of an error of the history.
pub(super) fn problem(error: StoreError) -> Problem {
    match error {
        StoreError::Argument { argument, reason } => Problem::field(argument, reason),
        StoreError::Exists(_) => Problem::new(StatusCode::CONFLICT, "exists", error.to_string())
            .with_field(Some("name".into())),
        StoreError::Missing(_) => Problem::not_found(error.to_string()),
        error if error.is_transient() => {
            tracing::warn!(%error, "a question to the history failed");
            let detail = "the history cannot be used at present; try again later";
            Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "history-unavailable",
                detail,
            )
            .with_retry_after(RETRY_AFTER)
        }
        error => Problem::internal("read the history", error),
    }
}

impl Operation {
    /// States the problems of routes that ask the history.
    pub(super) fn of_history(self) -> Self {
        self.problem(
            StatusCode::NOT_FOUND,
            "no-history",
            "this service keeps no history",
        )
        .problem(
            StatusCode::UNPROCESSABLE_ENTITY,
            "invalid-field",
            "a value is not allowed; `field` names it",
        )
        .problem(
            StatusCode::SERVICE_UNAVAILABLE,
            "history-unavailable",
            "the database cannot be used at present",
        )
    }
}
