//! Errors of the HTTP interface as `application/problem+json` (RFC 9457).

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// An error that a handler answers with. The `type` is `about:blank`, so `title` is the status's
/// name; `code` tells problems of one status apart.
#[derive(schemars::JsonSchema, Debug, Clone, PartialEq, Serialize)]
pub struct Problem {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    status: u16,
    code: &'static str,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    #[serde(skip)]
    retry_after: Option<Duration>,
}

impl Problem {
    /// A problem with a code of lower-case words and dashes, and a text for people, which must not
    /// contain secrets.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Problem {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            code,
            detail: detail.into(),
            field: None,
            retry_after: None,
        }
    }

    /// 422: the value of a field, named as in `zones[0].points`, is not allowed.
    pub fn field(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-field", detail)
            .with_field(Some(field.into()))
    }

    /// 404 with a text that says what does not exist.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Problem::new(StatusCode::NOT_FOUND, "not-found", detail)
    }

    /// 500. The cause is logged and not sent.
    pub fn internal(action: &str, cause: impl std::fmt::Display) -> Self {
        tracing::error!(error = %cause, "cannot {action}");
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            format!("cannot {action}; the log of the service says why"),
        )
    }

    /// Names the field.
    pub fn with_field(mut self, field: Option<String>) -> Self {
        self.field = field;
        self
    }

    /// Tells the client when to try again (`Retry-After`).
    pub fn with_retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, after) = (self.status(), self.retry_after);
        let mut response = (status, Json(self)).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(after) = after {
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_problem_is_answered_as_rfc_9457_says() {
        let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "login-limit", "too many")
            .with_retry_after(Duration::from_millis(1200));
        let response = problem.into_response();
        let header = |name| response.headers().get(name).cloned();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(
            header("content-type").expect("set"),
            "application/problem+json"
        );
        assert_eq!(header("retry-after").expect("set"), "2");
        let body = axum::body::to_bytes(response.into_body(), 1000)
            .await
            .expect("in memory");
        let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(
            body,
            serde_json::json!({"type": "about:blank", "title": "Too Many Requests", "status": 429,
                               "code": "login-limit", "detail": "too many"})
        );
        let field = serde_json::to_value(Problem::field("name", "too long")).expect("serialises");
        assert_eq!(
            (&field["status"], &field["field"]),
            (&422.into(), &"name".into())
        );
    }
}
