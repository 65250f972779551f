//! Who is let in: whoever shows the token; without one, this machine itself, and no web page of somebody else's in its browser.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};

use crate::secret::Secret;

/// The cookie that a browser shows after it has once shown the token.
const COOKIE: &str = "twintrack_token";

/// The guard at the door.
#[derive(Clone)]
pub struct Guard {
    /// What must be shown.
    pub token: Option<Arc<Secret>>,
}

/// Compares without telling by its time how much was right.
fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    a.len() == b.len() && a.iter().zip(b).fold(0u8, |differ, (x, y)| differ | (x ^ y)) == 0
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
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

impl Guard {
    /// Whether the request shows the token: as a bearer, in the cookie, or as `?token=`.
    fn shown(&self, headers: &HeaderMap, query: Option<&str>) -> bool {
        let Some(token) = &self.token else {
            return true;
        };
        let bearer = text(headers, header::AUTHORIZATION).and_then(|v| v.strip_prefix("Bearer "));
        let cookies = text(headers, header::COOKIE).unwrap_or_default().split(';');
        let cookie = cookies
            .filter_map(|c| c.trim().split_once('='))
            .find(|(name, _)| *name == COOKIE)
            .map(|(_, value)| value);
        [bearer, cookie, in_query(query)]
            .into_iter()
            .flatten()
            .any(|shown| !shown.is_empty() && same(shown, token.expose()))
    }

    /// Whether a request with these headers and query is let in.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn admits(&self, headers: &HeaderMap, query: Option<&str>) -> bool {
        !self.foreign(headers) && self.shown(headers, query)
    }

    /// Whether a browser asks for a page of somebody else's: by its origin, or by a name that is not this machine's.
    fn foreign(&self, headers: &HeaderMap) -> bool {
        let asked = text(headers, header::HOST).unwrap_or_default();
        let origin = text(headers, header::ORIGIN)
            .is_some_and(|o| o.split_once("://").is_none_or(|(_, rest)| rest != asked));
        let name = host(asked);
        let mine = name == "localhost"
            || name
                .parse::<std::net::IpAddr>()
                .is_ok_and(|ip| ip.is_loopback());
        origin || (self.token.is_none() && !mine)
    }
}

fn in_query(query: Option<&str>) -> Option<&str> {
    query
        .unwrap_or_default()
        .split('&')
        .filter_map(|p| p.split_once('='))
        .find(|(name, _)| *name == "token")
        .map(|(_, value)| value)
}

/// Lets a request in, or answers 401 or 403.
pub async fn guard(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let (headers, query) = (request.headers(), request.uri().query());
    if guard.foreign(headers) {
        return (StatusCode::FORBIDDEN, "this page belongs to another name or origin; to reach twintrack by other names than localhost, set serve.token\n")
            .into_response();
    }
    if !guard.shown(headers, query) {
        let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
        return (
            StatusCode::UNAUTHORIZED,
            challenge,
            "show the token: `Authorization: Bearer …`, or open /?token=… once in a browser\n",
        )
            .into_response();
    }
    // The page's address is shown and kept by browsers: the token goes out of it, into a cookie.
    if request.uri().path() == "/" && in_query(query).is_some() {
        let token = guard.token.as_ref().map_or("", |t| t.expose());
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
    fn the_token_is_asked_for_and_taken_in_three_ways() {
        let guard = Guard {
            token: Some(Arc::new(Secret::new("0123456789abcdef"))),
        };
        assert!(
            !guard.shown(&headers(&[]), None)
                && !guard.shown(
                    &headers(&[(header::AUTHORIZATION, "Bearer 0123456789abcdeX")]),
                    None
                )
        );
        assert!(guard.shown(
            &headers(&[(header::AUTHORIZATION, "Bearer 0123456789abcdef")]),
            None
        ));
        assert!(guard.shown(
            &headers(&[(header::COOKIE, "a=b; twintrack_token=0123456789abcdef")]),
            None
        ));
        let blank = Guard {
            token: Some(Arc::new(Secret::new(""))),
        };
        assert!(
            !blank.shown(&headers(&[]), Some("token="))
                && !blank.shown(&headers(&[(header::AUTHORIZATION, "Bearer ")]), None)
        );
        assert!(
            guard.shown(&headers(&[]), Some("cameras=a&token=0123456789abcdef"))
                && !guard.shown(&headers(&[]), Some("token="))
        );
    }

    #[test]
    fn somebody_else_s_page_is_sent_away() {
        let (open, closed) = (
            Guard { token: None },
            Guard {
                token: Some(Arc::new(Secret::new("0123456789abcdef"))),
            },
        );
        let ask = |host, origin: Option<&str>| {
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
                open.foreign(&ask(host, origin)),
                foreign,
                "{host} {origin:?}"
            );
        }
        assert!(
            !closed.foreign(&ask("gate.example", Some("https://gate.example")))
                && closed.foreign(&ask("gate.example", Some("https://evil.example")))
        );
    }
}
