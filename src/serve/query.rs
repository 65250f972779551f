//! Parameters of requests in the path and in the query, with problems that name the invalid one.

use axum::extract::FromRequestParts;
use axum::extract::rejection::PathRejection;
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use crate::serve::problem::Problem;

/// The query of a request, without the `token` that authenticates it. The answer to an invalid one
/// is 400.
#[derive(Debug)]
pub struct QueryOf<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for QueryOf<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parse(parts.uri.query().unwrap_or_default()).map(QueryOf)
    }
}

/// Parses a query.
///
/// # Errors
/// 400 if a parameter is unknown, missing, repeated or of another type.
pub fn parse<T: DeserializeOwned>(query: &str) -> Result<T, Problem> {
    let own = query.split('&').filter(|pair| {
        let name = pair.split('=').next().unwrap_or_default();
        name != "token" && !name.is_empty()
    });
    let own: Vec<&str> = own.collect();
    let text = own.join("&");
    let pairs = form_urlencoded::parse(text.as_bytes());
    let parsed = serde_path_to_error::deserialize(serde_urlencoded::Deserializer::new(pairs));
    parsed.map_err(|e| {
        let path = e.path().to_string();
        let detail = e.into_inner().to_string();
        let field = if path == "." {
            // Of unknown and missing parameters the message has the name in backticks.
            detail.split('`').nth(1).map(str::to_string)
        } else {
            Some(path)
        };
        Problem::new(StatusCode::BAD_REQUEST, "invalid-query", detail).with_field(field)
    })
}

/// The parameters in the path of a request. The answer to an invalid one is 404, because there is
/// nothing at such an address.
#[derive(Debug)]
pub struct PathOf<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for PathOf<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read = axum::extract::Path::<T>::from_request_parts(parts, state).await;
        let invalid = |rejection: PathRejection| Problem::not_found(rejection.body_text());
        read.map(|path| PathOf(path.0)).map_err(invalid)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        name: Option<String>,
        limit: Option<usize>,
    }

    #[test]
    fn a_query_is_parsed_without_the_token_and_errors_name_the_parameter() {
        let sample = parse::<Sample>("token=a%20b&name=x%26y+z&limit=3").expect("valid");
        let wanted = Sample {
            name: Some("x&y z".into()),
            limit: Some(3),
        };
        assert_eq!(sample, wanted);
        assert!(parse::<Sample>("").is_ok() && parse::<Sample>("&token=x&").is_ok());
        let field = |query: &str| {
            let problem = parse::<Sample>(query).expect_err("invalid");
            let value = serde_json::to_value(&problem).expect("serialises");
            assert_eq!(value["status"], 400, "{query}");
            value["field"].as_str().unwrap_or_default().to_string()
        };
        assert_eq!(field("limit=-1"), "limit");
        assert_eq!(field("limit=many"), "limit");
        assert_eq!(field("more=1"), "more");
        assert_eq!(field("limit=1&limit=2"), "limit");
    }
}
