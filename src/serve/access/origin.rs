//! Detects requests that pages of other origins cause, by `Origin`, `Sec-Fetch-Site` and host name.

use std::net::IpAddr;

use axum::http::{HeaderMap, header};

/// The host of `host:port`.
fn host(of: &str) -> &str {
    match of.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or(v6),
        None => of.split(':').next().unwrap_or(of),
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get(name)
        .map(|v| v.to_str().unwrap_or("unreadable"))
}

/// Whether the `Origin` is that of the requested host; None without one.
fn origin_matches(headers: &HeaderMap, requested: &str) -> Option<bool> {
    text(headers, header::ORIGIN.as_str()).map(|origin| {
        origin
            .split_once("://")
            .is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(requested))
    })
}

/// Whether a request for the host `requested` comes from a page of another origin.
pub(super) fn is_foreign(headers: &HeaderMap, requested: &str) -> bool {
    origin_matches(headers, requested) == Some(false)
}

/// Whether a request for the host `requested` was sent by a page of the same origin, as browsers
/// state for requests that can change something.
pub(super) fn is_own(headers: &HeaderMap, requested: &str) -> bool {
    let origin = origin_matches(headers, requested);
    let site = text(headers, "sec-fetch-site").map(|site| site == "same-origin");
    [origin, site].iter().flatten().all(|own| *own) && (origin.is_some() || site.is_some())
}

/// Whether the requested host is this machine. Another name is the sign of an attack by DNS
/// rebinding.
pub(super) fn is_loopback(requested: &str) -> bool {
    let name = host(requested);
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(all: &[(&'static str, &str)]) -> HeaderMap {
        all.iter()
            .map(|(name, value)| {
                (
                    axum::http::HeaderName::from_static(name),
                    HeaderValue::from_str(value).expect("a value"),
                )
            })
            .collect()
    }

    #[test]
    fn requests_of_other_origins_are_foreign() {
        for (host, origin, foreign) in [
            ("127.0.0.1:8090", None, false),
            ("localhost:8090", Some("http://localhost:8090"), false),
            ("127.0.0.1:8090", Some("https://evil.example"), true),
            ("127.0.0.1:8090", Some("http://127.0.0.1:9999"), true),
            ("127.0.0.1:8090", Some("null"), true),
            ("gate.example", Some("https://gate.example"), false),
            ("gate.example", Some("https://evil.example"), true),
        ] {
            let all: Vec<_> = origin.map(|o| ("origin", o)).into_iter().collect();
            assert_eq!(
                is_foreign(&headers(&all), host),
                foreign,
                "{host} {origin:?}"
            );
        }
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for host in [
            "127.0.0.1:8090",
            "localhost",
            "LOCALHOST:1",
            "[::1]:8090",
            "127.9.9.9",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            "evil.example:8090",
            "localhost.evil.example",
            "10.0.0.1",
            "[::2]:1",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn a_request_is_own_if_the_browser_says_so() {
        let own = |all: &[(&'static str, &str)]| is_own(&headers(all), "gate.example");
        let origin = ("origin", "https://gate.example");
        assert!(own(&[origin]) && own(&[("sec-fetch-site", "same-origin")]));
        assert!(own(&[origin, ("sec-fetch-site", "same-origin")]));
        assert!(!own(&[]));
        assert!(!own(&[("sec-fetch-site", "same-site")]));
        assert!(!own(&[("sec-fetch-site", "none")]));
        assert!(!own(&[origin, ("sec-fetch-site", "cross-site")]));
        assert!(!own(&[
            ("origin", "https://evil.example"),
            ("sec-fetch-site", "same-origin")
        ]));
    }
}
