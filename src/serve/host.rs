//! Refuses requests that do not say unambiguously which host they are for (RFC 9112, 3.2): of several
//! hosts, a proxy and this server could use different ones.

use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::serve::problem::Problem;

/// Middleware of all routes.
pub async fn require_host(request: Request, next: Next) -> Response {
    if is_valid(request.version(), request.headers()) {
        return next.run(request).await;
    }
    let detail = "a request must have one header Host, which is text";
    Problem::new(StatusCode::BAD_REQUEST, "host", detail).into_response()
}

/// Whether there is one host, or none in a request of a version that has no such header.
fn is_valid(version: Version, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().is_ok(),
        (None, _) => version < Version::HTTP_11,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_request_has_one_host() {
        let valid = |version, hosts: &[&[u8]]| {
            let mut headers = HeaderMap::new();
            for host in hosts {
                let value = HeaderValue::from_bytes(host).expect("a value");
                headers.append(header::HOST, value);
            }
            is_valid(version, &headers)
        };
        for version in [Version::HTTP_10, Version::HTTP_11] {
            assert!(valid(version, &[b"localhost:8090"]) && valid(version, &[b""]));
            assert!(!valid(version, &[b"localhost", b"localhost"]));
            assert!(!valid(version, &[b"localhost", b"evil.example"]));
            assert!(!valid(version, &[b"\xff"]));
        }
        assert!(valid(Version::HTTP_10, &[]) && !valid(Version::HTTP_11, &[]));
    }
}
