//! Conditional requests: JSON answers with an entity tag, and 304 for clients that have the answer.

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::serve::problem::Problem;

/// A JSON answer with an entity tag made of its content (RFC 9110, 8.8.3).
#[derive(Debug)]
pub struct Tagged<T>(pub T);

/// Marks an answer that gets an entity tag.
#[derive(Clone)]
struct Marked;

impl<T: Serialize> IntoResponse for Tagged<T> {
    fn into_response(self) -> Response {
        let mut response = Json(self.0).into_response();
        response.extensions_mut().insert(Marked);
        let always_ask = HeaderValue::from_static("private, no-cache");
        response
            .headers_mut()
            .insert(header::CACHE_CONTROL, always_ask);
        response
    }
}

/// The entity tag of a content.
pub fn entity_tag(content: &[u8]) -> String {
    let digest = Sha256::digest(content);
    let hex: String = digest[..16].iter().map(|b| format!("{b:02x}")).collect();
    format!("\"{hex}\"")
}

/// Whether a list of entity tags, as in If-None-Match and If-Match, has this one or `*`.
pub fn has_tag(headers: &HeaderMap, name: header::HeaderName, tag: &str) -> bool {
    let tags = headers.get_all(name).iter().filter_map(|v| v.to_str().ok());
    let mut tags = tags.flat_map(|v| v.split(',')).map(str::trim);
    // Proxies that compress an answer make its tag a weak one.
    tags.any(|t| t == "*" || t.trim_start_matches("W/") == tag)
}

/// Middleware: gives answers made of [`Tagged`] their entity tag, and answers with 304 if the
/// client has the same.
pub async fn conditional(request: Request, next: Next) -> Response {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let headers = request.headers().clone();
    let response = next.run(request).await;
    let marked = response.extensions().get::<Marked>().is_some();
    if !marked || !reads || response.status() != StatusCode::OK {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    // The body is in memory already.
    let bytes = match to_bytes(body, usize::MAX).await {
        Ok(bytes) => bytes,
        Err(error) => return Problem::internal("make the answer", error).into_response(),
    };
    let tag = entity_tag(&bytes);
    let known = has_tag(&headers, header::IF_NONE_MATCH, &tag);
    if let Ok(value) = HeaderValue::from_str(&tag) {
        parts.headers.insert(header::ETAG, value);
    }
    if known {
        parts.status = StatusCode::NOT_MODIFIED;
        parts.headers.remove(header::CONTENT_TYPE);
        parts.headers.remove(header::CONTENT_LENGTH);
        return Response::from_parts(parts, Body::empty());
    }
    Response::from_parts(parts, Body::from(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_of_lists_are_compared() {
        let mut headers = HeaderMap::new();
        let has = |headers: &HeaderMap, tag| has_tag(headers, header::IF_NONE_MATCH, tag);
        assert!(!has(&headers, "\"a\""));
        headers.append("if-none-match", HeaderValue::from_static("\"b\", W/\"a\""));
        assert!(has(&headers, "\"a\"") && has(&headers, "\"b\"") && !has(&headers, "\"c\""));
        headers.append("if-none-match", HeaderValue::from_static("*"));
        assert!(has(&headers, "\"c\""));
        assert_eq!(entity_tag(b"x"), entity_tag(b"x"));
        assert_ne!(entity_tag(b"x"), entity_tag(b"y"));
    }
}
