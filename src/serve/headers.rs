//! Headers that every answer of the web server has: what browsers may load, and where the answer
//! may be shown.

use std::sync::OnceLock;

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use sha2::{Digest as _, Sha256};

use crate::serve::access::client::Client;
use crate::serve::pages;

/// One year: browsers use https for this host, once they have done so.
const HSTS: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// Headers with the same value for every answer, except the content security policy.
const FIXED: [(HeaderName, HeaderValue); 6] = [
    (
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    ),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    ),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        HeaderValue::from_static("same-origin"),
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    ),
    (
        HeaderName::from_static("permissions-policy"),
        HeaderValue::from_static("camera=(), microphone=(), geolocation=()"),
    ),
];

/// Middleware: adds the headers. An answer without `Cache-Control` gets `no-store`.
pub async fn add_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    // The middleware that authenticates has left the client in the answer.
    let https = response
        .extensions()
        .get::<Client>()
        .is_some_and(|c| c.https);
    let headers = response.headers_mut();
    for (name, value) in FIXED {
        headers.insert(name, value);
    }
    headers.insert(header::CONTENT_SECURITY_POLICY, policy());
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    if https {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HSTS);
    }
    response
}

/// The content security policy: only files of this server, and only those inline scripts and styles
/// that are in the compiled-in pages, allowed by their hashes.
fn policy() -> HeaderValue {
    static POLICY: OnceLock<HeaderValue> = OnceLock::new();
    let make = || {
        let hashes = |tag: &str| {
            let all = pages::ALL.iter().flat_map(|page| inline(page, tag));
            all.map(|text| format!(" 'sha256-{}'", base64(&Sha256::digest(text.as_bytes()))))
                .collect::<String>()
        };
        let (scripts, styles) = (hashes("script"), hashes("style"));
        let text = format!(
            "default-src 'none'; script-src 'self'{scripts}; style-src 'self'{styles}; \
             img-src 'self' blob: data:; connect-src 'self'; font-src 'self'; manifest-src 'self'; \
             base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
        );
        HeaderValue::from_str(&text).expect("ASCII without control characters")
    };
    POLICY.get_or_init(make).clone()
}

/// The texts of a page's inline elements `<tag>`.
fn inline<'a>(page: &'a str, tag: &str) -> Vec<&'a str> {
    let (start, end) = (format!("<{tag}>"), format!("</{tag}>"));
    page.split(&start)
        .skip(1)
        .filter_map(|rest| rest.split_once(&end))
        .map(|(text, _)| text)
        .collect()
}

/// Base64 with padding (RFC 4648).
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut bits = 0u32;
        for n in 0..3 {
            bits = bits << 8 | u32::from(chunk.get(n).copied().unwrap_or(0));
        }
        for n in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * n) & 63) as usize];
            text.push(if n > chunk.len() { '=' } else { digit.into() });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_has_the_test_vectors_of_its_rfc() {
        for (text, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(text.as_bytes()), coded);
        }
    }

    #[test]
    fn the_policy_has_a_hash_for_every_inline_element() {
        let policy = policy();
        let policy = policy.to_str().expect("ASCII");
        let directive = |name: &str| {
            let found = policy.split("; ").find(|d| d.starts_with(name));
            found
                .unwrap_or_else(|| panic!("{name} is missing: {policy}"))
                .to_string()
        };
        let count =
            |tag: &str| -> usize { pages::ALL.iter().map(|page| inline(page, tag).len()).sum() };
        assert_eq!(
            directive("script-src").matches("'sha256-").count(),
            count("script")
        );
        assert_eq!(
            directive("style-src").matches("'sha256-").count(),
            count("style")
        );
        assert!(count("script") > 0);
        assert!(!policy.contains("unsafe") && directive("frame-ancestors").ends_with("'none'"));
        // Hashes do not cover these.
        for page in pages::ALL {
            for attribute in [
                " style=\"",
                "<style ",
                " onclick=",
                " onload=",
                "javascript:",
            ] {
                assert!(!page.contains(attribute), "{attribute}");
            }
        }
    }
}
