//! Authorisation of HTTP requests.
//!
//! If a token is configured, a request must contain it; otherwise only requests to a loopback
//! address are allowed. Requests from web pages of other origins are rejected in both cases.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use subtle::ConstantTimeEq as _;

use crate::secret::Secret;

/// Name of the cookie in which a browser sends the token after it has opened `/?token=…`.
const COOKIE: &str = "twintrack_token";

/// Decides which requests are authorised.
#[derive(Clone)]
pub struct Authorizer {
    /// The token that a request must contain, if any.
    pub token: Option<Arc<Secret>>,
}

fn header_text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name).and_then(|v| v.to_str().ok())
}

/// The host of `host:port`, or of `scheme://host:port`.
fn host(of: &str) -> &str {
    let rest = of.split_once("://").map_or(of, |(_, rest)| rest);
    match rest.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or(v6),
        None => rest.split(':').next().unwrap_or(rest),
    }
}

impl Authorizer {
    /// Whether the request contains the token: as a bearer token, in the cookie, or as `?token=`.
    /// True if no token is required.
    fn has_token(&self, headers: &HeaderMap, query: Option<&str>) -> bool {
        let Some(token) = &self.token else {
            return true;
        };
        let bearer = header_text(headers, header::AUTHORIZATION)
            .and_then(|v| v.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("Bearer"))
            .map(|(_, token)| token.trim_start());
        let cookies = header_text(headers, header::COOKIE)
            .unwrap_or_default()
            .split(';');
        let cookie = cookies
            .filter_map(|c| c.trim().split_once('='))
            .find(|(name, _)| *name == COOKIE)
            .map(|(_, value)| value);
        // The comparison takes constant time: the time does not depend on the number of equal
        // characters.
        [bearer, cookie, token_in_query(query)]
            .into_iter()
            .flatten()
            .any(|given| {
                !given.is_empty() && given.as_bytes().ct_eq(token.expose().as_bytes()).into()
            })
    }

    /// Whether a request with these headers and query is authorised.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn admits(&self, headers: &HeaderMap, query: Option<&str>) -> bool {
        !self.is_foreign(headers) && self.has_token(headers, query)
    }

    /// Whether the request comes from a web page of another origin. If no token is configured, also
    /// whether it was sent to a host name other than loopback, as an attack by DNS rebinding does.
    fn is_foreign(&self, headers: &HeaderMap) -> bool {
        let requested = header_text(headers, header::HOST).unwrap_or_default();
        let origin = header_text(headers, header::ORIGIN).is_some_and(|o| {
            o.split_once("://")
                .is_none_or(|(_, rest)| rest != requested)
        });
        let name = host(requested);
        let loopback = name == "localhost"
            || name
                .parse::<std::net::IpAddr>()
                .is_ok_and(|ip| ip.is_loopback());
        origin || (self.token.is_none() && !loopback)
    }
}

fn token_in_query(query: Option<&str>) -> Option<&str> {
    query
        .unwrap_or_default()
        .split('&')
        .filter_map(|p| p.split_once('='))
        .find(|(name, _)| *name == "token")
        .map(|(_, value)| value)
}

/// Middleware: forwards authorised requests, and responds to others with 401 or 403.
pub async fn authorize(
    State(authorizer): State<Authorizer>,
    request: Request,
    next: Next,
) -> Response {
    let (headers, query) = (request.headers(), request.uri().query());
    if authorizer.is_foreign(headers) {
        return (
            StatusCode::FORBIDDEN,
            "the request has another host name or origin; \
             to reach twintrack under names other than localhost, set serve.token\n",
        )
            .into_response();
    }
    if !authorizer.has_token(headers, query) {
        let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
        return (
            StatusCode::UNAUTHORIZED,
            challenge,
            "a token is required: send `Authorization: Bearer …`, \
             or open /?token=… once in a browser\n",
        )
            .into_response();
    }
    // Browsers show and store the page's address, so the token is moved from the address to a
    // cookie.
    if request.uri().path() == "/" && token_in_query(query).is_some() {
        let token = authorizer.token.as_ref().map_or("", |t| t.expose());
        if let Ok(cookie) = header::HeaderValue::from_str(&format!(
            "{COOKIE}={token}; HttpOnly; SameSite=Strict; Path=/"
        )) {
            return ([(header::SET_COOKIE, cookie)], Redirect::to("/")).into_response();
        }
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(header::HeaderName, &str)]) -> HeaderMap {
        all.iter()
            .map(|(n, v)| {
                (
                    n.clone(),
                    header::HeaderValue::from_str(v).expect("a value"),
                )
            })
            .collect()
    }

    #[test]
    fn the_token_is_required_and_accepted_in_header_cookie_and_query() {
        let authorizer = Authorizer {
            token: Some(Arc::new(Secret::new("0123456789abcdef"))),
        };
        assert!(
            !authorizer.has_token(&headers(&[]), None)
                && !authorizer.has_token(
                    &headers(&[(header::AUTHORIZATION, "Bearer 0123456789abcdeX")]),
                    None
                )
        );
        assert!(authorizer.has_token(
            &headers(&[(header::AUTHORIZATION, "Bearer 0123456789abcdef")]),
            None
        ));
        assert!(authorizer.has_token(
            &headers(&[(header::AUTHORIZATION, "bearer 0123456789abcdef")]),
            None
        ));
        assert!(authorizer.has_token(
            &headers(&[(header::COOKIE, "a=b; twintrack_token=0123456789abcdef")]),
            None
        ));
        let blank = Authorizer {
            token: Some(Arc::new(Secret::new(""))),
        };
        assert!(
            !blank.has_token(&headers(&[]), Some("token="))
                && !blank.has_token(&headers(&[(header::AUTHORIZATION, "Bearer ")]), None)
        );
        assert!(
            authorizer.has_token(&headers(&[]), Some("cameras=a&token=0123456789abcdef"))
                && !authorizer.has_token(&headers(&[]), Some("token="))
        );
    }

    #[test]
    fn requests_of_other_origins_and_host_names_are_foreign() {
        let (open, closed) = (
            Authorizer { token: None },
            Authorizer {
                token: Some(Arc::new(Secret::new("0123456789abcdef"))),
            },
        );
        let request = |host, origin: Option<&str>| {
            let mut all = vec![(header::HOST, host)];
            all.extend(origin.map(|o| (header::ORIGIN, o)));
            headers(&all)
        };
        for (host, origin, foreign) in [
            ("127.0.0.1:8090", None, false),
            ("localhost:8090", Some("http://localhost:8090"), false),
            ("[::1]:8090", None, false),
            ("127.0.0.1:8090", Some("https://evil.example"), true),
            ("127.0.0.1:8090", Some("null"), true),
            ("evil.example:8090", None, true),
        ] {
            assert_eq!(
                open.is_foreign(&request(host, origin)),
                foreign,
                "{host} {origin:?}"
            );
        }
        assert!(
            !closed.is_foreign(&request("gate.example", Some("https://gate.example")))
                && closed.is_foreign(&request("gate.example", Some("https://evil.example")))
        );
    }
}
